//! Models on the real runtime and on replay: admission, answers, determinism.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::Scores;
use fovea_infer::{Answers, Bundle, Device, DeviceError, GateOutcome, Model, Refusal, RunError, read};
use std::path::{Path, PathBuf};
use support::{SIDE_PX, TestBundle, expected_probability, many, runtime_dir, trusted};

fn cpu() -> Device {
    Device::open("CPU", &runtime_dir()).unwrap()
}

fn admit(bundle: &TestBundle, device: &mut Device) -> Result<Model, Refusal> {
    let folder = tempfile::tempdir().unwrap();
    Model::admit(Bundle::open(&bundle.write(folder.path()), &trusted())?, device)
}

/// The main answer of a model with one network.
fn scores(model: &mut Model, tensor: &[f32]) -> Result<Scores, RunError> {
    let answers = [model.run(0, tensor)?];
    Ok(read::scores(model.manifest(), &answers).unwrap())
}

fn tensor(level: f32) -> Vec<f32> {
    vec![(level / 255.0 - 0.5) / 0.25; 3 * SIDE_PX * SIDE_PX]
}

#[test]
fn an_admitted_model_answers_as_its_formula_says() {
    let mut model = admit(&TestBundle::new(), &mut cpu()).unwrap();
    assert!(model.admission().golden_max_error < 1e-5);
    assert_eq!((model.device(), model.admission().golden_count), ("CPU", 4));
    for level in [0u8, 60, 127, 128, 200, 255] {
        let scores = scores(&mut model, &tensor(f32::from(level))).unwrap();
        let error = (scores.probability - expected_probability(f64::from(level))).abs();
        assert!(error < 1e-5, "level {level}: {} is off by {error}", scores.probability);
        assert_eq!((scores.clear_below, scores.significant_from), (0.2, 0.6));
    }
}

#[test]
fn inv_03_a_model_that_does_not_answer_as_recorded_is_refused() {
    let mut device = cpu();
    let shifted = TestBundle::new().edit("0.5", "0.6"); // Another normalisation than the one it was trained with.
    assert!(matches!(admit(&shifted, &mut device), Err(Refusal::Golden { index: 0 | 1, .. })));
    // A byte of the weights, changed by somebody who can sign.
    let mut weights = TestBundle::new();
    weights.files.get_mut("model.bin").unwrap()[26] ^= 0x40;
    let refused = admit(&weights, &mut device).err().unwrap();
    assert_eq!(refused.reason().code, "golden_mismatch", "{refused}");
    let infinite = TestBundle::new().with_file(
        "model.bin",
        [&[1i64, 2, 3].map(i64::to_le_bytes).concat()[..], &f32::NAN.to_le_bytes(), &[0; 4]].concat(),
    );
    assert!(matches!(
        admit(&infinite, &mut device),
        Err(Refusal::Run { index: 0, source: RunError::NotFinite { .. }, .. })
    ));
    assert!(admit(&TestBundle::new(), &mut device).is_ok(), "the device stays usable");
}

#[test]
fn a_graph_that_the_runtime_refuses_is_refused_with_its_words() {
    let mut device = cpu();
    for (from, to) in [
        ("type=\"Multiply\"", "type=\"Oracle\""),
        ("<edge from-layer=\"0\" from-port=\"0\" to-layer=\"2\" to-port=\"0\"/>", ""),
        ("shape=\"3\" offset=\"0\" size=\"24\"", "shape=\"3\" offset=\"0\" size=\"16\""),
        ("<layer id=\"3\"", "<layer id=\"4\""),
    ] {
        let refused = admit(&TestBundle::new().edit_graph(from, to), &mut device).err().unwrap();
        assert_eq!(refused.reason().code, "bundle_not_runnable", "{to}: {refused}");
        assert!(refused.to_string().len() < 500 && !refused.to_string().contains('\n'));
    }
}

#[test]
fn inv_04_the_same_tensor_gives_the_same_bits() {
    let mut device = cpu();
    let (mut one, mut other) =
        (admit(&TestBundle::new(), &mut device).unwrap(), admit(&TestBundle::new(), &mut device).unwrap());
    let picture: Vec<f32> =
        (0..3 * SIDE_PX * SIDE_PX).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    let first = scores(&mut one, &picture).unwrap().probability.to_bits();
    for _ in 0..50 {
        assert_eq!(scores(&mut one, &picture).unwrap().probability.to_bits(), first);
        assert_eq!(scores(&mut other, &picture).unwrap().probability.to_bits(), first);
        scores(&mut one, &tensor(3.0)).unwrap();
    }
}

#[test]
fn a_tensor_of_the_wrong_length_is_an_error_and_the_model_stays_usable() {
    let mut model = admit(&TestBundle::new(), &mut cpu()).unwrap();
    for length in [0, 1, 3 * SIDE_PX * SIDE_PX - 1, 3 * SIDE_PX * SIDE_PX + 1] {
        assert!(matches!(scores(&mut model, &vec![0.0; length]), Err(RunError::Engine(_))), "{length}");
    }
    assert!(matches!(scores(&mut model, &[f32::NAN; 3 * SIDE_PX * SIDE_PX]), Err(RunError::NotFinite { .. })));
    assert!(scores(&mut model, &tensor(1.0)).is_ok());
}

