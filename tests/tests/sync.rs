//! The box beside real archives: STOW-RS and proofs of custody with Orthanc, refusals mended by a person.

use fovea_core::{Custody, ParcelState, Proof};
use fovea_tests::archive::{self, Archive};
use fovea_tests::node::{Node, Setup};
use fovea_tests::{http, paths, wait};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// An ultrasound object and two photographs, sent and captured; three reports and two copies.
fn work(node: &Node) {
    for name in ["retina.jpg", "retina-blurred-dark.jpg"] {
        node.capture_and_wait(&paths::sample(name).expect("a sample"), LIMIT).expect("captured and looked at");
    }
    let files: [PathBuf; 1] = [paths::sample("us-rgb.dcm").expect("a sample")];
    let sent = node.send(&files).expect("sent");
    node.ctl().wait_for_finding(&sent[0].sop_instance_uid, LIMIT).expect("a finding");
}

/// Waits until there are so many parcels, and each is as it should be.
fn until_all(node: &Node, count: usize, what: &str, is_done: impl Fn(&ParcelState) -> bool) -> Vec<ParcelState> {
    let far = std::cell::RefCell::new(String::new());
    wait::until(
        LIMIT,
        || format!("{what}; {}", far.borrow()),
        || {
            let parcels = node.ctl().outbox()?;
            *far.borrow_mut() = format!("{parcels:?}; {}", node.ctl().status()?["sync"]);
            Ok((parcels.len() >= count && parcels.iter().all(&is_done)).then_some(parcels))
        },
    )
    .expect("as it should be")
}

fn assert_holds_each_once(archive: &Archive, parcels: &[ParcelState]) {
    let mut held = archive.sop_instance_uids().expect("what it holds");
    held.sort();
    let sent: BTreeSet<String> = parcels.iter().map(|state| state.parcel.sop_instance_uid.to_string()).collect();
    assert_eq!(held, sent.into_iter().collect::<Vec<_>>(), "each parcel once, and nothing else");
}

#[test]
fn inv_06_stow_rs_into_an_archive_arrives_once_over_a_kill_and_a_query_proves_it() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path()).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let toml = format!(
        "[[sync.destination]]\nname = 'web'\nkind = 'dicomweb'\nurl = 'http://127.0.0.1:{}/dicom-web'\n\
         what = ['findings', 'deidentified']\ncustody = 'query'\ncustody_after_s = 0\nretry_min_ms = 50\n",
        archive.http_port
    );
    let mut node = setup.config(&toml).start().unwrap();
    work(&node);
    node.kill().unwrap();
    node.start().unwrap();
    let parcels = until_all(&node, 5, "proof of all", |state| !state.custody.is_empty());
    assert!(parcels.iter().all(|state| state.custody[0].proof == Proof::Query), "{parcels:?}");
    assert_holds_each_once(&archive, &parcels);
    // What came is what was sent, byte for byte from the data set on; the archive writes a head of its own.
    for state in &parcels {
        let (ours, theirs) =
            (std::fs::read(&state.path).unwrap(), archive.download(state.parcel.sop_instance_uid.as_str()).unwrap());
        let tail = ours.len().min(theirs.len()) / 2;
        assert_eq!(ours[ours.len() - tail..], theirs[theirs.len() - tail..], "{:?}", state.parcel);
    }
    assert!(node.stop().unwrap().success());
}

#[test]
fn inv_06_an_archive_commits_itself_over_an_association_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path()).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let toml = format!(
        "[[sync.destination]]\nname = 'vna'\nkind = 'dimse'\naddress = '127.0.0.1:{}'\nae_title = '{}'\n\
         what = ['findings', 'originals']\ncustody = 'commitment'\ncustody_after_s = 0\nretry_min_ms = 50\n",
        archive.dicom_port,
        archive::AE_TITLE
    );
    let mut node = setup.config(&toml).start().unwrap();
    work(&node);
    let is_committed = |custody: &Custody| matches!(custody.proof, Proof::Commitment { .. });
    let wanted = |state: &ParcelState| state.parcel.what != fovea_core::What::Deidentified;
    let parcels = until_all(&node, 8, "commitment", |state| !wanted(state) || state.custody.iter().any(is_committed));
    let parcels: Vec<ParcelState> = parcels.into_iter().filter(wanted).collect();
    assert_holds_each_once(&archive, &parcels);

    assert!(node.stop().unwrap().success());
}

#[test]
fn what_the_rules_keep_back_never_leaves_and_is_looked_at_anew_when_a_person_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path()).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let toml = format!(
        "[[sync.destination]]\nname = 'web'\nkind = 'dicomweb'\nurl = 'http://127.0.0.1:{}/dicom-web'\n\
         what = ['findings']\nretry_min_ms = 50\nonly.senders = ['NOBODY']\n",
        archive.http_port
    );
    let mut node = setup.config(&toml).start().unwrap();
    work(&node);
    let is_report = |state: &ParcelState| state.parcel.what == fovea_core::What::Findings;
    until_all(&node, 5, "the rules to be applied", |state| !is_report(state) || !state.set_aside.is_empty());
    assert_eq!(archive.count().unwrap(), 0, "nothing that the rules keep back");
    let status = node.ctl().status().unwrap();
    assert_eq!(status["sync"][0]["ruled_out"], 3, "{status}");
    let answer = http::ask_socket(&node.state().join("control.sock"), "/v1/outbox").unwrap();
    assert_eq!(answer.status, 200);
    let foveactl = |arguments: &[&str]| {
        let mut command = Command::new(paths::program("foveactl").unwrap());
        let output = command.arg("--state").arg(node.state()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(foveactl(&["outbox", "list", "--set-aside", "--json"]), "", "what the rules keep back is no failure");
    assert_eq!(foveactl(&["outbox", "retry", "--all", "--json"]), "{\"retried\":0}\n");
    let report = node.ctl().outbox().unwrap().into_iter().find(is_report).unwrap();
    let seq = report.parcel.seq.to_string();
    assert_eq!(foveactl(&["outbox", "retry", &seq, "--json"]), "{\"retried\":1}\n");
    assert!(node.stop().unwrap().success());
}
