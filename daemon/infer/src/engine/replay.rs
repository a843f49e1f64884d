//! Recorded answers: the whole way of an image can be tested without a runtime, and with answers of one's choosing.
//!
//! In: a JSON file `{"answers": {"SHA-256 of the tensor": RAW}, "otherwise": RAW}`, both keys optional. `RAW` is a list
//! of lists of raw numbers, one list for each output of the network; a plain list of numbers where there is one output;
//! and `otherwise` may also be `{"network": RAW}`. A list of one number stands for a whole map.
//! Out: those numbers. Promise: golden vectors always get the answers that their bundle states; a tensor without
//! an answer is an error that names the key it would need.

use super::{DeviceError, EngineError, golden_tensor};
use crate::admission::GOLDEN_SCALE;
use crate::answer::deactivate;
use crate::bundle::Graph;
use crate::bundle::manifest::Network;
use fovea_core::Sha256;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Largest file of recorded answers, bytes.
const RECORDING_BYTES_MAX: u64 = 16 << 20;
/// In the place of a file after `replay:`: golden vectors only.
pub const GOLDEN_ONLY: &str = "golden";

/// Raw numbers of all outputs of a network.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Raw {
    /// Of a network with one output.
    One(Vec<f32>),
    /// Output by output.
    All(Vec<Vec<f32>>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Otherwise {
    /// For every network.
    Any(Raw),
    /// By the network's name.
    ByNetwork(BTreeMap<String, Raw>),
}

/// A file of recorded answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// By SHA-256 of the tensor's float32 bytes, little endian.
    answers: BTreeMap<Sha256, Raw>,
    /// For every tensor that has none.
    otherwise: Option<Otherwise>,
}

impl Raw {
    fn outputs(&self) -> Vec<Vec<f32>> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::All(all) => all.clone(),
        }
    }
}

impl Recording {
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        if path.as_os_str() == GOLDEN_ONLY {
            return Ok(Self::default());
        }
        let failed = |problem: String| DeviceError::Recording { path: path.to_owned(), problem };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(RECORDING_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    pub(super) fn replay(&self, network: &Network, graph: &Graph) -> ReplayEngine {
        // A whole map of one number is filled in here, so that its length is right wherever it is used.
        let filled = |raw: &Raw| {
            let mut outputs = raw.outputs();
            for ((values, output), shape) in outputs.iter_mut().zip(&network.outputs).zip(&graph.shapes) {
                if let ([value], true) = (&values[..], output.kind.is_map()) {
                    *values = vec![*value; shape.len()];
                }
            }
            outputs
        };
        let mut answers: BTreeMap<Sha256, Vec<Vec<f32>>> =
            self.answers.iter().map(|(tensor, raw)| (*tensor, filled(raw))).collect();
        let vectors = graph.golden_inputs.chunks_exact(network.input_len());
        for (picture, expected) in vectors.zip(graph.golden_expected.chunks_exact(graph.answer_len())) {
            let mut rest = expected.iter().map(|value| f64::from(*value) / GOLDEN_SCALE);
            let outputs = network.outputs.iter().zip(&graph.shapes);
            let raw =
                outputs.map(|(output, shape)| deactivate(&output.kind, rest.by_ref().take(shape.len()))).collect();
            answers.insert(key(&golden_tensor(&network.input, picture)), raw);
        }
        let otherwise = match &self.otherwise {
            Some(Otherwise::Any(raw)) => Some(filled(raw)),
            Some(Otherwise::ByNetwork(by_name)) => by_name.get(&network.name).map(filled),
            None => None,
        };
        ReplayEngine { answers, otherwise, input_len: network.input_len() }
    }
}

/// Answers from memory.
#[derive(Debug)]
pub struct ReplayEngine {
    answers: BTreeMap<Sha256, Vec<Vec<f32>>>,
    otherwise: Option<Vec<Vec<f32>>>,
    input_len: usize,
}

impl super::Engine for ReplayEngine {
    fn infer(&mut self, input: &[f32]) -> Result<Vec<Vec<f32>>, EngineError> {
        if input.len() != self.input_len {
            return Err(EngineError::InputLength { expected: self.input_len, found: input.len() });
        }
        let tensor = key(input);
        let answer = self.answers.get(&tensor).or(self.otherwise.as_ref());
        answer.cloned().ok_or(EngineError::NotRecorded { tensor })
    }
}

fn key(tensor: &[f32]) -> Sha256 {
    let bytes: Vec<u8> = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sha256::of(&bytes)
}
