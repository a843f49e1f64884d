//! Bytes that changed on the disk: found, put aside, and made good from what is left.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{Progress, Step, Store, VerifyReport};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What an object of these tests holds: enough to know it again.
fn text(sop: &Uid) -> String {
    format!("1.9 {sop}")
}

fn take(store: &Store, number: u32) -> Uid {
    let sop = uid(format!("1.9.{number}"));
    accept(store, &uid("1.9"), &sop, text(&sop).as_bytes()).unwrap();
    sop
}

/// Reads such an object as the daemon reads a header.
fn header_of(file: &File) -> Option<(ObjectHeader, Sender)> {
    let mut bytes = vec![0; 200];
    let length = std::os::unix::fs::FileExt::read_at(file, &mut bytes, 0).ok()?;
    let text = String::from_utf8(bytes[..length].to_vec()).ok()?;
    let (study, sop) = text.split_once(' ')?;
    Some((header(&Uid::new(study).ok()?, &Uid::new(sop).ok()?), Sender::Capture))
}

fn verify(store: &Store) -> VerifyReport {
    store.verify(&mut |_| ()).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

fn object(state: &Path, sop: &Uid) -> PathBuf {
    state.join(format!("objects/1.9/{sop}.dcm"))
}

fn journal(state: &Path) -> PathBuf {
    state.join(format!("journal/{:020}.jnl", 0))
}

#[test]
fn a_sound_store_is_called_so_and_progress_reaches_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 1..=5 {
        let sop = take(&store, number);
        store.record(finding(&sop, 0.5)).unwrap();
        let report = parcel(&*store, &uid(format!("2.2.{number}")), What::Findings, Lane::Findings, b"report");
        store.dispatch(&sop, vec![report], vec![], UnixMicros(1)).unwrap();
    }
    let mut steps: BTreeMap<String, Progress> = BTreeMap::new();
    let report = store
        .verify(&mut |progress| {
            let last = steps.insert(format!("{:?}", progress.step), progress);
            assert!(last.is_none_or(|last| last.done < progress.done) && progress.done <= progress.total);
        })
        .unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.objects_sound, report.parcels_sound, report.journal_records), (5, 5, 15));
    assert!(steps.values().all(|last| last.done == last.total), "{steps:?}");
    assert_eq!(steps[&format!("{:?}", Step::Objects)].total, 5);
}

#[test]
fn any_flipped_byte_of_an_object_is_found_put_aside_with_a_note_and_healed_by_its_sender() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (sop, other) = (take(&store, 1), take(&store, 2));
    let path = object(dir.path(), &sop);
    let aside = dir.path().join("quarantine/damaged");
    for at in 0..text(&sop).len() {
        flip(&path, at);
        let bad = fs::read(&path).unwrap();
        let report = verify(&store);
        assert_eq!((report.objects_damaged.as_slice(), report.objects_sound), (&[sop.clone()][..], 1), "at={at}");
        assert!(matches!(store.open_object(&sop), Err(PortError::Damaged { .. })));
        assert_eq!(verify(&store).objects_missing, std::slice::from_ref(&sop));
        let names = files(&aside);
        let kept = names.iter().filter(|name| name.ends_with(".dcm")).map(|name| fs::read(aside.join(name)).unwrap());
        assert_eq!(kept.collect::<Vec<_>>(), [bad]);
        let note = names.iter().find(|name| name.ends_with(".txt")).map(|name| fs::read_to_string(aside.join(name)));
        assert!(note.unwrap().unwrap().contains(&format!("instance: {sop}")));
        let again = accept(&*store, &uid("1.9"), &sop, text(&sop).as_bytes()).unwrap();
        assert!(matches!(again, Acceptance::Duplicate(_)));
        assert!(verify(&store).is_sound());
        for name in names {
            fs::remove_file(aside.join(name)).unwrap();
        }
    }
    assert_eq!(read(store.open_object(&other).unwrap()), text(&other).as_bytes());
}

#[test]
fn a_parcel_that_is_cut_and_a_journal_record_that_is_flipped_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sop = take(&store, 1);
    let report = parcel(&*store, &uid("2.2.1"), What::Findings, Lane::Findings, b"report");
    store.dispatch(&sop, vec![report], vec![], UnixMicros(1)).unwrap();
    fs::write(dir.path().join("outbox/2.2.1.dcm"), b"rep").unwrap();
    flip(&journal(dir.path()), 100);
    let found = verify(&store);
    assert_eq!((found.parcels_damaged.as_slice(), found.journal_records), (&[uid("2.2.1")][..], 1));
    assert!(found.journal_damaged_bytes > 100 && !found.is_sound(), "{found:?}");
}

