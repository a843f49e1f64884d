//! Many peers, silent peers, and peers that others wrote.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::sop_class;
use fovea_dimse::{Scu, ScuError, Status, part10_prefix};
use std::process::Command;
use std::time::Duration;
use support::*;
use tokio::net::TcpStream;

#[tokio::test]
async fn inv_08_the_129th_association_is_rejected_for_now_and_an_idle_one_gives_way_later() {
    let server = Server::start(|config| config.give_way_after_ms = 3_000).await;
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(server.scu().await);
    }
    assert_eq!(server.counters.counts().associations_now, 128);
    match Scu::connect(&server.scu_config(), &contexts()).await {
        Err(ScuError::Rejected { permanent, reason }) => {
            assert_eq!((permanent, reason.as_str()), (false, "local limit exceeded"));
        }
        other => panic!("{:?}", other.err()),
    }
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert_eq!(server.store("1.2.3", EXPLICIT, &native("1.2.3", EXPLICIT, 100)).await, Status::SUCCESS);
    assert_eq!(server.counters.counts().associations_gave_way, 1);
    drop(held);
    server.end().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn inv_08_500_silent_connections_and_500_idle_associations_do_not_keep_a_good_one_out() {
    let server = Server::start(|config| config.give_way_after_ms = 200).await;
    let before_kib = resident_kib();
    let (mut silent, mut idle, mut rejected) = (Vec::new(), Vec::new(), 0);
    for _ in 0..500 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
        match Scu::connect(&server.scu_config(), &contexts()).await {
            Ok(scu) => idle.push(scu),
            Err(ScuError::Rejected { permanent: false, .. }) => rejected += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("{} associations, {rejected} rejected for now", idle.len());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.store("1.2.3", EXPLICIT, &native("1.2.3", EXPLICIT, 100)).await, Status::SUCCESS);
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 96 * 1024, "{grown_kib} KiB for both sides together");
    drop((silent, idle));
    server.end().await;
}

#[tokio::test]
async fn an_idle_association_times_out_and_a_silent_connection_too() {
    let server = Server::start(|config| {
        config.idle_timeout_ms = 200;
        config.associate_timeout_ms = 200;
    })
    .await;
    let mut scu = server.scu().await;
    let silent = TcpStream::connect(&server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(matches!(scu.echo().await, Err(ScuError::PeerAborted { .. } | ScuError::ConnectionLost { .. })));
    silent.readable().await.unwrap();
    assert_eq!(silent.try_read(&mut [0; 16]).unwrap_or(0), 0, "closed without a word");
    server.end().await;
}

/// Runs a DCMTK program; none where it is not installed.
async fn dcmtk(program: &'static str, arguments: Vec<String>) -> Option<bool> {
    let run = move || Command::new(program).args(&arguments).output().ok();
    let output = tokio::task::spawn_blocking(run).await.unwrap()?;
    println!("{program}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(output.status.success())
}

#[tokio::test]
async fn dcmtk_echoes_and_stores_at_every_pdu_size() {
    let server = Server::start(|_| {}).await;
    let (host, port) = server.address.split_once(':').unwrap();
    let peer = |more: &[&str]| -> Vec<String> {
        let titles = ["-aec", "FOVEA", "-aet", "SCOPE"];
        more.iter().chain(&titles).chain(&[host, port]).map(|text| (*text).to_owned()).collect()
    };
    let Some(echoed) = dcmtk("echoscu", peer(&[])).await else {
        println!("DCMTK is not installed: not checked");
        return;
    };
    assert!(echoed);
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("1.2.5.1", EXPLICIT, native("1.2.5.1", EXPLICIT, 600_000), "-xe", "4096"),
        ("1.2.5.2", IMPLICIT, native("1.2.5.2", IMPLICIT, 30_000), "-xi", "16384"),
        ("1.2.5.3", BASELINE, encapsulated("1.2.5.3", &[&[7; 90_000]]), "-xy", "131072"),
    ];
    for (instance, syntax, data, propose, pdu) in &cases {
        let path = folder.path().join(format!("{instance}.dcm"));
        let prefix = part10_prefix(&uid(sop_class::SECONDARY_CAPTURE), &uid(instance), &uid(syntax), None);
        std::fs::write(&path, [prefix.as_slice(), data].concat()).unwrap();
        let mut arguments = peer(&[propose, "-pdu", pdu]);
        arguments.push(path.to_string_lossy().into_owned());
        assert_eq!(dcmtk("storescu", arguments).await, Some(true), "{syntax}");
        let held = server.inbox.held();
        assert_eq!(held.last().unwrap().header.transfer_syntax_uid.as_str(), *syntax);
    }
    assert_eq!(server.inbox.held().len(), 3);
    assert_eq!(server.counters.counts().associations_broken, 0);
    server.end().await;
}

/// Gives one byte every `pause`.
struct Drip {
    pause: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl tokio::io::AsyncRead for Drip {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::ready!(self.pause.as_mut().poll(context));
        self.pause.set(tokio::time::sleep(Duration::from_millis(10)));
        into.put_slice(&[0]);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn inv_08_a_sender_that_drips_loses_its_place_long_before_the_time_of_an_object_is_over() {
    let server = Server::start(|config| {
        config.pdu_bytes_max = 4096;
        config.object_bytes_per_s_min = 4096;
    })
    .await;
    let mut scu = server.scu().await;
    let class = uid(sop_class::SECONDARY_CAPTURE);
    // The command leaves with the first PDU of data.
    let drip = Drip { pause: Box::pin(tokio::time::sleep(Duration::ZERO)) };
    let drip = tokio::io::AsyncReadExt::chain([0; 5000].as_slice(), drip);
    let begun = std::time::Instant::now();
    let instance = uid("1.2.3");
    let explicit = uid(EXPLICIT);
    let sending = scu.store(&class, &instance, &explicit, drip);
    let broken = async {
        while server.counters.counts().associations_broken == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = sending => panic!("the sender drips on: {ended:?}"),
        ended = tokio::time::timeout(Duration::from_secs(30), broken) => ended.expect("ended by the box"),
    }
    assert!(begun.elapsed() > Duration::from_secs(10), "a slow start is forgiven");
    assert_eq!(server.counters.counts().associations_now, 0);
    assert_eq!(server.store("1.2.3", EXPLICIT, &native("1.2.3", EXPLICIT, 100)).await, Status::SUCCESS);
    server.end().await;
}
