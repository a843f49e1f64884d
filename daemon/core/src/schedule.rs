//! What is planned: items of a modality worklist, by which a picture without a name gets one.
//!
//! Standard: PS3.4 annex K (modality worklist), table K.6-1.

use crate::Uid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One scheduled procedure step, decoded text. Holds patient identity: never shown in a log (invariant 9).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledItem {
    /// (0020,000D).
    pub study_uid: Uid,
    /// (0008,0050); may be empty.
    pub accession_number: String,
    /// (0010,0010).
    pub patient_name: String,
    /// (0010,0020).
    pub patient_id: String,
    /// (0010,0021); may be empty.
    pub patient_id_issuer: String,
    /// (0010,0030); may be empty.
    pub patient_birth_date: String,
    /// (0010,0040); may be empty.
    pub patient_sex: String,
    /// (0008,0090); may be empty.
    pub referring_physician: String,
    /// (0040,1001).
    pub procedure_id: String,
    /// (0032,1060); may be empty.
    pub procedure_description: String,
    /// (0040,0009).
    pub step_id: String,
    /// (0040,0007); may be empty.
    pub step_description: String,
    /// (0040,0001): whom it is for.
    pub station_ae_title: String,
    /// (0008,0060).
    pub modality: String,
    /// (0040,0002), YYYYMMDD.
    pub start_date: String,
    /// (0040,0003), HHMMSS.
    pub start_time: String,
}

impl fmt::Debug for ScheduledItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduledItem").finish_non_exhaustive()
    }
}

/// Finds what is planned. Sides: the fetched worklist, and a fake in tests. Answers from memory.
pub trait Schedule: Send + Sync {
    /// The item that an accession number or Study Instance UID names: none where nothing, or more than one study or patient, has it.
    /// It is never a guess.
    fn item(&self, named: &str) -> Option<ScheduledItem>;
}
