//! What a disk did to the store is found and mended with the command line, and the box goes on with all that can be read.
//!
//! In: a stopped box, an object with other bytes, a journal that lost a record. Out: exit status and report of `foveactl store`, then the
//! running box. Promise: nothing is called sound that is not; what is mended is answered for again; other files are untouched.

use anyhow::Context as _;
use fovea_core::{Finding, sop_class};
use fovea_tests::node::{Node, Setup};
use fovea_tests::paths;
use fovea_tests::sample::Sample;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

fn store(state: &Path, command: &str) -> anyhow::Result<Output> {
    let mut foveactl = Command::new(paths::program("foveactl")?);
    foveactl.arg("--state").arg(state).args(["store", command, "--json"]).output().context("run foveactl")
}

/// Exit status and report.
fn report(state: &Path, command: &str) -> anyhow::Result<(Option<i32>, Value)> {
    let output = store(state, command)?;
    let said = || format!("{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), serde_json::from_slice(&output.stdout).with_context(said)?))
}

fn eye(seed: u64) -> Sample {
    let mut sample =
        Sample::secondary_capture(seed).class(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, "OP").size(100, 100);
    sample.samples_per_pixel = 3;
    sample
}

/// A running box with the outcome of each sample.
fn box_with(folder: &Path, samples: &[Sample]) -> anyhow::Result<Node> {
    let node = Setup::new(&folder.join("box"))?.start()?;
    let files = samples.iter().map(|sample| sample.write(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    node.send(&files)?;
    for sample in samples {
        node.ctl().wait_for_delivery(&outcome(&node, sample)?.finding_id.to_string(), 0, Duration::from_secs(30))?;
    }
    Ok(node)
}

fn outcome(node: &Node, sample: &Sample) -> anyhow::Result<Finding> {
    node.ctl().wait_for_finding(&sample.sop_instance_uid(), Duration::from_secs(30))
}

fn flip(path: &Path, at: usize) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    bytes[at] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

/// The file of the journal that names `text` first, and where.
fn named_in_journal(state: &Path, text: &str) -> anyhow::Result<(PathBuf, usize)> {
    let mut files = below(&state.join("journal"))?;
    files.sort();
    let place = |bytes: &[u8]| bytes.windows(text.len()).position(|window| window == text.as_bytes());
    let found = files.into_iter().find_map(|path| Some((path.clone(), place(&std::fs::read(&path).ok()?)?)));
    found.with_context(|| format!("the journal does not name {text}"))
}

fn below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            files.extend(below(&path)?);
        }
        files.push(path);
    }
    Ok(files)
}

#[test]
fn inv_01_inv_02_damage_is_found_what_can_be_mended_is_and_the_box_answers_for_all_that_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<Sample> = (0..3).map(eye).collect();
    let mut node = box_with(folder.path(), &samples).unwrap();
    let before: Vec<Finding> = samples.iter().map(|sample| outcome(&node, sample).unwrap()).collect();
    let [whole, damaged, forgotten] = [0, 1, 2].map(|number: usize| samples[number].sop_instance_uid());
    let object = node.state().join(node.ctl().show(&damaged).unwrap().object_path);
    let state = node.state().to_owned();

    let beside = store(&state, "verify").unwrap();
    let said = String::from_utf8_lossy(&beside.stderr).into_owned();
    assert!(!beside.status.success() && said.contains("systemctl stop fovead"), "{said}");
    node.stop().unwrap();
    let (status, sound) = report(&state, "verify").unwrap();
    assert_eq!((status, &sound["objects_sound"]), (Some(0), &json!(3)), "{sound}");
    assert!(sound["parcels_sound"].as_u64() >= Some(3), "{sound}");

    // One object with another byte; the record of another is lost, and no index knows it.
    let length = std::fs::metadata(&object).unwrap().len() as usize;
    flip(&object, length - 5_000).unwrap();
    let (journal, at) = named_in_journal(&state, &forgotten).unwrap();
    flip(&journal, at).unwrap();
    std::fs::remove_dir_all(state.join("index")).unwrap();
    let (status, found) = report(&state, "verify").unwrap();
    assert_eq!((status, &found["objects_damaged"]), (Some(1), &json!([damaged])), "{found}");
    assert!(found["journal_damaged_bytes"].as_u64() > Some(0), "{found}");
    assert!(!object.exists(), "it is in quarantine");

    let (status, mended) = report(&state, "rebuild").unwrap();
    assert_eq!((status, &mended["records_made"]), (Some(1), &json!([forgotten])), "{mended}");
    let verified = &mended["verified"];
    assert_eq!((&verified["objects_sound"], &verified["objects_missing"]), (&json!(2), &json!([damaged])), "{mended}");

    // The box starts all the same: the two that can be read have their outcomes, the third keeps its own.
    node.start().unwrap();
    let after: Vec<Finding> = samples.iter().map(|sample| outcome(&node, sample).unwrap()).collect();
    assert_eq!(after[..2], before[..2], "{whole}, {damaged}");
    // Looked at again, it gets the answer that it had.
    assert_eq!(after[2].finding_id, before[2].finding_id);
    assert_eq!(after[2].probability, before[2].probability);
    let senders = node.ctl().status().unwrap()["store"]["senders"].clone();
    assert!(
        senders.as_array().is_some_and(|senders| senders.len() == 1),
        "who sent it stands in the object: {senders}"
    );
    // Its sender brings the damaged one again, and that heals it.
    node.send(&[samples[1].write(folder.path()).unwrap()]).unwrap();
    assert_eq!(node.ctl().findings().unwrap().len(), 3, "no second outcome");
    node.stop().unwrap();
    let (_, healed) = report(&state, "verify").unwrap();
    assert_eq!((&healed["objects_sound"], &healed["objects_missing"]), (&json!(3), &json!([])), "{healed}");
}

#[test]
fn root_checks_a_store_as_its_owner_and_leaves_no_file_of_roots_in_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: this process may not give files away");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut node = box_with(folder.path(), &[eye(0)]).unwrap();
    node.stop().unwrap();
    let owner = Some(nix::unistd::Uid::from_raw(NOBODY));
    let group = Some(nix::unistd::Gid::from_raw(NOBODY));
    nix::unistd::chown(node.state(), owner, group).unwrap();
    for path in below(node.state()).unwrap() {
        nix::unistd::chown(&path, owner, group).unwrap();
    }
    // Of the tempdir above the state folder root alone may see the inside, as with /var/lib/private.
    for command in ["verify", "rebuild"] {
        let output = store(node.state(), command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for path in below(node.state()).unwrap() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
}
