//! What viewers and modalities ask: queries, retrievals, steps; and what each peer is granted.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::{DocumentKind, sop_class};
use fovea_dimse::{
    Association, CommandField, CommandSet, DataSet, Element, Proposal, Scu, ScuError, Status, Transport, UserIdentity,
};
use fovea_receive::{RawPeer, Service};
use std::time::Duration;
use support::services::{
    Papers, Peer, STEP, STUDY_FIND, STUDY_GET, STUDY_MOVE, associate, box_on, counter, fresh_box, identifier, small,
    store, viewer,
};
use support::{EXPLICIT, FolderInbox, IMPLICIT, Server, ae, head, native, scu_config, uid, until};

const STUDY: u32 = 0x0020_000D;
const INSTANCE: u32 = 0x0008_0018;
const NAME: u32 = 0x0010_0010;
/// The study of the samples.
const HELD: &str = "1.2.40";

async fn filled(objects: usize) -> Server {
    let (server, _) = fresh_box(|_| {}).await;
    let mut scu = associate(&server, &[], false).await;
    for index in 0..objects {
        store(&mut scu, &format!("1.2.{index}"), EXPLICIT).await;
    }
    scu.release().await.unwrap();
    server
}

#[tokio::test]
async fn a_query_is_answered_with_the_keys_that_were_asked_for() {
    let server = filled(3).await;
    let mut scu = associate(&server, &[STUDY_FIND], false).await;
    let asked = identifier("IMAGE", &[(STUDY, HELD), (INSTANCE, ""), (NAME, "")]);
    let found = scu.find(&uid(STUDY_FIND), &asked, 100).await.unwrap();
    assert_eq!((found.status, found.rows.len(), found.is_cut), (Status::SUCCESS, 3, false));
    let row = &found.rows[0];
    assert_eq!((row.text(NAME), row.text(0x0008_0005)), (Some("Jürgen^A"), Some("ISO_IR 192")));
    assert_eq!((row.uid(STUDY), row.text(0x0008_0054)), (Some(uid(HELD)), Some("FOVEA")));
    // Of another model, without a level, and more than is wanted.
    for wrong in [identifier("PATIENT", &[(NAME, "")]), DataSet::default()] {
        assert_eq!(scu.find(&uid(STUDY_FIND), &wrong, 9).await.unwrap().status, Status::DATA_SET_MISMATCH);
    }
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_cancelled_query_ends_and_the_association_goes_on() {
    let server = filled(40).await;
    let mut association = associate(&server, &[STUDY_FIND], false).await.into_association();
    let context = association.contexts().iter().find(|c| c.abstract_syntax == uid(STUDY_FIND)).unwrap().id;
    let command = CommandSet::query_request(CommandField::C_FIND_RQ, 1, &uid(STUDY_FIND));
    association.send_message(context, command, &identifier("IMAGE", &[(INSTANCE, "")])).await.unwrap();
    // It may be answered in full before the cancel is seen: one of the two it must be.
    association.send_command(context, &CommandSet::cancel_request(1)).await.unwrap();
    let mut rows = 0;
    let last = loop {
        let message = association.next_command().await.unwrap().unwrap();
        match message.command.status().unwrap() {
            status if status.is_pending() => rows += 1,
            status => break status,
        }
    };
    assert!(last == Status::CANCEL && rows < 40 || last.is_success() && rows == 40, "{last} after {rows}");
    association.release().await.unwrap();
    server.end().await;
}

/// Asks for a study over this association and takes what comes; answers its instances, their data, and the last response.
async fn get(association: &mut Association<Transport>, keys: &[(u32, &str)]) -> (Vec<Vec<u8>>, fovea_dimse::Message) {
    let context = association.contexts().iter().find(|c| c.abstract_syntax == uid(STUDY_GET)).unwrap().id;
    let command = CommandSet::query_request(CommandField::C_GET_RQ, 7, &uid(STUDY_GET));
    association.send_message(context, command, &identifier("STUDY", keys)).await.unwrap();
    let mut objects = Vec::new();
    loop {
        let message = association.next_command().await.unwrap().unwrap();
        if message.command.field() == Ok(CommandField::C_STORE_RQ) {
            let mut data = Vec::new();
            while let Some(piece) = association.next_data().await.unwrap() {
                data.extend_from_slice(piece);
            }
            objects.push(data);
            association.respond(&message, Status::SUCCESS).await.unwrap();
        } else if !message.command.status().unwrap().is_pending() {
            return (objects, message);
        }
    }
}

#[tokio::test]
async fn a_study_comes_over_the_association_that_asked_for_it_byte_for_byte() {
    let server = filled(3).await;
    let mut association = associate(&server, &[STUDY_GET], true).await.into_association();
    let (objects, last) = get(&mut association, &[(STUDY, HELD)]).await;
    assert_eq!(objects.len(), 3);
    assert_eq!(objects[1], native("1.2.1", EXPLICIT, 300_000));
    assert_eq!(last.command.status(), Ok(Status::SUCCESS));
    assert_eq!((counter(&last, Element::Completed), counter(&last, Element::Failed)), (3, 0));
    let (objects, last) = get(&mut association, &[(STUDY, "1.99")]).await;
    assert_eq!((objects.len(), last.command.status()), (0, Ok(Status::SUCCESS)));
    let (_, last) = get(&mut association, &[]).await;
    assert_eq!(last.command.status(), Ok(Status::DATA_SET_MISMATCH));
    association.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn what_the_asker_does_not_take_is_counted_and_named() {
    let server = filled(1).await;
    // Without the role of SCP, nothing can be given.
    let mut association = associate(&server, &[STUDY_GET], false).await.into_association();
    let (objects, mut last) = get(&mut association, &[(STUDY, HELD)]).await;
    assert_eq!((objects.len(), last.command.status()), (0, Ok(Status::UNABLE_TO_PERFORM)));
    assert_eq!(counter(&last, Element::Failed), 1);
    let failed = association.read_data_set(&last).await.unwrap().unwrap();
    assert_eq!(failed.uid(0x0008_0058), Some(uid("1.2.0")));
    last.has_data_set = false;
    association.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn an_abort_or_a_release_in_the_middle_of_a_retrieval_leaves_nothing_behind() {
    let server = filled(5).await;
    for released in [false, true] {
        let mut association = associate(&server, &[STUDY_GET], true).await.into_association();
        let context = association.contexts().iter().find(|c| c.abstract_syntax == uid(STUDY_GET)).unwrap().id;
        let command = CommandSet::query_request(CommandField::C_GET_RQ, 7, &uid(STUDY_GET));
        association.send_message(context, command, &identifier("STUDY", &[(STUDY, HELD)])).await.unwrap();
        let message = association.next_command().await.unwrap().unwrap();
        assert_eq!(message.command.field(), Ok(CommandField::C_STORE_RQ));
        if released {
            while association.next_data().await.unwrap().is_some() {}
            association.release().await.unwrap();
        } else {
            association.abort().await;
        }
        until("the place is free", || server.counters.counts().associations_now == 0).await;
    }
    server.end().await;
}

#[tokio::test]
async fn a_study_is_moved_to_a_peer_of_the_configuration_and_to_no_other() {
    let peer = Peer::listen().await;
    let reply_to = Some(peer.address.clone());
    let archive = RawPeer { reply_to, ..RawPeer::titled("ARCHIVE") };
    let (server, _) = fresh_box(|c| c.peers = vec![viewer(), archive]).await;
    let mut scu = associate(&server, &[STUDY_MOVE], false).await;
    for instance in ["1.2.1", "1.2.2"] {
        store(&mut scu, instance, EXPLICIT).await;
    }
    let asked = identifier("STUDY", &[(STUDY, HELD)]);
    for stranger in ["SCOPE", "NOBODY"] {
        let reply = scu.move_to(&uid(STUDY_MOVE), &ae(stranger), &asked).await.unwrap();
        assert_eq!(reply.status, Status::MOVE_DESTINATION_UNKNOWN);
    }
    let received = tokio::spawn(async move {
        let mut association = peer.called().await;
        let mut received = Vec::new();
        while let Some(message) = association.next_command().await.unwrap() {
            while association.next_data().await.unwrap().is_some() {}
            received.push(message.command.clone());
            let first = received.len() == 1;
            association.respond(&message, if first { Status::SUCCESS } else { Status(0xA700) }).await.unwrap();
        }
        received
    });
    let reply = scu.move_to(&uid(STUDY_MOVE), &ae("ARCHIVE"), &asked).await.unwrap();
    assert_eq!(reply.status, Status::SOME_FAILED);
    assert_eq!(reply.command.u16(Element::Completed), Ok(1));
    assert_eq!(reply.data_set.unwrap().uid(0x0008_0058), Some(uid("1.2.2")));
    let received = received.await.unwrap();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].ae(Element::MoveOriginatorAe), Ok(ae("SCOPE")));
    assert!(received[0].u16(Element::MoveOriginatorMessage).is_ok());
    // The destination is away.
    let reply = scu.move_to(&uid(STUDY_MOVE), &ae("ARCHIVE"), &asked).await.unwrap();
    assert_eq!(reply.status, Status::UNABLE_TO_PERFORM);
    scu.release().await.unwrap();
    server.end().await;
}

const STEP_STATUS: u32 = 0x0040_0252;

fn step(status: &str, instances: &[&str]) -> DataSet {
    let study = DataSet::default().with_uid(STUDY, &uid(HELD));
    let image = |text: &&str| DataSet::default().with_uid(0x0008_1155, &uid(text));
    let series = DataSet::default().with_items(0x0008_1140, instances.iter().map(image).collect());
    DataSet::default()
        .with_text(STEP_STATUS, status)
        .with_items(0x0040_0270, vec![study])
        .with_items(0x0040_0340, vec![series])
}

#[tokio::test]
async fn a_step_goes_on_to_its_end_and_no_further_also_over_a_restart() {
    let (inbox, papers) = (FolderInbox::new(), std::sync::Arc::new(Papers::default()));
    let server = box_on(&inbox, &papers, None, |_| {}).await;
    let (class, first) = (uid(STEP), uid("1.7.1"));
    let mut scu = associate(&server, &[STEP], false).await;
    let begun = step("IN PROGRESS", &[]);
    assert_eq!(scu.n_create(&class, &first, &step("COMPLETED", &[])).await.unwrap().status.0, 0x0106);
    assert_eq!(scu.n_create(&class, &first, &DataSet::default()).await.unwrap().status, Status::MISSING_ATTRIBUTE);
    assert_eq!(scu.n_set(&class, &first, &begun).await.unwrap().status, Status::NO_SUCH_INSTANCE);
    assert!(scu.n_create(&class, &first, &begun).await.unwrap().status.is_success());
    assert_eq!(scu.n_create(&class, &first, &begun).await.unwrap().status, Status::DUPLICATE_SOP_INSTANCE);
    scu.release().await.unwrap();
    server.end().await;
    assert_eq!(papers.count(DocumentKind::ProcedureStep), 1);

    let server = box_on(&inbox, &papers, None, |_| {}).await;
    let mut scu = associate(&server, &[STEP], false).await;
    store(&mut scu, "1.2.1", EXPLICIT).await;
    let over = step("COMPLETED", &["1.2.1", "1.2.2"]);
    assert_eq!(scu.n_set(&class, &first, &step("PERHAPS", &[])).await.unwrap().status.0, 0x0106);
    assert!(scu.n_set(&class, &first, &over).await.unwrap().status.is_success());
    let refused = scu.n_set(&class, &first, &over).await.unwrap();
    assert_eq!(refused.status, Status::PROCESSING_FAILURE);
    assert_eq!(refused.command.u16(Element::ErrorId), Ok(0xA710), "may no longer be updated");
    // The study is whole when the last instance that the step lists is here, and not before.
    let state = || server.counters.studies(9).into_iter().find(|study| study.study_uid == uid(HELD)).unwrap();
    assert_eq!((state().missing, state().by), (Some(1), None));
    store(&mut scu, "1.2.2", EXPLICIT).await;
    until("the study is whole", || state().by == Some(fovea_receive::WholeBy::Step)).await;
    scu.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_peer_is_offered_what_it_is_granted_and_nothing_else() {
    let only = |services: &[Service]| RawPeer { services: Some(services.to_vec()), ..RawPeer::titled("SCOPE") };
    let (server, _) = fresh_box(|c| c.peers = vec![RawPeer::titled("SCOPE")]).await;
    let scu = associate(&server, &[STUDY_FIND, STUDY_GET, STEP], true).await;
    assert!(!scu.serves(&uid(STUDY_FIND)) && !scu.serves(&uid(STUDY_GET)) && scu.serves(&uid(STEP)));
    assert!(!scu.is_scp(&uid(sop_class::SECONDARY_CAPTURE)), "nothing is given to a modality");
    scu.release().await.unwrap();
    server.end().await;
    let (server, _) = fresh_box(|c| c.peers = vec![only(&[Service::Retrieve])]).await;
    let mut scu = associate(&server, &[STUDY_FIND, STUDY_GET, STEP], true).await;
    assert!(!scu.serves(&uid(STUDY_FIND)) && scu.serves(&uid(STUDY_GET)) && !scu.serves(&uid(STEP)));
    let data = head("1.2.1", IMPLICIT).bytes;
    let class = uid(sop_class::SECONDARY_CAPTURE);
    let status = scu.store(&class, &uid("1.2.1"), &uid(IMPLICIT), data.as_slice()).await.unwrap();
    assert_eq!(status, Status::NOT_AUTHORIZED);
    scu.release().await.unwrap();
    assert!(server.end().await.held().is_empty());
}

#[tokio::test]
async fn a_user_must_say_who_it_is_where_the_configuration_asks_for_it() {
    let named = RawPeer { username: Some("cart".into()), passcode: Some("sesame".into()), ..viewer() };
    let (server, _) = fresh_box(|c| c.peers = vec![named]).await;
    let connect = async |user: Option<(&str, Option<&str>)>| {
        let user_identity = user.map(|(username, passcode)| UserIdentity {
            username: Some(username.to_owned()),
            passcode: passcode.map(str::to_owned),
            wants_confirmation: true,
        });
        let proposal = Proposal { roles: vec![], user_identity };
        Scu::connect_as(&scu_config(server.address.clone()), &[small(STUDY_FIND)], &proposal).await
    };
    for wrong in [None, Some(("cart", None)), Some(("cart", Some("open"))), Some(("", Some("sesame")))] {
        let refused = connect(wrong).await;
        assert!(matches!(refused, Err(ScuError::Rejected { permanent: true, .. })), "{wrong:?}");
    }
    connect(Some(("cart", Some("sesame")))).await.unwrap().release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_peer_has_no_more_associations_than_it_may_and_others_are_not_touched_by_that() {
    let one = RawPeer { associations_max: Some(1), ..viewer() };
    let (server, _) = fresh_box(|c| c.peers = vec![one, RawPeer::titled("OTHER")]).await;
    let first = associate(&server, &[], false).await;
    let second = Scu::connect(&scu_config(server.address.clone()), &[small(STUDY_FIND)]).await;
    assert!(matches!(second, Err(ScuError::Rejected { permanent: false, .. })), "for now");
    let config = fovea_dimse::ScuConfig { calling_ae: ae("OTHER"), ..scu_config(server.address.clone()) };
    Scu::connect(&config, &support::contexts()).await.unwrap().release().await.unwrap();
    first.release().await.unwrap();
    until("the place is free", || server.counters.counts().associations_now == 0).await;
    associate(&server, &[], false).await.release().await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_peer_with_a_rate_is_held_to_it() {
    let slow = RawPeer { bytes_per_s_max: Some(400_000), ..viewer() };
    let (server, _) = fresh_box(|c| c.peers = vec![slow]).await;
    let mut scu = associate(&server, &[], false).await;
    let begun = std::time::Instant::now();
    for index in 0..4 {
        store(&mut scu, &format!("1.2.{index}"), EXPLICIT).await;
    }
    // 1.2 MB at 400 kB/s, a second of it at once.
    let took = begun.elapsed();
    assert!((Duration::from_millis(1_700)..Duration::from_secs(6)).contains(&took), "{took:?}");
    scu.release().await.unwrap();
    server.end().await;
}
