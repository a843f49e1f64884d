//! What the ports promise while the store is open.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{Config, FINDING_BYTES_MAX, Store, StoreError};
use std::sync::Barrier;

#[test]
fn an_accepted_object_is_a_plain_file_in_its_study_and_pending() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (study, sop) = (uid("1.9"), uid("1.9.1"));
    let Acceptance::New(accepted) = accept(&*store, &study, &sop, b"photo").unwrap() else { panic!() };
    assert_eq!((accepted.seq, accepted.file_bytes), (1, 5));
    assert_eq!(std::fs::read(dir.path().join("objects/1.9/1.9.1.dcm")).unwrap(), b"photo");
    assert_eq!(read(store.open_object(&sop).unwrap()), b"photo");
    assert_eq!(store.pending(10).unwrap(), std::slice::from_ref(&accepted));
    assert_eq!(store.accepted(&sop).unwrap(), Some(accepted));
    assert!(matches!(store.open_object(&uid("9.9")), Err(PortError::NotHeld { .. })));
    assert!(files(&dir.path().join("tmp")).is_empty());
}

#[test]
fn a_view_can_follow_what_was_accepted_from_any_place_whatever_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sops: Vec<Uid> = (1..=5).map(|number| uid(format!("1.9.{number}"))).collect();
    for sop in &sops {
        accept(&*store, &uid("1.9"), sop, b"photo").unwrap();
    }
    store.record(finding(&sops[0], 0.1)).unwrap();
    let listed = |after, limit| -> Vec<Uid> {
        let accepted = store.accepted_after(after, limit).unwrap();
        accepted.into_iter().map(|accepted| accepted.header.sop_instance_uid).collect()
    };
    assert_eq!((listed(0, 9), listed(2, 2)), (sops.clone(), sops[2..4].to_vec()));
    assert!(listed(5, 9).is_empty() && listed(u64::MAX, 9).is_empty());
    assert!(store.gone_after(0, 9).unwrap().is_empty());
}

#[test]
fn a_dropped_temporary_object_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    drop(store.open_temp().unwrap());
    assert!(files(&dir.path().join("tmp")).is_empty());
}

#[test]
fn an_object_whose_length_is_not_as_announced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let temp = store.open_temp().unwrap();
    let refused = store.accept(temp, new_object(&uid("1.9"), &uid("1.9.1"), b"photo"));
    assert!(matches!(refused, Err(PortError::Damaged { .. })), "{refused:?}");
    assert!(files(&dir.path().join("tmp")).is_empty() && files(&dir.path().join("objects")).is_empty());
}

#[test]
fn the_same_bytes_again_are_a_duplicate_and_other_bytes_a_conflict_that_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (study, sop) = (uid("1.9"), uid("1.9.1"));
    let Acceptance::New(first) = accept(&*store, &study, &sop, b"photo").unwrap() else { panic!() };
    assert_eq!(accept(&*store, &study, &sop, b"photo").unwrap(), Acceptance::Duplicate(first.clone()));
    for _ in 0..2 {
        let Acceptance::Conflict { held, quarantined } = accept(&*store, &study, &sop, b"other").unwrap() else {
            panic!()
        };
        assert_eq!(held, first);
        let name = format!("1.9.1-{}.dcm", Sha256::of(b"other"));
        assert_eq!(quarantined, dir.path().join("quarantine/conflict").join(name));
        assert_eq!(std::fs::read(quarantined).unwrap(), b"other");
    }
    assert_eq!(read(store.open_object(&sop).unwrap()), b"photo");
    let status = store.status().unwrap();
    assert_eq!((status.objects, status.conflicts, status.pending), (1, 1, 1));
}

#[test]
fn a_repeat_brings_back_a_held_file_that_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (study, sop) = (uid("1.9"), uid("1.9.1"));
    accept(&*store, &study, &sop, b"photo").unwrap();
    std::fs::remove_dir_all(dir.path().join("objects/1.9")).unwrap();
    assert!(matches!(store.open_object(&sop), Err(PortError::Damaged { .. })));
    assert!(matches!(accept(&*store, &study, &sop, b"photo").unwrap(), Acceptance::Duplicate(_)));
    assert_eq!(read(store.open_object(&sop).unwrap()), b"photo");
}

