//! A model that serves: a bundle that was admitted, with the engine that runs it.
//! In: tensors that preprocess made for its [`fovea_core::InputSpec`]. Out: [`Scores`].
//! Promise: it was admitted on this machine; its answers are finite and calibrated.

use crate::admission::{Admission, Refusal, admit};
use crate::bundle::manifest::Manifest;
use crate::{Bundle, Device, Engine, EngineError};
use fovea_core::{ModelRef, Scores};

/// Why a tensor got no scores.
#[derive(Debug, thiserror::Error)]
pub enum ScoresError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model answered something that is no probability.
    #[error("the model's answer is not one finite number")]
    NoNumber,
}

/// An admitted model.
pub struct Model {
    manifest: Manifest,
    reference: ModelRef,
    admission: Admission,
    device: &'static str,
    engine: Box<dyn Engine>,
}

impl Model {
    /// Compiles a bundle on `device` and runs its golden vectors there.
    ///
    /// # Errors
    /// [`Refusal`] says why the bundle does not serve.
    pub fn admit(bundle: Bundle, device: &mut Device) -> Result<Self, Refusal> {
        let mut engine = device.compile(&bundle)?;
        let admission = admit(&bundle, engine.as_mut())?;
        let reference = bundle.model_ref();
        Ok(Self { manifest: bundle.manifest, reference, admission, device: device.name(), engine })
    }

    /// What the bundle says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How results name it.
    #[must_use]
    pub fn reference(&self) -> &ModelRef {
        &self.reference
    }

    /// What admission measured.
    #[must_use]
    pub fn admission(&self) -> Admission {
        self.admission
    }

    /// Where it runs, for instance `CPU`.
    #[must_use]
    pub fn device(&self) -> &'static str {
        self.device
    }

    /// Runs the model on a tensor made for its input.
    ///
    /// # Errors
    /// [`ScoresError`]; the model stays usable.
    pub fn scores(&mut self, tensor: &[f32]) -> Result<Scores, ScoresError> {
        let answer = self.engine.infer(tensor)?;
        let output = &self.manifest.output;
        let probability = probability(&answer, output.temperature).ok_or(ScoresError::NoNumber)?;
        Ok(Scores {
            label: output.label.clone(),
            code: output.code.clone(),
            probability,
            classes: Vec::new(),
            clear_below: output.clear_below,
            significant_from: output.significant_from,
        })
    }
}

/// One logit to its calibrated probability, 0 to 1; none when the answer is not one finite number.
pub(crate) fn probability(answer: &[f32], temperature: f64) -> Option<f64> {
    match answer {
        [logit] if logit.is_finite() => Some(1.0 / (1.0 + (-f64::from(*logit) / temperature).exp())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_becomes_a_calibrated_probability() {
        assert_eq!(probability(&[0.0], 1.0), Some(0.5));
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        assert!(close(probability(&[2.0], 2.0), 1.0 / (1.0 + (-1.0f64).exp())));
        assert_eq!(probability(&[3.0e38], 0.01), Some(1.0));
        assert_eq!(probability(&[-3.0e38], 0.01), Some(0.0));
    }

    #[test]
    fn what_is_not_one_finite_number_is_no_probability() {
        for answer in [&[][..], &[f32::NAN], &[f32::INFINITY], &[f32::NEG_INFINITY], &[1.0, 2.0]] {
            assert_eq!(probability(answer, 1.0), None, "{answer:?}");
        }
    }
}
