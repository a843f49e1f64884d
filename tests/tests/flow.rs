//! The whole line, one picture at a time, against the built programs and a real archive: what is sent in, what comes out where.

use dicom_core::VR;
use dicom_dictionary_std::tags;
use fovea_core::{Band, Finding, FindingStatus, Outcome, ParcelState, What};
use fovea_tests::archive::Archive;
use fovea_tests::ctl::Detail;
use fovea_tests::node::{Node, Setup};
use fovea_tests::{dcmtk, object, paths, peer};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const ULTRASOUND: [&str; 4] = ["us-rgb.dcm", "us-palette.dcm", "us-jpeg2000.dcm", "us-cine.dcm"];

/// A box beside an archive, in a folder that goes with the test.
struct Line {
    folder: tempfile::TempDir,
    archive: Archive,
    node: Node,
}

fn line() -> Line {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(folder.path()).expect("a box");
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).expect("an archive");
    archive.start().expect("the archive starts");
    let node = setup.archive(&archive).start().expect("the box starts");
    Line { folder, archive, node }
}

impl Line {
    fn captured(&self, sample: &str) -> Finding {
        let picture = paths::sample(sample).expect("the sample is there");
        self.node.capture_and_wait(&picture, LIMIT).expect("the picture gets its outcome")
    }

    fn delivered(&self, finding: &Finding) -> Detail {
        let id = finding.finding_id.to_string();
        self.node.ctl().wait_for_delivery(&id, 1, LIMIT).expect("all that it sends arrives")
    }

    fn stored_object(&self, detail: &Detail) -> PathBuf {
        self.node.state().join(&detail.object_path)
    }

    /// Takes an object out of the archive into a file.
    fn fetched(&self, parcel: &ParcelState) -> PathBuf {
        let uid = parcel.parcel.sop_instance_uid.as_str();
        let path = self.folder.path().join(format!("{uid}.dcm"));
        std::fs::write(&path, self.archive.download(uid).expect("the archive holds it")).expect("a file");
        path
    }
}

/// The coded picture of a JPEG frame: what follows its headers, which de-identification rewrites.
fn scan(image: &dicom_object::InMemDicomObject) -> Vec<u8> {
    let frame = object::pixel_data(image).expect("pixel data").concat();
    let start = frame.windows(2).position(|marker| marker == [0xff, 0xda]).expect("a JPEG frame has a start of scan");
    frame[start..].to_vec()
}

fn parcel(detail: &Detail, what: What) -> &ParcelState {
    detail
        .sent
        .iter()
        .find(|parcel| parcel.parcel.what == what)
        .unwrap_or_else(|| panic!("no {what:?} in {:?}", detail.sent))
}

fn assert_report_reads_everywhere(report: &Path) -> serde_json::Value {
    assert_eq!(dcmtk::structure_errors(report).expect("dciodvfy runs"), [] as [String; 0], "{}", report.display());
    dcmtk::succeed("dsrdump", &[report]).expect("dsrdump reads the report");
    peer::run("read_sr.py", &[report]).expect("highdicom reads the report")
}

