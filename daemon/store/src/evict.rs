//! What may go from the box, and when.
//!
//! In: proofs of custody, the clock, the disk. Out: files removed, each after a durable record that says so.
//! Promise (invariant 6): a file goes only after an archive has proved to keep what is in it. An object goes with the parcel that
//! carries it as it was received; a report or a de-identified copy is proof of itself alone. Records stay: what came,
//! what was found and where it went is known for ever, and an object that comes again is known.
//!
//! Of what may go, what is older than its kind is to be kept goes; past the high watermark the oldest goes until the low one is
//! reached. A parcel that some destination still waits for stays.

use crate::record::{Evicted, Record};
use crate::store::{Key, Parts};
use crate::view::Way;
use fovea_core::{PortError, UnixMicros, What};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Candidates that are looked at together.
const BATCH: usize = 64;

/// How long a file stays after an archive has proved to keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Objects as received.
    pub originals: Duration,
    /// De-identified copies.
    pub deidentified: Duration,
    /// Reports.
    pub findings: Duration,
}

impl Keep {
    fn of(&self, what: What) -> Duration {
        match what {
            What::Originals => self.originals,
            What::Deidentified => self.deidentified,
            What::Findings => self.findings,
        }
    }
}

impl Parts {
    /// One look at everything that may go. Answers with the number of parcels that went.
    pub(crate) fn evict(&self) -> Result<u64, PortError> {
        let now = (self.clock)();
        let mut pressed = self.space.wants_room()?;
        if self.is_read_only() || !pressed && now.0 < self.evict_again_at.load(Ordering::Acquire) {
            return Ok(0);
        }
        let (mut after, mut gone) = (0, 0);
        // A proof that comes meanwhile lowers it again.
        self.evict_again_at.store(i64::MAX, Ordering::Release);
        loop {
            let candidates = self.index.ask(|view| view.evictable_after(after, BATCH))?;
            let Some(last) = candidates.last() else { break };
            after = last.parcel.seq;
            for way in candidates {
                let due = self.due(&way);
                if (pressed || due <= now) && self.evict_one(way.parcel.seq)? {
                    gone += 1;
                    pressed = self.space.wants_room()?;
                } else {
                    // What is due and waited for by some destination is looked at each time.
                    self.evict_again_at.fetch_min(due.0, Ordering::AcqRel);
                }
            }
        }
        Ok(gone)
    }

    /// When it is old enough, counted from the first proof.
    fn due(&self, way: &Way) -> UnixMicros {
        let keep = i64::try_from(self.keep.of(way.parcel.what).as_micros()).unwrap_or(i64::MAX);
        UnixMicros(way.custody.first().map_or(i64::MAX, |custody| custody.at.0.saturating_add(keep)))
    }

    /// A proof came: its parcel is looked at when its time comes.
    pub(crate) fn expect_eviction(&self, what: What, proved_at: UnixMicros) {
        let keep = i64::try_from(self.keep.of(what).as_micros()).unwrap_or(i64::MAX);
        self.evict_again_at.fetch_min(proved_at.0.saturating_add(keep), Ordering::AcqRel);
    }

    /// Removes one parcel's file and the object that it is the original of, if nobody waits for them.
    fn evict_one(&self, seq: u64) -> Result<bool, PortError> {
        let _parcel = self.reserved.take(Key::Parcel(seq));
        let Some(way) = self.index.ask(|view| view.way(seq))? else { return Ok(false) };
        if way.custody.is_empty() || way.evicted || !self.index.ask(|view| view.all_answered(&way))? {
            return Ok(false);
        }
        let source = &way.parcel.source_sop_instance_uid;
        let is_original = way.parcel.what == What::Originals && way.parcel.sop_instance_uid == *source;
        let _object = is_original.then(|| self.reserved.take(Key::Object(source.clone())));
        // Without an outcome it is still wanted here, whoever else has it.
        let object = is_original && self.index.ask(|view| view.finding_of(source))?.is_some();
        let held = if object { self.index.ask(|view| view.accepted(source))? } else { None };
        let record = Evicted { seq, object: held.is_some().then(|| source.clone()), at: UnixMicros(0) };
        self.commit(Record::Evicted(record))?;
        self.remove_evicted(&self.layout.parcel(&way.parcel.sop_instance_uid));
        if let Some(held) = held {
            self.remove_evicted(&self.layout.object(&held.header.study_uid, source));
        }
        Ok(true)
    }

    /// A file whose record says that it is gone. One that stays is removed when the store opens after a crash.
    fn remove_evicted(&self, path: &Path) {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("remove an evicted file: {error}"),
            _ => (),
        }
    }
}
