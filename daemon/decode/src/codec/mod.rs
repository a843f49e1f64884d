//! Coded bytes to samples.
//!
//! In: the bytes of one frame. Out: [`Samples`], interleaved, as many as the format says.
//! Promise: sizes in a code are held against the format before anything is allocated for them.

mod jpeg2000;
pub(crate) mod jpeg8;
mod jpeg_huffman;
mod jpeg_ls;
mod native;
mod rle;

use crate::DecodeError;
use crate::pixels::PixelFormat;
use crate::syntax::Code;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Samples in the width in which they are allocated.
#[derive(Debug)]
pub(crate) enum Buffer {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

impl Buffer {
    /// All samples as words.
    pub(crate) fn words(&self) -> impl Iterator<Item = u16> + '_ {
        let (bytes, words): (&[u8], &[u16]) = match self {
            Self::Bytes(bytes) => (bytes, &[]),
            Self::Words(words) => (&[], words),
        };
        bytes.iter().map(|byte| u16::from(*byte)).chain(words.iter().copied())
    }
}

/// Interleaved samples of one frame.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) buffer: Buffer,
    /// Bits that mean something, 1 to 16.
    pub(crate) bits: u8,
    /// Bits below them.
    pub(crate) shift: u8,
    /// The code's own colour transform was undone: the samples are red, green, blue whatever the header says.
    pub(crate) is_rgb: bool,
}

impl Samples {
    /// Samples of a code with a depth of its own: where it is deeper than what the header calls stored (a code of 16 bits
    /// for 12 stored), the header says which bits mean something; else all of the code's bits do.
    fn coded(buffer: Buffer, coded_bits: u8, format: &PixelFormat) -> Self {
        let (bits, shift) =
            if coded_bits > format.bits_stored { (format.bits_stored, format.shift) } else { (coded_bits, 0) };
        Self { buffer, bits, shift, is_rgb: false }
    }
}

/// Decodes one frame.
pub(crate) fn decode(code: Code, bytes: Vec<u8>, format: &PixelFormat) -> Result<Samples, DecodeError> {
    match code {
        Code::Native => native::decode(bytes, format),
        Code::Rle => rle::decode(&bytes, format),
        Code::Jpeg => jpeg8::decode(&bytes, format),
        Code::JpegLs => {
            let (words, bits) = jpeg_ls::decode(&bytes, format)?;
            Ok(Samples::coded(Buffer::Words(words), bits, format))
        }
        Code::Jpeg2000 => jpeg2000::decode(&bytes, format),
    }
}

/// Runs a decoder that is not ours: should it panic on a damaged code, the frame is refused and nothing else happens.
pub(crate) fn quarantined<T>(
    codec: &'static str,
    decode: impl FnOnce() -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    // What the closure leaves half-done is dropped with it.
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(DecodeError::Code { codec, detail: "the decoder gave up on a damaged code".into() }))
}

/// Holds a coded frame's samples against the format.
fn check_samples(format: &PixelFormat, channels: usize, bits: u8) -> Result<(), DecodeError> {
    if channels == format.samples_per_pixel && (1..=format.bits_allocated).contains(&bits) {
        return Ok(());
    }
    Err(DecodeError::FormatMismatch {
        coded: format!("{channels} samples of {bits} bits"),
        header: format!("{} samples of {} bits", format.samples_per_pixel, format.bits_allocated),
    })
}
