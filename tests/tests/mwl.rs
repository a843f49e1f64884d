//! The modality worklist: fetched from a foreign provider, served when that is gone and after a restart, and the names it gives to
//! pictures that come without one.
//! Standard: PS3.4 annex K.

use dicom_dictionary_std::tags;
use fovea_core::Finding;
use fovea_tests::node::{Node, Setup};
use fovea_tests::process::Running;
use fovea_tests::{object, paths, peer, ports, wait};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Today in UTC, as DICOM writes it: by `date`, so that no second calendar is in this house.
fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y%m%d"]).output().expect("date runs");
    String::from_utf8(output.stdout).expect("a date").trim().to_owned()
}

fn planned(accession: &str, study: &str, patient: &str, modality: &str) -> Value {
    json!({
        "accession": accession, "study": study, "patient": patient, "name": format!("Buc^Jérôme {patient}"),
        "step": format!("STEP-{accession}"), "modality": modality, "station": "FOVEA", "date": today(),
    })
}

/// A provider, once it listens.
fn provider(folder: &Path, port: u16, items: &[Value]) -> Running {
    let asked = json!({ "port": port, "items": items, "out": folder.join("asked.jsonl"), "charset": "ISO_IR 100" });
    let mut running =
        peer::start("mwl.py", &[asked.to_string()], &folder.join("mwl.log")).expect("the provider starts");
    wait::until(
        LIMIT,
        || "the provider to listen".into(),
        || {
            assert!(running.ended()?.is_none(), "{}", running.log_tail());
            Ok(ports::listening(port).then_some(()))
        },
    )
    .expect("the provider listens");
    running
}

