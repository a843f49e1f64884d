//! What a walk is bounded by, what it yields, and why it may fail.

use dicom_core::Tag;
use fovea_core::{Laterality, Uid};

/// Bounds on everything but the pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderLimits {
    /// Sequences within sequences.
    pub nesting_max: usize,
    /// Elements and items, at any depth.
    pub elements_max: u32,
    /// Longest value.
    pub value_bytes_max: u32,
    /// All before the Pixel Data.
    pub header_bytes_max: u64,
    /// Backslashes in all values: each may become a text of its own in a parser's memory.
    pub backslashes_max: u64,
}

impl Default for HeaderLimits {
    /// A whole-slide object with 16,000 tiles has 200,000 elements and 8 MiB of header; nothing real nests 32 deep.
    fn default() -> Self {
        Self {
            nesting_max: 32,
            elements_max: 400_000,
            value_bytes_max: 16 << 20,
            header_bytes_max: 48 << 20,
            backslashes_max: 1_000_000,
        }
    }
}

/// Why a data set is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It ends in the middle of an element, an item or a sequence.
    #[error("the data set is cut")]
    Truncated,
    /// A value or item is longer than what holds it.
    #[error("the element at byte {position} is longer than what holds it")]
    BeyondParent {
        /// Where it begins in the plain data set.
        position: u64,
    },
    /// An item, a delimiter or a group that may not stand there.
    #[error("an element that may not stand at byte {position}")]
    Misplaced {
        /// Where it begins.
        position: u64,
    },
    /// An undefined length on something that is neither a sequence nor encapsulated Pixel Data.
    #[error("the element at byte {position} has no length")]
    UndefinedLength {
        /// Where it begins.
        position: u64,
    },
    /// A length that is no multiple of its VR's size.
    #[error("the length of the element at byte {position} does not fit its type")]
    UnevenLength {
        /// Where it begins.
        position: u64,
    },
    /// One of [`HeaderLimits`].
    #[error("too much of it: {what}")]
    Limit {
        /// Which.
        what: &'static str,
    },
    /// A routing element twice.
    #[error("element ({:04X},{:04X}) is there twice", .tag.0, .tag.1)]
    Repeated {
        /// Which.
        tag: Tag,
    },
    /// A needed UID is absent or none.
    #[error("element ({:04X},{:04X}) is missing or no UID", .tag.0, .tag.1)]
    NotUid {
        /// Which.
        tag: Tag,
    },
}

/// The routing facts of a walked data set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walked {
    /// (0008,0016).
    pub sop_class_uid: Uid,
    /// (0008,0018).
    pub sop_instance_uid: Uid,
    /// (0020,000D).
    pub study_uid: Uid,
    /// (0020,000E).
    pub series_uid: Uid,
    /// (0008,0060).
    pub modality: Option<String>,
    /// (0018,0015).
    pub body_part: Option<String>,
    /// (0020,0062), else (0020,0060).
    pub laterality: Option<Laterality>,
    /// (0028,0010).
    pub rows_px: Option<u32>,
    /// (0028,0011).
    pub columns_px: Option<u32>,
    /// (0028,0008), 1 where absent or unreadable.
    pub frames: u32,
    /// (0028,0004).
    pub photometric: Option<String>,
    /// (0028,0301).
    pub burned_in_annotation: Option<bool>,
    /// Byte position of the Pixel Data element in the plain data set.
    pub pixel_data_position: Option<u64>,
    /// Length of the plain data set.
    pub plain_bytes: u64,
}
