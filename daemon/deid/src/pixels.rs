//! Pixel data from the source to the copy, in pieces, with nothing but pixels in it.
//!
//! In: the stream behind the header, the header's facts. Out: the element Pixel Data, whole, and nothing after it.
//! Promise: memory stays at one piece; native data has exactly the length that rows, columns and frames say, unused high
//! bits are zero; compressed frames are scrubbed (scrub.rs) and as many as the header says.
//! Standard: DICOM PS3.5 sections 8.1.1, 8.2, A.4; PS3.3 section C.7.6.3.

use crate::scrub::{Family, NotScrubbed, Scrubber};
use crate::wire::{DataSet, PixelStart, tag_bytes};
use std::io::{self, Read, Write};

/// Bytes that are in memory at a time.
const PIECE_BYTES: usize = 64 << 10;
const PIXEL_DATA: u32 = 0x7FE0_0010;

/// How frames are laid down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// Uncompressed.
    Native,
    /// Fragments of a codestream that scrub.rs reads.
    Codestream(Family),
    /// Fragments of run lengths (PS3.5 annex G), which have no room for words but behind their end.
    RunLength,
}

/// Why pixel data is not copied.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// The source ends early or cannot be read.
    #[error("read pixel data")]
    Read(#[source] io::Error),
    /// The copy cannot be written.
    #[error("write pixel data")]
    Write(#[source] io::Error),
    /// Pixel data does not fit its description: there could be more in it than pixels.
    #[error("pixel data: {0}")]
    Doubtful(&'static str),
    /// The frames are not what their syntax says.
    #[error(transparent)]
    NotScrubbed(#[from] NotScrubbed),
}

/// What the header says of the pixels.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    native_bytes: u64,
    frames: u32,
    bits_stored: u16,
    bits_allocated: u16,
}

impl Geometry {
    /// Reads the facts; all must be there and make sense.
    ///
    /// # Errors
    /// [`PixelError::Doubtful`].
    pub fn of(header: &DataSet) -> Result<Self, PixelError> {
        let us = |tag, what| header.us(tag).filter(|v| *v > 0).ok_or(PixelError::Doubtful(what));
        let rows = us(0x0028_0010, "no rows")?;
        let columns = us(0x0028_0011, "no columns")?;
        let samples = us(0x0028_0002, "no samples per pixel")?;
        let bits_allocated = us(0x0028_0100, "no bits allocated")?;
        let bits_stored = us(0x0028_0101, "no bits stored")?;
        let high_bit = header.us(0x0028_0102).unwrap_or(bits_stored - 1);
        let frames = match header.bytes(0x0028_0008) {
            None => 1,
            Some(_) => header.ascii(0x0028_0008).and_then(|n| n.parse().ok()).unwrap_or(0),
        };
        let is_plain = matches!(bits_allocated, 8 | 16) && bits_stored <= bits_allocated && high_bit + 1 == bits_stored;
        let is_signed = header.us(0x0028_0103).unwrap_or(0) != 0;
        if !is_plain || !matches!(samples, 1 | 3) || frames == 0 || (is_signed && bits_stored != bits_allocated) {
            return Err(PixelError::Doubtful("an unusual layout of bits, samples or frames"));
        }
        // PS3.3 section C.7.6.3.1.2: 4:2:2 keeps two samples for a pixel.
        let samples = if header.ascii(0x0028_0004) == Some("YBR_FULL_422") { 2 } else { samples };
        let bytes = u64::from(rows) * u64::from(columns) * u64::from(samples) * u64::from(bits_allocated / 8);
        Ok(Self { native_bytes: bytes * u64::from(frames), frames, bits_stored, bits_allocated })
    }
}

/// Copies the element; `reader` stands at the first byte of its value.
///
/// # Errors
/// [`PixelError`]; what was written so far must then be thrown away.
pub fn copy<R: Read, W: Write>(
    reader: &mut R,
    out: &mut W,
    start: PixelStart,
    coding: Coding,
    explicit: bool,
    geometry: Geometry,
) -> Result<(), PixelError> {
    if start.tag != PIXEL_DATA {
        return Err(PixelError::Doubtful("floating point pixels"));
    }
    match (coding, start.length) {
        (Coding::Native, Some(length)) => native(reader, out, start.vr, length, explicit, geometry),
        (Coding::Native, None) => Err(PixelError::Doubtful("undefined length in an uncompressed syntax")),
        (_, Some(_)) => Err(PixelError::Doubtful("no fragments in a compressed syntax")),
        (Coding::Codestream(family), None) => encapsulated(reader, out, Some(Scrubber::new(family)), geometry),
        (Coding::RunLength, None) => encapsulated(reader, out, None, geometry),
    }
}

fn native<R: Read, W: Write>(
    reader: &mut R,
    out: &mut W,
    vr: [u8; 2],
    length: u32,
    explicit: bool,
    geometry: Geometry,
) -> Result<(), PixelError> {
    let has_length =
        [geometry.native_bytes, geometry.native_bytes + geometry.native_bytes % 2].contains(&length.into());
    if !has_length || !matches!(&vr, b"OB" | b"OW") {
        return Err(PixelError::Doubtful("length differs from rows x columns x samples x frames"));
    }
    put(out, &tag_bytes(PIXEL_DATA))?;
    if explicit {
        put(out, &[vr[0], vr[1], 0, 0])?;
    }
    let padded = length + length % 2;
    put(out, &padded.to_le_bytes())?;
    let unused = if geometry.bits_allocated == 16 { !0u16 << (geometry.bits_stored - 1) << 1 } else { 0 };
    // Of 8 bits allocated fewer may be stored as well; the mask is then the same for both bytes of a pair.
    let unused = if geometry.bits_allocated == 8 && geometry.bits_stored < 8 {
        u16::from_le_bytes([!0u8 << geometry.bits_stored; 2])
    } else {
        unused
    };
    let mask = (!unused).to_le_bytes();
    let mut at = 0u64;
    pieces(reader, length.into(), |piece| {
        // Pieces are even but for the last, so each begins with a low byte.
        for byte in piece.iter_mut() {
            *byte &= mask[(at % 2) as usize];
            if at >= geometry.native_bytes {
                *byte = 0;
            }
            at += 1;
        }
        put(out, piece)
    })?;
    if padded > length { put(out, &[0]) } else { Ok(()) }
}

fn encapsulated<R: Read, W: Write>(
    reader: &mut R,
    out: &mut W,
    mut scrubber: Option<Scrubber>,
    geometry: Geometry,
) -> Result<(), PixelError> {
    put(out, &tag_bytes(PIXEL_DATA))?;
    put(out, &[b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])?;
    offset_table(reader, out, geometry.frames)?;
    let mut fragments = 0u32;
    while let Some(length) = item(reader)? {
        fragments += 1;
        if length % 2 == 1 {
            return Err(PixelError::Doubtful("a fragment of odd length"));
        }
        put(out, &tag_bytes(0xFFFE_E000))?;
        put(out, &length.to_le_bytes())?;
        pieces(reader, length.into(), |piece| {
            if let Some(scrubber) = &mut scrubber {
                scrubber.feed(piece)?;
            }
            put(out, piece)
        })?;
    }
    // A run-length frame is exactly one fragment (PS3.5 section A.4.2).
    let frames = scrubber.map_or(Ok(fragments), Scrubber::finish)?;
    if frames != geometry.frames {
        return Err(PixelError::Doubtful("another number of frames than the header says"));
    }
    put(out, &tag_bytes(0xFFFE_E0DD))?;
    put(out, &[0; 4])
}

/// Copies the Basic Offset Table if it is one, and writes an empty one otherwise (always allowed, PS3.5 section A.4).
fn offset_table<R: Read, W: Write>(reader: &mut R, out: &mut W, frames: u32) -> Result<(), PixelError> {
    let Some(length) = item(reader)? else { return Err(PixelError::Doubtful("no offset table")) };
    let is_table = u64::from(length) == u64::from(frames) * 4 && length as usize <= PIECE_BYTES;
    let mut table = Vec::new();
    pieces(reader, length.into(), |piece| {
        if is_table {
            table.extend_from_slice(piece);
        }
        Ok(())
    })?;
    let offsets: Vec<u32> = table.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let rises = offsets.first().is_some_and(|first| *first == 0) && offsets.is_sorted_by(|a, b| a < b);
    if !rises {
        table.clear();
    }
    put(out, &tag_bytes(0xFFFE_E000))?;
    put(out, &(table.len() as u32).to_le_bytes())?;
    put(out, &table)
}

/// The next item's length, `None` at the delimiter.
fn item<R: Read>(reader: &mut R) -> Result<Option<u32>, PixelError> {
    let mut head = [0u8; 8];
    reader.read_exact(&mut head).map_err(PixelError::Read)?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    match (u32::from_le_bytes([head[0], head[1], head[2], head[3]]).rotate_left(16), length) {
        (0xFFFE_E000, u32::MAX) => Err(PixelError::Doubtful("a fragment of undefined length")),
        (0xFFFE_E000, length) => Ok(Some(length)),
        (0xFFFE_E0DD, 0) => Ok(None),
        _ => Err(PixelError::Doubtful("no fragment where one must be")),
    }
}

/// Hands `length` bytes to `each`, in pieces that are even but for the last.
fn pieces<R: Read>(
    reader: &mut R,
    length: u64,
    mut each: impl FnMut(&mut [u8]) -> Result<(), PixelError>,
) -> Result<(), PixelError> {
    let mut buffer = vec![0u8; PIECE_BYTES];
    let mut left = length;
    while left > 0 {
        let piece = &mut buffer[..left.min(PIECE_BYTES as u64) as usize];
        reader.read_exact(piece).map_err(PixelError::Read)?;
        each(piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

fn put<W: Write>(out: &mut W, bytes: &[u8]) -> Result<(), PixelError> {
    out.write_all(bytes).map_err(PixelError::Write)
}
