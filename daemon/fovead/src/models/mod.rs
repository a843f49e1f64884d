//! The model store: bundles that were installed on this box, and which of them serve.
//!
//! In: bundles over the control socket. Out: a [`Choice`] for the worker, rows for people.
//! Promise: a bundle is kept only after it proved itself on this machine, in the sandbox, by the code that proves it before it serves;
//! a change takes effect between two objects, and only when the new set is up: else the old one goes on serving.

mod active;
mod choose;
mod folder;

pub use active::ActiveError;
pub use choose::{Choice, Fallen, Ranks};

use crate::worker_thread::{AdoptError, Snapshot, WorkerThread};
use active::{Active, Entry};
use choose::BuiltIn;
use folder::{Folder, FolderError, Installed, manifest_sha256};
use fovea_core::chain;
use fovea_infer::{Bundle, BundleFiles, Manifest, TrustedKey};
use fovea_review::{Changed, Kept, ModelRow, ModelStore, ModelsError, ModelsErrorKind, Origin, RowState};
use fovea_worker::{ModelState, ServingModel, Worker, WorkerConfig};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Why the model store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// The store before the worker runs: it says what the worker is to serve.
pub struct Shelf {
    folder: Folder,
    built_in: Vec<BuiltIn>,
    config: WorkerConfig,
    active: Active,
    /// Why `active.json` was not used.
    error: Option<String>,
}

/// The store beside a running worker.
pub struct Models {
    shelf: Mutex<Shelf>,
    worker: WorkerThread,
}

impl Shelf {
    /// Opens `<state>/models`. A damaged `active.json` does not keep the box from starting: the built-in bundles serve, and it is told.
    pub fn open(root: &Path, config: &WorkerConfig) -> Result<Self, OpenError> {
        let folder = Folder::open(root.to_owned())?;
        let (active, error) = match Active::read(folder.root()) {
            Ok(active) => (active, None),
            Err(error) => {
                log::error!("only built-in models serve: {}", chain(&error));
                (Active::default(), Some(chain(&error)))
            }
        };
        let built_in = config.bundles.iter().map(|path| named(path, &config.trusted_keys)).collect();
        Ok(Self { folder, built_in, config: config.clone(), active, error })
    }

    /// What is to serve.
    pub fn choice(&self) -> Choice {
        self.choice_of(&self.active)
    }

    fn choice_of(&self, active: &Active) -> Choice {
        Choice::new(&self.built_in, active, |id, version| self.folder.path(id, version))
    }

    /// Proves a bundle in a worker of its own; the answer is that of admission.
    fn prove(&self, bundle: &Path) -> Result<ServingModel, ModelsError> {
        let config = WorkerConfig { bundles: vec![bundle.to_owned()], ..self.config.clone() };
        let worker = Worker::start(config).map_err(|error| {
            let cure = "see `foveactl doctor`: without a worker no bundle can be proved";
            ModelsError::new(ModelsErrorKind::Failed, chain(&error), cure)
        })?;
        match worker.models().first().map(|status| &status.state) {
            Some(ModelState::Serving(serving)) => Ok((**serving).clone()),
            Some(ModelState::Refused(reason)) => {
                let text = format!("the bundle is refused: {}", reason.text);
                // It was not installed, so the cure is not to install it again.
                let cure = match reason.code.as_str() {
                    "bundle_damaged" => "get the bundle again from its maker: this copy is damaged",
                    _ => &reason.advice,
                };
                Err(ModelsError::new(ModelsErrorKind::Refused, text, cure))
            }
            None => {
                Err(ModelsError::new(ModelsErrorKind::Failed, "the worker did not answer for the bundle", "try again"))
            }
        }
    }

    fn keep(&self, mut tar: File) -> Result<(ServingModel, Kept), ModelsError> {
        let staged = self.folder.stage(&mut tar).map_err(disk_error)?;
        let serving = self.prove(&staged.path)?;
        let is_whole = |path: &Path| Bundle::open(path, &self.config.trusted_keys).is_ok();
        let kept = self.folder.keep(staged, &serving.model.id, &serving.model.version, is_whole).map_err(disk_error)?;
        Ok((serving, kept))
    }

    /// The built-in bundle of an id, with its version.
    fn built_in(&self, id: &str) -> Option<&BuiltIn> {
        self.built_in.iter().find(|bundle| bundle.id.as_deref() == Some(id))
    }

    fn holds(&self, id: &str, version: &str) -> bool {
        self.folder.installed().iter().any(|installed| installed.id == id && installed.version == version)
    }

