//! The services besides echo and store, both roles against each other over loopback.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use fovea_core::{AeTitle, Uid};
use fovea_dimse::{
    Association, AssociationError, CommandField, CommandSet, Context, ContextAnswer, DATA_SET_BYTES_MAX, DataSet,
    DataSetError, EVENTS_WAITING_MAX, Element, Limits, Message, Proposal, Requested, Roles, Scu, ScuConfig, ScuError,
    Status, Terms, UserIdentity, commitment, transfer_syntax,
};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const NAME: u32 = 0x0010_0010;

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn limits() -> Limits {
    let idle = Duration::from_secs(5);
    Limits { pdu_bytes_max: 16_384, associate: idle, idle, message: idle }
}

fn config(address: String) -> ScuConfig {
    let ae = |text| AeTitle::new(text).unwrap();
    let timeout = Duration::from_secs(5);
    ScuConfig {
        address,
        called_ae: ae("FOVEA"),
        calling_ae: ae("SCOPE"),
        connect_timeout: timeout,
        response_timeout: timeout,
        max_pdu_bytes: 16_384,
        tls: None,
    }
}

fn contexts() -> Vec<Context> {
    let syntaxes = [transfer_syntax::EXPLICIT_VR_LE, transfer_syntax::IMPLICIT_VR_LE];
    let of = |class: &str| Context {
        sop_class_uid: uid(class),
        transfer_syntax_uids: syntaxes.iter().map(|text| uid(text)).collect(),
    };
    vec![of(commitment::CLASS), of(FIND)]
}

/// Takes the first syntax; the requestor may be SCP of storage commitment and of nothing else.
struct House;

impl Terms for House {
    fn context(&self, _: &Uid, syntaxes: &[Uid]) -> ContextAnswer {
        ContextAnswer::Accept(syntaxes[0].clone())
    }

    fn roles(&self, class: &Uid, _: Roles) -> Roles {
        Roles { scu: true, scp: class.as_str() == commitment::CLASS }
    }

    fn confirms_identity(&self) -> bool {
        true
    }
}

type Peer = Association<TcpStream>;

/// An SCU and what the other side makes of its association.
async fn pair<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    proposal: Proposal,
    serve: impl FnOnce(Peer, Option<UserIdentity>) -> F + Send + 'static,
) -> (Scu, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let requested = Requested::read(stream, limits()).await.ok().unwrap();
        let identity = requested.user_identity();
        serve(requested.accept_on(&House).await.ok().unwrap(), identity).await
    });
    (Scu::connect_as(&config(address), &contexts(), &proposal).await.unwrap(), served)
}

async fn next(peer: &mut Peer) -> Message {
    peer.next_command().await.unwrap().unwrap()
}

fn named(name: &str) -> DataSet {
    DataSet::default().with_text(NAME, name)
}

async fn report(peer: &mut Peer, message_id: u16) {
    let context = peer.contexts()[0].id;
    let command = CommandSet::event_request(message_id, &commitment::class(), &commitment::instance(), 1);
    peer.send_message(context, command, &named("event")).await.unwrap();
}

#[tokio::test]
async fn roles_are_what_both_sides_allow() {
    let class = |text| (uid(text), Roles { scu: true, scp: true });
    let proposal = Proposal { roles: vec![class(commitment::CLASS), class(FIND)], user_identity: None };
    let (scu, served) = pair(proposal, async |mut peer, _| {
        let roles: Vec<Roles> = peer.contexts().iter().map(|context| context.requestor).collect();
        (roles, peer.next_command().await.unwrap().is_none())
    })
    .await;
    assert!(scu.is_scp(&commitment::class()) && !scu.is_scp(&uid(FIND)) && scu.serves(&uid(FIND)));
    scu.release().await.unwrap();
    let both = Roles { scu: true, scp: true };
    assert_eq!(served.await.unwrap(), (vec![both, Roles::DEFAULT], true));
    // Without a proposal the requestor is SCU and nothing else, whatever the other side would allow.
    let (scu, served) = pair(Proposal::default(), async |peer, _| peer.contexts()[0].requestor).await;
    assert!(!scu.is_scp(&commitment::class()));
    assert_eq!(served.await.unwrap(), Roles::DEFAULT);
}

#[tokio::test]
async fn a_user_identity_comes_as_it_was_said() {
    let said = UserIdentity { username: Some("a".into()), passcode: Some("b".into()), wants_confirmation: true };
    let proposal = Proposal { roles: vec![], user_identity: Some(said.clone()) };
    let (scu, served) = pair(proposal, async |mut peer, heard| {
        while peer.next_command().await.unwrap().is_some() {}
        heard
    })
    .await;
    scu.release().await.unwrap();
    assert!(served.await.unwrap() == Some(said));
}

