//! What cargo knows of the workspace and of every outside crate, and what git tracks.
//!
//! In: `cargo metadata`, `git ls-files`. Out: packages with their dependencies, paths of tracked files.
//! Promise: only what the committed lock file names; nothing is written.

use crate::paths;
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Command;

/// The part of `cargo metadata` that the tests read.
#[derive(Deserialize, Debug)]
pub struct Metadata {
    /// Workspace members and, where asked for, every outside crate.
    pub packages: Vec<Package>,
    /// Ids of the members.
    pub workspace_members: Vec<String>,
}

/// One crate.
#[derive(Deserialize, Debug)]
pub struct Package {
    /// Opaque id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SPDX expression, none where the crate states none.
    pub license: Option<String>,
    /// Where it came from; none for a path in this workspace.
    pub source: Option<String>,
    /// Its Cargo.toml.
    pub manifest_path: PathBuf,
    /// What it names.
    pub dependencies: Vec<Dependency>,
}

/// One line below a `[dependencies]` heading.
#[derive(Deserialize, Debug)]
pub struct Dependency {
    /// Crate named.
    pub name: String,
    /// None for a normal one, else `dev` or `build`.
    pub kind: Option<String>,
}

impl Metadata {
    /// The workspace's own crates.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

/// The members alone.
///
/// # Errors
/// When cargo fails or answers something else.
pub fn members() -> anyhow::Result<Metadata> {
    metadata(&["--no-deps"])
}

/// Members and all outside crates that a build for `target` may use.
///
/// # Errors
/// When cargo fails, for instance because Cargo.lock is not up to date.
pub fn everything(target: &str) -> anyhow::Result<Metadata> {
    metadata(&["--locked", "--filter-platform", target])
}

fn metadata(arguments: &[&str]) -> anyhow::Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1"]).args(arguments).current_dir(paths::workspace());
    let output = command.output().context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

/// Paths that git tracks, relative to the workspace, of files that are there.
///
/// # Errors
/// When git fails.
pub fn tracked_files() -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(paths::workspace())
        .output()
        .context("run git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).context("a tracked path is not UTF-8")?;
    let files = listing.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(files.filter(|path| paths::workspace().join(path).is_file()).collect())
}