#[test]
fn records_that_only_their_objects_are_left_of_are_made_again_and_each_object_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = take(&store, 1);
    let place = store.status().unwrap().journal_bytes as usize;
    let (lost, third) = (take(&store, 2), take(&store, 3));
    drop(store);
    flip(&journal(dir.path()), place + 60);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    for unclean in [false, true] {
        if unclean {
            fs::remove_file(dir.path().join("journal/clean")).unwrap();
        }
        let store = open(dir.path());
        assert_eq!(store.accepted(&lost).unwrap(), None);
        // After a crash its file is put into quarantine; either way it is not lost.
        assert_eq!(object(dir.path(), &lost).exists(), !unclean);
    }
    let store = open(dir.path());
    fs::write(dir.path().join("quarantine/orphans/5.5.5.dcm"), b"nothing that can be read").unwrap();
    let report = store.rebuild(&header_of, &mut |_| ()).unwrap();
    assert_eq!((report.records_made.as_slice(), report.strays_left), (&[lost.clone()][..], 1), "{report:?}");
    assert_eq!((report.objects, report.verified.objects_sound), (3, 3));
    assert!(dir.path().join("quarantine/orphans/5.5.5.dcm").exists(), "what cannot be read stays for people");
    for sop in [&first, &lost, &third] {
        assert_eq!(read(store.open_object(sop).unwrap()), text(sop).as_bytes());
    }
    let made = store.accepted(&lost).unwrap().unwrap();
    assert_eq!((made.sender, made.data_set_sha256), (Sender::Capture, Sha256::of(text(&lost).as_bytes())));
    assert_eq!(store.pending(9).unwrap().len(), 3, "it waits for its outcome");
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(open(dir.path()).status().unwrap().objects, 3);
}

#[test]
fn what_the_journal_lost_and_the_index_still_knows_is_written_again_with_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sop = take(&store, 1);
    let place = store.status().unwrap().journal_bytes as usize;
    store.record(finding(&sop, 0.25)).unwrap();
    let report = parcel(&*store, &uid("2.2.1"), What::Findings, Lane::Findings, b"report");
    let held_back = vec![Quarantined { what: What::Originals, reason: "why".into() }];
    store.dispatch(&sop, vec![report], held_back, UnixMicros(1)).unwrap();
    store.delivered(1, "vna", UnixMicros(5)).unwrap();
    store.custody(1, "vna", Proof::Query, UnixMicros(6)).unwrap();
    let end = store.status().unwrap().journal_bytes as usize;
    let known = |store: &Store| {
        let (sent, held_back) = store.sent_for(&sop).unwrap();
        let proofs = store.custody_of(sent[0].parcel.seq).unwrap();
        (store.finding_of(&sop).unwrap(), sent[0].delivered.clone(), held_back, proofs)
    };
    let before = known(&store);
    // Everything after the acceptance is gone from the disk, while the daemon runs.
    let mut bytes = fs::read(journal(dir.path())).unwrap();
    bytes[place..end].fill(0x55);
    fs::write(journal(dir.path()), bytes).unwrap();
    let report = store.rebuild(&header_of, &mut |_| ()).unwrap();
    assert_eq!((report.records_salvaged, report.findings), (2, 1), "{report:?}");
    assert_eq!(known(&store), before);
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(known(&open(dir.path())), before);
}

#[test]
fn documents_that_the_journal_lost_are_written_again_and_those_whose_end_it_lost_stay_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put = |key: &str, content: &[u8]| {
        let document = Document { key: key.into(), content: content.into() };
        store.put_document(DocumentKind::ProcedureStep, document).unwrap();
    };
    let known = |store: &Store| store.documents(DocumentKind::ProcedureStep, "", 9).unwrap();
    put("1.1", b"as it was");
    put("1.2", b"to go");
    put("1.3", b"unharmed");
    let place = store.status().unwrap().journal_bytes as usize;
    put("1.1", b"as it is");
    put("1.4", b"new");
    store.remove_document(DocumentKind::ProcedureStep, "1.2").unwrap();
    let (before, end) = (known(&store), store.status().unwrap().journal_bytes as usize);
    let mut bytes = fs::read(journal(dir.path())).unwrap();
    bytes[place..end].fill(0x55);
    fs::write(journal(dir.path()), bytes).unwrap();
    let report = store.rebuild(&header_of, &mut |_| ()).unwrap();
    assert_eq!((report.records_salvaged, report.documents), (3, 3), "{report:?}");
    assert_eq!(known(&store), before);
    let again = store.rebuild(&header_of, &mut |_| ()).unwrap();
    assert_eq!(again.records_salvaged, 0, "what both know is left alone");
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(known(&open(dir.path())), before);
}

#[test]
fn a_file_that_was_found_again_takes_its_place_and_one_with_other_bytes_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (sop, other) = (take(&store, 1), take(&store, 2));
    for (sop, name) in [(&sop, "1.9.1.dcm"), (&other, "3-1.9.2.dcm")] {
        fs::rename(object(dir.path(), sop), dir.path().join("quarantine/orphans").join(name)).unwrap();
    }
    flip(&dir.path().join("quarantine/orphans/3-1.9.2.dcm"), 3);
    let report = store.rebuild(&header_of, &mut |_| ()).unwrap();
    assert_eq!((report.files_put_back.as_slice(), report.strays_left), (&[sop.clone()][..], 1));
    assert_eq!(report.verified.objects_missing, [other]);
    assert_eq!(read(store.open_object(&sop).unwrap()), text(&sop).as_bytes());
    assert_eq!(files(&dir.path().join("quarantine/orphans")), ["3-1.9.2.dcm"]);
}
