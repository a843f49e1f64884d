//! The box as a DICOM peer: what DCMTK and pynetdicom may propose, send and get wrong, and what they are answered.

use dicom_dictionary_std::{tags, uids};
use fovea_core::Outcome;
use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::{ctl, dcmtk, object, paths, peer};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn start() -> (tempfile::TempDir, Node) {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Setup::new(folder.path()).expect("a box").start().expect("the box starts");
    (folder, node)
}

fn stored_object(node: &Node, sop_instance_uid: &str) -> PathBuf {
    let ctl = node.ctl();
    ctl.wait_for_finding(sop_instance_uid, LIMIT).expect("every accepted object gets its outcome");
    node.state().join(ctl.show(sop_instance_uid).expect("the object is known").object_path)
}

fn uid_of(path: &Path) -> String {
    object::text(&object::open(path).expect("a Part 10 file"), tags::SOP_INSTANCE_UID).expect("an instance has a UID")
}

/// The sample in `syntax`, made by a DCMTK converter: `program` and its options.
fn converted(folder: &Path, seed: u64, color: bool, program: &str, options: &[&str]) -> PathBuf {
    let mut sample = Sample::secondary_capture(seed).size(96, 64);
    sample.samples_per_pixel = if color { 3 } else { 1 };
    let source = sample.write(folder).expect("the sample is written");
    let target = folder.join(format!("{program}-{seed}.dcm"));
    let mut arguments: Vec<&str> = options.to_vec();
    let paths = [source.to_str().expect("UTF-8"), target.to_str().expect("UTF-8")];
    arguments.extend(paths);
    dcmtk::succeed(program, &arguments).expect("the converter runs");
    target
}

/// One object in every syntax that DCMTK can write, and JPEG 2000 from the samples.
fn every_syntax(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let make = |seed, color, program: &str, options: &[&str]| converted(folder, seed, color, program, options);
    vec![
        (uids::IMPLICIT_VR_LITTLE_ENDIAN, make(1, true, "dcmconv", &["+ti"])),
        (uids::EXPLICIT_VR_LITTLE_ENDIAN, make(2, true, "dcmconv", &["+te"])),
        (uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, make(3, true, "dcmconv", &["+td"])),
        (uids::RLE_LOSSLESS, make(4, true, "dcmcrle", &["+un"])),
        (uids::JPEG_BASELINE8_BIT, make(5, true, "dcmcjpeg", &["+eb", "+un"])),
        (uids::JPEG_EXTENDED12_BIT, make(6, false, "dcmcjpeg", &["+ee", "+un"])),
        (uids::JPEG_LOSSLESS, make(7, false, "dcmcjpeg", &["+el", "+un"])),
        (uids::JPEG_LOSSLESS_SV1, make(8, true, "dcmcjpeg", &["+e1", "+un"])),
        (uids::JPEGLS_LOSSLESS, make(9, false, "dcmcjpls", &["+el", "+un"])),
        (uids::JPEGLS_NEAR_LOSSLESS, make(10, false, "dcmcjpls", &["+en", "+un"])),
        (uids::JPEG2000_LOSSLESS, paths::sample("us-jpeg2000.dcm").expect("the sample is there")),
    ]
}

#[test]
fn an_echo_is_answered() {
    let (_folder, node) = start();
    dcmtk::succeed("echoscu", &["-aec", "FOVEA", "127.0.0.1", &node.port().to_string()]).unwrap();
}

