//! What the box holds, as viewers ask for it: the port [`Holdings`] over SQLite.
//!
//! In: the inbox and the outbox, which it follows by their places; headers of stored objects. Out: rows, selections, open files.
//! Promise: it is a view. Its folder can be deleted or damaged at any time and comes back from the objects; nothing durable depends
//! on it. What was accepted before a question was asked is in the answer, unless the view is still being made anew
//! ([`CATCH_UP_MAX`]). Memory is bounded by a batch of headers and by the rows asked for. What was evicted, or is no longer there,
//! is in no answer.
//!
//! Objects are held as received, and reports as they were made here; de-identified copies are for others.
//!
//! ```text
//! [Inbox] accepted_after, gone_after --+
//! [Outbox] parcels_after --------------+-> follow -> header -> entry -> catalogue.db -> find, select
//! ```
//!
//! Answers hold patient identity. Logs and errors here do not.

mod attributes;
mod database;
mod entry;
mod find;
mod follow;
mod header;
#[cfg(test)]
mod load_tests;
mod matching;
mod text;

use database::{DatabaseError, Place};
use follow::{FollowError, Follower};
use fovea_core::{HeldInstance, Holdings, Inbox, Outbox, PortError, Query, Row, Selection, Uid, chain};
use rusqlite::{Connection, OptionalExtension};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a question waits at most for what came before it.
pub const CATCH_UP_MAX: Duration = Duration::from_millis(200);
/// Between two looks at whether the view is free.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Reading connections that are kept.
const READERS_MAX: usize = 4;

/// The catalogue. Calls block on disk.
pub struct Catalogue {
    place: Place,
    inbox: Arc<dyn Inbox>,
    outbox: Arc<dyn Outbox>,
    writer: Mutex<Option<Follower>>,
    readers: Mutex<Vec<Connection>>,
    /// Counts the databases there have been, so that no reader of an old one is kept.
    generation: AtomicU64,
}

impl Catalogue {
    /// The catalogue in `folder`, which is made with the first call that needs it: a full disk keeps nobody from working who does
    /// not ask. One that is damaged or of another version is made anew. What it lacks is indexed by [`follow`](Self::follow) and by
    /// questions.
    #[must_use]
    pub fn new(folder: &Path, inbox: Arc<dyn Inbox>, outbox: Arc<dyn Outbox>) -> Self {
        let (writer, readers, generation) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        Self { place: Place::new(folder), inbox, outbox, writer, readers, generation }
    }

    /// One step after inbox and outbox; says whether there is more to do. To be called again and again by one thread, which may
    /// rest when there is not.
    ///
    /// # Errors
    /// When a port or the disk fails: call again later.
    pub fn follow(&self) -> Result<bool, PortError> {
        let mut writer = self.writer();
        self.step(&mut writer)
    }

    /// A look at a few of the instances held, whether their files are still there: a disk loses files, and a person moves them.
    /// To be called when there is nothing else to do; each call looks at the next few.
    ///
    /// # Errors
    /// When a port or the disk fails: call again later.
    pub fn look_after(&self) -> Result<(), PortError> {
        let mut writer = self.writer();
        let looked = self.opened(&mut writer)?.look_after(&*self.inbox, &*self.outbox);
        self.settled(&mut writer, looked).map(drop)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Follower>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened<'a>(&self, writer: &'a mut Option<Follower>) -> Result<&'a mut Follower, PortError> {
        match writer {
            Some(follower) => Ok(follower),
            None => Ok(writer.insert(Follower::new(self.place.open().map_err(port_error)?))),
        }
    }

    fn step(&self, writer: &mut Option<Follower>) -> Result<bool, PortError> {
        let done = self.opened(writer)?.step(&*self.inbox, &*self.outbox);
        // Made anew, there is everything to do.
        Ok(self.settled(writer, done)?.unwrap_or(true))
    }

    /// What was done; none where the database was damaged and has been made anew.
    fn settled<T>(&self, writer: &mut Option<Follower>, done: Result<T, FollowError>) -> Result<Option<T>, PortError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(FollowError::Database(error)) if error.is_damage() => self.make_anew(writer, &error).map(|()| None),
            Err(FollowError::Database(error)) => Err(port_error(error)),
            Err(FollowError::Port(error)) => Err(error),
        }
    }

    fn make_anew(&self, writer: &mut Option<Follower>, why: &DatabaseError) -> Result<(), PortError> {
        log::warn!("catalogue: {}; it is made anew from the objects", chain(why));
        *writer = None;
        self.place.remove().map_err(port_error)?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
        Ok(())
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Indexes what came before this call, for as long as [`CATCH_UP_MAX`].
    fn catch_up(&self) -> Result<(), PortError> {
        let until = Instant::now() + CATCH_UP_MAX;
        while Instant::now() < until {
            match self.writer.try_lock() {
                Ok(mut writer) => {
                    if !self.step(&mut writer)? {
                        break;
                    }
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
                Err(TryLockError::Poisoned(_)) => break,
            }
        }
        Ok(())
    }

    /// Asks the database; a damaged one is made anew and asked once more.
    fn ask<T>(&self, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, PortError> {
        let generation = self.generation.load(Ordering::Acquire);
        match self.ask_once(generation, &question) {
            Err(error) if error.is_damage() => {
                let mut writer = self.writer();
                if self.generation.load(Ordering::Acquire) == generation {
                    self.make_anew(&mut writer, &error)?;
                }
                drop(writer);
                self.catch_up()?;
                self.ask_once(self.generation.load(Ordering::Acquire), &question).map_err(port_error)
            }
            answer => answer.map_err(port_error),
        }
    }

    fn ask_once<T>(
        &self,
        generation: u64,
        question: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let kept = self.readers().pop();
        let reader = kept.map_or_else(|| self.place.open_reader(), Ok)?;
        let answer = question(&reader)?;
        let mut readers = self.readers();
        if readers.len() < READERS_MAX && self.generation.load(Ordering::Acquire) == generation {
            readers.push(reader);
        }
        Ok(answer)
    }
}

impl Holdings for Catalogue {
    fn find(&self, query: &Query) -> Result<Vec<Row>, PortError> {
        self.catch_up()?;
        self.ask(|connection| find::find(connection, query))
    }

    fn select(&self, selection: &Selection, limit: usize) -> Result<Vec<HeldInstance>, PortError> {
        self.catch_up()?;
        self.ask(|connection| find::select(connection, selection, limit))
    }

    fn open(&self, sop_instance_uid: &Uid) -> Result<File, PortError> {
        let parcel = "SELECT parcel FROM instance WHERE a00080018 = ?";
        let parcel = self.ask(|connection| {
            connection.query_row(parcel, [sop_instance_uid.as_str()], |row| row.get::<_, Option<i64>>(0)).optional()
        })?;
        match parcel {
            Some(Some(seq)) => self.outbox.open_parcel(seq.unsigned_abs()),
            // Also where it is not indexed yet.
            _ => self.inbox.open_object(sop_instance_uid),
        }
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").field("place", &self.place).finish_non_exhaustive()
    }
}

fn port_error(error: DatabaseError) -> PortError {
    PortError::Io { doing: "ask the catalogue".to_owned(), source: std::io::Error::other(error) }
}
