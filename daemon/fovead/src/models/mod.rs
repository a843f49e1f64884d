//! The model store: bundles that were installed on this box, and which of them serve.
//!
//! In: bundles over the control socket. Out: a [`Choice`] for the worker, rows for people.
//! Promise: a bundle is kept only after it proved itself on this machine, in the sandbox, by the code that proves it before it serves;
//! a change takes effect between two objects, and only when the new set is up: else the old one goes on serving. Changes happen one at
//! a time; who only looks never waits for one.

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
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Held for moments only, never while a bundle is proved or a worker comes up.
    said: Mutex<Said>,
}

/// What may change while the daemon runs.
struct Said {
    active: Active,
    /// Why `active.json` can neither be used nor set aside: then it is not written over.
    unusable: Option<String>,
    /// The change that is being made.
    doing: Option<String>,
}

/// The store beside a running worker.
pub struct Models {
    shelf: Shelf,
    worker: WorkerThread,
    turn: Mutex<()>,
}

/// A change that is being made; the next one waits for its end.
struct Change<'a> {
    shelf: &'a Shelf,
    _turn: MutexGuard<'a, ()>,
}

impl Change<'_> {
    fn is(&self, doing: String) {
        self.shelf.said().doing = Some(doing);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.shelf.said().doing = None;
    }
}

