//! JPEG by Huffman codes beyond 8 bits: lossless (process 14, all predictors) and sequential DCT with up to 12 bits.
//! Standard: ITU-T T.81 annexes B, C, F and H.
//!
//! In: a whole JPEG stream. Out: interleaved words. Promise: planes are allocated once the frame's size has been held
//! against the header; every table index and every coefficient index is checked; a stream that ends early is an error.

mod bits;
mod dct;
mod lossless;

use crate::DecodeError;
use crate::pixels::PixelFormat;
use bits::{Bits, Huffman};

const CODEC: &str = "JPEG";
/// Scans of one frame beyond which the stream means harm.
const SCANS_MAX: usize = 16;

fn failed(detail: &str) -> DecodeError {
    DecodeError::Code { codec: CODEC, detail: detail.into() }
}

/// One component of the frame.
struct Component {
    id: u8,
    /// Samples across and down in one group of all components.
    across: usize,
    down: usize,
    quantisation: usize,
    /// Columns and rows of its plane that mean something.
    width: usize,
    height: usize,
    /// Columns of its plane as it is held: whole groups.
    stride: usize,
    samples: Vec<u16>,
    is_decoded: bool,
}

/// A component's part in a scan: which one it is, and its tables.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
}

/// A scan's header. Standard: T.81 section B.2.3.
struct Scan {
    parts: Vec<Part>,
    /// The predictor of a lossless scan.
    start: u8,
    /// The point transform of a lossless scan.
    low: u8,
}

/// What stands before a scan.
#[derive(Default)]
struct Tables {
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    quantisation: [Option<[u16; 64]>; 4],
    restart_interval: usize,
}

struct Frame {
    is_lossless: bool,
    bits: u8,
    width: usize,
    height: usize,
    across_max: usize,
    down_max: usize,
    components: Vec<Component>,
}

/// Decodes a stream whose size and depth the caller has held against `format`.
pub(super) fn decode(bytes: &[u8], format: &PixelFormat) -> Result<Vec<u16>, DecodeError> {
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let mut scans = 0;
    let mut at = 2;
    loop {
        let (marker, segment, next) = next_segment(bytes, at)?;
        at = next;
        match (marker, &mut frame) {
            (0xC4, _) => tables.read_huffman(segment)?,
            (0xDB, _) => tables.read_quantisation(segment)?,
            (0xDD, _) => {
                let &[high, low] = segment else { return Err(failed("a damaged restart interval")) };
                tables.restart_interval = u16::from_be_bytes([high, low]).into();
            }
            (0xC0 | 0xC1 | 0xC3, None) => frame = Some(Frame::read(marker == 0xC3, segment, format)?),
            (0xDA, Some(frame)) => {
                scans += 1;
                if scans > SCANS_MAX {
                    return Err(failed("too many scans"));
                }
                let scan = Scan::read(segment, frame)?;
                let mut bits = Bits::new(&bytes[at..]);
                if frame.is_lossless {
                    lossless::decode_scan(frame, &scan, &tables, &mut bits)?;
                } else {
                    dct::decode_scan(frame, &scan, &tables, &mut bits)?;
                }
                at += bits.consumed();
                if frame.components.iter().all(|component| component.is_decoded) {
                    return Ok(frame.interleaved());
                }
            }
            (0xD9, _) => return Err(failed("the image ends before all of it was there")),
            (0xC0..=0xCF, _) => return Err(DecodeError::UnsupportedPixels { what: "this JPEG process" }),
            (0xDA, None) => return Err(failed("a scan without a frame")),
            _ => {}
        }
    }
}

/// The marker at or behind `at`, its segment, and where the next begins.
fn next_segment(bytes: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), DecodeError> {
    let cut = || failed("the markers are cut short");
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0xFF), Some(0xFF)) => at += 1,
            (Some(0xFF), Some(&marker @ 0xC0..)) if !matches!(marker, 0xD0..=0xD9) => {
                let (high, low) = (bytes.get(at + 2).ok_or_else(cut)?, bytes.get(at + 3).ok_or_else(cut)?);
                let end = at + 2 + usize::from(u16::from_be_bytes([*high, *low]));
                return Ok((marker, bytes.get(at + 4..end).ok_or_else(cut)?, end));
            }
            (Some(0xFF), Some(0xD9)) => return Ok((0xD9, &[], at + 2)),
            (Some(_), Some(_)) => at += 1,
            _ => return Err(cut()),
        }
    }
}

