//! What was received and refused, counted for `foveactl status`.

use crate::services::studies::{Studies, StudyState};
use fovea_dimse::Status;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the start; shared by `Arc`, read at any time.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) associations_now: AtomicU64,
    pub(crate) associations_total: AtomicU64,
    pub(crate) associations_refused: AtomicU64,
    pub(crate) associations_broken: AtomicU64,
    pub(crate) associations_gave_way: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) echoes: AtomicU64,
    pub(crate) objects_accepted: AtomicU64,
    pub(crate) objects_duplicate: AtomicU64,
    pub(crate) objects_conflict: AtomicU64,
    pub(crate) refused_no_space: AtomicU64,
    pub(crate) refused_mismatch: AtomicU64,
    pub(crate) refused_not_understood: AtomicU64,
    pub(crate) refused_other: AtomicU64,
    pub(crate) data_set_bytes: AtomicU64,
    pub(crate) captures_accepted: AtomicU64,
    pub(crate) captures_refused: AtomicU64,
    pub(crate) commitments_asked: AtomicU64,
    pub(crate) commitments_told: AtomicU64,
    pub(crate) commitments_not_told: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) retrievals: AtomicU64,
    pub(crate) studies: Arc<Studies>,
}

/// A copy of the counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Associations that stand now.
    pub associations_now: u64,
    /// Associations that ever stood.
    pub associations_total: u64,
    /// Associations that were rejected.
    pub associations_refused: u64,
    /// Associations that ended by a breach of protocol, an abort, a time-out or a lost connection.
    pub associations_broken: u64,
    /// Idle associations that were ended to make room.
    pub associations_gave_way: u64,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: u64,
    /// C-ECHO answered.
    pub echoes: u64,
    /// Objects that are durable since they came, over DICOM or from the capture folder.
    pub objects_accepted: u64,
    /// Objects that were durable before.
    pub objects_duplicate: u64,
    /// Objects with a UID that is held with other content.
    pub objects_conflict: u64,
    /// Objects refused for want of space or for their length (A700).
    pub refused_no_space: u64,
    /// Objects refused because command and data set disagree (A900).
    pub refused_mismatch: u64,
    /// Objects refused because they are not understood (C000).
    pub refused_not_understood: u64,
    /// Objects refused otherwise.
    pub refused_other: u64,
    /// Bytes of data sets received, refused ones included.
    pub data_set_bytes: u64,
    /// Pictures of the capture folder that became objects or were held as such before.
    pub captures_accepted: u64,
    /// Files of the capture folder that were refused; the reasons are in `capture/refused/*.reason.txt`.
    pub captures_refused: u64,
    /// Commitment requests that are durable since they came.
    pub commitments_asked: u64,
    /// Commitment reports that their peer has acknowledged.
    pub commitments_told: u64,
    /// Attempts to tell a report that failed; each is tried again.
    pub commitments_not_told: u64,
    /// Changes of procedure steps that are durable.
    pub steps: u64,
    /// C-FIND asked.
    pub queries: u64,
    /// C-MOVE and C-GET asked.
    pub retrievals: u64,
}

impl Counters {
    /// Reads all counts; each is exact, together they may be some messages apart.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            associations_now: read(&self.associations_now),
            associations_total: read(&self.associations_total),
            associations_refused: read(&self.associations_refused),
            associations_broken: read(&self.associations_broken),
            associations_gave_way: read(&self.associations_gave_way),
            connections_refused: read(&self.connections_refused),
            echoes: read(&self.echoes),
            objects_accepted: read(&self.objects_accepted),
            objects_duplicate: read(&self.objects_duplicate),
            objects_conflict: read(&self.objects_conflict),
            refused_no_space: read(&self.refused_no_space),
            refused_mismatch: read(&self.refused_mismatch),
            refused_not_understood: read(&self.refused_not_understood),
            refused_other: read(&self.refused_other),
            data_set_bytes: read(&self.data_set_bytes),
            captures_accepted: read(&self.captures_accepted),
            captures_refused: read(&self.captures_refused),
            commitments_asked: read(&self.commitments_asked),
            commitments_told: read(&self.commitments_told),
            commitments_not_told: read(&self.commitments_not_told),
            steps: read(&self.steps),
            queries: read(&self.queries),
            retrievals: read(&self.retrievals),
        }
    }

    /// Up to `limit` recent studies with whether they are whole, the last that something came of first.
    #[must_use]
    pub fn studies(&self, limit: usize) -> Vec<StudyState> {
        self.studies.recent(limit)
    }

    pub(crate) fn refused(&self, status: Status) {
        add(match status {
            Status::OUT_OF_RESOURCES => &self.refused_no_space,
            Status::DATA_SET_MISMATCH => &self.refused_mismatch,
            Status::CANNOT_UNDERSTAND => &self.refused_not_understood,
            _ => &self.refused_other,
        });
    }
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
