//! The box while its archive is away, full, choosy or cut off: nothing is lost, nothing is sent twice, findings go first.

use fovea_core::{Finding, ParcelState, What};
use fovea_tests::archive::Archive;
use fovea_tests::node::{Node, Setup};
use fovea_tests::process::Running;
use fovea_tests::sample::Sample;
use fovea_tests::{paths, peer, ports, wait};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// Back-off may have grown while the archive was away.
const DELIVERY_LIMIT: Duration = Duration::from_secs(90);

/// A scripted receiver, and the file in which it notes every C-STORE.
struct Scripted {
    port: u16,
    out: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

impl Scripted {
    fn prepare(folder: &Path) -> Self {
        let port = ports::free().expect("a free port");
        Self { port, out: folder.join("stored.jsonl"), log: folder.join("scp.log"), running: None }
    }

    fn start(&mut self, mut told: serde_json::Value) {
        told["port"] = self.port.into();
        told["out"] = self.out.to_string_lossy().into();
        let mut running = peer::start("scp.py", &[told.to_string()], &self.log).expect("python starts");
        wait::until(
            LIMIT,
            || "scp.py to listen".into(),
            || {
                anyhow::ensure!(running.ended()?.is_none(), "{}", running.log_tail());
                Ok(TcpStream::connect(("127.0.0.1", self.port)).ok())
            },
        )
        .expect("the receiver listens");
        self.running = Some(running);
    }

    /// Rows in order of arrival: instance, class, status.
    fn rows(&self) -> Vec<(String, String, u64)> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).expect("the receiver writes JSON");
            let word = |key: &str| row[key].as_str().expect("a text").to_owned();
            (word("sop_instance_uid"), word("sop_class_uid"), row["status"].as_u64().expect("a status"))
        };
        text.lines().map(row).collect()
    }

    /// How often each instance was answered with success.
    fn stored(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (uid, _, _) in self.rows().into_iter().filter(|(_, _, status)| *status == 0) {
            *counts.entry(uid).or_default() += 1;
        }
        counts
    }
}

/// Two photographs and an ultrasound object: three reports and two copies.
fn work(node: &Node) -> Vec<Finding> {
    let captured = ["retina.jpg", "retina-blurred-dark.jpg"].map(|name| {
        node.capture_and_wait(&paths::sample(name).expect("the sample is there"), LIMIT)
            .expect("the picture gets its outcome")
    });
    let sent = node.send(&[paths::sample("us-rgb.dcm").expect("the sample is there")]).expect("the object is stored");
    let third = node.ctl().wait_for_finding(&sent[0].sop_instance_uid, LIMIT).expect("the object gets its outcome");
    captured.into_iter().chain([third]).collect()
}

/// Waits until every finding has its parcels in the outbox; returns them.
fn dispatched(node: &Node, findings: &[Finding]) -> Vec<ParcelState> {
    let ctl = node.ctl();
    for finding in findings {
        wait::until(
            LIMIT,
            || format!("parcels of {}", finding.finding_id),
            || Ok(Some(ctl.show(finding.finding_id.to_string().as_str())?).filter(|detail| !detail.sent.is_empty())),
        )
        .expect("report and copy are dispatched");
    }
    ctl.outbox().expect("the outbox can be read")
}

#[test]
fn findings_wait_for_a_late_archive_over_a_kill_and_arrive_once_before_the_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path()).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    let mut node = setup.archive(&archive).start().unwrap();
    let findings = work(&node);
    let held = dispatched(&node, &findings);
    assert_eq!(held.len(), 5, "three reports and two copies: {held:?}");
    assert!(
        held.iter().all(|parcel| parcel.delivered.is_empty() && parcel.set_aside.is_empty()),
        "nobody took anything"
    );

    node.kill().unwrap();
    node.start().unwrap();
    assert_eq!(node.ctl().outbox().unwrap(), held, "the outbox is as it was");
    archive.start().unwrap();
    for finding in &findings {
        node.ctl().wait_for_delivery(&finding.finding_id.to_string(), 1, DELIVERY_LIMIT).unwrap();
    }

    assert_eq!(archive.count().unwrap(), 5);
    let arrival = |what: What| {
        let parcels = held.iter().filter(move |parcel| parcel.parcel.what == what);
        parcels
            .map(|parcel| archive.arrival_index(parcel.parcel.sop_instance_uid.as_str()).unwrap())
            .collect::<Vec<_>>()
    };
    let (reports, copies) = (arrival(What::Findings), arrival(What::Deidentified));
    assert!(reports.iter().max() < copies.iter().min(), "reports {reports:?} before copies {copies:?}");
}