#[test]
fn one_uid_from_sixteen_associations_at_once_is_new_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..20 {
        let sop = uid(format!("1.9.{round}"));
        let barrier = Barrier::new(16);
        let answers: Vec<Acceptance> = std::thread::scope(|scope| {
            let associations: Vec<_> = (0..16)
                .map(|number| {
                    let (store, sop, barrier) = (&store, &sop, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let bytes: &[u8] = if number % 2 == 0 { b"even" } else { b"odd bytes" };
                        accept(&**store, &uid("1.9"), sop, bytes).unwrap()
                    })
                })
                .collect();
            associations.into_iter().map(|association| association.join().unwrap()).collect()
        });
        let count = |wanted: fn(&Acceptance) -> bool| answers.iter().filter(|answer| wanted(answer)).count();
        assert_eq!(count(|answer| matches!(answer, Acceptance::New(_))), 1);
        assert_eq!(count(|answer| matches!(answer, Acceptance::Duplicate(_))), 7);
        assert_eq!(count(|answer| matches!(answer, Acceptance::Conflict { .. })), 8);
    }
    assert_eq!(store.status().unwrap().objects, 20);
}

#[test]
fn many_acceptances_share_journal_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20 {
                    accept(&**store, &uid("1.9"), &uid(format!("1.9.{thread}.{number}")), b"x").unwrap();
                }
            });
        }
    });
    let status = store.status().unwrap();
    assert_eq!((status.objects, status.pending), (320, 320));
    // Three each when nothing is shared: file, folder, journal.
    assert!(status.syncs < 3 * 320, "{status:?}");
    let seqs: Vec<u64> = store.pending(1000).unwrap().iter().map(|object| object.seq).collect();
    assert_eq!(seqs, (1..=320).collect::<Vec<_>>());
}

#[test]
fn inv_02_the_first_outcome_stays_and_is_answered_to_every_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sop = uid("1.9.1");
    assert!(matches!(store.record(finding(&sop, 0.1)), Err(PortError::NotHeld { .. })));
    accept(&*store, &uid("1.9"), &sop, b"photo").unwrap();
    let first = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|number| {
                let (store, sop) = (&store, &sop);
                scope.spawn(move || (number, store.record(finding(sop, f64::from(number) / 7.0)).unwrap()))
            })
            .collect();
        let answers: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        let new: Vec<i32> = answers.iter().filter(|(_, a)| *a == Recorded::New).map(|(number, _)| *number).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        let first = finding(&sop, f64::from(new[0]) / 7.0);
        let already = answers.iter().filter(|(_, a)| *a == Recorded::Already(Box::new(first.clone()))).count();
        assert_eq!(already, 7);
        first
    });
    assert_eq!(store.finding_of(&sop).unwrap().as_ref(), Some(&first));
    assert_eq!(store.finding(&first.finding_id).unwrap().as_ref(), Some(&first));
    assert_eq!(store.findings_after(0, 10).unwrap(), [(1, first.clone())]);
    assert!(store.findings_after(1, 10).unwrap().is_empty() && store.pending(10).unwrap().is_empty());
    assert_eq!(store.undispatched(10).unwrap(), [first]);
}

#[test]
fn a_finding_that_cannot_be_read_back_or_is_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sop = uid("1.9.1");
    accept(&*store, &uid("1.9"), &sop, b"photo").unwrap();
    assert!(matches!(store.record(finding(&sop, f64::NAN)), Err(PortError::Damaged { .. })));
    let long = Finding { task: "x".repeat(FINDING_BYTES_MAX), ..finding(&sop, 0.5) };
    assert!(matches!(store.record(long), Err(PortError::Damaged { .. })));
    assert_eq!(store.pending(10).unwrap().len(), 1, "it still waits for an outcome");
    assert_eq!(store.record(finding(&sop, 0.5)).unwrap(), Recorded::New);
}

