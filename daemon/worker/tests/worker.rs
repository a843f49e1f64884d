//! The worker as the daemon uses it: real process, real sandbox, OpenVINO where the test says CPU.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::Verdict;
use fovea_worker::{ModelState, Worker, WorkerError};
use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;
use support::bundle::{TestBundle, expected_probability};
use support::{
    COLUMNS_PX, ROWS_PX, bytes, code, config, header, object, probability, program, replay, runs, start, timeless,
};

#[test]
fn an_object_becomes_scores_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = TestBundle::new().write(&folder.path().join("a"));
    let mut worker = start(config(program(), "CPU", vec![bundle]));
    let ModelState::Serving(serving) = &worker.models()[0].state else { panic!("{:?}", worker.models()) };
    assert_eq!((&*serving.model.id, &*serving.task, &*serving.device), ("brightness", "brightness_screening", "CPU"));
    let model = serving.model.clone();
    // 64 x 48 px become a square with a quarter of black.
    for level in [40u8, 128, 250] {
        let analysis = worker.analyse(&object(level), &header(1));
        let expected = expected_probability(f64::from(level) * 0.75);
        assert!((probability(&analysis) - expected).abs() < 1e-3, "level {level}: {analysis:?}, expected {expected}");
        assert_eq!((analysis.model, analysis.device.as_deref()), (Some(model.clone()), Some("CPU")));
        assert_eq!((analysis.frame, &*analysis.task), (1, "brightness_screening"));
        assert!(analysis.quality.contains_key("exposure") && analysis.times.infer_us > 0);
    }
    let status = worker.status();
    assert!(status.restarts == 0 && status.resident_bytes > 10 << 20 && runs(status.pid.unwrap()), "{status:?}");
}

#[test]
fn inv_04_the_same_object_gives_the_same_answer_also_from_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = TestBundle::new().write_tar(&folder.path().join("a.fovea"));
    let mut worker = start(config(program(), "CPU", vec![bundle.clone()]));
    let first = timeless(worker.analyse(&object(90), &header(1)));
    assert!(probability(&first) > 0.0);
    assert_eq!(first, timeless(worker.analyse(&object(90), &header(1))));
    worker.analyse(&object(200), &header(2));
    assert_eq!(first, timeless(worker.analyse(&object(90), &header(1))));
    drop(worker);
    let mut other = start(config(program(), "CPU", vec![bundle]));
    assert_eq!(first, timeless(other.analyse(&object(90), &header(1))));
}

#[test]
fn an_object_that_no_model_is_meant_for_is_not_even_read() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let mut worker = start(config(program(), &device, vec![TestBundle::new().write(&folder.path().join("a"))]));
    let mut ultrasound = header(1);
    ultrasound.modality = Some("US".to_owned());
    let analysis = worker.analyse(&bytes(b"never looked at"), &ultrasound);
    assert_eq!(code(&analysis), "no_eligible_model");
    assert!(matches!(&analysis.verdict, Verdict::NotAnalysed(reason) if reason.text == "no eligible model"));
    assert!(analysis.model.is_none() && analysis.times.decode_us == 0);
}

#[test]
fn a_picture_that_can_be_taken_again_is_ungradable_and_names_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let strict =
        TestBundle::new().edit("[[networks.outputs]]", "[networks.quality]\nexposure_min = 0.2\n[[networks.outputs]]");
    let mut worker = start(config(program(), &device, vec![strict.write(&folder.path().join("a"))]));
    let mut small = header(1);
    small.rows_px = Some(7);
    for (analysis, wanted) in
        [(worker.analyse(&object(90), &small), "too_small"), (worker.analyse(&object(9), &header(2)), "too_dark")]
    {
        assert_eq!(code(&analysis), wanted);
        assert!(matches!(&analysis.verdict, Verdict::Ungradable(reason) if !reason.advice.is_empty()));
        assert!(analysis.model.is_some());
    }
    assert_eq!(probability(&worker.analyse(&object(90), &header(3))), 0.5);
}

#[test]
fn inv_02_a_damaged_object_has_a_reason_and_the_worker_lives() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let mut worker = start(config(program(), &device, vec![TestBundle::new().write(&folder.path().join("a"))]));
    let pid = worker.status().pid;
    let mut whole = Vec::new();
    let mut file = object(90);
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut whole).unwrap();
    let cut = whole.len() / 2;
    for damaged in [&b""[..], b"garbage", &whole[..cut], &whole[..200], &[0xff; 5000]] {
        let analysis = worker.analyse(&bytes(damaged), &header(1));
        assert!(matches!(analysis.verdict, Verdict::NotAnalysed(_)), "{analysis:?}");
        assert!(analysis.model.is_none() && analysis.task == "brightness_screening");
    }
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
    assert_eq!((worker.status().pid, worker.status().restarts), (pid, 0));
}

