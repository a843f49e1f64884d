//! Hostile peers: each gets a clear refusal, costs no memory, and keeps no good one out (invariant 8).
//!
//! In: bytes that no DICOM device sends. Out: aborts, rejections, statuses; the daemon's memory and temporary files afterwards.
//! Promise: after each attack a good object is stored and gets its outcome, and nothing but good objects is held.

use fovea_core::sop_class;
use fovea_tests::node::{Node, Setup};
use fovea_tests::random::Random;
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::wire::{self, Association, COMMAND, COMMAND_LAST, DATA, DATA_LAST, Said, kind};
use fovea_tests::{process, wait};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLASS: &str = sop_class::SECONDARY_CAPTURE;
/// The daemon never needs more than this, whatever it is sent, bytes.
const RESIDENT_MAX: u64 = 200 << 20;
/// Who still takes bytes of a PDU of 4 GiB after this long has not refused it. Half a second of it is courtesy: what is still on
/// its way is read and thrown away, so that the peer can read the abort.
const FED_FOR_MAX: Duration = Duration::from_secs(5);

/// A small object, told apart by its seed.
fn good(seed: u64) -> (String, Vec<u8>) {
    let sample = Sample::secondary_capture(seed).size(64, 64);
    (sample.sop_instance_uid(), wire::encode(sample.data_set(), EXPLICIT_VR_LE).expect("a sample can be encoded"))
}

/// Stores a good object over an association of its own.
fn store_good(node: &Node, seed: u64) -> anyhow::Result<String> {
    let (uid, data_set) = good(seed);
    let mut association = Association::open_for(node.port(), CLASS)?;
    let status = association.store(CLASS, &uid, &data_set)?;
    anyhow::ensure!(status == 0, "a good object was answered {status:04x}");
    association.release()?;
    Ok(uid)
}

/// The box still serves, holds exactly the good objects, has swept up, and never took much memory.
fn assert_unharmed(node: &mut Node, good: &[String]) {
    for uid in good {
        node.ctl().wait_for_finding(uid, Duration::from_secs(30)).expect("a good object has its outcome");
    }
    let mut known: Vec<_> = node.ctl().findings().expect("the daemon answers").into_iter().collect();
    known.retain(|finding| !good.contains(&finding.sop_instance_uid.to_string()));
    assert_eq!(known, [], "no other object has an outcome");
    let tmp = node.state().join("tmp");
    let left = || Ok((std::fs::read_dir(&tmp)?.count() == 0).then_some(()));
    wait::until(Duration::from_secs(10), || "temporary files to be removed".into(), left).expect("tmp is empty");
    let peak = process::resident_peak_bytes(node.process().expect("it runs").pid()).expect("the daemon runs");
    println!("daemon, highest resident memory: {} MiB", peak >> 20);
    assert!(peak < RESIDENT_MAX, "{} MiB", peak >> 20);
}

/// Writes zeros until the other side has had enough; how long that took.
fn feed(stream: &mut TcpStream) -> Duration {
    let block = vec![0; 64 << 10];
    let begun = Instant::now();
    while begun.elapsed() < FED_FOR_MAX && stream.write_all(&block).is_ok() {}
    begun.elapsed()
}

/// True when the other side closes, resets or aborts within 20 seconds.
fn ends(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    }
}

