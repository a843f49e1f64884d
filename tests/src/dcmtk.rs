//! The command-line peers: DCMTK's senders, receivers, converters and dumpers, and dciodvfy of dicom3tools.
//!
//! In: arguments. Out: exit status and what was printed. Promise: a program that is not installed is an error that names its cure.

use crate::ports;
use crate::process::Running;
use crate::wait;
use anyhow::{Context as _, ensure};
use std::ffi::OsStr;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How a program ended.
#[derive(Debug)]
pub struct Done {
    /// True for exit status 0.
    pub success: bool,
    /// Standard output, then standard error.
    pub text: String,
}

/// Runs a program to its end.
///
/// # Errors
/// When it is not installed.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<Done> {
    let mut command = Command::new(program);
    // Without it DCMTK's peers wait 40 ms for each response.
    command.args(arguments).env("TCP_NODELAY", "1");
    let output =
        command.output().with_context(|| format!("{program} is not installed: run `scripts/setup-peers.sh`"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(Done { success: output.status.success(), text })
}

/// The same, and it must succeed.
///
/// # Errors
/// With what it printed.
pub fn succeed<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<String> {
    let done = run(program, arguments)?;
    ensure!(done.success, "{program}: {}", done.text);
    Ok(done.text)
}

/// The errors that dciodvfy finds in an object; warnings are left out.
///
/// # Errors
/// When dciodvfy is not installed or could not read the file.
pub fn structure_errors(path: &Path) -> anyhow::Result<Vec<String>> {
    let done = run("dciodvfy", &[path])?;
    // It names the information object that it checked against; without that line it checked nothing.
    let known = done
        .text
        .lines()
        .any(|line| !line.starts_with("Error") && !line.starts_with("Warning") && !line.trim().is_empty());
    ensure!(known, "dciodvfy did not recognise {}: {}", path.display(), done.text);
    Ok(done.text.lines().filter(|line| line.starts_with("Error")).map(str::to_owned).collect())
}

/// DCMTK's storescp as a receiver; `folder` takes what it stores.
///
/// # Errors
/// When it is not up within 10 seconds.
pub fn storescp(folder: &Path, arguments: &[&str]) -> anyhow::Result<(Running, u16)> {
    let port = ports::free()?;
    Ok((storescp_at(folder, port, arguments)?, port))
}

/// The same on a port that was chosen before.
///
/// # Errors
/// When it is not up within 10 seconds.
pub fn storescp_at(folder: &Path, port: u16, arguments: &[&str]) -> anyhow::Result<Running> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut command = Command::new("storescp");
    command.arg("-od").arg(folder).args(arguments).arg(port.to_string()).env("TCP_NODELAY", "1");
    let mut running = Running::start("storescp", &mut command, &folder.with_extension("log"))?;
    wait::until(
        Duration::from_secs(10),
        || "storescp to listen".into(),
        || {
            ensure!(running.ended()?.is_none(), "storescp ended at once\n{}", running.log_tail());
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        },
    )?;
    Ok(running)
}
