//! What the area kernel promises, for every variant that this processor can run.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use fovea_kernels::Isa;
use fovea_kernels::area::{AreaError, Image, Plane, PlaneSource, Window, resize_f32_planar, resize_u8};
use proptest::prelude::*;

const PLANES: [Plane; 3] = [
    Plane { source: PlaneSource::Channel(2), mean: 0.406, std: 0.225 },
    Plane { source: PlaneSource::Luma, mean: 0.0, std: 1.0 },
    Plane { source: PlaneSource::Channel(0), mean: 0.485, std: 0.229 },
];

/// Repeatable noise; the seed is in every assertion's message.
fn noise(seed: u64, samples: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..samples)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn planes_for(channels: usize) -> Vec<Plane> {
    let mut planes = PLANES.to_vec();
    if channels == 1 {
        planes.iter_mut().for_each(|plane| {
            if plane.source != PlaneSource::Luma {
                plane.source = PlaneSource::Channel(0);
            }
        });
    }
    planes
}

/// Both outputs of one variant.
fn both(isa: Isa, image: &Image<'_>, window: Window, width: u32, height: u32) -> (Vec<u8>, Vec<u32>) {
    let pixels = width as usize * height as usize;
    let mut bytes = vec![0xAA; pixels * image.channels()];
    resize_u8(isa, image, window, width, height, &mut bytes).unwrap();
    let mut tensor = vec![f32::NAN; pixels * 3];
    resize_f32_planar(isa, image, window, width, height, &planes_for(image.channels()), &mut tensor).unwrap();
    (bytes, tensor.into_iter().map(f32::to_bits).collect())
}

fn assert_all_equal_scalar(
    samples: &[u8],
    size: (u32, u32),
    channels: usize,
    window: Window,
    out: (u32, u32),
    seed: u64,
) {
    let image = Image::new(samples, size.0, size.1, channels).unwrap();
    let truth = both(Isa::Scalar, &image, window, out.0, out.1);
    for isa in Isa::available() {
        let found = both(*isa, &image, window, out.0, out.1);
        assert!(found == truth, "{isa:?} size={size:?} channels={channels} {window:?} out={out:?} seed={seed}");
    }
}

fn whole(width: u32, height: u32) -> Window {
    Window { x_px: 0, y_px: 0, width_px: width, height_px: height }
}

/// The real mean over each output pixel, in f64, straight from the definition.
fn naive(samples: &[u8], size: (u32, u32), channels: usize, window: Window, out: (u32, u32)) -> Vec<f64> {
    let step = (f64::from(window.width_px) / f64::from(out.0), f64::from(window.height_px) / f64::from(out.1));
    let overlap = |position: i64, from: f64, to: f64| ((position + 1) as f64).min(to) - (position as f64).max(from);
    let mut means = Vec::new();
    for row in 0..out.1 {
        let (top, bottom) = (f64::from(row) * step.1, f64::from(row + 1) * step.1);
        for column in 0..out.0 {
            let (left, right) = (f64::from(column) * step.0, f64::from(column + 1) * step.0);
            for channel in 0..channels {
                let mut sum = 0.0;
                for y in top.floor() as i64..bottom.ceil() as i64 {
                    for x in left.floor() as i64..right.ceil() as i64 {
                        let (sy, sx) = (y + window.y_px, x + window.x_px);
                        let inside = (0..i64::from(size.1)).contains(&sy) && (0..i64::from(size.0)).contains(&sx);
                        if inside {
                            let at = (sy as usize * size.0 as usize + sx as usize) * channels + channel;
                            sum += f64::from(samples[at]) * overlap(y, top, bottom) * overlap(x, left, right);
                        }
                    }
                }
                means.push(sum / (step.0 * step.1));
            }
        }
    }
    means
}

#[test]
fn every_variant_equals_scalar_at_every_width_and_alignment() {
    for width in 1..=97_u32 {
        for (channels, height, offset) in [(1, 5, 0), (3, 5, 1), (3, 1, 3), (1, 2, 7)] {
            let seed = u64::from(width) * 10 + channels as u64;
            let samples = noise(seed, offset + (width * height) as usize * channels);
            for out in [(1, 1), (7, 3), (width, height), (32, 9), (width.div_ceil(2), 2), (width * 2 + 1, 7)] {
                assert_all_equal_scalar(&samples[offset..], (width, height), channels, whole(width, height), out, seed);
            }
        }
    }
}

