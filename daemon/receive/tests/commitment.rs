//! Promises to peers: asked, kept, told, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::{DocumentKind, sop_class};
use fovea_dimse::commitment::{self, Failure, Report};
use fovea_dimse::{Scu, Status};
use fovea_receive::RawPeer;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::services::{
    Papers, Peer, ask, associate, box_on, fresh_box, reference, report_here, request, small, store, viewer,
};
use support::{EXPLICIT, FolderInbox, ae, scu_config, uid, until};

const OPEN: DocumentKind = DocumentKind::CommitmentAsked;
const SC: &str = sop_class::SECONDARY_CAPTURE;

#[tokio::test]
async fn a_peer_that_waits_is_told_on_the_association_that_it_asked_on_and_the_truth() {
    let (server, papers) = fresh_box(|_| {}).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    store(&mut scu, "1.2.1", EXPLICIT).await;
    let mut asked = request("1.9.1", &["1.2.1", "1.2.2"]);
    asked.references.push(reference("1.2.840.10008.5.1.4.1.1.6.1", "1.2.1"));
    assert!(ask(&mut scu, &asked).await.is_success());
    let report = report_here(&mut scu, Status::SUCCESS).await.expect("a report");
    let failed = |at: usize, reason| Failure { reference: asked.references[at].clone(), reason };
    assert_eq!(
        report,
        Report {
            transaction_uid: uid("1.9.1"),
            committed: vec![reference(SC, "1.2.1")],
            failed: vec![failed(1, Status::NO_SUCH_INSTANCE), failed(2, Status::CLASS_INSTANCE_CONFLICT)],
        }
    );
    until("the request is forgotten once it was told", || papers.count(OPEN) == 0).await;
    // The association stands, and serves.
    store(&mut scu, "1.2.2", EXPLICIT).await;
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_peer_that_released_is_called_back_again_and_again_until_it_says_success() {
    let peer = Peer::listen().await;
    let reply_to = Some(peer.address.clone());
    let (server, papers) = fresh_box(|c| c.peers = vec![RawPeer { reply_to, ..viewer() }]).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    store(&mut scu, "1.2.1", EXPLICIT).await;
    assert!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await.is_success());
    assert_eq!(papers.count(OPEN), 1);
    scu.release().await.unwrap();
    let first = peer.told(Status::PROCESSING_FAILURE).await;
    assert_eq!((first.committed.len(), first.failed.len()), (1, 0));
    assert_eq!(papers.count(OPEN), 1, "a failure is no acknowledgement");
    // The association breaks before the answer.
    peer.called().await.abort().await;
    assert_eq!(peer.told(Status::SUCCESS).await, first);
    until("the request is forgotten once it was told", || papers.count(OPEN) == 0).await;
    let counts = server.counters.counts();
    assert_eq!((counts.commitments_asked, counts.commitments_told, counts.commitments_not_told), (1, 1, 2));
    server.end().await;
}