#[test]
fn inv_08_garbage_and_lengths_of_4_gib_are_refused_at_once() {
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().receive("associate_timeout_ms = 3000").start().unwrap();
    let mut stored = vec![store_good(&node, 1).unwrap()];

    for _ in 0..100 {
        let length = 1 + random.below(4096) as usize;
        let mut stream = wire::dial(node.port()).unwrap();
        // It may have closed in the middle of our speech: that is an answer too.
        let _cut_short = stream.write_all(&random.bytes(length));
        let begun = Instant::now();
        assert!(ends(&mut stream), "{length} bytes of noise");
        assert!(begun.elapsed() < Duration::from_secs(8), "noise held a connection for {:?}", begun.elapsed());
    }
    for kind in [kind::ASSOCIATE_RQ, kind::ASSOCIATE_AC, kind::DATA, kind::RELEASE_RQ, kind::ABORT, 0, 8, 255] {
        let mut stream = wire::dial(node.port()).unwrap();
        stream.write_all(&wire::pdu_head(kind, u32::MAX)).unwrap();
        assert!(feed(&mut stream) < FED_FOR_MAX, "a first PDU of type {kind} and 4 GiB is taken");
    }
    for kind in [kind::ASSOCIATE_RQ, kind::DATA, kind::RELEASE_RQ, kind::ABORT, 9] {
        let mut association = Association::open_for(node.port(), CLASS).unwrap();
        association.stream.write_all(&wire::pdu_head(kind, u32::MAX)).unwrap();
        assert!(feed(&mut association.stream) < FED_FOR_MAX, "a later PDU of type {kind} and 4 GiB is taken");
    }
    stored.push(store_good(&node, 2).unwrap());
    assert_unharmed(&mut node, &stored);
}

#[test]
fn inv_08_broken_pdvs_end_the_association() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let mut stored = vec![store_good(&node, 1).unwrap()];
    let (uid, data_set) = good(7);
    let command = wire::store_command(1, CLASS, &uid);
    let mut long_pdv = wire::pdv(1, COMMAND_LAST, &command);
    long_pdv[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut short_pdv = wire::pdv(1, COMMAND_LAST, &command);
    short_pdv[..4].copy_from_slice(&1u32.to_be_bytes());
    let mut endless = Vec::new();
    for _ in 0..64 {
        endless.extend(wire::pdv(1, COMMAND, &[0; 1024]));
    }
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a PDV of 4 GiB", long_pdv),
        ("a PDV of one byte", short_pdv),
        ("a PDV without a byte", vec![0; 4]),
        ("a PDU without a PDV", Vec::new()),
        ("half a PDV header", vec![0, 0, 0]),
        ("a context that was not agreed", wire::pdv(99, COMMAND_LAST, &command)),
        ("a data set without a command", wire::pdv(1, DATA_LAST, &data_set)),
        ("a command that never ends", endless),
        ("a command without a length", wire::pdv(1, COMMAND_LAST, &[0; 12])),
        ("an empty command", wire::pdv(1, COMMAND_LAST, &[])),
        (
            "a second command inside an object",
            [wire::pdv(1, COMMAND_LAST, &command), wire::pdv(1, DATA, b"ab"), wire::pdv(1, COMMAND_LAST, &command)]
                .concat(),
        ),
    ];
    for (name, body) in cases {
        let mut association = Association::open_for(node.port(), CLASS).unwrap();
        let _cut_short = association.stream.write_all(&wire::pdu(kind::DATA, &body));
        let said = wire::listen(&mut association.stream).unwrap();
        assert!(said.ended(), "{name}: {said:?}");
    }
    for cut_at in [1, 5, 6, 9, 12, 40] {
        let mut association = Association::open_for(node.port(), CLASS).unwrap();
        let whole = wire::pdu(kind::DATA, &wire::pdv(1, COMMAND_LAST, &command));
        association.stream.write_all(&whole[..cut_at]).unwrap();
        association.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(ends(&mut association.stream), "a PDU cut after {cut_at} bytes");
    }
    stored.push(store_good(&node, 2).unwrap());
    assert_unharmed(&mut node, &stored);
}