#[test]
fn replay_answers_golden_vectors_recorded_tensors_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut golden = Device::open("replay:golden", Path::new("")).unwrap();
    let mut model = admit(&TestBundle::new(), &mut golden).unwrap();
    assert!(model.admission().golden_max_error < 1e-5);
    let error = scores(&mut model, &tensor(77.0)).unwrap_err().to_string();
    let key = error.rsplit(' ').next().unwrap().to_owned();
    let file = folder.path().join("answers.json");
    std::fs::write(&file, format!(r#"{{"answers": {{"{key}": [0.0]}}, "otherwise": [100.0]}}"#)).unwrap();
    let mut device = Device::open(&format!("replay:{}", file.display()), Path::new("")).unwrap();
    let mut model = admit(&TestBundle::new(), &mut device).unwrap();
    assert_eq!(scores(&mut model, &tensor(77.0)).unwrap().probability, 0.5);
    assert_eq!(scores(&mut model, &tensor(78.0)).unwrap().probability, 1.0);
    std::fs::write(&file, "{").unwrap();
    assert!(matches!(
        Device::open(&format!("replay:{}", file.display()), Path::new("")),
        Err(DeviceError::Recording { .. })
    ));
}

#[test]
fn an_unknown_device_is_named() {
    for name in ["GPU", "", "CPU:0", "oracle:x"] {
        assert!(matches!(Device::open(name, &PathBuf::from("/")), Err(DeviceError::Unknown { .. })), "{name}");
    }
}

#[test]
fn every_output_of_every_network_is_answered_by_name_as_its_formula_says() {
    let mut model = admit(&many::bundle(), &mut cpu()).unwrap();
    let admission = model.admission().clone();
    assert_eq!(
        admission.networks.iter().map(|n| (&*n.name, n.golden_count)).collect::<Vec<_>>(),
        [("frame", 3), ("cells", 2)]
    );
    assert!(admission.networks[1].golden_max_error == 0.0 && admission.networks[1].golden_map_error > 0.0);
    assert!(admission.latency_us_p50 >= admission.networks.iter().map(|n| n.latency_us_p50).max().unwrap());
    for (network, side, expected) in
        [(0, many::FRAME_PX, many::frame_answers as fn(&[u8]) -> Vec<f64>), (1, many::WINDOW_PX, many::cells_answers)]
    {
        for seed in 20..30 {
            let pixels = many::picture(side, seed);
            let answers = model.run(network, &many::tensor(&pixels)).unwrap();
            let found: Vec<f32> = answers.iter().flat_map(|answer| answer.values.clone()).collect();
            let expected = expected(&pixels);
            assert_eq!(found.len(), expected.len());
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((f64::from(*found) - expected).abs() < 2e-5, "seed {seed}, element {at}: {found}, {expected}");
            }
        }
    }
    assert!(matches!(model.run(2, &[]), Err(RunError::NoNetwork { network: 2 })));
}

#[test]
fn answers_become_scores_levels_and_reasons() {
    let mut model = admit(&many::bundle(), &mut cpu()).unwrap();
    let of = |model: &mut Model, rgb: [u8; 3]| -> Answers {
        model.run(0, &many::tensor(&rgb.repeat(many::FRAME_PX * many::FRAME_PX))).unwrap()
    };
    let manifest = model.manifest().clone();
    let frame = &manifest.networks[0];
    let red = of(&mut model, [255, 120, 10]);
    assert_eq!(read::gate(frame, &red), None);
    assert!(read::fit_probability(frame, &red).unwrap() > 0.5);
    assert_eq!(read::fit_probability(&manifest.networks[1], &red), None, "it has no gate");
    let told = read::scores(&manifest, &[red.clone(), Answers::new()]).unwrap();
    assert_eq!(told.label, "coloured");
    assert_eq!(told.classes.iter().map(|class| &*class.label).collect::<Vec<_>>(), ["red", "green", "blue"]);
    let sum: f64 = told.classes.iter().map(|class| class.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6 && told.probability > 0.9, "{told:?}");
    assert_eq!(read::level(&manifest, std::slice::from_ref(&red)), Some(1), "green is below the middle");
    let level = read::level_measurement(&manifest, &[red]).unwrap();
    assert_eq!((level.value, &*level.unit.value), (1.0, "1"));
    let white = of(&mut model, [255, 255, 255]);
    assert_eq!(read::level(&manifest, &[white]), Some(3));
    // Blue is not below green, but no level is reached without the one before it.
    let gap = of(&mut model, [255, 0, 255]);
    assert_eq!(read::level(&manifest, &[gap]), Some(1));
    for (rgb, code, outcome) in
        [([0, 255, 90], "too_green", GateOutcome::Ungradable), ([0, 90, 255], "no_picture", GateOutcome::NotAnalysed)]
    {
        let gated = read::gate(frame, &of(&mut model, rgb)).unwrap();
        assert_eq!((&*gated.reason.code, gated.outcome), (code, outcome));
    }
    assert_eq!(read::scores(&manifest, &[]), None);
}

