//! One object that says what is running and how it is: counters, snapshots and the index. Blocks for as long as a
//! disk call.

use crate::config::{Config, Node};
use crate::models::{Fallen, Models};
use crate::worker_thread::{Snapshot, WorkerThread};
use fovea_core::chain;
use fovea_store::Store;
use fovea_worker::{ModelState, ModelStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Studies that the status tells, the last first.
const STUDIES_TOLD: usize = 16;

/// What the status is read from.
pub struct StatusSource {
    started: Instant,
    node: Node,
    listen: String,
    store: Arc<Store>,
    worker: WorkerThread,
    models: Arc<Models>,
    receive: Arc<fovea_receive::Counters>,
    sync: Vec<(String, Arc<fovea_sync::Counters>)>,
}

impl StatusSource {
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        worker: WorkerThread,
        models: Arc<Models>,
        receive: Arc<fovea_receive::Counters>,
        sync: Vec<(String, Arc<fovea_sync::Counters>)>,
    ) -> Self {
        let listen = format!("{}@{}", config.receive.ae_title, config.receive.listen);
        Self { started: Instant::now(), node: config.node.clone(), listen, store, worker, models, receive, sync }
    }

    /// The status as one object; keys are stable.
    pub fn object(&self) -> Value {
        let worker = self.worker.snapshot();
        let store = match self.store.status() {
            Ok(status) => json!(status),
            Err(error) => json!({ "error": chain(&error) }),
        };
        let sync: Vec<Value> = self.sync.iter().map(|(name, counters)| destination(name, counters)).collect();
        json!({
            "ready": true,
            "version": env!("CARGO_PKG_VERSION"),
            "node": { "name": self.node.name, "site": self.node.site },
            "pid": std::process::id(),
            "uptime_s": self.started.elapsed().as_secs(),
            "listen": self.listen,
            "receive": self.receive.counts(),
            "studies": self.receive.studies(STUDIES_TOLD),
            "store": store,
            "worker": worker_object(&worker),
            "models": worker.models.iter().map(model).chain(worker.fallen.iter().map(fallen)).collect::<Vec<_>>(),
            "model_store": self.models.status(),
            "sync": sync,
        })
    }
}

fn worker_object(snapshot: &Snapshot) -> Value {
    let Some(status) = &snapshot.status else {
        return json!({ "pid": null, "restarts": 0, "resident_bytes": 0, "start_error": snapshot.start_error });
    };
    json!({
        "pid": status.pid,
        "restarts": status.restarts,
        "resident_bytes": status.resident_bytes,
        "device": status.device,
        "sandbox": status.sandbox,
        "start_error": snapshot.start_error,
    })
}

fn model(status: &ModelStatus) -> Value {
    match &status.state {
        ModelState::Serving(serving) => json!({
            "path": status.path,
            "id": serving.model.id,
            "version": serving.model.version,
            "sha256": serving.model.sha256,
            "task": serving.task,
            "algorithm": serving.algorithm_name,
            "device": serving.device,
            "latency_us_p50": serving.admission.latency_us_p50,
            "golden_max_error": serving.admission.golden_max_error,
            "refused": null,
        }),
        ModelState::Refused(reason) => {
            json!({ "path": status.path, "refused": reason.text, "refused_code": reason.code })
        }
    }
}

/// A version that should serve and does not; another one does in its place.
fn fallen(fallen: &Fallen) -> Value {
    json!({ "path": fallen.path, "id": fallen.id, "refused": fallen.reason.text, "refused_code": fallen.reason.code })
}

fn destination(name: &str, counters: &fovea_sync::Counters) -> Value {
    let mut object = json!(counters.snapshot());
    object["name"] = json!(name);
    object
}