#[test]
fn inv_08_two_hundred_random_commands_are_answered_or_refused() {
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let mut stored = vec![store_good(&node, 1).unwrap()];
    let (uid, _) = good(7);
    for round in 0..200 {
        let command = if round % 2 == 0 {
            let length = 8 + random.below(400) as usize;
            random.bytes(length)
        } else {
            // A good command with a few bits turned.
            let mut command = wire::store_command(1, CLASS, &uid);
            for _ in 0..1 + random.below(4) {
                let at = random.below(command.len() as u64) as usize;
                command[at] ^= 1 << random.below(8);
            }
            command
        };
        let mut association = Association::open_for(node.port(), CLASS).unwrap();
        let body = [wire::pdv(1, COMMAND_LAST, &command), wire::pdv(1, DATA_LAST, &random.bytes(300))].concat();
        let _cut_short = association.stream.write_all(&wire::pdu(kind::DATA, &body));
        match wire::listen(&mut association.stream).unwrap() {
            Said::Silence => panic!("round {round}: no answer to {command:02x?}"),
            Said::Pdu { kind: kind::DATA, body } => {
                let success = body.windows(10).any(|window| window == [0, 0, 0, 9, 2, 0, 0, 0, 0, 0]);
                assert!(!success, "round {round}: success for noise: {command:02x?}");
            }
            _ => {}
        }
    }
    stored.push(store_good(&node, 2).unwrap());
    assert_unharmed(&mut node, &stored);
}

#[test]
fn inv_01_inv_08_an_object_that_is_broken_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let mut stored = vec![store_good(&node, 1).unwrap()];
    // Larger than what is gathered in memory before it goes to the disk.
    let large = Sample::secondary_capture(7).size(1500, 1500);
    let (uid, data_set) = (large.sop_instance_uid(), wire::encode(large.data_set(), EXPLICIT_VR_LE).unwrap());
    for round in 0..20 {
        let mut association = Association::open_for(node.port(), CLASS).unwrap();
        association.begin_store(CLASS, &uid, &data_set[..data_set.len() / 20 * round]).unwrap();
        if round % 2 == 0 {
            association.stream.write_all(&wire::pdu(kind::ABORT, &[0; 4])).unwrap();
        }
        // Dropped in the middle of its object.
    }
    stored.push(store_good(&node, 2).unwrap());
    assert_unharmed(&mut node, &stored);
    let mut association = Association::open_for(node.port(), CLASS).unwrap();
    assert_eq!(association.store(CLASS, &uid, &data_set).unwrap(), 0, "the whole object is welcome afterwards");
}

#[test]
fn inv_08_five_hundred_idle_peers_keep_no_good_one_out_and_are_let_go() {
    const IDLE: usize = 500;
    // Both ends of a thousand connections: ours are in this process.
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let limits = "associate_timeout_ms = 8000\nidle_timeout_ms = 8000";
    let mut node = Setup::new(folder.path()).unwrap().receive(limits).start().unwrap();
    let port = node.port();
    let over = AtomicBool::new(false);

    let (steady, mut idle) = std::thread::scope(|scope| {
        // A device at work: one object every tenth of a second over one association, before, during and after.
        let steady = scope.spawn(|| -> anyhow::Result<Vec<String>> {
            let mut association = Association::open_for(port, CLASS)?;
            let mut stored = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let (uid, data_set) = good(1_000 + stored.len() as u64);
                let status = association.store(CLASS, &uid, &data_set)?;
                anyhow::ensure!(status == 0, "status {status:04x}");
                stored.push(uid);
                std::thread::sleep(Duration::from_millis(100));
            }
            association.release()?;
            Ok(stored)
        });
        let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| wire::dial(port).unwrap()).collect();
        let connected = Instant::now();
        let early = store_good(&node, 1).unwrap();
        assert!(connected.elapsed() < Duration::from_secs(3), "beside {IDLE} idle connections");

        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..IDLE {
            match Association::open_for(port, CLASS) {
                Ok(association) => {
                    accepted += 1;
                    idle.push(association.stream);
                }
                Err(_) => refused += 1,
            }
        }
        println!("idle associations: {accepted} accepted, {refused} refused");
        assert!(accepted >= 100, "only {accepted} were accepted");
        let asked = Instant::now();
        let late = wait::until(
            Duration::from_secs(10),
            || "a good sender to be let in".into(),
            || Ok(store_good(&node, 2).ok()),
        )
        .unwrap();
        println!("beside idle associations a good one was stored after {:?}", asked.elapsed());
        over.store(true, Ordering::Relaxed);
        let mut stored = steady.join().unwrap().unwrap();
        stored.extend([early, late]);
        (stored, idle)
    });

    let begun = Instant::now();
    for stream in &mut idle {
        assert!(ends(stream), "an idle connection is closed");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "they were let go after {:?}", begun.elapsed());
    assert_unharmed(&mut node, &steady);
}

