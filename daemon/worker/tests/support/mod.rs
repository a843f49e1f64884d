//! Objects and workers for the tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part of it; a test may fail by panic")]

#[path = "../../../infer/tests/support/mod.rs"]
pub mod bundle;
pub mod slide;

use fovea_core::{Analysis, ObjectHeader, StageTimes, Uid, Verdict, sop_class};
use fovea_worker::{Worker, WorkerConfig};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const COLUMNS_PX: u16 = 64;
pub const ROWS_PX: u16 = 48;
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";

/// The worker of the product.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_fovea-worker"))
}

/// The worker that misbehaves on request (examples/worker_with_faults.rs).
pub fn faulty_program() -> PathBuf {
    let path = program().with_file_name("examples").join("worker_with_faults");
    assert!(path.is_file(), "build it with `cargo build -p fovea-worker --examples`");
    path
}

pub fn config(program: PathBuf, device: &str, bundles: Vec<PathBuf>) -> WorkerConfig {
    WorkerConfig {
        program,
        runtime_dir: if device == "CPU" { bundle::runtime_dir() } else { PathBuf::from("/nonexistent") },
        bundles,
        trusted_keys: bundle::trusted(),
        device: device.to_owned(),
        memory_max_bytes: 1 << 30,
        object_deadline: Duration::from_secs(20),
        load_deadline: Duration::from_secs(60),
    }
}

/// A recording that answers every tensor with `logit`.
pub fn replay(folder: &Path, logit: f32) -> String {
    let path = folder.join("answers.json");
    std::fs::write(&path, format!(r#"{{"otherwise": [{logit:?}]}}"#)).unwrap();
    format!("replay:{}", path.display())
}

pub fn header(last: u32) -> ObjectHeader {
    let uid = |text: &str| Uid::new(text).unwrap();
    ObjectHeader {
        sop_class_uid: uid(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
        sop_instance_uid: uid(&format!("1.2.3.4.{last}")),
        study_uid: uid("1.2.3"),
        series_uid: uid("1.2.3.4"),
        transfer_syntax_uid: uid(EXPLICIT_LE),
        modality: Some("OP".to_owned()),
        body_part: None,
        laterality: None,
        rows_px: Some(ROWS_PX.into()),
        columns_px: Some(COLUMNS_PX.into()),
        frames: 1,
        photometric: Some("RGB".to_owned()),
        burned_in_annotation: None,
        pixel_data_offset: None,
    }
}

/// A picture of `COLUMNS_PX` x `ROWS_PX`, every sample at `level`.
pub fn object(level: u8) -> File {
    object_of(COLUMNS_PX, ROWS_PX, &vec![level; usize::from(ROWS_PX) * usize::from(COLUMNS_PX) * 3])
}

/// A Part 10 file of RGB samples, uncompressed (PS3.10 section 7.1, PS3.5 section 7.1.2).
pub fn object_of(columns_px: u16, rows_px: u16, samples: &[u8]) -> File {
    written(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, (columns_px, rows_px), samples, None)
}

/// A picture through a microscope; `pixel_um`: what it states of its pixels.
pub fn photomicrograph(columns_px: u16, rows_px: u16, samples: &[u8], pixel_um: Option<f64>) -> File {
    written(sop_class::VL_MICROSCOPIC, (columns_px, rows_px), samples, pixel_um)
}

fn written(class: &str, (columns_px, rows_px): (u16, u16), samples: &[u8], pixel_um: Option<f64>) -> File {
    let mut meta = Vec::new();
    element(&mut meta, (2, 1), b"OB", &[0, 1]);
    element(&mut meta, (2, 2), b"UI", &text(class));
    element(&mut meta, (2, 3), b"UI", &text("1.2.3.4.1"));
    element(&mut meta, (2, 0x10), b"UI", &text(EXPLICIT_LE));
    element(&mut meta, (2, 0x12), b"UI", &text("1.2.3.9"));
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    element(&mut file, (2, 0), b"UL", &u32::try_from(meta.len()).unwrap().to_le_bytes());
    file.extend(meta);
    element(&mut file, (8, 0x16), b"UI", &text(class));
    element(&mut file, (8, 0x18), b"UI", &text("1.2.3.4.1"));
    element(&mut file, (8, 0x60), b"CS", b"OP");
    element(&mut file, (0x28, 2), b"US", &3u16.to_le_bytes());
    element(&mut file, (0x28, 4), b"CS", b"RGB ");
    element(&mut file, (0x28, 6), b"US", &0u16.to_le_bytes());
    element(&mut file, (0x28, 0x10), b"US", &rows_px.to_le_bytes());
    element(&mut file, (0x28, 0x11), b"US", &columns_px.to_le_bytes());
    if let Some(um) = pixel_um {
        let mm = um / 1000.0;
        element(&mut file, (0x28, 0x30), b"DS", format!("{mm:.7}\\{mm:.7} ").as_bytes());
    }
    element(&mut file, (0x28, 0x100), b"US", &8u16.to_le_bytes());
    element(&mut file, (0x28, 0x101), b"US", &8u16.to_le_bytes());
    element(&mut file, (0x28, 0x102), b"US", &7u16.to_le_bytes());
    element(&mut file, (0x28, 0x103), b"US", &0u16.to_le_bytes());
    element(&mut file, (0x7fe0, 0x10), b"OB", samples);
    bytes(&file)
}

/// A file with these bytes.
pub fn bytes(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn text(text: &str) -> Vec<u8> {
    let mut padded = text.as_bytes().to_vec();
    if padded.len() % 2 == 1 {
        padded.push(0);
    }
    padded
}

fn element(out: &mut Vec<u8>, (group, element): (u16, u16), vr: &[u8; 2], value: &[u8]) {
    out.extend(group.to_le_bytes());
    out.extend(element.to_le_bytes());
    out.extend(vr);
    if vr == b"OB" {
        out.extend([0, 0]);
        out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    } else {
        out.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    }
    out.extend(value);
}

pub fn probability(analysis: &Analysis) -> f64 {
    match &analysis.verdict {
        Verdict::Scored(scores) => scores.probability,
        other => panic!("{other:?}"),
    }
}

/// The code of the reason why there are no scores.
pub fn code(analysis: &Analysis) -> &str {
    match &analysis.verdict {
        Verdict::Ungradable(reason) | Verdict::NotAnalysed(reason) => &reason.code,
        Verdict::Scored(scores) => panic!("{scores:?}"),
    }
}

/// What must repeat: everything but the times.
pub fn timeless(mut analysis: Analysis) -> Analysis {
    analysis.times = StageTimes::default();
    analysis
}

/// Still a process that runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z') && !rest.starts_with('X'))
}

pub fn start(config: WorkerConfig) -> Worker {
    match Worker::start(config) {
        Ok(worker) => worker,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string)),
    }
}
