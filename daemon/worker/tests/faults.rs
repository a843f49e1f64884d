//! Invariant 7: the worker can die at any moment. A worker that misbehaves on request
//! (examples/worker_with_faults.rs) stands in for the bugs that real parsers and runtimes have.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::Verdict;
use fovea_worker::{ModelState, Worker, WorkerError};
use std::time::{Duration, Instant};
use support::bundle::TestBundle;
use support::{code, config, faulty_program, header, object, probability, replay, start};

fn worker(folder: &std::path::Path) -> Worker {
    worker_with(folder, Duration::from_secs(10))
}

fn worker_with(folder: &std::path::Path, object_deadline: Duration) -> Worker {
    let device = replay(folder, 0.0);
    let bundle = TestBundle::new().write(&folder.join("a"));
    let mut config = config(faulty_program(), &device, vec![bundle]);
    config.object_deadline = object_deadline;
    config.memory_max_bytes = 256 << 20;
    start(config)
}

#[test]
fn inv_07_an_object_that_kills_the_worker_gets_its_outcome_and_the_next_one_is_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    // Abort while decoding, out of memory, panic, exit, out of stack.
    for (deaths, fault) in (1..).zip([101, 105, 106, 107, 108]) {
        let analysis = worker.analyse(&object(90), &header(fault));
        assert_eq!(code(&analysis), "worker_died", "{fault}");
        assert!(matches!(&analysis.verdict, Verdict::NotAnalysed(reason) if !reason.advice.is_empty()));
        assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5, "after {fault}");
        // One restart for the second try, one for the next object.
        assert_eq!(worker.status().restarts, deaths * 2);
    }
    // An evaluation is tried as often.
    assert!(matches!(worker.evaluate(&object(90), &header(101)), Err(WorkerError::Died { .. })));
    assert_eq!(worker.status().restarts, 11);
    worker.evaluate(&object(90), &header(1)).unwrap();
    assert_eq!(worker.status().restarts, 12);
    assert!(matches!(worker.models()[0].state, ModelState::Serving(_)), "decoding is no fault of the model");
}

#[test]
fn inv_07_an_object_that_hangs_is_given_up_after_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker_with(folder.path(), Duration::from_millis(1500));
    let begin = Instant::now();
    assert_eq!(code(&worker.analyse(&object(90), &header(104))), "worker_overran");
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
}

#[test]
fn inv_07_a_model_that_kills_for_two_objects_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    // Twice for one object: it may be the object.
    assert_eq!(code(&worker.analyse(&object(90), &header(102))), "worker_died");
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
    // For a second one: it is the model. The second try finds no model left.
    assert_eq!(code(&worker.analyse(&object(90), &header(103))), "model_refused");
    let ModelState::Refused(reason) = &worker.models()[0].state else { panic!("{:?}", worker.models()) };
    assert_eq!(reason.code, "model_put_aside");
    assert!(reason.text.contains("SIGABRT"), "{}", reason.text);
    assert_eq!(code(&worker.analyse(&object(90), &header(1))), "model_refused");
}

#[test]
fn inv_07_a_death_is_forgotten_after_a_hundred_good_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    assert_eq!(code(&worker.analyse(&object(90), &header(102))), "worker_died");
    for _ in 0..100 {
        assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
    }
    assert_eq!(code(&worker.analyse(&object(90), &header(103))), "worker_died");
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
}

#[test]
fn inv_07_a_bundle_that_kills_while_it_is_loaded_is_put_aside_and_the_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let device = replay(folder.path(), 0.0);
    let deadly = TestBundle::new().with_file("kills-when-loaded.md", b"x").write(&folder.path().join("deadly"));
    let good = TestBundle::new().write(&folder.path().join("good"));
    let mut worker = start(config(faulty_program(), &device, vec![deadly, good]));
    let ModelState::Refused(reason) = &worker.models()[0].state else { panic!("{:?}", worker.models()) };
    assert_eq!(reason.code, "model_put_aside");
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
    assert_eq!(worker.status().restarts, 2);
}

#[test]
fn inv_07_a_worker_killed_from_outside_is_replaced_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    for killed in 1..=5 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.status().pid.unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
        assert_eq!(worker.status().restarts, killed);
    }
}

#[test]
fn inv_07_death_at_any_moment_leaves_one_outcome_for_every_object() {
    let folder = tempfile::tempdir().unwrap();
    let (mut died, mut scored) = (0, 0);
    let mut worker = worker(folder.path());
    // From before the first byte is read to after the answer is sent; an analysis takes about a millisecond.
    for after_us in (0..3000).step_by(100) {
        let mut doomed = header(109);
        doomed.series_uid = fovea_core::Uid::new(&format!("1.2.{after_us}")).unwrap();
        match worker.analyse(&object(90), &doomed).verdict {
            Verdict::Scored(scores) => {
                assert_eq!(scores.probability, 0.5);
                scored += 1;
            }
            Verdict::NotAnalysed(reason) => {
                assert_eq!(reason.code, "worker_died", "after {after_us} us");
                died += 1;
            }
            other => panic!("after {after_us} us: {other:?}"),
        }
        // Where the timer outlived the analysis it hits this one: the second try must do.
        assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5, "after {after_us} us");
    }
    println!("{died} died, {scored} scored, {} restarts", worker.status().restarts);
    assert!(died > 0 && worker.status().restarts >= 30);
}

#[test]
fn inv_08_a_thousand_objects_leave_nothing_open_and_no_memory_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let (whole, cut) = (object(90), support::bytes(&[0x44; 700]));
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut look = |times: usize| {
        for index in 0..times {
            worker.analyse(if index % 3 == 0 { &cut } else { &whole }, &header(1));
        }
        (open_files(), worker.status())
    };
    let (files, before) = look(100);
    let (files_after, after) = look(1000);
    assert_eq!((before.pid, after.restarts), (after.pid, 0), "its own limit is 64 open files");
    // Other tests of the same process may open some.
    assert!(files_after < files + 100, "{files} open files before, {files_after} after");
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(grown < 2 << 20, "{grown} B in 1000 objects");
}

#[test]
fn nothing_outside_is_in_reach_of_a_worker_that_was_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let analysis = worker.analyse(&object(90), &header(201));
    let Verdict::NotAnalysed(reason) = &analysis.verdict else { panic!("{analysis:?}") };
    assert_eq!(reason.text, "open: [], thread: true, line: true");
    assert!(!std::path::Path::new("/tmp/fovea-worker-was-here").exists());
}

#[test]
fn an_answer_that_cannot_be_true_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    assert_eq!(code(&worker.analyse(&object(90), &header(202))), "worker_died");
    assert_eq!(probability(&worker.analyse(&object(90), &header(1))), 0.5);
}
