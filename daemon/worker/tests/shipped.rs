//! The bundles that ship with the product, on this machine, behind the sandbox.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::{ObjectHeader, Uid, Verdict, sop_class};
use fovea_infer::{Manifest, TrustedKey};
use fovea_worker::ModelState;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::{code, config, header, object_of, program, start, timeless};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image/models").canonicalize().unwrap()
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A bright disc with a darker spot on black: enough of a retina for the finder, nothing of a patient.
fn disc(width_px: u16, height_px: u16) -> Vec<u8> {
    let (centre_x, centre_y) = (f64::from(width_px) / 2.0, f64::from(height_px) / 2.0);
    let radius = centre_y * 0.95;
    let mut pixels = Vec::new();
    for y in 0..height_px {
        for x in 0..width_px {
            let (dx, dy) = (f64::from(x) - centre_x, f64::from(y) - centre_y);
            let inside = dx.hypot(dy) < radius;
            let vessel = (f64::from(x) / 23.0).sin() * (f64::from(y) / 31.0).cos() > 0.9;
            pixels.extend(match (inside, vessel) {
                (false, _) => [0, 0, 0],
                (true, false) => [190, 105, 55],
                (true, true) => [120, 45, 30],
            });
        }
    }
    pixels
}

fn bundles() -> Vec<PathBuf> {
    let bundles: Vec<PathBuf> =
        below(&models()).iter().map(|model| model.join("bundle")).filter(|b| b.join("bundle.toml").is_file()).collect();
    assert!(!bundles.is_empty(), "no bundle in {}", models().display());
    bundles
}

fn trusted() -> Vec<TrustedKey> {
    below(&models().join("trust")).iter().map(|key| TrustedKey::read(key).unwrap()).collect()
}

/// What an object of the bundle's own kind would say of itself; of a slide, a single photomicrograph.
fn own_header(manifest: &Manifest, side_px: u16) -> ObjectHeader {
    let eligible = &manifest.eligible;
    let class = eligible.sop_classes.iter().find(|class| *class != sop_class::VL_WHOLE_SLIDE).unwrap();
    ObjectHeader {
        sop_class_uid: Uid::new(class).unwrap(),
        modality: eligible.modalities.first().cloned(),
        body_part: eligible.body_parts.first().cloned(),
        photometric: eligible.photometrics.first().cloned(),
        rows_px: Some(side_px.into()),
        columns_px: Some(side_px.into()),
        ..header(1)
    }
}

/// Ten pictures of nothing that any model is for.
fn nonsense(side: u16) -> Vec<(&'static str, Vec<u8>)> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let noisy: Vec<u8> = (0..usize::from(side) * usize::from(side) * 3).map(|_| noise()).collect();
    let paint = |pixel: fn(u16, u16, u16) -> [u8; 3]| -> Vec<u8> {
        (0..side).flat_map(|y| (0..side).flat_map(move |x| pixel(x, y, side))).collect()
    };
    vec![
        ("noise", noisy),
        ("black", paint(|_, _, _| [0; 3])),
        ("white", paint(|_, _, _| [255; 3])),
        ("gray", paint(|_, _, _| [128; 3])),
        ("blue", paint(|_, _, _| [10, 30, 220])),
        ("checks", paint(|x, y, _| if (x / 32 + y / 32) % 2 == 0 { [240; 3] } else { [15; 3] })),
        ("stripes", paint(|x, _, _| if x / 9 % 2 == 0 { [200, 30, 30] } else { [30, 200, 30] })),
        (
            "ramp",
            paint(|x, y, side| {
                [(u32::from(x) * 255 / u32::from(side)) as u8, (u32::from(y) * 255 / u32::from(side)) as u8, 90]
            }),
        ),
        (
            "lines of text",
            paint(|x, y, _| if y % 24 < 12 && (x * 7 + y / 24 * 13) % 11 < 5 { [20; 3] } else { [250; 3] }),
        ),
        ("sky and grass", paint(|_, y, side| if y < side / 2 { [120, 170, 240] } else { [60, 150, 50] })),
    ]
}

#[test]
fn no_bundle_answers_for_another_kind_of_object_or_for_nonsense() {
    let manifests: Vec<Manifest> =
        bundles().iter().map(|b| Manifest::parse(&std::fs::read(b.join("bundle.toml")).unwrap()).unwrap()).collect();
    for (bundle, manifest) in bundles().into_iter().zip(&manifests) {
        let mut config = config(program(), "CPU", vec![bundle]);
        config.trusted_keys = trusted();
        let mut worker = start(config);
        let side = 640;
        let object = object_of(side, side, &nonsense(side)[0].1);
        let mut strangers: Vec<ObjectHeader> =
            manifests.iter().filter(|other| other.id != manifest.id).map(|other| own_header(other, side)).collect();
        let own = own_header(manifest, side);
        strangers.push(ObjectHeader { modality: Some("CT".to_owned()), ..own.clone() });
        strangers.push(ObjectHeader { modality: None, ..own.clone() });
        strangers.push(ObjectHeader { body_part: Some("FOOT".to_owned()), ..own.clone() });
        strangers.push(ObjectHeader { sop_class_uid: Uid::new("1.2.840.10008.5.1.4.1.1.2").unwrap(), ..own.clone() });
        strangers.push(ObjectHeader { photometric: Some("MONOCHROME1".to_owned()), ..own.clone() });
        for stranger in strangers {
            let analysis = worker.analyse(&object, &stranger);
            assert_eq!(code(&analysis), "no_eligible_model", "{}: {stranger:?}", manifest.id);
        }
        for (name, pixels) in nonsense(side) {
            let analysis = worker.analyse(&object_of(side, side, &pixels), &own);
            match &analysis.verdict {
                Verdict::Ungradable(reason) | Verdict::NotAnalysed(reason) => {
                    println!("{}: {name}: {} ({})", manifest.id, reason.code, reason.text);
                    assert!(!reason.text.is_empty() && reason.code != "no_eligible_model", "{name}: {reason:?}");
                }
                Verdict::Scored(scores) => panic!("{} finds {scores:?} in {name}", manifest.id),
            }
        }
        assert_eq!(worker.status().restarts, 0);
    }
}

#[test]
fn inv_03_every_bundle_that_ships_is_admitted_on_this_machine() {
    let mut config = config(program(), "CPU", bundles());
    config.trusted_keys = trusted();
    let begin = Instant::now();
    let mut worker = start(config);
    let ready = begin.elapsed();
    for model in worker.models() {
        let ModelState::Serving(serving) = &model.state else { panic!("{model:?}") };
        let admission = &serving.admission;
        println!(
            "{} {}: p50 {} us, golden error {:.5} of {} vectors",
            serving.model.id,
            serving.model.version,
            admission.latency_us_p50,
            admission.golden_max_error,
            admission.golden_count
        );
    }
    let mut eye = header(1);
    (eye.columns_px, eye.rows_px) = (Some(2048), Some(1536));
    let object = object_of(2048, 1536, &disc(2048, 1536));
    let first = worker.analyse(&object, &eye);
    let begin = Instant::now();
    let again = worker.analyse(&object, &eye);
    println!("ready after {ready:?}; a 2048 x 1536 picture took {:?}: {:?}", begin.elapsed(), again.times);
    println!("worker: {} MiB resident; {:?}", worker.status().resident_bytes >> 20, again.verdict);
    assert!(again.model.is_some() && !matches!(again.verdict, Verdict::NotAnalysed(_)), "{again:?}");
    assert_eq!(timeless(first), timeless(again));
}
