//! Joins DICOMweb with what it reads from and stores to.
//!
//! In: `[dicomweb]`, the catalogue, the inbox. Out: a listener. Promise: what comes over the web takes the same durable way as what
//! comes over DIMSE.

use crate::config::Config;
use anyhow::Context;
use fovea_core::{Holdings, Inbox, Uid};
use fovea_receive::{Counters, Part10Intake, Part10Object};
use fovea_review::{Incoming, IncomingObject, Later, Refused, Taken, Web, WebConfig};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// The listener and what it serves; none where DICOMweb is off.
pub async fn open(
    config: &Config,
    holdings: Arc<dyn Holdings>,
    inbox: Arc<dyn Inbox>,
    accepted: &Arc<Notify>,
    counters: &Arc<Counters>,
) -> anyhow::Result<Option<(TcpListener, WebConfig, Web)>> {
    let Some(web) = config.dicomweb.clone() else { return Ok(None) };
    let listen = web.listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on {listen} ([dicomweb] listen)"))?;
    log::info!("DICOMweb: /dicomweb on {listen}");
    let intake = Part10Intake::new(inbox, accepted.clone(), counters.clone(), config.receive.object_bytes_max);
    Ok(Some((listener, web, Web::new(holdings, Arc::new(Intake(intake))))))
}

struct Intake(Part10Intake);

impl Incoming for Intake {
    fn begin(&self, study: Option<Uid>) -> Box<dyn IncomingObject> {
        Box::new(Object(self.0.begin(study)))
    }
}

struct Object(Part10Object);

impl IncomingObject for Object {
    fn push<'a>(&'a mut self, bytes: &'a [u8]) -> Later<'a, ()> {
        Box::pin(self.0.push(bytes))
    }

    fn finish(self: Box<Self>) -> Later<'static, Result<Taken, Refused>> {
        Box::pin(async move {
            let finished = self.0.finish().await;
            finished.map_err(|refused| Refused { status: refused.status, why: refused.why, object: refused.object })
        })
    }
}
