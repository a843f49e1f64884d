//! What the box knows of an object it was sent: enough to route it, nothing that names a patient.

use crate::{AeTitle, Sha256, Uid, UnixMicros};
use serde::{Deserialize, Serialize};

/// Which of a pair is pictured (PS3.3 section C.8.17.5: L, R, B).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Laterality {
    /// The left one.
    Left,
    /// The right one.
    Right,
    /// Both.
    Both,
}

/// Routing facts of one object, taken from its header by a bounded parser. Holds no patient identity (invariant 9).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectHeader {
    /// (0008,0016), equal to the command's.
    pub sop_class_uid: Uid,
    /// (0008,0018), equal to the command's.
    pub sop_instance_uid: Uid,
    /// (0020,000D).
    pub study_uid: Uid,
    /// (0020,000E).
    pub series_uid: Uid,
    /// The syntax of the presentation context, in which the object is stored.
    pub transfer_syntax_uid: Uid,
    /// (0008,0060).
    pub modality: Option<String>,
    /// (0018,0015).
    pub body_part: Option<String>,
    /// (0020,0062), else (0020,0060).
    pub laterality: Option<Laterality>,
    /// (0028,0010), pixels.
    pub rows_px: Option<u32>,
    /// (0028,0011), pixels.
    pub columns_px: Option<u32>,
    /// (0028,0008); 1 where absent.
    pub frames: u32,
    /// (0028,0004).
    pub photometric: Option<String>,
    /// (0028,0301): some(true) for YES, none where absent or unreadable.
    pub burned_in_annotation: Option<bool>,
    /// Byte position of the element Pixel Data (7FE0,0010) in the stored Part 10 file, none where there is none
    /// or where the data set is deflated.
    pub pixel_data_offset: Option<u64>,
}

/// Who brought an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// A peer over DIMSE, by its calling AE title.
    Dimse(AeTitle),
    /// The capture folder.
    Capture,
    /// A client over DICOMweb (STOW-RS).
    Web,
}

/// An object on its way into the inbox; its bytes are in a [`crate::TempObject`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewObject {
    /// Routing facts.
    pub header: ObjectHeader,
    /// Who brought it.
    pub sender: Sender,
    /// When its last byte came.
    pub last_byte_at: UnixMicros,
    /// SHA-256 of the data set as received, without preamble and file meta: tells a repeat from a conflict.
    pub data_set_sha256: Sha256,
    /// Length of the whole Part 10 file.
    pub file_bytes: u64,
}

/// An object that is durable: it has a place in the journal and will get exactly one outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// Place in the order of acceptance, from 1, without repeats.
    pub seq: u64,
    /// Routing facts.
    pub header: ObjectHeader,
    /// Who brought it.
    pub sender: Sender,
    /// When its last byte came.
    pub last_byte_at: UnixMicros,
    /// When it was durable, just before the sender was told so.
    pub accepted_at: UnixMicros,
    /// SHA-256 of the data set as received.
    pub data_set_sha256: Sha256,
    /// Length of the Part 10 file.
    pub file_bytes: u64,
}
