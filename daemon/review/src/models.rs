//! The set of models: what is installed, what serves, and how that is changed.
//!
//! In: bundles as tar files, ids, versions. Out: rows and reports of change. Promise: a set is changed whole or not at all, and a
//! refusal says why and what to do.

use fovea_core::Sha256;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::PathBuf;

/// Longest bundle that is taken over the socket: eight times what a bundle of ours has.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Keeps bundles and says which of them serve. Sides: the daemon's model folder, and a fake in tests.
/// Calls block: a bundle is proved in a worker of its own before it is kept, which takes seconds. After an error nothing is changed.
pub trait ModelStore: Send + Sync {
    /// Every bundle that is known.
    ///
    /// # Errors
    /// [`ModelsError`] when the folder cannot be read.
    fn list(&self) -> Result<Vec<ModelRow>, ModelsError>;

    /// An empty file without a name, on the store's disk, for a bundle that comes in.
    ///
    /// # Errors
    /// [`ModelsError`] when none can be made.
    fn incoming(&self) -> Result<File, ModelsError>;

    /// Proves the bundle in `tar`, keeps it, and lets it serve when `activate`.
    ///
    /// # Errors
    /// [`ModelsError`]; a bundle that was refused is not kept, one that was kept and then could not be activated is.
    fn install(&self, tar: File, activate: bool) -> Result<Changed, ModelsError>;

    /// Lets an installed version, or the built-in one, serve in the place of what serves under this id now.
    ///
    /// # Errors
    /// [`ModelsError`]; then what served goes on serving.
    fn activate(&self, id: &str, version: &str) -> Result<Changed, ModelsError>;

    /// Lets the version serve again that served before.
    ///
    /// # Errors
    /// [`ModelsError`]; then what served goes on serving.
    fn rollback(&self, id: &str) -> Result<Changed, ModelsError>;
}

/// Where a bundle came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Named in `[infer] bundles`.
    BuiltIn,
    /// Installed into the state folder.
    Installed,
}

/// What a bundle does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// It answers.
    Serving,
    /// It should or might, and may not.
    Refused,
    /// It is there, and another version serves or none.
    Idle,
}

/// One bundle.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelRow {
    /// Bundle id, none where its manifest cannot be trusted.
    pub id: Option<String>,
    /// Its version, none likewise.
    pub version: Option<String>,
    /// SHA-256 of `bundle.toml`, which names the hash of every other file.
    pub sha256: Option<Sha256>,
    /// Where it came from.
    pub origin: Origin,
    /// Where it lies.
    pub path: PathBuf,
    /// It is the one that should serve under its id.
    pub active: bool,
    /// What it does.
    pub state: RowState,
    /// What it answers; of serving ones.
    pub task: Option<String>,
    /// Where it runs; of serving ones.
    pub device: Option<String>,
    /// Median time of one run of all its networks as measured at admission, microseconds; of serving ones.
    pub latency_us_p50: Option<u64>,
    /// Why it is refused.
    pub refused: Option<String>,
    /// The same for programs.
    pub refused_code: Option<String>,
}

/// Every bundle that is known.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModelList {
    /// By id, then version.
    pub models: Vec<ModelRow>,
}

/// What became of a bundle's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// They were not there before.
    New,
    /// The very same were there.
    Already,
    /// They were there, but damaged: now they are whole.
    Repaired,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// Bundle id.
    pub id: String,
    /// Version that was installed or activated.
    pub version: String,
    /// What became of its files; none where only activation was asked.
    pub kept: Option<Kept>,
    /// It serves now.
    pub active: bool,
    /// Version that served until now, none where none did.
    pub before: Option<String>,
}

/// Why nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct ModelsError {
    /// Of which kind.
    pub kind: ModelsErrorKind,
    /// What is wrong, one sentence part.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

/// Kinds of [`ModelsError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModelsErrorKind {
    /// The bundle did not prove itself.
    Refused,
    /// No such id or version.
    NotFound,
    /// It does not go with what is there.
    Conflict,
    /// Disk or worker failed.
    Failed,
}

impl ModelsError {
    /// Joins the three parts.
    #[must_use]
    pub fn new(kind: ModelsErrorKind, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { kind, text: text.into(), cure: cure.into() }
    }
}
