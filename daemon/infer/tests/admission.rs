//! Models on the real runtime and on replay: admission, answers, determinism.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_infer::{Bundle, Device, DeviceError, Model, Refusal, ScoresError};
use std::path::{Path, PathBuf};
use support::{SIDE_PX, TestBundle, expected_probability, runtime_dir, trusted};

fn cpu() -> Device {
    Device::open("CPU", &runtime_dir()).unwrap()
}

fn admit(bundle: &TestBundle, device: &mut Device) -> Result<Model, Refusal> {
    let folder = tempfile::tempdir().unwrap();
    Model::admit(Bundle::open(&bundle.write(folder.path()), &trusted())?, device)
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
        let scores = model.scores(&tensor(f32::from(level))).unwrap();
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
    assert!(matches!(admit(&infinite, &mut device), Err(Refusal::NoNumber { index: 0 })));
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
    let wide = TestBundle::new().edit_graph("type=\"Add\"", "type=\"Concat\"").edit_graph("<data auto_broadcast=\"numpy\"/><input><port id=\"0\" precision=\"FP32\"><dim>1</dim></port><port id=\"1\" precision=\"FP32\"><dim>1</dim></port></input><output><port id=\"2\" precision=\"FP32\" names=\"logit\">", "<data axis=\"0\"/><input><port id=\"0\" precision=\"FP32\"><dim>1</dim></port><port id=\"1\" precision=\"FP32\"><dim>1</dim></port></input><output><port id=\"2\" precision=\"FP32\" names=\"logit\">");
    assert!(matches!(admit(&wide, &mut device), Err(Refusal::NoNumber { .. })), "two numbers are no logit");
}

#[test]
fn inv_04_the_same_tensor_gives_the_same_bits() {
    let mut device = cpu();
    let (mut one, mut other) =
        (admit(&TestBundle::new(), &mut device).unwrap(), admit(&TestBundle::new(), &mut device).unwrap());
    let picture: Vec<f32> =
        (0..3 * SIDE_PX * SIDE_PX).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    let first = one.scores(&picture).unwrap().probability.to_bits();
    for _ in 0..50 {
        assert_eq!(one.scores(&picture).unwrap().probability.to_bits(), first);
        assert_eq!(other.scores(&picture).unwrap().probability.to_bits(), first);
        one.scores(&tensor(3.0)).unwrap();
    }
}

#[test]
fn a_tensor_of_the_wrong_length_is_an_error_and_the_model_stays_usable() {
    let mut model = admit(&TestBundle::new(), &mut cpu()).unwrap();
    for length in [0, 1, 3 * SIDE_PX * SIDE_PX - 1, 3 * SIDE_PX * SIDE_PX + 1] {
        assert!(matches!(model.scores(&vec![0.0; length]), Err(ScoresError::Engine(_))), "{length}");
    }
    assert!(matches!(model.scores(&[f32::NAN; 3 * SIDE_PX * SIDE_PX]), Err(ScoresError::NoNumber)));
    assert!(model.scores(&tensor(1.0)).is_ok());
}

#[test]
fn replay_answers_golden_vectors_recorded_tensors_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut golden = Device::open("replay:golden", Path::new("")).unwrap();
    let mut model = admit(&TestBundle::new(), &mut golden).unwrap();
    assert!(model.admission().golden_max_error < 1e-5);
    let error = model.scores(&tensor(77.0)).unwrap_err().to_string();
    let key = error.rsplit(' ').next().unwrap().to_owned();
    let file = folder.path().join("answers.json");
    std::fs::write(&file, format!(r#"{{"answers": {{"{key}": [0.0]}}, "otherwise": [100.0]}}"#)).unwrap();
    let mut device = Device::open(&format!("replay:{}", file.display()), Path::new("")).unwrap();
    let mut model = admit(&TestBundle::new(), &mut device).unwrap();
    assert_eq!(model.scores(&tensor(77.0)).unwrap().probability, 0.5);
    assert_eq!(model.scores(&tensor(78.0)).unwrap().probability, 1.0);
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
