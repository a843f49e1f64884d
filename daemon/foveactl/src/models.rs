//! Asks the daemon to change its set of models, and shows it.
//!
//! In: bundles, ids, versions. Out: what was done, or why not and what to do. Promise: a bundle is handed over as bytes, so the daemon
//! opens no path that a caller names; who only looks never waits for a change.

use crate::InstallArgs;
use crate::client::Client;
use crate::table::{Table, duration, json_line};
use anyhow::{Context, bail};
use fovea_infer::BundleFiles;
use fovea_review::{BUNDLE_BYTES_MAX, Changed, Kept, ModelList, ModelRow, Origin, RowState};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

pub async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let list: ModelList = client.get("/v1/models").await?;
    let mut table = Table::new(&["model", "version", "origin", "state", "latency", "task", "sha256"]);
    for row in list.models {
        if json { json_line(&row)? } else { table.row(cells(&row)) }
    }
    if !json {
        table.print()?;
    }
    // Beside the list, not in it: the rows are those of now.
    let status: Value = client.get("/v1/status").await?;
    if let Some(doing) = status["model_store"]["doing"].as_str() {
        writeln!(std::io::stderr().lock(), "busy: {doing}")?;
    }
    Ok(())
}

fn cells(row: &ModelRow) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let state = match (row.state, row.active, &row.refused) {
        (RowState::Refused, _, why) => format!("refused: {}", why.as_deref().unwrap_or("-")),
        (RowState::Serving, true, _) => "serving".to_owned(),
        (RowState::Serving, false, _) => "serving in the place of a refused one".to_owned(),
        (RowState::Idle, true, _) => "should serve, no worker yet".to_owned(),
        (RowState::Idle, false, _) => "idle".to_owned(),
    };
    let origin = match row.origin {
        Origin::BuiltIn => "built-in",
        Origin::Installed => "installed",
    };
    let sha256 = row.sha256.map_or_else(|| "-".to_owned(), |sha256| sha256.to_string().chars().take(12).collect());
    let id = row.id.clone().unwrap_or_else(|| row.path.display().to_string());
    let latency = row.latency_us_p50.map_or_else(|| "-".to_owned(), duration);
    vec![id, text(&row.version), origin.to_owned(), state, latency, text(&row.task), sha256]
}

pub async fn install(client: &Client, args: &InstallArgs, json: bool) -> anyhow::Result<()> {
    let tar = packed(&args.bundle)?;
    let activate = args.activate || !args.no_activate;
    told(&client.post(&format!("/v1/models?activate={activate}"), tar).await?, json)
}

pub async fn activate(client: &Client, id: &str, version: &str, json: bool) -> anyhow::Result<()> {
    named(id)?;
    named(version)?;
    // `+` is a space in a query.
    let version = version.replace('+', "%2B");
    told(&client.post(&format!("/v1/models/{id}/activate?version={version}"), Vec::new()).await?, json)
}

pub async fn rollback(client: &Client, id: &str, json: bool) -> anyhow::Result<()> {
    named(id)?;
    told(&client.post(&format!("/v1/models/{id}/rollback"), Vec::new()).await?, json)
}

/// Only what a bundle may be called goes into a request's path.
fn named(name: &str) -> anyhow::Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".+-".contains(&b);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
        bail!("{name:?} is no id or version of a bundle: see `foveactl models list`");
    }
    Ok(())
}

fn told(changed: &Changed, json: bool) -> anyhow::Result<()> {
    if json {
        return json_line(changed);
    }
    let name = format!("{} {}", changed.id, changed.version);
    let kept = match changed.kept {
        Some(Kept::New) => format!("{name} is installed. "),
        Some(Kept::Already) => format!("{name} was installed already. "),
        Some(Kept::Repaired) => format!("{name} was installed and damaged, and is whole again. "),
        None => String::new(),
    };
    let serves = match (&changed.before, changed.active) {
        (Some(before), true) if *before != changed.version => format!("{name} serves now, in the place of {before}."),
        (_, true) => format!("{name} serves now."),
        (Some(before), false) => {
            format!("{before} goes on serving; let it serve with: foveactl models activate {name}")
        }
        (None, false) => {
            format!("Nothing serves as {}; let it serve with: foveactl models activate {name}", changed.id)
        }
    };
    Ok(writeln!(std::io::stdout().lock(), "{kept}{serves}")?)
}

/// A bundle as the bytes of a tar file: a *.fovea file as it is, a folder packed.
fn packed(path: &Path) -> anyhow::Result<Vec<u8>> {
    match BundleFiles::open(path)? {
        BundleFiles::Tar(file) => whole(&file, path),
        BundleFiles::Folder(files) => {
            let mut tar = tar::Builder::new(Vec::new());
            for (name, file) in &files {
                let bytes = whole(file, path)?;
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, bytes.as_slice())?;
                if tar.get_ref().len() as u64 > BUNDLE_BYTES_MAX {
                    bail!("{} has more than {BUNDLE_BYTES_MAX} bytes, which no bundle has", path.display());
                }
            }
            Ok(tar.into_inner()?)
        }
    }
}

fn whole(file: &File, path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        bail!("{} has more than {BUNDLE_BYTES_MAX} bytes, which no bundle has", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_bundles_become_part_of_a_request() {
        for name in ["dr-screening", "1.0.0", "1.0.0-rc.1+build"] {
            assert!(named(name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "a b", "a?b", "a%2f", ".x"] {
            assert!(named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_is_packed_with_its_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("golden")).unwrap();
        std::fs::write(folder.path().join("bundle.toml"), "x").unwrap();
        std::fs::write(folder.path().join("golden/a.bin"), "12").unwrap();
        let bytes = packed(folder.path()).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> =
            tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["bundle.toml", "golden/a.bin"]);
    }
}
