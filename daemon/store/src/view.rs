//! The index's contents: its keys, and how the ports' questions are answered from them.
//!
//! In: keys in one sled tree, as `changes.rs` writes them. Out: answers. Promise: every question costs in proportion to its
//! answer.
//!
//! | key | value |
//! | --- | --- |
//! | `m` | [`Meta`]: how far the journal is applied, counts |
//! | `o` uid | `Accepted` |
//! | `a` seq | uid of that object |
//! | `p` seq | uid of an object without an outcome |
//! | `f` uid | place of its finding |
//! | `F` place | `Finding` |
//! | `i` finding id | place |
//! | `u` place | uid of an object whose finding is not dispatched |
//! | `d` uid | [`Outgoing`]: its parcels and held-back copies |
//! | `P` seq | [`Way`] of a parcel |
//! | `n` uid | seq of the parcel of that name |
//! | `c` uid sha256 | a conflict |
//! | `r` destination NUL what | how many such parcels wait for it: it has asked before, so its queue is kept |
//! | `q` destination NUL what lane seq | such a parcel waits |
//! | `e` seq | an archive keeps this parcel, and its file is here, too |
//! | `x` uid | an object whose file was evicted |
//! | `g` number | `Gone`: what an eviction took, counted from 1 |
//! | `s` sender | [`Share`]: what is held of it |
//! | `D` kind NUL key | number and content of a document (documents) |
//!
//! Numbers in keys are big endian, so that sled's order is theirs.

use crate::index::Fault;
use crate::overlay::{Merged, Overlay};
use fovea_core::{
    Accepted, Custody, Finding, FindingId, Gone, Lane, Parcel, Quarantined, Sender, Uid, UnixMicros, What,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::IVec;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Longest finding, as JSON. Sled keeps small values well and large ones badly.
pub const FINDING_BYTES_MAX: usize = 128 * 1024;
/// Changes with any change of the table above: an index of another version is rebuilt.
pub(crate) const SCHEMA: u32 = 3;
const WHATS: [What; 3] = [What::Findings, What::Deidentified, What::Originals];
const LANES: [Lane; 4] = [Lane::UrgentFindings, Lane::Findings, Lane::KeyImages, Lane::Pixels];

/// What the index knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub schema: u32,
    pub journal_id: u64,
    /// Place after the last applied record.
    pub applied: u64,
    pub counts: Counts,
}

/// Totals and last numbers, kept with each record so that nobody counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub objects: u64,
    pub pending: u64,
    pub findings: u64,
    pub undispatched: u64,
    pub parcels: u64,
    /// Parcels that no destination has taken or refused yet.
    pub untouched: u64,
    pub conflicts: u64,
    pub held_back: u64,
    /// Parcels that an archive has proved to keep.
    pub in_custody: u64,
    pub evicted_parcels: u64,
    pub evicted_objects: u64,
    pub last_object: u64,
    pub last_place: u64,
    pub last_parcel: u64,
    pub last_gone: u64,
    pub documents: u64,
    pub last_document: u64,
}

/// A parcel and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Way {
    pub parcel: Parcel,
    pub delivered: Vec<(String, UnixMicros)>,
    pub set_aside: Vec<(String, String)>,
    pub custody: Vec<Custody>,
    /// Its file is gone.
    pub evicted: bool,
}

/// What the box holds of one sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Share {
    pub objects: u64,
    pub bytes: u64,
}

impl Way {
    pub(crate) fn settled_at(&self, destination: &str) -> bool {
        self.delivered.iter().any(|(name, _)| name == destination) || self.refused_by(destination)
    }

    pub(crate) fn refused_by(&self, destination: &str) -> bool {
        self.set_aside.iter().any(|(name, _)| name == destination)
    }
}

/// What came of one object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    pub parcels: Vec<u64>,
    pub quarantined: Vec<Quarantined>,
}

/// Key of the [`Meta`].
pub(crate) const META: &[u8] = b"m";

pub(crate) fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

pub(crate) fn numbered(kind: u8, number: u64) -> Vec<u8> {
    key(kind, &number.to_be_bytes())
}

pub(crate) fn named(kind: u8, uid: &Uid) -> Vec<u8> {
    key(kind, uid.as_str().as_bytes())
}

pub(crate) fn asked_key(destination: &str, what: What) -> Vec<u8> {
    let mut key = key(b'r', destination.as_bytes());
    key.extend([0, what as u8]);
    key
}

fn queue_prefix(destination: &str, what: What, lane: Lane) -> Vec<u8> {
    let mut key = key(b'q', destination.as_bytes());
    key.extend([0, what as u8, lane as u8]);
    key
}

pub(crate) fn queue_key(destination: &str, parcel: &Parcel) -> Vec<u8> {
    let mut key = queue_prefix(destination, parcel.what, parcel.lane);
    key.extend(parcel.seq.to_be_bytes());
    key
}

