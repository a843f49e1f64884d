//! Whether a bundle may serve on this machine and device (invariant 3).
//! In: a checked bundle and a compiled engine. Out: [`Admission`], what was measured, or [`Refusal`], why not.
//! Promise: every golden vector was run here, on this engine, before the first patient's picture.

use crate::engine::golden_tensor;
use crate::model::probability;
use crate::{Bundle, BundleError, Engine, EngineError};
use fovea_core::{Reason, chain};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Runs that are timed, after the golden vectors have warmed the caches.
const TIMED_RUNS: usize = 11;

/// What admission measured.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Admission {
    /// Median time of one inference, microseconds.
    pub latency_us_p50: u64,
    /// Largest distance of a golden probability from the recorded one.
    pub golden_max_error: f64,
    /// Golden vectors that were run.
    pub golden_count: usize,
}

/// Why a bundle does not serve here.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The bundle is not signed, not whole or not bounded.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device does not take it or fails on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model does not answer here as it did when it was made.
    #[error("golden vector {index}: probability {found:.4}, {expected:.4} was recorded, tolerance {tolerance_abs}")]
    Golden {
        /// Which vector, from 0.
        index: usize,
        /// Here.
        found: f64,
        /// When the bundle was made.
        expected: f64,
        /// What the bundle grants.
        tolerance_abs: f64,
    },
    /// The model's answer is no number, or not one number.
    #[error("golden vector {index}: the answer is not one finite number")]
    NoNumber {
        /// Which vector, from 0.
        index: usize,
    },
}

impl Refusal {
    /// The refusal for programs and people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, advice) = match self {
            Self::Bundle(BundleError::Untrusted { .. }) => {
                ("bundle_untrusted", "Install a bundle that is signed with a trusted key, or trust its key.")
            }
            Self::Bundle(_) => ("bundle_damaged", "Install the bundle again."),
            Self::Engine(_) => ("bundle_not_runnable", "Use a bundle that was made for this device."),
            Self::Golden { .. } | Self::NoNumber { .. } => {
                ("golden_mismatch", "Do not use this bundle on this device; report it to whoever made it.")
            }
        };
        Reason::new(code, chain(self), advice)
    }
}

/// Runs the golden vectors, then times the engine.
///
/// # Errors
/// [`Refusal::Golden`], [`Refusal::NoNumber`] or [`Refusal::Engine`] for the first vector that does not pass.
pub(crate) fn admit(bundle: &Bundle, engine: &mut dyn Engine) -> Result<Admission, Refusal> {
    let manifest = &bundle.manifest;
    let golden = &manifest.golden;
    let mut golden_max_error: f64 = 0.0;
    let mut tensor = Vec::new();
    for (index, picture) in bundle.golden_inputs.chunks_exact(manifest.input_len()).enumerate() {
        tensor = golden_tensor(manifest, picture);
        let found = probability(&engine.infer(&tensor)?, manifest.output.temperature);
        let found = found.ok_or(Refusal::NoNumber { index })?;
        let (expected, tolerance_abs) = (golden.expected[index], golden.tolerance_abs);
        let error = (found - expected).abs();
        if error > tolerance_abs {
            return Err(Refusal::Golden { index, found, expected, tolerance_abs });
        }
        golden_max_error = golden_max_error.max(error);
    }
    let mut times = [0; TIMED_RUNS];
    for time in &mut times {
        let start = Instant::now();
        engine.infer(&tensor)?;
        *time = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    }
    times.sort_unstable();
    Ok(Admission { latency_us_p50: times[TIMED_RUNS / 2], golden_max_error, golden_count: golden.count })
}
