//! The tensor, whatever the frame.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use fovea_core::{Channels, Frame, FrameGeometry, InputSpec, PixelBox, Pixels, Roi, RoiMethod};
use fovea_preprocess::{Picture, PreprocessError, measures, prepare, shown};
use proptest::prelude::*;

fn spec(channels: Channels, side: u32) -> InputSpec {
    let count = channels.count();
    let (mean, std) = (vec![0.5, 0.25, 0.125], vec![0.5, 2.0, 0.25]);
    InputSpec {
        width_px: side,
        height_px: side,
        channels,
        mean: mean[..count].to_vec(),
        std: std[..count].to_vec(),
        roi: RoiMethod::FullFrame,
    }
}

fn frame(width: u32, height: u32, pixels: Pixels) -> Frame {
    Frame::new(width, height, pixels).unwrap()
}

fn tensor(frame: &Frame, spec: &InputSpec) -> Vec<f32> {
    let mut out = Vec::new();
    prepare(frame, &FrameGeometry::default(), spec, &mut out).unwrap();
    out
}

fn assert_near(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((f64::from(*found) - wanted).abs() < 1e-5, "{found} {wanted}");
    }
}

#[test]
fn channels_are_planar_in_the_order_asked_for_and_normalised() {
    let picture = frame(1, 1, Pixels::Rgb8(vec![255, 51, 102]));
    assert_near(&tensor(&picture, &spec(Channels::Rgb, 1)), &[1.0, (0.2 - 0.25) / 2.0, (0.4 - 0.125) / 0.25]);
    assert_near(
        &tensor(&picture, &spec(Channels::Bgr, 1)),
        &[(0.4 - 0.5) / 0.5, (0.2 - 0.25) / 2.0, (1.0 - 0.125) / 0.25],
    );
    let luma = 0.299 + 0.587 * 0.2 + 0.114 * 0.4;
    assert_near(&tensor(&picture, &spec(Channels::Gray, 1)), &[(luma - 0.5) / 0.5]);
    let gray = frame(1, 1, Pixels::Gray8(vec![51]));
    assert_near(
        &tensor(&gray, &spec(Channels::Rgb, 1)),
        &[(0.2 - 0.5) / 0.5, (0.2 - 0.25) / 2.0, (0.2 - 0.125) / 0.25],
    );
    assert_near(&tensor(&gray, &spec(Channels::Gray, 1)), &[(0.2 - 0.5) / 0.5]);
}

#[test]
fn deeper_frames_are_scaled_by_full_scale_and_cut_beyond_it() {
    let value = |pixels| tensor(&frame(1, 1, pixels), &spec(Channels::Gray, 1))[0] * 0.5 + 0.5;
    for bits in 9..=16_u8 {
        let full = ((1_u32 << bits) - 1) as u16;
        assert!((value(Pixels::Gray16 { samples: vec![full], bits }) - 1.0).abs() < 1e-6, "bits={bits}");
        assert!(value(Pixels::Gray16 { samples: vec![0], bits }).abs() < 1e-6);
        assert!((value(Pixels::Gray16 { samples: vec![full / 2], bits }) - 0.5).abs() < 0.004);
        assert!((value(Pixels::Gray16 { samples: vec![u16::MAX], bits }) - 1.0).abs() < 1e-6);
        let (low, high) = (-(1_i32 << (bits - 1)) as i16, ((1_i32 << (bits - 1)) - 1) as i16);
        assert!(value(Pixels::GrayI16 { samples: vec![low], bits }).abs() < 1e-6, "bits={bits}");
        assert!((value(Pixels::GrayI16 { samples: vec![high], bits }) - 1.0).abs() < 1e-6, "bits={bits}");
    }
}

#[test]
fn a_full_frame_is_padded_to_a_square_about_its_middle() {
    let mut out = Vec::new();
    let wide = frame(4, 2, Pixels::Gray8(vec![255; 8]));
    let prepared = prepare(&wide, &FrameGeometry::default(), &spec(Channels::Gray, 4), &mut out).unwrap();
    assert_eq!(prepared.roi, Roi { x: 0, y: -1, side: 4 });
    let rows: Vec<f32> = out.iter().step_by(4).copied().collect();
    assert_near(&rows, &[-1.0, 1.0, 1.0, -1.0]);
    assert_eq!(prepared.quality[measures::FIELD].value, 1.0);
    assert_eq!(prepared.quality[measures::EXPOSURE].value, 1.0, "black padding is no part of the picture");
}

