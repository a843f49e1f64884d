//! Routing facts of a Part 10 file on disk, taken by the same walk as those of an object on the wire.
//!
//! In: a file. Out: its [`ObjectHeader`]. Promise: what the box would refuse at its door is refused here.

use crate::header::{HeaderError, HeaderLimits, HeaderWalker};
use crate::inflate::{InflateError, Inflater};
use crate::object::{PLAIN_BYTES_MAX, object_header};
use crate::{Encoding, encoding_of};
use fovea_core::{ObjectHeader, Uid};
use fovea_dimse::{Part10Error, part10_head};
use std::fs::File;
use std::io::{self, Read};

/// Bytes read at once.
const STEP_BYTES: usize = 256 * 1024;

/// Why a file has no routing facts.
#[derive(Debug, thiserror::Error)]
pub enum ObjectFileError {
    /// It has no Part 10 head.
    #[error(transparent)]
    Head(#[from] Part10Error),
    /// Its transfer syntax is none that the box takes.
    #[error("the transfer syntax {uid} is not taken")]
    Syntax {
        /// Which.
        uid: Uid,
    },
    /// Its data set is not understood.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Its data set does not unfold.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// Class or instance of head and data set differ.
    #[error("class or instance of the data set differ from the file's head")]
    Mismatch,
    /// Reading failed.
    #[error("reading the object")]
    Read {
        /// Why.
        source: io::Error,
    },
}

/// Reads all of `file`, which may be at any position, and takes the routing facts out. Blocks.
///
/// # Errors
/// [`ObjectFileError`].
pub fn object_file_header(file: &mut File) -> Result<ObjectHeader, ObjectFileError> {
    let head = part10_head(file)?;
    let syntax = head.transfer_syntax_uid;
    let encoding = encoding_of(&syntax).ok_or_else(|| ObjectFileError::Syntax { uid: syntax.clone() })?;
    let mut walker = HeaderWalker::new(encoding, HeaderLimits::default());
    let mut inflater = (encoding == Encoding::Deflated).then(|| Inflater::new(PLAIN_BYTES_MAX));
    let mut step = vec![0; STEP_BYTES];
    loop {
        let count = file.read(&mut step).map_err(|source| ObjectFileError::Read { source })?;
        match (&mut inflater, &step[..count]) {
            (_, []) => break,
            (None, bytes) => walker.push(bytes)?,
            (Some(inflater), bytes) => {
                inflater.push(bytes, |plain| walker.push(plain).map_err(ObjectFileError::from))?
            }
        }
    }
    if inflater.as_ref().is_some_and(|inflater| !inflater.ended()) {
        return Err(HeaderError::Truncated.into());
    }
    let walked = walker.finish()?;
    if walked.sop_class_uid != head.sop_class_uid || walked.sop_instance_uid != head.sop_instance_uid {
        return Err(ObjectFileError::Mismatch);
    }
    let pixels_at = if inflater.is_some() { None } else { walked.pixel_data_position };
    Ok(object_header(walked, syntax, pixels_at.map(|at| at + head.data_set_offset)))
}