#[tokio::test]
async fn events_that_come_before_an_answer_are_kept_and_told_up_to_a_bound() {
    let (mut scu, served) = pair(Proposal::default(), async |mut peer, _| {
        let asked = next(&mut peer).await;
        let information = peer.read_data_set(&asked).await.unwrap().unwrap();
        for message_id in 1..=EVENTS_WAITING_MAX as u16 + 1 {
            report(&mut peer, message_id).await;
        }
        peer.respond(&asked, Status::SUCCESS).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..=EVENTS_WAITING_MAX {
            let answer = next(&mut peer).await;
            answers
                .push((answer.command.u16(Element::MessageIdRespondedTo).unwrap(), answer.command.status().unwrap()));
        }
        assert!(peer.next_command().await.unwrap().is_none());
        (information, answers)
    })
    .await;
    let (class, instance) = (commitment::class(), commitment::instance());
    let reply = scu.n_action(&class, &instance, 1, &named("asked")).await.unwrap();
    assert!(reply.status.is_success() && reply.data_set.is_none());
    for _ in 0..EVENTS_WAITING_MAX {
        let event = scu.next_event_report(Duration::from_secs(5)).await.unwrap().unwrap();
        assert_eq!((event.event_type, event.sop_class_uid.as_str()), (1, commitment::CLASS));
        assert_eq!(event.data_set.as_ref().unwrap().text(NAME), Some("event"));
        scu.answer_event(&event, Status::SUCCESS).await.unwrap();
    }
    assert!(scu.next_event_report(Duration::from_millis(50)).await.unwrap().is_none(), "none comes, and it stands");
    scu.release().await.unwrap();
    let (information, answers) = served.await.unwrap();
    assert_eq!(information.text(NAME), Some("asked"));
    let one_too_many = (EVENTS_WAITING_MAX as u16 + 1, Status::RESOURCE_LIMITATION);
    assert!(answers.contains(&one_too_many) && answers.contains(&(1, Status::SUCCESS)), "{answers:?}");
}

/// Answers C-FIND with rows without end until it is cancelled.
async fn endless_rows(mut peer: Peer, _: Option<UserIdentity>) -> usize {
    let asked = next(&mut peer).await;
    peer.read_data_set(&asked).await.unwrap().unwrap();
    let mut rows = 0;
    loop {
        if peer.wait_for_input(Duration::ZERO).await {
            let said = next(&mut peer).await;
            assert_eq!(said.command.field(), Ok(CommandField::C_CANCEL_RQ));
            assert_eq!(said.command.u16(Element::MessageIdRespondedTo).ok(), asked.command.message_id().ok());
            peer.respond(&asked, Status::CANCEL).await.unwrap();
            while peer.next_command().await.unwrap().is_some() {}
            return rows;
        }
        let response = CommandSet::response_to(&asked.command, Status::PENDING);
        peer.send_message(asked.context_id, response, &named("row")).await.unwrap();
        rows += 1;
    }
}

#[tokio::test]
async fn a_query_with_more_rows_than_are_wanted_is_cancelled() {
    let (mut scu, served) = pair(Proposal::default(), endless_rows).await;
    let found = scu.find(&uid(FIND), &named("*"), 5).await.unwrap();
    assert_eq!((found.rows.len(), found.status, found.is_cut), (5, Status::CANCEL, true));
    scu.release().await.unwrap();
    assert!(served.await.unwrap() > 5);
}

#[tokio::test]
async fn inv_08_a_data_set_that_is_too_long_or_broken_is_read_to_its_end_and_not_held() {
    let (scu, served) = pair(Proposal::default(), async |mut peer, _| {
        let mut answers = Vec::new();
        while let Some(message) = peer.next_command().await.unwrap() {
            answers.push(peer.read_data_set(&message).await.unwrap().err());
            peer.respond(&message, Status::SUCCESS).await.unwrap();
        }
        answers
    })
    .await;
    let mut association = scu.into_association();
    let context = association.contexts()[1].id;
    for data in [vec![0u8; DATA_SET_BYTES_MAX + 2], vec![0xff; 64]] {
        let command = CommandSet::query_request(CommandField::C_FIND_RQ, 1, &uid(FIND));
        association.send_with_data(context, &command, data.as_slice()).await.unwrap().unwrap();
        assert!(association.next_command().await.unwrap().is_some(), "the association stands");
    }
    association.release().await.unwrap();
    let answers = served.await.unwrap();
    assert_eq!(answers[0], Some(DataSetError::TooLong { bytes_max: DATA_SET_BYTES_MAX }));
    assert!(matches!(answers[1], Some(DataSetError::Malformed { .. } | DataSetError::Truncated { .. })), "{answers:?}");
}

#[tokio::test]
async fn an_abort_or_a_release_while_an_answer_or_an_event_is_waited_for_is_told_at_once() {
    let (mut scu, served) = pair(Proposal::default(), async |mut peer, _| {
        let asked = next(&mut peer).await;
        assert!(asked.has_data_set);
        peer.abort().await;
    })
    .await;
    let (class, instance) = (commitment::class(), commitment::instance());
    let error = scu.n_action(&class, &instance, 1, &named("x")).await.unwrap_err();
    assert!(matches!(error, ScuError::PeerAborted { .. } | ScuError::ConnectionLost { .. }), "{error}");
    served.await.unwrap();
    // A second call on it is refused at once and does not hang.
    assert!(scu.n_action(&class, &instance, 1, &named("x")).await.is_err());

    let (mut scu, served) = pair(Proposal::default(), async |peer, _| peer.release().await).await;
    let error = scu.next_event_report(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, ScuError::ConnectionLost { .. }), "{error}");
    served.await.unwrap().unwrap();

    let (scu, served) = pair(Proposal::default(), async |mut peer, _| {
        report(&mut peer, 1).await;
        peer.next_command().await
    })
    .await;
    scu.abort().await;
    assert!(matches!(served.await.unwrap(), Err(AssociationError::PeerAborted { .. })));
}
