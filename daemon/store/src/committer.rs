//! The journal's one writer: gives numbers and moments to records and syncs them together.
//!
//! In: records from many callers, who wait. Out: the same, numbered, durable and in the index.
//! Promise: one fdatasync for all who wait; whoever gets `Ok` has a durable record that the index knows.
//! The queue needs no bound of its own: each caller waits for its answer, so it is as long as there are callers.
//!
//! It has no thread of its own, for waking one costs as much as a record. Of the callers one leads: it commits for all who wait,
//! once, and then hands the lead to one of those who came meanwhile.

use crate::error::{again, port_io};
use crate::index::Index;
use crate::journal::Journal;
use crate::record::{self, EncodeError, Forgotten, Record, Remembered};
use crate::store::Clock;
use crate::view::Counts;
use fovea_core::PortError;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Answer = Result<Record, PortError>;

/// What a waiting caller is told.
enum Told {
    /// Its record is durable, or why not.
    Answer(Box<Answer>),
    /// The lead is its own now.
    Lead,
}

/// The callers' side.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// Whoever leads holds it; none once it is closed.
    writer: Mutex<Option<Writer>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Nobody leads any more.
    rested: Condvar,
    end: AtomicU64,
    /// Place of the first byte of the file that is written to.
    base: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Some caller leads: whoever else comes waits.
    led: bool,
    closed: bool,
}

struct Job {
    record: Record,
    caller: SyncSender<Told>,
}

impl Committer {
    /// `counts` hold the last numbers that were given.
    pub(crate) fn new(journal: Journal, index: Arc<Index>, counts: Counts, clock: Arc<Clock>) -> Self {
        let shared = Arc::new(Shared::default());
        shared.base.store(journal.base(), Ordering::Relaxed);
        shared.end.store(journal.end(), Ordering::Relaxed);
        let writer = Writer { shared: shared.clone(), journal, index, numbers: counts, clock, frames: Vec::new() };
        Self { shared, writer: Mutex::new(Some(writer)) }
    }

    /// Makes `record` durable; its number and moment are given on the way.
    pub(crate) fn commit(&self, record: Record) -> Answer {
        let (caller, told) = sync_channel(1);
        let leads = {
            let mut queue = self.shared.queue();
            if queue.closed {
                return Err(stopped());
            }
            queue.jobs.push(Job { record, caller });
            !std::mem::replace(&mut queue.led, true)
        };
        if leads {
            self.lead();
        }
        loop {
            match told.recv() {
                Ok(Told::Answer(answer)) => return *answer,
                Ok(Told::Lead) => self.lead(),
                Err(_) => return Err(stopped()),
            }
        }
    }

    /// Commits for all who wait now, and hands on the lead.
    fn lead(&self) {
        let lead = Lead(&self.shared);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = std::mem::take(&mut self.shared.queue().jobs);
        let index = writer.as_mut().map(|writer| {
            writer.commit(jobs);
            writer.index.clone()
        });
        drop(writer);
        lead.hand_on();
        // sled's work, if it is time for it: those who wait for the disk meanwhile are not held up.
        if let Some(index) = index {
            index.settle(false);
        }
    }

    /// Place after the journal's last durable record.
    pub(crate) fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Relaxed)
    }

    /// Place before which all of the journal's files are closed.
    pub(crate) fn closed_before(&self) -> u64 {
        self.shared.base.load(Ordering::Acquire)
    }

    /// Finishes what is queued and closes the journal.
    pub(crate) fn stop(&self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        while queue.led {
            queue = self.shared.rested.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lead. Lost in a panic, nobody has it any more: all who wait are told, none waits for ever.
struct Lead<'a>(&'a Shared);

impl Lead<'_> {
    /// To the first of those who wait, or to nobody.
    fn hand_on(self) {
        let mut queue = self.0.queue();
        // The caller is there: it waits for its answer.
        queue.led = queue.jobs.first().is_some_and(|next| next.caller.send(Told::Lead).is_ok());
        if !queue.led {
            self.0.rested.notify_all();
        }
        drop(queue);
        std::mem::forget(self);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        log::error!("the journal's writer ended in a panic");
        let mut queue = self.0.queue();
        (queue.closed, queue.led) = (true, false);
        queue.jobs.clear();
        self.0.rested.notify_all();
    }
}

fn stopped() -> PortError {
    port_io("write the journal")(io::Error::new(io::ErrorKind::BrokenPipe, "the journal is closed"))
}

/// The leader's side.
struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    index: Arc<Index>,
    numbers: Counts,
    clock: Arc<Clock>,
    frames: Vec<u8>,
}

impl Writer {
    /// One group: numbered, encoded, written, synced, indexed, answered.
    fn commit(&mut self, mut jobs: Vec<Job>) {
        let start = match self.journal.begin() {
            Ok(start) => start,
            Err(error) => return fail_all(jobs, &port_io("write the journal")(error)),
        };
        self.frames.clear();
        let mut ends = Vec::with_capacity(jobs.len());
        jobs.retain_mut(|job| {
            self.number(&mut job.record);
            let encoded = record::encode(&job.record, start + self.frames.len() as u64, &mut self.frames);
            match encoded {
                Ok(()) => ends.push(start + self.frames.len() as u64),
                Err(ref error) => answer(job, Err(refused(error))),
            }
            encoded.is_ok()
        });
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.journal.append(&self.frames, jobs.len() as u64) {
            log::error!("write the journal: {error}");
            return fail_all(jobs, &port_io("write the journal")(error));
        }
        self.shared.base.store(self.journal.base(), Ordering::Release);
        self.shared.end.store(self.journal.end(), Ordering::Relaxed);
        let records: Vec<(u64, &Record)> = ends.into_iter().zip(jobs.iter().map(|job| &job.record)).collect();
        self.index.apply(&records);
        for Job { record, caller } in jobs {
            // A caller that is gone has nobody to tell.
            let _caller_gone = caller.send(Told::Answer(Box::new(Ok(record))));
        }
        self.frames.shrink_to(1 << 20);
    }

    /// Numbers go up by one and are never given twice; a failed append leaves a hole.
    fn number(&mut self, record: &mut Record) {
        let now = (self.clock)();
        match record {
            Record::Accepted(accepted) => {
                self.numbers.last_object += 1;
                accepted.seq = self.numbers.last_object;
                accepted.accepted_at = now;
            }
            Record::Finding { place, .. } => {
                self.numbers.last_place += 1;
                *place = self.numbers.last_place;
            }
            Record::Dispatched(dispatched) => {
                for parcel in &mut dispatched.parcels {
                    self.numbers.last_parcel += 1;
                    parcel.seq = self.numbers.last_parcel;
                }
            }
            Record::Conflict(conflict) => conflict.at = now,
            Record::SetAside { at, .. } => *at = now,
            Record::Evicted(evicted) => evicted.at = now,
            Record::Remembered(Remembered { number, .. }) | Record::Forgotten(Forgotten { number, .. }) => {
                self.numbers.last_document += 1;
                *number = self.numbers.last_document;
            }
            Record::Delivered { .. } | Record::Again { .. } | Record::Custody { .. } | Record::Settled(_) => (),
        }
    }
}

fn answer(job: &Job, answer: Answer) {
    // A caller that is gone has nobody to tell.
    let _caller_gone = job.caller.send(Told::Answer(Box::new(answer)));
}

fn fail_all(jobs: Vec<Job>, error: &PortError) {
    jobs.iter().for_each(|job| answer(job, Err(again(error))));
}

fn refused(error: &EncodeError) -> PortError {
    PortError::Damaged { detail: error.to_string() }
}
