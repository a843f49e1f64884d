//! The index is only a view: it can be deleted, cut or damaged, and everything comes back from journal and files.
//!
//! In: a box with outcomes and delivered parcels. Out: the same box after a start on a lost or damaged index.
//! Promise: the same findings in the same order, the same outbox, no second outcome, nothing sent twice.

use anyhow::Context as _;
use fovea_core::{Finding, ParcelState, sop_class};
use fovea_tests::node::{Node, Setup};
use fovea_tests::process::Running;
use fovea_tests::random::Random;
use fovea_tests::sample::Sample;
use fovea_tests::{peer, ports, wait};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A receiver that notes every C-STORE, also a repeated one.
struct Receiver {
    port: u16,
    noted: PathBuf,
    _running: Running,
}

impl Receiver {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let (port, noted) = (ports::free()?, folder.join("stored.jsonl"));
        let told = serde_json::json!({ "port": port, "out": noted }).to_string();
        let mut running = peer::start("scp.py", &[told], &folder.join("scp.log"))?;
        wait::until(
            Duration::from_secs(20),
            || "scp.py to listen".into(),
            || {
                anyhow::ensure!(running.ended()?.is_none(), "{}", running.log_tail());
                Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
            },
        )?;
        Ok(Self { port, noted, _running: running })
    }

    /// Number of C-STORE requests so far.
    fn stores(&self) -> usize {
        std::fs::read_to_string(&self.noted).map_or(0, |text| text.lines().count())
    }
}

/// Everything that a restart must not change.
#[derive(PartialEq, Debug)]
struct Known {
    findings: Vec<Finding>,
    outbox: Vec<ParcelState>,
    stores: usize,
}

fn known(node: &Node, receiver: &Receiver) -> anyhow::Result<Known> {
    Ok(Known { findings: node.ctl().findings()?, outbox: node.ctl().outbox()?, stores: receiver.stores() })
}

/// Sends samples and waits until all that comes of them is delivered.
fn settle(node: &Node, samples: &[Sample], folder: &Path) -> anyhow::Result<()> {
    let files = samples.iter().map(|sample| sample.write(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    node.send(&files)?;
    for sample in samples {
        node.ctl().wait_for_finding(&sample.sop_instance_uid(), Duration::from_secs(30))?;
        node.ctl().wait_for_delivery(&sample.sop_instance_uid(), 1, Duration::from_secs(30))?;
    }
    Ok(())
}

fn eye(seed: u64) -> Sample {
    let mut sample = Sample::secondary_capture(seed).class(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, "OP");
    (sample.samples_per_pixel, sample.rows, sample.columns) = (3, 120, 120);
    sample
}

/// All files of a sled folder, in a fixed order.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// One way for an index to be lost. Each names itself.
type Damage = (&'static str, fn(&Path, &mut Random) -> anyhow::Result<()>);

const DAMAGES: &[Damage] = &[
    ("the folder is deleted", |index, _| Ok(std::fs::remove_dir_all(index)?)),
    ("the folder is a file", |index, _| {
        std::fs::remove_dir_all(index)?;
        Ok(std::fs::write(index, b"not a folder")?)
    }),
    ("every file is empty", |index, _| each_file(index, |_| Vec::new())),
    ("every file is cut in half", |index, _| {
        each_file(index, |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            bytes
        })
    }),
    ("64 bytes of each file are flipped", |index, random| {
        each_file(index, |mut bytes| {
            for _ in 0..64.min(bytes.len()) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            bytes
        })
    }),
    ("every file is noise", |index, random| each_file(index, |bytes| random.bytes(bytes.len().min(1 << 20)))),
];

fn each_file(index: &Path, mut change: impl FnMut(Vec<u8>) -> Vec<u8>) -> anyhow::Result<()> {
    let files = files_below(index)?;
    anyhow::ensure!(!files.is_empty(), "there is an index to damage");
    for file in files {
        let bytes = std::fs::read(&file)?;
        std::fs::write(&file, change(bytes))?;
    }
    Ok(())
}

#[test]
fn inv_01_inv_02_a_lost_or_damaged_index_loses_nothing_and_repeats_nothing() {
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(folder.path()).unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let wants = ["findings", "deidentified"];
    let mut node = setup.destination("receiver", "PEER", receiver.port, &wants).start().unwrap();
    let samples: Vec<Sample> = (0..4).map(eye).chain((10..13).map(Sample::secondary_capture)).collect();
    settle(&node, &samples, folder.path()).unwrap();
    let before = known(&node, &receiver).unwrap();
    assert_eq!(before.findings.len(), samples.len());
    assert_eq!(before.stores, before.outbox.len(), "each parcel went once");

    for (round, (name, damage)) in DAMAGES.iter().enumerate() {
        // By turns after a stop in good order, and after a kill.
        if round % 2 == 0 {
            node.stop().unwrap();
        } else {
            node.kill().unwrap();
        }
        damage(&node.state().join("index"), &mut random).unwrap();
        node.start().unwrap();
        // Long enough for a parcel that would be sent again, or an object that would be looked at again.
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(known(&node, &receiver).unwrap(), before, "{name}");
    }

    settle(&node, &[eye(100)], folder.path()).unwrap();
    let after = known(&node, &receiver).unwrap();
    assert_eq!(after.findings.len(), before.findings.len() + 1, "it goes on after all that");
    assert_eq!(after.findings[..before.findings.len()], before.findings);
    assert_eq!(after.stores, after.outbox.len());
}