fn foveactl(node: &Node, arguments: &[&str]) -> String {
    let mut foveactl = Command::new(paths::program("foveactl").expect("foveactl is built"));
    let output = foveactl.arg("--state").arg(node.state()).args(arguments).output().expect("foveactl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("its output is text")
}

fn scheduled(node: &Node) -> Vec<Value> {
    let lines = foveactl(node, &["worklist", "--scheduled", "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).expect("an item")).collect()
}

fn wait_for_items(node: &Node, count: usize) {
    wait::until(LIMIT, || format!("{count} planned"), || Ok((scheduled(node).len() == count).then_some(())))
        .expect("items");
}

/// Captures a picture under `name` and gives the object that came of it. `tail` makes it another picture than the last.
fn captured(node: &Node, name: &str, tail: u8, sidecar: Option<Value>) -> (Finding, dicom_object::DefaultDicomObject) {
    let mut bytes = std::fs::read(paths::sample("retina.jpg").expect("a sample")).expect("a picture");
    // A comment behind the start of the image changes its hash and nothing else.
    drop(bytes.splice(2..2, [0xFF, 0xFE, 0, 3, tail]));
    if let Some(sidecar) = sidecar {
        std::fs::write(node.state().join("capture").join(format!("{name}.json")), sidecar.to_string())
            .expect("a sidecar");
    }
    let picture = node.folder().join(name);
    std::fs::write(&picture, bytes).expect("a picture");
    let finding = node.capture_and_wait(&picture, LIMIT).expect("an outcome");
    let path = node.state().join("objects").join(finding.study_uid.as_str());
    let object = object::open(&path.join(format!("{}.dcm", finding.sop_instance_uid))).expect("an object");
    (finding, object)
}

#[test]
fn a_picture_gets_the_patient_that_it_was_planned_for_also_without_the_provider_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports::free().unwrap();
    let items = [
        planned("ACC-17", "1.2.3.17", "P17", "OP"),
        planned("ACC-18", "1.2.3.18", "P18", "OP"),
        planned("TWICE", "1.2.3.20", "P20", "OP"),
        planned("TWICE", "1.2.3.21", "P21", "OP"),
        planned("OTHER", "1.2.3.22", "P22", "US"),
    ];
    let running = provider(folder.path(), port, &items);
    let section = format!(
        "[worklist]\naddress = \"127.0.0.1:{port}\"\nae_title = \"RIS\"\nstation_ae_title = \"FOVEA\"\nmodality = \"OP\"\ninterval_s = 10\n"
    );
    let mut node = Setup::new(folder.path()).unwrap().config(&section).start().unwrap();
    wait_for_items(&node, 4);
    let asked = std::fs::read_to_string(folder.path().join("asked.jsonl")).unwrap();
    let first: Value = serde_json::from_str(asked.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({ "modality": "OP", "station": "FOVEA", "calling": "FOVEA" }));
    let table = foveactl(&node, &["worklist", "--scheduled"]);
    assert!(table.contains("Buc^Jérôme P17") && table.contains("4 planned; fetched"), "{table}");

    let (finding, object) =
        captured(&node, "left.jpg", 1, Some(json!({ "accession_number": "ACC-17", "laterality": "L" })));
    assert_eq!(finding.study_uid.as_str(), "1.2.3.17");
    let text = |tag| object::text(&object, tag).unwrap_or_default();
    assert_eq!((text(tags::PATIENT_NAME), text(tags::PATIENT_ID)), ("Buc^Jérôme P17".into(), "P17".into()));
    assert_eq!((text(tags::PATIENT_BIRTH_DATE), text(tags::PATIENT_SEX)), ("19600229".into(), "F".into()));
    assert_eq!((text(tags::ACCESSION_NUMBER), text(tags::STUDY_DESCRIPTION)), ("ACC-17".into(), "Screening".into()));
    let request = object.element(tags::REQUEST_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(object::text(&request[0], tags::SCHEDULED_PROCEDURE_STEP_ID).unwrap(), "STEP-ACC-17");
    let path = node.state().join(format!("objects/1.2.3.17/{}.dcm", finding.sop_instance_uid));
    assert_eq!(fovea_tests::dcmtk::structure_errors(&path).unwrap(), [] as [String; 0]);

    // The provider goes, and the box starts anew.
    drop(running);
    node.kill().unwrap();
    node.start().unwrap();
    assert_eq!(scheduled(&node).len(), 4);
    let (finding, object) = captured(&node, "right.jpg", 2, Some(json!({ "accession_number": "ACC-18" })));
    assert_eq!(finding.study_uid.as_str(), "1.2.3.18");
    assert_eq!(object::text(&object, tags::PATIENT_ID).unwrap(), "P18");
    for (name, tail, sidecar) in [
        ("twice.jpg", 3, Some(json!({ "accession_number": "TWICE" }))),
        // A file name is no accession number, even where it looks like one.
        ("ACC-18_right.jpg", 6, None),
        ("unplanned.jpg", 4, Some(json!({ "accession_number": "ACC-99" }))),
        ("ACC-17_again.jpg", 5, Some(json!({ "accession_number": "ACC-99" }))),
    ] {
        let (_, object) = captured(&node, name, tail, sidecar);
        let patient = object::text(&object, tags::PATIENT_ID).unwrap();
        assert!(patient.starts_with("PENDING-"), "{name}: never a guess");
    }
    // Nothing that names a patient is in the log.
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(!log.contains("P17") && !log.contains("Buc^") && !log.contains("ACC-18"), "{log}");
}

#[test]
fn a_provider_that_fails_takes_nothing_away_and_a_changed_item_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports::free().unwrap();
    let section = format!("[worklist]\naddress = \"127.0.0.1:{port}\"\nae_title = \"RIS\"\ninterval_s = 10\n");
    let node = Setup::new(folder.path()).unwrap().config(&section).start().unwrap();
    let table =
        wait::until(
            LIMIT,
            || "the failure to be told".into(),
            || {
                Ok(Some(foveactl(&node, &["worklist", "--scheduled"]))
                    .filter(|table| table.contains("the last try failed")))
            },
        )
        .unwrap();
    assert!(table.contains("not fetched since"), "{table}");
    let running = provider(folder.path(), port, &[planned("ACC-17", "1.2.3.17", "P17", "OP")]);
    wait_for_items(&node, 1);
    drop(running);
    let refusing = json!({ "port": port, "items": [], "out": folder.path().join("refused.jsonl"), "status": 0xA700 });
    let running = peer::start("mwl.py", &[refusing.to_string()], &folder.path().join("refusing.log")).unwrap();
    wait::until(LIMIT, || "a refusal".into(), || Ok(folder.path().join("refused.jsonl").exists().then_some(())))
        .unwrap();
    wait::until(
        LIMIT,
        || "the refusal to be told".into(),
        || Ok(foveactl(&node, &["worklist", "--scheduled"]).contains("A700").then_some(())),
    )
    .unwrap();
    assert_eq!(scheduled(&node)[0]["patient_id"], "P17");
    drop(running);
    let mut corrected = planned("ACC-17", "1.2.3.17", "P17", "OP");
    corrected["name"] = json!("Corrected^Name");
    let _running = provider(folder.path(), port, &[corrected]);
    wait::until(
        LIMIT,
        || "the corrected name".into(),
        || Ok((scheduled(&node)[0]["patient_name"] == "Corrected^Name").then_some(())),
    )
    .unwrap();
    assert_eq!(scheduled(&node).len(), 1);
}