#[test]
fn every_syntax_that_is_accepted_is_stored_as_it_was_sent() {
    let (folder, node) = start();
    let port = node.port().to_string();
    for (syntax, path) in every_syntax(folder.path()) {
        let sent = object::open(&path).unwrap();
        assert_eq!(
            sent.meta().transfer_syntax().trim_end_matches('\0'),
            syntax,
            "the converter made what was asked for"
        );
        // dcmsend prefers explicit VR and rewrites what is implicit; storescu can be told to propose nothing else.
        let implicit = syntax == uids::IMPLICIT_VR_LITTLE_ENDIAN;
        let (sender, option) = if implicit { ("storescu", "-xi") } else { ("dcmsend", "-dn") };
        dcmtk::succeed(sender, &[option, "-aec", "FOVEA", "127.0.0.1", &port, path.to_str().unwrap()])
            .unwrap_or_else(|error| panic!("{syntax}: {error:#}"));
        let stored = object::open(&stored_object(&node, &uid_of(&path))).unwrap();
        assert_eq!(stored.meta().transfer_syntax().trim_end_matches('\0'), syntax);
        assert_eq!(object::pixel_data(&stored).unwrap(), object::pixel_data(&sent).unwrap(), "{syntax}");
        assert_eq!(object::text(&stored, tags::PATIENT_ID), object::text(&sent, tags::PATIENT_ID), "{syntax}");
    }
}

#[test]
fn a_clip_or_a_syntax_without_a_decoder_is_stored_and_says_so() {
    let (_folder, node) = start();
    let syntaxes =
        [uids::MPEG4HP41, uids::MPEG4HP41BD, uids::HEVCMP51, uids::HTJ2K_LOSSLESS, uids::HTJ2K, uids::JPEG2000];
    let answer = peer::run("scu.py", &[json!({ "port": node.port(), "fake": syntaxes }).to_string()]).unwrap();
    assert_eq!(answer["stored"].as_array().unwrap().len(), syntaxes.len(), "{answer}");
    for row in answer["stored"].as_array().unwrap() {
        assert_eq!(row["status"], 0, "{row}");
        let uid = row["sop_instance_uid"].as_str().unwrap();
        let finding = node.ctl().wait_for_finding(uid, LIMIT).unwrap();
        assert_eq!(finding.outcome, Outcome::NotAnalysed);
    }
}

#[test]
fn what_foveactl_sends_lies_in_the_store_byte_for_byte() {
    let (folder, node) = start();
    let path = Sample::secondary_capture(20).write(folder.path()).unwrap();
    node.send(std::slice::from_ref(&path)).unwrap();
    let data_set = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        // (0002,0000) UL 4: the length of the rest of the file meta information (PS3.10 section 7.1).
        let meta = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        bytes[144 + meta..].to_vec()
    };
    assert!(data_set(&stored_object(&node, &uid_of(&path))) == data_set(&path), "the data set was changed on its way");
}

#[test]
fn a_device_that_proposes_128_contexts_roles_and_an_identity_is_served() {
    let (folder, node) = start();
    let file = Sample::secondary_capture(21).write(folder.path()).unwrap();
    for identity in ["name", "passcode"] {
        let asked = json!({
            "port": node.port(), "filler": 126, "roles": true, "identity": identity, "echo": true, "files": [file],
        });
        let answer = peer::run("scu.py", &[asked.to_string()]).unwrap();
        assert_eq!(answer["accepted"], 2, "{answer}");
        assert_eq!((&answer["echo"], &answer["stored"][0]["status"]), (&json!(0), &json!(0)), "{answer}");
        assert_eq!(answer["released"], true);
    }
}

#[test]
fn a_sender_of_any_pdu_size_is_understood() {
    let (folder, node) = start();
    for (seed, max_pdu) in [(30, 0), (31, 4096), (32, 16_384), (33, 1_000_000)] {
        let file = Sample::secondary_capture(seed).write(folder.path()).unwrap();
        let asked = json!({ "port": node.port(), "max_pdu": max_pdu, "files": [file] });
        let answer = peer::run("scu.py", &[asked.to_string()]).unwrap();
        assert_eq!(answer["stored"][0]["status"], 0, "max PDU {max_pdu}: {answer}");
        stored_object(&node, &uid_of(&file));
    }
    let port = node.port().to_string();
    let file = Sample::secondary_capture(34).write(folder.path()).unwrap();
    dcmtk::succeed("storescu", &["-pdu", "4096", "-aec", "FOVEA", "127.0.0.1", &port, file.to_str().unwrap()]).unwrap();
    stored_object(&node, &uid_of(&file));
}

