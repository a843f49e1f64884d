//! Recorded answers: the whole way of an image can be tested without a runtime, and with answers of one's choosing.
//!
//! In: a JSON file `{"answers": {"SHA-256 of the tensor": [numbers]}, "otherwise": [numbers]}`, both keys optional.
//! Out: those numbers. Promise: golden vectors always get the answers that their bundle states; a tensor without
//! an answer is an error that names the key it would need.

use super::{DeviceError, EngineError, golden_tensor};
use crate::Bundle;
use fovea_core::Sha256;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Largest file of recorded answers, bytes.
const RECORDING_BYTES_MAX: u64 = 16 << 20;
/// In the place of a file after `replay:`: golden vectors only.
pub const GOLDEN_ONLY: &str = "golden";

/// A file of recorded answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// By SHA-256 of the tensor's float32 bytes, little endian.
    answers: BTreeMap<Sha256, Vec<f32>>,
    /// For every tensor that has none.
    otherwise: Option<Vec<f32>>,
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

    pub(super) fn replay(&self, bundle: &Bundle) -> ReplayEngine {
        let manifest = &bundle.manifest;
        let mut answers = self.answers.clone();
        for (picture, expected) in
            bundle.golden_inputs.chunks_exact(manifest.input_len()).zip(&manifest.golden.expected)
        {
            // The logit whose calibrated sigmoid is the expected probability; kept off 0 and 1, where it is infinite.
            let probability = expected.clamp(1e-6, 1.0 - 1e-6);
            let logit = (probability / (1.0 - probability)).ln() * manifest.output.temperature;
            answers.insert(key(&golden_tensor(manifest, picture)), vec![logit as f32]);
        }
        ReplayEngine { answers, otherwise: self.otherwise.clone(), input_len: manifest.input_len() }
    }
}

/// Answers from memory.
#[derive(Debug)]
pub struct ReplayEngine {
    answers: BTreeMap<Sha256, Vec<f32>>,
    otherwise: Option<Vec<f32>>,
    input_len: usize,
}

impl super::Engine for ReplayEngine {
    fn infer(&mut self, input: &[f32]) -> Result<Vec<f32>, EngineError> {
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
