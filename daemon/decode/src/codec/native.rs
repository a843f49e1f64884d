//! Pixels that are not coded. Standard: PS3.5 section 8.1.1, PS3.3 sections C.7.6.3.1.2 and C.7.6.3.1.3.

use super::{Buffer, Samples};
use crate::DecodeError;
use crate::pixels::{Photometric, PixelFormat};

/// Little-endian samples, planar or interleaved or with shared chrominance, made interleaved.
pub(super) fn decode(bytes: Vec<u8>, format: &PixelFormat) -> Result<Samples, DecodeError> {
    let buffer = if format.bits_allocated == 8 {
        Buffer::Bytes(interleave(bytes, format))
    } else {
        let words = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Buffer::Words(interleave(words, format))
    };
    Ok(Samples { buffer, bits: format.bits_stored, shift: format.shift, is_rgb: false })
}

fn interleave<T: Copy>(samples: Vec<T>, format: &PixelFormat) -> Vec<T> {
    if format.samples_per_pixel == 1 {
        samples
    } else if format.photometric == Photometric::YbrFull422 {
        // Y Y Cb Cr for each two pixels; the last pixel of an odd row has a partner that is not shown.
        let columns = format.columns as usize;
        let mut out = Vec::with_capacity(format.samples());
        for row in samples.chunks_exact(columns.next_multiple_of(2) * 2) {
            for x in 0..columns {
                let pair = &row[x / 2 * 4..];
                out.extend([pair[x % 2], pair[2], pair[3]]);
            }
        }
        out
    } else if format.planar {
        interleave_planes(&samples)
    } else {
        samples
    }
}

/// Three planes to pixels.
pub(super) fn interleave_planes<T: Copy>(samples: &[T]) -> Vec<T> {
    let (red, rest) = samples.split_at(samples.len() / 3);
    let (green, blue) = rest.split_at(samples.len() / 3);
    red.iter().zip(green).zip(blue).flat_map(|((red, green), blue)| [*red, *green, *blue]).collect()
}
