//! Evaluation: production's answer with the maps behind it.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::Verdict;
use fovea_worker::{Evaluated, Worker};
use std::path::Path;
use support::bundle::many;
use support::{bytes, code, config, header, object_of, program, start, timeless};

const COLUMNS: u16 = 96;
const ROWS: u16 = 64;

fn worker(folder: &Path) -> Worker {
    start(config(program(), "CPU", vec![many::bundle().write(&folder.join("colours"))]))
}

/// Red on a ground of dull blue: a square in the middle of the left half.
fn pixels() -> Vec<u8> {
    let is_red = |x: u16, y: u16| (16..40).contains(&x) && (20..44).contains(&y);
    let pixel = |x, y| if is_red(x, y) { [230, 40, 60] } else { [110, 60, 130] };
    (0..ROWS).flat_map(|y| (0..COLUMNS).flat_map(move |x| pixel(x, y))).collect()
}

fn facts(last: u32) -> fovea_core::ObjectHeader {
    let mut header = header(last);
    (header.columns_px, header.rows_px) = (Some(COLUMNS.into()), Some(ROWS.into()));
    header
}

#[test]
fn evaluation_says_what_production_says_and_shows_the_maps() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let object = object_of(COLUMNS, ROWS, &pixels());
    let produced = worker.analyse(&object, &facts(1));
    let evaluated = worker.evaluate(&object, &facts(1)).unwrap();
    let Evaluated { analysis, fit_probability, level, mask, nuclei, in_fields } = evaluated;
    assert!(!in_fields);
    assert!(matches!(analysis.verdict, Verdict::Scored(_)), "{analysis:?}");
    assert_eq!(timeless(analysis.clone()), timeless(produced));
    assert!(fit_probability.is_some_and(|fit| (0.25..=1.0).contains(&fit)), "{fit_probability:?}");
    assert!(level.is_some_and(|level| level <= 3), "{level:?}");
    let area = usize::from(COLUMNS) * usize::from(ROWS);
    let (mask, nuclei) = (mask.unwrap(), nuclei.unwrap());
    for map in [&mask, &nuclei] {
        assert_eq!((map.width_px, map.height_px, map.labels.len()), (COLUMNS.into(), ROWS.into(), area));
    }
    let at = |labels: &[u16], x: usize, y: usize| labels[y * usize::from(COLUMNS) + x];
    assert!(mask.labels.iter().all(|label| *label <= 1));
    assert_eq!((at(&mask.labels, 28, 32), at(&mask.labels, 80, 10)), (1, 0));
    let red = mask.labels.iter().filter(|label| **label == 1).count();
    assert!((300..900).contains(&red), "{red} of 576 pixels are red, seen through 16 x 16");
    // One nucleus, at the frame's own scale: exactly the square.
    assert_eq!(nuclei.labels.iter().filter(|label| **label == 1).count(), 576);
    assert_eq!((at(&nuclei.labels, 16, 20), at(&nuclei.labels, 15, 20)), (1, 0));
    assert!(nuclei.labels.iter().all(|label| *label <= 1));
    let count = analysis.measurements.iter().find(|m| m.code.value == "nuclei-count").unwrap();
    assert_eq!(count.value, 1.0);
}

#[test]
fn a_picture_file_is_taken_for_what_the_header_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, COLUMNS.into(), ROWS.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels()).unwrap();
    let as_picture = worker.evaluate(&bytes(&file), &facts(1)).unwrap();
    let as_object = worker.evaluate(&object_of(COLUMNS, ROWS, &pixels()), &facts(1)).unwrap();
    assert_eq!(timeless(as_picture.analysis), timeless(as_object.analysis));
    assert_eq!((as_picture.mask, as_picture.nuclei), (as_object.mask, as_object.nuclei));
    // Production takes objects only.
    assert_eq!(code(&worker.analyse(&bytes(&file), &facts(1))), "object_damaged");
    let garbage = worker.evaluate(&bytes(b"garbage"), &facts(1)).unwrap();
    assert_eq!(code(&garbage.analysis), "object_damaged");
    assert!(garbage.mask.is_none() && garbage.nuclei.is_none() && garbage.level.is_none());
}

#[test]
fn what_a_gate_turns_away_has_a_fit_probability_and_no_maps() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let green = [60, 220, 60].repeat(usize::from(COLUMNS) * usize::from(ROWS));
    let turned_away = worker.evaluate(&object_of(COLUMNS, ROWS, &green), &facts(1)).unwrap();
    assert_eq!(code(&turned_away.analysis), "too_green");
    assert!(turned_away.fit_probability.is_some_and(|fit| fit < 0.25));
    assert!(turned_away.mask.is_none() && turned_away.nuclei.is_none() && turned_away.level.is_none());
    assert!(turned_away.analysis.regions.is_empty() && turned_away.analysis.measurements.is_empty());
    // A picture in which the structure is missing has an empty mask: whoever compares masks must count it.
    let blue = [128, 128, 131].repeat(usize::from(COLUMNS) * usize::from(ROWS));
    let missing = worker.evaluate(&object_of(COLUMNS, ROWS, &blue), &facts(1)).unwrap();
    if code_of(&missing) == Some("no_place") {
        assert!(missing.mask.unwrap().labels.iter().all(|label| *label == 0));
    }
}

fn code_of(evaluated: &Evaluated) -> Option<&str> {
    match &evaluated.analysis.verdict {
        Verdict::Ungradable(reason) | Verdict::NotAnalysed(reason) => Some(&reason.code),
        Verdict::Scored(_) => None,
    }
}

#[test]
fn an_evaluation_whose_worker_was_killed_is_answered_by_the_next_worker() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.status().pid.unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let object = object_of(COLUMNS, ROWS, &pixels());
    assert!(worker.evaluate(&object, &facts(1)).unwrap().mask.is_some());
    assert_eq!(worker.status().restarts, 1);
}
