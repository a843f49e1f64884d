//! Why there is no frame. No variant holds a value that could name a patient: only numbers, attribute names and UIDs.

use fovea_core::{FrameError, Reason, Uid};
use std::io;

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Reading the file failed.
    #[error("read {doing}")]
    Read {
        /// What was read.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither a Part 10 file nor, for pictures, a PNG or JPEG.
    #[error("no {expected} file")]
    NotAFile {
        /// What was looked for.
        expected: &'static str,
    },
    /// The bytes end too soon.
    #[error("{what} is cut short")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The structure of the data set is broken.
    #[error("the data set is damaged: {what}")]
    Structure {
        /// What is wrong.
        what: &'static str,
    },
    /// A needed attribute is not there.
    #[error("{attribute} is missing")]
    Missing {
        /// Its name.
        attribute: &'static str,
    },
    /// An attribute says what cannot be, alone or beside the others.
    #[error("{attribute} is wrong: {why}")]
    Invalid {
        /// Its name.
        attribute: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// There is no Pixel Data.
    #[error("the object has no pixels")]
    NoPixelData,
    /// No decoder for this transfer syntax.
    #[error("transfer syntax {transfer_syntax} is not decoded")]
    Unsupported {
        /// The transfer syntax.
        transfer_syntax: Uid,
    },
    /// A rare form of pixels or of a code.
    #[error("{what} is not decoded")]
    UnsupportedPixels {
        /// What it is.
        what: &'static str,
    },
    /// Larger than this box is willing to unfold.
    #[error("{what} is {value}, limit {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// How large.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The coded frame has another size than the header says.
    #[error("the header says {columns} x {rows} px, the coded frame {coded_columns} x {coded_rows} px")]
    SizeMismatch {
        /// By the header.
        columns: u32,
        /// By the header.
        rows: u32,
        /// By the code.
        coded_columns: u32,
        /// By the code.
        coded_rows: u32,
    },
    /// The coded frame has other samples than the header says.
    #[error("the coded frame has {coded}, the header says {header}")]
    FormatMismatch {
        /// By the code.
        coded: String,
        /// By the header.
        header: String,
    },
    /// There is no such frame.
    #[error("frame {index} of {frames}, counted from 0")]
    NoSuchFrame {
        /// Asked for.
        index: u32,
        /// There.
        frames: u32,
    },
    /// The code is damaged.
    #[error("decode {codec}: {detail}")]
    Code {
        /// The kind of code.
        codec: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// Our own samples do not make a frame.
    #[error("make a frame")]
    Frame(#[source] FrameError),
}

impl DecodeError {
    /// The same for records and people, for the outcome *not analysed*.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, advice) = match self {
            Self::Read { .. } => ("object_unreadable", ""),
            Self::NotAFile { .. } | Self::Structure { .. } => ("object_damaged", "Send it again"),
            Self::Truncated { .. } | Self::Code { .. } | Self::Frame(_) => ("pixel_data_damaged", "Send it again"),
            Self::Missing { .. } | Self::Invalid { .. } => ("pixel_description_invalid", ""),
            Self::NoPixelData => ("no_pixel_data", ""),
            Self::Unsupported { .. } => ("unsupported_transfer_syntax", ""),
            Self::UnsupportedPixels { .. } => ("unsupported_pixel_format", ""),
            Self::TooLarge { .. } => ("image_too_large", ""),
            Self::SizeMismatch { .. } | Self::FormatMismatch { .. } => ("pixel_data_contradicts_header", ""),
            Self::NoSuchFrame { .. } => ("no_such_frame", ""),
        };
        Reason::new(code, self.to_string(), advice)
    }
}
