//! C-STORE of a thousand ultrasound-sized objects: durable here, beside DCMTK's storescp, which syncs nothing.
//! Budget: as fast as storescp, so that a durable answer costs a sender no time.

use crate::machine::Machine;
use crate::numbers::{Row, median};
use anyhow::{Context as _, ensure};
use fovea_core::What;
use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::{dcmtk, paths, process, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const OBJECTS: u64 = 1_000;

/// What one server did in one round.
struct Round {
    /// Objects a second, by the sender.
    rate: f64,
    /// Processor time of the server until the last response, ms an object.
    processor_ms: f64,
}

/// What our box did besides.
struct OurRound {
    stored: Round,
    /// Processor time until every outcome and report is in the outbox, ms an object.
    settled_ms: f64,
    resident: (u64, u64),
}

/// All places, 1 and 4 associations, all servers in turns.
///
/// # Errors
/// When a server does not start or an object is not stored.
pub fn measure(machine: &Machine, rounds: u32) -> anyhow::Result<Vec<Row>> {
    let source_parent = machine.memory.clone().unwrap_or_else(|| machine.disk.clone());
    let source = tempfile::tempdir_in(source_parent).context("make a folder")?;
    for seed in 0..OBJECTS {
        let mut sample = Sample::secondary_capture(seed);
        // As from a device at work: twenty pictures to a study.
        sample.study_seed = seed / 20;
        sample.write(source.path())?;
    }
    let mut rows = Vec::new();
    let places = [Some(("disk", &machine.disk)), machine.memory.as_ref().map(|folder| ("tmpfs", folder))];
    for (place, folder) in places.into_iter().flatten() {
        for associations in [1, 4] {
            rows.extend(compare(place, folder, source.path(), associations, rounds)?);
        }
    }
    Ok(rows)
}

fn compare(place: &str, parent: &Path, source: &Path, associations: u16, rounds: u32) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut alone, mut plain, mut tuned) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(our_round(parent, source, associations)?);
        alone.push(our_ingest_alone(parent, source, associations)?);
        plain.push(storescp_round(parent, source, associations, &["--fork"])?);
        tuned.push(storescp_round(parent, source, associations, &["--fork", "+B", "--max-pdu", "131072"])?);
    }
    let rate = |rounds: &mut dyn Iterator<Item = &Round>| median(&rounds.map(|round| round.rate).collect::<Vec<_>>());
    let cost =
        |rounds: &mut dyn Iterator<Item = &Round>| median(&rounds.map(|round| round.processor_ms).collect::<Vec<_>>());
    let our_rate = rate(&mut ours.iter().map(|round| &round.stored));
    let our_cost = cost(&mut ours.iter().map(|round| &round.stored));
    let settled = median(&ours.iter().map(|round| round.settled_ms).collect::<Vec<_>>());
    let what = format!("C-STORE {OBJECTS} x 512x512, {place}, {associations} assoc.");
    let beside = |name: &str, rounds: &[Round]| {
        let (rate, cost) = (rate(&mut rounds.iter()), cost(&mut rounds.iter()));
        (format!("{name} {rate:.0}/s, {cost:.2} ms CPU"), our_rate / rate)
    };
    let figure = format!("{our_rate:.0}/s durable, {our_cost:.2} ms CPU");
    let (alone_rate, alone_cost) = (rate(&mut alone.iter()), cost(&mut alone.iter()));
    let alone_figure = format!("{alone_rate:.0}/s durable, {alone_cost:.2} ms CPU");
    let alone_ratio = alone_rate / rate(&mut tuned.iter());
    let (best, best_ratio) = beside("storescp +B 128 KiB PDU", &tuned);
    let (usual, usual_ratio) = beside("storescp", &plain);
    let best_again = "storescp +B 128 KiB PDU";
    let resident = ours.last().map_or((0, 0), |round| round.resident);
    Ok(vec![
        Row::new(what, figure).beside(best, best_ratio).wanted(">= 1"),
        Row::new("  the same", String::new()).beside(usual, usual_ratio),
        Row::new("  without outcomes meanwhile", alone_figure).beside(best_again, alone_ratio).wanted(">= 1"),
        Row::new("  with outcome, report and copy", format!("{settled:.2} ms CPU")).remark(format!(
            "daemon {} MiB, worker {} MiB resident",
            resident.0 >> 20,
            resident.1 >> 20
        )),
    ])
}

