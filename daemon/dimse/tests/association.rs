//! Both roles against each other over loopback, and the accepting side against peers that misbehave on purpose.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use fovea_core::{AeTitle, Uid};
use fovea_dimse::{
    AcceptError, Association, AssociationError, CommandField, CommandSet, Context, ContextAnswer, Element, Limits,
    ProtocolError, Rejection, Requested, Scu, ScuConfig, ScuError, Status, transfer_syntax,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn ae(text: &str) -> AeTitle {
    AeTitle::new(text).unwrap()
}

fn limits(pdu_bytes_max: u32) -> Limits {
    let idle = Duration::from_secs(5);
    Limits { pdu_bytes_max, associate: idle, idle, message: idle }
}

fn config(address: String, max_pdu_bytes: u32) -> ScuConfig {
    let timeout = Duration::from_secs(5);
    let (called_ae, calling_ae) = (ae("FOVEA"), ae("SCOPE"));
    ScuConfig {
        address,
        called_ae,
        calling_ae,
        connect_timeout: timeout,
        response_timeout: timeout,
        max_pdu_bytes,
        tls: None,
    }
}

fn contexts() -> Vec<Context> {
    let implicit = vec![uid(transfer_syntax::IMPLICIT_VR_LE)];
    vec![
        Context { sop_class_uid: uid(fovea_dimse::VERIFICATION), transfer_syntax_uids: implicit.clone() },
        Context { sop_class_uid: uid(SECONDARY_CAPTURE), transfer_syntax_uids: implicit },
    ]
}

fn first(_class: &Uid, syntaxes: &[Uid]) -> ContextAnswer {
    syntaxes.first().cloned().map_or(ContextAnswer::TransferSyntaxesNotSupported, ContextAnswer::Accept)
}

/// Serves one association: answers every message with success, gives back the data sets and how it ended.
async fn serve_one(
    listener: TcpListener,
    limits: Limits,
) -> (Vec<(CommandField, Vec<u8>)>, Result<(), AssociationError>) {
    let (stream, _) = listener.accept().await.unwrap();
    let requested = match Requested::read(stream, limits).await {
        Ok(requested) => requested,
        Err(AcceptError::Handshake { source }) => return (Vec::new(), Err(source)),
        Err(AcceptError::Rejected { source }) => panic!("{source}"),
    };
    let mut association = requested.accept(first).await.unwrap();
    let mut received = Vec::new();
    let ended = serve_messages(&mut association, &mut received).await;
    (received, ended)
}

async fn serve_messages(
    association: &mut Association<TcpStream>,
    received: &mut Vec<(CommandField, Vec<u8>)>,
) -> Result<(), AssociationError> {
    while let Some(message) = association.next_command().await? {
        let mut data = Vec::new();
        while let Some(piece) = association.next_data().await? {
            data.extend_from_slice(piece);
        }
        received.push((message.command.field().unwrap(), data));
        association.respond(&message, Status::SUCCESS).await?;
    }
    Ok(())
}

type Served = JoinHandle<(Vec<(CommandField, Vec<u8>)>, Result<(), AssociationError>)>;

async fn server(limits: Limits) -> (String, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(serve_one(listener, limits)))
}

#[tokio::test]
async fn echo_and_store_carry_every_byte_at_every_pair_of_pdu_limits() {
    for (ours, theirs) in [(128, 131_072), (131_072, 128), (4096, 16_384), (65_536, 65_536), (1 << 20, 1 << 20)] {
        let (address, served) = server(limits(theirs)).await;
        let mut scu = Scu::connect(&config(address, ours), &contexts()).await.unwrap();
        assert!(scu.echo().await.unwrap().is_success());
        let (class, syntax) = (uid(SECONDARY_CAPTURE), uid(transfer_syntax::IMPLICIT_VR_LE));
        assert!(scu.accepts(&class, &syntax) && !scu.accepts(&class, &uid(transfer_syntax::EXPLICIT_VR_LE)));
        // Lengths on both sides of each fragment border.
        let fragment = ours.min(theirs) as usize - 6;
        let lengths = [0, 2, fragment - 2, fragment, fragment + 2, 3 * fragment];
        let objects: Vec<Vec<u8>> = lengths.iter().map(|n| (0..*n).map(|i| (i % 251) as u8).collect()).collect();
        for object in &objects {
            let status = scu.store(&class, &uid("1.2.3"), &syntax, object.as_slice()).await.unwrap();
            assert!(status.is_success());
        }
        scu.release().await.unwrap();
        let (received, ended) = served.await.unwrap();
        ended.unwrap();
        assert_eq!(received[0].0, CommandField::C_ECHO_RQ);
        let data: Vec<&Vec<u8>> = received[1..].iter().map(|(_, data)| data).collect();
        assert_eq!(data, objects.iter().collect::<Vec<_>>(), "ours={ours} theirs={theirs}");
    }
}

