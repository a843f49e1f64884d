//! How a destination stands, for the status page and central IT. No patient identity: codes, classes and addresses only.

use fovea_core::UnixMicros;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Snapshot>);

/// One moment's numbers, since the daemon started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Snapshot {
    /// An association stands.
    pub connected: bool,
    /// Objects that the archive took.
    pub sent: u64,
    /// Attempts that failed, of any kind.
    pub failed: u64,
    /// Objects that were given up for this destination.
    pub set_aside: u64,
    /// Objects that its rules do not want.
    pub ruled_out: u64,
    /// Objects that it proved to keep.
    pub proved: u64,
    /// Objects that it took and has not proved to keep; those that are looked after now.
    pub unproved: u64,
    /// Objects that it took, did not keep, and was sent again.
    pub sent_again: u64,
    /// Why no proof could be had the last time; none after one.
    pub custody_error: Option<String>,
    /// Why the last attempt failed; none after a success.
    pub last_error: Option<String>,
    /// When the destination is tried again; none when it is not waiting for that.
    pub next_try: Option<UnixMicros>,
}

impl Counters {
    /// The numbers now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn failure(&self, why: &str) {
        self.note(|now| {
            now.failed += 1;
            now.last_error = Some(why.to_owned());
        });
    }
}