#[test]
fn every_variant_is_within_the_stated_bound_of_the_real_mean() {
    let sizes = [(64, 48), (201, 99), (33, 77), (5, 3), (1, 1), (640, 480)];
    for (index, size) in sizes.into_iter().enumerate() {
        for channels in [1, 3] {
            let samples = noise(index as u64 + 100, (size.0 * size.1) as usize * channels);
            let image = Image::new(&samples, size.0, size.1, channels).unwrap();
            for out in [(38, 38), (7, 5), (31, 64), (1, 1)] {
                let windows = [
                    whole(size.0, size.1),
                    Window { x_px: -7, y_px: -3, width_px: size.0 + 11, height_px: size.1 + 20 },
                    Window { x_px: 1, y_px: 0, width_px: size.0.div_ceil(2), height_px: 3 },
                ];
                for window in windows {
                    let real = naive(&samples, size, channels, window, out);
                    let taps = |window: u32, out: u32| f64::from(window.div_ceil(out) + 1);
                    let bound = (taps(window.width_px, out.0) + taps(window.height_px, out.1)) / 128.0 + 1.0 / 256.0;
                    for isa in Isa::available() {
                        let mut bytes = vec![0; real.len()];
                        resize_u8(*isa, &image, window, out.0, out.1, &mut bytes).unwrap();
                        for (at, (byte, real)) in bytes.iter().zip(&real).enumerate() {
                            let off = (f64::from(*byte) - real).abs();
                            assert!(off <= 0.5 + bound, "{isa:?} {size:?} {window:?} {out:?} at={at} off={off}");
                        }
                        let plane = Plane { source: PlaneSource::Channel(0), mean: 0.5, std: 0.25 };
                        let mut tensor = vec![0.0; (out.0 * out.1) as usize];
                        resize_f32_planar(*isa, &image, window, out.0, out.1, &[plane], &mut tensor).unwrap();
                        for (element, real) in tensor.iter().zip(real.iter().step_by(channels)) {
                            let off = ((f64::from(*element) * 0.25 + 0.5) * 255.0 - real).abs();
                            assert!(off <= bound + 1e-4, "{isa:?} {size:?} {window:?} {out:?} off={off}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_constant_image_stays_constant() {
    for value in 0..=255_u8 {
        let samples = vec![value; 61 * 43 * 3];
        let image = Image::new(&samples, 61, 43, 3).unwrap();
        for isa in Isa::available() {
            for out in [(1, 1), (17, 19), (61, 43), (200, 90)] {
                let mut bytes = vec![0; (out.0 * out.1 * 3) as usize];
                resize_u8(*isa, &image, whole(61, 43), out.0, out.1, &mut bytes).unwrap();
                assert!(bytes.iter().all(|byte| *byte == value), "{isa:?} value={value} out={out:?}");
            }
        }
    }
}

#[test]
fn the_same_size_copies_and_a_whole_multiple_enlarges_to_squares() {
    let samples = noise(3, 13 * 7 * 3);
    let image = Image::new(&samples, 13, 7, 3).unwrap();
    for isa in Isa::available() {
        let mut copy = vec![0; samples.len()];
        resize_u8(*isa, &image, whole(13, 7), 13, 7, &mut copy).unwrap();
        assert_eq!(copy, samples);
        let mut large = vec![0; samples.len() * 9];
        resize_u8(*isa, &image, whole(13, 7), 39, 21, &mut large).unwrap();
        for y in 0..21 {
            for x in 0..39 {
                assert_eq!(large[(y * 39 + x) * 3..][..3], samples[(y / 3 * 13 + x / 3) * 3..][..3], "{isa:?} {x},{y}");
            }
        }
    }
}

#[test]
fn the_mean_is_kept() {
    for seed in 0..20_u64 {
        let samples = noise(seed, 150 * 110);
        let image = Image::new(&samples, 150, 110, 1).unwrap();
        let before = samples.iter().map(|value| f64::from(*value)).sum::<f64>() / samples.len() as f64;
        for isa in Isa::available() {
            let plane = Plane { source: PlaneSource::Channel(0), mean: 0.0, std: 1.0 };
            let mut tensor = vec![0.0; 37 * 41];
            resize_f32_planar(*isa, &image, whole(150, 110), 37, 41, &[plane], &mut tensor).unwrap();
            let after = tensor.iter().map(|value| f64::from(*value) * 255.0).sum::<f64>() / tensor.len() as f64;
            assert!((before - after).abs() < 0.01, "{isa:?} seed={seed} before={before} after={after}");
        }
    }
}

#[test]
fn a_window_beside_the_image_is_black() {
    let samples = vec![200; 10 * 10 * 3];
    let image = Image::new(&samples, 10, 10, 3).unwrap();
    for isa in Isa::available() {
        for (x_px, y_px) in [(10, 0), (-5, 0), (0, 10), (0, -5), (i64::MIN / 2, i64::MAX / 2)] {
            let mut bytes = vec![1; 4 * 4 * 3];
            let window = Window { x_px, y_px, width_px: 5, height_px: 5 };
            resize_u8(*isa, &image, window, 4, 4, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{isa:?} {window:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let samples = [0; 12];
    assert!(Image::new(&samples, 4, 3, 3).is_err());
    assert!(Image::new(&samples, 0, 3, 3).is_err());
    assert!(Image::new(&samples, 3, 2, 2).is_err());
    assert!(Image::new(&samples, u32::MAX, u32::MAX, 3).is_err());
    let image = Image::new(&samples, 4, 3, 1).unwrap();
    let mut out = [0; 4];
    let refused = resize_u8(Isa::Scalar, &image, whole(4, 3), 2, 3, &mut out);
    assert_eq!(refused, Err(AreaError::Output { expected: 6, found: 4 }));
    let refused = resize_u8(Isa::Scalar, &image, whole(0, 3), 2, 2, &mut out);
    assert_eq!(refused, Err(AreaError::Side { side_px: 0 }));
    let plane = Plane { source: PlaneSource::Channel(1), mean: 0.0, std: 1.0 };
    let refused = resize_f32_planar(Isa::Scalar, &image, whole(4, 3), 2, 2, &[plane], &mut [0.0; 4]);
    assert_eq!(refused, Err(AreaError::Channel { channel: 1, channels: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_variant_equals_scalar_for_any_window(
        seed: u64, width in 1_u32..200, height in 1_u32..60, rgb: bool, x in -90_i64..220, y in -60_i64..80,
        window_width in 1_u32..260, window_height in 1_u32..100, out_width in 1_u32..120, out_height in 1_u32..40,
    ) {
        let channels = if rgb { 3 } else { 1 };
        let samples = noise(seed, (width * height) as usize * channels);
        let window = Window { x_px: x, y_px: y, width_px: window_width, height_px: window_height };
        assert_all_equal_scalar(&samples, (width, height), channels, window, (out_width, out_height), seed);
    }
}