#[tokio::test]
async fn a_rejection_says_whether_to_try_again() {
    for (rejection, permanent, words) in [
        (Rejection::LocalLimit, false, "local limit exceeded"),
        (Rejection::Congestion, false, "temporary congestion"),
        (Rejection::CalledAe, true, "called AE title not recognized"),
        (Rejection::CallingAe, true, "calling AE title not recognized"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let requested = Requested::read(stream, limits(16_384)).await.unwrap();
            assert_eq!((requested.called_ae(), requested.calling_ae().as_str()), ("FOVEA", "SCOPE"));
            requested.reject(rejection).await;
        });
        match Scu::connect(&config(address, 16_384), &contexts()).await {
            Err(ScuError::Rejected { permanent: found, reason }) => {
                assert_eq!((found, reason.as_str()), (permanent, words));
            }
            other => panic!("{:?}", other.err()),
        }
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable_and_one_that_is_silent_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let quick = ScuConfig { response_timeout: Duration::from_millis(100), ..config(address.clone(), 16_384) };
    assert!(matches!(Scu::connect(&quick, &contexts()).await, Err(ScuError::Timeout { .. })));
    drop(listener);
    assert!(matches!(Scu::connect(&quick, &contexts()).await, Err(ScuError::Unreachable { .. })));
}

#[tokio::test]
async fn a_class_that_was_not_accepted_is_told_and_leaves_the_association_usable() {
    let (address, served) = server(limits(16_384)).await;
    let mut scu = Scu::connect(&config(address, 16_384), &contexts()).await.unwrap();
    let refused = scu.store(&uid("1.2.3.4"), &uid("1.2.3"), &uid("1.2.840.10008.1.2"), [0u8; 4].as_slice()).await;
    assert!(matches!(refused, Err(ScuError::ContextNotAccepted { .. })));
    assert!(scu.echo().await.unwrap().is_success());
    scu.abort().await;
    assert!(matches!(served.await.unwrap().1, Err(AssociationError::PeerAborted { source_code: 0, .. })));
}

#[tokio::test]
async fn a_store_whose_future_was_dropped_cannot_be_followed_by_another_message() {
    let (address, _served) = server(limits(16_384)).await;
    let mut scu = Scu::connect(&config(address, 16_384), &contexts()).await.unwrap();
    let (class, syntax) = (uid(SECONDARY_CAPTURE), uid(transfer_syntax::IMPLICIT_VR_LE));
    let (mut feed, endless) = tokio::io::duplex(64 * 1024);
    let cut = tokio::time::timeout(Duration::from_millis(50), async {
        feed.write_all(&[0; 40_000]).await.unwrap(); // two PDUs and a half
        scu.store(&class, &uid("1.2.3"), &syntax, endless).await
    });
    assert!(cut.await.is_err());
    // The server still waits for the data set: an echo now would be taken for a breach, and must not be sent.
    assert!(scu.echo().await.is_err());
}

