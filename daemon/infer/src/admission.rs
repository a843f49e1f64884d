//! Whether a bundle may serve on this machine and device (invariant 3).
//! In: a checked bundle and its compiled networks. Out: [`Admission`], what was measured, or [`Refusal`], why not.
//! Promise: every golden vector was run here, on these engines, before the first patient's picture.

use crate::answer::{Answer, RunError};
use crate::bundle::Graph;
use crate::engine::golden_tensor;
use crate::model::Networks;
use crate::{BundleError, EngineError};
use fovea_core::{Reason, chain};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Runs that are timed, after the golden vectors have warmed the caches.
const TIMED_RUNS: usize = 11;
/// What 1 is in a file of golden answers.
pub(crate) const GOLDEN_SCALE: f64 = 65535.0;

/// What admission measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Admission {
    /// Median time of one frame, microseconds: every network once, one after the other.
    pub latency_us_p50: u64,
    /// Largest distance of a golden number from the recorded one, over all networks; 0 where they answer maps alone.
    pub golden_max_error: f64,
    /// Golden vectors that were run.
    pub golden_count: usize,
    /// The same for each network, in the order of the manifest.
    pub networks: Vec<NetworkAdmission>,
}

/// What admission measured of one network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NetworkAdmission {
    /// Its name.
    pub name: String,
    /// Median time of one run, microseconds.
    pub latency_us_p50: u64,
    /// Largest distance of a golden number from the recorded one.
    pub golden_max_error: f64,
    /// Largest mean distance of a golden map from the recorded one.
    pub golden_map_error: f64,
    /// Golden vectors that were run.
    pub golden_count: usize,
}

/// Why a bundle does not serve here.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The bundle is not signed, not whole or not bounded.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device does not take it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network did not answer a golden vector.
    #[error("network {network}, golden vector {index}: {source}")]
    Run {
        /// Which network.
        network: String,
        /// Which vector, from 0.
        index: usize,
        /// Why it did not.
        source: RunError,
    },
    /// The model does not answer here as it did when it was made.
    #[error(
        "network {network}, golden vector {index}: {tensor} is {found:.4}, {expected:.4} was recorded, tolerance {tolerance}"
    )]
    Golden {
        /// Which network.
        network: String,
        /// Which vector, from 0.
        index: usize,
        /// Which output.
        tensor: String,
        /// Here.
        found: f64,
        /// When the bundle was made.
        expected: f64,
        /// What the bundle grants.
        tolerance: f64,
    },
    /// The same for a map.
    #[error(
        "network {network}, golden vector {index}: {tensor} differs by {found:.4} in the mean, tolerance {tolerance}"
    )]
    GoldenMap {
        /// Which network.
        network: String,
        /// Which vector, from 0.
        index: usize,
        /// Which output.
        tensor: String,
        /// Mean distance of the map's elements from the recorded ones.
        found: f64,
        /// What the bundle grants.
        tolerance: f64,
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
            Self::Engine(_) | Self::Run { source: RunError::Engine(_), .. } => {
                ("bundle_not_runnable", "Use a bundle that was made for this device.")
            }
            Self::Golden { .. } | Self::GoldenMap { .. } | Self::Run { .. } => {
                ("golden_mismatch", "Do not use this bundle on this device; report it to whoever made it.")
            }
        };
        Reason::new(code, chain(self), advice)
    }
}

/// Runs the golden vectors of every network, then times them.
///
/// # Errors
/// [`Refusal`] for the first vector that does not pass.
pub(crate) fn admit(networks: &mut Networks, graphs: &[Graph]) -> Result<Admission, Refusal> {
    let mut measured = Vec::new();
    let mut tensors = Vec::new();
    for (network, graph) in graphs.iter().enumerate() {
        let (one, tensor) = golden(networks, network, graph)?;
        measured.push(one);
        tensors.push(tensor);
    }
    let latency_us_p50 = time(networks, &tensors, &mut measured)?;
    Ok(Admission {
        latency_us_p50,
        golden_max_error: measured.iter().map(|one| one.golden_max_error).fold(0.0, f64::max),
        golden_count: measured.iter().map(|one| one.golden_count).sum(),
        networks: measured,
    })
}

