//! What the worker says of one object, before triage makes it a finding.

use crate::{ClassScore, Code, Measurement, ModelRef, Quality, Reason, Region, TileMap};
use serde::{Deserialize, Serialize};

/// A model's main answer, with the thresholds that its bundle was calibrated to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// What the probability is of, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// Calibrated, 0 to 1.
    pub probability: f64,
    /// All answers that exclude each other, most probable first; empty for a yes or no.
    pub classes: Vec<ClassScore>,
    /// Below this the band is clear. Not above `significant_from`.
    pub clear_below: f64,
    /// From this on the band is significant.
    pub significant_from: f64,
}

/// How the worker's look at an object ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A model answered.
    Scored(Scores),
    /// Not good enough to answer.
    Ungradable(Reason),
    /// No model ran or none could finish.
    NotAnalysed(Reason),
}

/// How long each step in the worker took, microseconds; 0 where it was not reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StageTimes {
    /// Object to frame.
    pub decode_us: u64,
    /// Frame to tensor, region and quality.
    pub preprocess_us: u64,
    /// Tensor to scores.
    pub infer_us: u64,
}

/// The worker's answer for one object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// How it ended.
    pub verdict: Verdict,
    /// Frame that was looked at, from 1.
    pub frame: u32,
    /// What was asked; empty where no model was eligible.
    pub task: String,
    /// What the picture was worth; empty where it was not decoded.
    pub quality: Quality,
    /// Sizes.
    pub measurements: Vec<Measurement>,
    /// Places.
    pub regions: Vec<Region>,
    /// Of a slide: what lies where.
    pub tile_map: Option<TileMap>,
    /// The model that was chosen.
    pub model: Option<ModelRef>,
    /// Where it ran.
    pub device: Option<String>,
    /// Where the time went.
    pub times: StageTimes,
}

impl Analysis {
    /// An answer without a model: nothing was decoded or scored.
    #[must_use]
    pub fn not_analysed(reason: Reason) -> Self {
        Self {
            verdict: Verdict::NotAnalysed(reason),
            frame: 1,
            task: String::new(),
            quality: Quality::new(),
            measurements: Vec::new(),
            regions: Vec::new(),
            tile_map: None,
            model: None,
            device: None,
            times: StageTimes::default(),
        }
    }
}
