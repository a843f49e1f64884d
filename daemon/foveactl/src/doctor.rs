//! Looks for what would keep the box from working, and names the cure.

use crate::client::Client;
use crate::table::{Table, json_line};
use serde::Serialize;
use serde_json::Value;
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
        println!("{} in {}", if healthy { "All well" } else { "Needs care" }, state_dir.display());
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checks(status: &Value) -> Vec<Check> {
    let models = status["models"].as_array().cloned().unwrap_or_default();
    let refused: Vec<&str> = models.iter().filter_map(|model| model["refused"].as_str()).collect();
    let serving = models.len() - refused.len();
    let disk = status["store"]["disk_used_percent"].as_f64().unwrap_or(0.0);
    let behind: Vec<String> = status["sync"].as_array().into_iter().flatten().filter_map(unreachable).collect();
    vec![
        Check { name: "daemon", ok: true, says: format!("version {}", status["version"]), cure: "" },
        Check {
            name: "worker",
            ok: status["worker"]["pid"].is_u64(),
            says: format!("{} restarts", status["worker"]["restarts"]),
            cure: "see the daemon's log: the worker cannot start or keeps dying",
        },
        Check {
            name: "models",
            ok: serving > 0 && refused.is_empty(),
            says: if refused.is_empty() { format!("{serving} serving") } else { refused.join("; ") },
            cure: "name a signed bundle in [infer] bundles, and its key in [infer] trusted_keys",
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
    ]
}

/// A destination whose last try failed.
fn unreachable(destination: &Value) -> Option<String> {
    let error = destination["last_error"].as_str()?;
    Some(format!("{}: {error}", destination["name"].as_str().unwrap_or("?")))
}
