//! Area-average resize of a window of an 8-bit image, with channel order and normalisation, in one pass over the source.
//!
//! In: gray or RGB bytes, a window that may lie partly or wholly outside (there it is black), an output size.
//! Out: bytes of the same channels, or planar f32 (NCHW, N = 1).
//! Promise: every variant gives the same bits as `scalar.rs`, floats too.
//!
//! What it computes: output pixel (i, j) is the mean of the window over the rectangle that it covers, the source taken as
//! squares of constant colour, so a source pixel that is covered in part counts in part, whatever the ratio. When
//! enlarging, an output pixel that falls within one source pixel takes its value (nearest), one that straddles an edge
//! takes the mean by area.
//!
//! How near: weights are cut to 14 bits so that they sum to exactly 1 (a constant image stays constant), rows are held
//! with 7 fractional bits. With `taps_x`, `taps_y` source pixels under an output pixel the result is within
//! `(taps_x + taps_y) / 128 + 1 / 256` levels of 255 of the real mean (worst pattern; photographs: under 0.02), and f32
//! adds two roundings of the last place.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;
mod taps;

use crate::Isa;
use taps::Taps;

/// Bits of a weight; the weights of one output row or column sum to `1 << WEIGHT_BITS`, which still fits an i16.
const WEIGHT_BITS: u32 = 14;
/// Fractional bits of a row between the two passes: 255 with 7 bits behind it is the most that fits an i16.
const ROW_FRACTION_BITS: u32 = 7;
/// Fractional bits of a finished sum: 255 << 21 fits an i32.
const SUM_FRACTION_BITS: u32 = WEIGHT_BITS + ROW_FRACTION_BITS;
/// Longest side of a window or an output, in pixels.
pub const SIDE_PX_MAX: u32 = 1 << 20;

/// Interleaved 8-bit samples, rows without padding.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    samples: &'a [u8],
    width_px: u32,
    height_px: u32,
    channels: usize,
}

/// Why a resize was refused. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// The slice is not width x height x channels, or channels is not 1 or 3, or a side is 0.
    #[error("{samples} samples do not make an image of {width_px} x {height_px} px with {channels} channels")]
    Image {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
        /// Samples a pixel.
        channels: usize,
        /// Length of the slice.
        samples: usize,
    },
    /// A side of window or output is 0 or more than [`SIDE_PX_MAX`].
    #[error("side of {side_px} px, must be 1 to {SIDE_PX_MAX}")]
    Side {
        /// The side.
        side_px: u32,
    },
    /// The output slice has another length.
    #[error("output needs {expected} samples, {found} are there")]
    Output {
        /// Samples needed.
        expected: usize,
        /// Samples given.
        found: usize,
    },
    /// A plane asks for a channel that the image has not.
    #[error("plane of channel {channel}, the image has {channels}")]
    Channel {
        /// Asked for.
        channel: usize,
        /// There.
        channels: usize,
    },
}

impl<'a> Image<'a> {
    /// Joins size and samples; `channels` is 1 (gray) or 3 (red, green, blue).
    ///
    /// # Errors
    /// [`AreaError::Image`] when they do not fit.
    pub fn new(samples: &'a [u8], width_px: u32, height_px: u32, channels: usize) -> Result<Self, AreaError> {
        let expected = u128::from(width_px) * u128::from(height_px) * channels as u128;
        if expected == 0 || expected != samples.len() as u128 || !matches!(channels, 1 | 3) {
            return Err(AreaError::Image { width_px, height_px, channels, samples: samples.len() });
        }
        Ok(Self { samples, width_px, height_px, channels })
    }

    /// Samples a pixel: 1 or 3.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The bytes of the columns `x0..x1` of row `y`; all three lie inside.
    fn row(&self, y: usize, x0: usize, x1: usize) -> &'a [u8] {
        let start = y * self.width_px as usize;
        &self.samples[(start + x0) * self.channels..(start + x1) * self.channels]
    }
}

/// A rectangle in pixels of the source; what lies outside the source is black.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Left edge; negative is left of the source.
    pub x_px: i64,
    /// Top edge; negative is above the source.
    pub y_px: i64,
    /// Columns, 1 to [`SIDE_PX_MAX`].
    pub width_px: u32,
    /// Rows, 1 to [`SIDE_PX_MAX`].
    pub height_px: u32,
}

/// Where a plane of the tensor comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaneSource {
    /// A channel of the source, from 0.
    Channel(usize),
    /// Luminance by ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue; of a gray source its only channel.
    Luma,
}

/// One plane of the tensor: element = (value / 255 - `mean`) / `std`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plane {
    /// What it shows.
    pub source: PlaneSource,
    /// Subtracted, a share of full scale.
    pub mean: f32,
    /// Divided by, a share of full scale, not 0.
    pub std: f32,
}

