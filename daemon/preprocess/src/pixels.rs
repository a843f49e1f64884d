//! Any frame as 8-bit samples, gray or RGB.

use fovea_core::{Frame, Pixels};
use std::borrow::Cow;

/// Interleaved 8-bit samples; borrowed where the frame has them already.
pub(crate) struct EightBit<'a> {
    pub(crate) samples: Cow<'a, [u8]>,
    /// 1 or 3.
    pub(crate) channels: usize,
}

impl<'a> EightBit<'a> {
    /// Brings deeper samples to 8 bits by full scale, rounded to nearest.
    pub(crate) fn of(frame: &'a Frame) -> Self {
        match frame.pixels() {
            Pixels::Gray8(samples) => Self { samples: Cow::Borrowed(samples), channels: 1 },
            Pixels::Rgb8(samples) => Self { samples: Cow::Borrowed(samples), channels: 3 },
            Pixels::Gray16 { samples, bits } => Self { samples: unsigned(samples, *bits), channels: 1 },
            Pixels::Rgb16 { samples, bits } => Self { samples: unsigned(samples, *bits), channels: 3 },
            Pixels::GrayI16 { samples, bits } => {
                let lowest = -(1_i32 << (full_scale_bits(*bits) - 1));
                let shifted = samples.iter().map(|sample| (i32::from(*sample) - lowest).max(0) as u32);
                Self { samples: scale(shifted, *bits), channels: 1 }
            }
        }
    }
}

fn unsigned(samples: &[u16], bits: u8) -> Cow<'static, [u8]> {
    scale(samples.iter().map(|sample| u32::from(*sample)), bits)
}

/// A frame's word is not proof: bits outside 1 to 16 are cut to that.
fn full_scale_bits(bits: u8) -> u32 {
    u32::from(bits.clamp(1, 16))
}

fn scale(values: impl Iterator<Item = u32>, bits: u8) -> Cow<'static, [u8]> {
    let full_scale = (1_u32 << full_scale_bits(bits)) - 1;
    // At most 255 after the cut, so it fits.
    values.map(|value| ((value.min(full_scale) * 255 + full_scale / 2) / full_scale) as u8).collect()
}
