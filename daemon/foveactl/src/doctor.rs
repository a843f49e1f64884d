//! Looks for what would keep the box from working, and names the cure.

use crate::client::Client;
use crate::table::{Table, json_line};
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Disk share from which the doctor warns, percent; the store itself refuses objects at its high watermark.
const DISK_WARN_PERCENT: f64 = 80.0;

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    says: String,
    cure: &'static str,
}

pub async fn run(client: &Client, state_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let checks = match client.get::<Value>("/v1/status").await {
        Ok(status) => checks(&status),
        Err(error) => vec![Check {
            name: "daemon",
            ok: false,
            says: format!("{error:#}"),
            cure: "start it: fovead run --state DIR; then see its log",
        }],
    };
    let healthy = checks.iter().all(|check| check.ok);
    if json {
        checks.iter().try_for_each(json_line)?;
    } else {
        let mut table = Table::new(&["check", "", "says", "cure"]);
        for check in &checks {
            let mark = if check.ok { "ok" } else { "BAD" };
            let cure = if check.ok { "" } else { check.cure };
            table.row(vec![check.name.to_owned(), mark.to_owned(), check.says.clone(), cure.to_owned()]);
        }
        table.print()?;
        let verdict = if healthy { "All well" } else { "Needs care" };
        writeln!(std::io::stdout().lock(), "{verdict} in {}", state_dir.display())?;
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checks(status: &Value) -> Vec<Check> {
    let models = status["models"].as_array().cloned().unwrap_or_default();
    // An older version beside a newer one is as it should be.
    let fault = |model: &&Value| !matches!(model["refused_code"].as_str(), Some("superseded" | "duplicate"));
    let refused: Vec<String> = models.iter().filter(fault).filter_map(refusal).collect();
    let store_error = status["model_store"]["error"].as_str();
    let serving = models.iter().filter(|model| model["refused"].is_null()).count();
    let disk = status["store"]["disk_used_percent"].as_f64().unwrap_or(0.0);
    let behind: Vec<String> = status["sync"].as_array().into_iter().flatten().filter_map(unreachable).collect();
    let given_up: Vec<String> = status["sync"].as_array().into_iter().flatten().filter_map(set_aside).collect();
    let devices = models.iter().map(|model| &model["device"]).chain([&status["worker"]["device"]]);
    let mut replayed: Vec<String> = devices.filter_map(replay).collect();
    replayed.dedup();
    vec![
        Check { name: "daemon", ok: true, says: format!("version {}", status["version"]), cure: "" },
        Check {
            name: "worker",
            ok: status["worker"]["start_error"].is_null(),
            says: worker(&status["worker"]),
            cure: "see the daemon's log: the worker cannot start or keeps dying",
        },
        Check {
            name: "models",
            ok: serving > 0 && refused.is_empty(),
            says: if refused.is_empty() { format!("{serving} serving") } else { refused.join("; ") },
            cure: "name a signed bundle in [infer] bundles and its key in [infer] trusted_keys, or install one: foveactl models install",
        },
        Check {
            name: "model store",
            ok: store_error.is_none(),
            says: store_error.map_or_else(|| store(&status["model_store"]), str::to_owned),
            cure: "say which versions should serve: foveactl models activate ID VERSION, see foveactl models list",
        },
        Check {
            name: "device",
            ok: replayed.is_empty(),
            says: if replayed.is_empty() { "findings are computed".to_owned() } else { replayed.join("; ") },
            cure: "this box rehearses: name a real device in [infer] device, for instance CPU",
        },
        Check {
            name: "disk",
            ok: disk < DISK_WARN_PERCENT,
            says: format!("{disk:.0} % used"),
            cure: "make room, or give the state folder a larger disk",
        },
        Check {
            name: "destinations",
            ok: behind.is_empty(),
            says: if behind.is_empty() { "none behind".to_owned() } else { behind.join("; ") },
            cure: "check address, AE title and network of the destination in [[sync.destination]]",
        },
        Check {
            name: "set aside",
            ok: given_up.is_empty(),
            says: if given_up.is_empty() { "nothing since the start".to_owned() } else { given_up.join("; ") },
            cure: "foveactl outbox shows which; see in the archive why it refuses them, and send them by hand",
        },
        // For information: a file that is no picture is nothing that ails the box.
        Check { name: "capture", ok: true, says: capture(&status["receive"]), cure: "" },
    ]
}

/// A bundle that should serve and does not.
fn refusal(model: &Value) -> Option<String> {
    let why = model["refused"].as_str()?;
    Some(model["id"].as_str().map_or_else(|| why.to_owned(), |id| format!("{id}: {why}; see foveactl models list")))
}

fn store(store: &Value) -> String {
    let active = |entry: &Value| Some(format!("{} {}", entry["id"].as_str()?, entry["active"].as_str()?));
    let active: Vec<String> = store["active"].as_array().into_iter().flatten().filter_map(active).collect();
    let installed = store["installed"].as_u64().unwrap_or(0);
    match (store["busy"].as_bool(), active.is_empty()) {
        (Some(true), _) => "a bundle is being proved".to_owned(),
        (_, true) => format!("{installed} installed, the built-in ones serve"),
        (_, false) => format!("{installed} installed, active: {}", active.join(", ")),
    }
}

fn worker(worker: &Value) -> String {
    match (worker["start_error"].as_str(), worker["pid"].is_u64()) {
        (Some(error), _) => format!("cannot start: {error}"),
        (None, true) => format!("{} restarts", worker["restarts"]),
        (None, false) => format!("no worker yet, starts with the next object; {} restarts", worker["restarts"]),
    }
}

/// A device that plays back recorded answers.
fn replay(device: &Value) -> Option<String> {
    let device = device.as_str().filter(|device| device.starts_with("replay"))?;
    Some(format!("{device}: answers are recorded, not computed"))
}

/// A destination that refused objects for good.
fn set_aside(destination: &Value) -> Option<String> {
    let count = destination["set_aside"].as_u64().filter(|count| *count > 0)?;
    Some(format!("{}: {count} objects", destination["name"].as_str().unwrap_or("?")))
}

fn capture(receive: &Value) -> String {
    let count = |key: &str| receive[key].as_u64().unwrap_or(0);
    let (accepted, refused) = (count("captures_accepted"), count("captures_refused"));
    match refused {
        0 => format!("{accepted} pictures taken"),
        _ => format!("{accepted} pictures taken, {refused} refused: look into capture/refused/*.reason.txt"),
    }
}

/// A destination whose last try failed.
fn unreachable(destination: &Value) -> Option<String> {
    let error = destination["last_error"].as_str()?;
    Some(format!("{}: {error}", destination["name"].as_str().unwrap_or("?")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn healthy() -> Value {
        json!({
            "version": "1.2.3",
            "worker": { "pid": 7, "restarts": 0, "device": "CPU", "start_error": null },
            "models": [{ "device": "CPU", "refused": null }],
            "model_store": { "busy": false, "installed": 2, "active": [{ "id": "eye", "active": "1.1.0" }], "error": null },
            "store": { "disk_used_percent": 12.0 },
            "sync": [{ "name": "vna", "last_error": null, "set_aside": 0 }],
            "receive": { "captures_accepted": 4, "captures_refused": 0 },
        })
    }

    /// The names of what is bad, and all that is said.
    fn seen(path: &str, value: Value) -> (Vec<&'static str>, String) {
        let mut status = healthy();
        *status.pointer_mut(path).unwrap() = value;
        let checks = checks(&status);
        let bad = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
        (bad, checks.into_iter().map(|check| check.says + "\n").collect())
    }

    #[test]
    fn a_healthy_box_is_well_also_just_after_its_worker_died_and_with_refused_files() {
        assert_eq!(seen("/worker/restarts", json!(3)).0, [""; 0]);
        let (bad, says) = seen("/worker/pid", Value::Null);
        assert!(bad.is_empty() && says.contains("starts with the next object"), "{bad:?} {says}");
        let (bad, says) = seen("/receive/captures_refused", json!(2));
        assert!(bad.is_empty() && says.contains("2 refused"), "{bad:?} {says}");
    }

    #[test]
    fn what_keeps_a_box_from_its_work_is_bad() {
        for (path, value, name) in [
            ("/worker/start_error", json!("no sandbox"), "worker"),
            ("/worker/device", json!("replay:CPU"), "device"),
            ("/models/0/device", json!("replay:answers"), "device"),
            ("/models/0/refused", json!("signature"), "models"),
            ("/model_store/error", json!("active.json is damaged"), "model store"),
            ("/sync/0/set_aside", json!(1), "set aside"),
            ("/sync/0/last_error", json!("away"), "destinations"),
            ("/store/disk_used_percent", json!(93.0), "disk"),
        ] {
            let (bad, says) = seen(path, value);
            assert!(bad.contains(&name), "{path}: {bad:?} {says}");
        }
    }
}
