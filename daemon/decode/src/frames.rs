//! Where each frame's bytes are. Standard: PS3.5 sections 8 and A.4, PS3.3 section C.7.6.3.1.8.
//!
//! Promise: eight bytes of memory a frame, however many fragments there are; an offset table is believed as far as its
//! numbers ascend and the fragments are where it says, else all fragments are walked over, once.

use crate::DecodeError;
use crate::header::Header;
use crate::pixels::{Photometric, PixelFormat};
use crate::source::Source;
use crate::syntax::Code;
use crate::walk::{Element, ITEM, SEQUENCE_END, UNDEFINED, Walk};
use std::cell::Cell;

/// Fragments for each frame beyond which something is wrong, and some for very small numbers of frames.
const FRAGMENTS_PER_FRAME_MAX: u64 = 64;
const FRAGMENTS_BASE: u64 = 4096;
const WHAT: &str = "pixel data";

/// The bytes of frames in a source.
pub(crate) enum Places {
    /// One behind the other, `frame_bytes` each, from `at` to `end`.
    Native { at: u64, end: u64, frame_bytes: u64 },
    /// In fragments.
    Fragments(Index),
}

/// Byte positions of the frames' first fragments.
pub(crate) struct Index {
    /// Of each frame, ascending; the head of the fragment, not its value.
    starts: Vec<u64>,
    /// Of the first fragment.
    first_at: u64,
    /// By an offset table that was not held against all fragments.
    is_by_table: bool,
}

impl Places {
    pub(crate) fn find(
        source: &Source,
        header: &Header,
        code: Code,
        format: &PixelFormat,
    ) -> Result<Self, DecodeError> {
        let pixel_data = header.pixel_data.as_ref().ok_or(DecodeError::NoPixelData)?;
        let encapsulated = pixel_data.length == UNDEFINED;
        if encapsulated != (code != Code::Native) {
            let why = "it fits no such transfer syntax";
            return Err(DecodeError::Invalid { attribute: "the form of Pixel Data", why });
        }
        if !encapsulated {
            let end = pixel_data.value_at + u64::from(pixel_data.length);
            return Ok(Self::Native { at: pixel_data.value_at, end, frame_bytes: native_bytes(format) });
        }
        Index::find(source, header, pixel_data, format.frames as usize).map(Self::Fragments)
    }

    /// The bytes of frame `index`, which is one of the object's.
    pub(crate) fn read(&mut self, source: &Source, index: u32, bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Native { at, end, frame_bytes } => {
                let start = *at + u64::from(index) * *frame_bytes;
                if start + *frame_bytes > *end {
                    return Err(DecodeError::Truncated { what: WHAT });
                }
                let mut bytes = Vec::new();
                source.append(start, *frame_bytes, &mut bytes, WHAT)?;
                Ok(bytes)
            }
            Self::Fragments(places) => match places.read(source, index as usize, bytes_max) {
                Err(DecodeError::Structure { .. } | DecodeError::Truncated { .. }) if places.is_by_table => {
                    // Once, whatever comes of it: a walk over millions of fragments takes its time.
                    places.is_by_table = false;
                    if let Ok(walked) = Index::by_walk(source, places.first_at, places.starts.len()) {
                        *places = walked;
                    }
                    places.read(source, index as usize, bytes_max)
                }
                done => done,
            },
        }
    }
}

/// Bytes of one frame that is not coded.
fn native_bytes(format: &PixelFormat) -> u64 {
    let pixels = u64::from(format.columns) * u64::from(format.rows);
    let sample_bytes = u64::from(format.bits_allocated / 8);
    match format.photometric {
        // Two luminances share one pair of chrominances; an odd row is rounded up to a pair.
        Photometric::YbrFull422 => {
            u64::from(format.columns).next_multiple_of(2) * u64::from(format.rows) * 2 * sample_bytes
        }
        _ => pixels * format.samples_per_pixel as u64 * sample_bytes,
    }
}

impl Index {
    fn find(source: &Source, header: &Header, pixel_data: &Element, frames: usize) -> Result<Self, DecodeError> {
        let table = fragment(source, pixel_data.value_at)?.ok_or(DecodeError::NoPixelData)?;
        let first_at = table.value_at + u64::from(table.length);
        if fragment(source, first_at)?.is_none() {
            return Err(DecodeError::NoPixelData);
        }
        if frames == 1 {
            return Ok(Self { starts: vec![first_at], first_at, is_by_table: false });
        }
        let offsets = match (&header.extended_offsets, table.length) {
            (Some(extended), _) => offsets(source, extended, 8, frames)?,
            (None, 0) => None,
            (None, _) => offsets(source, &table, 4, frames)?,
        };
        match offsets {
            // Ascending, from the first fragment on: what a table of more than 4 GiB in 4 bytes, or of zeros, is not.
            Some(offsets) if offsets[0] == 0 && offsets.is_sorted_by(|a, b| a < b) => {
                let starts: Option<Vec<u64>> = offsets.iter().map(|offset| first_at.checked_add(*offset)).collect();
                match starts {
                    Some(starts) if starts.last().is_some_and(|last| *last < source.length()) => {
                        Ok(Self { starts, first_at, is_by_table: true })
                    }
                    _ => Self::by_walk(source, first_at, frames),
                }
            }
            _ => Self::by_walk(source, first_at, frames),
        }
    }