/// A request for one context (id 1) on Secondary Capture, as a peer would encode it.
fn raw_request() -> Vec<u8> {
    let item = |kind: u8, body: &[u8]| [&[kind, 0], (body.len() as u16).to_be_bytes().as_slice(), body].concat();
    let mut body = vec![0, 1, 0, 0];
    body.extend_from_slice(b"FOVEA           SCOPE           ");
    body.extend_from_slice(&[0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    let context =
        [&[1, 0, 0, 0][..], &item(0x30, SECONDARY_CAPTURE.as_bytes()), &item(0x40, b"1.2.840.10008.1.2")].concat();
    body.extend(item(0x20, &context));
    body.extend(item(0x50, &item(0x51, &16_384u32.to_be_bytes())));
    [&[1, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn p_data(values: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (context, control, data) in values {
        body.extend_from_slice(&(data.len() as u32 + 2).to_be_bytes());
        body.extend_from_slice(&[*context, *control]);
        body.extend_from_slice(data);
    }
    [&[4, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn store_command() -> Vec<u8> {
    let mut bytes = Vec::new();
    CommandSet::store_request(1, &uid(SECONDARY_CAPTURE), &uid("1.2.3")).encode(&mut bytes);
    bytes
}

/// Sends `bytes` behind an accepted request, keeps the connection open, and returns how the server saw it end and
/// the last PDU type that it sent.
async fn provoke(bytes: &[u8], limits: Limits) -> (Vec<(CommandField, Vec<u8>)>, AssociationError, u8) {
    let (address, served) = server(limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&raw_request()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answers = Vec::new();
    let _reset_is_fine = stream.read_to_end(&mut answers).await;
    drop(stream); // the server hears the peer out until it closes
    let (received, ended) = served.await.unwrap();
    let mut last = 0;
    let mut rest = answers.as_slice();
    while let Some((head, body)) = rest.split_first_chunk::<6>() {
        last = head[0];
        rest = &body[u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize..];
    }
    (received, ended.unwrap_err(), last)
}

#[tokio::test]
async fn commands_and_data_in_any_fragments_make_one_message() {
    let command = store_command();
    for split in 0..=command.len() {
        let (head, tail) = command.split_at(split);
        let bytes = [
            p_data(&[(1, 1, head)]),
            p_data(&[(1, 1, &[]), (1, 3, tail), (1, 0, b"ab")]),
            p_data(&[(1, 0, &[]), (1, 0, b"cd")]),
            p_data(&[(1, 2, b"ef")]),
            vec![7, 0, 0, 0, 0, 4, 0, 0, 0, 0],
        ];
        let (received, ended, _) = provoke(&bytes.concat(), limits(16_384)).await;
        assert_eq!(received, [(CommandField::C_STORE_RQ, b"abcdef".to_vec())], "split={split}");
        assert!(matches!(ended, AssociationError::PeerAborted { .. }));
    }
}

#[tokio::test]
async fn inv_08_breaches_of_protocol_are_answered_with_an_abort() {
    let command = store_command();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("PDU of 4 GiB", vec![4, 0, 255, 255, 255, 255, 0, 0]),
        ("PDV longer than its PDU", vec![4, 0, 0, 0, 0, 8, 255, 255, 255, 255, 1, 3, 0, 0]),
        ("PDV of length 1", vec![4, 0, 0, 0, 0, 8, 0, 0, 0, 1, 1, 3, 0, 0]),
        ("PDU without a value", vec![4, 0, 0, 0, 0, 0]),
        ("PDU with a cut value header", vec![4, 0, 0, 0, 0, 3, 0, 0, 0]),
        ("unknown context", p_data(&[(3, 3, &command)])),
        ("context changed", [p_data(&[(1, 1, &command[..8])]), p_data(&[(3, 3, &command[8..])])].concat()),
        ("data first", p_data(&[(1, 2, b"data")])),
        ("command in the data", p_data(&[(1, 3, &command), (1, 3, &command)])),
        ("endless command", p_data(&[(1, 1, &[0; 3000]), (1, 1, &[0; 3000])])),
        ("garbage command", p_data(&[(1, 3, &[0xEE; 200])])),
        ("release in a message", [p_data(&[(1, 3, &command)]), vec![5, 0, 0, 0, 0, 4, 0, 0, 0, 0]].concat()),
        ("unasked release answer", vec![6, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
        ("second request", raw_request()),
        ("unknown PDU", vec![0x77, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
        ("long abort", vec![7, 0, 0, 1, 0, 4, 0, 0, 0, 0]),
    ];
    for (name, bytes) in cases {
        let (received, ended, last) = provoke(&bytes, limits(16_384)).await;
        assert!(received.is_empty(), "{name}");
        assert!(matches!(ended, AssociationError::Protocol { .. }), "{name}: {ended:?}");
        assert_eq!(last, 7, "{name}: the peer is told by A-ABORT");
    }
}

#[tokio::test]
async fn silence_within_a_message_times_out() {
    let limits = Limits { idle: Duration::from_millis(80), ..limits(16_384) };
    let (_, ended, last) = provoke(&p_data(&[(1, 3, &store_command()), (1, 0, b"half")]), limits).await;
    assert!(matches!(ended, AssociationError::Timeout { .. }), "{ended:?}");
    assert_eq!(last, 7);
}

#[tokio::test]
async fn inv_08_a_message_that_trickles_is_over_at_its_limit() {
    let limits = Limits { message: Duration::from_millis(200), ..limits(16_384) };
    let (address, served) = server(limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&raw_request()).await.unwrap();
    stream.write_all(&p_data(&[(1, 3, &store_command())])).await.unwrap();
    let trickle = async {
        while stream.write_all(&p_data(&[(1, 0, b"x")])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (_, ended) = tokio::select! { served = served => served.unwrap(), () = trickle => panic!("closed silently") };
    assert!(matches!(ended, Err(AssociationError::Timeout { .. })));
}

#[tokio::test]
async fn inv_08_garbage_instead_of_a_request_is_over_at_once() {
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![1, 0, 255, 255, 255, 255],
        vec![1, 0, 0, 0, 0, 4, 0, 1, 0, 0],
        raw_request()[..60].to_vec(),
    ] {
        let limits = Limits { associate: Duration::from_millis(300), ..limits(16_384) };
        let (address, served) = server(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let _reset_is_fine = stream.read_to_end(&mut answer).await;
        drop(stream);
        let (_, ended) = served.await.unwrap();
        assert!(ended.is_err());
    }
}

#[tokio::test]
async fn random_command_sets_end_the_association_and_nothing_else() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed={seed}");
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for _ in 0..200 {
        let command: Vec<u8> = (0..200).map(|_| random()).collect();
        let (received, ended, last) = provoke(&p_data(&[(1, 3, &command)]), limits(16_384)).await;
        assert!(received.is_empty() && last == 7);
        assert!(matches!(ended, AssociationError::Protocol { source: ProtocolError::Command { .. } }));
    }
}

#[tokio::test]
async fn a_response_to_another_message_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut association = Requested::read(stream, limits(16_384)).await.unwrap().accept(first).await.unwrap();
        let message = association.next_command().await.unwrap().unwrap();
        let answer = CommandSet::response_to(&message.command, Status::SUCCESS);
        let answer = answer.with_u16(Element::MessageIdRespondedTo, 4711);
        association.send_command(message.context_id, &answer).await.unwrap();
    });
    let mut scu = Scu::connect(&config(address, 16_384), &contexts()).await.unwrap();
    let answer = scu.echo().await;
    assert!(matches!(answer, Err(ScuError::Protocol { source: ProtocolError::ForeignResponse })), "{answer:?}");
    served.await.unwrap();
}

#[tokio::test]
async fn an_association_holds_128_contexts_and_no_more() {
    let (address, served) = server(limits(16_384)).await;
    let many = |count: usize| -> Vec<Context> {
        let classes =
            (0..count).map(|i| if i == 0 { fovea_dimse::VERIFICATION.to_owned() } else { format!("1.2.{i}") });
        let syntaxes = vec![uid(transfer_syntax::IMPLICIT_VR_LE)];
        classes.map(|class| Context { sop_class_uid: uid(&class), transfer_syntax_uids: syntaxes.clone() }).collect()
    };
    let refused = Scu::connect(&config(address.clone(), 16_384), &many(129)).await;
    assert!(matches!(refused, Err(ScuError::BadRequest { contexts: 129 })));
    let mut scu = Scu::connect(&config(address, 16_384), &many(128)).await.unwrap();
    assert!(scu.accepts(&uid("1.2.127"), &uid(transfer_syntax::IMPLICIT_VR_LE)));
    assert!(scu.echo().await.unwrap().is_success());
    scu.release().await.unwrap();
    served.await.unwrap().1.unwrap();
}

/// The request of [`raw_request`], with more user information and another maximum length.
fn request_with(user_items: &[u8], max_length: u32) -> Vec<u8> {
    let plain = raw_request();
    let items = [&[0x51, 0, 0, 4][..], &max_length.to_be_bytes(), user_items].concat();
    // The user information item is the last one: 4 bytes of header and the 8 of the maximum length.
    let mut body = plain[6..plain.len() - 12].to_vec();
    body.extend_from_slice(&[0x50, 0]);
    body.extend_from_slice(&(items.len() as u16).to_be_bytes());
    body.extend_from_slice(&items);
    [&[1, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

#[tokio::test]
async fn role_proposals_are_answered_and_no_limit_means_ours() {
    let class = SECONDARY_CAPTURE.as_bytes();
    let role = |class: &[u8]| {
        let body = [&(class.len() as u16).to_be_bytes(), class, &[1, 1]].concat();
        [&[0x54, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
    };
    let items = [role(class), role(b"1.2.3.4.5"), vec![0x77, 0, 0, 2, 9, 9]].concat();
    let (address, served) = server(limits(16_384)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request_with(&items, 0)).await.unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 2, "accepted");
    let mut body = vec![0; u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize];
    stream.read_exact(&mut body).await.unwrap();
    let mut answer = role(class);
    *answer.last_mut().unwrap() = 0; // we are SCP, the peer is not
    assert!(body.windows(answer.len()).any(|window| window == answer));
    assert!(!body.windows(9).any(|window| window == b"1.2.3.4.5"), "not accepted, so not answered");
    stream.write_all(&p_data(&[(1, 3, &store_command()), (1, 2, b"ab")])).await.unwrap();
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 4, "a response comes");
    stream.write_all(&[7, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(served.await.unwrap().0.len(), 1);
}
