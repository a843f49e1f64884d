//! The finder and the measures on drawn retinas whose truth is known.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use fovea_core::{Channels, Frame, FrameGeometry, InputSpec, Pixels, QualityLimits, RoiMethod};
use fovea_preprocess::{Prepared, PreprocessError, check, measures, prepare};

fn spec(roi: RoiMethod) -> InputSpec {
    InputSpec { width_px: 96, height_px: 96, channels: Channels::Rgb, mean: vec![0.5; 3], std: vec![0.25; 3], roi }
}

/// A drawn eye: a textured disc with a soft dark rim on a noisy surround.
#[derive(Clone, Copy, Debug)]
struct Eye {
    width: u32,
    height: u32,
    x: f64,
    y: f64,
    radius: f64,
    light: f64,
    surround_noise: u8,
    seed: u64,
}

impl Eye {
    fn of(width: u32, height: u32, x: f64, y: f64, radius: f64) -> Self {
        Self { width, height, x, y, radius, light: 1.0, surround_noise: 0, seed: 1 }
    }

    fn draw(&self) -> Vec<u8> {
        let mut state = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as u8
        };
        let mut samples = Vec::new();
        for row in 0..self.height {
            for column in 0..self.width {
                let (x, y) = (f64::from(column) + 0.5 - self.x, f64::from(row) + 0.5 - self.y);
                let inside = (self.radius - x.hypot(y) + 0.5).clamp(0.0, 1.0);
                let shade = 1.0 - 0.3 * (x.hypot(y) / self.radius).powi(4);
                let vessel = if (x * 60.0 / self.radius + (y * 9.0 / self.radius).sin() * 4.0).rem_euclid(12.0) < 2.0 {
                    0.6
                } else {
                    1.0
                };
                for level in [190.0, 110.0, 60.0] {
                    let surround =
                        if self.surround_noise == 0 { 0.0 } else { f64::from(random() % self.surround_noise) };
                    let value = level * self.light * shade * vessel * inside + surround;
                    samples.push(value.round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        samples
    }

    fn frame(&self) -> Frame {
        Frame::new(self.width, self.height, Pixels::Rgb8(self.draw())).unwrap()
    }
}

fn run(frame: &Frame) -> Result<Prepared, PreprocessError> {
    prepare(frame, &FrameGeometry::default(), &spec(RoiMethod::RetinaDisc), &mut Vec::new())
}

fn value(prepared: &Prepared, name: &str) -> f64 {
    prepared.quality[name].value
}

fn assert_found(eye: Eye) -> Prepared {
    let prepared = run(&eye.frame()).unwrap_or_else(|error| panic!("{eye:?}: {error}"));
    let roi = prepared.roi;
    let radius = f64::from(roi.side) / 2.0;
    let centre = (f64::from(roi.x) + radius, f64::from(roi.y) + radius);
    let off = (centre.0 - eye.x).hypot(centre.1 - eye.y);
    // One per cent of the radius, and one pixel for the whole numbers of the region.
    assert!((radius - eye.radius).abs() <= 0.01 * eye.radius + 1.0, "{eye:?} radius {radius}");
    assert!(off <= 0.01 * eye.radius + 1.0, "{eye:?} centre {centre:?}");
    prepared
}

#[test]
fn a_whole_disc_is_found_wherever_it_lies_and_whatever_its_size() {
    for (x, y, radius) in [(400.0, 300.0, 250.0), (300.5, 320.2, 200.0), (520.0, 250.0, 130.7), (330.0, 420.0, 170.0)] {
        let prepared = assert_found(Eye::of(800, 600, x, y, radius));
        assert!(value(&prepared, measures::FIELD) > 0.97, "{x},{y},{radius}: {:?}", prepared.quality);
        let diameter = value(&prepared, measures::DISC_DIAMETER);
        assert!((diameter - 2.0 * radius).abs() < 0.02 * radius + 2.0, "{diameter} {radius}");
    }
}

#[test]
fn a_disc_cropped_tight_is_found() {
    assert_found(Eye::of(500, 500, 250.0, 250.0, 250.0));
    assert_found(Eye::of(500, 500, 250.0, 250.0, 262.0));
    assert_found(Eye::of(91, 91, 45.0, 45.5, 44.0));
}

#[test]
fn a_disc_cut_above_and_below_is_found_and_its_field_is_the_share_that_shows() {
    // The proportions of a common fundus camera: 4288 x 2848 px, the disc 3560 px wide.
    let eye = Eye::of(1072, 712, 520.0, 356.0, 445.0);
    let prepared = assert_found(eye);
    let half = 356.0_f64 / 445.0;
    let shown = 1.0 - 2.0 * (half.acos() - half * (1.0 - half * half).sqrt()) / std::f64::consts::PI;
    assert!((value(&prepared, measures::FIELD) - shown).abs() < 0.015, "{:?} {shown}", prepared.quality);
    assert!(prepared.roi.y < 0);
}

#[test]
fn black_bars_instead_of_the_frame_cut_the_field_alike() {
    let cut = Eye::of(1072, 712, 520.0, 356.0, 445.0);
    let mut padded = vec![0; 1072 * 180 * 3];
    padded.extend(cut.draw());
    padded.extend(vec![0; 1072 * 180 * 3]);
    let frame = Frame::new(1072, 1072, Pixels::Rgb8(padded)).unwrap();
    let (bars, plain) = (run(&frame).unwrap(), run(&cut.frame()).unwrap());
    assert!(bars.roi.side.abs_diff(plain.roi.side) <= 8, "{:?} {:?}", bars.roi, plain.roi);
    for name in [measures::FIELD, measures::EXPOSURE] {
        assert!(
            (value(&bars, name) - value(&plain, name)).abs() < 0.02,
            "{name} {:?} {:?}",
            bars.quality,
            plain.quality
        );
    }
    // The bars' edges must not count as sharp detail.
    assert!((value(&bars, measures::FOCUS) / value(&plain, measures::FOCUS) - 1.0).abs() < 0.1);
}

#[test]
fn noise_and_text_in_the_surround_do_not_move_the_disc() {
    for seed in 0..10 {
        let eye = Eye { surround_noise: 14, seed, ..Eye::of(700, 600, 360.0, 290.0, 230.0) };
        assert_found(eye);
        let mut samples = eye.draw();
        for y in 20..40_usize {
            for x in 20..150_usize {
                samples[(y * 700 + x) * 3..][..3].fill(if (x / 5) % 2 == 0 { 255 } else { 0 });
            }
        }
        let prepared = run(&Frame::new(700, 600, Pixels::Rgb8(samples)).unwrap()).unwrap();
        let radius = f64::from(prepared.roi.side) / 2.0;
        assert!((radius - 230.0).abs() < 4.0, "seed={seed} radius={radius}");
    }
}

#[test]
fn what_is_no_retina_is_ungradable_with_advice() {
    let size = |samples: Vec<u8>| Frame::new(320, 240, Pixels::Rgb8(samples)).unwrap();
    let draw = |inside: &dyn Fn(i32, i32) -> bool| {
        let pixels = (0..240).flat_map(|y| (0..320).map(move |x| (x, y)));
        size(pixels.flat_map(|(x, y)| [if inside(x, y) { 180_u8 } else { 4 }; 3]).collect())
    };
    let noise: Vec<u8> = (0..320_u32 * 240 * 3).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases = [
        ("black", size(vec![0; 320 * 240 * 3])),
        ("white", size(vec![255; 320 * 240 * 3])),
        ("noise", size(noise)),
        ("rectangle", draw(&|x, y| (60..260).contains(&x) && (50..190).contains(&y))),
        ("square", draw(&|x, y| (60..240).contains(&x) && (30..210).contains(&y))),
        ("half plane", draw(&|x, _| x > 150)),
        ("speck", draw(&|x, y| (x - 100).pow(2) + (y - 90).pow(2) < 100)),
        ("ring", draw(&|x, y| (9000..11_000).contains(&((x - 160).pow(2) + (y - 120).pow(2))) && x > 160)),
        ("sector", draw(&|x, y| y > 10 && (x - 160).abs() < y - 10 && (x - 160).pow(2) + (y - 10).pow(2) < 200 * 200)),
    ];
    for (name, frame) in cases {
        let mut out = vec![7.0];
        let error = prepare(&frame, &FrameGeometry::default(), &spec(RoiMethod::RetinaDisc), &mut out).expect_err(name);
        assert!(error.is_ungradable(), "{name}: {error}");
        assert_eq!(error.reason().code, "no_retina_found", "{name}");
        assert!(!error.reason().advice.is_empty());
        assert_eq!(out, [7.0], "{name}: the output was written");
    }
}

/// A box blur of the whole picture, `reach` pixels each way.
fn blurred(samples: &[u8], width: usize, height: usize, reach: usize) -> Vec<u8> {
    let pass = |input: &[u8], length: usize, at: &dyn Fn(usize, usize) -> usize, lines: usize| {
        let mut out = vec![0; input.len()];
        for line in 0..lines {
            for index in 0..length {
                let window = index.saturating_sub(reach)..(index + reach + 1).min(length);
                let count = window.len() as u32;
                for channel in 0..3 {
                    let sum: u32 = window.clone().map(|other| u32::from(input[at(line, other) + channel])).sum();
                    out[at(line, index) + channel] = (sum / count) as u8;
                }
            }
        }
        out
    };
    let across = pass(samples, width, &|line, index| (line * width + index) * 3, height);
    pass(&across, height, &|line, index| (index * width + line) * 3, width)
}

#[test]
fn blur_lowers_focus_step_by_step() {
    let eye = Eye::of(700, 600, 350.0, 300.0, 260.0);
    let sharp = eye.draw();
    let mut last = f64::INFINITY;
    for reach in 0..6 {
        let samples = blurred(&sharp, 700, 600, reach);
        let prepared = run(&Frame::new(700, 600, Pixels::Rgb8(samples)).unwrap()).unwrap();
        let focus = value(&prepared, measures::FOCUS);
        assert!(focus < last, "reach={reach} focus={focus} last={last}");
        last = focus;
    }
}

#[test]
fn darkening_lowers_exposure_in_proportion_and_leaves_focus_nearly_alone() {
    let bright = assert_found(Eye::of(700, 600, 350.0, 300.0, 260.0));
    let mut last = value(&bright, measures::EXPOSURE);
    for tenth in (3..10).rev() {
        let light = f64::from(tenth) / 10.0;
        let prepared = assert_found(Eye { light, ..Eye::of(700, 600, 350.0, 300.0, 260.0) });
        let exposure = value(&prepared, measures::EXPOSURE);
        assert!(exposure < last, "light={light}");
        assert!((exposure / value(&bright, measures::EXPOSURE) - light).abs() < 0.03, "light={light}");
        let focus = value(&prepared, measures::FOCUS) / value(&bright, measures::FOCUS);
        assert!((0.8..1.25).contains(&focus), "light={light} focus={focus}");
        last = exposure;
    }
}

#[test]
fn overexposure_raises_clipped() {
    let shares: Vec<f64> = [1.0, 1.3, 1.4, 2.0]
        .map(|light| value(&assert_found(Eye { light, ..Eye::of(700, 600, 350.0, 300.0, 260.0) }), measures::CLIPPED))
        .to_vec();
    assert_eq!(shares[0], 0.0);
    assert!(shares.is_sorted() && shares[3] > 0.7, "{shares:?}");
}

#[test]
fn each_broken_limit_is_named_with_its_advice_and_light_comes_first() {
    let quality = assert_found(Eye::of(700, 600, 350.0, 300.0, 260.0)).quality;
    assert_eq!(check(&quality, &QualityLimits::default()), None);
    let none = QualityLimits::default();
    let cases = [
        ("out_of_focus", QualityLimits { focus_min: Some(1e9), ..none.clone() }),
        ("too_dark", QualityLimits { exposure_min: Some(0.99), focus_min: Some(1e9), ..none.clone() }),
        ("too_bright", QualityLimits { exposure_max: Some(0.01), ..none.clone() }),
        ("clipped", QualityLimits { clipped_max: Some(-1.0), ..none.clone() }),
        ("field_cut", QualityLimits { field_min: Some(1.1), ..none.clone() }),
    ];
    for (code, limits) in cases {
        let reason = check(&quality, &limits).expect(code);
        assert_eq!(reason.code, code);
        assert!(!reason.advice.is_empty() && !reason.text.is_empty());
    }
    let held = QualityLimits { focus_min: Some(0.0), exposure_min: Some(0.01), field_min: Some(0.5), ..none.clone() };
    assert_eq!(check(&quality, &held), None);
    let unmeasured = check(&Default::default(), &held).expect("nothing passes unmeasured");
    assert_eq!(unmeasured.code, "quality_unknown");
}