#[test]
fn what_does_not_fit_its_command_gets_the_status_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let (uid, data_set) = good(1);
    let (other_uid, other) = good(2);
    let text = |needle: &str| data_set.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = data_set.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let study_tag = data_set.windows(6).position(|window| window == b"\x20\0\x0d\0UI").unwrap();
    let cases: Vec<(&str, &str, &str, Vec<u8>, u16)> = vec![
        ("another instance", CLASS, &uid, other.clone(), 0xa900),
        ("another class inside", CLASS, &uid, with(text(CLASS), b"1.2.840.10008.5.1.4.1.1.9"), 0xa900),
        ("a class that is not the context's", sop_class::VL_PHOTOGRAPHIC, &uid, data_set.clone(), 0x0122),
        ("no study", CLASS, &uid, with(study_tag, b"\x20\0\x0f\0"), 0xc000),
        ("a study that is a path", CLASS, &uid, with(study_tag + 8, b"../../"), 0xc000),
        ("an instance that is a path", CLASS, "../../../tmp/x", data_set.clone(), 0xc000),
        ("noise", CLASS, &uid, vec![0xa7; 5000], 0xc000),
        ("nothing", CLASS, &uid, Vec::new(), 0xc000),
        ("half a data set", CLASS, &uid, data_set[..data_set.len() / 2].to_vec(), 0xc000),
        ("an element of 4 GiB", CLASS, &uid, with(data_set.len() - 4100, &[0xff; 4]), 0xc000),
        ("1,000 sequences before the pixels", CLASS, &uid, nested(&data_set, b"\xe0\x7f\x10\0", 0x0040), 0xc000),
        ("1,000 sequences before the study", CLASS, &uid, nested(&data_set, b"\x20\0\x0d\0", 0x0018), 0xc000),
        ("the object itself", CLASS, &uid, data_set.clone(), 0x0000),
        ("the same again", CLASS, &uid, data_set.clone(), 0x0000),
        ("the same UID with other pixels", CLASS, &uid, with(data_set.len() - 8, b"changed!"), 0x0111),
        ("another good one", CLASS, &other_uid, other, 0x0000),
    ];
    // One association for all: a refusal does not end it.
    let mut association = Association::open_for(node.port(), CLASS).unwrap();
    for (name, class, instance, data_set, expected) in cases {
        let status = association.store(class, instance, &data_set).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(format!("{status:04x}"), format!("{expected:04x}"), "{name}");
    }
    association.release().unwrap();
    assert_unharmed(&mut node, &[uid, other_uid]);
}

/// The data set with a sequence in a sequence in a ..., 1,000 deep, before the element that starts with `before`.
fn nested(data_set: &[u8], before: &[u8; 4], group: u16) -> Vec<u8> {
    const DEEP: usize = 1_000;
    let at = data_set.windows(4).position(|window| window == before).expect("the element is there");
    let mut bytes = data_set[..at].to_vec();
    for _ in 0..DEEP {
        bytes.extend(group.to_le_bytes());
        bytes.extend(b"\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff");
    }
    for _ in 0..DEEP {
        bytes.extend(b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0");
    }
    bytes.extend(&data_set[at..]);
    bytes
}
