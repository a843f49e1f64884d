//! What a picture is worth, in numbers: the definitions are in [`crate::measures`].

use crate::disc::{Disc, Point};
use crate::mask::Mask;
use crate::measures;
use crate::picture::window;
use fovea_core::{Measure, Quality, Roi};
use fovea_kernels::Isa;
use fovea_kernels::area::{AreaError, Image, resize_u8};

/// Side of the copy that is measured, in pixels.
const SIDE_PX: usize = 512;
/// Distance that focus keeps from the edge of the disc, in pixels of the copy.
const EDGE_PX: usize = 8;
/// From this level on a channel counts as clipped.
const CLIPPED_FROM: u8 = 250;

/// Measures the region; without a disc the whole frame counts.
pub(crate) fn measure(
    isa: Isa,
    image: &Image<'_>,
    frame_px: (u32, u32),
    roi: Roi,
    disc: Option<&Disc>,
) -> Result<Quality, AreaError> {
    let channels = image.channels();
    let mut pixels = vec![0; SIDE_PX * SIDE_PX * channels];
    resize_u8(isa, image, window(roi), SIDE_PX as u32, SIDE_PX as u32, &mut pixels)?;
    let picture = Picture { pixels, channels };
    let mask = disc_mask(frame_px, roi, disc);
    let sums = Sums::over(&picture, &mask);
    let focus = 1000.0 * laplacian_variance(&picture, &mask.eroded(EDGE_PX)) / (sums.mean_green() + 1.0).powi(2);
    let mut quality = Quality::new();
    let mut put = |name: &str, value: f64, unit: &str| {
        quality.insert(name.into(), Measure { value, unit: unit.into() });
    };
    put(measures::FOCUS, focus, "1");
    put(measures::EXPOSURE, sums.mean_luminance() / 255.0, "1");
    put(measures::CLIPPED, sums.clipped_share(), "1");
    put(measures::FIELD, disc.map_or(1.0, |disc| disc.field), "1");
    if let Some(disc) = disc {
        put(measures::DISC_DIAMETER, 2.0 * disc.circle.radius, "{px}");
    }
    Ok(quality)
}

/// The pixels of the copy that belong to the disc.
fn disc_mask(frame_px: (u32, u32), roi: Roi, disc: Option<&Disc>) -> Mask {
    let step = f64::from(roi.side) / SIDE_PX as f64;
    let (width, height) = (f64::from(frame_px.0), f64::from(frame_px.1));
    Mask::from_fn(SIDE_PX, SIDE_PX, |column, row| {
        let x = f64::from(roi.x) + (column as f64 + 0.5) * step;
        let y = f64::from(roi.y) + (row as f64 + 0.5) * step;
        let in_frame = (0.0..width).contains(&x) && (0.0..height).contains(&y);
        in_frame && disc.is_none_or(|disc| disc.contains(Point { x, y }))
    })
}

/// The copy, gray or RGB.
struct Picture {
    pixels: Vec<u8>,
    channels: usize,
}

impl Picture {
    fn rgb(&self, at: usize) -> [u8; 3] {
        match self.channels {
            3 => [self.pixels[3 * at], self.pixels[3 * at + 1], self.pixels[3 * at + 2]],
            _ => [self.pixels[at]; 3],
        }
    }

    fn green(&self, at: usize) -> i32 {
        i32::from(if self.channels == 3 { self.pixels[3 * at + 1] } else { self.pixels[at] })
    }
}

/// Sums over the disc, whole numbers so that no order of adding matters.
#[derive(Default)]
struct Sums {
    pixels: u64,
    rgb: [u64; 3],
    clipped: u64,
}

impl Sums {
    fn over(picture: &Picture, disc: &Mask) -> Self {
        let mut sums = Self::default();
        for y in 0..disc.height {
            for (x, _) in disc.row(y).iter().enumerate().filter(|(_, inside)| **inside) {
                let pixel = picture.rgb(y * disc.width + x);
                sums.pixels += 1;
                for (sum, value) in sums.rgb.iter_mut().zip(pixel) {
                    *sum += u64::from(value);
                }
                sums.clipped += u64::from(pixel.iter().any(|value| *value >= CLIPPED_FROM));
            }
        }
        sums
    }

    /// Counts stay below 2^27, so they are exact in an f64; an empty disc has mean 0.
    fn mean(&self, sum: f64) -> f64 {
        if self.pixels == 0 { 0.0 } else { sum / self.pixels as f64 }
    }

    fn mean_green(&self) -> f64 {
        self.mean(self.rgb[1] as f64)
    }

    fn mean_luminance(&self) -> f64 {
        // Whole thousandths: rounded weights would make white brighter than full scale.
        let [red, green, blue] = self.rgb;
        self.mean((299 * red + 587 * green + 114 * blue) as f64 / 1000.0)
    }

    fn clipped_share(&self) -> f64 {
        self.mean(self.clipped as f64)
    }
}

/// Variance of the 4-neighbour Laplacian of green over `inner`, which keeps clear of the copy's edge.
fn laplacian_variance(picture: &Picture, inner: &Mask) -> f64 {
    let (mut count, mut sum, mut squares) = (0_i64, 0_i64, 0_i64);
    for y in 0..inner.height {
        for (x, _) in inner.row(y).iter().enumerate().filter(|(_, inside)| **inside) {
            let at = y * inner.width + x;
            let around = picture.green(at - inner.width)
                + picture.green(at + inner.width)
                + picture.green(at - 1)
                + picture.green(at + 1);
            let value = i64::from(around - 4 * picture.green(at));
            count += 1;
            sum += value;
            squares += value * value;
        }
    }
    if count == 0 {
        return 0.0;
    }
    let mean = sum as f64 / count as f64;
    (squares as f64 / count as f64 - mean * mean).max(0.0)
}
