//! From a network's raw numbers to probabilities, and back for recorded answers.
//! In: the elements of an output tensor. Out: [`Answer`]: every number 0 to 1.
//! Promise: the numbers are as many as the shape says and finite, or the run is an error.

use crate::EngineError;
use crate::bundle::output::{Binary, Classes, Gate, Kind, Ordinal, Output};

/// Shape of an output: `planes` numbers where height and width are 1, else `planes` maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Numbers of a list, maps of a map.
    pub planes: usize,
    /// Rows of a map, at least 1.
    pub height: usize,
    /// Columns of a map, at least 1.
    pub width: usize,
}

impl Shape {
    /// Elements, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no shape is empty")]
    pub fn len(self) -> usize {
        self.planes * self.height * self.width
    }

    /// Elements of one plane.
    #[must_use]
    pub fn plane_len(self) -> usize {
        self.height * self.width
    }
}

/// One activated output.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Its shape.
    pub shape: Shape,
    /// Plane by plane, row by row, 0 to 1.
    pub values: Vec<f32>,
}

impl Answer {
    /// One map; none where there is no such plane.
    #[must_use]
    pub fn plane(&self, plane: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.shape.plane_len().max(1)).nth(plane)
    }
}

/// What one network answered: one [`Answer`] for each output of the manifest, in its order.
pub type Answers = Vec<Answer>;

/// Why a tensor got no answers. The model stays usable.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bundle has no such network.
    #[error("there is no network {network}")]
    NoNetwork {
        /// Its place, from 0.
        network: usize,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The runtime gives other outputs than the graph promised.
    #[error("output {tensor} has {found} numbers where {expected} are needed")]
    Length {
        /// Which output.
        tensor: String,
        /// Numbers needed.
        expected: usize,
        /// Numbers given.
        found: usize,
    },
    /// Not a number, or infinite.
    #[error("output {tensor} holds what is no finite number")]
    NotFinite {
        /// Which output.
        tensor: String,
    },
}

/// Checks and activates all outputs of a network.
pub(crate) fn activate(outputs: &[Output], shapes: &[Shape], raw: Vec<Vec<f32>>) -> Result<Answers, RunError> {
    let mut raw = raw.into_iter();
    let one = |(output, shape): (&Output, &Shape)| {
        let mut values = raw.next().unwrap_or_default();
        let tensor = || output.tensor.clone();
        if values.len() != shape.len() {
            return Err(RunError::Length { tensor: tensor(), expected: shape.len(), found: values.len() });
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(RunError::NotFinite { tensor: tensor() });
        }
        activate_one(&output.kind, &mut values);
        Ok(Answer { shape: *shape, values })
    };
    outputs.iter().zip(shapes).map(one).collect()
}

fn activate_one(kind: &Kind, values: &mut [f32]) {
    match kind {
        Kind::Binary(binary) => sigmoid_all(values, binary.temperature),
        Kind::Ordinal(ordinal) => {
            sigmoid_all(values, ordinal.temperature);
            let mut least = 1.0f32;
            for value in values {
                least = least.min(*value);
                *value = least;
            }
        }
        Kind::Classes(classes) => softmax(values, classes.temperature),
        Kind::Gate(gate) => softmax(values, gate.temperature),
        Kind::Mask(_) | Kind::Heat(_) | Kind::Nuclei(_) => {
            for value in values {
                *value = 1.0 / (1.0 + (-*value).exp());
            }
        }
    }
}

fn sigmoid_all(values: &mut [f32], temperature: f64) {
    for value in values {
        *value = (1.0 / (1.0 + (-f64::from(*value) / temperature).exp())) as f32;
    }
}

/// The greatest is subtracted first: no exponent overflows, whatever finite numbers come.
fn softmax(values: &mut [f32], temperature: f64) {
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> =
        values.iter().map(|value| ((f64::from(*value) - f64::from(greatest)) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    for (value, power) in values.iter_mut().zip(powers) {
        *value = (power / sum) as f32;
    }
}

/// Raw numbers whose activation gives `values`; kept off 0 and 1, where they would be infinite.
pub(crate) fn deactivate(kind: &Kind, values: impl Iterator<Item = f64>) -> Vec<f32> {
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let kept_off = values.map(|p| p.clamp(1e-6, 1.0 - 1e-6));
    match kind {
        Kind::Binary(Binary { temperature, .. }) | Kind::Ordinal(Ordinal { temperature, .. }) => {
            kept_off.map(|p| (logit(p) * temperature) as f32).collect()
        }
        Kind::Classes(Classes { temperature, .. }) | Kind::Gate(Gate { temperature, .. }) => {
            kept_off.map(|p| (p.ln() * temperature) as f32).collect()
        }
        Kind::Mask(_) | Kind::Heat(_) | Kind::Nuclei(_) => kept_off.map(|p| logit(p) as f32).collect(),
    }
}