#[test]
fn dispatch_is_done_once_and_findings_wait_before_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 1..=3 {
        let sop = uid(format!("1.9.{number}"));
        accept(&*store, &uid("1.9"), &sop, b"photo").unwrap();
        store.record(finding(&sop, 0.5)).unwrap();
        let lane = if number == 3 { Lane::UrgentFindings } else { Lane::Findings };
        for _twice in 0..2 {
            let parcels = vec![
                parcel(&*store, &uid(format!("2.1.{number}")), What::Deidentified, Lane::Pixels, b"copy"),
                parcel(&*store, &uid(format!("2.2.{number}")), What::Findings, lane, b"report"),
            ];
            let held_back = vec![Quarantined { what: What::Originals, reason: "no profile".into() }];
            store.dispatch(&sop, parcels, held_back, UnixMicros(9)).unwrap();
        }
    }
    assert!(store.undispatched(10).unwrap().is_empty());
    let names = |limit, wants: &[What]| -> Vec<String> {
        let waiting = store.waiting("vna", wants, limit).unwrap();
        waiting.iter().map(|parcel| parcel.sop_instance_uid.to_string()).collect()
    };
    let all = [What::Deidentified, What::Findings];
    assert_eq!(names(10, &all), ["2.2.3", "2.2.1", "2.2.2", "2.1.1", "2.1.2", "2.1.3"]);
    assert_eq!(names(2, &all), ["2.2.3", "2.2.1"]);
    assert_eq!(names(10, &[What::Findings]), ["2.2.3", "2.2.1", "2.2.2"]);
    assert!(names(10, &[What::Originals]).is_empty() && names(0, &all).is_empty());

    let urgent = &store.waiting("vna", &all, 1).unwrap()[0];
    assert_eq!(read(store.open_parcel(urgent.seq).unwrap()), b"report");
    store.delivered(urgent.seq, "vna", UnixMicros(10)).unwrap();
    store.delivered(urgent.seq, "vna", UnixMicros(11)).unwrap();
    let refused = &store.waiting("vna", &all, 1).unwrap()[0];
    store.set_aside(refused.seq, "vna", &"ö".repeat(4000)).unwrap();
    assert_eq!(names(10, &all), ["2.2.2", "2.1.1", "2.1.2", "2.1.3"]);
    assert_eq!(store.waiting("ehr", &all, 10).unwrap().len(), 6, "another destination has its own queue");
    let (ways, held_back) = store.sent_for(&uid("1.9.3")).unwrap();
    assert_eq!((ways.len(), held_back.len()), (2, 1));
    assert_eq!(ways[1].delivered, [("vna".to_owned(), UnixMicros(10))]);
    assert_eq!(ways[1].path, dir.path().join("outbox/2.2.3.dcm"));
    assert!(matches!(store.delivered(99, "vna", UnixMicros(0)), Err(PortError::NotHeld { .. })));
    assert_eq!(store.parcels_after(0, 100).unwrap().len(), 6);
    let status = store.status().unwrap();
    assert_eq!((status.parcels, status.outbox_waiting, status.held_back), (6, 4, 3));
    let waiting: Vec<_> = status.waiting.iter().map(|queue| (queue.destination.as_str(), queue.parcels)).collect();
    assert_eq!(waiting, [("ehr", 6), ("vna", 4)]);
}

