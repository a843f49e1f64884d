//! The python peers: small programs in tests/peers, run with the pinned pynetdicom, pydicom and highdicom of `.venv`.
//!
//! In: a program's name and arguments. Out: the JSON that it prints, or a running receiver. Promise: a failed one is an error with
//! its traceback.

use crate::paths;
use crate::process::Running;
use anyhow::{Context as _, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

fn command<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<Command> {
    let mut command = Command::new(paths::python()?);
    command
        .arg(paths::workspace().join("tests/peers").join(program))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Runs a program to its end; its standard output is one JSON value.
///
/// # Errors
/// When it fails or prints something else.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<serde_json::Value> {
    let output = command(program, arguments)?.output().context("run python")?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{program} printed no JSON: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Starts a program that runs until it is stopped; it prints into `log`.
///
/// # Errors
/// When it cannot be started.
pub fn start<A: AsRef<OsStr>>(program: &str, arguments: &[A], log: &Path) -> anyhow::Result<Running> {
    Running::start(program, &mut command(program, arguments)?, log)
}