    /// Lets `wanted` (none: the built-in bundle) serve as `id`, once the worker has it; writes it down before it serves.
    fn switch(&mut self, worker: &WorkerThread, id: &str, wanted: Option<String>) -> Result<Changed, ModelsError> {
        let before = Serving::of(id, &worker.snapshot(), &self.folder);
        let entry = self.active.models.get(id).cloned().unwrap_or_default();
        let is_same = entry.active == wanted && self.active.models.contains_key(id);
        // What a rollback goes back to is what serves, not what should.
        let previous = match &before {
            _ if is_same => entry.previous,
            Some(serving) => serving.installed.clone(),
            None => entry.active,
        };
        let mut active = self.active.clone();
        active.models.insert(id.to_owned(), Entry { active: wanted.clone(), previous });
        let (written, root) = (active.clone(), self.folder.root().to_owned());
        let commit = Box::new(move || written.write(&root));
        worker.adopt(self.choice_of(&active), id, commit).map_err(|error| not_adopted(&error, before.as_ref()))?;
        self.active = active;
        self.error = None;
        let now = Serving::of(id, &worker.snapshot(), &self.folder);
        let version = now.map(|serving| serving.version).or(wanted).unwrap_or_default();
        log::info!("model {id} {version} serves now");
        Ok(Changed {
            id: id.to_owned(),
            version,
            kept: None,
            active: true,
            before: before.map(|serving| serving.version),
        })
    }

    fn rows(&self, snapshot: &Snapshot) -> Vec<ModelRow> {
        let built_in = self.built_in.iter().map(|bundle| {
            let id = bundle.id.as_deref();
            let chosen = id.and_then(|id| self.active.models.get(id)).is_none_or(|entry| entry.active.is_none());
            self.row(snapshot, Origin::BuiltIn, id, bundle.version.as_deref(), &bundle.path, chosen)
        });
        let installed = self.folder.installed();
        let installed = installed.iter().map(|Installed { id, version, path }| {
            let chosen = self.active.models.get(id).is_some_and(|entry| entry.active.as_ref() == Some(version));
            self.row(snapshot, Origin::Installed, Some(id), Some(version), path, chosen)
        });
        let mut rows: Vec<ModelRow> = built_in.chain(installed).collect();
        rows.sort_by(|a, b| (&a.id, &a.version).cmp(&(&b.id, &b.version)));
        rows
    }

    fn row(
        &self,
        snapshot: &Snapshot,
        origin: Origin,
        id: Option<&str>,
        version: Option<&str>,
        path: &Path,
        active: bool,
    ) -> ModelRow {
        let mut row = ModelRow {
            id: id.map(str::to_owned),
            version: version.map(str::to_owned),
            sha256: manifest_sha256(path),
            origin,
            path: path.to_owned(),
            active,
            state: RowState::Idle,
            task: None,
            device: None,
            latency_us_p50: None,
            refused: None,
            refused_code: None,
        };
        let fallen = snapshot.fallen.iter().find(|fallen| fallen.path == path).map(|fallen| &fallen.reason);
        match snapshot.models.iter().find(|status| status.path == path).map(|status| &status.state) {
            Some(ModelState::Serving(serving)) => {
                row.state = RowState::Serving;
                row.sha256 = Some(serving.model.sha256);
                row.task = Some(serving.task.clone());
                row.device = Some(serving.device.clone());
                row.latency_us_p50 = Some(serving.admission.latency_us_p50);
            }
            Some(ModelState::Refused(reason)) => row.refuse(&reason.code, &reason.text),
            None => fallen.into_iter().for_each(|reason| row.refuse(&reason.code, &reason.text)),
        }
        row
    }
}

trait Refuse {
    fn refuse(&mut self, code: &str, text: &str);
}

impl Refuse for ModelRow {
    fn refuse(&mut self, code: &str, text: &str) {
        self.state = RowState::Refused;
        self.refused = Some(text.to_owned());
        self.refused_code = Some(code.to_owned());
    }
}

impl Models {
    pub fn new(shelf: Shelf, worker: WorkerThread) -> Self {
        Self { shelf: Mutex::new(shelf), worker }
    }

    /// For `foveactl status` and doctor; never waits for an installation.
    pub fn status(&self) -> Value {
        let Ok(shelf) = self.shelf.try_lock() else { return json!({ "busy": true, "error": null }) };
        let should: Vec<Value> = shelf
            .active
            .models
            .iter()
            .map(|(id, entry)| json!({ "id": id, "active": entry.active, "previous": entry.previous }))
            .collect();
        json!({ "busy": false, "installed": shelf.folder.installed().len(), "active": should, "error": shelf.error })
    }
}

impl ModelStore for Models {
    fn list(&self) -> Result<Vec<ModelRow>, ModelsError> {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(shelf.rows(&self.worker.snapshot()))
    }