#[test]
fn a_captured_photograph_becomes_a_finding_a_report_and_a_deidentified_copy_in_the_archive() {
    let line = line();
    let finding = line.captured("retina.jpg");
    assert_eq!(finding.outcome, Outcome::Finding, "{finding:?}");
    let probability = finding.probability.expect("a probability");
    assert!((0.0..=1.0).contains(&probability));
    assert_ne!(finding.band.expect("a band"), Band::Significant, "a healthy eye");

    let detail = line.delivered(&finding);
    assert_eq!(line.archive.count().unwrap(), 2, "the report and the copy, and not the original");
    let captured = line.stored_object(&detail);
    assert_eq!(dcmtk::structure_errors(&captured).unwrap(), [] as [String; 0]);
    let image = object::open(&captured).unwrap();
    assert_eq!(object::text(&image, tags::SOP_CLASS_UID).unwrap(), fovea_core::sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT);

    let report = assert_report_reads_everywhere(&line.fetched(parcel(&detail, What::Findings)));
    assert_eq!(report["study_uid"], finding.study_uid.as_str());
    assert_eq!(report["evidence"], serde_json::json!([finding.sop_instance_uid.as_str()]));
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "one picture, one group");
    let score = groups[0]["measurements"].as_array().unwrap().iter().find(|row| row["name"]["value"] == "probability");
    let reported = score.expect("the score is a measurement")["value"].as_f64().unwrap();
    assert!((reported - probability).abs() < 1e-4, "{reported} in the report, {probability} in the finding");

    let copy = line.fetched(parcel(&detail, What::Deidentified));
    assert_eq!(dcmtk::structure_errors(&copy).unwrap(), [] as [String; 0]);
    let copy = object::open(&copy).unwrap();
    assert_eq!(object::text(&copy, tags::PATIENT_IDENTITY_REMOVED).unwrap(), "YES");
    assert_ne!(object::text(&copy, tags::SOP_INSTANCE_UID).unwrap(), finding.sop_instance_uid.as_str());
    assert!(scan(&copy) == scan(&image), "the coded picture itself is the same");
}

#[test]
fn inv_10_a_finding_and_its_report_say_who_computed_it_and_that_no_person_has_verified_it() {
    let line = line();
    let finding = line.captured("retina.jpg");
    let model = finding.model.clone().expect("a finding names its model");
    assert_eq!((finding.device.as_deref(), finding.status), (Some("CPU"), FindingStatus::Preliminary));
    let times = finding.timing_us;
    let steps = [times.received, times.queued, times.decoded, times.preprocessed, times.inferred, times.recorded];
    assert!(steps[0] > 0 && steps.is_sorted(), "the steps follow each other: {times:?}");

    let detail = line.delivered(&finding);
    let report = assert_report_reads_everywhere(&line.fetched(parcel(&detail, What::Findings)));
    assert_eq!(report["completion"], "COMPLETE");
    assert_eq!(report["verification"], "UNVERIFIED");
    assert_eq!(report["preliminary"], "PRELIMINARY");
    let items = report["items"].as_array().unwrap();
    let has = |meaning: &str, value: &str| {
        items.iter().any(|item| item["name"]["meaning"] == meaning && item["value"] == value)
    };
    assert!(has("Algorithm Version", &model.version), "{items:#?}");
    assert!(items.iter().any(|item| item["name"]["meaning"] == "Algorithm Name"));
}

#[test]
fn a_blurred_and_dark_photograph_is_ungradable_with_what_to_do_and_is_reported_as_such() {
    let line = line();
    let finding = line.captured("retina-blurred-dark.jpg");
    assert_eq!(finding.outcome, Outcome::Ungradable, "{finding:?}");
    assert_eq!(
        (finding.probability, finding.band),
        (None, None),
        "no score is given for a picture that is not good enough"
    );
    assert!(!finding.advice.as_deref().unwrap_or_default().is_empty());
    assert!(!finding.quality.is_empty(), "it says what was measured");
    let detail = line.delivered(&finding);
    let report = assert_report_reads_everywhere(&line.fetched(parcel(&detail, What::Findings)));
    let items = report["items"].as_array().unwrap();
    assert!(
        items
            .iter()
            .any(|item| item["name"]["value"] == "reason" && item["value"] == finding.reason.as_deref().unwrap())
    );
}

