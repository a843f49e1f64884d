//! Objects over associations: what is accepted, what is refused with which status, and when.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::{Laterality, Sender, Sha256, sop_class};
use fovea_dimse::{ScuError, Status, part10_head};
use fovea_receive::RawPeer;
use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use support::*;

#[tokio::test]
async fn inv_01_success_is_answered_only_after_the_inbox_has_accepted() {
    let server = Server::start(|_| {}).await;
    server.inbox.set_gate(false);
    let mut scu = server.scu().await;
    let data = native("1.2.3", EXPLICIT, 1000);
    let (class, instance, syntax) = (uid(sop_class::SECONDARY_CAPTURE), uid("1.2.3"), uid(EXPLICIT));
    let mut storing = Box::pin(scu.store(&class, &instance, &syntax, data.as_slice()));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut storing).await.is_err(), "answered too early");
    assert_eq!(server.inbox.waiting_at_gate.load(SeqCst), 1);
    server.inbox.set_gate(true);
    assert!(storing.await.unwrap().is_success());
    drop(scu);
    server.end().await;
}

#[tokio::test]
async fn every_byte_is_kept_and_the_routing_facts_are_right() {
    let server = Server::start(|_| {}).await;
    let deflated = {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&native("1.2.3.4", EXPLICIT, 70_000)).unwrap();
        encoder.finish().unwrap()
    };
    let cases = [
        ("1.2.3.1", IMPLICIT, native("1.2.3.1", IMPLICIT, 100)),
        ("1.2.3.2", EXPLICIT, native("1.2.3.2", EXPLICIT, 3 << 20)),
        ("1.2.3.3", BASELINE, encapsulated("1.2.3.3", &[&[1; 5000], &[2; 600_000]])),
        ("1.2.3.4", DEFLATED, deflated),
    ];
    for (index, (instance, syntax, data)) in cases.iter().enumerate() {
        assert_eq!(server.store(instance, syntax, data).await, Status::SUCCESS, "{syntax}");
        tokio::time::timeout(Duration::from_secs(1), server.doorbell.notified()).await.expect("the bell rings");
        let held = server.inbox.held().remove(index);
        let header = &held.header;
        let bytes = std::fs::read(server.inbox.path_of(&uid(instance))).unwrap();
        let head = part10_head(&mut std::io::Cursor::new(&bytes)).unwrap();
        assert_eq!(&bytes[head.data_set_offset as usize..], data, "{syntax}");
        assert_eq!(head.transfer_syntax_uid.as_str(), *syntax);
        assert_eq!(held.file_bytes, bytes.len() as u64);
        assert_eq!(held.data_set_sha256, Sha256::of(data));
        assert_eq!(held.sender, Sender::Dimse(ae("SCOPE")));
        assert_eq!((header.study_uid.as_str(), header.series_uid.as_str()), ("1.2.40", "1.2.41"));
        assert_eq!((header.modality.as_deref(), header.body_part.as_deref()), (Some("OT"), Some("EYE")));
        assert_eq!((header.rows_px, header.columns_px, header.frames), (Some(16), Some(32), 3));
        assert_eq!(header.laterality, Some(Laterality::Left));
        assert_eq!((header.photometric.as_deref(), header.burned_in_annotation), (Some("MONOCHROME2"), Some(false)));
        match header.pixel_data_offset {
            None => assert_eq!(*syntax, DEFLATED),
            Some(at) => assert_eq!(bytes[at as usize..at as usize + 4], [0xE0, 0x7F, 0x10, 0x00], "{syntax}"),
        }
        let object = dicom_object::OpenFileOptions::new()
            .read_until(dicom_dictionary_std::tags::PIXEL_DATA)
            .open_file(server.inbox.path_of(&uid(instance)))
            .unwrap();
        assert_eq!(object.element(dicom_dictionary_std::tags::MODALITY).unwrap().to_str().unwrap(), "OT");
    }
    let counts = server.counters.counts();
    assert_eq!((counts.objects_accepted, counts.associations_total), (4, 4));
    let inbox = server.end().await;
    assert_eq!(inbox.temps(), 0);
}

