//! Limits and evictions: what is refused, what may go, and that nothing goes that no archive has.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{Config, Keep, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// Upkeep runs all the time; originals may go a day after their proof.
fn busy(state: &Path) -> Config {
    let keep = Keep { originals: DAY, deidentified: Duration::ZERO, findings: 100 * DAY };
    Config { keep, upkeep_every: Some(Duration::from_millis(5)), ..Config::at(state) }
}

fn days_ago(days: u32) -> UnixMicros {
    (SystemTime::now() - days * DAY).into()
}

/// An object with an outcome, its original, its copy and its report on their way.
fn sent(store: &Store, number: u32) -> (Uid, Vec<Parcel>) {
    let sop = uid(format!("1.9.{number}"));
    accept(store, &uid("1.9"), &sop, b"photo").unwrap();
    store.record(finding(&sop, 0.5)).unwrap();
    let parcels = vec![
        parcel(store, &sop, What::Originals, Lane::Pixels, b"photo"),
        parcel(store, &uid(format!("2.1.{number}")), What::Deidentified, Lane::Pixels, b"copy"),
        parcel(store, &uid(format!("2.2.{number}")), What::Findings, Lane::Findings, b"report"),
    ];
    store.dispatch(&sop, parcels, vec![], UnixMicros(1)).unwrap();
    let parcels = store.sent_for(&sop).unwrap().0.into_iter().map(|way| way.parcel).collect();
    (sop, parcels)
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _patience in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come");
}

/// Long enough for many rounds of upkeep.
fn let_it_look() {
    std::thread::sleep(Duration::from_millis(150));
}

#[test]
fn inv_06_a_file_goes_only_with_a_proof_and_after_its_time_and_records_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&busy(dir.path())).unwrap();
    let (first, parcels) = sent(&store, 1);
    for each in &parcels {
        store.delivered(each.seq, "vna", days_ago(400)).unwrap();
    }
    let_it_look();
    assert_eq!(store.status().unwrap().evicted_parcels, 0, "delivered is not kept");
    let accepted = store.accepted(&first).unwrap();
    // The copy and the report are proved for themselves, not for the object.
    store.custody(parcels[1].seq, "vna", Proof::Query, days_ago(2)).unwrap();
    store.custody(parcels[2].seq, "vna", Proof::Query, days_ago(2)).unwrap();
    wait_for("the copy's eviction", || store.status().unwrap().evicted_parcels == 1);
    let_it_look();
    assert!(matches!(store.open_parcel(parcels[1].seq), Err(PortError::NotHeld { .. })));
    assert_eq!(read(store.open_parcel(parcels[2].seq).unwrap()), b"report", "its time has not come");
    assert_eq!(read(store.open_object(&first).unwrap()), b"photo");
    let transaction_uid = uid("2.25.7");
    store.custody(parcels[0].seq, "vna", Proof::Commitment { transaction_uid }, days_ago(2)).unwrap();
    wait_for("the object's eviction", || store.status().unwrap().evicted_objects == 1);
    assert!(matches!(store.open_object(&first), Err(PortError::NotHeld { .. })));
    wait_for("the files' end", || files(&dir.path().join("objects")).is_empty());
    assert_eq!(files(&dir.path().join("outbox")), ["2.2.1.dcm"]);

    for unclean in [false, true] {
        assert_eq!(store.accepted(&first).unwrap(), accepted);
        assert!(store.finding_of(&first).unwrap().is_some());
        assert_eq!(store.sent_for(&first).unwrap().0.len(), 3);
        let again = accept(&*store, &uid("1.9"), &first, b"photo").unwrap();
        assert!(matches!(again, Acceptance::Duplicate(_)), "unclean: {unclean}, {again:?}");
        assert!(files(&dir.path().join("objects")).is_empty(), "what has gone does not come back");
        assert_eq!(store.status().unwrap().senders[0].bytes, 0);
    }
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_file(dir.path().join("journal/clean")).unwrap();
    let store = Store::open(&busy(dir.path())).unwrap();
    let status = store.status().unwrap();
    assert_eq!((status.in_custody, status.evicted_parcels, status.evicted_objects), (3, 2, 1));
    assert!(matches!(store.open_object(&first), Err(PortError::NotHeld { .. })));
}

#[test]
fn a_parcel_that_another_destination_waits_for_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&busy(dir.path())).unwrap();
    assert!(store.waiting("second", &[What::Deidentified], 9).unwrap().is_empty());
    let (_, parcels) = sent(&store, 1);
    store.delivered(parcels[1].seq, "vna", days_ago(9)).unwrap();
    store.custody(parcels[1].seq, "vna", Proof::Query, days_ago(9)).unwrap();
    let_it_look();
    assert_eq!(store.waiting("second", &[What::Deidentified], 9).unwrap(), [parcels[1].clone()]);
    assert_eq!(read(store.open_parcel(parcels[1].seq).unwrap()), b"copy");
    store.delivered(parcels[1].seq, "second", days_ago(9)).unwrap();
    wait_for("the eviction", || store.status().unwrap().evicted_parcels == 1);
    // One that is added later has nothing to wait for.
    assert!(store.waiting("third", &[What::Deidentified], 9).unwrap().is_empty());
}

