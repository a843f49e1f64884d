//! What goes into the client and what comes out of it.

use super::control::Progress;
use super::process::SpawnError;
use crate::protocol::ServingModel;
use crate::sandbox::SandboxReport;
use fovea_core::{Analysis, Reason};
use fovea_infer::read::LabelMap;
use fovea_infer::{TrustError, TrustedKey};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a picture's file must be sealed against before it is used.
pub(crate) const PICTURE_SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SHRINK);

/// Most bytes of a map of labels: as much as a frame may have.
const LABEL_BYTES_MAX: u64 = 256 << 20;

/// How to run workers.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The `fovea-worker` program.
    pub program: PathBuf,
    /// Where OpenVINO lies; not looked at by `replay`.
    pub runtime_dir: PathBuf,
    /// Bundles in the order in which they are asked; of several versions of one only the highest is.
    pub bundles: Vec<PathBuf>,
    /// Whose bundles may run.
    pub trusted_keys: Vec<TrustedKey>,
    /// `CPU` or `replay:FILE`.
    pub device: String,
    /// Most memory that a worker may have written to, bytes; a frame may take an eighth of it.
    pub memory_max_bytes: u64,
    /// Longest analysis of one object; of one that is read field by field the longest time without a further field.
    pub object_deadline: Duration,
    /// Longest start, and longest load of one bundle.
    pub load_deadline: Duration,
}

impl WorkerConfig {
    /// As installed: the program beside the caller's own, the runtime in `FOVEA_OPENVINO_DIR` or the appliance's folder,
    /// the release's key, the CPU, no bundles, and bounds that a large photograph stays far below.
    ///
    /// # Errors
    /// [`TrustError`] when this build was made with a damaged key.
    pub fn installed() -> Result<Self, TrustError> {
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|program| program.parent().map(|folder| folder.join("fovea-worker")));
        let runtime_dir = std::env::var_os("FOVEA_OPENVINO_DIR").map(PathBuf::from);
        Ok(Self {
            program: beside.unwrap_or_else(|| PathBuf::from("fovea-worker")),
            runtime_dir: runtime_dir.unwrap_or_else(|| PathBuf::from("/usr/lib/fovea/openvino")),
            bundles: Vec::new(),
            trusted_keys: vec![TrustedKey::release()?],
            device: "CPU".to_owned(),
            memory_max_bytes: 2 << 30,
            object_deadline: Duration::from_secs(20),
            load_deadline: Duration::from_secs(60),
        })
    }
}

/// Why there is no worker, or no picture.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process does not come up.
    #[error("start {program}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why it failed.
        source: StartError,
    },
    /// It died over the request; it will be restarted for the next one.
    #[error("the worker {how}")]
    Died {
        /// Signal, exit status or deadline.
        how: String,
    },
    /// [`super::Control::stop`] was called.
    #[error("the daemon is stopping")]
    Stopped,
    /// The file is no picture that can be read.
    #[error("{}", .0.text)]
    NoPicture(Reason),
    /// It answered what it was not asked, or a picture that is not sealed or not as large as it says.
    #[error("the worker's answer does not hold")]
    Answer,
}

/// Why a worker process did not come up; its text says what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] pub(super) SpawnError);

/// A bundle of the configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelStatus {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it serves.
    pub state: ModelState,
}

/// Whether a bundle serves.
#[derive(Clone, PartialEq, Debug)]
pub enum ModelState {
    /// It was admitted here.
    Serving(Box<ServingModel>),
    /// It was not, or was put aside later.
    Refused(Reason),
}

/// How the worker is.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerStatus {
    /// Its process id, none between a death and the next object.
    pub pid: Option<u32>,
    /// How often a process had to be replaced.
    pub restarts: u64,
    /// Resident memory as of its last answer, bytes.
    pub resident_bytes: u64,
    /// What the device is, for people.
    pub device: String,
    /// Which doors are shut.
    pub sandbox: SandboxReport,
    /// Of an object that is read field by field.
    pub progress: Option<Progress>,
}

/// An analysis with what a site compares with its own labels.
#[derive(Clone, PartialEq, Debug)]
pub struct Evaluated {
    /// What production would say of the same object.
    pub analysis: Analysis,
    /// Probability that the picture is fit to be answered, of the first gate that was asked; none where none was.
    pub fit_probability: Option<f64>,
    /// Level of the ordinal output; none where there is none, or a gate turned the picture away.
    pub level: Option<u32>,
    /// The structure that the bundle outlines: 1 inside, 0 outside.
    pub mask: Option<LabelMap>,
    /// Nuclei: 0 background, else each its own number from 1.
    pub nuclei: Option<LabelMap>,
    /// Whether it was read field by field, as slides and large pictures are: then there are no maps, whatever was found.
    pub in_fields: bool,
}

/// A picture as plain pixels: red, green, blue, one byte each, rows without padding.
#[derive(Debug)]
pub struct Picture {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// `width_px` x `height_px` x 3 bytes, in memory, sealed: nobody can change it any more.
    pub rgb: File,
}

impl WorkerConfig {
    /// The worker's folder is another one: paths that start here must not start there.
    pub(super) fn with_whole_paths(mut self) -> Self {
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.program = whole(&self.program);
        self.runtime_dir = whole(&self.runtime_dir);
        if let Some(path) = self.device.strip_prefix("replay:").filter(|path| *path != fovea_infer::GOLDEN_ONLY) {
            self.device = format!("replay:{}", whole(Path::new(path)).display());
        }
        self
    }
}

impl Picture {
    pub(super) fn checked(width_px: u32, height_px: u32, file: OwnedFd) -> Result<Self, WorkerError> {
        Ok(Self { width_px, height_px, rgb: sealed(file, width_px, height_px, 3)? })
    }
}

/// A map of labels out of a sealed file: two bytes a pixel, little endian.
pub(super) fn label_map((width_px, height_px): (u32, u32), file: OwnedFd) -> Result<LabelMap, WorkerError> {
    let file = sealed(file, width_px, height_px, 2)?;
    let length = file.metadata().map_err(|_| WorkerError::Answer)?.len();
    if length > LABEL_BYTES_MAX {
        return Err(WorkerError::Answer);
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|_| WorkerError::Answer)?;
    let labels = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok(LabelMap { width_px, height_px, labels })
}

/// Believes the worker only as far as seals and length bear it out.
fn sealed(file: OwnedFd, width_px: u32, height_px: u32, pixel_bytes: u64) -> Result<File, WorkerError> {
    let file = File::from(file);
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    let bytes = file.metadata().map(|metadata| metadata.len());
    let expected = (u64::from(width_px) * u64::from(height_px)).checked_mul(pixel_bytes);
    match (seals, bytes) {
        (Ok(seals), Ok(bytes)) if seals.contains(PICTURE_SEALS) && Some(bytes) == expected && bytes > 0 => Ok(file),
        _ => Err(WorkerError::Answer),
    }
}