    fn incoming(&self) -> Result<File, ModelsError> {
        let root = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).folder.root().to_owned();
        tempfile::tempfile_in(root).map_err(|error| {
            let text = format!("the bundle cannot be taken in: {error}");
            ModelsError::new(ModelsErrorKind::Failed, text, "make room on the disk of the state folder")
        })
    }

    fn install(&self, tar: File, activate: bool) -> Result<Changed, ModelsError> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let (serving, kept) = shelf.keep(tar)?;
        let (id, version) = (serving.model.id, serving.model.version);
        log::info!("model {id} {version} is installed ({kept:?})");
        if activate {
            let changed = shelf.switch(&self.worker, &id, Some(version))?;
            return Ok(Changed { kept: Some(kept), ..changed });
        }
        let before = Serving::of(&id, &self.worker.snapshot(), &shelf.folder);
        Ok(Changed { id, version, kept: Some(kept), active: false, before: before.map(|serving| serving.version) })
    }

    fn activate(&self, id: &str, version: &str) -> Result<Changed, ModelsError> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let is_built_in = shelf.built_in(id).is_some_and(|bundle| bundle.version.as_deref() == Some(version));
        let wanted = match (shelf.holds(id, version), is_built_in) {
            (true, _) => Some(version.to_owned()),
            (false, true) => None,
            (false, false) => {
                let text = format!("version {version} of {id} is not on this box");
                let cure = "see `foveactl models list`; install it with `foveactl models install PATH`";
                return Err(ModelsError::new(ModelsErrorKind::NotFound, text, cure));
            }
        };
        shelf.switch(&self.worker, id, wanted)
    }

    fn rollback(&self, id: &str) -> Result<Changed, ModelsError> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |text: String| {
            let cure =
                "name the version that should serve: `foveactl models activate ID VERSION`, see `foveactl models list`";
            ModelsError::new(ModelsErrorKind::NotFound, text, cure)
        };
        let entry = shelf.active.models.get(id).cloned();
        let entry = entry.ok_or_else(|| none(format!("no other version of {id} has served on this box")))?;
        match &entry.previous {
            None if shelf.built_in(id).is_none() => {
                return Err(none(format!("no version of {id} served before this one")));
            }
            Some(version) if !shelf.holds(id, version) => {
                return Err(none(format!(
                    "version {version} of {id}, which served before, is not on this box any more"
                )));
            }
            _ => {}
        }
        shelf.switch(&self.worker, id, entry.previous)
    }
}

/// What serves under an id.
struct Serving {
    version: String,
    /// The version where it is an installed one.
    installed: Option<String>,
}

impl Serving {
    fn of(id: &str, snapshot: &Snapshot, folder: &Folder) -> Option<Self> {
        snapshot.models.iter().find_map(|status| match &status.state {
            ModelState::Serving(serving) if serving.model.id == id => {
                let version = serving.model.version.clone();
                let installed = (status.path == folder.path(id, &version)).then(|| version.clone());
                Some(Self { version, installed })
            }
            _ => None,
        })
    }
}

/// The name of a built-in bundle, where its manifest can be trusted that far.
fn named(path: &Path, trust: &[TrustedKey]) -> BuiltIn {
    let manifest: Option<Manifest> =
        BundleFiles::open(path).ok().and_then(|files| Bundle::read_manifest(&files, trust).ok());
    let (id, version) = manifest.map(|manifest| (manifest.id, manifest.version)).unzip();
    BuiltIn { path: path.to_owned(), id, version }
}

fn disk_error(error: FolderError) -> ModelsError {
    let text = chain(&error);
    match error {
        error if error.is_of_the_bundle() => {
            ModelsError::new(ModelsErrorKind::Refused, text, "install a folder or .fovea file as its maker signed it")
        }
        FolderError::Taken { .. } => ModelsError::new(
            ModelsErrorKind::Conflict,
            text,
            "a version is never rewritten: have the bundle signed under a new version",
        ),
        _ => ModelsError::new(
            ModelsErrorKind::Failed,
            text,
            "see that the disk of the state folder has room and is healthy",
        ),
    }
}

fn not_adopted(error: &AdoptError, before: Option<&Serving>) -> ModelsError {
    let stands = before.map_or_else(String::new, |serving| format!("; {} goes on serving", serving.version));
    let (kind, cure) = match error {
        AdoptError::Refused(reason) => (ModelsErrorKind::Refused, reason.advice.clone()),
        _ => (ModelsErrorKind::Failed, "see `foveactl doctor` and the daemon's log".to_owned()),
    };
    ModelsError::new(kind, format!("{}{stands}", chain(error)), cure)
}