impl Shelf {
    /// Opens `<state>/models`. A damaged `active.json` does not keep the box from starting: it gets another name, so that no change
    /// takes it away, the built-in bundles serve, and it is told until every installed model has been chosen anew.
    pub fn open(root: &Path, config: &WorkerConfig) -> Result<Self, OpenError> {
        let folder = Folder::open(root.to_owned())?;
        let (active, unusable) = match Active::read(folder.root()) {
            Ok(active) => (active, None),
            Err(error) => {
                log::error!("only built-in models serve: {}", chain(&error));
                let aside = Active::set_aside(folder.root());
                (Active::default(), aside.err().map(|second| format!("{}; {}", chain(&error), chain(&second))))
            }
        };
        let built_in = config.bundles.iter().filter(|path| *path != folder.installed_root());
        let built_in = built_in.map(|path| named(path, &config.trusted_keys)).collect();
        let said = Mutex::new(Said { active, unusable, doing: None });
        Ok(Self { folder, built_in, config: config.clone(), said })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not known what should serve; none where it is.
    fn complaint(&self) -> Option<String> {
        let said = self.said();
        if said.unusable.is_some() {
            return said.unusable.clone();
        }
        let damaged = Active::damaged(self.folder.root());
        let mut unsaid: Vec<String> = self.folder.installed().into_iter().map(|installed| installed.id).collect();
        unsaid.retain(|id| !said.active.models.contains_key(id));
        unsaid.dedup();
        let name = damaged.last().filter(|_| !unsaid.is_empty())?;
        Some(format!(
            "active.json was damaged and is kept as {name}; since then nobody has said what should serve as {}",
            unsaid.join(", ")
        ))
    }

    /// What is to serve.
    pub fn choice(&self) -> Choice {
        self.choice_of(&self.said().active)
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

    fn keep(&self, mut tar: File, change: &Change) -> Result<(ServingModel, Kept), ModelsError> {
        let staged = self.folder.stage(&mut tar).map_err(disk_error)?;
        if let BuiltIn { id: Some(id), version: Some(version), .. } = named(&staged.path, &self.config.trusted_keys) {
            change.is(format!("installing {id} {version}"));
        }
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
    fn switch(&self, worker: &WorkerThread, id: &str, wanted: Option<String>) -> Result<Changed, ModelsError> {
        let before = Serving::of(id, &worker.snapshot(), &self.folder);
        let mut active = self.said().active.clone();
        if let Some(why) = self.said().unusable.clone() {
            let cure =
                "see that the disk of the state folder is healthy, move the file away and start the daemon again";
            return Err(ModelsError::new(ModelsErrorKind::Failed, why, cure));
        }
        let entry = active.models.get(id).cloned().unwrap_or_default();
        let is_same = entry.active == wanted && active.models.contains_key(id);
        // What a rollback goes back to is what serves, not what should.
        let previous = match &before {
            _ if is_same => entry.previous,
            // It fell to the wanted one already: a further rollback tries what should have served.
            Some(serving) if serving.installed == wanted => entry.active,
            Some(serving) => serving.installed.clone(),
            None => entry.active,
        };
        active.models.insert(id.to_owned(), Entry { active: wanted.clone(), previous });
        let (written, root) = (active.clone(), self.folder.root().to_owned());
        let commit = Box::new(move || written.write(&root));
        worker.adopt(self.choice_of(&active), id, commit).map_err(|error| not_adopted(&error, before.as_ref()))?;
        self.said().active = active;
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
        let active = self.said().active.clone();
        let built_in = self.built_in.iter().map(|bundle| {
            let id = bundle.id.as_deref();
            let chosen = id.and_then(|id| active.models.get(id)).is_none_or(|entry| entry.active.is_none());
            self.row(snapshot, Origin::BuiltIn, id, bundle.version.as_deref(), &bundle.path, chosen)
        });
        let installed = self.folder.installed();
        let installed = installed.iter().map(|Installed { id, version, path }| {
            let chosen = active.models.get(id).is_some_and(|entry| entry.active.as_ref() == Some(version));
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
        Self { shelf, worker, turn: Mutex::new(()) }
    }

    /// Waits for its turn.
    fn change(&self, doing: String) -> Change<'_> {
        let change = Change { _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner), shelf: &self.shelf };
        change.is(doing);
        change
    }

    /// For `foveactl status`, `models list` and doctor; never waits for a change.
    pub fn status(&self) -> Value {
        let (active, doing) = {
            let said = self.shelf.said();
            (said.active.clone(), said.doing.clone())
        };
        let should: Vec<Value> = active
            .models
            .iter()
            .map(|(id, entry)| json!({ "id": id, "active": entry.active, "previous": entry.previous }))
            .collect();
        json!({
            "busy": doing.is_some(),
            "doing": doing,
            "installed": self.shelf.folder.installed().len(),
            "active": should,
            "error": self.shelf.complaint(),
        })
    }
}

impl ModelStore for Models {
    fn list(&self) -> Result<Vec<ModelRow>, ModelsError> {
        Ok(self.shelf.rows(&self.worker.snapshot()))
    }

    fn incoming(&self) -> Result<File, ModelsError> {
        tempfile::tempfile_in(self.shelf.folder.root()).map_err(|error| {
            let text = format!("the bundle cannot be taken in: {error}");
            ModelsError::new(ModelsErrorKind::Failed, text, "make room on the disk of the state folder")
        })
    }

    fn install(&self, tar: File, activate: bool) -> Result<Changed, ModelsError> {
        let (change, shelf) = (self.change("installing a bundle".to_owned()), &self.shelf);
        let (serving, kept) = shelf.keep(tar, &change)?;
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
        let (_change, shelf) = (self.change(format!("activating {id} {version}")), &self.shelf);
        let is_built_in = shelf.built_in(id).is_some_and(|bundle| bundle.version.as_deref() == Some(version));
        match (shelf.holds(id, version), is_built_in) {
            (true, false) => shelf.switch(&self.worker, id, Some(version.to_owned())),
            // Installed files that are damaged do not keep sound built-in ones of the same version from serving.
            (true, true) => match shelf.switch(&self.worker, id, Some(version.to_owned())) {
                Err(error) if error.kind == ModelsErrorKind::Refused => {
                    log::warn!("the built-in {id} {version} is asked, the installed one is not fit: {error}");
                    shelf.switch(&self.worker, id, None)
                }
                done => done,
            },
            (false, true) => shelf.switch(&self.worker, id, None),
            (false, false) => {
                let text = format!("version {version} of {id} is not on this box");
                let cure = "see `foveactl models list`; install it with `foveactl models install PATH`";
                Err(ModelsError::new(ModelsErrorKind::NotFound, text, cure))
            }
        }
    }

    fn rollback(&self, id: &str) -> Result<Changed, ModelsError> {
        let (_change, shelf) = (self.change(format!("rolling {id} back")), &self.shelf);
        let none = |text: String| {
            let cure =
                "name the version that should serve: `foveactl models activate ID VERSION`, see `foveactl models list`";
            ModelsError::new(ModelsErrorKind::NotFound, text, cure)
        };
        let entry = shelf.said().active.models.get(id).cloned();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_active_json_is_kept_and_told_until_every_installed_model_was_chosen_anew() {
        let state = tempfile::tempdir().unwrap();
        let root = state.path().join("models");
        let open = || Shelf::open(&root, &WorkerConfig { bundles: Vec::new(), ..WorkerConfig::installed().unwrap() });
        for id in ["eye", "lung"] {
            let place = open().unwrap().folder.path(id, "1.0.0");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(folder::BUNDLE_TOML), "").unwrap();
        }
        assert_eq!(open().unwrap().complaint(), None, "nobody asked for them to serve");

        let entry = |version: &str| Entry { active: Some(version.to_owned()), previous: None };
        let mut active = Active::default();
        std::fs::write(root.join("active.json"), "{ damaged").unwrap();
        for (chosen, unsaid) in [("", "eye, lung"), ("eye", "lung")] {
            if !chosen.is_empty() {
                active.models.insert(chosen.to_owned(), entry("1.0.0"));
                active.write(&root).unwrap();
            }
            let complaint = open().unwrap().complaint().unwrap();
            assert!(complaint.contains("active.json.damaged-1") && complaint.ends_with(unsaid), "{complaint}");
        }
        assert_eq!(std::fs::read_to_string(root.join("active.json.damaged-1")).unwrap(), "{ damaged");
        active.models.insert("lung".to_owned(), entry("1.0.0"));
        active.write(&root).unwrap();
        assert_eq!(open().unwrap().complaint(), None);
    }
}
