//! Proves bundles before they are installed: the same code, in the same sandbox, as before they serve.
//!
//! In: bundles. Out: a verdict each, with what was measured here. Promise: each bundle is proved in a process of its own, so that none can
//! spoil another's verdict; nothing is kept.

use crate::CheckArgs;
use crate::eval;
use crate::table::{Table, duration, json_line, size};
use fovea_core::chain;
use fovea_infer::{Bundle, BundleError, BundleFiles, Manifest, TrustedKey};
use fovea_worker::{ModelState, ServingModel, Worker};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// What is asked, in order; a bundle that fails at one is not asked the next.
const STEPS: [(&str, &str); 5] = [
    ("files", UNREADABLE),
    ("signature", "bundle_untrusted"),
    ("hashes and limits", "bundle_damaged"),
    ("runs here", "bundle_not_runnable"),
    ("golden answers", "golden_mismatch"),
];

/// Nothing that could be signed was found, so nobody's signature was looked at.
const UNREADABLE: &str = "bundle_unreadable";

pub fn run(args: &CheckArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut all_good = true;
    for path in &args.bundles {
        let config = eval::config(path, &args.trust, args.runtime_dir.as_deref())?;
        let manifest = match manifest(path, &config.trusted_keys) {
            Err(error) if cure(&error).is_some() => {
                all_good = false;
                let verdict = unreadable(path, &error);
                if json {
                    json_line(&verdict)?
                } else {
                    print(&verdict)?
                }
                continue;
            }
            // Whatever else is wrong the worker finds, too.
            manifest => manifest.ok(),
        };
        let worker = Worker::start(config)?;
        let state = worker.models().first().map(|status| status.state.clone());
        let verdict = match &state {
            Some(ModelState::Serving(serving)) => served(path, serving, manifest.as_ref(), &worker),
            Some(ModelState::Refused(reason)) => {
                json!({ "path": path, "refused": reason, "steps": steps(Some(&reason.code)) })
            }
            None => anyhow::bail!("the worker did not answer for {}", path.display()),
        };
        all_good &= verdict["refused"].is_null();
        if json { json_line(&verdict)? } else { print(&verdict)? }
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn manifest(path: &Path, trust: &[TrustedKey]) -> Result<Manifest, BundleError> {
    Bundle::read_manifest(&BundleFiles::open(path)?, trust)
}

/// What to do where the signature was not reached; none where it was.
fn cure(error: &BundleError) -> Option<&'static str> {
    match error {
        BundleError::Open(_) => Some(
            "name the bundle's folder or its .fovea file: it must be there, be readable, and hold plain files only",
        ),
        BundleError::Missing { name } if name == "bundle.toml" => {
            Some("name the folder that holds bundle.toml: this one is no bundle")
        }
        BundleError::Missing { .. } => Some("get the bundle again from its maker, with its signature bundle.sig"),
        BundleError::Tar { .. } | BundleError::Entry { .. } => {
            Some("name the bundle's folder, or the .fovea file as its maker signed it: this file is none")
        }
        BundleError::TooLarge { .. } | BundleError::TooManyFiles { .. } => {
            Some("name a bundle: what lies here is larger than one may be")
        }
        BundleError::Read { .. } => Some("see that the disk is healthy, and get the bundle again from its maker"),
        BundleError::Untrusted { .. }
        | BundleError::Manifest(_)
        | BundleError::Unlisted { .. }
        | BundleError::Hash { .. }
        | BundleError::GoldenLength { .. }
        | BundleError::Graph { .. } => None,
    }
}

fn unreadable(path: &Path, error: &BundleError) -> Value {
    let reason = json!({ "code": UNREADABLE, "text": chain(error), "advice": cure(error) });
    json!({ "path": path, "refused": reason, "steps": steps(Some(UNREADABLE)) })
}

fn served(path: &Path, serving: &ServingModel, manifest: Option<&Manifest>, worker: &Worker) -> Value {
    let admission = &serving.admission;
    json!({
        "path": path,
        "model": serving.model,
        "task": serving.task,
        "device": serving.device,
        "device_name": worker.status().device,
        "licence": manifest.map(|manifest| &manifest.licence),
        "ops_max": manifest.map(|manifest| manifest.ops_max),
        "files": manifest.map(|manifest| manifest.files.len()),
        "latency_us_p50": admission.latency_us_p50,
        "golden_count": admission.golden_count,
        "golden_max_error": admission.golden_max_error,
        "networks": networks(serving, manifest),
        "resident_bytes": worker.status().resident_bytes,
        "steps": steps(None),
        "refused": null,
    })
}

/// What was measured of each network, beside what its bundle grants.
fn networks(serving: &ServingModel, manifest: Option<&Manifest>) -> Vec<Value> {
    let one = |network: &fovea_infer::NetworkAdmission| {
        let stated = manifest.and_then(|manifest| manifest.networks.iter().find(|stated| stated.name == network.name));
        json!({
            "name": network.name,
            "latency_us_p50": network.latency_us_p50,
            "golden_count": network.golden_count,
            "golden_max_error": network.golden_max_error,
            "tolerance_abs": stated.and_then(|stated| stated.golden.tolerance_abs),
            "golden_map_error": network.golden_map_error,
            "tolerance_map_mean": stated.and_then(|stated| stated.golden.tolerance_map_mean),
        })
    };
    serving.admission.networks.iter().map(one).collect()
}

/// `ok`, `failed` or `not asked` for each step; a code that is none of a step's fails the first.
fn steps(failed: Option<&str>) -> Vec<Value> {
    let at = failed.map_or(STEPS.len(), |code| STEPS.iter().position(|(_, of)| *of == code).unwrap_or(0));
    let word = |place: usize| match place.cmp(&at) {
        std::cmp::Ordering::Less => "ok",
        std::cmp::Ordering::Equal => "failed",
        std::cmp::Ordering::Greater => "not asked",
    };
    STEPS.iter().enumerate().map(|(place, (name, _))| json!({ "step": name, "result": word(place) })).collect()
}

fn print(verdict: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let refused = verdict["refused"]["text"].as_str();
    let mut table = Table::new(&[&text(&verdict["path"]), if refused.is_some() { "REFUSED" } else { "may serve" }]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    for step in verdict["steps"].as_array().into_iter().flatten() {
        row(&text(&step["step"]), text(&step["result"]));
    }
    if let Some(why) = refused {
        row("why", why.to_owned());
        row("what to do", text(&verdict["refused"]["advice"]));
        return Ok(table.print()?);
    }
    let model = &verdict["model"];
    row("model", format!("{} {}", text(&model["id"]), text(&model["version"])));
    row("sha256", text(&model["sha256"]));
    row("task", text(&verdict["task"]));
    row("licence", text(&verdict["licence"]));
    row("device", format!("{}, {}", text(&verdict["device"]), text(&verdict["device_name"])));
    for network in verdict["networks"].as_array().into_iter().flatten() {
        row(&format!("network {}", text(&network["name"])), measured(network));
    }
    row("latency", format!("{}, every network once", duration(verdict["latency_us_p50"].as_u64().unwrap_or(0))));
    row("resident memory", size(verdict["resident_bytes"].as_u64().unwrap_or(0)));
    Ok(table.print()?)
}

fn measured(network: &Value) -> String {
    let number = |key: &str| network[key].as_f64();
    let mut parts = vec![format!("{} golden vectors", network["golden_count"])];
    if let (Some(error), Some(granted)) = (number("golden_max_error"), number("tolerance_abs")) {
        parts.push(format!("largest difference {error:.4} of {granted}"));
    }
    if let (Some(error), Some(granted)) = (number("golden_map_error"), number("tolerance_map_mean")) {
        parts.push(format!("largest mean difference of a map {error:.4} of {granted}"));
    }
    parts.push(duration(network["latency_us_p50"].as_u64().unwrap_or(0)));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: Option<&str>) -> Vec<String> {
        steps(code).iter().map(|step| step["result"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_verdict_says_how_far_a_bundle_came() {
        assert_eq!(words(None), ["ok"; 5]);
        assert_eq!(words(Some("bundle_untrusted")), ["ok", "failed", "not asked", "not asked", "not asked"]);
        assert_eq!(words(Some("bundle_damaged")), ["ok", "ok", "failed", "not asked", "not asked"]);
        assert_eq!(words(Some("golden_mismatch")), ["ok", "ok", "ok", "ok", "failed"]);
        assert_eq!(words(Some("something new")), ["failed", "not asked", "not asked", "not asked", "not asked"]);
    }

    #[test]
    fn a_signature_that_was_not_looked_at_is_not_called_right_and_each_cause_has_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, files: &[(&str, u64)]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            for (name, bytes) in files {
                std::fs::File::create(path.join(name)).unwrap().set_len(*bytes).unwrap();
            }
            path
        };
        let garbage = folder.path().join("garbage.fovea");
        std::fs::write(&garbage, [7; 4000]).unwrap();
        for (path, text, cure) in [
            (folder.path().join("nowhere"), "nowhere", "must be there"),
            (place("empty", &[]), "bundle.toml is missing", "holds bundle.toml"),
            (place("unsigned", &[("bundle.toml", 9)]), "bundle.sig is missing", "with its signature"),
            (place("large", &[("bundle.toml", 1 << 40)]), "the limit is", "larger than"),
            (garbage, "tar", "this file is none"),
        ] {
            let error = manifest(&path, &[]).unwrap_err();
            let verdict = unreadable(&path, &error);
            assert_eq!(verdict["steps"][1], json!({ "step": "signature", "result": "not asked" }));
            let says = |key: &str| verdict["refused"][key].as_str().unwrap_or_default().to_owned();
            assert!(says("text").contains(text) && says("advice").contains(cure), "{verdict}");
        }
        let signed_by_nobody = place("foreign", &[("bundle.toml", 9), ("bundle.sig", 64)]);
        assert_eq!(super::cure(&manifest(&signed_by_nobody, &[]).unwrap_err()), None, "the worker answers for it");
    }
}