#[test]
fn a_refused_dispatch_leaves_no_file_and_can_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sop = uid("1.9.1");
    accept(&*store, &uid("1.9"), &sop, b"photo").unwrap();
    let make = |count| -> Vec<NewParcel> {
        (0..count).map(|n| parcel(&*store, &uid(format!("2.{n}")), What::Findings, Lane::Findings, b"r")).collect()
    };
    // A reason that makes the record too long for the journal: the files are named by then.
    let too_long = vec![Quarantined { what: What::Deidentified, reason: "x".repeat(2 << 20) }];
    assert!(store.dispatch(&sop, make(3), too_long, UnixMicros(1)).is_err());
    assert!(files(&dir.path().join("outbox")).is_empty() && files(&dir.path().join("tmp")).is_empty());
    let mut same_name = make(1);
    same_name.extend(make(1));
    assert!(store.dispatch(&sop, same_name, vec![], UnixMicros(1)).is_err());
    store.dispatch(&sop, make(3), vec![], UnixMicros(1)).unwrap();
    assert_eq!(files(&dir.path().join("outbox")).len(), 3);
    let other = uid("1.9.2");
    accept(&*store, &uid("1.9"), &other, b"photo").unwrap();
    assert!(store.dispatch(&other, make(1), vec![], UnixMicros(1)).is_err(), "a parcel's name has one owner");
    let first = store.parcels_after(0, 1).unwrap().remove(0).parcel.seq;
    assert_eq!(read(store.open_parcel(first).unwrap()), b"r");
}

#[test]
fn every_folder_of_the_state_is_for_the_daemons_eyes_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("new/state");
    let store = open(&state);
    accept(&*store, &uid("1.9"), &uid("1.9.1"), b"photo").unwrap();
    let mut folders = vec![state.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        let inside_index = folder.starts_with(state.join("index")) && folder != state.join("index");
        assert!(mode == 0o700 || inside_index, "{} has {mode:o}", folder.display());
        seen += 1;
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    assert!(seen >= 8, "{seen} folders");
}

#[test]
fn two_daemons_cannot_share_one_state_and_the_refusal_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = Store::open(&Config::at(dir.path())).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }));
    assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
    drop(store);
    open(dir.path());
}

#[test]
fn past_the_high_watermark_no_object_is_taken_but_results_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config { high_watermark_percent: 0, ..Config::at(dir.path()) }).unwrap();
    assert!(matches!(store.open_temp(), Err(PortError::OutOfSpace { .. })));
    assert!(store.open_result_temp().is_ok());
}

#[test]
fn a_document_within_its_bounds_is_kept_and_one_past_them_leaves_the_former_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kind = DocumentKind::Message;
    let put = |key: &str, content: Vec<u8>| store.put_document(kind, Document { key: key.into(), content });
    let (long_key, long) = ("k".repeat(DOCUMENT_KEY_BYTES_MAX), vec![0; DOCUMENT_BYTES_MAX]);
    put(&long_key, long.clone()).unwrap();
    put("empty", vec![]).unwrap();
    for refused in [put("", vec![]), put(&format!("{long_key}k"), vec![]), put(&long_key, vec![1; long.len() + 1])] {
        assert!(matches!(refused, Err(PortError::Damaged { .. })), "{refused:?}");
    }
    store.set_read_only(true);
    assert!(matches!(put("empty", vec![1]), Err(PortError::OutOfSpace { .. })));
    assert!(matches!(store.remove_document(kind, "empty"), Err(PortError::OutOfSpace { .. })));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.document(kind, &long_key).unwrap().unwrap().content, long);
    assert_eq!(store.document(kind, "empty").unwrap().unwrap().content, b"");
    assert_eq!(store.document(DocumentKind::Verdict, "empty").unwrap(), None, "each kind has keys of its own");
    store.remove_document(kind, "never there").unwrap();
    assert_eq!(store.status().unwrap().documents, 2);
}

#[test]
fn a_document_that_stays_the_same_costs_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put = |content: &[u8]| {
        let document = Document { key: "1.2".into(), content: content.into() };
        store.put_document(DocumentKind::WorklistItem, document).unwrap();
    };
    put(b"scheduled");
    let before = store.calls().syncs();
    (0..10).for_each(|_| put(b"scheduled"));
    assert_eq!(store.calls().syncs(), before);
    put(b"changed");
    assert!(store.calls().syncs() > before);
}