#[test]
fn inv_02_an_ultrasound_object_without_a_model_is_not_analysed_and_inv_05_its_copy_stays() {
    let line = line();
    let files = ULTRASOUND.map(|name| paths::sample(name).expect("the sample is there"));
    let sent = line.node.send(&files).unwrap();
    for row in &sent {
        let finding = line.node.ctl().wait_for_finding(&row.sop_instance_uid, LIMIT).unwrap();
        assert_eq!(finding.outcome, Outcome::NotAnalysed, "{}", row.path.display());
        assert_eq!(finding.reason.as_deref(), Some("no eligible model"));
        assert!(finding.timing_us.recorded < 1_000_000, "within the same second: {:?}", finding.timing_us);
        let detail = line.delivered(&finding);
        assert!(
            detail.sent.iter().all(|parcel| parcel.parcel.what == What::Findings),
            "only the report leaves: {:?}",
            detail.sent
        );
        let held =
            detail.quarantined.iter().find(|held| held.what == What::Deidentified).expect("the copy is held back");
        assert!(!held.reason.is_empty());
        let report = line.fetched(parcel(&detail, What::Findings));
        assert_eq!(dcmtk::structure_errors(&report).unwrap(), [] as [String; 0], "{}", row.path.display());
    }
    assert_eq!(line.node.ctl().findings().unwrap().len(), 4, "one outcome each");
    assert_eq!(line.archive.count().unwrap(), 4, "four reports, no picture");
}

#[test]
fn inv_04_the_same_object_again_changes_nothing_and_another_instance_of_it_scores_the_same() {
    let line = line();
    let finding = line.captured("retina.jpg");
    let stored = line.stored_object(&line.delivered(&finding));
    let copy = line.folder.path().join("copy.dcm");
    std::fs::copy(&stored, &copy).unwrap();
    line.node.send(&[copy.clone(), copy.clone()]).unwrap();

    let other = line.folder.path().join("other.dcm");
    object::copy_as(&stored, &other, "1.2.826.0.1.3680043.10.9999.1").unwrap();
    line.node.send(&[other]).unwrap();
    let again = line.node.ctl().wait_for_finding("1.2.826.0.1.3680043.10.9999.1", LIMIT).unwrap();
    line.delivered(&again);

    // Recorded after the repeats were: whatever they had caused would be there now.
    assert_eq!(line.node.ctl().findings().unwrap().len(), 2);
    assert_eq!(line.archive.count().unwrap(), 4);
    assert_eq!((again.probability, again.band), (finding.probability, finding.band));
    assert_ne!(again.finding_id, finding.finding_id);
}

#[test]
fn inv_05_nothing_of_the_patient_is_in_the_copy_and_inv_09_nothing_in_log_or_file_names() {
    let line = line();
    let finding = line.captured("retina.jpg");
    let stored = line.stored_object(&line.delivered(&finding));
    let marked = line.folder.path().join("marked.dcm");
    let (token, uid) = ("ZZTOKENZZ", "1.2.826.0.1.3680043.10.9999.2");
    mark(&stored, &marked, token, uid);
    line.node.send(&[marked]).unwrap();
    let marked = line.node.ctl().wait_for_finding(uid, LIMIT).unwrap();
    let detail = line.delivered(&marked);

    let copy = line.archive.download(parcel(&detail, What::Deidentified).parcel.sop_instance_uid.as_str()).unwrap();
    for secret in [token, uid, marked.study_uid.as_str(), marked.series_uid.as_str()] {
        assert!(!contains(&copy, secret), "the copy holds {secret}");
    }
    let report = line.archive.download(parcel(&detail, What::Findings).parcel.sop_instance_uid.as_str()).unwrap();
    assert!(contains(&report, token), "the report is about this patient, so the search above can find a token");

    let log = std::fs::read_to_string(line.node.log_path()).unwrap();
    assert!(log.contains("ready") || log.len() > 100, "the log has something in it");
    assert!(!log.contains(token), "the log names the patient");
    for path in files_below(line.node.state()) {
        assert!(!path.to_string_lossy().contains(token), "a file name holds the patient: {}", path.display());
    }
}