/// Runs one network's golden vectors; also gives back the last one's tensor.
fn golden(networks: &mut Networks, place: usize, graph: &Graph) -> Result<(NetworkAdmission, Vec<f32>), Refusal> {
    let network = networks.manifest.networks[place].clone();
    let mut measured = NetworkAdmission {
        name: network.name.clone(),
        latency_us_p50: 0,
        golden_max_error: 0.0,
        golden_map_error: 0.0,
        golden_count: network.golden.count,
    };
    let mut tensor = Vec::new();
    let vectors = graph.golden_inputs.chunks_exact(network.input_len());
    for (index, (picture, expected)) in vectors.zip(graph.golden_expected.chunks_exact(graph.answer_len())).enumerate()
    {
        tensor = golden_tensor(&network.input, picture);
        let run = |source| Refusal::Run { network: network.name.clone(), index, source };
        let answers = networks.run(place, &tensor).map_err(run)?;
        let mut rest = expected;
        for (output, answer) in network.outputs.iter().zip(&answers) {
            let (expected, after) = rest.split_at(answer.values.len());
            rest = after;
            let (name, tensor) = (network.name.clone(), output.tensor.clone());
            if output.kind.is_map() {
                let found = mean_distance(answer, expected);
                let tolerance = network.golden.tolerance_map_mean.unwrap_or(0.0);
                if found > tolerance {
                    return Err(Refusal::GoldenMap { network: name, index, tensor, found, tolerance });
                }
                measured.golden_map_error = measured.golden_map_error.max(found);
            } else {
                let (found, expected) = worst_number(answer, expected);
                let tolerance = network.golden.tolerance_abs.unwrap_or(0.0);
                if (found - expected).abs() > tolerance {
                    return Err(Refusal::Golden { network: name, index, tensor, found, expected, tolerance });
                }
                measured.golden_max_error = measured.golden_max_error.max((found - expected).abs());
            }
        }
    }
    Ok((measured, tensor))
}

/// The mean distance of a map's elements from the recorded ones.
fn mean_distance(answer: &Answer, expected: &[u16]) -> f64 {
    let pairs = answer.values.iter().zip(expected);
    let distance = |(f, e): (&f32, &u16)| (f64::from(*f) - f64::from(*e) / GOLDEN_SCALE).abs();
    pairs.map(distance).sum::<f64>() / expected.len().max(1) as f64
}

/// The number that is farthest from the recorded one, and that one.
fn worst_number(answer: &Answer, expected: &[u16]) -> (f64, f64) {
    let pairs = answer.values.iter().zip(expected).map(|(f, e)| (f64::from(*f), f64::from(*e) / GOLDEN_SCALE));
    pairs.max_by(|a, b| (a.0 - a.1).abs().total_cmp(&(b.0 - b.1).abs())).unwrap_or_default()
}

/// Medians of every network, written into `measured`, and of a frame, returned; microseconds.
fn time(networks: &mut Networks, tensors: &[Vec<f32>], measured: &mut [NetworkAdmission]) -> Result<u64, Refusal> {
    let mut times = vec![Vec::with_capacity(TIMED_RUNS); tensors.len()];
    let mut frames = Vec::with_capacity(TIMED_RUNS);
    for _run in 0..TIMED_RUNS {
        let mut frame_us = 0;
        for (network, tensor) in tensors.iter().enumerate() {
            let start = Instant::now();
            let failed = |source| Refusal::Run { network: measured[network].name.clone(), index: 0, source };
            networks.run(network, tensor).map_err(failed)?;
            let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            times[network].push(elapsed_us);
            frame_us += elapsed_us;
        }
        frames.push(frame_us);
    }
    let median = |times: &mut [u64]| {
        times.sort_unstable();
        times[TIMED_RUNS / 2]
    };
    for (measured, times) in measured.iter_mut().zip(&mut times) {
        measured.latency_us_p50 = median(times);
    }
    Ok(median(&mut frames))
}