#[tokio::test]
async fn a_repeat_succeeds_and_other_content_under_a_held_uid_is_refused() {
    let server = Server::start(|_| {}).await;
    let data = native("1.2.3", EXPLICIT, 1000);
    assert_eq!(server.store("1.2.3", EXPLICIT, &data).await, Status::SUCCESS);
    assert_eq!(server.store("1.2.3", EXPLICIT, &data).await, Status::SUCCESS);
    let other = native("1.2.3", EXPLICIT, 1002);
    assert_eq!(server.store("1.2.3", EXPLICIT, &other).await, Status::DUPLICATE_SOP_INSTANCE);
    let counts = server.counters.counts();
    assert_eq!((counts.objects_accepted, counts.objects_duplicate, counts.objects_conflict), (1, 1, 1));
    assert_eq!(server.end().await.held().len(), 1);
}

#[tokio::test]
async fn inv_08_what_cannot_be_kept_or_understood_gets_its_status_and_the_association_goes_on() {
    let server = Server::start(|config| config.object_mib_max = 1).await;
    let mut scu = server.scu().await;
    let class = uid(sop_class::SECONDARY_CAPTURE);
    let whole = native("1.2.3", EXPLICIT, 4000);
    let nested = {
        let mut maker = head("1.2.3", EXPLICIT);
        for _ in 0..1000 {
            maker = maker.head(0x0008, 0x1140, b"SQ", 0xFFFF_FFFF).head(0xFFFE, 0xE000, b"UN", 0xFFFF_FFFF);
        }
        maker.bytes
    };
    let without_study = maker(EXPLICIT)
        .element(0x0008, 0x0016, b"UI", sop_class::SECONDARY_CAPTURE.as_bytes())
        .element(0x0008, 0x0018, b"UI", b"1.2.3")
        .bytes;
    let cases: Vec<(&str, Status, Vec<u8>)> = vec![
        ("empty", Status::CANNOT_UNDERSTAND, Vec::new()),
        ("garbage", Status::CANNOT_UNDERSTAND, vec![0xA5; 5000]),
        ("cut in the pixels", Status::CANNOT_UNDERSTAND, whole[..whole.len() - 100].to_vec()),
        ("cut in a header", Status::CANNOT_UNDERSTAND, whole[..13].to_vec()),
        ("1000 deep", Status::CANNOT_UNDERSTAND, nested),
        ("no study", Status::CANNOT_UNDERSTAND, without_study),
        (
            "length of 4 GiB",
            Status::CANNOT_UNDERSTAND,
            head("1.2.3", EXPLICIT).head(8, 0x1140, b"SQ", 0xFFFF_FFF0).bytes,
        ),
        ("other instance", Status::DATA_SET_MISMATCH, native("1.2.4", EXPLICIT, 10)),
        ("too long", Status::OUT_OF_RESOURCES, native("1.2.3", EXPLICIT, 2 << 20)),
    ];
    for (name, status, data) in &cases {
        let answer = scu.store(&class, &uid("1.2.3"), &uid(EXPLICIT), data.as_slice()).await.unwrap();
        assert_eq!(answer, *status, "{name}");
    }
    server.inbox.full.store(true, SeqCst);
    let answer = scu.store(&class, &uid("1.2.3"), &uid(EXPLICIT), whole.as_slice()).await.unwrap();
    assert_eq!(answer, Status::OUT_OF_RESOURCES, "full disk");
    server.inbox.full.store(false, SeqCst);
    server.inbox.broken.store(true, SeqCst);
    let answer = scu.store(&class, &uid("1.2.3"), &uid(EXPLICIT), whole.as_slice()).await.unwrap();
    assert_eq!(answer, Status::PROCESSING_FAILURE, "broken store");
    server.inbox.broken.store(false, SeqCst);
    let answer = scu.store(&class, &uid("1.2.3"), &uid(EXPLICIT), whole.as_slice()).await.unwrap();
    assert_eq!(answer, Status::SUCCESS, "the same association still works");
    scu.release().await.unwrap();
    let counts = server.counters.counts();
    assert_eq!((counts.refused_not_understood, counts.refused_mismatch, counts.refused_no_space), (7, 1, 2));
    assert_eq!((counts.refused_other, counts.associations_broken), (1, 0));
    let inbox = server.end().await;
    assert_eq!((inbox.held().len(), inbox.temps()), (1, 0));
}