fn our_round(parent: &Path, source: &Path, associations: u16) -> anyhow::Result<OurRound> {
    let folder = tempfile::tempdir_in(parent).context("make a folder")?;
    let mut node = Setup::new(folder.path())?.start()?;
    let pids = [node.process()?.pid(), node.worker_pid()?];
    let before = processor_ms(&pids)?;
    let rate = send(source, &node.address(), associations)?;
    let stored_ms = (processor_ms(&pids)? - before) / OBJECTS as f64;
    wait_until_settled(&node)?;
    let settled_ms = (processor_ms(&pids)? - before) / OBJECTS as f64;
    let resident = node.resident_bytes()?;
    node.stop()?;
    Ok(OurRound { stored: Round { rate, processor_ms: stored_ms }, settled_ms, resident })
}

/// Ingest alone: the worker sleeps, so no object gets its outcome while others come. Shows what is receiving and what is the rest.
fn our_ingest_alone(parent: &Path, source: &Path, associations: u16) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir_in(parent).context("make a folder")?;
    let mut node = Setup::new(folder.path())?.start()?;
    let daemon = [node.process()?.pid()];
    let worker = Pid::from_raw(node.worker_pid()?.cast_signed());
    kill(worker, Signal::SIGSTOP).context("send the worker to sleep")?;
    let before = processor_ms(&daemon)?;
    let rate = send(source, &node.address(), associations)?;
    let processor_ms = (processor_ms(&daemon)? - before) / OBJECTS as f64;
    // On a slow disk the daemon may have given it up for another by now.
    let _given_up = kill(worker, Signal::SIGCONT);
    node.stop()?;
    Ok(Round { rate, processor_ms })
}

/// Looks seldom, because looking costs the box processor time that is counted.
fn wait_until_settled(node: &Node) -> anyhow::Result<()> {
    let reports = || {
        std::thread::sleep(Duration::from_secs(1));
        let parcels = node.ctl().outbox()?;
        let reports = parcels.iter().filter(|state| state.parcel.what == What::Findings).count();
        Ok((reports as u64 >= OBJECTS).then_some(()))
    };
    wait::until(Duration::from_secs(180), || "all reports".into(), reports)
}

fn storescp_round(parent: &Path, source: &Path, associations: u16, arguments: &[&str]) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir_in(parent).context("make a folder")?;
    let (server, port) = dcmtk::storescp(&folder.path().join("stored"), arguments)?;
    let before = processor_ms(&[server.pid()])?;
    let rate = send(source, &format!("STORESCP@127.0.0.1:{port}"), associations)?;
    // Its children are counted once they have ended.
    std::thread::sleep(Duration::from_millis(200));
    let used = processor_ms(&[server.pid()])? - before;
    Ok(Round { rate, processor_ms: used / OBJECTS as f64 })
}

fn processor_ms(pids: &[u32]) -> anyhow::Result<f64> {
    let times = pids.iter().map(|&pid| {
        process::processor_time(pid).with_context(|| format!("process {pid} has ended")).map(|time| time.as_secs_f64())
    });
    Ok(times.sum::<anyhow::Result<f64>>()? * 1e3)
}

/// `foveactl send` over a folder; objects a second, without the time that it takes to look at the files.
fn send(source: &Path, to: &str, associations: u16) -> anyhow::Result<f64> {
    let program: PathBuf = paths::program("foveactl")?;
    let mut command = Command::new(program);
    command.arg("send").arg(source).args(["--to", to, "--associations", &associations.to_string()]);
    let output = command.output().context("run foveactl send")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "foveactl send: {said}{}", String::from_utf8_lossy(&output.stderr));
    let rate = said.rsplit_once('(').and_then(|(_, end)| end.split_once("/s)")).map(|(rate, _)| rate);
    let rate = rate.and_then(|rate| rate.trim().parse().ok());
    rate.with_context(|| format!("foveactl send prints a rate: {said}"))
}
