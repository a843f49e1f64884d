//! Run lengths of bytes. Standard: PS3.5 annex G.

use super::{Buffer, Samples};
use crate::DecodeError;
use crate::pixels::PixelFormat;

const CODEC: &str = "RLE";
/// A count of segments and 15 offsets.
const HEADER_BYTES: usize = 64;

/// One segment for each byte of a pixel: all upper bytes of the first sample, then its lower bytes, then the next sample.
pub(super) fn decode(bytes: &[u8], format: &PixelFormat) -> Result<Samples, DecodeError> {
    let failed = |detail: &str| DecodeError::Code { codec: CODEC, detail: detail.into() };
    let head = bytes.get(..HEADER_BYTES).ok_or_else(|| failed("the header is cut short"))?;
    let number = |index: usize| {
        let at = 4 * index;
        u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
    };
    let sample_bytes = usize::from(format.bits_allocated / 8);
    let segments = format.samples_per_pixel * sample_bytes;
    if number(0) != segments {
        return Err(failed("the number of segments is not that of the bytes of a pixel"));
    }
    let pixels = format.columns as usize * format.rows as usize;
    let mut planes = Vec::with_capacity(segments);
    for index in 1..=segments {
        let end = if index < segments { number(index + 1) } else { bytes.len() };
        let segment = bytes.get(number(index)..end).ok_or_else(|| failed("a segment lies outside the frame"))?;
        planes.push(unpack(segment, pixels).ok_or_else(|| failed("a segment ends before the frame does"))?);
    }
    let channels = format.samples_per_pixel;
    let buffer = if sample_bytes == 1 {
        Buffer::Bytes((0..pixels).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect())
    } else {
        let word =
            |at: usize, channel: usize| u16::from_be_bytes([planes[2 * channel][at], planes[2 * channel + 1][at]]);
        Buffer::Words(
            (0..pixels)
                .flat_map(|at| (0..channels).map(move |channel| (at, channel)))
                .map(|(at, channel)| word(at, channel))
                .collect(),
        )
    };
    Ok(Samples { buffer, bits: format.bits_stored, shift: format.shift, is_rgb: false })
}

/// Unpacks a segment to exactly `length` bytes; what is behind them is padding.
fn unpack(mut packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let (&control, rest) = packed.split_first()?;
        let room = length - out.len();
        packed = match control {
            0..=127 => {
                let (literal, rest) = rest.split_at_checked(usize::from(control) + 1)?;
                out.extend_from_slice(&literal[..literal.len().min(room)]);
                rest
            }
            128 => rest,
            129..=255 => {
                let (&byte, rest) = rest.split_first()?;
                out.extend(std::iter::repeat_n(byte, (257 - usize::from(control)).min(room)));
                rest
            }
        };
    }
    Some(out)
}
