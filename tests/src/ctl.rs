//! `foveactl` as a test's hands and eyes: everything that a test knows of a running box it knows through the public command line.
//!
//! In: the state folder of a daemon. Out: its JSON, in the types of `fovea-core`. Promise: a failed command is an error with what it said.

use crate::{paths, wait};
use anyhow::{Context as _, ensure};
use fovea_core::{Finding, ParcelState, Quarantined};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The command line, bound to one state folder.
#[derive(Debug, Clone)]
pub struct Ctl {
    state: PathBuf,
}

/// What `foveactl show --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub struct Detail {
    /// The finding; its keys stand at the top level.
    #[serde(flatten)]
    pub finding: Finding,
    /// The stored object.
    pub object_path: PathBuf,
    /// What left or will leave the box for it.
    pub sent: Vec<ParcelState>,
    /// Copies that were held back.
    pub quarantined: Vec<Quarantined>,
}

/// What `foveactl send --json` prints of one file.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// The file.
    pub path: PathBuf,
    /// Its instance.
    pub sop_instance_uid: String,
    /// `stored`, `warned` or `failed`.
    pub outcome: String,
    /// DIMSE status or error, in words.
    pub says: String,
    /// From the first byte sent to the response, microseconds.
    pub us: u64,
}

impl Ctl {
    /// Binds to the daemon that keeps its state in `state`.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The one object of `status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        let rows: Vec<serde_json::Value> = self.rows(&["status", "--json"])?;
        rows.into_iter().next().context("status prints one object")
    }

    /// All findings, in the order of recording.
    ///
    /// # Errors
    /// When the daemon does not answer, or a finding cannot be read.
    pub fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        self.rows(&["findings", "--json"])
    }

    /// All that is known of one finding, by its id or by SOP Instance UID.
    ///
    /// # Errors
    /// When there is none.
    pub fn show(&self, id: &str) -> anyhow::Result<Detail> {
        self.rows(&["show", id, "--json"])?.into_iter().next().context("show prints one object")
    }

    /// All parcels, oldest first.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn outbox(&self) -> anyhow::Result<Vec<ParcelState>> {
        self.rows(&["outbox", "--json"])
    }

    /// Waits for the outcome of one object.
    ///
    /// # Errors
    /// When there is none after `limit`.
    pub fn wait_for_finding(&self, sop_instance_uid: &str, limit: Duration) -> anyhow::Result<Finding> {
        let missing = || format!("the outcome of {sop_instance_uid}");
        wait::until(limit, missing, || {
            Ok(self.findings()?.into_iter().find(|finding| finding.sop_instance_uid.as_str() == sop_instance_uid))
        })
    }

    /// Waits until report and copy of an object are dispatched, and each parcel is delivered to (or refused by) `destinations` many.
    ///
    /// # Errors
    /// When that is not so after `limit`; the error says how far it came.
    pub fn wait_for_delivery(&self, id: &str, destinations: usize, limit: Duration) -> anyhow::Result<Detail> {
        let far = std::cell::RefCell::new(String::from("nothing is known of it"));
        wait::until(
            limit,
            || format!("what {id} sends; so far: {}", far.borrow()),
            || {
                let detail = self.show(id)?;
                let settled = |parcel: &ParcelState| parcel.delivered.len() + parcel.set_aside.len() >= destinations;
                let done = !detail.sent.is_empty() && detail.sent.iter().all(settled);
                *far.borrow_mut() = format!("{:?}", detail.sent);
                Ok(done.then_some(detail))
            },
        )
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<Vec<T>> {
        let output = run(Command::new(paths::program("foveactl")?).arg("--state").arg(&self.state).args(arguments))?;
        ensure!(
            output.status.success(),
            "foveactl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        lines(&output.stdout).with_context(|| format!("read what foveactl {} prints", arguments.join(" ")))
    }
}

/// `foveactl send`: one row for each file, whatever became of it.
///
/// # Errors
/// When it could not send at all, for instance because nobody listens.
pub fn send(files: &[PathBuf], to: &str, associations: u16) -> anyhow::Result<Vec<Sent>> {
    let mut command = Command::new(paths::program("foveactl")?);
    command.arg("send").args(files).args(["--to", to, "--associations", &associations.to_string(), "--json"]);
    let output = run(&mut command)?;
    let rows: Vec<Sent> = lines(&output.stdout).context("read what foveactl send prints")?;
    ensure!(!rows.is_empty(), "foveactl send: {}", String::from_utf8_lossy(&output.stderr));
    Ok(rows)
}

/// The same, and every file must have been stored.
///
/// # Errors
/// When one was not.
pub fn send_all(files: &[PathBuf], to: &str, associations: u16) -> anyhow::Result<Vec<Sent>> {
    let rows = send(files, to, associations)?;
    ensure!(rows.len() == files.len(), "{} of {} files were sent: {rows:?}", rows.len(), files.len());
    for row in &rows {
        ensure!(row.outcome == "stored", "{}: {}: {}", row.path.display(), row.outcome, row.says);
    }
    Ok(rows)
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    command.output().with_context(|| format!("run {}", command.get_program().display()))
}

fn lines<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<Vec<T>> {
    let text = std::str::from_utf8(bytes).context("not UTF-8")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not what is expected: {line}")))
        .collect()
}