/// A sender's key; the second byte keeps a peer that calls itself like the folder apart from it.
pub(crate) fn sender_key(sender: &Sender) -> Vec<u8> {
    match sender {
        Sender::Dimse(ae_title) => key(b's', format!("d{ae_title}").as_bytes()),
        Sender::Capture => key(b's', b"c"),
        Sender::Web => key(b's', b"w"),
    }
}

pub(crate) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Broken(format!("write a value: {error}")))
}

pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Broken(format!("read a value: {error}")))
}

pub(crate) fn number(bytes: &[u8]) -> Result<u64, Fault> {
    let tail = bytes.last_chunk::<8>().ok_or_else(|| Fault::Broken("a number is cut".into()))?;
    Ok(u64::from_be_bytes(*tail))
}

/// Questions. Each borrows the tree, and what is on its way there, for one answer.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub tree: &'a sled::Tree,
    pub overlay: &'a Overlay,
}

impl View<'_> {
    pub(crate) fn bytes(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        self.overlay.get(self.tree, key)
    }

    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, Fault> {
        Ok(self.bytes(key)?.is_some())
    }

    /// Keys that begin with `prefix`.
    pub(crate) fn scan(&self, prefix: Vec<u8>) -> Merged {
        let mut after = prefix.clone();
        // No prefix ends in 0xff: the last byte is a kind, a kind of content or a lane.
        if let Some(last) = after.last_mut() {
            *last += 1;
        }
        self.overlay.range(self.tree, (Bound::Included(prefix), Bound::Excluded(after)))
    }

    fn get<T: DeserializeOwned>(&self, key: Vec<u8>) -> Result<Option<T>, Fault> {
        self.bytes(&key)?.map(|bytes| read(&bytes)).transpose()
    }

    fn get_number(&self, key: Vec<u8>) -> Result<Option<u64>, Fault> {
        self.bytes(&key)?.map(|bytes| number(&bytes)).transpose()
    }

    pub(crate) fn meta(&self) -> Result<Option<Meta>, Fault> {
        self.get(META.to_vec())
    }

    pub(crate) fn accepted(&self, uid: &Uid) -> Result<Option<Accepted>, Fault> {
        self.get(named(b'o', uid))
    }

    /// Objects whose uid comes after `after` as text, in that order.
    pub(crate) fn objects_after(&self, after: &str, limit: usize) -> Result<Vec<Accepted>, Fault> {
        let range = (Bound::Excluded(key(b'o', after.as_bytes())), Bound::Excluded(vec![b'o' + 1]));
        self.overlay.range(self.tree, range).take(limit).map(|entry| read(&entry?.1)).collect()
    }

    pub(crate) fn pending(&self, limit: usize) -> Result<Vec<Accepted>, Fault> {
        self.through(b'p', limit, |view, uid| view.accepted(uid))
    }

    pub(crate) fn undispatched(&self, limit: usize) -> Result<Vec<Finding>, Fault> {
        self.through(b'u', limit, |view, uid| view.finding_of(uid))
    }

    /// Objects after place `after`, oldest first, whatever became of them.
    pub(crate) fn accepted_after(&self, after: u64, limit: usize) -> Result<Vec<Accepted>, Fault> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let range = (Bound::Included(numbered(b'a', first)), Bound::Included(numbered(b'a', u64::MAX)));
        let listed = self.overlay.range(self.tree, range).take(limit);
        listed
            .map(|entry| {
                let (_, uid) = entry?;
                self.get(key(b'o', &uid))?.ok_or_else(|| Fault::Broken("a place names no object".into()))
            })
            .collect()
    }

    pub(crate) fn gone_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Gone)>, Fault> {
        self.numbered_after(b'g', after, limit)
    }

    /// The first `limit` entries of a list of uids, each looked up.
    fn through<T>(
        &self,
        list: u8,
        limit: usize,
        look_up: impl Fn(&Self, &Uid) -> Result<Option<T>, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        for entry in self.scan(vec![list]).take(limit) {
            let (_, value) = entry?;
            let uid = std::str::from_utf8(&value).ok().and_then(|text| Uid::new(text).ok());
            let uid = uid.ok_or_else(|| Fault::Broken("a list names no uid".into()))?;
            found.push(look_up(self, &uid)?.ok_or_else(|| Fault::Broken("a list names what is not there".into()))?);
        }
        Ok(found)
    }

    pub(crate) fn finding_of(&self, uid: &Uid) -> Result<Option<Finding>, Fault> {
        let place = self.get_number(named(b'f', uid))?;
        place.map_or(Ok(None), |place| self.get(numbered(b'F', place)))
    }

    pub(crate) fn finding(&self, id: &FindingId) -> Result<Option<Finding>, Fault> {
        let place = self.get_number(key(b'i', id.as_str().as_bytes()))?;
        place.map_or(Ok(None), |place| self.get(numbered(b'F', place)))
    }

    pub(crate) fn findings_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Finding)>, Fault> {
        self.numbered_after(b'F', after, limit)
    }

    pub(crate) fn ways_after(&self, after: u64, limit: usize) -> Result<Vec<Way>, Fault> {
        Ok(self.numbered_after(b'P', after, limit)?.into_iter().map(|(_, way)| way).collect())
    }

    fn numbered_after<T: DeserializeOwned>(&self, kind: u8, after: u64, limit: usize) -> Result<Vec<(u64, T)>, Fault> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let (first, last) = (numbered(kind, first), numbered(kind, u64::MAX));
        let range = self.overlay.range(self.tree, (Bound::Included(first), Bound::Included(last)));
        range
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                Ok((number(&key)?, read(&value)?))
            })
            .collect()
    }

    pub(crate) fn way(&self, seq: u64) -> Result<Option<Way>, Fault> {
        self.get(numbered(b'P', seq))
    }

    pub(crate) fn parcel_named(&self, uid: &Uid) -> Result<Option<u64>, Fault> {
        self.get_number(named(b'n', uid))
    }

    /// Parcels after `after` that an archive keeps and whose file is here, oldest first.
    pub(crate) fn evictable_after(&self, after: u64, limit: usize) -> Result<Vec<Way>, Fault> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let range = (Bound::Included(numbered(b'e', first)), Bound::Included(numbered(b'e', u64::MAX)));
        let seqs = self.overlay.range(self.tree, range).take(limit).map(|entry| number(&entry?.0));
        let ways = seqs.map(|seq| self.way(seq?)?.ok_or_else(|| Fault::Broken("a list names no parcel".into())));
        ways.collect()
    }

    /// Whether the object's file went on purpose.
    pub(crate) fn object_evicted(&self, uid: &Uid) -> Result<bool, Fault> {
        self.has(&named(b'x', uid))
    }

    /// What is held of one sender.
    pub(crate) fn share_of(&self, sender: &Sender) -> Result<Share, Fault> {
        Ok(self.get(sender_key(sender))?.unwrap_or_default())
    }

    /// What is held of each sender, by name; the capture folder is called so.
    pub(crate) fn shares(&self) -> Result<Vec<(String, Share)>, Fault> {
        let named = |entry: Result<(IVec, IVec), Fault>| {
            let (key, value) = entry?;
            let name = match key.get(1..) {
                Some([b'd', name @ ..]) => String::from_utf8_lossy(name).into_owned(),
                Some([b'w']) => "DICOMweb".to_owned(),
                _ => "capture folder".to_owned(),
            };
            Ok((name, read(&value)?))
        };
        self.scan(vec![b's']).map(named).collect()
    }

    /// Whether every destination that has asked for such parcels has answered for this one.
    pub(crate) fn all_answered(&self, way: &Way) -> Result<bool, Fault> {
        Ok(self.askers(way.parcel.what)?.iter().all(|destination| way.settled_at(destination)))
    }

    pub(crate) fn outgoing(&self, uid: &Uid) -> Result<Option<Outgoing>, Fault> {
        self.get(named(b'd', uid))
    }

    pub(crate) fn has_conflict(&self, uid: &Uid, sha256: &fovea_core::Sha256) -> Result<bool, Fault> {
        self.has(&conflict_key(uid, sha256))
    }

    /// Whether a queue of `what` is kept for `destination`.
    pub(crate) fn has_asked(&self, destination: &str, what: What) -> Result<bool, Fault> {
        self.has(&asked_key(destination, what))
    }

    /// Lane by lane, the oldest first; only kinds whose queue is kept.
    pub(crate) fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, Fault> {
        let mut waiting = Vec::new();
        for lane in LANES {
            let mut seqs = Vec::new();
            for what in WHATS.into_iter().filter(|what| wants.contains(what)) {
                let prefix = queue_prefix(destination, what, lane);
                for entry in self.scan(prefix).take(limit - waiting.len()) {
                    seqs.push(number(&entry?.0)?);
                }
            }
            seqs.sort_unstable();
            seqs.truncate(limit - waiting.len());
            for seq in seqs {
                let way = self.way(seq)?.ok_or_else(|| Fault::Broken("a queue names no parcel".into()))?;
                waiting.push(way.parcel);
            }
        }
        Ok(waiting)
    }

    /// Each destination that has asked, with the number of parcels that wait for it.
    pub(crate) fn queues(&self) -> Result<BTreeMap<String, u64>, Fault> {
        let mut queues = BTreeMap::new();
        for entry in self.scan(vec![b'r']) {
            let (key, value) = entry?;
            let name = key.get(1..key.len().saturating_sub(2)).unwrap_or_default();
            *queues.entry(String::from_utf8_lossy(name).into_owned()).or_default() += number(&value)?;
        }
        Ok(queues)
    }

    /// Whose queues of `what` are kept.
    pub(crate) fn askers(&self, what: What) -> Result<Vec<String>, Fault> {
        let mut askers = Vec::new();
        for entry in self.scan(vec![b'r']) {
            let key = entry?.0;
            if key.last() == Some(&(what as u8)) {
                let name = key.get(1..key.len().saturating_sub(2)).unwrap_or_default();
                askers.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(askers)
    }
}

pub(crate) fn conflict_key(uid: &Uid, sha256: &fovea_core::Sha256) -> Vec<u8> {
    let mut key = named(b'c', uid);
    key.push(0);
    key.extend(sha256.0);
    key
}