/// A gray picture whose value at (x, y) is 16 y + x, up to 16 x 16.
fn counted(width: u32, height: u32) -> Frame {
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (16 * y + x) as u8)).collect();
    frame(width, height, Pixels::Gray8(pixels))
}

/// The levels of a tensor that was made with `spec`.
fn levels(tensor: &[f32]) -> Vec<u8> {
    tensor.iter().map(|element| ((element * 0.5 + 0.5) * 255.0).round() as u8).collect()
}

#[test]
fn the_inner_square_is_in_the_middle_and_has_no_padding() {
    let spec = InputSpec { roi: RoiMethod::InnerSquare, ..spec(Channels::Gray, 2) };
    for (width, height, roi) in
        [(5, 2, Roi { x: 1, y: 0, side: 2 }), (2, 6, Roi { x: 0, y: 2, side: 2 }), (2, 2, Roi { x: 0, y: 0, side: 2 })]
    {
        let mut out = Vec::new();
        let found = prepare(&counted(width, height), &FrameGeometry::default(), &spec, &mut out).unwrap();
        assert_eq!(found.roi, roi);
        let first = (16 * roi.y + roi.x) as u8;
        assert_eq!(levels(&out), [first, first + 1, first + 16, first + 17]);
    }
}

#[test]
fn an_ultrasound_field_is_cut_out_of_its_surround_and_padded_with_black() {
    let spec = InputSpec { roi: RoiMethod::UltrasoundField, ..spec(Channels::Gray, 4) };
    let field = |x, y, width, height| FrameGeometry {
        ultrasound_field_px: Some(PixelBox { x, y, width, height }),
        ..FrameGeometry::default()
    };
    let frame = counted(16, 16);
    let mut out = Vec::new();
    let found = prepare(&frame, &field(5, 7, 4, 2), &spec, &mut out).unwrap();
    assert_eq!(found.roi, Roi { x: 5, y: 6, side: 4 });
    // What the frame shows above and below the field is not seen.
    assert_eq!(levels(&out), [0, 0, 0, 0, 117, 118, 119, 120, 133, 134, 135, 136, 0, 0, 0, 0]);
    assert_eq!(shown(spec.roi, &field(5, 7, 4, 2), (16, 16)), PixelBox { x: 5, y: 7, width: 4, height: 2 });
    // A field that reaches beyond the frame is cut to it; without a field, or with one outside, it is the frame.
    assert_eq!(prepare(&frame, &field(14, 14, 9, 9), &spec, &mut out).unwrap().roi, Roi { x: 14, y: 14, side: 2 });
    assert_eq!(shown(spec.roi, &field(14, 14, 9, 9), (16, 16)), PixelBox { x: 14, y: 14, width: 2, height: 2 });
    assert_eq!(shown(RoiMethod::FullFrame, &field(5, 7, 4, 2), (16, 16)).width, 16, "asked for by no other network");
    let whole = Roi { x: 0, y: 0, side: 16 };
    for geometry in [FrameGeometry::default(), field(16, 0, 1, 1), field(u32::MAX, u32::MAX, u32::MAX, u32::MAX)] {
        assert_eq!(prepare(&frame, &geometry, &spec, &mut out).unwrap().roi, whole);
        assert_eq!(shown(spec.roi, &geometry, (16, 16)), PixelBox { x: 0, y: 0, width: 16, height: 16 });
    }
}