    /// Without a table: as many fragments as frames, or a frame begins where a stream of the JPEG family does.
    fn by_walk(source: &Source, first_at: u64, frames: usize) -> Result<Self, DecodeError> {
        let fragments_max = FRAGMENTS_BASE + FRAGMENTS_PER_FRAME_MAX * frames as u64;
        let (mut starts, mut streams) = (Vec::new(), Vec::new());
        let (mut at, mut count) = (first_at, 0);
        while let Some(element) = fragment(source, at)? {
            count += 1;
            check_count(count, fragments_max)?;
            // One more than there should be shows that they are too many.
            if starts.len() <= frames {
                starts.push(at);
            }
            if streams.len() <= frames && begins_stream(source, &element) {
                streams.push(at);
            }
            at = element.value_at + u64::from(element.length);
        }
        let starts = if starts.len() == frames { starts } else { streams };
        if starts.len() != frames || starts[0] != first_at {
            return Err(DecodeError::Structure { what: "fragments that cannot be told apart into frames" });
        }
        Ok(Self { starts, first_at, is_by_table: false })
    }

    fn read(&self, source: &Source, index: usize, bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
        let no_place = DecodeError::Structure { what: "an offset table that does not fit the frames" };
        let Some(start) = self.starts.get(index) else { return Err(no_place) };
        let end = self.starts.get(index + 1).copied();
        let (mut at, mut count, mut value) = (*start, 0, 0);
        let mut bytes = Vec::new();
        while end != Some(at) {
            if end.is_some_and(|end| at > end) {
                return Err(no_place);
            }
            let Some(part) = fragment(source, at)? else { break };
            count += 1;
            check_count(count, FRAGMENTS_BASE + FRAGMENTS_PER_FRAME_MAX)?;
            value += u64::from(part.length);
            if value > bytes_max {
                return Err(DecodeError::TooLarge { what: "bytes of a coded frame", value, limit: bytes_max });
            }
            source.append(part.value_at, part.length.into(), &mut bytes, WHAT)?;
            at = part.value_at + u64::from(part.length);
        }
        // A frame that is not the last ends where the next begins.
        if end.is_some_and(|end| end != at) { Err(no_place) } else { Ok(bytes) }
    }
}

fn check_count(value: u64, limit: u64) -> Result<(), DecodeError> {
    if value > limit { Err(DecodeError::TooLarge { what: "number of fragments", value, limit }) } else { Ok(()) }
}

/// The fragment whose head is at `at`; none behind the last one. Standard: PS3.5 section A.4.
fn fragment(source: &Source, at: u64) -> Result<Option<Element>, DecodeError> {
    // Writers that were cut off between fragments leave no delimiter; what is there is still whole.
    if at + 8 > source.length() {
        return Ok(None);
    }
    let elements = Cell::new(0);
    let walk = Walk::new(source, true, 0, &elements);
    let item = walk.element(at)?;
    match item.tag {
        SEQUENCE_END => Ok(None),
        ITEM if item.length != UNDEFINED => walk.end_of(&item, 0).map(|_| Some(item)),
        _ => Err(DecodeError::Structure { what: "pixel data with something else than fragments" }),
    }
}

/// The numbers of an offset table; none where it has not one for each frame.
fn offsets(source: &Source, table: &Element, width: usize, frames: usize) -> Result<Option<Vec<u64>>, DecodeError> {
    // The number of frames is held to the limits, so this is bounded too.
    if table.length as usize != width * frames {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    source.append(table.value_at, table.length.into(), &mut bytes, "the offset table")?;
    let number = |entry: &[u8]| entry.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Ok(Some(bytes.chunks_exact(width).map(number).collect()))
}

fn begins_stream(source: &Source, fragment: &Element) -> bool {
    let start = source.header::<3>(fragment.value_at, "a fragment");
    fragment.length >= 3 && matches!(start, Ok([0xFF, 0xD8, 0xFF] | [0xFF, 0x4F, 0xFF]))
}