#[test]
fn inv_03_a_golden_map_that_differs_is_refused() {
    let mut device = cpu();
    let mut spoiled = many::bundle();
    // One element is nothing, a plane is.
    let expected = spoiled.files.get_mut("golden/cells.expected.bin").unwrap();
    expected[0] ^= 0x40;
    assert!(admit(&spoiled, &mut device).is_ok());
    let expected = spoiled.files.get_mut("golden/cells.expected.bin").unwrap();
    expected[many::WINDOW_PX * many::WINDOW_PX..][..2000].fill(0x70);
    match admit(&spoiled, &mut device) {
        Err(refused @ Refusal::GoldenMap { index: 0, .. }) => {
            assert_eq!(refused.reason().code, "golden_mismatch");
            assert!(refused.to_string().contains("network cells"), "{refused}");
        }
        other => panic!("{:?}", other.err()),
    }
    // The second vector's only number that is off.
    let mut spoiled = many::bundle();
    let one_vector = 2 * (9 + 2 * many::FRAME_PX * many::FRAME_PX);
    spoiled.files.get_mut("golden/frame.expected.bin").unwrap()[one_vector + 2 * 7 + 1] ^= 0x20;
    match admit(&spoiled, &mut device) {
        Err(Refusal::Golden { index: 1, tensor, .. }) => assert_eq!(tensor, "grade"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn replay_answers_every_output_of_every_network() {
    let mut golden = Device::open("replay:golden", Path::new("")).unwrap();
    let model = admit(&many::bundle(), &mut golden).unwrap();
    assert!(model.admission().golden_max_error < 1e-4, "{:?}", model.admission());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.json");
    let answers = r#"{"otherwise": {"frame": [[3.0, 0.0, 0.0], [0.0, 9.0, 0.0], [1.0, -1.0, 1.0], [2.0], [-2.0]], "cells": [[0.5]]}}"#;
    std::fs::write(&file, answers).unwrap();
    let mut device = Device::open(&format!("replay:{}", file.display()), Path::new("")).unwrap();
    let mut model = admit(&many::bundle(), &mut device).unwrap();
    let frame = model.run(0, &many::tensor(&many::picture(many::FRAME_PX, 99))).unwrap();
    let manifest = model.manifest().clone();
    assert_eq!(read::gate(&manifest.networks[0], &frame), None);
    assert!(read::scores(&manifest, std::slice::from_ref(&frame)).unwrap().probability < 0.01);
    assert_eq!(read::level(&manifest, std::slice::from_ref(&frame)), Some(1));
    assert_eq!(frame[3].values.len(), many::FRAME_PX * many::FRAME_PX, "one number stands for a whole map");
    let cells = model.run(1, &many::tensor(&many::picture(many::WINDOW_PX, 99))).unwrap();
    assert_eq!(cells[0].values.len(), 2 * many::WINDOW_PX * many::WINDOW_PX);
    // Too few numbers for a list are an error, not an answer.
    std::fs::write(&file, r#"{"otherwise": [[3.0, 0.0]]}"#).unwrap();
    let mut device = Device::open(&format!("replay:{}", file.display()), Path::new("")).unwrap();
    let mut model = admit(&many::bundle(), &mut device).unwrap();
    let refused = model.run(0, &many::tensor(&many::picture(many::FRAME_PX, 99)));
    assert!(matches!(refused, Err(RunError::Length { expected: 3, found: 2, .. })), "{refused:?}");
}

/// What a compiler left on disk is never looked at: the runtime's own cache would take a blob of another version, and
/// a flipped byte in one is not noticed.
#[test]
fn inv_03_no_cache_of_compiled_models_is_read_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = TestBundle::new();
    let path = bundle.write(&folder.path().join("bundle"));
    // A bundle that brings a blob, signed or not.
    let blob = bundle.clone().with_file("model_cache.blob", b"\x7fELF of another version".to_vec());
    assert!(admit(&blob, &mut cpu()).is_ok(), "listed and signed, it is carried, and nothing reads it");
    std::fs::write(path.join("0123456789.blob"), b"x").unwrap();
    assert!(Bundle::open(&path, &trusted()).is_err(), "nobody vouches for it");
    std::fs::remove_file(path.join("0123456789.blob")).unwrap();
    let files = |folder: &Path| -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let current = std::env::current_dir().unwrap();
    let before = (files(&path), files(&current), files(&runtime_dir()));
    let mut model = Model::admit(Bundle::open(&path, &trusted()).unwrap(), &mut cpu()).unwrap();
    scores(&mut model, &tensor(3.0)).unwrap();
    assert_eq!((files(&path), files(&current), files(&runtime_dir())), before, "a compile leaves no file behind");
}
