//! The outbox reaches the archive: retry, back-off, findings before pixels.
//!
//! In: parcels that wait in the [`Outbox`](fovea_core::Outbox). Out: the same in the archive, and the outbox told so.
//! Promise: after every single object the outbox is asked again what goes first, so an urgent finding waits for one
//! image at most; what is recorded as delivered is never sent again; nothing is forgotten while the archive is away,
//! because all that must survive a restart is in the outbox; one object that is refused does not hold up the others.
//!
//! [`run`] is one task for one destination.

mod backoff;
mod config;
mod counters;
mod deliver;
mod task;

pub use config::{Config, ConfigError, Destination, RawConfig, RawDestination};
pub use counters::{Counters, Snapshot};
pub use task::{SyncError, run};
