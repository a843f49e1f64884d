//! Parcels that a destination refused for good: another try for them, when a person has mended what was wrong.
//!
//! In: a parcel, or all that were set aside. Out: how many wait once more. Promise: what came of it is durable when it is answered; a
//! destination looks at its queue again within seconds; what its own rules do not want stays out of a retry of all.

use crate::api::{Api, ApiError, blocking};
use axum::extract::{Path, Query, State};
use axum::routing::post;
use axum::{Json, Router};
use fovea_core::{Outbox, ParcelState, PortError, RULED_OUT};
use serde::{Deserialize, Serialize};

/// Rows that are looked at together.
const PAGE: usize = 500;

/// What a retry did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retried {
    /// Marks that are gone: a parcel waits once more for each.
    pub retried: u64,
}

#[derive(Deserialize)]
struct Whom {
    /// This destination alone.
    destination: Option<String>,
}

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/v1/outbox/retry", post(retry_all)).route("/v1/outbox/{seq}/retry", post(retry))
}

async fn retry(
    State(api): State<Api>,
    Path(seq): Path<u64>,
    Query(whom): Query<Whom>,
) -> Result<Json<Retried>, ApiError> {
    let retried = blocking(move || {
        let rows = api.outbox.parcels_after(seq.saturating_sub(1), 1)?;
        let not_held = || PortError::NotHeld { what: format!("parcel {seq}") };
        let row = rows.into_iter().find(|row| row.parcel.seq == seq).ok_or_else(not_held)?;
        // Asked for by its number, what the rules kept back is looked at anew, too: they may be others now.
        again(&*api.outbox, &row, |name, _| whom.destination.as_deref().is_none_or(|wanted| wanted == name))
    });
    Ok(Json(Retried { retried: retried.await? }))
}

async fn retry_all(State(api): State<Api>, Query(whom): Query<Whom>) -> Result<Json<Retried>, ApiError> {
    let retried = blocking(move || {
        let (mut retried, mut after) = (0, 0);
        loop {
            let rows = api.outbox.parcels_after(after, PAGE)?;
            let Some(last) = rows.last() else { return Ok(retried) };
            after = last.parcel.seq;
            for row in &rows {
                retried += again(&*api.outbox, row, |name, reason| {
                    reason != RULED_OUT && whom.destination.as_deref().is_none_or(|wanted| wanted == name)
                })?;
            }
        }
    });
    Ok(Json(Retried { retried: retried.await? }))
}

fn again(outbox: &dyn Outbox, row: &ParcelState, is_meant: impl Fn(&str, &str) -> bool) -> Result<u64, PortError> {
    let mut retried = 0;
    for (name, _) in row.set_aside.iter().filter(|(name, reason)| is_meant(name, reason)) {
        outbox.send_again(row.parcel.seq, name)?;
        retried += 1;
    }
    Ok(retried)
}