#[test]
fn past_the_high_watermark_what_an_archive_keeps_goes_before_its_time_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // Any disk is fuller than that.
    let config = Config { high_watermark_percent: 0, low_watermark_percent: 0, ..busy(dir.path()) };
    let roomy = Store::open(&Config::at(dir.path())).unwrap();
    let (_, kept) = sent(&roomy, 1);
    let (gone, proved) = sent(&roomy, 2);
    roomy.custody(proved[0].seq, "vna", Proof::Query, days_ago(0)).unwrap();
    roomy.custody(proved[2].seq, "vna", Proof::Query, days_ago(0)).unwrap();
    drop(roomy);
    let store = Store::open(&config).unwrap();
    wait_for("the evictions", || store.status().unwrap().evicted_parcels == 2);
    let_it_look();
    let status = store.status().unwrap();
    assert_eq!((status.evicted_parcels, status.evicted_objects, status.takes_objects), (2, 1, false));
    assert!(matches!(store.open_object(&gone), Err(PortError::NotHeld { .. })));
    assert!(kept.iter().all(|parcel| store.open_parcel(parcel.seq).is_ok()));
    let refused = store.check_space(&Sender::Capture, 1).unwrap_err();
    assert!(refused.to_string().contains("limit 0 %"), "{refused}");
}

#[test]
fn a_sender_past_its_quota_is_refused_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config { sender_bytes_max: Some(25), ..Config::at(dir.path()) }).unwrap();
    let take = |number: u32, ae: &str| {
        let sop = uid(format!("1.9.{number}"));
        let mut temp = store.open_temp().unwrap();
        std::io::Write::write_all(&mut temp.file, b"ten bytes!").unwrap();
        let sender = Sender::Dimse(AeTitle::new(ae).unwrap());
        store.accept(temp, NewObject { sender, ..new_object(&uid("1.9"), &sop, b"ten bytes!") })
    };
    assert!(take(1, "SCOPE").is_ok() && take(2, "SCOPE").is_ok());
    let refused = take(3, "SCOPE").unwrap_err();
    assert!(matches!(&refused, PortError::OutOfSpace { detail } if detail.contains("limit is 25")), "{refused:?}");
    assert!(matches!(take(2, "SCOPE").unwrap(), Acceptance::Duplicate(_)), "what is held costs nothing");
    assert!(take(3, "CART").is_ok());
    let scope = Sender::Dimse(AeTitle::new("SCOPE").unwrap());
    assert!(store.check_space(&scope, 5).is_ok() && store.check_space(&scope, 6).is_err());
    let shares = store.status().unwrap().senders;
    let shares: Vec<_> = shares.iter().map(|share| (share.sender.as_str(), share.objects, share.bytes)).collect();
    assert_eq!(shares, [("CART", 1, 10), ("SCOPE", 2, 20)]);
    assert_eq!(files(&dir.path().join("objects")).len(), 3);
}

#[test]
fn an_object_that_cannot_fit_is_refused_before_it_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(store.check_space(&Sender::Capture, 1000).is_ok());
    let refused = store.check_space(&Sender::Capture, 1 << 60).unwrap_err();
    assert!(matches!(&refused, PortError::OutOfSpace { detail } if detail.contains("do not fit")), "{refused:?}");
}

#[test]
fn a_read_only_store_takes_records_and_sends_nothing_and_answers_every_question() {
    let dir = tempfile::tempdir().unwrap();
    let (first, parcels) = sent(&open(dir.path()), 1);
    let store: Arc<Store> = Store::open(&Config { read_only: true, ..busy(dir.path()) }).unwrap();
    let full = |result: Result<(), PortError>| matches!(result, Err(PortError::OutOfSpace { .. }));
    assert!(full(store.open_temp().map(drop)) && full(store.open_result_temp().map(drop)));
    assert!(full(store.check_space(&Sender::Capture, 0)));
    assert!(full(store.delivered(parcels[0].seq, "vna", UnixMicros(1))));
    assert!(full(store.custody(parcels[0].seq, "vna", Proof::Query, UnixMicros(1))));
    assert!(
        full(store.dispatch(&first, vec![], vec![], UnixMicros(1))) || store.sent_for(&first).unwrap().0.len() == 3
    );
    assert!(store.waiting("vna", &[What::Findings], 9).unwrap().is_empty());
    assert_eq!(read(store.open_object(&first).unwrap()), b"photo");
    assert!(store.finding_of(&first).unwrap().is_some() && store.findings_after(0, 9).unwrap().len() == 1);
    let status = store.status().unwrap();
    assert!(status.read_only && !status.takes_objects);
    store.set_read_only(false);
    assert_eq!(store.waiting("vna", &[What::Findings], 9).unwrap().len(), 1);
    store.delivered(parcels[0].seq, "vna", UnixMicros(1)).unwrap();
    assert!(matches!(accept(&*store, &uid("1.9"), &uid("1.9.7"), b"new").unwrap(), Acceptance::New(_)));
}
