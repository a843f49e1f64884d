//! The peers themselves: a fault in a peer or in our handling of it must not look like a fault of the box.

use fovea_tests::archive::Archive;
use fovea_tests::sample::Sample;
use fovea_tests::{dcmtk, object, peer, ports, wait};
use std::time::Duration;

#[test]
fn the_archive_keeps_what_storescu_sends_and_still_holds_it_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::secondary_capture(1);
    let path = sample.write(folder.path()).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), 11112).unwrap();
    archive.start().unwrap();

    let port = archive.dicom_port.to_string();
    dcmtk::succeed("storescu", &["-aec", "ORTHANC", "127.0.0.1", &port, path.to_str().unwrap()]).unwrap();
    assert_eq!(archive.count().unwrap(), 1);

    archive.stop().unwrap();
    archive.start().unwrap();
    assert_eq!(archive.sop_instance_uids().unwrap(), [sample.sop_instance_uid()]);
    let held = object::parse(&archive.download(&sample.sop_instance_uid()).unwrap()).unwrap();
    let token = object::text(&held, dicom_dictionary_std::tags::PATIENT_ID).unwrap();
    assert_eq!(token, "TOKEN1-ID");
    assert_eq!(archive.find("1.2.3").unwrap(), None);
}

#[test]
fn a_sample_has_the_structure_that_its_class_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = Sample::secondary_capture(2).write(folder.path()).unwrap();
    assert_eq!(dcmtk::structure_errors(&path).unwrap(), [] as [String; 0]);

    let broken = folder.path().join("broken.dcm");
    let mut data_set = Sample::secondary_capture(3).data_set();
    data_set.remove_element(dicom_dictionary_std::tags::ROWS);
    object::write(data_set, fovea_tests::sample::EXPLICIT_VR_LE, &broken).unwrap();
    assert!(!dcmtk::structure_errors(&broken).unwrap().is_empty(), "the checker sees a missing element");
}

#[test]
fn the_scripted_receiver_refuses_as_told_and_then_takes_what_the_scripted_sender_sends() {
    let folder = tempfile::tempdir().unwrap();
    let path = Sample::secondary_capture(4).write(folder.path()).unwrap();
    let (port, out) = (ports::free().unwrap(), folder.path().join("stored.jsonl"));
    let told = serde_json::json!({ "port": port, "out": out, "refuse": 1, "status": 0xA700 }).to_string();
    let mut receiver = peer::start("scp.py", &[told], &folder.path().join("scp.log")).unwrap();
    wait::until(
        Duration::from_secs(20),
        || "scp.py to listen".into(),
        || {
            assert!(receiver.ended().unwrap().is_none(), "{}", receiver.log_tail());
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        },
    )
    .unwrap();

    let asked = serde_json::json!({ "port": port, "called": "PEER", "files": [path, path], "echo": true });
    let answer = peer::run("scu.py", &[asked.to_string()]).unwrap();
    assert_eq!(answer["echo"], 0);
    let statuses: Vec<_> =
        answer["stored"].as_array().unwrap().iter().map(|row| row["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [0xA700, 0x0000]);
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 2);
}

#[test]
fn a_dropped_program_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _port) = dcmtk::storescp(&folder.path().join("in"), &[]).unwrap();
    let pid = running.pid();
    assert!(fovea_tests::process::alive(pid));
    drop(running);
    assert!(!fovea_tests::process::alive(pid));
}
