//! The independent audit: reads the bytes that would leave, beside the original, and says what is still in them.
//!
//! In: the original and the copy, both Part 10 files. Out: every leak; none means that the copy may leave.
//! Promise (invariant 5): this module shares no code with the rewriter, only the standard's data files; it trusts nothing
//! that the rewriter says. It checks by four ways that must all be content:
//!
//! 1. structure: preamble zero, file meta of six known elements, nothing behind Pixel Data, and a second parser
//!    (dicom-object) that sees the same attributes;
//! 2. the profile, attribute by attribute at every level (profile.rs);
//! 3. the identifiers of the original (names and their parts, ids, dates, addresses, free text, private values, AE titles,
//!    UIDs) anywhere in the bytes before Pixel Data and in the marker segments of compressed frames (identifiers.rs);
//! 4. comment and application segments of compressed frames (codestream.rs).
//!
//! A [`Leak`] names attribute and rule, never a value.
//! Standard: DICOM PS3.15 section E.1.1, PS3.10 section 7.1.

mod codestream;
mod identifiers;
mod profile;
mod walk;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use walk::{Leaf, Walked};

/// The most that is read before Pixel Data, of either file.
const HEADER_BYTES_MAX: u64 = 20 << 20;
const PIXEL_DATA: u32 = 0x7FE0_0010;

/// Something in the copy that must not be there, or something missing that must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leak {
    /// Tags from the top level down; empty for the file as a whole.
    pub path: Vec<u32>,
    /// What is wrong; no value.
    pub what: &'static str,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tag in &self.path {
            write!(f, "({:04X},{:04X})", tag >> 16, tag & 0xFFFF)?;
        }
        let space = if self.path.is_empty() { "" } else { " " };
        write!(f, "{space}{}", self.what)
    }
}

/// Why the audit came to no end: the copy must stay.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read.
    #[error("{doing}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what this parser understands.
    #[error("the {which} is malformed: {detail}")]
    Malformed {
        /// `original` or `copy`.
        which: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
}

/// Compares `copy` with `original`; positions of both files are moved.
///
/// # Errors
/// [`AuditError`] when either file cannot be read to the end with certainty.
pub fn audit(original: &File, copy: &File) -> Result<Vec<Leak>, AuditError> {
    let original = Opened::read(original, "original")?;
    let opened = Opened::read(copy, "copy")?;
    let mut leaks = Vec::new();
    let mut leak = |path: &[u32], what| leaks.push(Leak { path: path.to_vec(), what });

    if opened.bytes[..128].iter().any(|byte| *byte != 0) {
        leak(&[], "the preamble is not empty");
    }
    meta(&opened, &mut leak);
    second_parser(copy, &opened, &mut leak)?;
    let identifiers = identifiers::Identifiers::of(&original.walked, &original.bytes);
    profile::check(&opened.walked, &opened.bytes, &identifiers, &mut leak);
    identifiers.search(&opened.walked, &opened.bytes, &mut leak);
    codestream::check(copy, &opened, &identifiers, &mut leak)?;
    Ok(leaks)
}

/// A file's start up to Pixel Data, in memory, and its elements.
struct Opened {
    bytes: Vec<u8>,
    walked: Walked,
    syntax: String,
    file_bytes: u64,
}

impl Opened {
    /// Reads as much as it takes to reach Pixel Data: a usual header is far below the first step.
    fn read(file: &File, which: &'static str) -> Result<Self, AuditError> {
        for limit in [256 << 10, 4 << 20] {
            let opened = Self::read_at_most(file, which, limit);
            if opened.as_ref().is_ok_and(|opened| opened.walked.pixels_at < opened.bytes.len()) {
                return opened;
            }
        }
        Self::read_at_most(file, which, HEADER_BYTES_MAX)
    }

    fn read_at_most(mut file: &File, which: &'static str, limit: u64) -> Result<Self, AuditError> {
        let io = |doing| move |source| AuditError::Io { doing, source };
        let malformed = |detail| AuditError::Malformed { which, detail };
        let file_bytes = file.seek(SeekFrom::End(0)).map_err(io("measure a file"))?;
        file.seek(SeekFrom::Start(0)).map_err(io("seek in a file"))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(io("read a file"))?;
        let (meta, syntax, end) = walk::meta(&bytes).map_err(malformed)?;
        if syntax == "1.2.840.10008.1.2.1.99" {
            // Inflated from the file itself: the deflated stream may be longer than what was read.
            bytes.truncate(end);
            file.seek(SeekFrom::Start(end as u64)).map_err(io("seek in a file"))?;
            let inflate = flate2::bufread::DeflateDecoder::new(BufReader::new(file));
            inflate.take(limit).read_to_end(&mut bytes).map_err(|_| malformed("deflated data"))?;
        }
        let explicit = syntax != "1.2.840.10008.1.2";
        let mut walked = walk::data_set(&bytes, end, explicit).map_err(malformed)?;
        walked.meta = meta;
        Ok(Self { bytes, walked, syntax, file_bytes })
    }
}

/// Six elements and no more; the instance is the data set's.
fn meta(copy: &Opened, leak: &mut impl FnMut(&[u32], &'static str)) {
    const ALLOWED: [u32; 7] =
        [0x0002_0000, 0x0002_0001, 0x0002_0002, 0x0002_0003, 0x0002_0010, 0x0002_0012, 0x0002_0013];
    for element in &copy.walked.meta {
        if !ALLOWED.contains(&element.tag()) {
            leak(&element.path, "file meta of the sender");
        }
    }
    let value = |leaves: &[Leaf], tag: u32| {
        leaves
            .iter()
            .find(|leaf| leaf.path == [tag])
            .map(|leaf| walk::trimmed(&copy.bytes[leaf.value.clone()]).to_vec())
    };
    for (in_meta, in_data) in [(0x0002_0002, 0x0008_0016), (0x0002_0003, 0x0008_0018)] {
        if value(&copy.walked.meta, in_meta).is_none_or(|uid| value(&copy.walked.leaves, in_data) != Some(uid)) {
            leak(&[in_meta], "file meta is not of this data set");
        }
    }
    if value(&copy.walked.meta, 0x0002_0013).is_some_and(|name| name != b"FOVEA") {
        leak(&[0x0002_0013], "file meta of the sender");
    }
}

/// dicom-object must read the copy and see the same top-level attributes as this module's own walk.
fn second_parser(
    mut copy: &File,
    opened: &Opened,
    leak: &mut impl FnMut(&[u32], &'static str),
) -> Result<(), AuditError> {
    copy.seek(SeekFrom::Start(0)).map_err(|source| AuditError::Io { doing: "seek in the copy", source })?;
    let read = dicom_object::OpenFileOptions::new()
        .read_preamble(dicom_object::file::ReadPreamble::Always)
        .read_until(dicom_core::Tag(0x7FE0, 0x0010))
        .from_reader(BufReader::new(copy.take(HEADER_BYTES_MAX)));
    let Ok(object) = read else {
        leak(&[], "a second parser cannot read it");
        return Ok(());
    };
    let mut theirs: Vec<u32> = object.tags().map(|tag| u32::from(tag.0) << 16 | u32::from(tag.1)).collect();
    let mut ours = opened.walked.top_level.clone();
    theirs.sort_unstable();
    ours.sort_unstable();
    if theirs != ours {
        leak(&[], "two parsers see different attributes");
    }
    Ok(())
}
