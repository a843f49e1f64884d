//! The bundles that ship with the product, on this machine, behind the sandbox.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::Verdict;
use fovea_infer::TrustedKey;
use fovea_worker::ModelState;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::{config, header, object_of, program, start, timeless};

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

#[test]
fn inv_03_every_bundle_that_ships_is_admitted_on_this_machine() {
    let bundles: Vec<PathBuf> =
        below(&models()).iter().map(|model| model.join("bundle")).filter(|b| b.join("bundle.toml").is_file()).collect();
    assert!(!bundles.is_empty(), "no bundle in {}", models().display());
    let mut config = config(program(), "CPU", bundles);
    config.trusted_keys = below(&models().join("trust")).iter().map(|key| TrustedKey::read(key).unwrap()).collect();
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