#[test]
fn a_class_that_the_box_does_not_take_is_refused_in_the_negotiation_and_the_others_are_taken() {
    let (folder, node) = start();
    let scanner = Sample::secondary_capture(40).class(uids::MR_IMAGE_STORAGE, "MR").write(folder.path()).unwrap();
    let capture = Sample::secondary_capture(41).write(folder.path()).unwrap();
    let rows = ctl::send(&[scanner, capture], &node.address(), 1).unwrap();
    let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    let mut sorted = outcomes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["failed", "stored"], "{rows:?}");
}

#[test]
fn only_the_senders_that_are_named_may_send() {
    let folder = tempfile::tempdir().unwrap();
    let node = Setup::new(folder.path()).unwrap().receive("peers = [{ ae_title = \"CART\" }]").start().unwrap();
    let echo = |calling: &str| {
        let port = node.port().to_string();
        dcmtk::run("echoscu", &["-v", "-aet", calling, "-aec", "FOVEA", "127.0.0.1", &port]).unwrap()
    };
    let stranger = echo("STRANGER");
    assert!(!stranger.success && stranger.text.contains("Calling AE Title Not Recognized"), "{}", stranger.text);
    assert!(echo("CART").success);
}

#[test]
fn another_object_under_a_uid_that_is_held_is_kept_apart_and_the_sender_is_told() {
    let (folder, node) = start();
    let first = Sample::secondary_capture(50);
    let path = first.write(folder.path()).unwrap();
    node.send(std::slice::from_ref(&path)).unwrap();
    let stored = stored_object(&node, &first.sop_instance_uid());
    let before = std::fs::read(&stored).unwrap();

    let mut other = first.data_set();
    object::put(&mut other, tags::STUDY_DESCRIPTION, dicom_core::VR::LO, "not the same");
    let conflicting = folder.path().join("conflicting.dcm");
    object::write(other, fovea_tests::sample::EXPLICIT_VR_LE, &conflicting).unwrap();
    let rows = ctl::send(&[conflicting], &node.address(), 1).unwrap();
    assert_ne!(rows[0].outcome, "stored", "{rows:?}");

    assert_eq!(std::fs::read(&stored).unwrap(), before, "what is held stays as it was");
    assert_eq!(node.ctl().findings().unwrap().len(), 1, "one UID, one outcome");
    let quarantine = node.state().join("quarantine/conflict");
    assert_eq!(std::fs::read_dir(&quarantine).unwrap().count(), 1, "the newcomer is kept in {}", quarantine.display());
}

#[test]
fn a_wrong_configuration_ends_with_status_78_and_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    for (toml, key) in [
        ("[receive]\nlisten = \"nowhere\"\n", "listen"),
        ("[receive]\nlissten = \"127.0.0.1:1\"\n", "lissten"),
        ("[log]\nlevel = \"loud\"\n", "log.level"),
    ] {
        let config = folder.path().join("fovea.toml");
        std::fs::write(&config, toml).unwrap();
        let fovead = paths::program("fovead").unwrap();
        let output = std::process::Command::new(fovead).args(["check", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{toml}: {said}");
        assert!(said.contains(key), "{toml}: {said}");
    }
}

#[test]
fn a_sender_that_calls_another_title_is_rejected_with_the_reason() {
    let (_folder, node) = start();
    let answer = dcmtk::run("echoscu", &["-v", "-aec", "SOMEONE", "127.0.0.1", &node.port().to_string()]).unwrap();
    assert!(!answer.success && answer.text.contains("Called AE Title Not Recognized"), "{}", answer.text);
}

#[test]
fn foveactl_sends_to_other_nodes_too_with_small_pdus_and_over_several_associations() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        (60..72).map(|seed| Sample::secondary_capture(seed).write(folder.path()).unwrap()).collect();
    let received = folder.path().join("received");
    let (_receiver, port) = dcmtk::storescp(&received, &["--fork", "-pdu", "4096", "+B"]).unwrap();
    for associations in [1, 4] {
        let rows = ctl::send_all(&files, &format!("STORESCP@127.0.0.1:{port}"), associations).unwrap();
        assert_eq!(rows.len(), files.len());
    }
    assert_eq!(std::fs::read_dir(&received).unwrap().count(), files.len());
}