#[test]
fn an_archive_that_is_full_for_a_while_gets_everything_once_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Scripted::prepare(folder.path());
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let node = setup.destination("archive", "PEER", peer.port, &["findings", "deidentified"]).start().unwrap();
    peer.start(serde_json::json!({ "refuse": 3, "status": 0xA700 }));
    let findings = work(&node);
    for finding in &findings {
        node.ctl().wait_for_delivery(&finding.finding_id.to_string(), 1, DELIVERY_LIMIT).unwrap();
    }
    let counts = peer.stored();
    assert_eq!(counts.len(), 5, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "each was stored once: {counts:?}");
    assert!(
        node.ctl().outbox().unwrap().iter().all(|parcel| parcel.set_aside.is_empty()),
        "out of resources is no refusal for good"
    );
}

#[test]
fn an_archive_that_takes_no_pictures_gets_the_reports_and_the_copies_are_set_aside_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Scripted::prepare(folder.path());
    peer.start(serde_json::json!({ "only": [fovea_core::sop_class::COMPREHENSIVE_SR] }));
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let node = setup.destination("archive", "PEER", peer.port, &["findings", "deidentified"]).start().unwrap();
    let findings = work(&node);
    for finding in &findings {
        let detail = node.ctl().wait_for_delivery(&finding.finding_id.to_string(), 1, DELIVERY_LIMIT).unwrap();
        for parcel in detail.sent {
            let refused = parcel.parcel.what == What::Deidentified;
            assert_eq!((parcel.set_aside.len(), parcel.delivered.len()), (usize::from(refused), usize::from(!refused)));
            assert!(parcel.set_aside.iter().all(|(_, reason)| !reason.is_empty()));
        }
    }
    assert_eq!(peer.stored().len(), 3);
}

#[test]
fn an_archive_that_is_cut_off_in_the_middle_has_everything_after_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let node = setup.archive(&archive).start().unwrap();
    let files: Vec<_> = (0..30).map(|seed| Sample::secondary_capture(seed).write(folder.path()).unwrap()).collect();
    let sent = node.send(&files).unwrap();
    wait::until(LIMIT, || "the first report".into(), || Ok((archive.count()? > 0).then_some(()))).unwrap();
    archive.kill().unwrap();

    let findings: Vec<Finding> =
        sent.iter().map(|row| node.ctl().wait_for_finding(&row.sop_instance_uid, LIMIT).unwrap()).collect();
    let outbox = dispatched(&node, &findings);
    archive.start().unwrap();
    for finding in &findings {
        node.ctl().wait_for_delivery(&finding.finding_id.to_string(), 1, DELIVERY_LIMIT).unwrap();
    }
    let mut expected: Vec<String> = outbox.iter().map(|parcel| parcel.parcel.sop_instance_uid.to_string()).collect();
    let mut held = archive.sop_instance_uids().unwrap();
    expected.sort();
    held.sort();
    assert_eq!(held, expected, "each parcel once");
}

#[test]
fn two_destinations_get_what_each_wants_and_one_that_is_away_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut near = Scripted::prepare(folder.path());
    near.start(serde_json::json!({ "ae_title": "NEAR", "max_pdu": 4096 }));
    let away = ports::free().unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let setup = setup.destination("near", "NEAR", near.port, &["findings"]);
    let node = setup.destination("away", "AWAY", away, &["findings", "deidentified"]).start().unwrap();
    let findings = work(&node);
    wait::until(DELIVERY_LIMIT, || "three reports".into(), || Ok((near.stored().len() == 3).then_some(()))).unwrap();
    let reports = near.rows();
    assert!(reports.iter().all(|(_, class, _)| class == fovea_core::sop_class::COMPREHENSIVE_SR), "{reports:?}");
    for parcel in dispatched(&node, &findings) {
        assert!(parcel.delivered.iter().all(|(destination, _)| destination == "near"), "{parcel:?}");
    }
}
