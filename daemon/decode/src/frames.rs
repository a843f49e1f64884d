//! Where each frame's bytes are. Standard: PS3.5 sections 8 and A.4, PS3.3 section C.7.6.3.1.8.

use crate::DecodeError;
use crate::header::{self, Element, Header};
use crate::pixels::{Photometric, PixelFormat};
use crate::source::Source;
use crate::syntax::Code;

/// Fragments for each frame beyond which something is wrong, and some for very small numbers of frames.
const FRAGMENTS_PER_FRAME_MAX: usize = 64;
const FRAGMENTS_BASE: usize = 4096;

/// The bytes of frames in a source.
pub(crate) enum Places {
    /// One behind the other, `frame_bytes` each, from `at` to `end`.
    Native { at: u64, end: u64, frame_bytes: u64 },
    /// Frame `i` is the fragments from `first[i]` up to `first[i + 1]`.
    Fragments { fragments: Vec<Element>, first: Vec<usize> },
}

impl Places {
    pub(crate) fn find(
        source: &Source,
        header: &Header,
        code: Code,
        format: &PixelFormat,
    ) -> Result<Self, DecodeError> {
        let pixel_data = header.pixel_data.as_ref().ok_or(DecodeError::NoPixelData)?;
        let encapsulated = pixel_data.length == u32::MAX;
        if encapsulated != (code != Code::Native) {
            let why = "it fits no such transfer syntax";
            return Err(DecodeError::Invalid { attribute: "the form of Pixel Data", why });
        }
        if !encapsulated {
            let end = pixel_data.value_at + u64::from(pixel_data.length);
            return Ok(Self::Native { at: pixel_data.value_at, end, frame_bytes: native_bytes(format) });
        }
        let frames = format.frames as usize;
        let fragments_max = FRAGMENTS_BASE + FRAGMENTS_PER_FRAME_MAX * frames;
        let mut fragments = header::fragments(source, pixel_data, fragments_max)?;
        if fragments.is_empty() {
            return Err(DecodeError::NoPixelData);
        }
        let table = fragments.remove(0);
        let first = first_fragments(source, header, &table, &fragments, frames)?;
        Ok(Self::Fragments { fragments, first })
    }

    /// The bytes of frame `index`, which is one of the object's.
    pub(crate) fn read(&self, source: &Source, index: u32, bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
        let what = "pixel data";
        let mut bytes = Vec::new();
        match self {
            Self::Native { at, end, frame_bytes } => {
                let start = at + u64::from(index) * frame_bytes;
                if start + frame_bytes > *end {
                    return Err(DecodeError::Truncated { what });
                }
                source.append(start, *frame_bytes, &mut bytes, what)?;
            }
            Self::Fragments { fragments, first } => {
                let index = index as usize;
                let range = first.get(index).copied().zip(first.get(index + 1).copied());
                let parts = range.and_then(|(from, to)| fragments.get(from..to)).unwrap_or_default();
                let value = parts.iter().map(|part| u64::from(part.length)).sum();
                if value > bytes_max {
                    return Err(DecodeError::TooLarge { what: "bytes of a coded frame", value, limit: bytes_max });
                }
                for part in parts {
                    source.append(part.value_at, part.length.into(), &mut bytes, what)?;
                }
            }
        }
        Ok(bytes)
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

/// First fragment of each frame, and the number of fragments behind them.
fn first_fragments(
    source: &Source,
    header: &Header,
    table: &Element,
    fragments: &[Element],
    frames: usize,
) -> Result<Vec<usize>, DecodeError> {
    let unclear = DecodeError::Structure { what: "fragments that cannot be told apart into frames" };
    if fragments.is_empty() {
        return Err(DecodeError::NoPixelData);
    }
    if frames == 1 {
        return Ok(vec![0, fragments.len()]);
    }
    if fragments.len() == frames {
        return Ok((0..=frames).collect());
    }
    let offsets = match (&header.extended_offsets, table.length) {
        (Some(extended), _) => offsets(source, extended, 8, frames)?,
        (None, 0) => None,
        (None, _) => offsets(source, table, 4, frames)?,
    };
    let mut first: Vec<usize> = match offsets {
        Some(offsets) => {
            // Offsets count from the head of the first fragment, 8 bytes before its value.
            let base = fragments[0].value_at;
            let place = |offset| fragments.binary_search_by_key(&offset, |fragment| fragment.value_at - base).ok();
            offsets.into_iter().map(place).collect::<Option<_>>().ok_or(unclear)?
        }
        // Without a table a frame begins where a stream of the JPEG family does.
        None => (0..fragments.len()).filter(|index| begins_stream(source, &fragments[*index])).collect(),
    };
    let unclear = DecodeError::Structure { what: "an offset table that does not fit the frames" };
    if first.len() != frames || first[0] != 0 || !first.is_sorted_by(|a, b| a < b) {
        return Err(unclear);
    }
    first.push(fragments.len());
    Ok(first)
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
