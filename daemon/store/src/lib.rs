//! The four ports on disk: journal and object files are the truth, sled is index and cache.
//!
//! In: complete Part 10 files, findings, parcels, documents. Out: the same after any crash, in order, each exactly once.
//! Promise: what a call answered with `Ok` is in the journal and in plain files, both synced; everything else
//! (`<state>/index/`) can be deleted at any time and comes back from them.
//!
//! ```text
//! <state>/lock         one daemon at a time
//! <state>/journal/     truth: what was accepted, found, dispatched, delivered, remembered, in order (record, segment, journal, committer)
//! <state>/objects/     truth: <study>/<sop>.dcm, as received                                (files)
//! <state>/outbox/      truth: <sop>.dcm, what shall leave the box
//! <state>/quarantine/  what a person must look at: conflict/, orphans/, damaged/, journal/
//! <state>/index/       view of the journal in sled; says up to which place of the journal   (view, changes, overlay, index)
//! <state>/tmp/         files being written; emptied when the store opens
//! ```
//!
//! The way of one object: `open_temp` -> bytes -> `accept`: rename, fdatasync of the file, fsync of its folder for all who wait for
//! the same one, journal record with one fdatasync for all who wait, index, `Ok`.
//!
//! Nothing in `objects/` and `outbox/` is removed after it was recorded until an archive has proved to keep it (evict):
//! not even a parcel that every destination has taken. The high watermark bounds what gathers.
//!
//! The journal's files are sealed when they are full and compacted four at a time, beside the work (upkeep, compact).
//! Whatever the disk did to them or to the objects is found and mended by [`Store::verify`] and [`Store::rebuild`].
//!
//! Errors: `Damaged` and `NotHeld` are final facts about what was named (its file is missing, it was never taken, its
//! record is refused). Whatever may be better at the next try, an index that gives no answer among it, is `Io` or
//! `OutOfSpace`.

mod changes;
mod check;
mod committer;
mod compact;
mod config;
mod disk;
mod documents;
mod error;
mod evict;
mod files;
mod inbox;
mod index;
mod journal;
mod ledger;
mod memory;
mod outbox;
mod overlay;
mod part10;
mod record;
mod recovery;
mod reserve;
mod salvage;
mod segment;
mod space;
mod store;
mod upkeep;
mod view;

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod sim;
// The tests' makers of objects are shared with the integration tests, which know this crate by its name.
#[cfg(test)]
extern crate self as fovea_store;

pub use check::{HeaderOf, Progress, RebuildReport, Step, VerifyReport};
pub use config::{Config, ConfigError, RawConfig, RawKeep};
pub use disk::Calls;
pub use error::StoreError;
pub use evict::Keep;
pub use memory::MemoryStore;
pub use store::{Clock, SenderShare, Status, Store, Waiting};
pub use view::FINDING_BYTES_MAX;
