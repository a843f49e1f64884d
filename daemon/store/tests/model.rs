//! The store on disk against its twin in memory: any order of calls, with reopenings between, gives the same answers.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{MemoryStore, Store};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Op {
    Accept { sop: u8, bytes: u8 },
    Record { sop: u8, probability: u8 },
    Dispatch { sop: u8, parcels: u8, lane: u8 },
    Waiting { destination: bool, wants: u8, limit: u8 },
    Delivered { seq: u8, destination: bool },
    SetAside { seq: u8, destination: bool },
    Custody { seq: u8, destination: bool },
    SendAgain { seq: u8, destination: bool },
    Put { kind: bool, key: u8, content: u8 },
    Remove { kind: bool, key: u8 },
    Documents { kind: bool, after: u8, limit: u8 },
    Reopen { without_index: bool, unclean: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let sop = 0..12u8;
    prop_oneof![
        6 => (sop.clone(), 0..2u8).prop_map(|(sop, bytes)| Op::Accept { sop, bytes }),
        4 => (sop.clone(), 0..3u8).prop_map(|(sop, probability)| Op::Record { sop, probability }),
        4 => (sop, 0..3u8, 0..4u8).prop_map(|(sop, parcels, lane)| Op::Dispatch { sop, parcels, lane }),
        2 => (any::<bool>(), 0..8u8, 0..6u8)
            .prop_map(|(destination, wants, limit)| Op::Waiting { destination, wants, limit }),
        3 => (0..14u8, any::<bool>()).prop_map(|(seq, destination)| Op::Delivered { seq, destination }),
        1 => (0..14u8, any::<bool>()).prop_map(|(seq, destination)| Op::SetAside { seq, destination }),
        2 => (0..14u8, any::<bool>()).prop_map(|(seq, destination)| Op::SendAgain { seq, destination }),
        2 => (0..14u8, any::<bool>()).prop_map(|(seq, destination)| Op::Custody { seq, destination }),
        3 => (any::<bool>(), 0..5u8, 0..3u8).prop_map(|(kind, key, content)| Op::Put { kind, key, content }),
        2 => (any::<bool>(), 0..5u8).prop_map(|(kind, key)| Op::Remove { kind, key }),
        1 => (any::<bool>(), 0..5u8, 0..4u8).prop_map(|(kind, after, limit)| Op::Documents { kind, after, limit }),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(without_index, unclean)| Op::Reopen { without_index, unclean }),
    ]
}

const WHATS: [What; 3] = [What::Findings, What::Deidentified, What::Originals];
const LANES: [Lane; 4] = [Lane::UrgentFindings, Lane::Findings, Lane::KeyImages, Lane::Pixels];

trait Ports: Inbox + Ledger + Outbox + Documents {}
impl<T: Inbox + Ledger + Outbox + Documents> Ports for T {}

fn sop_uid(sop: u8) -> Uid {
    uid(format!("1.9.{sop}"))
}

fn destination(first: bool) -> &'static str {
    if first { "vna" } else { "vna2" }
}

fn kind(first: bool) -> DocumentKind {
    if first { DocumentKind::ProcedureStep } else { DocumentKind::Verdict }
}

/// Keys of any length and order, some of them the beginnings of others; none is empty and refused.
const KEYS: [&str; 5] = ["", "1.2", "1.2.3", "\u{0}", "\u{e4}/b"];

/// An acceptance without the moment and the path, which differ by nature.
fn plain(acceptance: Acceptance) -> String {
    let held = |object: Accepted| format!("{} {} {}", object.seq, object.header.sop_instance_uid, object.file_bytes);
    match acceptance {
        Acceptance::New(object) => format!("new {}", held(object)),
        Acceptance::Duplicate(object) => format!("duplicate {}", held(object)),
        Acceptance::Conflict { held: object, quarantined } => {
            format!("conflict {} {:?}", held(object), quarantined.file_name())
        }
    }
}