/// Plants a token wherever an identity may stand: in plain elements, in a nested sequence, in a private block.
fn mark(from: &Path, to: &Path, token: &str, sop_instance_uid: &str) {
    let image = object::open(from).expect("the captured object can be read");
    let syntax = image.meta().transfer_syntax().trim_end_matches('\0').to_owned();
    let mut data_set = image.into_inner();
    object::put(&mut data_set, tags::SOP_INSTANCE_UID, VR::UI, sop_instance_uid);
    for (tag, vr) in [
        (tags::PATIENT_NAME, VR::PN),
        (tags::PATIENT_ID, VR::LO),
        (tags::INSTITUTION_NAME, VR::LO),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
        (tags::STUDY_DESCRIPTION, VR::LO),
        (tags::PATIENT_COMMENTS, VR::LT),
        (tags::STATION_NAME, VR::SH),
        (dicom_core::Tag(0x0011, 0x0010), VR::LO),
        (dicom_core::Tag(0x0011, 0x1001), VR::LO),
    ] {
        object::put(&mut data_set, tag, vr, token);
    }
    let mut inner = dicom_object::InMemDicomObject::new_empty();
    object::put(&mut inner, tags::PATIENT_ID, VR::LO, token);
    let mut outer = dicom_object::InMemDicomObject::new_empty();
    let nest = |item| dicom_core::value::DataSetSequence::from(vec![item]);
    outer.put(dicom_core::DataElement::new(tags::OTHER_PATIENT_I_DS_SEQUENCE, VR::SQ, nest(inner)));
    data_set.put(dicom_core::DataElement::new(tags::REFERENCED_STUDY_SEQUENCE, VR::SQ, nest(outer)));
    object::write(data_set, &syntax, to).expect("the marked object can be written");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn inv_01_without_its_index_the_box_still_knows_every_object_and_outcome() {
    let mut line = line();
    let first = line.captured("retina.jpg");
    line.delivered(&first);
    let sent = line.node.send(&[paths::sample("us-rgb.dcm").unwrap()]).unwrap();
    let second = line.node.ctl().wait_for_finding(&sent[0].sop_instance_uid, LIMIT).unwrap();
    line.delivered(&second);
    let before = line.node.ctl().findings().unwrap();
    let outbox = line.node.ctl().outbox().unwrap();

    assert!(line.node.stop().unwrap().success());
    let index = line.node.state().join("index");
    assert!(index.exists(), "the index is where the design says");
    std::fs::remove_dir_all(&index).unwrap();
    line.node.start().unwrap();

    assert_eq!(line.node.ctl().findings().unwrap(), before);
    assert_eq!(line.node.ctl().outbox().unwrap(), outbox, "what was delivered stays delivered");
    assert_eq!(line.archive.count().unwrap(), 3, "two reports and one copy: nothing was sent twice under another name");
}

#[test]
fn inv_07_the_worker_can_be_killed_and_the_next_picture_gets_its_finding() {
    let line = line();
    let before = line.node.worker_pid().unwrap();
    fovea_tests::process::kill_other(before).unwrap();
    let finding = line.captured("retina.jpg");
    assert_eq!(finding.outcome, Outcome::Finding, "{finding:?}");
    assert_ne!(line.node.worker_pid().unwrap(), before);
}

#[test]
fn a_file_that_is_no_picture_is_set_aside_and_the_next_picture_is_not_held_up() {
    let line = line();
    let garbage = line.folder.path().join("garbage.jpg");
    std::fs::write(&garbage, b"\xff\xd8\xff\xe0 this only begins like a photograph").unwrap();
    line.node.capture(&garbage).unwrap();
    let finding = line.captured("retina.jpg");
    assert_eq!(finding.outcome, Outcome::Finding);
    let refused = line.node.state().join("capture/refused");
    fovea_tests::wait::until(
        LIMIT,
        || "the garbage in refused/".into(),
        || Ok(files_below(&refused).iter().any(|path| path.to_string_lossy().contains("garbage")).then_some(())),
    )
    .unwrap();
    assert_eq!(line.node.ctl().findings().unwrap().len(), 1);
}
