//! Where things are: the workspace, the built programs, the samples, the model.
//!
//! In: the place of the running program, and `FOVEA_BIN_DIR` and `FOVEA_OPENVINO_DIR` where set. Out: paths that exist.
//! Promise: a path that is not there is an error that names the command that makes it.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};

/// Root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    // The manifest folder is <workspace>/tests, so it has a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// A program of the workspace, built with the same profile as the running one: beside it, or beside its `deps` folder.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("FOVEA_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe().context("find the running program")?;
            let folder = own.parent().context("the running program lies in no folder")?;
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
        }
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run `make test`, or `cargo build --workspace --bins` with the same profile, or name its folder in FOVEA_BIN_DIR",
        path.display()
    );
    Ok(path)
}

/// A picture or object that `scripts/fetch-samples.sh` put into runtime/samples.
///
/// # Errors
/// When it has not been fetched.
pub fn sample(name: &str) -> anyhow::Result<PathBuf> {
    existing(workspace().join("runtime/samples").join(name), "scripts/fetch-samples.sh")
}

/// The OpenVINO runtime's folder.
///
/// # Errors
/// When it has not been fetched.
pub fn openvino() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("FOVEA_OPENVINO_DIR").map(PathBuf::from);
    existing(folder.unwrap_or_else(|| workspace().join("runtime/openvino")), "scripts/fetch-openvino.sh")
}

/// The eye model's bundle.
///
/// # Errors
/// When it is not in the tree.
pub fn bundle() -> anyhow::Result<PathBuf> {
    existing(workspace().join("image/models/dr-screening/bundle"), "git checkout image/models")
}

/// Every bundle of the project, by name.
///
/// # Errors
/// When the folder of models cannot be read.
pub fn bundles() -> anyhow::Result<Vec<PathBuf>> {
    let models = workspace().join("image/models");
    let entries = std::fs::read_dir(&models).with_context(|| format!("read {}", models.display()))?;
    let mut bundles: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path().join("bundle")))
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|bundle| bundle.join("bundle.toml").exists())
        .collect();
    bundles.sort();
    Ok(bundles)
}

/// The public key that the bundle's signature is checked against.
///
/// # Errors
/// When it is not in the tree.
pub fn trusted_key() -> anyhow::Result<PathBuf> {
    existing(workspace().join("image/models/trust/fovea-models.pub"), "git checkout image/models")
}

/// The python of the peers.
///
/// # Errors
/// When it has not been set up.
pub fn python() -> anyhow::Result<PathBuf> {
    existing(workspace().join(".venv/bin/python3"), "scripts/setup-peers.sh")
}

fn existing(path: PathBuf, cure: &str) -> anyhow::Result<PathBuf> {
    ensure!(path.exists(), "{} is not there: run `{cure}`", path.display());
    Ok(path)
}