#[tokio::test]
async fn inv_08_a_long_object_is_refused_while_it_comes_when_there_is_no_room_for_more_of_it() {
    let server = Server::start(|_| {}).await;
    let (class, explicit) = (uid(sop_class::SECONDARY_CAPTURE), uid(EXPLICIT));
    let mut scu = server.scu().await;
    let long = native("1.2.3", EXPLICIT, 8 << 20);
    server.inbox.share_bytes_max.store(2 << 20, SeqCst);
    let answer = scu.store(&class, &uid("1.2.3"), &explicit, long.as_slice()).await.unwrap();
    assert_eq!(answer, Status::OUT_OF_RESOURCES);
    let asked = std::mem::take(&mut *server.inbox.asked.lock().unwrap());
    assert!(asked.windows(2).all(|pair| (1..=1 << 20).contains(&(pair[1] - pair[0]))), "at least each MiB: {asked:?}");
    let most = *asked.last().unwrap();
    assert!((2 << 20..3 << 20).contains(&most), "refused as soon as it is too much, and not asked again: {asked:?}");
    until("what was written of it is gone", || server.inbox.temps() == 0).await;
    // On the same association; one batch is a matter of `open_temp` and `accept`.
    let short = native("1.2.4", EXPLICIT, 100_000);
    assert!(scu.store(&class, &uid("1.2.4"), &explicit, short.as_slice()).await.unwrap().is_success());
    assert!(server.inbox.asked.lock().unwrap().is_empty());
    let fits = native("1.2.5", EXPLICIT, 1_500_000);
    assert!(scu.store(&class, &uid("1.2.5"), &explicit, fits.as_slice()).await.unwrap().is_success());
    assert!(*server.inbox.asked.lock().unwrap().last().unwrap() > 1_500_000, "asked for all of it in the end");
    scu.release().await.unwrap();
    let counts = server.counters.counts();
    assert_eq!((counts.refused_no_space, counts.objects_accepted, counts.associations_broken), (1, 2, 0));
    let inbox = server.end().await;
    assert_eq!((inbox.held().len(), inbox.temps()), (2, 0));
}

#[tokio::test]
async fn inv_08_a_disk_that_fills_while_an_object_comes_refuses_it_before_the_last_byte_is_gone() {
    let server = Server::start(|_| {}).await;
    let whole = native("1.2.3", EXPLICIT, 8 << 20);
    let full = FullAfter { bytes: whole, at: 0, full_at: 3 << 20, inbox: std::sync::Arc::clone(&server.inbox) };
    let mut scu = server.scu().await;
    let answer = scu.store(&uid(sop_class::SECONDARY_CAPTURE), &uid("1.2.3"), &uid(EXPLICIT), full).await.unwrap();
    assert_eq!(answer, Status::OUT_OF_RESOURCES);
    let asked = server.inbox.asked.lock().unwrap().clone();
    assert!(asked.last().is_some_and(|bytes| *bytes < 8 << 20), "{asked:?}");
    drop(scu);
    let inbox = server.end().await;
    assert_eq!((inbox.held().len(), inbox.temps()), (0, 0));
}

