//! Keeps the house as drawn: which crate may name which, where an outside crate lives, how long a file may be, and that no trace of
//! the machine it was written on is committed.

use fovea_tests::{metadata, paths};
use std::collections::BTreeSet;
use std::path::Path;

/// Every arrow there may be between our crates. A stage names `core` and what is below it, never another stage.
const ARROWS: &[(&str, &[&str])] = &[
    ("fovea-core", &[]),
    ("fovea-kernels", &[]),
    ("fovea-dimse", &["fovea-core"]),
    ("fovea-decode", &["fovea-core"]),
    ("fovea-triage", &["fovea-core"]),
    ("fovea-store", &["fovea-core"]),
    ("fovea-report", &["fovea-core"]),
    ("fovea-text", &[]),
    ("fovea-review", &["fovea-core", "fovea-text"]),
    ("fovea-catalogue", &["fovea-core", "fovea-text"]),
    ("fovea-worklist", &["fovea-core", "fovea-dimse", "fovea-text"]),
    ("fovea-deid", &["fovea-core"]),
    ("fovea-infer", &["fovea-core"]),
    ("fovea-preprocess", &["fovea-core", "fovea-kernels"]),
    ("fovea-receive", &["fovea-core", "fovea-dimse"]),
    ("fovea-sync", &["fovea-core", "fovea-dimse"]),
    ("fovea-worker", &["fovea-core", "fovea-decode", "fovea-preprocess", "fovea-infer"]),
    // The command line is a client: it speaks DIMSE, and it reads the forms that the daemon answers in. It opens the store of a
    // box that is stopped, to check and mend it, and simulates with the functions of triage.
    (
        "foveactl",
        &[
            "fovea-core",
            "fovea-dimse",
            "fovea-infer",
            "fovea-receive",
            "fovea-review",
            "fovea-store",
            "fovea-triage",
            "fovea-worker",
        ],
    ),
    (
        "fovead",
        &[
            "fovea-core",
            "fovea-dimse",
            "fovea-receive",
            "fovea-worker",
            "fovea-infer",
            "fovea-triage",
            "fovea-store",
            "fovea-report",
            "fovea-review",
            "fovea-catalogue",
            "fovea-worklist",
            "fovea-deid",
            "fovea-sync",
        ],
    ),
];

/// What any stage may name for its tests alone: the memory twin of the ports lives there.
const FOR_TESTS: &[&str] = &["fovea-store"];

/// Outside crates that one member alone may name, so that replacing one touches one folder.
const HOMES: &[(&str, &str)] = &[
    ("sled", "fovea-store"),
    ("rusqlite", "fovea-catalogue"),
    ("openvino", "fovea-infer"),
    ("openvino-sys", "fovea-infer"),
    ("rumqttc", "fovea-fleet"),
    ("axum", "fovea-review"),
    ("dicom-ul", "fovea-dimse"),
    // TLS has two doors: associations, and DICOMweb.
    ("tokio-rustls", "fovea-dimse"),
    ("tokio-rustls", "fovea-review"),
    ("systemd-journal-logger", "fovead"),
];

/// A file past this length is two things.
const LINES_MAX: usize = 700;
/// A file past this length is worth a look.
const LINES_NOTED: usize = 500;

#[test]
fn crates_name_only_what_the_drawing_allows() {
    let workspace = metadata::members().expect("cargo metadata");
    let ours: BTreeSet<&str> = workspace.members().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in workspace.members().filter(|package| package.name != "fovea-tests") {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            wrong.push(format!("{} is not in the drawing: add it to ARROWS with what it may name", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains(dependency.name.as_str())) {
            let for_tests = dependency.kind.as_deref() == Some("dev") && FOR_TESTS.contains(&dependency.name.as_str());
            if !for_tests && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} names {}, which the drawing does not allow", package.name, dependency.name));
            }
        }
    }
    for (name, _) in ARROWS.iter().filter(|(name, _)| !ours.contains(name)) {
        wrong.push(format!("{name} is in the drawing, and there is no such crate"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_has_one_home() {
    let workspace = metadata::members().expect("cargo metadata");
    let mut wrong = Vec::new();
    for package in workspace.members() {
        for dependency in &package.dependencies {
            let homes = HOMES.iter().filter(|(outside, _)| *outside == dependency.name);
            let homes: Vec<&str> = homes.map(|(_, home)| *home).collect();
            if !homes.is_empty() && !homes.contains(&package.name.as_str()) {
                wrong.push(format!("{} names {}, which lives in {homes:?}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace_and_opens_with_its_promise() {
    let mut wrong = Vec::new();
    for package in metadata::members().expect("cargo metadata").members() {
        let text = std::fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        let manifest: toml::Table = text.parse().expect("a manifest is TOML");
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            wrong.push(format!("{}: Cargo.toml lacks [lints] workspace = true", package.name));
        }
        let folder = package.manifest_path.parent().expect("a manifest has a folder").join("src");
        for root in ["lib.rs", "main.rs"].map(|file| folder.join(file)).iter().filter(|path| path.is_file()) {
            let source = std::fs::read_to_string(root).expect("a crate root can be read");
            if !source.starts_with("//! ") {
                wrong.push(format!("{}: {} does not open with what it promises (//!)", package.name, root.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_source_file_is_two_things() {
    let mut wrong = Vec::new();
    for (path, text) in tracked_texts() {
        let lines = text.lines().count();
        if path.extension().is_some_and(|ending| ending == "rs") && lines > LINES_NOTED {
            println!("{}: {lines} lines", path.display());
            if lines > LINES_MAX {
                wrong.push(format!("{}: {lines} lines, the limit is {LINES_MAX}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_committed_file_knows_a_machine_or_a_registry_host() {
    // Written in halves, so that this file does not find itself.
    let traces: Vec<String> = [
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/tmp/", "bash_jobs"),
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("static.cra", "tes.io"),
        ("index.cra", "tes.io"),
        ("registry.np", "mjs"),
        ("deb.deb", "ian.org"),
        ("proxy.gol", "ang.org"),
    ]
    .iter()
    .map(|(start, end)| format!("{start}{end}"))
    .collect();
    let mut wrong = Vec::new();
    for (path, text) in tracked_texts() {
        for (number, line) in text.lines().enumerate() {
            if let Some(trace) = traces.iter().find(|trace| line.contains(trace.as_str())) {
                wrong.push(format!("{}:{}: {trace}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tracked files that are text, with their paths in the workspace.
fn tracked_texts() -> Vec<(std::path::PathBuf, String)> {
    let files = metadata::tracked_files().expect("git ls-files");
    assert!(
        files.iter().any(|path| path == Path::new("Cargo.toml")),
        "git lists no Cargo.toml: something else was read"
    );
    let read = |path: std::path::PathBuf| {
        let bytes = std::fs::read(paths::workspace().join(&path)).ok()?;
        String::from_utf8(bytes).ok().map(|text| (path, text))
    };
    files.into_iter().filter_map(read).collect()
}