#[test]
fn a_window_is_cut_where_it_is_asked_for_at_the_scale_that_follows() {
    let spec = InputSpec { roi: RoiMethod::Window, ..spec(Channels::Gray, 2) };
    let frame = counted(16, 16);
    let picture = Picture::of(&frame);
    let mut out = Vec::new();
    picture.cut(Roi { x: 3, y: 2, side: 2 }, &spec, &mut out).unwrap();
    assert_eq!(levels(&out), [35, 36, 51, 52]);
    // Twice as coarse: each element is the mean of four; half as coarse: each pixel is shown four times.
    picture.cut(Roi { x: 0, y: 0, side: 4 }, &spec, &mut out).unwrap();
    assert_near(&out, &[8.5, 10.5, 40.5, 42.5].map(|level| (level / 255.0 - 0.5) / 0.5));
    picture.cut(Roi { x: 9, y: 9, side: 1 }, &spec, &mut out).unwrap();
    assert_eq!(levels(&out), [153; 4]);
    picture.cut(Roi { x: 15, y: -1, side: 2 }, &spec, &mut out).unwrap();
    assert_eq!(levels(&out), [0, 0, 15, 0]);
    let before = out.clone();
    for side in [0, u32::MAX] {
        assert!(picture.cut(Roi { x: 0, y: 0, side }, &spec, &mut out).is_err());
        assert!(picture.prepare(&FrameGeometry::default(), &spec, &mut out).is_err(), "windows are given");
        assert_eq!(out, before);
    }
}

#[test]
fn a_frame_is_resized_by_means_and_goes_on_mirrored_where_it_is_too_short() {
    let levels = |frame: &Frame| match frame.pixels() {
        Pixels::Gray8(samples) => samples.clone(),
        other => panic!("{other:?}"),
    };
    let frame = counted(4, 2);
    let picture = Picture::of(&frame);
    assert_eq!(picture.resized((4, 2), (1, 1)).unwrap(), frame);
    assert_eq!(levels(&picture.resized((2, 1), (0, 0)).unwrap()), [9, 11], "8.5 and 10.5, rounded");
    let wide = picture.resized((4, 2), (9, 4)).unwrap();
    assert_eq!((wide.width_px(), wide.height_px()), (9, 4));
    assert_eq!(levels(&wide)[..9], [0, 1, 2, 3, 2, 1, 0, 1, 2]);
    assert_eq!(levels(&wide).chunks_exact(9).map(|row| row[0]).collect::<Vec<_>>(), [0, 16, 0, 16]);
    let deep = Frame::new(1, 1, Pixels::Rgb16 { samples: vec![0, 2048, 4095], bits: 12 }).unwrap();
    let eight = Picture::of(&deep).resized((1, 1), (2, 1)).unwrap();
    assert_eq!(*eight.pixels(), Pixels::Rgb8(vec![0, 128, 255, 0, 128, 255]));
    for size in [(0, 1), (1, 0), (u32::MAX, 1)] {
        assert!(picture.resized(size, (1, 1)).is_err());
    }
}

#[test]
fn a_tensor_is_the_same_with_and_without_measures() {
    let frame = counted(16, 9);
    for roi in [RoiMethod::FullFrame, RoiMethod::InnerSquare, RoiMethod::UltrasoundField] {
        let spec = InputSpec { roi, ..spec(Channels::Rgb, 5) };
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let prepared = prepare(&frame, &FrameGeometry::default(), &spec, &mut with).unwrap();
        let roi = Picture::of(&frame).tensor(&FrameGeometry::default(), &spec, &mut without).unwrap();
        assert_eq!((roi, without), (prepared.roi, with));
    }
}

#[test]
fn glass_and_black_are_no_tissue_and_stain_is() {
    let share = |pixel: [u8; 3]| Picture::of(&frame(70, 70, Pixels::Rgb8(pixel.repeat(4900)))).tissue_share().unwrap();
    for glass in [[255, 255, 255], [243, 240, 242], [250, 246, 235], [210, 208, 205], [0, 0, 0], [4, 2, 29]] {
        assert_eq!(share(glass), 0.0, "{glass:?}");
    }
    for tissue in [[230, 200, 220], [180, 110, 170], [90, 50, 130], [240, 215, 230]] {
        assert_eq!(share(tissue), 1.0, "{tissue:?}");
    }
    let half: Vec<u8> = (0..64 * 64).flat_map(|at| if at % 64 < 32 { [255; 3] } else { [180, 110, 170] }).collect();
    assert_eq!(Picture::of(&frame(64, 64, Pixels::Rgb8(half))).tissue_share().unwrap(), 0.5);
    assert_eq!(Picture::of(&counted(16, 16)).tissue_share().unwrap(), 0.0, "gray");
}

