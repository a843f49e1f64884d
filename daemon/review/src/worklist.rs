//! The open findings in the order of need, as the daemon answers it.
//!
//! In: nothing. Out: the form of the answer. Promise: review knows no rule of triage: order and reasons come with the rows, from a function
//! that the daemon hands over.

use fovea_core::{Band, FindingId, Outcome, PortError, Priority, ReaderGrade, Uid, UnixMicros};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Gives at most so many rows of the worklist, first to be read first. Blocks on disk.
pub type WorklistOf = Arc<dyn Fn(usize) -> Result<Worklist, PortError> + Send + Sync>;

/// The head of the worklist at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Worklist {
    /// First to be read first.
    pub rows: Vec<WorklistRow>,
    /// Findings that stand in the list, those after the last row too.
    pub open: u64,
    /// Open findings that are too old for the list: it is bounded, and the latest stand in it.
    pub left_out: u64,
}

/// One finding that no person has settled.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorklistRow {
    /// The finding.
    pub finding_id: FindingId,
    /// Study of its object.
    pub study_uid: Uid,
    /// Its object.
    pub sop_instance_uid: Uid,
    /// What was asked; empty where no model was eligible.
    pub task: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What the model says, in words.
    pub label: Option<String>,
    /// Calibrated, 0 to 1.
    pub probability: Option<f64>,
    /// Band of the probability.
    pub band: Option<Band>,
    /// How soon a person should look.
    pub priority: Priority,
    /// Who should look.
    pub reader_grade: ReaderGrade,
    /// When the object's last byte came.
    pub arrived_at_unix_us: UnixMicros,
    /// When the longest wait of its priority is over.
    pub deadline_unix_us: UnixMicros,
    /// It goes before all that are not due.
    pub due: bool,
    /// Whole minutes since it came.
    pub waited_min: u64,
    /// Why it stands where it stands, for people, for instance `significant, waiting 12 min`.
    pub why: String,
}
