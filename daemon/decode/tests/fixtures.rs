//! Every coded syntax against the pixels it was made from; tests/data/README.md says how the files were made.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use fovea_core::{Frame, Pixels};
use fovea_decode::{DecodeLimits, open, picture_rgb8};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The only frame of a fixture.
fn frame(name: &str) -> Frame {
    let path = data(&format!("{name}.dcm"));
    let mut object =
        open(File::open(path).unwrap(), DecodeLimits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(object.frames(), 1);
    assert_eq!((object.width_px(), object.height_px()), (37, 29));
    object.frame(0).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn words(name: &str) -> Vec<u16> {
    let bytes = fs::read(data(&format!("{name}.raw"))).unwrap();
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// What the fixture of this source must show.
fn expected(source: &str) -> Pixels {
    let bytes = || fs::read(data(&format!("{source}.raw"))).unwrap();
    let signed = || words(source).into_iter().map(u16::cast_signed).collect();
    match source {
        "gray8" => Pixels::Gray8(bytes()),
        "gray12" => Pixels::Gray16 { samples: words(source), bits: 12 },
        "gray16" => Pixels::Gray16 { samples: words(source), bits: 16 },
        "signed12" => Pixels::GrayI16 { samples: signed(), bits: 12 },
        "signed16" => Pixels::GrayI16 { samples: signed(), bits: 16 },
        "rgb8" => Pixels::Rgb8(bytes()),
        other => panic!("no source {other}"),
    }
}

#[test]
fn every_lossless_syntax_gives_the_very_pixels_it_was_made_from() {
    let (mut decoded, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(data("")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".dcm") else { continue };
        if ["baseline", "extended", "lossy", "near"].iter().any(|lossy| name.contains(lossy)) {
            continue;
        }
        let source = name.rsplit('-').next().unwrap();
        if *frame(name).pixels() != expected(source) {
            wrong.push(name.to_owned());
        }
        decoded += 1;
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(decoded >= 30, "{decoded} fixtures");
}

/// Greatest and mean distance between samples.
fn distance(found: &[u16], wanted: &[u16]) -> (u16, f64) {
    assert_eq!(found.len(), wanted.len());
    let distances: Vec<u16> = found.iter().zip(wanted).map(|(found, wanted)| found.abs_diff(*wanted)).collect();
    let mean = distances.iter().map(|distance| f64::from(*distance)).sum::<f64>() / distances.len() as f64;
    (distances.into_iter().max().unwrap(), mean)
}

fn samples(frame: &Frame) -> Vec<u16> {
    match frame.pixels() {
        Pixels::Gray8(bytes) | Pixels::Rgb8(bytes) => bytes.iter().map(|byte| u16::from(*byte)).collect(),
        Pixels::Gray16 { samples, .. } | Pixels::Rgb16 { samples, .. } => samples.clone(),
        Pixels::GrayI16 { samples, .. } => samples.iter().map(|sample| sample.cast_unsigned()).collect(),
    }
}

fn bytes_as_words(name: &str) -> Vec<u16> {
    fs::read(data(name)).unwrap().into_iter().map(u16::from).collect()
}

#[test]
fn every_lossy_syntax_agrees_with_an_independent_decoder() {
    // Inverse transforms may differ by rounding, and colour conversion multiplies it: 3 levels, far less on average.
    for name in ["baseline-gray8", "baseline-rgb-rgb8", "baseline-ybr444-rgb8", "j2k-lossy-rgb8", "jpegls-near2-gray8"]
    {
        let (most, mean) = distance(&samples(&frame(name)), &bytes_as_words(&format!("{name}.raw")));
        assert!(most <= 3 && mean < 0.5, "{name}: {most} {mean}");
    }
    let (most, mean) = distance(&samples(&frame("extended12-gray12")), &words("extended12-gray12"));
    assert!(most <= 2 && mean < 0.3, "extended12-gray12: {most} {mean}");
}

#[test]
fn lossy_codes_stay_near_their_source() {
    for (name, source, mean_max) in [
        ("baseline-gray8", "gray8.raw", 3.0),
        ("baseline-rgb-rgb8", "rgb8.raw", 3.0),
        ("baseline-ybr444-rgb8", "rgb8.raw", 4.0),
        ("j2k-lossy-rgb8", "rgb8.raw", 4.0),
        ("htj2k-lossy-rgb8", "rgb8.raw", 4.0),
        ("jpegls-near2-gray8", "gray8.raw", 2.0),
    ] {
        let (_, mean) = distance(&samples(&frame(name)), &bytes_as_words(source));
        assert!(mean < mean_max, "{name}: {mean}");
    }
    let (most, _) = distance(&samples(&frame("jpegls-near2-gray8")), &bytes_as_words("gray8.raw"));
    assert!(most <= 2, "near-lossless by 2 was {most} away");
}

#[test]
fn pictures_of_capture_devices_become_rgb() {
    let picture = |name| picture_rgb8(File::open(data(name)).unwrap(), DecodeLimits::default()).unwrap();
    assert_eq!(*picture("picture.png").pixels(), expected("rgb8"));
    let gray: Vec<u16> = bytes_as_words("gray8.raw").into_iter().flat_map(|value| [value; 3]).collect();
    assert_eq!(samples(&picture("picture-gray.png")), gray);
    let (_, mean) = distance(&samples(&picture("picture-progressive.jpg")), &bytes_as_words("rgb8.raw"));
    assert!(mean < 6.0, "{mean}");
}