#[test]
fn an_input_that_cannot_be_made_is_refused() {
    let picture = frame(2, 2, Pixels::Gray8(vec![1; 4]));
    let good = spec(Channels::Rgb, 4);
    let bad = [
        InputSpec { width_px: 0, ..good.clone() },
        InputSpec { height_px: 4097, ..good.clone() },
        InputSpec { mean: vec![0.5; 2], ..good.clone() },
        InputSpec { std: vec![0.0; 3], ..good.clone() },
        InputSpec { std: vec![f32::NAN; 3], ..good.clone() },
        InputSpec { mean: vec![f32::INFINITY; 3], ..good.clone() },
    ];
    for spec in bad {
        let refused = prepare(&picture, &FrameGeometry::default(), &spec, &mut Vec::new());
        assert!(matches!(refused, Err(PreprocessError::Spec { .. })), "{spec:?}");
    }
}

/// Any kind of frame with few or many pixels.
fn any_frame() -> impl Strategy<Value = Frame> {
    let size = (1_u32..70, 1_u32..70, 0_u8..5, 9_u8..=16, any::<u64>(), any::<bool>());
    size.prop_map(|(width, height, kind, bits, seed, flat)| {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if flat { seed as u16 } else { (state >> 40) as u16 }
        };
        let count = (width * height) as usize * if matches!(kind, 1 | 3) { 3 } else { 1 };
        let samples: Vec<u16> = (0..count).map(|_| next()).collect();
        let bytes = || samples.iter().map(|sample| (*sample >> 8) as u8).collect();
        let pixels = match kind {
            0 => Pixels::Gray8(bytes()),
            1 => Pixels::Rgb8(bytes()),
            2 => Pixels::Gray16 { samples, bits },
            3 => Pixels::Rgb16 { samples, bits },
            _ => Pixels::GrayI16 { samples: samples.iter().map(|sample| *sample as i16).collect(), bits },
        };
        frame(width, height, pixels)
    })
}

#[test]
fn white_is_never_brighter_than_full_scale() {
    // Not square: its edge is mixed with the padding, and a mean of many equal levels is where weights round.
    for (width, height) in [(64, 64), (41, 64), (300, 7)] {
        let frame = Frame::new(width, height, Pixels::Rgb8(vec![255; (width * height * 3) as usize])).unwrap();
        let mut spec = spec(Channels::Rgb, 33);
        spec.roi = RoiMethod::FullFrame;
        let exposure = prepare(&frame, &FrameGeometry::default(), &spec, &mut Vec::new()).unwrap().quality
            [measures::EXPOSURE]
            .value;
        assert!(exposure <= 1.0 && exposure > 0.9, "{width} x {height}: {exposure}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn every_number_is_finite_for_any_frame(frame in any_frame(), disc: bool, gray: bool) {
        let mut spec = spec(if gray { Channels::Gray } else { Channels::Bgr }, 33);
        spec.roi = if disc { RoiMethod::RetinaDisc } else { RoiMethod::FullFrame };
        let mut out = Vec::new();
        match prepare(&frame, &FrameGeometry::default(), &spec, &mut out) {
            Ok(prepared) => {
                prop_assert!(out.iter().all(|element| element.is_finite()));
                for (name, measure) in &prepared.quality {
                    prop_assert!(measure.value.is_finite() && measure.value >= 0.0, "{} {}", name, measure.value);
                }
                for name in [measures::EXPOSURE, measures::CLIPPED, measures::FIELD] {
                    prop_assert!(prepared.quality[name].value <= 1.0, "{}", name);
                }
                let mut again = Vec::new();
                prop_assert_eq!(prepare(&frame, &FrameGeometry::default(), &spec, &mut again), Ok(prepared), "inv 4: the same frame, the same answer");
                prop_assert_eq!(again, out);
            }
            Err(error) => prop_assert!(disc && error.is_ungradable(), "{}", error),
        }
    }
}
