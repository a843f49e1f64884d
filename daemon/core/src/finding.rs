//! The answer: one record for each accepted object, in the words that reports, archive and health record use.

use crate::{FindingId, Quality, Uid, UnixMicros};
use serde::{Deserialize, Serialize};

/// A coded concept (PS3.3 section 8.8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Code {
    /// Coding scheme designator, for instance `SCT`, `DCM`, `LN`.
    pub scheme: String,
    /// Code value.
    pub value: String,
    /// Meaning, in English.
    pub meaning: String,
}

impl Code {
    /// Joins the three parts.
    #[must_use]
    pub fn new(scheme: &str, value: &str, meaning: &str) -> Self {
        Self { scheme: scheme.into(), value: value.into(), meaning: meaning.into() }
    }
}

/// Why there is no finding, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, for programs: lower case with underscores, for instance `out_of_focus`.
    pub code: String,
    /// One plain sentence part for people, for instance `no eligible model`.
    pub text: String,
    /// What the person at the device can do now; empty where nothing can be done.
    pub advice: String,
}

impl Reason {
    /// Joins the three parts.
    #[must_use]
    pub fn new(code: &str, text: impl Into<String>, advice: &str) -> Self {
        Self { code: code.into(), text: text.into(), advice: advice.into() }
    }
}

/// How an object ended. Exactly one for each accepted object (invariant 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A model answered.
    Finding,
    /// The picture is not good enough; it can be taken again.
    Ungradable,
    /// No model ran, or none could finish.
    NotAnalysed,
}

/// Three calibrated bands of a probability.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// Below the lower threshold.
    Clear,
    /// Between the thresholds.
    Ambiguous,
    /// At or above the upper threshold.
    Significant,
}

/// How soon a person should look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// In the order of arrival.
    Routine,
    /// Before the routine ones.
    High,
    /// First.
    Urgent,
}

/// Who should look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderGrade {
    /// Any reader.
    Any,
    /// The most experienced reader there is.
    Senior,
}

/// Where an answer stands (FHIR R4 diagnostic report status words).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingStatus {
    /// No person has verified it.
    Preliminary,
    /// A person verified it.
    Final,
    /// A person changed it after it was final.
    Amended,
}

/// A size taken from the picture.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured.
    pub code: Code,
    /// The number, finite.
    pub value: f64,
    /// UCUM unit.
    pub unit: Code,
}

/// A place in the picture, in pixels of the whole frame; (0,0) is the top left corner of the first pixel (PS3.3 section C.18.6.1.2).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// What is there.
    pub label: String,
    /// The same, coded; none where the outline only shows where a model looked.
    #[serde(default)]
    pub code: Option<Code>,
    /// Closed outline, x then y, 3 to 256 points.
    pub outline_px: Vec<[f32; 2]>,
    /// Sizes of this place: its axes, its area. What is of the whole frame stands in [`Finding::measurements`].
    #[serde(default)]
    pub measurements: Vec<Measurement>,
}

/// One of several answers that exclude each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClassScore {
    /// In words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// Calibrated, 0 to 1; of a slide, the share of its tissue that was called so.
    pub probability: f64,
}

/// What a slide that was read field by field shows where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TileMap {
    /// Fields in a row, 1 to 128; of a larger slide each stands for several.
    pub columns: u32,
    /// Rows of fields, 1 to 128.
    pub rows: u32,
    /// Side of a field in pixels of the whole slide (the total pixel matrix).
    pub field_px: u32,
    /// What the digits in `cells` mean: at most 10 labels.
    pub classes: Vec<String>,
    /// Row by row, one character a field: a digit for a class, `.` for background, `?` for tissue without an answer.
    pub cells: String,
}

/// Which model said it (invariant 10).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModelRef {
    /// Bundle id.
    pub id: String,
    /// Bundle version.
    pub version: String,
    /// SHA-256 of `bundle.toml`, which names the hash of every other file.
    pub sha256: crate::Sha256,
}

/// Microseconds from the object's last byte to the end of each step; 0 where the step was not reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timing {
    /// Durable, the sender is being told so.
    pub received: u64,
    /// Taken up by the worker.
    pub queued: u64,
    /// Frame decoded.
    pub decoded: u64,
    /// Tensor made.
    pub preprocessed: u64,
    /// Model answered.
    pub inferred: u64,
    /// Handed to the ledger.
    pub recorded: u64,
}

/// The one answer for one object. As JSON this is the public form: keys are stable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Follows from object and model.
    pub finding_id: FindingId,
    /// Study of the object.
    pub study_uid: Uid,
    /// Series of the object.
    pub series_uid: Uid,
    /// The object.
    pub sop_instance_uid: Uid,
    /// Class of the object.
    pub sop_class_uid: Uid,
    /// Frame that was looked at, from 1; 1 for a single-frame object.
    pub frame: u32,
    /// What was asked, for instance `diabetic_retinopathy_screening`; empty where no model was eligible.
    pub task: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why there is no finding, in words; none for a finding.
    pub reason: Option<String>,
    /// The same for programs.
    pub reason_code: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
    /// What the model says, in words.
    pub label: Option<String>,
    /// The same, coded.
    pub code: Option<Code>,
    /// Calibrated, 0 to 1.
    pub probability: Option<f64>,
    /// All answers that exclude each other, most probable first; empty for a yes or no.
    #[serde(default)]
    pub classes: Vec<ClassScore>,
    /// Band of the probability.
    pub band: Option<Band>,
    /// How soon a person should look.
    pub priority: Priority,
    /// Who should look.
    pub reader_grade: ReaderGrade,
    /// Sizes and counts of the whole frame or slide.
    pub measurements: Vec<Measurement>,
    /// Places, largest first.
    pub regions: Vec<Region>,
    /// Of a slide: what lies where.
    #[serde(default)]
    pub tile_map: Option<TileMap>,
    /// What the picture was worth.
    pub quality: Quality,
    /// The model that answered, or that found the picture ungradable.
    pub model: Option<ModelRef>,
    /// Where it ran, for instance `CPU`.
    pub device: Option<String>,
    /// Preliminary until a person verifies it.
    pub status: FindingStatus,
    /// Where the time went.
    pub timing_us: Timing,
    /// When it was recorded.
    pub recorded_at_unix_us: UnixMicros,
}