#[tokio::test]
async fn inv_04_a_repeat_of_a_long_object_is_success_also_for_a_sender_that_has_its_share() {
    let server = Server::start(|_| {}).await;
    let long = native("1.2.3", EXPLICIT, 3 << 20);
    assert_eq!(server.store("1.2.3", EXPLICIT, &long).await, Status::SUCCESS);
    server.inbox.share_bytes_max.store(1 << 20, SeqCst);
    assert_eq!(server.store("1.2.3", EXPLICIT, &long).await, Status::SUCCESS);
    let other = native("1.2.4", EXPLICIT, 3 << 20);
    assert_eq!(server.store("1.2.4", EXPLICIT, &other).await, Status::OUT_OF_RESOURCES);
    let counts = server.counters.counts();
    assert_eq!((counts.objects_accepted, counts.objects_duplicate, counts.refused_no_space), (1, 1, 1));
    server.end().await;
}

/// Gives its bytes; from one place on the disk is full.
struct FullAfter {
    bytes: Vec<u8>,
    at: usize,
    full_at: usize,
    inbox: std::sync::Arc<FolderInbox>,
}

impl tokio::io::AsyncRead for FullAfter {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.at >= self.full_at {
            self.inbox.full.store(true, SeqCst);
        }
        let count = (self.bytes.len() - self.at).min(out.remaining());
        out.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn inv_08_an_abort_in_mid_object_leaves_nothing_behind() {
    let server = Server::start(|_| {}).await;
    for _ in 0..20 {
        let mut scu = server.scu().await;
        let whole = native("1.2.3", EXPLICIT, 3 << 20);
        let cut = FailingReader { bytes: whole[..2 << 20].to_vec(), at: 0 };
        let answer = scu.store(&uid(sop_class::SECONDARY_CAPTURE), &uid("1.2.3"), &uid(EXPLICIT), cut).await;
        assert!(matches!(answer, Err(ScuError::DataSet { .. })), "{answer:?}");
    }
    until("all sessions are over", || server.counters.counts().associations_broken == 20).await;
    until("no temporary file is left", || server.inbox.temps() == 0).await;
    assert!(server.inbox.held().is_empty());
    assert_eq!(server.store("1.2.3", EXPLICIT, &native("1.2.3", EXPLICIT, 10)).await, Status::SUCCESS);
    server.end().await;
}

/// Gives its bytes, then fails.
struct FailingReader {
    bytes: Vec<u8>,
    at: usize,
}

impl tokio::io::AsyncRead for FailingReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        self.at += count;
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn strangers_are_rejected_for_good() {
    let server = Server::start(|config| {
        config.peers = vec![RawPeer::titled("SCOPE")];
    })
    .await;
    let good = server.scu_config();
    for (called, calling) in [("OTHER", "SCOPE"), ("FOVEA", "STRANGER")] {
        let mut config = good.clone();
        (config.called_ae, config.calling_ae) = (ae(called), ae(calling));
        let answer = fovea_dimse::Scu::connect(&config, &contexts()).await;
        assert!(matches!(answer, Err(ScuError::Rejected { permanent: true, .. })));
    }
    assert!(server.scu().await.echo().await.unwrap().is_success());
    assert_eq!(server.counters.counts().associations_refused, 2);
    server.end().await;
}

#[tokio::test]
async fn stopping_finishes_the_object_in_hand_and_ends_idle_associations() {
    let server = Server::start(|_| {}).await;
    let mut idle = server.scu().await;
    let mut busy = server.scu().await;
    server.inbox.set_gate(false);
    let data = native("1.2.3", EXPLICIT, 1000);
    let (class, instance, syntax) = (uid(sop_class::SECONDARY_CAPTURE), uid("1.2.3"), uid(EXPLICIT));
    let mut storing = Box::pin(busy.store(&class, &instance, &syntax, data.as_slice()));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut storing).await.is_err());
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.inbox.set_gate(true);
    assert!(storing.await.unwrap().is_success());
    assert!(idle.echo().await.is_err());
    drop((busy, idle));
    assert_eq!(server.end().await.held().len(), 1);
}
