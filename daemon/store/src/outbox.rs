//! What leaves the box. Promise: all parcels of one object are dispatched in one record or not at all; what a
//! destination has answered is never asked of it again.

use crate::error::port_io;
use crate::record::{Dispatched, Record};
use crate::store::{Key, Store};
use crate::view::Way;
use fovea_core::{
    Custody, Inbox, NewParcel, Outbox, Parcel, ParcelState, PortError, Proof, Quarantined, Uid, UnixMicros, What,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

/// Longest name of a destination, bytes: it is part of index keys.
pub(crate) const DESTINATION_BYTES_MAX: usize = 128;
/// Longest reason that is kept of a refusal, bytes.
pub(crate) const REASON_BYTES_MAX: usize = 1024;

impl Outbox for Store {
    fn dispatch(
        &self,
        source_sop_instance_uid: &Uid,
        parcels: Vec<NewParcel>,
        quarantined: Vec<Quarantined>,
        now: UnixMicros,
    ) -> Result<(), PortError> {
        let source = source_sop_instance_uid;
        let _one = self.reserved.take(Key::Dispatch(source.clone()));
        if self.accepted(source)?.is_none() {
            return Err(PortError::NotHeld { what: format!("object {source}") });
        }
        if self.index.ask(|view| view.outgoing(source))?.is_some() {
            return Ok(());
        }
        // In order, so that two dispatches that share names cannot wait for each other.
        let names: BTreeSet<Uid> = parcels.iter().map(|parcel| parcel.sop_instance_uid.clone()).collect();
        if names.len() < parcels.len() {
            return Err(PortError::Damaged { detail: "two parcels of one dispatch have the same uid".into() });
        }
        let _names: Vec<_> = names.iter().map(|name| self.reserved.take(Key::ParcelName(name.clone()))).collect();
        for name in &names {
            if self.index.ask(|view| view.parcel_named(name))?.is_some() {
                return Err(PortError::Damaged { detail: format!("parcel {name} belongs to another object") });
            }
        }
        let mut installed = Vec::new();
        let done = self.install_and_record(source, parcels, quarantined, now, &mut installed);
        if done.is_err() {
            // Nothing half-done shows; what cannot be removed now is swept when the store opens.
            installed.iter().for_each(|path| drop(self.disk.remove_file(path)));
        }
        done
    }

    fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, PortError> {
        check_name(destination)?;
        if self.is_read_only() {
            // What came of sending could not be kept, and would be sent again and again.
            return Ok(Vec::new());
        }
        for what in wants {
            self.index.keep_queue(destination, *what)?;
        }
        let waiting = self.index.ask(|view| {
            let kept = wants.iter().map(|what| view.has_asked(destination, *what));
            let all_kept = kept.collect::<Result<Vec<_>, _>>()?.into_iter().all(|kept| kept);
            all_kept.then(|| view.waiting(destination, wants, limit)).transpose()
        })?;
        match waiting {
            Some(waiting) => Ok(waiting),
            // The index was rebuilt between the two questions, and its queues are made on demand.
            None => self.waiting(destination, wants, limit),
        }
    }

    fn open_parcel(&self, seq: u64) -> Result<File, PortError> {
        let way = self.way(seq)?;
        if way.evicted {
            let what = format!("parcel {seq}: an archive keeps it, and its file went to make room");
            return Err(PortError::NotHeld { what });
        }
        self.open_held(&self.layout.parcel(&way.parcel.sop_instance_uid))
    }

    fn delivered(&self, seq: u64, destination: &str, at: UnixMicros) -> Result<(), PortError> {
        check_name(destination)?;
        let _one = self.reserved.take(Key::Parcel(seq));
        if self.way(seq)?.delivered.iter().any(|(name, _)| name == destination) {
            return Ok(());
        }
        self.commit(Record::Delivered { seq, destination: destination.to_owned(), at }).map(drop)
    }

    fn set_aside(&self, seq: u64, destination: &str, reason: &str) -> Result<(), PortError> {
        check_name(destination)?;
        let _one = self.reserved.take(Key::Parcel(seq));
        if self.way(seq)?.refused_by(destination) {
            return Ok(());
        }
        let record = Record::SetAside {
            seq,
            destination: destination.to_owned(),
            reason: shorten(reason).to_owned(),
            at: UnixMicros(0),
        };
        self.commit(record).map(drop)
    }

    fn custody(&self, seq: u64, destination: &str, proof: Proof, at: UnixMicros) -> Result<(), PortError> {
        check_name(destination)?;
        let _one = self.reserved.take(Key::Parcel(seq));
        let way = self.way(seq)?;
        if way.custody.iter().any(|held| held.destination == destination) {
            return Ok(());
        }
        let custody = Custody { destination: destination.to_owned(), proof, at };
        self.commit(Record::Custody { seq, custody })?;
        self.expect_eviction(way.parcel.what, at);
        Ok(())
    }

    fn custody_of(&self, seq: u64) -> Result<Vec<Custody>, PortError> {
        Ok(self.way(seq)?.custody)
    }

    fn send_again(&self, seq: u64, destination: &str) -> Result<(), PortError> {
        check_name(destination)?;
        let _one = self.reserved.take(Key::Parcel(seq));
        let way = self.way(seq)?;
        if way.evicted || !way.settled_at(destination) {
            return Ok(());
        }
        self.commit(Record::Again { seq, destination: destination.to_owned() }).map(drop)
    }

    fn sent_for(&self, source_sop_instance_uid: &Uid) -> Result<(Vec<ParcelState>, Vec<Quarantined>), PortError> {
        let outgoing = self.index.ask(|view| view.outgoing(source_sop_instance_uid))?.unwrap_or_default();
        let ways = outgoing.parcels.iter().map(|seq| Ok(self.state(self.way(*seq)?)));
        Ok((ways.collect::<Result<_, PortError>>()?, outgoing.quarantined))
    }

    fn parcels_after(&self, after: u64, limit: usize) -> Result<Vec<ParcelState>, PortError> {
        let ways = self.index.ask(|view| view.ways_after(after, limit))?;
        Ok(ways.into_iter().map(|way| self.state(way)).collect())
    }
}

impl Store {
    fn way(&self, seq: u64) -> Result<Way, PortError> {
        let not_held = || PortError::NotHeld { what: format!("parcel {seq}") };
        self.index.ask(|view| view.way(seq))?.ok_or_else(not_held)
    }

    fn state(&self, way: Way) -> ParcelState {
        let path = self.layout.parcel(&way.parcel.sop_instance_uid);
        ParcelState {
            parcel: way.parcel,
            path,
            delivered: way.delivered,
            set_aside: way.set_aside,
            custody: way.custody,
        }
    }

    /// Files first, all under one folder sync, then the record.
    fn install_and_record(
        &self,
        source: &Uid,
        parcels: Vec<NewParcel>,
        quarantined: Vec<Quarantined>,
        now: UnixMicros,
        installed: &mut Vec<PathBuf>,
    ) -> Result<(), PortError> {
        let mut recorded = Vec::with_capacity(parcels.len());
        for mut parcel in parcels {
            let file_bytes = parcel.content.file.metadata().map_err(port_io("look at a file"))?.len();
            let target = self.layout.parcel(&parcel.sop_instance_uid);
            // The name first, as for objects: one commit of the file system less.
            self.files.rename(&mut parcel.content, &target)?;
            installed.push(target);
            self.files.sync_file(&parcel.content)?;
            recorded.push(Parcel {
                seq: 0, // the committer's to give
                source_sop_instance_uid: source.clone(),
                what: parcel.what,
                lane: parcel.lane,
                sop_class_uid: parcel.sop_class_uid,
                sop_instance_uid: parcel.sop_instance_uid,
                transfer_syntax_uid: parcel.transfer_syntax_uid,
                file_bytes,
                dispatched_at: now,
            });
        }
        if !installed.is_empty() {
            self.files.sync_folder(&self.layout.outbox)?;
        }
        let dispatched =
            Dispatched { source_sop_instance_uid: source.clone(), parcels: recorded, quarantined, at: now };
        self.commit(Record::Dispatched(dispatched)).map(drop)
    }
}

/// A name that fits into a key: not empty, not long, no NUL.
pub(crate) fn check_name(destination: &str) -> Result<(), PortError> {
    let fits = (1..=DESTINATION_BYTES_MAX).contains(&destination.len()) && !destination.contains('\0');
    if fits { Ok(()) } else { Err(PortError::NotHeld { what: "a destination with such a name".into() }) }
}

/// The start of a long reason.
pub(crate) fn shorten(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
