//! The index's contents: which keys a record of the journal writes, and how the ports' questions are answered.
//!
//! In: records in journal order. Out: keys in one sled tree. Promise: every question costs in proportion to its answer;
//! applying the same records to an empty tree gives the same answers, always.
//!
//! | key | value |
//! | --- | --- |
//! | `m` | [`Meta`]: how far the journal is applied, counts |
//! | `o` uid | `Accepted` |
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
//!
//! Numbers in keys are big endian, so that sled's order is theirs.

use crate::index::Fault;
use crate::overlay::{Merged, Overlay, Writes};
use crate::record::{Dispatched, Record};
use fovea_core::{Accepted, Finding, FindingId, Lane, Parcel, Quarantined, Uid, UnixMicros, What};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::IVec;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Longest finding, as JSON. Sled keeps small values well and large ones badly.
pub const FINDING_BYTES_MAX: usize = 128 * 1024;
/// Changes with any change of the table above: an index of another version is rebuilt.
pub(crate) const SCHEMA: u32 = 1;
const WHATS: [What; 3] = [What::Findings, What::Deidentified, What::Originals];
const LANES: [Lane; 3] = [Lane::UrgentFindings, Lane::Findings, Lane::Pixels];

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
    pub last_object: u64,
    pub last_place: u64,
    pub last_parcel: u64,
}

/// A parcel and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Way {
    pub parcel: Parcel,
    pub delivered: Vec<(String, UnixMicros)>,
    pub set_aside: Vec<(String, String)>,
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

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    key(kind, &number.to_be_bytes())
}

fn named(kind: u8, uid: &Uid) -> Vec<u8> {
    key(kind, uid.as_str().as_bytes())
}

fn asked_key(destination: &str, what: What) -> Vec<u8> {
    let mut key = key(b'r', destination.as_bytes());
    key.extend([0, what as u8]);
    key
}

fn queue_prefix(destination: &str, what: What, lane: Lane) -> Vec<u8> {
    let mut key = key(b'q', destination.as_bytes());
    key.extend([0, what as u8, lane as u8]);
    key
}

fn queue_key(destination: &str, parcel: &Parcel) -> Vec<u8> {
    let mut key = queue_prefix(destination, parcel.what, parcel.lane);
    key.extend(parcel.seq.to_be_bytes());
    key
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Broken(format!("write a value: {error}")))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Broken(format!("read a value: {error}")))
}

