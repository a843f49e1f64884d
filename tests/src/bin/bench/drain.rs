//! The outbox drains to storescp on loopback: objects a second, beside DCMTK's dcmsend over the same objects.
//! Budget: as fast as dcmsend, so that a night's pixels go in a night; every delivery is durable here before its file may go.

use crate::machine::Machine;
use crate::numbers::{Row, median};
use anyhow::{Context as _, ensure};
use fovea_core::What;
use fovea_tests::node::Setup;
use fovea_tests::sample::Sample;
use fovea_tests::{dcmtk, ports, wait};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const OBJECTS: u64 = 1_000;
/// The box looks for an archive that was away so often.
const RETRY_MS: u64 = 200;

/// Both, in turns.
///
/// # Errors
/// When a program does not start or an object does not arrive.
pub fn measure(machine: &Machine, rounds: u32) -> anyhow::Result<Vec<Row>> {
    let parent = machine.memory.clone().unwrap_or_else(|| machine.disk.clone());
    let source = tempfile::tempdir_in(&parent).context("make a folder")?;
    for seed in 0..OBJECTS {
        let mut sample = Sample::secondary_capture(seed);
        sample.study_seed = seed / 20;
        sample.write(source.path())?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(our_round(&machine.disk, source.path())?);
        theirs.push(dcmsend_round(&parent, source.path())?);
    }
    let (ours, theirs) = (median(&ours), median(&theirs));
    let what = format!("outbox drain, {OBJECTS} x 512x512, disk, to storescp");
    let row = Row::new(what, format!("{ours:.0}/s, noted durably"));
    Ok(vec![row.beside(format!("dcmsend {theirs:.0}/s"), ours / theirs).wanted(">= 1")])
}

/// The archive comes when everything waits; timed from its first object to its last.
fn our_round(parent: &Path, source: &Path) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(parent).context("make a folder")?;
    let port = ports::free()?;
    let toml = format!(
        "[[sync.destination]]\nname = 'archive'\nkind = 'dimse'\naddress = '127.0.0.1:{port}'\nae_title = 'STORESCP'\n\
         what = ['originals']\nretry_min_ms = {RETRY_MS}\nretry_max_ms = {RETRY_MS}\n"
    );
    let mut node = Setup::new(folder.path())?.config(&toml).start()?;
    let files: Vec<_> = std::fs::read_dir(source)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    node.send(&files)?;
    let waiting = || {
        std::thread::sleep(Duration::from_millis(500));
        let parcels = node.ctl().outbox()?;
        let originals = parcels.iter().filter(|state| state.parcel.what == What::Originals).count();
        Ok((originals as u64 >= OBJECTS).then_some(()))
    };
    wait::until(Duration::from_secs(300), || "all originals in the outbox".into(), waiting)?;
    let stored = folder.path().join("stored");
    let _archive = dcmtk::storescp_at(&stored, port, &["--fork", "+B", "--max-pdu", "131072"])?;
    let arrived = || Ok::<_, anyhow::Error>(std::fs::read_dir(&stored)?.count() as u64);
    let far = || "all originals to arrive".to_owned();
    let first = wait::until(Duration::from_secs(30), far, || Ok(Some(arrived()?).filter(|count| *count > 0)))?;
    let begun = Instant::now();
    wait::until(Duration::from_secs(120), far, || Ok((arrived()? >= OBJECTS).then_some(())))?;
    let rate = (OBJECTS - first) as f64 / begun.elapsed().as_secs_f64();
    node.stop()?;
    Ok(rate)
}

fn dcmsend_round(parent: &Path, source: &Path) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(parent).context("make a folder")?;
    let (_server, port) = dcmtk::storescp(&folder.path().join("stored"), &["--fork", "+B", "--max-pdu", "131072"])?;
    let mut command = Command::new("dcmsend");
    command.args(["--scan-directories", "--max-pdu", "131072", "127.0.0.1"]).arg(port.to_string()).arg(source);
    let begun = Instant::now();
    let output = command.env("TCP_NODELAY", "1").output().context("run dcmsend")?;
    ensure!(output.status.success(), "dcmsend: {}", String::from_utf8_lossy(&output.stderr));
    Ok(OBJECTS as f64 / begun.elapsed().as_secs_f64())
}