#[test]
fn inv_03_bad_bundles_are_refused_with_the_reason_and_the_good_one_serves() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cut = TestBundle::new().write(&at("cut"));
    std::fs::OpenOptions::new().write(true).open(cut.join("model.bin")).unwrap().set_len(20).unwrap();
    let unsigned = TestBundle::new().write(&at("unsigned"));
    std::fs::write(unsigned.join("bundle.sig"), [1; 64]).unwrap();
    let mut wrong = TestBundle::new();
    wrong.files.get_mut("model.bin").unwrap()[27] ^= 0x80;
    let huge = TestBundle::new().write(&at("huge"));
    std::fs::OpenOptions::new().write(true).open(huge.join("model.bin")).unwrap().set_len(1 << 40).unwrap();
    let bundles = [
        (cut, "bundle_damaged", "SHA-256"),
        (unsigned, "bundle_untrusted", "signed by none"),
        (TestBundle::new().edit_graph("1,3,16,16", "1,3,99,16").write(&at("shape")), "bundle_damaged", "1,3,16,16"),
        (TestBundle::new().with_chain(10_000).write(&at("chain")), "bundle_damaged", "10008 operations"),
        (TestBundle::new().with_file("model.xml", b"\0garbage").write(&at("xml")), "bundle_damaged", "readable graph"),
        (wrong.write(&at("weights")), "golden_mismatch", "golden vector 0"),
        (TestBundle::new().edit_graph("\"Multiply\"", "\"Oracle\"").write(&at("op")), "bundle_not_runnable", "Oracle"),
        (huge, "bundle_damaged", "limit"),
        (at("nowhere"), "bundle_damaged", "nowhere"),
    ];
    let mut paths: Vec<PathBuf> = bundles.iter().map(|(path, _, _)| path.clone()).collect();
    paths.push(TestBundle::new().write(&at("good")));
    let mut worker = start(config(program(), "CPU", paths));
    for (status, (path, code, word)) in worker.models().iter().zip(&bundles) {
        match &status.state {
            ModelState::Refused(reason) => {
                assert_eq!(&reason.code, code, "{}: {}", path.display(), reason.text);
                assert!(reason.text.contains(word), "{}: {}", path.display(), reason.text);
            }
            ModelState::Serving(_) => panic!("{} serves", path.display()),
        }
    }
    assert!(matches!(worker.models().last().unwrap().state, ModelState::Serving(_)));
    assert!(probability(&worker.analyse(&object(128), &header(1))) > 0.0);
    assert_eq!(worker.status().restarts, 0);
}

#[test]
fn of_one_bundle_only_the_highest_version_serves_whatever_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let bundle = |name: &str, version: &str| {
        let version = format!("version = \"{version}\"");
        TestBundle::new().edit("version = \"1.0.0\"", &version).write(&folder.path().join(name))
    };
    let mut paths = vec![bundle("a", "0.10.0"), bundle("b", "0.9.0"), bundle("c", "0.10.0")];
    for _ in 0..2 {
        let mut worker = start(config(program(), &device, paths.clone()));
        for status in worker.models() {
            match (&status.state, status.path.file_name().unwrap().to_str().unwrap()) {
                (ModelState::Serving(serving), "a") => assert_eq!(serving.model.version, "0.10.0"),
                (ModelState::Refused(reason), "b") => {
                    assert_eq!((&*reason.code, &*reason.text), ("superseded", "superseded by 0.10.0"));
                }
                (ModelState::Refused(reason), "c") => assert_eq!(reason.code, "duplicate"),
                other => panic!("{other:?}"),
            }
        }
        let analysis = worker.analyse(&object(90), &header(1));
        assert_eq!(analysis.model.unwrap().version, "0.10.0");
        let mut ultrasound = header(2);
        ultrasound.modality = Some("US".to_owned());
        assert_eq!(code(&worker.analyse(&object(90), &ultrasound)), "no_eligible_model");
        paths.reverse();
    }
}

#[test]
fn an_object_whose_model_is_refused_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let cut = TestBundle::new().write(&folder.path().join("cut"));
    std::fs::write(cut.join("model.bin"), b"x").unwrap();
    let mut ultrasound = header(2);
    ultrasound.modality = Some("US".to_owned());
    let mut worker = start(config(program(), &device, vec![cut.clone()]));
    let analysis = worker.analyse(&object(90), &header(1));
    let Verdict::NotAnalysed(reason) = &analysis.verdict else { panic!("{analysis:?}") };
    assert_eq!((&*reason.code, &*reason.text), ("model_refused", "no eligible model; 1 model bundle is refused"));
    assert_eq!(reason.advice, "Tell the person who looks after the box: foveactl models list");
    assert_eq!(code(&worker.analyse(&object(90), &ultrasound)), "no_eligible_model", "its manifest is trusted");
    // Nobody trusted says what this one is for.
    let untrusted = TestBundle::new().write(&folder.path().join("untrusted"));
    std::fs::write(untrusted.join("bundle.sig"), [1; 64]).unwrap();
    let mut worker = start(config(program(), &device, vec![cut, untrusted]));
    assert_eq!(code(&worker.analyse(&object(90), &ultrasound)), "model_refused");
}

