//! What the box holds, as a viewer asks for it: patients, studies, series, instances.
//!
//! One port behind C-FIND, C-MOVE and C-GET, QIDO-RS and WADO-RS, so that all of them answer alike.
//! Answers hold patient identity: they go to a peer that may have it, never to a log (invariant 9).
//! Standard: PS3.4 sections C.2.2.2 (matching) and C.6 (levels); PS3.18 section 10.6 (QIDO-RS).

use crate::{PortError, Uid};
use std::collections::BTreeMap;
use std::fs::File;

/// Level of a query: what one row of the answer is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QueryLevel {
    /// A patient.
    Patient,
    /// A study.
    Study,
    /// A series.
    Series,
    /// An instance.
    Instance,
}

/// A DICOM tag as one number: group in the upper half, element in the lower.
pub type TagNumber = u32;

/// A question. All keys must match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// What one row is.
    pub level: QueryLevel,
    /// Keys with the values that must match, decoded text, as PS3.4 C.2.2.2 reads them for the attribute: one value, a list of
    /// UIDs (by backslash), wildcards, a range of dates or times. An empty value matches all. An attribute that is
    /// not indexed matches all, too, and is missing from the rows.
    pub keys: Vec<(TagNumber, String)>,
    /// Rows to leave out at the beginning.
    pub offset: usize,
    /// Rows at most.
    pub limit: usize,
}

/// One row: every indexed attribute of its level and of those above it, decoded text, several values by backslash. Among them
/// numbers of related instances (0020,1206 to 0020,1209) and modalities in study (0008,0061).
pub type Row = BTreeMap<TagNumber, String>;

/// One instance that can be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldInstance {
    /// (0020,000D).
    pub study_uid: Uid,
    /// (0020,000E).
    pub series_uid: Uid,
    /// (0008,0018).
    pub sop_instance_uid: Uid,
    /// (0008,0016).
    pub sop_class_uid: Uid,
    /// In which it is stored.
    pub transfer_syntax_uid: Uid,
    /// Length of its Part 10 file.
    pub file_bytes: u64,
}

/// Which instances are meant: all of a patient, of a study, of a series, or some.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// (0010,0020), none for any.
    pub patient_id: Option<String>,
    /// None for any; else those listed.
    pub study_uids: Vec<Uid>,
    /// Those listed, or any.
    pub series_uids: Vec<Uid>,
    /// Those listed, or any.
    pub sop_instance_uids: Vec<Uid>,
}

/// What is held: objects as they were received, and the reports made of them. Calls block.
pub trait Holdings: Send + Sync {
    /// Rows that match, the newest study first, then in the order of arrival.
    ///
    /// # Errors
    /// When the index cannot be asked.
    fn find(&self, query: &Query) -> Result<Vec<Row>, PortError>;

    /// The instances of a selection, at most `limit`, in the order of arrival.
    ///
    /// # Errors
    /// When the index cannot be asked.
    fn select(&self, selection: &Selection, limit: usize) -> Result<Vec<HeldInstance>, PortError>;

    /// Opens the Part 10 file of an instance that `select` told, read-only.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when it is gone.
    fn open(&self, sop_instance_uid: &Uid) -> Result<File, PortError>;
}