#[tokio::test]
async fn inv_01_a_promise_outlives_the_box_and_is_told_when_the_peer_comes_again() {
    let (inbox, papers) = (FolderInbox::new(), Arc::new(Papers::default()));
    let server = box_on(&inbox, &papers, None, |_| {}).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    store(&mut scu, "1.2.1", EXPLICIT).await;
    assert!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await.is_success());
    // The box goes down before it could tell: nothing is told in order.
    server.served.abort();
    drop(scu);
    let server = box_on(&inbox, &papers, None, |_| {}).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    let report = report_here(&mut scu, Status::SUCCESS).await.expect("told on the next association");
    assert_eq!((report.transaction_uid, report.committed.len()), (uid("1.9.1"), 1));
    until("forgotten", || papers.count(OPEN) == 0).await;
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn inv_01_success_is_not_answered_for_what_could_not_be_kept() {
    let (server, papers) = fresh_box(|_| {}).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    papers.broken.store(true, SeqCst);
    assert_eq!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await, Status::RESOURCE_LIMITATION);
    papers.broken.store(false, SeqCst);
    assert!(report_here(&mut scu, Status::SUCCESS).await.is_none(), "nothing was promised");
    // The same request again is a new one now, and its repeat is none.
    for _ in 0..2 {
        assert!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await.is_success());
    }
    assert_eq!(ask(&mut scu, &request("1.9.1", &["1.2.7"])).await, Status::PROCESSING_FAILURE, "another list");
    assert_eq!(papers.count(OPEN), 1);
    assert!(report_here(&mut scu, Status::SUCCESS).await.is_some());
    assert!(report_here(&mut scu, Status::SUCCESS).await.is_none(), "told once");
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn what_is_no_commitment_request_is_refused_with_its_reason() {
    let (server, papers) = fresh_box(|_| {}).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    let (class, instance) = (commitment::class(), commitment::instance());
    let good = request("1.9.1", &["1.2.1"]).to_data_set();
    let empty = fovea_dimse::DataSet::default();
    for (instance, action, data_set, status) in [
        (&uid("1.2.3"), 1, &good, Status::NO_SUCH_INSTANCE),
        (&instance, 2, &good, Status::NO_SUCH_ACTION),
        (&instance, 1, &empty, Status::INVALID_ARGUMENT_VALUE),
    ] {
        assert_eq!(scu.n_action(&class, instance, action, data_set).await.unwrap().status, status);
    }
    let many: Vec<String> = (0..=commitment::REFERENCES_MAX).map(|index| format!("1.2.{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(&mut scu, &request("1.9.2", &many)).await, Status::RESOURCE_LIMITATION);
    assert_eq!(ask(&mut scu, &request("1.9.2", &many[1..])).await, Status::SUCCESS, "as many as are taken");
    assert_eq!(papers.count(OPEN), 1);
    let report = report_here(&mut scu, Status::SUCCESS).await.unwrap();
    assert_eq!(report.failed.len(), commitment::REFERENCES_MAX);
    scu.release().await.unwrap();
    server.end().await;
}

#[derive(Default)]
struct Heard(Mutex<Vec<(String, Report)>>);

impl commitment::Listener for Heard {
    fn reported(&self, from: &fovea_core::AeTitle, report: &Report) -> Status {
        self.0.lock().unwrap().push((from.to_string(), report.clone()));
        if report.transaction_uid == uid("1.9.1") { Status::SUCCESS } else { Status::NO_SUCH_INSTANCE }
    }
}

#[tokio::test]
async fn an_archive_that_calls_to_tell_what_it_commits_to_is_heard() {
    let (heard, papers) = (Arc::new(Heard::default()), Arc::new(Papers::default()));
    let server = box_on(&FolderInbox::new(), &papers, Some(heard.clone()), |_| {}).await;
    let roles = vec![(commitment::class(), fovea_dimse::Roles { scu: false, scp: true })];
    let proposal = fovea_dimse::Proposal { roles, user_identity: None };
    let contexts = [small(commitment::CLASS)];
    let mut archive = Scu::connect_as(&scu_config(server.address.clone()), &contexts, &proposal).await.unwrap();
    assert!(archive.is_scp(&commitment::class()));
    let (class, instance) = (commitment::class(), commitment::instance());
    for (transaction, event_type, status) in [
        ("1.9.1", 1, Status::SUCCESS),
        ("1.9.2", 1, Status::NO_SUCH_INSTANCE),
        ("1.9.1", 3, Status::NO_SUCH_EVENT_TYPE),
    ] {
        let committed = vec![reference(SC, "1.2.1")];
        let report = Report { transaction_uid: uid(transaction), committed, failed: vec![] };
        let reply = archive.n_event_report(&class, &instance, event_type, &report.to_data_set()).await.unwrap();
        assert_eq!(reply.status, status);
    }
    let heard = heard.0.lock().unwrap().clone();
    assert_eq!(heard.len(), 2);
    assert_eq!((heard[0].0.as_str(), heard[0].1.committed.len()), ("SCOPE", 1));
    archive.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn an_abort_or_a_release_at_any_state_leaves_nothing_behind() {
    let (server, papers) = fresh_box(|_| {}).await;
    let (class, instance) = (commitment::class(), commitment::instance());
    for state in 0..4 {
        let mut scu = associate(&server, &[commitment::CLASS], false).await;
        let asked = request(&format!("1.9.{state}"), &["1.2.1"]);
        match state {
            // After the request was answered, before the report.
            0 => {
                assert!(ask(&mut scu, &asked).await.is_success());
                scu.abort().await;
            }
            1 => {
                assert!(ask(&mut scu, &asked).await.is_success());
                scu.release().await.unwrap();
            }
            // With the report in hand and not answered.
            2 => {
                assert!(ask(&mut scu, &asked).await.is_success());
                assert!(scu.next_event_report(Duration::from_secs(3)).await.unwrap().is_some());
                scu.abort().await;
            }
            // Between the command and its data set.
            _ => {
                let mut association = scu.into_association();
                let context = association.contexts().iter().find(|c| c.abstract_syntax == class).unwrap().id;
                let command = fovea_dimse::CommandSet::action_request(1, &class, &instance, 1).with_data_set();
                association.send_command(context, &command).await.unwrap();
                association.abort().await;
            }
        }
        until("the place is free", || server.counters.counts().associations_now == 0).await;
    }
    assert_eq!(papers.count(OPEN), 3, "what was promised is still owed");
    // All of it is told to the peer when it comes again.
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    for _ in 0..3 {
        assert!(report_here(&mut scu, Status::SUCCESS).await.is_some());
    }
    until("forgotten", || papers.count(OPEN) == 0).await;
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn another_peer_neither_hears_nor_repeats_what_is_not_its_own() {
    let other = RawPeer::titled("OTHER");
    let (server, papers) = fresh_box(|c| c.peers = vec![viewer(), other]).await;
    let mut scu = associate(&server, &[commitment::CLASS], false).await;
    assert!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await.is_success());
    scu.release().await.unwrap();
    let config = fovea_dimse::ScuConfig { calling_ae: ae("OTHER"), ..scu_config(server.address.clone()) };
    let mut scu = Scu::connect(&config, &[small(commitment::CLASS)]).await.unwrap();
    assert_eq!(ask(&mut scu, &request("1.9.1", &["1.2.1"])).await, Status::PROCESSING_FAILURE);
    assert!(report_here(&mut scu, Status::SUCCESS).await.is_none());
    assert_eq!(papers.count(OPEN), 1);
    scu.release().await.unwrap();
    server.end().await;
}