#[test]
fn a_picture_is_tried_once_more_when_the_worker_dies_over_it() {
    let mut worker = start(config(program(), "replay:golden", vec![]));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.status().pid.unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // A fresh worker looked at it.
    assert!(matches!(worker.picture_rgb8(&bytes(b"garbage")), Err(WorkerError::NoPicture(_))));
    assert_eq!(worker.status().restarts, 1);
}

#[test]
fn the_sandbox_was_tried_from_inside() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(config(program(), "CPU", vec![TestBundle::new().write(&folder.path().join("a"))]));
    let sandbox = worker.status().sandbox;
    for wall in ["limits", "seccomp", "not_dumpable"] {
        assert!(sandbox.applied.iter().any(|applied| applied == wall), "{wall}: {sandbox:?}");
    }
    for door in ["open an internet socket", "read a file", "write a file", "run a program", "start a process"] {
        assert!(sandbox.refused.iter().any(|refused| refused == door), "{door}: {sandbox:?}");
    }
    println!("{sandbox:#?}");
}

#[test]
fn what_is_missing_is_named_when_the_worker_starts() {
    let text = |outcome: Result<Worker, WorkerError>| match outcome {
        Ok(_) => panic!("started"),
        Err(error) => format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default()),
    };
    let missing = text(Worker::start(config(PathBuf::from("/nonexistent/worker"), "replay:golden", vec![])));
    assert!(missing.contains("/nonexistent/worker"), "{missing}");
    let mut no_runtime = config(program(), "replay:golden", vec![]);
    no_runtime.device = "CPU".to_owned();
    let missing = text(Worker::start(no_runtime));
    assert!(missing.contains("run scripts/fetch-openvino.sh"), "{missing}");
    let unknown = text(Worker::start(config(program(), "GPU", vec![])));
    assert!(unknown.contains("there is no device `GPU`"), "{unknown}");
    let not_a_worker = text(Worker::start(config(PathBuf::from("/bin/true"), "replay:golden", vec![])));
    assert!(not_a_worker.contains("ended before it was ready"), "{not_a_worker}");
}

#[test]
fn paths_may_start_at_the_daemons_own_folder() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let name = std::path::Path::new(folder.path().file_name().unwrap());
    replay(folder.path(), 0.0);
    TestBundle::new().write(&folder.path().join("a"));
    let device = format!("replay:{}", name.join("answers.json").display());
    let mut worker = start(config(program(), &device, vec![name.join("a")]));
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
}

#[test]
fn a_picture_comes_as_sealed_pixels() {
    let mut worker = start(config(program(), "replay:golden", vec![]));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, COLUMNS_PX.into(), ROWS_PX.into());
    encoder.set_color(png::ColorType::Grayscale);
    let gray = vec![77; usize::from(COLUMNS_PX) * usize::from(ROWS_PX)];
    encoder.write_header().unwrap().write_image_data(&gray).unwrap();
    let mut picture = worker.picture_rgb8(&bytes(&file)).unwrap();
    assert_eq!((picture.width_px, picture.height_px), (COLUMNS_PX.into(), ROWS_PX.into()));
    let mut pixels = Vec::new();
    std::io::Seek::rewind(&mut picture.rgb).unwrap();
    picture.rgb.read_to_end(&mut pixels).unwrap();
    assert_eq!(pixels, vec![77; gray.len() * 3]);
    std::io::Seek::rewind(&mut picture.rgb).unwrap();
    assert!(picture.rgb.write(b"x").is_err(), "sealed");
    assert!(matches!(worker.picture_rgb8(&bytes(b"garbage")), Err(WorkerError::NoPicture(_))));
}

#[test]
fn the_worker_ends_with_the_thread_that_owns_it() {
    let start = || start(config(program(), "replay:golden", vec![]));
    let dropped = start();
    let pid = dropped.status().pid.unwrap();
    drop(dropped);
    assert!(!runs(pid));
    // As if the daemon had been killed: nobody drops the worker.
    let pid = std::thread::spawn(move || {
        let worker = start();
        let pid = worker.status().pid.unwrap();
        std::mem::forget(worker);
        pid
    });
    let pid = pid.join().unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !runs(pid)
    });
    assert!(gone, "worker {pid} outlived its owner");
}