fn apply(ports: &dyn Ports, op: &Op) -> String {
    fn told<T: std::fmt::Debug>(result: Result<T, PortError>) -> String {
        match result {
            Ok(answer) => format!("{answer:?}"),
            Err(PortError::NotHeld { .. }) => "not held".into(),
            Err(PortError::Damaged { .. }) => "refused".into(),
            Err(other) => panic!("{other:?}"),
        }
    }
    let inbox: &dyn Inbox = &AsInbox(ports);
    match op {
        Op::Accept { sop, bytes } => {
            told(accept(inbox, &uid(format!("1.{}", sop % 3)), &sop_uid(*sop), &[*bytes; 9]).map(plain))
        }
        Op::Record { sop, probability } => told(ports.record(finding(&sop_uid(*sop), f64::from(*probability) / 3.0))),
        Op::Dispatch { sop, parcels, lane } => {
            let parcels = (0..*parcels).map(|number| {
                let (what, lane) = (WHATS[usize::from(sop % 3)], LANES[usize::from((lane + number) % 4)]);
                parcel(inbox, &uid(format!("2.{number}.{sop}")), what, lane, b"parcel")
            });
            let note = Quarantined { what: What::Originals, reason: "why".into() };
            told(ports.dispatch(&sop_uid(*sop), parcels.collect(), vec![note], UnixMicros(3)))
        }
        Op::Waiting { destination: first, wants, limit } => {
            let wants: Vec<What> = (0..3).filter(|bit| wants >> bit & 1 == 1).map(|bit| WHATS[bit]).collect();
            told(ports.waiting(destination(*first), &wants, usize::from(*limit)))
        }
        Op::Delivered { seq, destination: first } => {
            told(ports.delivered(u64::from(*seq), destination(*first), UnixMicros(4)))
        }
        Op::SetAside { seq, destination: first } => told(ports.set_aside(u64::from(*seq), destination(*first), "no")),
        Op::Custody { seq, destination: first } => {
            let proof = if *first { Proof::Query } else { Proof::Commitment { transaction_uid: uid("1.2") } };
            let noted = told(ports.custody(u64::from(*seq), destination(*first), proof, UnixMicros(6)));
            format!("{noted} {}", told(ports.custody_of(u64::from(*seq))))
        }
        Op::SendAgain { seq, destination: first } => told(ports.send_again(u64::from(*seq), destination(*first))),
        Op::Put { kind: first, key, content } => {
            let key = KEYS[usize::from(*key)].to_owned();
            told(ports.put_document(kind(*first), Document { key, content: vec![*content; usize::from(*content)] }))
        }
        Op::Remove { kind: first, key } => told(ports.remove_document(kind(*first), KEYS[usize::from(*key)])),
        Op::Documents { kind: first, after, limit } => {
            told(ports.documents(kind(*first), KEYS[usize::from(*after)], usize::from(*limit)))
        }
        Op::Reopen { .. } => String::new(),
    }
}

/// The makers want an inbox.
struct AsInbox<'a>(&'a dyn Ports);
impl Inbox for AsInbox<'_> {
    fn open_temp(&self) -> Result<TempObject, PortError> {
        self.0.open_temp()
    }
    fn accept(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        self.0.accept(temp, object)
    }
    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError> {
        self.0.pending(limit)
    }
    fn accepted(&self, uid: &Uid) -> Result<Option<Accepted>, PortError> {
        self.0.accepted(uid)
    }
    fn open_object(&self, uid: &Uid) -> Result<std::fs::File, PortError> {
        self.0.open_object(uid)
    }
}

fn state(ports: &dyn Ports) -> String {
    let pending: Vec<u64> = ports.pending(5).unwrap().iter().map(|object| object.seq).collect();
    let findings = ports.findings_after(2, 4).unwrap();
    let undispatched = ports.undispatched(3).unwrap();
    let ways = ports.parcels_after(1, 50).unwrap();
    let ways: Vec<_> = ways.into_iter().map(|way| (way.parcel, way.delivered, way.set_aside)).collect();
    let waiting: Vec<_> = [true, false].map(|first| ports.waiting(destination(first), &WHATS, 7).unwrap()).into();
    let about: Vec<_> = (0..12).map(|sop| ports.sent_for(&sop_uid(sop)).unwrap()).collect();
    let about: Vec<_> = about.into_iter().map(|(ways, held)| (ways.len(), held)).collect();
    let objects = (0..12).map(|sop| ports.open_object(&sop_uid(sop)).ok().map(read)).collect::<Vec<_>>();
    let all = [true, false].map(|first| ports.documents(kind(first), "", 9).unwrap());
    let one = [true, false].map(|first| KEYS.map(|key| ports.document(kind(first), key).unwrap()));
    let named: Vec<_> = one.iter().flatten().flatten().cloned().collect();
    assert_eq!(named.len(), all.iter().flatten().count(), "each is found by its key and in the list");
    format!("{all:?}\n{pending:?}\n{findings:?}\n{undispatched:?}\n{ways:?}\n{waiting:?}\n{about:?}\n{objects:?}")
}

fn reopen(store: Arc<Store>, state: &Path, without_index: bool, unclean: bool) -> Arc<Store> {
    drop(store);
    if without_index {
        std::fs::remove_dir_all(state.join("index")).unwrap();
    }
    if unclean {
        std::fs::remove_file(state.join("journal/clean")).unwrap();
    }
    open(state)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn inv_02_any_order_of_calls_and_reopenings_answers_like_the_twin(ops in proptest::collection::vec(op(), 1..50)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let twin = MemoryStore::new();
        for (step, op) in ops.iter().enumerate() {
            prop_assert_eq!(apply(&*store, op), apply(&twin, op), "step {} {:?}", step, op);
            if let Op::Reopen { without_index, unclean } = op {
                store = reopen(store, dir.path(), *without_index, *unclean);
                prop_assert_eq!(state(&*store), state(&twin), "step {}", step);
            }
        }
        prop_assert_eq!(state(&*store), state(&twin));
        let status = store.status().unwrap();
        prop_assert_eq!(status.pending, twin.pending(100).unwrap().len() as u64);
        prop_assert_eq!(status.undispatched, twin.undispatched(100).unwrap().len() as u64);
        let documents = [true, false].map(|first| twin.documents(kind(first), "", 9).unwrap().len() as u64);
        prop_assert_eq!(status.documents, documents.iter().sum::<u64>());
        for queue in status.waiting {
            let waiting = twin.waiting(&queue.destination, &WHATS, 100).unwrap().len() as u64;
            prop_assert_eq!(queue.parcels, waiting);
        }
    }
}
