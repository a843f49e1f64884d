//! Kills: nothing acknowledged is lost, nothing is done twice (invariants 1, 2, 4 and 7).
//!
//! In: a box that is sent objects while it, or its worker, is killed at random moments. Out: counts of what was acknowledged, what got
//! an outcome, what the archive holds. Promise: the three agree, object by object.

use anyhow::{Context as _, ensure};
use fovea_core::{What, sop_class};
use fovea_tests::archive::Archive;
use fovea_tests::node::{Node, Setup};
use fovea_tests::random::Random;
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::wire::{self, Association};
use fovea_tests::{process, wait};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const EYE: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
/// Associations that send side by side.
const SENDERS: usize = 2;
/// A sender that was cut off asks again after this long.
const RECONNECT: Duration = Duration::from_millis(20);

/// One object as it goes over the wire.
struct Object {
    uid: String,
    data_set: Vec<u8>,
}

/// Small eye photographs of noise, each its own instance, five to a study.
fn objects(count: u64) -> anyhow::Result<Vec<Object>> {
    (0..count)
        .map(|seed| {
            // Every fifth is large enough for the model to be asked.
            let (columns, rows) = if seed % 5 == 0 { (420, 400) } else { (120, 100) };
            let mut sample = Sample::secondary_capture(seed).class(EYE, "OP").size(columns, rows);
            sample.samples_per_pixel = 3;
            sample.study_seed = seed / 5;
            Ok(Object { uid: sample.sop_instance_uid(), data_set: wire::encode(sample.data_set(), EXPLICIT_VR_LE)? })
        })
        .collect()
}

/// What senders and killer tell each other.
#[derive(Default)]
struct Progress {
    acknowledged: Mutex<BTreeSet<String>>,
    /// Objects that may be sent by now, so that sending lasts as long as killing.
    released: AtomicUsize,
    /// Set when the test has failed and the senders shall give up.
    over: AtomicBool,
}

impl Progress {
    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends every object of `lane` until it is acknowledged, over as many associations as that takes.
    fn send(&self, port: u16, objects: &[Object], lane: usize) {
        let mut association: Option<Association> = None;
        for (index, object) in objects.iter().enumerate().filter(|(index, _)| index % SENDERS == lane) {
            loop {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                if index >= self.released.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                let status = match association.take().map_or_else(|| Association::open_for(port, EYE), Ok) {
                    Ok(mut open) => open.store(EYE, &object.uid, &object.data_set).map(|status| (open, status)),
                    Err(error) => Err(error),
                };
                match status {
                    Ok((open, 0x0000)) => {
                        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(object.uid.clone());
                        association = Some(open);
                        break;
                    }
                    // Cut off, or refused for now: again.
                    Ok(_) | Err(_) => std::thread::sleep(RECONNECT),
                }
            }
        }
    }
}

/// Runs `work` beside the senders; the senders end when all is acknowledged, or at once when `work` fails.
fn while_sending(
    port: u16,
    objects: &[Object],
    work: impl FnOnce(&Progress) -> anyhow::Result<()>,
) -> anyhow::Result<BTreeSet<String>> {
    let progress = Progress::default();
    std::thread::scope(|scope| {
        for lane in 0..SENDERS {
            let progress = &progress;
            scope.spawn(move || progress.send(port, objects, lane));
        }
        let worked = work(&progress).and_then(|()| {
            progress.released.store(usize::MAX, Ordering::Relaxed);
            let far = || format!("all objects to be acknowledged, {} are", progress.acknowledged().len());
            let all = || Ok((progress.acknowledged().len() == objects.len()).then_some(()));
            wait::until(Duration::from_secs(60), far, all)
        });
        progress.over.store(true, Ordering::Relaxed);
        worked
    })?;
    Ok(progress.acknowledged())
}

/// Waits until every object has its outcome and everything made of it is at the one destination.
fn wait_until_settled(node: &Node, objects: usize) -> anyhow::Result<()> {
    let ctl = node.ctl();
    let far = std::cell::RefCell::new(String::new());
    wait::until(
        Duration::from_secs(120),
        || format!("all outcomes and an empty outbox; {}", far.borrow()),
        || {
            let (findings, parcels) = (ctl.findings()?.len(), ctl.outbox()?);
            let reports = parcels.iter().filter(|state| state.parcel.what == What::Findings).count();
            let open = parcels.iter().filter(|state| state.delivered.is_empty()).count();
            *far.borrow_mut() = format!("{findings} outcomes, {reports} reports, {open} parcels not delivered");
            Ok((findings >= objects && reports >= objects && open == 0).then_some(()))
        },
    )
}