fn number(bytes: &[u8]) -> Result<u64, Fault> {
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
    fn bytes(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        self.overlay.get(self.tree, key)
    }

    fn has(&self, key: &[u8]) -> Result<bool, Fault> {
        Ok(self.bytes(key)?.is_some())
    }

    /// Keys that begin with `prefix`.
    fn scan(&self, prefix: Vec<u8>) -> Merged {
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

    pub(crate) fn pending(&self, limit: usize) -> Result<Vec<Accepted>, Fault> {
        self.through(b'p', limit, |view, uid| view.accepted(uid))
    }

    pub(crate) fn undispatched(&self, limit: usize) -> Result<Vec<Finding>, Fault> {
        self.through(b'u', limit, |view, uid| view.finding_of(uid))
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
    fn askers(&self, what: What) -> Result<Vec<String>, Fault> {
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

fn conflict_key(uid: &Uid, sha256: &fovea_core::Sha256) -> Vec<u8> {
    let mut key = named(b'c', uid);
    key.push(0);
    key.extend(sha256.0);
    key
}

/// Changes of several records, written as one atomic batch; reads see the changes.
pub(crate) struct Changes<'a> {
    view: View<'a>,
    meta: Meta,
    writes: Writes,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(view: View<'a>, meta: Meta) -> Self {
        Self { view, meta, writes: Writes::new() }
    }

    /// Number of keys that change.
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// All records before place `end` are applied, also those of which a rewritten file has only the sum.
    pub(crate) fn reach(&mut self, end: u64) {
        self.meta.applied = self.meta.applied.max(end);
    }

    /// The keys, and what the index knows of itself once it has them.
    pub(crate) fn finish(mut self) -> Result<(Writes, Meta), Fault> {
        let meta = write(&self.meta)?;
        self.put(META.to_vec(), meta);
        Ok((self.writes, self.meta))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value.into()));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.view.bytes(key),
        }
    }

    fn has(&self, key: &[u8]) -> Result<bool, Fault> {
        match self.writes.get(key) {
            Some(written) => Ok(written.is_some()),
            None => self.view.has(key),
        }
    }

    fn add(&mut self, key: Vec<u8>, step: i64) -> Result<(), Fault> {
        let before = self.get(&key)?.map_or(Ok(0), |bytes| number(&bytes))?;
        self.put(key, before.saturating_add_signed(step).to_be_bytes().to_vec());
        Ok(())
    }

    /// Applies one record whose last byte is before place `end`.
    pub(crate) fn apply(&mut self, end: u64, record: &Record) -> Result<(), Fault> {
        match record {
            Record::Accepted(accepted) => self.accepted(accepted)?,
            Record::Conflict(conflict) => {
                let key = conflict_key(&conflict.sop_instance_uid, &conflict.data_set_sha256);
                if !self.has(&key)? {
                    self.put(key, write(conflict)?);
                    self.meta.counts.conflicts += 1;
                }
            }
            Record::Finding { place, finding } => self.finding(*place, finding)?,
            Record::Dispatched(dispatched) => self.dispatched(dispatched)?,
            Record::Delivered { seq, destination, at } => self.settle(*seq, destination, |way| {
                way.delivered.push((destination.clone(), *at));
            })?,
            Record::SetAside { seq, destination, reason, .. } => self.settle(*seq, destination, |way| {
                way.set_aside.push((destination.clone(), reason.clone()));
            })?,
        }
        self.meta.applied = end;
        Ok(())
    }

    fn accepted(&mut self, accepted: &Accepted) -> Result<(), Fault> {
        let uid = &accepted.header.sop_instance_uid;
        let counts = &mut self.meta.counts;
        counts.last_object = counts.last_object.max(accepted.seq);
        if self.has(&named(b'o', uid))? {
            return Ok(());
        }
        self.meta.counts.objects += 1;
        self.put(named(b'o', uid), write(accepted)?);
        if !self.has(&named(b'f', uid))? {
            self.meta.counts.pending += 1;
            self.put(numbered(b'p', accepted.seq), uid.as_str().into());
        }
        Ok(())
    }

    fn finding(&mut self, place: u64, finding: &Finding) -> Result<(), Fault> {
        let uid = &finding.sop_instance_uid;
        let counts = &mut self.meta.counts;
        counts.last_place = counts.last_place.max(place);
        if self.has(&named(b'f', uid))? {
            return Ok(());
        }
        self.meta.counts.findings += 1;
        self.put(numbered(b'F', place), write(finding)?);
        self.put(named(b'f', uid), place.to_be_bytes().to_vec());
        self.put(key(b'i', finding.finding_id.as_str().as_bytes()), place.to_be_bytes().to_vec());
        if let Some(accepted) = self.get(&named(b'o', uid))? {
            self.remove(numbered(b'p', read::<Accepted>(&accepted)?.seq));
            self.meta.counts.pending -= 1;
        }
        if !self.has(&named(b'd', uid))? {
            self.meta.counts.undispatched += 1;
            self.put(numbered(b'u', place), uid.as_str().into());
        }
        Ok(())
    }

    fn dispatched(&mut self, dispatched: &Dispatched) -> Result<(), Fault> {
        let uid = &dispatched.source_sop_instance_uid;
        let last = dispatched.parcels.iter().map(|parcel| parcel.seq).max().unwrap_or(0);
        self.meta.counts.last_parcel = self.meta.counts.last_parcel.max(last);
        if self.has(&named(b'd', uid))? {
            return Ok(());
        }
        for parcel in &dispatched.parcels {
            let way = Way { parcel: parcel.clone(), delivered: Vec::new(), set_aside: Vec::new() };
            self.put(numbered(b'P', parcel.seq), write(&way)?);
            self.put(named(b'n', &parcel.sop_instance_uid), parcel.seq.to_be_bytes().to_vec());
            for destination in self.view.askers(parcel.what)? {
                self.put(queue_key(&destination, parcel), Vec::new());
                self.add(asked_key(&destination, parcel.what), 1)?;
            }
        }
        let parcels: Vec<u64> = dispatched.parcels.iter().map(|parcel| parcel.seq).collect();
        self.meta.counts.parcels += parcels.len() as u64;
        self.meta.counts.untouched += parcels.len() as u64;
        self.meta.counts.held_back += dispatched.quarantined.len() as u64;
        let outgoing = Outgoing { parcels, quarantined: dispatched.quarantined.clone() };
        self.put(named(b'd', uid), write(&outgoing)?);
        if let Some(place) = self.get(&named(b'f', uid))? {
            self.remove(numbered(b'u', number(&place)?));
            self.meta.counts.undispatched -= 1;
        }
        Ok(())
    }

    fn settle(&mut self, seq: u64, destination: &str, change: impl FnOnce(&mut Way)) -> Result<(), Fault> {
        let Some(bytes) = self.get(&numbered(b'P', seq))? else { return Ok(()) };
        let mut way: Way = read(&bytes)?;
        if way.delivered.is_empty() && way.set_aside.is_empty() {
            self.meta.counts.untouched -= 1;
        }
        change(&mut way);
        self.put(numbered(b'P', seq), write(&way)?);
        let queued = queue_key(destination, &way.parcel);
        if self.has(&queued)? {
            self.remove(queued);
            self.add(asked_key(destination, way.parcel.what), -1)?;
        }
        Ok(())
    }

    /// Begins to keep a queue of `what` for `destination`: all that it neither has nor refused.
    pub(crate) fn begin_queue(&mut self, destination: &str, what: What) -> Result<(), Fault> {
        let mut waiting = 0u64;
        for entry in self.view.scan(vec![b'P']) {
            let way: Way = read(&entry?.1)?;
            if way.parcel.what == what && !way.settled_at(destination) {
                self.put(queue_key(destination, &way.parcel), Vec::new());
                waiting += 1;
            }
        }
        self.put(asked_key(destination, what), waiting.to_be_bytes().to_vec());
        Ok(())
    }
}
