//! The task against an archive that refuses, aborts, is full, is silent, and is away.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod support;

use fovea_core::*;
use fovea_store::MemoryStore;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::sync::Notify;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn findings_go_before_pixels_and_every_byte_arrives_once() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("3.1", Lane::Pixels, 300_000), ("2.1", Lane::Findings, 5_001)]);
    dispatch(&outbox, "1.2", &[("3.2", Lane::Pixels, 1), ("2.2", Lane::UrgentFindings, 0)]);
    // Warnings are successes, too.
    let archive = Archive::start(always(0xB000)).await;
    let running = Running::start(&outbox, archive.address);
    running.until_empty().await;
    assert_eq!(archive.stored(), ["2.2", "2.1", "3.1", "3.2"]);
    for (name, bytes) in &archive.seen.lock().unwrap().stored {
        let length = HashMap::from([("2.2", 0), ("2.1", 5_001), ("3.1", 300_000), ("3.2", 1)])[name.as_str()];
        assert_eq!(*bytes, data_set(name, length), "{name}");
    }
    dispatch(&outbox, "1.3", &[("2.3", Lane::Findings, 10)]);
    running.doorbell.notify_one();
    running.until_empty().await;
    let counters = running.stop().await;
    assert_eq!((counters.sent, counters.failed, counters.last_error, counters.connected), (5, 0, None, false));
    assert_eq!(archive.stored().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_finding_waits_for_one_image_at_most() {
    let outbox = Arc::new(MemoryStore::new());
    for number in 0..40 {
        dispatch(&outbox, &format!("1.{number}"), &[(&format!("3.{number}"), Lane::Pixels, 50_000)]);
    }
    let late = outbox.clone();
    let doorbell = Arc::new(Notify::new());
    let bell = doorbell.clone();
    let archive = Archive::start(Arc::new(move |name, _| {
        if name == "3.4" {
            dispatch(&late, "1.99", &[("2.99", Lane::UrgentFindings, 100)]);
            bell.notify_one();
        }
        Answer::Say(0)
    }))
    .await;
    let running = Running::start_rung_by(doorbell, &outbox, outbox.clone(), destination(archive.address));
    running.until_empty().await;
    let stored = archive.stored();
    assert_eq!(stored[4..7], ["3.4", "2.99", "3.5"], "{stored:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_again_and_again_is_set_aside_with_the_reason_and_the_others_go_on() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100), ("2.2", Lane::Findings, 100)]);
    dispatch(&outbox, "1.2", &[("2.3", Lane::Findings, 100), ("2.4", Lane::Findings, 100)]);
    let archive = Archive::start(Arc::new(|name, tries| match (name, tries) {
        ("2.1", _) => Answer::Say(0xC000),
        ("2.3", 0..=1) => Answer::Say(0xA900),
        _ => Answer::Say(0),
    }))
    .await;
    let running = Running::start(&outbox, archive.address);
    running.until_empty().await;
    assert_eq!(archive.stored(), ["2.2", "2.4", "2.3"]);
    assert_eq!(archive.offered().iter().filter(|name| *name == "2.1").count(), 3);
    let (ways, _) = outbox.sent_for(&uid("1.1")).unwrap();
    assert!(ways[0].set_aside[0].1.contains("C000"), "{:?}", ways[0]);
    let counters = running.stop().await;
    assert_eq!((counters.sent, counters.set_aside, counters.failed), (3, 1, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_the_archive_does_not_take_is_set_aside_and_the_rest_arrives() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100), ("3.1", Lane::Pixels, 100)]);
    let archive = Archive::start_at("127.0.0.1:0".parse().unwrap(), vec![PHOTO], always(0)).await;
    let running = Running::start(&outbox, archive.address);
    running.until_empty().await;
    assert_eq!(archive.stored(), ["3.1"]);
    let (ways, _) = outbox.sent_for(&uid("1.1")).unwrap();
    assert!(ways[0].set_aside[0].1.contains("does not accept"), "{:?}", ways[0]);
    assert!(archive.seen.lock().unwrap().associations >= 3, "each try asks anew");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_archive_and_one_that_aborts_or_falls_silent_get_the_object_later() {
    let outbox = Arc::new(MemoryStore::new());
    for number in 1..=4 {
        dispatch(&outbox, &format!("1.{number}"), &[(&format!("3.{number}"), Lane::Pixels, 100_000)]);
    }
    let archive = Archive::start(Arc::new(|name, tries| match (name, tries) {
        // More often than an object may be refused: this is about the archive, nothing may be set aside.
        ("3.1", 0..=4) => Answer::Say(0xA700),
        ("3.2", 0..=4) => Answer::Abort,
        ("3.3", 0) => Answer::Silence,
        _ => Answer::Say(0),
    }))
    .await;
    let running = Running::start(&outbox, archive.address);
    running.until("an error to show", |running| running.counters.snapshot().last_error.is_some()).await;
    running.until_empty().await;
    let mut stored = archive.stored();
    stored.sort();
    assert_eq!(stored, ["3.1", "3.2", "3.3", "3.4"]);
    let counters = running.stop().await;
    assert_eq!((counters.sent, counters.set_aside, counters.failed), (4, 0, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_breaks_the_archive_every_time_does_not_hold_up_the_others() {
    let outbox = Arc::new(MemoryStore::new());
    for number in 1..=10 {
        dispatch(&outbox, &format!("1.{number}"), &[(&format!("3.{number}"), Lane::Pixels, 1000)]);
    }
    let archive = Archive::start(Arc::new(|name, _| match name {
        "3.1" => Answer::Abort,
        _ => Answer::Say(0),
    }))
    .await;
    let running = Running::start(&outbox, archive.address);
    running.until("nine objects", |_| archive.stored().len() == 9).await;
    running.until("the tenth alone", |running| running.waiting().len() == 1).await;
    let left: Vec<String> = running.waiting().iter().map(|parcel| parcel.sop_instance_uid.to_string()).collect();
    assert_eq!(left, ["3.1"], "it stays, for nobody refused it");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_away_is_waited_for_and_the_wait_shows() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100)]);
    // A port that was free a moment ago, with nobody behind it.
    let address = Archive::start(always(0)).await.address;
    sleep(Duration::from_millis(50)).await;
    let running = Running::start(&outbox, address);
    running.until("a few failures", |running| running.counters.snapshot().failed >= 3).await;
    running.until("the next try to show", |running| running.counters.snapshot().next_try.is_some()).await;
    let shown = running.counters.snapshot();
    assert!(shown.last_error.unwrap().contains("could not reach") && !shown.connected);
    let archive = Archive::start_at(address, vec![SR], always(0)).await;
    running.until_empty().await;
    assert_eq!(archive.stored(), ["2.1"]);
    let counters = running.stop().await;
    assert_eq!((counters.sent, counters.last_error, counters.next_try), (1, None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_sends_the_rest_and_nothing_twice() {
    let outbox = Arc::new(MemoryStore::new());
    for number in 0..60 {
        dispatch(&outbox, &format!("1.{number}"), &[(&format!("3.{number}"), Lane::Pixels, 20_000)]);
    }
    let archive = Archive::start(always(0)).await;
    let running = Running::start(&outbox, archive.address);
    running.until("some objects", |_| archive.stored().len() >= 20).await;
    let counters = running.stop().await;
    let (first, waiting) = (archive.stored().len(), outbox.waiting("vna", &[What::Deidentified], 100).unwrap().len());
    assert_eq!(counters.sent as usize, first, "the object in hand was finished and counted");
    assert_eq!(first + waiting, 60, "what was sent is recorded");
    assert!(waiting > 0, "it was stopped in the middle");
    let running = Running::start(&outbox, archive.address);
    running.until_empty().await;
    running.stop().await;
    let mut stored = archive.stored();
    assert_eq!(stored.len(), 60);
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), 60, "nothing twice");
    assert_eq!(archive.seen.lock().unwrap().associations, 2, "one association for each life");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_whose_file_is_not_dicom_is_set_aside_and_the_others_go_on() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100)]);
    let mut content = outbox.open_temp().unwrap();
    content.file.write_all(b"no DICOM").unwrap();
    let bad = NewParcel {
        what: What::Findings,
        lane: Lane::UrgentFindings,
        sop_class_uid: uid(SR),
        sop_instance_uid: uid("2.2"),
        transfer_syntax_uid: uid(EXPLICIT),
        content,
    };
    let accepted = outbox.accepted(&uid("1.1")).unwrap().unwrap();
    let header = ObjectHeader { sop_instance_uid: uid("1.2"), ..accepted.header };
    let new = NewObject {
        header,
        sender: Sender::Capture,
        last_byte_at: UnixMicros(0),
        data_set_sha256: Sha256::of(b""),
        file_bytes: 0,
    };
    outbox.accept(outbox.open_temp().unwrap(), new).unwrap();
    outbox.dispatch(&uid("1.2"), vec![bad], vec![], UnixMicros(0)).unwrap();
    let archive = Archive::start(always(0)).await;
    let running = Running::start(&outbox, archive.address);
    running.until_empty().await;
    assert_eq!((archive.stored(), running.stop().await.set_aside), (vec!["2.1".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_ill_for_a_while_and_refuses_everything_gets_everything_once_it_is_well() {
    for code in [0x0110, 0xC000, 0xA900, 0x0122] {
        let outbox = Arc::new(MemoryStore::new());
        dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100), ("3.1", Lane::Pixels, 100)]);
        // More often than `refusals_max`, but not for a day.
        let archive = Archive::start(Arc::new(move |_, tries| Answer::Say(if tries < 5 { code } else { 0 }))).await;
        let mut destination = destination(archive.address);
        destination.refuse_after_min = Duration::from_secs(2);
        destination.retry_max = Duration::from_millis(40);
        let running = Running::start_with(&outbox, outbox.clone(), destination);
        running.until_empty().await;
        let mut stored = archive.stored();
        stored.sort();
        assert_eq!(stored, ["2.1", "3.1"], "{code:04X}");
        let counters = running.stop().await;
        assert_eq!((counters.sent, counters.set_aside), (2, 0), "{code:04X}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_refused_long_enough_is_set_aside_and_others_go_on_meanwhile() {
    let outbox = Arc::new(MemoryStore::new());
    dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100), ("3.1", Lane::Pixels, 100)]);
    let archive = Archive::start(Arc::new(|name, _| Answer::Say(if name == "2.1" { 0xC000 } else { 0 }))).await;
    let mut destination = destination(archive.address);
    destination.refuse_after_min = Duration::from_secs(2);
    let begun = std::time::Instant::now();
    let running = Running::start_with(&outbox, outbox.clone(), destination);
    running.until("the other object", |_| archive.stored() == ["3.1"]).await;
    assert_eq!(running.counters.snapshot().set_aside, 0);
    running.until_empty().await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "not before its time");
    assert_eq!(running.stop().await.set_aside, 1);
}

