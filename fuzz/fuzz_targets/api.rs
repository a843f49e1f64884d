#![no_main]

#[path = "../bodies/api.rs"]
mod body;

use fovea_review::{Api, Changed, ModelRow, ModelStore, ModelsError, ModelsErrorKind, Worklist, serve};
use fovea_store::MemoryStore;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A box without a model that takes none.
struct NoModels;

fn refused() -> ModelsError {
    ModelsError::new(ModelsErrorKind::Refused, "no model here", "none")
}

impl ModelStore for NoModels {
    fn list(&self) -> Result<Vec<ModelRow>, ModelsError> {
        Ok(Vec::new())
    }

    fn incoming(&self) -> Result<File, ModelsError> {
        tempfile::tempfile().map_err(|_| refused())
    }

    fn install(&self, _: File, _: bool) -> Result<Changed, ModelsError> {
        Err(refused())
    }

    fn activate(&self, _: &str, _: &str) -> Result<Changed, ModelsError> {
        Err(refused())
    }

    fn rollback(&self, _: &str) -> Result<Changed, ModelsError> {
        Err(refused())
    }
}

/// Where an API over an empty box is served as long as this process lives.
static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let path = folder.join("control.sock");
    let served = path.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let store = Arc::new(MemoryStore::new());
        // Dropped: a request that would wait for a finding is told that the box stops.
        let (_, recorded) = tokio::sync::watch::channel(0);
        let worklist = |_| Ok(Worklist { rows: Vec::new(), open: 0, left_out: 0 });
        let api = Api {
            ledger: store.clone(),
            outbox: store,
            status: Arc::new(|| serde_json::json!({})),
            worklist: Arc::new(worklist),
            scheduled: Arc::new(fovea_review::Scheduled::default),
            models: Arc::new(NoModels),
            recorded,
        };
        runtime.expect("a runtime").block_on(serve(&served, api, Default::default())).expect("served");
    });
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    path
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(body::run(&SOCKET, input)));
