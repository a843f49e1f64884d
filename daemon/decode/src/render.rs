//! Samples to a [`Frame`]: bits, sign, palette and colour are made plain here, once for all codecs.

use crate::DecodeError;
use crate::codec::{Buffer, Samples};
use crate::colour::ybr_to_rgb;
use crate::pixels::{Palette, Photometric, PixelFormat};
use fovea_core::{Frame, Pixels};

/// Makes the frame.
///
/// # Errors
/// [`DecodeError::Frame`] when the samples are not as many as the format says.
pub(crate) fn frame(samples: Samples, format: &PixelFormat) -> Result<Frame, DecodeError> {
    let plain = Plain { bits: samples.bits, shift: samples.shift };
    let pixels = match (format.photometric, &format.palette) {
        (Photometric::Palette, Some(palette)) => coloured(&samples.buffer, plain, format.signed, palette),
        (Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette, _) => {
            gray(samples.buffer, plain, format.signed, format.photometric == Photometric::Monochrome1)
        }
        (Photometric::YbrFull | Photometric::YbrFull422, _) if !samples.is_rgb => rgb(samples.buffer, plain, true),
        _ => rgb(samples.buffer, plain, false),
    };
    Frame::new(format.columns, format.rows, pixels).map_err(DecodeError::Frame)
}

/// Takes the stored bits out of an allocated sample.
#[derive(Clone, Copy)]
struct Plain {
    bits: u8,
    shift: u8,
}

impl Plain {
    fn full_scale(self) -> u16 {
        // 1 to 16 bits.
        ((1_u32 << self.bits) - 1) as u16
    }

    fn unsigned(self, sample: u16) -> u16 {
        sample >> self.shift & self.full_scale()
    }

    fn signed(self, sample: u16) -> i16 {
        let above = 16 - self.bits;
        (self.unsigned(sample) << above).cast_signed() >> above
    }

    /// To 8 bits by full scale; `bits` is at most 8.
    fn byte(self, value: u16) -> u8 {
        let full_scale = u32::from(self.full_scale());
        ((u32::from(value) * 255 + full_scale / 2) / full_scale) as u8
    }
}

fn gray(buffer: Buffer, plain: Plain, signed: bool, inverted: bool) -> Pixels {
    let full_scale = plain.full_scale();
    if signed {
        let flip = if inverted { -1 } else { 0 };
        // `!value` is -1 - value: the lowest becomes the highest.
        let samples = buffer.words().map(|sample| plain.signed(sample) ^ flip).collect();
        return Pixels::GrayI16 { samples, bits: plain.bits };
    }
    let flip = if inverted { full_scale } else { 0 };
    match buffer {
        Buffer::Bytes(bytes) if plain.bits == 8 && !inverted => Pixels::Gray8(bytes),
        buffer if plain.bits <= 8 => {
            Pixels::Gray8(buffer.words().map(|sample| plain.byte(plain.unsigned(sample) ^ flip)).collect())
        }
        buffer => {
            let samples = buffer.words().map(|sample| plain.unsigned(sample) ^ flip).collect();
            Pixels::Gray16 { samples, bits: plain.bits }
        }
    }
}

fn coloured(buffer: &Buffer, plain: Plain, signed: bool, palette: &Palette) -> Pixels {
    let last = palette.entries.len() as i32 - 1;
    let entry = |sample: u16| {
        let index = if signed { i32::from(plain.signed(sample)) } else { i32::from(plain.unsigned(sample)) };
        palette.entries[(index - palette.first).clamp(0, last) as usize]
    };
    if palette.bits == 8 {
        // Entries of 8 bits were read from bytes.
        Pixels::Rgb8(buffer.words().flat_map(|sample| entry(sample).map(|value| value as u8)).collect())
    } else {
        Pixels::Rgb16 { samples: buffer.words().flat_map(entry).collect(), bits: 16 }
    }
}

fn rgb(buffer: Buffer, plain: Plain, is_ybr: bool) -> Pixels {
    let full_scale = i64::from(plain.full_scale());
    let convert = |pixel: [u16; 3]| if is_ybr { ybr_to_rgb(pixel, full_scale) } else { pixel };
    let buffer = match buffer {
        Buffer::Bytes(bytes) if plain.bits == 8 && !is_ybr => return Pixels::Rgb8(bytes),
        Buffer::Bytes(mut bytes) if plain.bits == 8 => {
            for pixel in bytes.chunks_exact_mut(3) {
                let rgb = convert([pixel[0].into(), pixel[1].into(), pixel[2].into()]);
                // At most 255: full scale is that of 8 bits.
                pixel.copy_from_slice(&rgb.map(|value| value as u8));
            }
            return Pixels::Rgb8(bytes);
        }
        buffer => buffer,
    };
    let mut samples: Vec<u16> = buffer.words().map(|sample| plain.unsigned(sample)).collect();
    for pixel in samples.chunks_exact_mut(3) {
        pixel.copy_from_slice(&convert([pixel[0], pixel[1], pixel[2]]));
    }
    if plain.bits <= 8 {
        Pixels::Rgb8(samples.into_iter().map(|value| plain.byte(value)).collect())
    } else {
        Pixels::Rgb16 { samples, bits: plain.bits }
    }
}
