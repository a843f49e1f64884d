//! Keeps the catalogue of what is held up to date.
//!
//! In: the catalogue. Out: nothing. Promise: it is only a view, so whatever goes wrong here is told in the log and tried again, and
//! disturbs nothing else.

use fovea_catalogue::Catalogue;
use fovea_core::{PortError, chain};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks when there was nothing to do. A question looks by itself, so this only keeps its wait short.
const REST: Duration = Duration::from_secs(1);
/// Before it is tried again after a failure, for instance on a full disk.
const RETRY: Duration = Duration::from_secs(10);

/// Follows inbox and outbox until `stop` fires.
pub async fn follow(catalogue: Arc<Catalogue>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let catalogue = Arc::clone(&catalogue);
        let wait = match tokio::task::spawn_blocking(move || step(&catalogue)).await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => REST,
            Ok(Err(error)) => {
                log::warn!("the catalogue is not up to date: {}", chain(&error));
                RETRY
            }
            Err(error) => {
                log::error!("the catalogue is not up to date: {}", chain(&error));
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What came next; with nothing new, a look at some of what is there.
fn step(catalogue: &Catalogue) -> Result<bool, PortError> {
    let is_more = catalogue.follow()?;
    if !is_more {
        catalogue.look_after()?;
    }
    Ok(is_more)
}
