//! What the journal has lost and the index still knows is written down again.
//!
//! In: a journal and an index that was made from it when it was whole. Out: records with new numbers. Promise: what both know is
//! left alone.

use crate::check::{BATCH, Progress, Step, asked};
use crate::error::StoreError;
use crate::journal;
use crate::record::{Content, Dispatched, Evicted, Forgotten, Record, Remembered, Settled};
use crate::store::{Key, Parts};
use crate::view::{Outgoing, Way};
use fovea_core::{Accepted, DocumentKind, PortError, Uid};
use std::collections::{HashMap, HashSet};

/// Documents that are looked at together: at their longest they fill 4 MiB.
const DOCUMENTS_BATCH: usize = 16;

/// Whom the journal's records are about.
#[derive(Default)]
struct Named {
    accepted: HashSet<Uid>,
    found: HashSet<Uid>,
    dispatched: HashSet<Uid>,
    /// The last number of each document, and whether it was there after that.
    documents: HashMap<(DocumentKind, String), (u64, bool)>,
}

impl Named {
    fn add(&mut self, record: Record) {
        let _new = match record {
            Record::Accepted(accepted) => self.accepted.insert(accepted.header.sop_instance_uid),
            Record::Finding { finding, .. } => self.found.insert(finding.sop_instance_uid),
            Record::Dispatched(dispatched) => self.dispatched.insert(dispatched.source_sop_instance_uid),
            Record::Remembered(Remembered { number, kind, key, .. }) => {
                self.documents.insert((kind, key), (number, true)).is_none()
            }
            Record::Forgotten(Forgotten { number, kind, key }) => {
                self.documents.insert((kind, key), (number, false)).is_none()
            }
            _ => return,
        };
    }
}

impl Parts {
    /// Writes again the records that the index was made from and the journal does not have any more, with new numbers.
    pub(crate) fn salvage(&self, progress: &mut dyn FnMut(Progress)) -> Result<u64, StoreError> {
        let (layout, mut named) = (&self.layout, Named::default());
        let end = self.committer.end();
        let read = self.index.exclusively(|| {
            let mut add = |_, record| named.add(record);
            journal::replay(&self.disk, &layout.journal, &layout.bad_journal, 0, end, &mut add)
        });
        read.map_err(StoreError::io("read", &layout.journal))?;
        let total = self.index.meta().map_err(asked)?.counts.objects;
        let (mut after, mut done, mut salvaged) = (String::new(), 0, 0);
        loop {
            let objects = self.index.ask(|view| view.objects_after(&after, BATCH)).map_err(asked)?;
            let Some(last) = objects.last() else { break };
            last.header.sop_instance_uid.as_str().clone_into(&mut after);
            for object in objects {
                salvaged += self.write_again(object, &named).map_err(asked)?;
                done += 1;
                progress(Progress { step: Step::Index, done, total: total.max(done) });
            }
        }
        salvaged += self.documents_again(named.documents).map_err(asked)?;
        Ok(salvaged)
    }

    /// The index has every document as it was last; the journal may have lost that, or that it went.
    fn documents_again(&self, mut named: HashMap<(DocumentKind, String), (u64, bool)>) -> Result<u64, PortError> {
        let (mut after, mut written) = (None::<(DocumentKind, String)>, 0);
        loop {
            let last = after.as_ref().map(|(kind, key)| (*kind, key.as_str()));
            let held = self.index.ask(|view| view.all_documents(last, DOCUMENTS_BATCH))?;
            let Some((kind, _, document)) = held.last() else { break };
            after = Some((*kind, document.key.clone()));
            for (kind, number, document) in held {
                let found = named.remove(&(kind, document.key.clone()));
                if found.is_none_or(|(last, _)| last < number) {
                    written += u64::from(self.document_again(kind, document.key)?);
                }
            }
        }
        for ((kind, key), (_, there)) in named {
            let _one = self.reserved.take(Key::Document(kind, key.clone()));
            if there && self.index.ask(|view| view.document_number(kind, &key))?.is_none() {
                self.commit(Record::Forgotten(Forgotten { number: 0, kind, key }))?;
                written += 1;
            }
        }
        Ok(written)
    }

    /// Writes a document again as it is now, unless it has gone meanwhile.
    fn document_again(&self, kind: DocumentKind, key: String) -> Result<bool, PortError> {
        let _one = self.reserved.take(Key::Document(kind, key.clone()));
        let Some(document) = self.index.ask(|view| view.document(kind, &key))? else { return Ok(false) };
        let record = Remembered { number: 0, kind, key, content: Content(document.content) };
        self.commit(Record::Remembered(record)).map(|_written| true)
    }

    fn write_again(&self, object: Accepted, named: &Named) -> Result<u64, PortError> {
        let uid = object.header.sop_instance_uid.clone();
        let mut written = 0;
        // One that came since the journal was read is in it.
        let _one = self.reserved.take(Key::Object(uid.clone()));
        if !named.accepted.contains(&uid) {
            self.commit(Record::Accepted(object))?;
            written += 1;
        }
        let _outcome = self.reserved.take(Key::Outcome(uid.clone()));
        if !named.found.contains(&uid)
            && let Some(finding) = self.index.ask(|view| view.finding_of(&uid))?
        {
            self.commit(Record::Finding { place: 0, finding: Box::new(finding) })?;
            written += 1;
        }
        let _dispatch = self.reserved.take(Key::Dispatch(uid.clone()));
        if !named.dispatched.contains(&uid)
            && let Some(outgoing) = self.index.ask(|view| view.outgoing(&uid))?
        {
            self.dispatch_again(uid, outgoing)?;
            written += 1;
        }
        Ok(written)
    }

    /// The parcels get new numbers, and their answers go with them.
    fn dispatch_again(&self, source: Uid, outgoing: Outgoing) -> Result<(), PortError> {
        let ways = outgoing.parcels.iter().map(|seq| self.index.ask(|view| view.way(*seq)));
        let ways: Vec<Way> = ways.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let parcels = ways.iter().map(|way| way.parcel.clone()).collect();
        let quarantined = outgoing.quarantined;
        let at = (self.clock)();
        let again = Dispatched { source_sop_instance_uid: source.clone(), parcels, quarantined, at };
        let Record::Dispatched(again) = self.commit(Record::Dispatched(again))? else { return Ok(()) };
        for (way, parcel) in ways.into_iter().zip(again.parcels) {
            let (seq, gone) = (parcel.seq, way.evicted);
            let Way { delivered, set_aside, custody, .. } = way;
            self.commit(Record::Settled(Settled { seq, again: Vec::new(), delivered, set_aside, custody }))?;
            if gone {
                let object = self.index.ask(|view| view.object_evicted(&source))?.then(|| source.clone());
                let object = object.filter(|source| parcel.sop_instance_uid == *source);
                self.commit(Record::Evicted(Evicted { seq, object, at }))?;
            }
        }
        Ok(())
    }
}
