//! JPEG-LS, lossless and near-lossless. Standard: ITU-T T.87.
//!
//! In: a whole stream. Out: interleaved words. Promise: as for the other codecs; a stream that ends early is an error.
//! Not decoded: mapping tables, subsampled components and restart intervals, which DICOM writers do not use.

mod scan;

use super::jpeg8::Head;
use crate::DecodeError;
use crate::pixels::PixelFormat;
use scan::{Coding, Interleave};

const CODEC: &str = "JPEG-LS";
/// The marker of a JPEG-LS frame.
const FRAME: u8 = 0xF7;

fn failed(detail: &str) -> DecodeError {
    DecodeError::Code { codec: CODEC, detail: detail.into() }
}

/// Thresholds and reset as an LSE segment gives them; 0 stands for the default. Standard: T.87 section C.2.4.1.1.
#[derive(Clone, Copy, Default)]
struct Preset {
    max_value: i32,
    thresholds: [i32; 3],
    reset: i32,
}

/// Decodes a stream: its samples and its depth.
pub(super) fn decode(bytes: &[u8], format: &PixelFormat) -> Result<(Vec<u16>, u8), DecodeError> {
    let head = Head::read(bytes)?;
    if head.process != FRAME {
        return Err(failed("another kind of JPEG"));
    }
    format.check_size(head.width, head.height)?;
    super::check_samples(format, head.component_ids.len(), head.bits)?;
    if head.bits < 2 {
        return Err(failed("a depth of 1 bit"));
    }
    let channels = head.component_ids.len();
    let (width, height) = (head.width as usize, head.height as usize);
    let mut samples = vec![0; format.samples()];
    let mut preset = Preset::default();
    let (mut at, mut decoded) = (2, 0);
    while decoded < channels {
        let (marker, segment, next) = next_segment(bytes, at)?;
        at = next;
        match marker {
            0xF8 => preset = read_preset(segment)?,
            0xDD if segment.iter().any(|byte| *byte != 0) => {
                return Err(DecodeError::UnsupportedPixels { what: "JPEG-LS with restart intervals" });
            }
            0xDA => {
                let (count, near, interleave) = read_scan(segment, channels, decoded)?;
                let coding =
                    Coding::new(head.bits, near, &preset).ok_or_else(|| failed("parameters that contradict"))?;
                let size = (width, height);
                at += scan::decode(&bytes[at..], coding, interleave, size, (decoded, count, channels), &mut samples)?;
                decoded += count;
            }
            0xD9 => return Err(failed("the image ends before all of it was there")),
            _ => {}
        }
    }
    Ok((samples, head.bits))
}

/// The marker at or behind `at`, its segment, and where the next begins.
fn next_segment(bytes: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), DecodeError> {
    let cut = || failed("the markers are cut short");
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0xFF), Some(0xD9)) => return Ok((0xD9, &[], at + 2)),
            // A set upper bit tells a marker from stuffed data.
            (Some(0xFF), Some(&marker @ 0x80..=0xFE)) => {
                let (high, low) = (bytes.get(at + 2).ok_or_else(cut)?, bytes.get(at + 3).ok_or_else(cut)?);
                let end = at + 2 + usize::from(u16::from_be_bytes([*high, *low]));
                return Ok((marker, bytes.get(at + 4..end).ok_or_else(cut)?, end));
            }
            (Some(_), Some(_)) => at += 1,
            _ => return Err(cut()),
        }
    }
}

fn read_preset(segment: &[u8]) -> Result<Preset, DecodeError> {
    let (&kind, rest) = segment.split_first().ok_or_else(|| failed("an empty parameter segment"))?;
    if kind != 1 {
        return Err(DecodeError::UnsupportedPixels { what: "JPEG-LS with mapping tables" });
    }
    let numbers: Vec<i32> =
        rest.chunks_exact(2).map(|pair| i32::from(u16::from_be_bytes([pair[0], pair[1]]))).collect();
    let &[max_value, t1, t2, t3, reset] = &numbers[..] else { return Err(failed("a damaged parameter segment")) };
    Ok(Preset { max_value, thresholds: [t1, t2, t3], reset })
}

/// Number of components, error bound and interleaving of a scan. Standard: T.87 section C.2.3.
fn read_scan(segment: &[u8], channels: usize, decoded: usize) -> Result<(usize, i32, Interleave), DecodeError> {
    let damaged = || failed("a damaged scan header");
    let (&count, rest) = segment.split_first().ok_or_else(damaged)?;
    let count = usize::from(count);
    let (parts, rest) = rest.split_at_checked(2 * count).ok_or_else(damaged)?;
    let &[near, mode, transform] = rest else { return Err(damaged()) };
    if parts.chunks_exact(2).any(|part| part[1] != 0) {
        return Err(DecodeError::UnsupportedPixels { what: "JPEG-LS with mapping tables" });
    }
    if transform != 0 {
        return Err(DecodeError::UnsupportedPixels { what: "JPEG-LS with a point transform" });
    }
    let interleave = match (mode, count) {
        (_, 1) => Interleave::Line,
        (1, _) => Interleave::Line,
        (2, _) => Interleave::Sample,
        _ => return Err(damaged()),
    };
    if count == 0 || count + decoded > channels {
        return Err(damaged());
    }
    Ok((count, near.into(), interleave))
}
