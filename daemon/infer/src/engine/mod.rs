//! What runs a graph. Sides: OpenVINO on the CPU, and replay (recorded answers, for tests and for boxes without it).
//! In: a checked bundle, then tensors. Out: the model's raw numbers.
//! Promise: an engine answers every tensor of the right length with the numbers of every output, or with an error.

mod openvino;
mod replay;

pub use replay::GOLDEN_ONLY;

use crate::Bundle;
use fovea_core::{InputSpec, Sha256};
use std::path::{Path, PathBuf};

/// Runs one network. May block for tens of milliseconds. After an error it is usable again.
pub trait Engine: Send {
    /// Runs the network once.
    ///
    /// - `input`: float32, planar (N = 1, C, H, W), as long as the network's input.
    /// - Returns the raw elements of each output, in the order of the manifest.
    ///
    /// # Errors
    /// [`EngineError`] when the length is wrong or the runtime fails.
    fn infer(&mut self, input: &[f32]) -> Result<Vec<Vec<f32>>, EngineError>;
}

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device in this build.
    #[error("there is no device `{name}`: use `CPU` or `replay:FILE`")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The runtime's folder is not there or not whole.
    #[error("the OpenVINO runtime in {folder} is not usable: {problem}; run scripts/fetch-openvino.sh")]
    Runtime {
        /// Where it was looked for.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The runtime is whole, but did not start.
    #[error("start OpenVINO: {message}")]
    Start {
        /// What the runtime says.
        message: String,
    },
    /// The file of recorded answers cannot be used.
    #[error("recorded answers in {path}: {problem}")]
    Recording {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Why an engine did not come about or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bundle has no such network.
    #[error("there is no network {network}")]
    NoNetwork {
        /// Its place, from 0.
        network: usize,
    },
    /// The runtime does not take the graph.
    #[error("the runtime refuses the graph: {message}")]
    Compile {
        /// What the runtime says, shortened.
        message: String,
    },
    /// A tensor of the wrong length.
    #[error("a tensor of {found} elements where {expected} are needed")]
    InputLength {
        /// Elements needed.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// An output is not float32.
    #[error("output {tensor} is {found}, float32 is needed")]
    OutputType {
        /// Its name.
        tensor: String,
        /// What it is.
        found: String,
    },
    /// The runtime failed on this input.
    #[error("run the graph: {message}")]
    Run {
        /// What the runtime says, shortened.
        message: String,
    },
    /// Replay has no answer for this tensor.
    #[error("no answer is recorded for the tensor {tensor}")]
    NotRecorded {
        /// SHA-256 of the tensor's bytes, little endian: the key that a recording would need.
        tensor: Sha256,
    },
}

/// A place where models run. Open one a process; it compiles any number of bundles.
pub enum Device {
    /// OpenVINO's CPU plugin.
    Cpu(openvino::Runtime),
    /// Recorded answers.
    Replay(replay::Recording),
}

impl Device {
    /// Opens `CPU` from the runtime in `runtime_dir`, or `replay:FILE` (`replay:golden` answers golden vectors only).
    ///
    /// Loads and starts the runtime's libraries, which is all that needs the file system: afterwards the process
    /// can be shut in.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open(name: &str, runtime_dir: &Path) -> Result<Self, DeviceError> {
        match name.split_once(':') {
            None if name == "CPU" => Ok(Self::Cpu(openvino::Runtime::open(runtime_dir)?)),
            Some(("replay", path)) => Ok(Self::Replay(replay::Recording::open(Path::new(path))?)),
            _ => Err(DeviceError::Unknown { name: name.chars().take(40).collect() }),
        }
    }

    /// How results name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "CPU",
            Self::Replay(_) => "replay",
        }
    }

    /// What it is, for people: the processor's name, or that answers are recorded.
    #[must_use]
    pub fn description(&self) -> &str {
        match self {
            Self::Cpu(runtime) => runtime.description(),
            Self::Replay(_) => "recorded answers, no model runs",
        }
    }

    /// Makes an engine of one network of a bundle, by its place in the manifest.
    ///
    /// # Errors
    /// [`EngineError::NoNetwork`], or [`EngineError::Compile`] when the runtime does not take the graph.
    pub fn compile(&mut self, bundle: &Bundle, network: usize) -> Result<Box<dyn Engine>, EngineError> {
        let one = bundle.manifest.networks.get(network).zip(bundle.graphs.get(network));
        let (network, graph) = one.ok_or(EngineError::NoNetwork { network })?;
        match self {
            Self::Cpu(runtime) => Ok(Box::new(runtime.compile(network, graph)?)),
            Self::Replay(recording) => Ok(Box::new(recording.replay(network, graph))),
        }
    }
}

/// One golden picture as a tensor: (value / 255 - mean) / std, pixels interleaved to planar, as preprocess does it.
///
/// `picture`: u8, rows x columns x channels, as long as the network's input.
pub(crate) fn golden_tensor(spec: &InputSpec, picture: &[u8]) -> Vec<f32> {
    let channels = spec.channels.count();
    let plane = spec.width_px as usize * spec.height_px as usize;
    let mut tensor = vec![0.0; plane * channels];
    for (channel, out) in tensor.chunks_exact_mut(plane).enumerate() {
        let (mean, std) = (spec.mean[channel], spec.std[channel]);
        for (out, pixel) in out.iter_mut().zip(picture.chunks_exact(channels)) {
            *out = (f32::from(pixel[channel]) / 255.0 - mean) / std;
        }
    }
    tensor
}

/// Runtime messages hold source paths and line breaks: the last line that says something, bounded.
fn shortened(message: &str) -> String {
    let line = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    line.chars().take(300).collect()
}
