//! Checks and mends what a stopped box keeps.
//!
//! In: the state folder of a daemon that does not run. Out: a report on standard output; how far it is, on standard error.
//! Promise: it never works beside a daemon; it makes no store where none is; whoever calls it, files stay the folder's owner's, so that
//! the daemon can go on with them.

use crate::table::{Table, json_line};
use crate::views;
use anyhow::{Context, bail, ensure};
use fovea_core::{ObjectHeader, Sender};
use fovea_receive::object_file_header;
use fovea_store::{Config, Progress, Step, Store, StoreError};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use serde::Serialize;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

pub fn verify(state: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let store = open(state)?;
    let mut steps = Steps::default();
    let report = store.verify(&mut |progress| steps.show(progress))?;
    steps.end();
    told(&report, report.is_sound(), "foveactl store rebuild mends what can be mended", json)
}

pub fn rebuild(state: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let store = open(state)?;
    let mut steps = Steps::default();
    let report = store.rebuild(&header_of, &mut |progress| steps.show(progress))?;
    steps.end();
    // A view of what is held, by places that may be others now: the daemon makes it anew.
    match std::fs::remove_dir_all(state.join("catalogue")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("remove the catalogue");
        }
        _ => {}
    }
    let cure = "what is missing or damaged takes its place again when its sender sends it once more, or when a good file is put into quarantine/damaged and this is called again";
    told(&report, report.verified.is_sound(), cure, json)
}

/// Opens the store of a stopped box, without the upkeep that a daemon does beside its work.
fn open(state: &Path) -> anyhow::Result<Arc<Store>> {
    let folder = as_owner(state)?;
    ensure!(
        folder.join("journal").is_dir(),
        "{} holds no store: name the daemon's state folder with --state DIR",
        state.display()
    );
    match Store::open(&Config { upkeep_every: None, ..Config::at(&folder) }) {
        Ok(store) => Ok(store),
        Err(StoreError::Locked { owner, .. }) => {
            let process: Vec<&str> = owner.split_whitespace().take(2).collect();
            bail!(
                "the daemon runs ({}) and owns {}\n  what to do: systemctl stop fovead, then this again, then systemctl start fovead",
                process.join(" "),
                state.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("open the store in {}", state.display())),
    }
}

/// Goes on as the user whom the state folder belongs to: files that root made there the daemon could not write.
/// The folder as it is to be named from then on.
fn as_owner(state: &Path) -> anyhow::Result<PathBuf> {
    let found = std::fs::metadata(state);
    let found = found.with_context(|| {
        format!("{} cannot be seen: name the state folder with --state DIR, as root or as its owner", state.display())
    })?;
    // What is written names patients: for the owner's eyes only, as the unit has it.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let owner = Uid::from_raw(found.uid());
    if owner == geteuid() {
        return Ok(state.to_owned());
    }
    ensure!(
        geteuid().is_root(),
        "{} belongs to the user with number {owner}: call this as root, or as that user",
        state.display()
    );
    // The folders above may be closed to the owner, as /var/lib/private is: from here on nobody asks them.
    std::env::set_current_dir(state).with_context(|| format!("go to {}", state.display()))?;
    let dropped = setgroups(&[]).and_then(|()| setgid(Gid::from_raw(found.gid()))).and_then(|()| setuid(owner));
    dropped.context("take on the user of the state folder")?;
    Ok(PathBuf::from("."))
}

/// What the daemon would have noted of an object when it came: by its head and its data set.
fn header_of(file: &File) -> Option<(ObjectHeader, Sender)> {
    // Shares the position with `file`, which is sought anew by each reader.
    let mut file = file.try_clone().ok()?;
    let header = object_file_header(&mut file).ok()?;
    let sender = fovea_dimse::part10_head(&mut file).ok()?.source_ae.map_or(Sender::Capture, Sender::Dimse);
    Some((header, sender))
}

fn told(report: &impl Serialize, sound: bool, cure: &str, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        json_line(report)?;
    } else {
        let mut table = Table::new(&["what", "found"]);
        views::flatten("", &serde_json::to_value(report)?, &mut |name, value| table.row(vec![name.to_owned(), value]));
        table.print()?;
        let mut out = std::io::stdout().lock();
        match sound {
            true => writeln!(out, "Sound: everything is as it was acknowledged")?,
            false => writeln!(out, "NOT sound\n  what to do: {cure}")?,
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How far it is: a bar where somebody looks, a line for each step elsewhere; both on standard error.
#[derive(Default)]
struct Steps(Option<(Step, ProgressBar)>);

impl Steps {
    fn show(&mut self, progress: Progress) {
        if let Some((_, bar)) = self.0.as_ref().filter(|(step, _)| *step == progress.step) {
            bar.set_length(progress.total);
            return bar.set_position(progress.done);
        }
        self.end();
        let what = match progress.step {
            Step::Journal => "files of the journal",
            Step::Index => "objects that the index knows",
            Step::Strays => "files without a record",
            Step::Objects => "objects",
            Step::Parcels => "parcels",
        };
        if !std::io::stderr().is_terminal() {
            eprintln!("foveactl: looking at {} {what}", progress.total);
        }
        // It hides itself where nobody looks.
        let bar = ProgressBar::new(progress.total).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}  {per_sec}  {eta} left") {
            bar.set_style(style);
        }
        bar.set_position(progress.done);
        self.0 = Some((progress.step, bar));
    }

    fn end(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_store_is_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        for state in [folder.path().to_owned(), folder.path().join("missing")] {
            let error = format!("{:#}", verify(&state, true).unwrap_err());
            assert!(error.contains("--state DIR"), "{error}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn beside_a_daemon_nothing_is_done_and_the_error_says_how_to_stop_it() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Store::open(&Config::at(folder.path())).unwrap();
        for outcome in [verify(folder.path(), true), rebuild(folder.path(), true)] {
            let error = format!("{:#}", outcome.unwrap_err());
            assert!(error.contains("systemctl stop fovead"), "{error}");
            assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        }
        drop(daemon);
        assert_eq!(verify(folder.path(), true).unwrap(), ExitCode::SUCCESS);
    }
}