/// Resizes `window` of `image` to `width_px` x `height_px`, interleaved bytes of the same channels, rounded to nearest.
///
/// # Errors
/// [`AreaError`] when a side is out of range or `out` is not width x height x channels.
pub fn resize_u8(
    isa: Isa,
    image: &Image<'_>,
    window: Window,
    width_px: u32,
    height_px: u32,
    out: &mut [u8],
) -> Result<(), AreaError> {
    let samples = checked_samples(window, width_px, height_px, image.channels)?;
    if out.len() != samples {
        return Err(AreaError::Output { expected: samples, found: out.len() });
    }
    let row_samples = width_px as usize * image.channels;
    for_each_row(isa, image, window, width_px, height_px, |y, sums| {
        scalar::round_to_u8(sums, image.channels, &mut out[y * row_samples..(y + 1) * row_samples]);
    });
    Ok(())
}

/// Resizes `window` of `image` to `width_px` x `height_px` and normalises it: one plane after the other, row-major.
///
/// # Errors
/// [`AreaError`] when a side is out of range, a plane names a channel that is not there, or `out` is not
/// width x height x planes.
pub fn resize_f32_planar(
    isa: Isa,
    image: &Image<'_>,
    window: Window,
    width_px: u32,
    height_px: u32,
    planes: &[Plane],
    out: &mut [f32],
) -> Result<(), AreaError> {
    let samples = checked_samples(window, width_px, height_px, planes.len())?;
    if out.len() != samples {
        return Err(AreaError::Output { expected: samples, found: out.len() });
    }
    for plane in planes {
        if let PlaneSource::Channel(channel) = plane.source
            && channel >= image.channels
        {
            return Err(AreaError::Channel { channel, channels: image.channels });
        }
    }
    let width = width_px as usize;
    let plane_samples = width * height_px as usize;
    for_each_row(isa, image, window, width_px, height_px, |y, sums| {
        for (index, plane) in planes.iter().enumerate() {
            let start = index * plane_samples + y * width;
            normalise_row(isa, plane, sums, &mut out[start..start + width]);
        }
    });
    Ok(())
}

/// Checks all sides; the number of samples of the output.
fn checked_samples(window: Window, width_px: u32, height_px: u32, channels: usize) -> Result<usize, AreaError> {
    for side_px in [window.width_px, window.height_px, width_px, height_px] {
        if side_px == 0 || side_px > SIDE_PX_MAX {
            return Err(AreaError::Side { side_px });
        }
    }
    Ok(width_px as usize * height_px as usize * channels)
}

/// Walks the output rows: sums the source rows under each, then the columns; hands on planar sums of the width.
fn for_each_row(
    isa: Isa,
    image: &Image<'_>,
    window: Window,
    width_px: u32,
    height_px: u32,
    mut finish: impl FnMut(usize, &[i32]),
) {
    let isa = if isa.is_available() { isa } else { Isa::Scalar };
    let down = Taps::new(window.y_px, window.height_px, image.height_px, height_px);
    let across = Taps::new(window.x_px, window.width_px, image.width_px, width_px);
    let columns = across.inside();
    // The vector variant reads whole groups of taps past the last pixel, with weight 0.
    let row_samples = columns.len() * image.channels;
    let mut row = vec![0_i16; row_samples + taps::ROW_SLACK];
    let mut sums = vec![0_i32; width_px as usize * image.channels];
    let mut sources: Vec<&[u8]> = Vec::new();
    for y in 0..height_px as usize {
        let (first, weights) = down.of(y);
        sources.clear();
        sources.extend((first..first + weights.len()).map(|line| image.row(line, columns.start, columns.end)));
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `is_available` above has asked the processor for AVX2.
            Isa::Avx2 => unsafe {
                avx2::sum_rows(&sources, weights, &mut row[..row_samples]);
                avx2::sum_columns(&row, columns.start, image.channels, &across, &mut sums);
            },
            _ => {
                scalar::sum_rows(&sources, weights, &mut row[..row_samples]);
                scalar::sum_columns(&row, columns.start, image.channels, &across, &mut sums);
            }
        }
        finish(y, &sums);
    }
}

/// Writes one row of one plane from the planar sums of that row.
fn normalise_row(isa: Isa, plane: &Plane, sums: &[i32], out: &mut [f32]) {
    let width = out.len();
    let full_scale = f64::from(255_u32 << SUM_FRACTION_BITS);
    let scale = (1.0 / (full_scale * f64::from(plane.std))) as f32;
    let bias = (-f64::from(plane.mean) / f64::from(plane.std)) as f32;
    let channel = match plane.source {
        PlaneSource::Channel(channel) => channel,
        PlaneSource::Luma if sums.len() == 3 * width => {
            let (red, rest) = sums.split_at(width);
            let (green, blue) = rest.split_at(width);
            return scalar::normalise_luma(red, green, blue, scale, bias, out);
        }
        PlaneSource::Luma => 0,
    };
    let sums = &sums[channel * width..(channel + 1) * width];
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: asked of the processor here.
        Isa::Avx2 if isa.is_available() => unsafe { avx2::normalise(sums, scale, bias, out) },
        _ => scalar::normalise(sums, scale, bias, out),
    }
}
