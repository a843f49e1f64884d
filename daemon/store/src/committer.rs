//! The journal's one writer: a thread that gives numbers and moments to records and syncs them together.
//!
//! In: records from many callers, who wait. Out: the same, numbered, durable and in the index.
//! Promise: one fdatasync for all who wait; whoever gets `Ok` has a durable record that the index knows.
//! The queue needs no bound of its own: each caller waits for its answer, so it is as long as there are callers.

use crate::error::{StoreError, again, port_io};
use crate::index::Index;
use crate::journal::Journal;
use crate::record::{self, EncodeError, Forgotten, Record, Remembered};
use crate::store::Clock;
use crate::view::Counts;
use fovea_core::PortError;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

type Answer = Result<Record, PortError>;

/// The callers' side.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    end: AtomicU64,
    /// Place of the first byte of the file that is written to.
    base: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    closed: bool,
}

struct Job {
    record: Record,
    answer: SyncSender<Answer>,
}

impl Committer {
    /// Starts the thread. `counts` hold the last numbers that were given.
    pub(crate) fn start(
        journal: Journal,
        index: Arc<Index>,
        counts: Counts,
        clock: Arc<Clock>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        shared.base.store(journal.base(), Ordering::Relaxed);
        shared.end.store(journal.end(), Ordering::Relaxed);
        let writer = Writer { shared: shared.clone(), journal, index, numbers: counts, clock, frames: Vec::new() };
        let thread = std::thread::Builder::new().name("fovea-journal".into()).spawn(move || writer.run());
        let thread = thread.map_err(|source| StoreError::Thread { source })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Makes `record` durable; its number and moment are given on the way.
    pub(crate) fn commit(&self, record: Record) -> Answer {
        let (answer, answered) = sync_channel(1);
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(stopped());
            }
            queue.jobs.push(Job { record, answer });
        }
        self.shared.changed.notify_one();
        answered.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Place after the journal's last durable record.
    pub(crate) fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Relaxed)
    }

    /// Place before which all of the journal's files are closed.
    pub(crate) fn closed_before(&self) -> u64 {
        self.shared.base.load(Ordering::Acquire)
    }

    /// Finishes what is queued and ends the thread.
    pub(crate) fn stop(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the journal's thread ended in a panic");
        }
    }
}

impl Shared {
    fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

fn stopped() -> PortError {
    port_io("write the journal")(io::Error::new(io::ErrorKind::BrokenPipe, "the journal is closed"))
}

/// The thread's side.
struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    index: Arc<Index>,
    numbers: Counts,
    clock: Arc<Clock>,
    frames: Vec<u8>,
}

impl Drop for Writer {
    /// Also after a panic: callers are told, none waits for ever.
    fn drop(&mut self) {
        self.shared.close();
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).jobs.clear();
    }
}

impl Writer {
    fn run(mut self) {
        loop {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.jobs.is_empty() && !queue.closed {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.jobs.is_empty() {
                return;
            }
            let jobs = std::mem::take(&mut queue.jobs);
            drop(queue);
            self.commit(jobs);
        }
    }

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
        for Job { record, answer } in jobs {
            // A caller that is gone has nobody to tell.
            let _caller_gone = answer.send(Ok(record));
        }
        self.index.settle(false);
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
    let _caller_gone = job.answer.send(answer);
}

fn fail_all(jobs: Vec<Job>, error: &PortError) {
    jobs.iter().for_each(|job| answer(job, Err(again(error))));
}

fn refused(error: &EncodeError) -> PortError {
    PortError::Damaged { detail: error.to_string() }
}
