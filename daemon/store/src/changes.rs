//! Which keys a record of the journal writes.
//!
//! In: records in journal order. Out: one atomic batch of keys. Promise: applying the same records to an empty tree gives the
//! same keys, always; a record that comes twice changes nothing the second time. The table of keys is in `view.rs`.

use crate::documents::{document_key, document_number, document_value};
use crate::index::Fault;
use crate::overlay::Writes;
use crate::record::{Dispatched, Evicted, Forgotten, Record, Remembered, Settled};
use crate::view::{
    META, Meta, Outgoing, Share, View, Way, asked_key, conflict_key, key, named, number, numbered, queue_key, read,
    sender_key, write,
};
use fovea_core::{Accepted, Custody, Finding, Gone, Sender, What};
use sled::IVec;

/// Changes of several records, written as one atomic batch; reads see the changes.
pub(crate) struct Changes<'a> {
    view: View<'a>,
    meta: Meta,
    writes: Writes,
    bytes: usize,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(view: View<'a>, meta: Meta) -> Self {
        Self { view, meta, writes: Writes::new(), bytes: 0 }
    }

    /// Number of keys that change.
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Bytes of all values that were put, also of those that were replaced since.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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
        self.bytes += value.len();
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
            Record::Again { seq, destination } => self.again(*seq, destination)?,
            Record::Custody { seq, custody } => self.custody(*seq, std::slice::from_ref(custody))?,
            Record::Evicted(evicted) => self.evicted(evicted)?,
            Record::Settled(settled) => self.settled(settled)?,
            Record::Remembered(remembered) => self.remembered(remembered)?,
            Record::Forgotten(forgotten) => self.forgotten(forgotten)?,
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
        self.put(numbered(b'a', accepted.seq), uid.as_str().into());
        self.share(&accepted.sender, 1, accepted.file_bytes as i64)?;
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
            let way = Way {
                parcel: parcel.clone(),
                delivered: Vec::new(),
                set_aside: Vec::new(),
                custody: Vec::new(),
                evicted: false,
            };
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

    /// A destination's answer is forgotten.
    fn again(&mut self, seq: u64, destination: &str) -> Result<(), Fault> {
        let Some(bytes) = self.get(&numbered(b'P', seq))? else { return Ok(()) };
        let mut way: Way = read(&bytes)?;
        if !way.settled_at(destination) {
            return Ok(());
        }
        way.delivered.retain(|(name, _)| name != destination);
        way.set_aside.retain(|(name, _)| name != destination);
        self.meta.counts.untouched += u64::from(way.delivered.is_empty() && way.set_aside.is_empty());
        self.put(numbered(b'P', seq), write(&way)?);
        let asked = asked_key(destination, way.parcel.what);
        if !way.evicted && self.has(&asked)? {
            self.put(queue_key(destination, &way.parcel), Vec::new());
            self.add(asked, 1)?;
        }
        Ok(())
    }

    fn change_way(&mut self, seq: u64, change: impl FnOnce(&mut Self, &mut Way)) -> Result<Option<Way>, Fault> {
        let Some(bytes) = self.get(&numbered(b'P', seq))? else { return Ok(None) };
        let mut way: Way = read(&bytes)?;
        change(self, &mut way);
        self.put(numbered(b'P', seq), write(&way)?);
        Ok(Some(way))
    }

    fn custody(&mut self, seq: u64, proofs: &[Custody]) -> Result<(), Fault> {
        let way = self.change_way(seq, |changes, way| {
            if way.custody.is_empty() && !proofs.is_empty() {
                changes.meta.counts.in_custody += 1;
            }
            for proof in proofs {
                if way.custody.iter().all(|held| held.destination != proof.destination) {
                    way.custody.push(proof.clone());
                }
            }
        })?;
        if way.is_some_and(|way| !way.evicted && !way.custody.is_empty()) {
            self.put(numbered(b'e', seq), Vec::new());
        }
        Ok(())
    }

    fn evicted(&mut self, evicted: &Evicted) -> Result<(), Fault> {
        let mut is_news = false;
        self.change_way(evicted.seq, |changes, way| {
            is_news = !way.evicted;
            changes.meta.counts.evicted_parcels += u64::from(is_news);
            way.evicted = true;
        })?;
        if is_news {
            self.meta.counts.last_gone += 1;
            let gone = Gone { parcel: evicted.seq, object: evicted.object.clone() };
            self.put(numbered(b'g', self.meta.counts.last_gone), write(&gone)?);
        }
        self.remove(numbered(b'e', evicted.seq));
        let Some(uid) = &evicted.object else { return Ok(()) };
        let Some(accepted) = self.get(&named(b'o', uid))? else { return Ok(()) };
        if !self.has(&named(b'x', uid))? {
            let accepted: Accepted = read(&accepted)?;
            self.put(named(b'x', uid), evicted.at.0.to_be_bytes().to_vec());
            self.meta.counts.evicted_objects += 1;
            self.share(&accepted.sender, -1, -(accepted.file_bytes as i64))?;
        }
        Ok(())
    }

    /// The same as the records that it was made from.
    fn settled(&mut self, settled: &Settled) -> Result<(), Fault> {
        settled.again.iter().try_for_each(|destination| self.again(settled.seq, destination))?;
        for (destination, at) in &settled.delivered {
            self.settle(settled.seq, destination, |way| way.delivered.push((destination.clone(), *at)))?;
        }
        for (destination, reason) in &settled.set_aside {
            self.settle(settled.seq, destination, |way| way.set_aside.push((destination.clone(), reason.clone())))?;
        }
        self.custody(settled.seq, &settled.custody)
    }

    /// The number of what is known of a document, 0 for none.
    fn known_document(&self, key: &[u8]) -> Result<u64, Fault> {
        self.get(key)?.map_or(Ok(0), |value| document_number(&value))
    }

    fn remembered(&mut self, remembered: &Remembered) -> Result<(), Fault> {
        let key = document_key(remembered.kind, &remembered.key)?;
        self.meta.counts.last_document = self.meta.counts.last_document.max(remembered.number);
        let known = self.known_document(&key)?;
        if known < remembered.number {
            self.meta.counts.documents += u64::from(known == 0);
            self.put(key, document_value(remembered.number, &remembered.content.0));
        }
        Ok(())
    }

    fn forgotten(&mut self, forgotten: &Forgotten) -> Result<(), Fault> {
        let key = document_key(forgotten.kind, &forgotten.key)?;
        self.meta.counts.last_document = self.meta.counts.last_document.max(forgotten.number);
        let known = self.known_document(&key)?;
        if (1..forgotten.number).contains(&known) {
            self.meta.counts.documents -= 1;
            self.remove(key);
        }
        Ok(())
    }

    fn share(&mut self, sender: &Sender, objects: i64, bytes: i64) -> Result<(), Fault> {
        let key = sender_key(sender);
        let before: Share = self.get(&key)?.map_or(Ok(Share::default()), |bytes| read(&bytes))?;
        let objects = before.objects.saturating_add_signed(objects);
        let share = Share { objects, bytes: before.bytes.saturating_add_signed(bytes) };
        self.put(key, write(&share)?);
        Ok(())
    }

    /// Begins to keep a queue of `what` for `destination`: all that it neither has nor refused.
    pub(crate) fn begin_queue(&mut self, destination: &str, what: What) -> Result<(), Fault> {
        let mut waiting = 0u64;
        for entry in self.view.scan(vec![b'P']) {
            let way: Way = read(&entry?.1)?;
            if way.parcel.what == what && !way.evicted && !way.settled_at(destination) {
                self.put(queue_key(destination, &way.parcel), Vec::new());
                waiting += 1;
            }
        }
        self.put(asked_key(destination, what), waiting.to_be_bytes().to_vec());
        Ok(())
    }
}