/// Acknowledged, outcomes and archive agree, and nothing else lies in the state folder.
fn assert_each_object_once(node: &Node, archive: &Archive, acknowledged: &BTreeSet<String>) -> anyhow::Result<()> {
    let findings = node.ctl().findings()?;
    let with_outcome: Vec<String> =
        sorted(findings.iter().map(|finding| finding.sop_instance_uid.to_string()).collect());
    let parcels = node.ctl().outbox()?;
    let dispatched = sorted(parcels.iter().map(|state| state.parcel.sop_instance_uid.to_string()).collect());
    let archived = sorted(archive.sop_instance_uids()?);
    let copies = parcels.iter().filter(|state| state.parcel.what == What::Deidentified).count();
    println!(
        "acknowledged {} / outcomes {} / archived {} ({} reports, {copies} de-identified copies)",
        acknowledged.len(),
        with_outcome.len(),
        archived.len(),
        archived.len().saturating_sub(copies),
    );
    let wanted: Vec<String> = acknowledged.iter().cloned().collect();
    assert_eq!(with_outcome, wanted, "each acknowledged object has one outcome, and no other object has");
    assert_eq!(archived, dispatched, "the archive holds each parcel once, and nothing else");
    for uid in acknowledged {
        let sent = |what| {
            let of = |state: &&fovea_core::ParcelState| state.parcel.source_sop_instance_uid.as_str() == uid;
            parcels.iter().filter(of).filter(|state| state.parcel.what == what).count()
        };
        assert_eq!((sent(What::Findings), sent(What::Deidentified)), (1, 1), "one report and one copy of {uid}");
    }
    let stored = sorted(names_below(&node.state().join("objects"))?);
    assert_eq!(stored, sorted(wanted.iter().map(|uid| format!("{uid}.dcm")).collect()), "files in objects/");
    for folder in ["tmp", "quarantine"] {
        assert_eq!(names_below(&node.state().join(folder))?, [] as [String; 0], "files in {folder}/");
    }
    Ok(())
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Names of all files below a folder.
fn names_below(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            names.extend(names_below(&path)?);
        } else {
            names.push(path.file_name().context("a file has a name")?.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Kills the daemon at a random moment of its start or of its work, and sees its worker end with it.
fn kill_somewhere(node: &mut Node, random: &mut Random) -> anyhow::Result<()> {
    if random.below(4) == 0 {
        std::thread::sleep(random.shorter_than(Duration::from_millis(1_500)));
        ensure!(node.process()?.ended()?.is_none(), "fovead ended by itself\n{}", node.process()?.log_tail());
        node.kill()?;
        return Ok(());
    }
    node.wait_until_ready()?;
    let worker = node.worker_pid()?;
    std::thread::sleep(random.shorter_than(Duration::from_millis(500)));
    ensure!(node.process()?.ended()?.is_none(), "fovead ended by itself\n{}", node.process()?.log_tail());
    node.kill()?;
    wait::until(
        Duration::from_secs(5),
        || format!("worker {worker} to end with its daemon"),
        || Ok((!process::alive(worker)).then_some(())),
    )
}

#[test]
fn inv_01_inv_02_inv_04_fifty_kills_lose_nothing_acknowledged_and_double_nothing() {
    kill_while_sending(50, 200).unwrap();
}

#[test]
#[ignore = "a quarter of an hour: make test-long"]
fn inv_01_inv_02_inv_04_three_hundred_kills_lose_nothing_acknowledged_and_double_nothing() {
    kill_while_sending(300, 1_200).unwrap();
}

/// Kills the daemon `kills` times while `count` objects are sent to it, then asks for each.
fn kill_while_sending(kills: usize, count: usize) -> anyhow::Result<()> {
    let mut random = Random::seeded();
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(&folder.path().join("box"))?;
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port())?;
    archive.start()?;
    let mut node = setup.archive(&archive).prepare()?;
    let objects = objects(count as u64)?;

    let acknowledged = while_sending(node.port(), &objects, |progress| {
        for kill in 1..=kills {
            node.launch(&[])?;
            progress.released.store(kill * count / kills, Ordering::Relaxed);
            kill_somewhere(&mut node, &mut random).with_context(|| format!("kill {kill}"))?;
        }
        node.start()
    })?;

    wait_until_settled(&node, count)?;
    assert_each_object_once(&node, &archive, &acknowledged)?;
    assert!(node.stop()?.success(), "it stops in good order after all that");
    Ok(())
}

#[test]
fn inv_07_inv_02_a_worker_killed_at_random_takes_neither_the_daemon_nor_an_outcome_with_it() {
    const OBJECTS: usize = 80;
    const KILLS: usize = 20;
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let mut node = setup.archive(&archive).start().unwrap();
    let daemon = node.process().unwrap().pid();
    let objects = objects(OBJECTS as u64).unwrap();
    let (mut killed, mut before) = (0, 0);

    let acknowledged = while_sending(node.port(), &objects, |progress| {
        for kill in 1..=KILLS {
            progress.released.store(kill * OBJECTS / KILLS, Ordering::Relaxed);
            // A worker is started again when there is work for it, after a pause that grows with deaths in a row.
            let worker = wait::until(
                Duration::from_secs(30),
                || format!("a worker to kill, the {kill}th time"),
                // The one before may take a moment to be gone.
                || Ok(node.worker_pid().ok().filter(|&pid| pid != before && process::alive(pid))),
            )?;
            std::thread::sleep(random.shorter_than(Duration::from_millis(60)));
            killed += usize::from(process::kill_other(worker).is_ok());
            before = worker;
        }
        Ok(())
    })
    .unwrap();

    wait_until_settled(&node, OBJECTS).unwrap();
    println!("{killed} workers killed");
    assert_eq!(killed, KILLS, "every kill met a worker");
    assert_each_object_once(&node, &archive, &acknowledged).unwrap();
    assert_eq!(node.process().unwrap().pid(), daemon);
    assert!(node.process().unwrap().ended().unwrap().is_none(), "the daemon never went down");
}