/// An outbox whose parcels cannot be opened for a while.
struct Stumbling {
    outbox: Arc<MemoryStore>,
    failures_left: std::sync::atomic::AtomicU32,
    error: fn() -> PortError,
}

impl Outbox for Stumbling {
    fn open_parcel(&self, seq: u64) -> Result<std::fs::File, PortError> {
        use std::sync::atomic::Ordering::SeqCst;
        let fails = self.failures_left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err((self.error)()) } else { self.outbox.open_parcel(seq) }
    }

    fn dispatch(
        &self,
        source: &Uid,
        parcels: Vec<NewParcel>,
        quarantined: Vec<Quarantined>,
        now: UnixMicros,
    ) -> Result<(), PortError> {
        self.outbox.dispatch(source, parcels, quarantined, now)
    }

    fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, PortError> {
        self.outbox.waiting(destination, wants, limit)
    }

    fn delivered(&self, seq: u64, destination: &str, at: UnixMicros) -> Result<(), PortError> {
        self.outbox.delivered(seq, destination, at)
    }

    fn set_aside(&self, seq: u64, destination: &str, reason: &str) -> Result<(), PortError> {
        self.outbox.set_aside(seq, destination, reason)
    }

    fn sent_for(&self, source: &Uid) -> Result<(Vec<ParcelState>, Vec<Quarantined>), PortError> {
        self.outbox.sent_for(source)
    }

    fn parcels_after(&self, after: u64, limit: usize) -> Result<Vec<ParcelState>, PortError> {
        self.outbox.parcels_after(after, limit)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_that_cannot_be_opened_now_is_sent_later_and_one_that_is_gone_is_set_aside() {
    let too_many_files = || PortError::Io { doing: "open".into(), source: std::io::Error::from_raw_os_error(24) };
    let gone = || PortError::NotHeld { what: "its file".into() };
    for (error, failures, sent) in [(too_many_files as fn() -> PortError, 5, 1), (gone, 1, 0)] {
        let outbox = Arc::new(MemoryStore::new());
        dispatch(&outbox, "1.1", &[("2.1", Lane::Findings, 100)]);
        let archive = Archive::start(always(0)).await;
        let seen = Arc::new(Stumbling { outbox: outbox.clone(), failures_left: failures.into(), error });
        let running = Running::start_with(&outbox, seen, destination(archive.address));
        running.until_empty().await;
        let counters = running.stop().await;
        assert_eq!((counters.sent, counters.set_aside), (sent, 1 - sent));
    }
}
