//! What daemon and worker say to each other. One request is open at a time; each ends with exactly one final answer.

use crate::sandbox::SandboxReport;
use fovea_core::{Analysis, Code, ModelRef, ObjectHeader, Reason};
use fovea_infer::{Admission, Eligible, TrustedKey};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Daemon to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first one: load the runtime, then shut in.
    Start(Start),
    /// Files of one bundle lie beside it.
    Load {
        /// The daemon's number for the bundle.
        slot: usize,
        /// Names of the files in their order; none when the one file is a tar.
        names: Option<Vec<String>>,
    },
    /// All bundles are loaded: shut the last door.
    Seal {
        /// Admitted, but not to serve: the daemon's numbers of those bundles.
        give_way: Vec<usize>,
    },
    /// The object's file lies beside it.
    Analyse {
        /// Its routing facts.
        header: Box<ObjectHeader>,
    },
    /// The object's file lies beside it, or a picture's: wanted with what a site compares with its own labels.
    Evaluate {
        /// Its routing facts.
        header: Box<ObjectHeader>,
    },
    /// A PNG or JPEG file lies beside it: wanted as plain pixels.
    Picture,
}

/// What a worker needs to know before it is shut in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Who started it: when that process is gone, so is the worker.
    pub daemon_pid: i32,
    /// Where OpenVINO lies.
    pub runtime_dir: PathBuf,
    /// `CPU` or `replay:FILE`.
    pub device: String,
    /// Most memory that it may have written to, bytes.
    pub memory_max_bytes: u64,
    /// Whose bundles may run.
    pub trusted_keys: Vec<TrustedKey>,
}

/// Worker to daemon: an answer, and how large the worker is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packet {
    /// Resident memory, bytes; 0 before it is known.
    pub resident_bytes: u64,
    /// The answer.
    pub answer: Answer,
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Shut in and ready for bundles.
    Started {
        /// What the device is, for people.
        device: String,
    },
    /// It cannot work here, or was asked out of order; the worker ends.
    NotStarted {
        /// Why.
        problem: String,
    },
    /// Final answer to `Load`.
    Loaded {
        /// Which objects it is for, where its manifest could be read and trusted, also when it is refused.
        eligible: Option<Eligible>,
        /// Whether it was admitted.
        outcome: Result<Box<ServingModel>, Reason>,
    },
    /// Final answer to `Seal`: ready for objects.
    Sealed(SandboxReport),
    /// Not final: what comes next in `Analyse` or `Evaluate`.
    Working {
        /// The step.
        step: Step,
        /// The chosen model, by the daemon's number of its bundle.
        slot: usize,
        /// Of an object that is read field by field: how many are done, and how many there are.
        fields: Option<(u32, u32)>,
    },
    /// Final answer to `Analyse`.
    Analysed(Box<Analysis>),
    /// Final answer to `Evaluate`; the maps lie beside it in sealed files, in the order of the fields here.
    Evaluated {
        /// As to `Analyse`.
        analysis: Box<Analysis>,
        /// Of the first gate.
        fit_probability: Option<f64>,
        /// Of the ordinal output.
        level: Option<u32>,
        /// Columns and rows.
        mask: Option<(u32, u32)>,
        /// Columns and rows.
        nuclei: Option<(u32, u32)>,
        /// Whether it was read field by field.
        in_fields: bool,
    },
    /// Final answer to `Picture`: RGB, 3 bytes a pixel, rows without padding, in a sealed file beside it.
    Picture {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
    },
    /// Final answer to `Picture`: there is none.
    NoPicture(Reason),
}

/// A step that may kill the worker: whose fault it is depends on the step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The object's bytes are parsed.
    Decode,
    /// The frame becomes a tensor.
    Preprocess,
    /// The model runs.
    Infer,
}

/// A model that was admitted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServingModel {
    /// How results name it.
    pub model: ModelRef,
    /// What it answers.
    pub task: String,
    /// Name of the algorithm (PS3.16 TID 1500).
    pub algorithm_name: String,
    /// Its family, coded.
    pub algorithm_family: Code,
    /// What its probability is of.
    pub label: String,
    /// What admission measured here.
    pub admission: Admission,
    /// Where it runs, for instance `CPU`.
    pub device: String,
}
