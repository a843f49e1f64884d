//! The outbox reaches the archives: rules, lanes, hours, budgets, retry, and proof that what was taken is kept.
//!
//! In: parcels that wait in the [`Outbox`](fovea_core::Outbox). Out: the same in each archive that wants them, by C-STORE or STOW-RS,
//! and the outbox told so; proofs of custody, by storage commitment or by query.
//! Promise: lanes go strictly in their order, and a ring of the doorbell has the order looked at after the object in hand, so an urgent
//! finding waits for one image or one request at most; what is recorded as delivered is never sent again unless the archive cannot prove
//! to keep it; nothing is forgotten while an archive is away, because all that must survive a restart is in the outbox;
//! one object that is refused does not hold up the others.
//!
//! [`run`] is one task for one destination; the [`Custodian`] hears proofs for all of them.
//!
//! ```text
//! waiting -> queue (rules, hours, budget, tries) -> deliver | web -> notes -> delivered
//!                        ^                                                      |
//!                        +--- send_again <--- custodian <--- prove (N-ACTION, C-FIND, QIDO-RS)
//!                                                 ^-- results that come to our own port
//! ```

mod backoff;
mod config;
mod counters;
mod custodian;
mod deliver;
mod identity;
mod notes;
mod pace;
mod prove;
mod queue;
mod rules;
mod task;
mod web;

pub use config::{Config, ConfigError, CustodyBy, Destination, Line, RawConfig, RawDestination, RawTls};
pub use counters::{Counters, Snapshot};
pub use custodian::{Clock, Custodian};
pub use pace::{Budget, Hours, RawBudget, RawHours};
pub use queue::Ports;
pub use rules::{RawRules, Rules};
pub use task::{SyncError, run};
pub use web::{Auth, RawAuth, WebAddress};
