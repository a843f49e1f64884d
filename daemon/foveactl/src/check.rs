//! Proves bundles before they are installed: the same code, in the same sandbox, as before they serve.

use crate::CheckArgs;
use crate::table::{Table, duration, json_line};
use anyhow::Context;
use fovea_infer::TrustedKey;
use fovea_worker::{ModelState, ModelStatus, Worker, WorkerConfig};
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(args: CheckArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut config = WorkerConfig::installed().context("this build's release key is damaged")?;
    config.bundles = args.bundles;
    for path in &args.trust {
        config.trusted_keys.push(TrustedKey::read(path)?);
    }
    if let Some(runtime_dir) = args.runtime_dir {
        config.runtime_dir = runtime_dir;
    }
    let worker = Worker::start(config)?;
    let verdicts: Vec<Value> = worker.models().iter().map(verdict).collect();
    if json {
        verdicts.iter().try_for_each(json_line)?;
    } else {
        print(&verdicts)?;
    }
    // An older version beside a newer one is as it should be.
    let fault =
        |verdict: &Value| !matches!(verdict["refused"]["code"].as_str(), None | Some("superseded" | "duplicate"));
    let refused = verdicts.iter().any(fault);
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn verdict(status: &ModelStatus) -> Value {
    match &status.state {
        ModelState::Serving(serving) => json!({
            "path": status.path,
            "model": serving.model,
            "task": serving.task,
            "device": serving.device,
            "latency_us_p50": serving.admission.latency_us_p50,
            "golden_count": serving.admission.golden_count,
            "golden_max_error": serving.admission.golden_max_error,
            "refused": null,
        }),
        ModelState::Refused(reason) => json!({ "path": status.path, "refused": reason }),
    }
}

fn print(verdicts: &[Value]) -> anyhow::Result<()> {
    let mut table = Table::new(&["bundle", "verdict", "golden vectors", "latency p50"]);
    for verdict in verdicts {
        let path = verdict["path"].as_str().unwrap_or_default().to_owned();
        if let Some(why) = verdict["refused"]["text"].as_str() {
            table.row(vec![path, format!("refused: {why}"), "-".to_owned(), "-".to_owned()]);
            continue;
        }
        let text = |key: &str| verdict["model"][key].as_str().unwrap_or("-");
        let golden = verdict["golden_max_error"].as_f64().unwrap_or(f64::NAN);
        table.row(vec![
            path,
            format!("may serve: {} {} on {}", text("id"), text("version"), verdict["device"].as_str().unwrap_or("-")),
            format!("{}, largest difference {golden:.4}", verdict["golden_count"]),
            duration(verdict["latency_us_p50"].as_u64().unwrap_or(0)),
        ]);
    }
    Ok(table.print()?)
}