impl Tables {
    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<(), DecodeError> {
        while let Some((&head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(|| failed("a damaged Huffman table"))?;
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(total).ok_or_else(|| failed("a damaged Huffman table"))?;
            let table = Huffman::new(counts, values).ok_or_else(|| failed("a Huffman table that is none"))?;
            let set = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *set.get_mut(usize::from(head & 15)).ok_or_else(|| failed("a Huffman table beyond the fourth"))? =
                Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<(), DecodeError> {
        let damaged = || failed("a damaged quantisation table");
        while let Some((&head, rest)) = segment.split_first() {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let (values, rest) = rest.split_at_checked(64 * width).ok_or_else(damaged)?;
            let mut table = [0; 64];
            for (entry, value) in table.iter_mut().zip(values.chunks_exact(width)) {
                *entry = value.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
            }
            *self.quantisation.get_mut(usize::from(head & 15)).ok_or_else(damaged)? = Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn dc(&self, index: usize) -> Result<&Huffman, DecodeError> {
        self.dc.get(index).and_then(Option::as_ref).ok_or_else(|| failed("a Huffman table is missing"))
    }

    fn ac(&self, index: usize) -> Result<&Huffman, DecodeError> {
        self.ac.get(index).and_then(Option::as_ref).ok_or_else(|| failed("a Huffman table is missing"))
    }
}

impl Frame {
    fn read(is_lossless: bool, segment: &[u8], format: &PixelFormat) -> Result<Self, DecodeError> {
        let damaged = || failed("a damaged frame header");
        let &[bits, h1, h0, w1, w0, count, ref parts @ ..] = segment else { return Err(damaged()) };
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        format.check_size(width.into(), height.into())?;
        let depths = if is_lossless { 2..=16 } else { 8..=12 };
        let parts: Vec<&[u8]> = parts.chunks_exact(3).take(count.into()).collect();
        if !depths.contains(&bits) || bits > format.bits_allocated || parts.len() != format.samples_per_pixel {
            return Err(damaged());
        }
        let factors = |part: &[u8]| (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        if parts.iter().any(|part| !matches!(factors(part), (1..=4, 1..=4))) {
            return Err(damaged());
        }
        let across_max = parts.iter().map(|part| factors(part).0).max().ok_or_else(damaged)?;
        let down_max = parts.iter().map(|part| factors(part).1).max().ok_or_else(damaged)?;
        let (width, height) = (usize::from(width), usize::from(height));
        let block = if is_lossless { 1 } else { 8 };
        let components = parts.iter().map(|part| {
            let (across, down) = factors(part);
            let stride = width.div_ceil(across_max * block) * across * block;
            let lines = height.div_ceil(down_max * block) * down * block;
            Component {
                id: part[0],
                across,
                down,
                quantisation: usize::from(part[2]),
                width: (width * across).div_ceil(across_max),
                height: (height * down).div_ceil(down_max),
                stride,
                samples: vec![0; stride * lines],
                is_decoded: false,
            }
        });
        Ok(Self { is_lossless, bits, width, height, across_max, down_max, components: components.collect() })
    }

    /// All planes as pixels; planes of fewer samples are repeated.
    fn interleaved(&self) -> Vec<u16> {
        let mut out = Vec::with_capacity(self.width * self.height * self.components.len());
        for y in 0..self.height {
            for x in 0..self.width {
                for component in &self.components {
                    let (column, row) = (x * component.across / self.across_max, y * component.down / self.down_max);
                    out.push(component.samples[row * component.stride + column]);
                }
            }
        }
        out
    }
}

impl Scan {
    fn read(segment: &[u8], frame: &Frame) -> Result<Self, DecodeError> {
        let damaged = || failed("a damaged scan header");
        let (&count, rest) = segment.split_first().ok_or_else(damaged)?;
        let count = usize::from(count);
        let (parts, rest) = rest.split_at_checked(2 * count).ok_or_else(damaged)?;
        let &[start, _, approximation] = rest else { return Err(damaged()) };
        let mut scan = Self { parts: Vec::new(), start, low: approximation & 15 };
        for part in parts.chunks_exact(2) {
            let component =
                frame.components.iter().position(|component| component.id == part[0]).ok_or_else(damaged)?;
            let again = scan.parts.iter().any(|other: &Part| other.component == component);
            if again || frame.components[component].is_decoded {
                return Err(failed("a component that comes twice"));
            }
            scan.parts.push(Part { component, dc: usize::from(part[1] >> 4), ac: usize::from(part[1] & 15) });
        }
        if scan.parts.is_empty() { Err(damaged()) } else { Ok(scan) }
    }

    /// Groups of the scan, across and down, and whether a group is one sample or block of a single component.
    fn groups(&self, frame: &Frame, block: usize) -> (usize, usize, bool) {
        if let [part] = &self.parts[..] {
            let component = &frame.components[part.component];
            (component.width.div_ceil(block), component.height.div_ceil(block), true)
        } else {
            let across = frame.width.div_ceil(frame.across_max * block);
            (across, frame.height.div_ceil(frame.down_max * block), false)
        }
    }
}
