//! sled, kept at arm's length: it may be missing, behind, damaged or panic, and the answers stay right.
//!
//! In: records that are durable in the journal. Out: a [`View`] that holds all of them.
//! Promise: sled's word is never taken for durability; whatever goes wrong in it ends in a rebuild from the journal.

use crate::changes::Changes;
use crate::disk::Disk;
use crate::error::{StoreError, is_out_of_space};
use crate::journal;
use crate::overlay::{Overlay, Writes};
use crate::record::Record;
use crate::view::{Meta, SCHEMA, View};
use fovea_core::{PortError, What};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// sled's page cache. The working set (what is pending and waiting) is far smaller.
const CACHE_BYTES: u64 = 16 << 20;
/// sled writes and syncs its file so seldom because each time competes with the syncs that senders wait for; what a
/// crash takes from it is read from the journal again, at most so many milliseconds' worth.
const FLUSH_EVERY_MS: u64 = 5000;
/// Keys in one batch of a rebuild. Many, because they go to sled in order: neighbours share its pages, and what changes
/// again soon is written once.
const BATCH_KEYS: usize = 20_000;
/// Bytes of their values: bounds memory.
const BATCH_BYTES: usize = 16 << 20;
/// A rebuild that failed (a full disk) is not tried again sooner.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// Why sled gave no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It said so itself.
    Sled(sled::Error),
    /// It panicked, or a value is not what was written.
    Broken(String),
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sled(error) => error.fmt(f),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

impl Fault {
    /// Always something that may be better at the next try, never `Damaged` or `NotHeld`: an index that gives no answer
    /// says nothing about the object, which is in the journal and a plain file as before.
    fn into_port(self) -> PortError {
        match self {
            Self::Sled(sled::Error::Io(error)) if is_out_of_space(&error) => {
                PortError::OutOfSpace { detail: format!("write the index: {error}") }
            }
            Self::Sled(sled::Error::Io(source)) => PortError::Io { doing: "ask the index".into(), source },
            other => PortError::Io { doing: "ask the index".into(), source: std::io::Error::other(other.to_string()) },
        }
    }
}

/// Where the index lives and what it is a view of.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub disk: Disk,
    pub index: PathBuf,
    pub journal: PathBuf,
    pub bad_journal: PathBuf,
    pub journal_id: u64,
}

/// An open sled database; dropped behind a guard, for a damaged one may panic.
struct Opened {
    db: Option<sled::Db>,
    overlay: Overlay,
    broken: AtomicBool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let db = self.db.take();
        let _already_reported = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }
}

impl Opened {
    /// Runs `work` on the contents; an error or a panic marks the database as broken.
    fn guard<T>(&self, work: impl FnOnce(View<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let result = match &self.db {
            Some(db) if !self.broken.load(Ordering::Acquire) => {
                catch_unwind(AssertUnwindSafe(|| work(View { tree: db, overlay: &self.overlay })))
                    .unwrap_or_else(|_| Err(Fault::Broken("sled panicked".into())))
            }
            _ => Err(Fault::Broken("the index is closed".into())),
        };
        if let Err(fault) = &result {
            log::error!("index: {fault}; it will be rebuilt from the journal");
            self.broken.store(true, Ordering::Release);
        }
        result
    }
}

/// The index. Readers share; the committer and rebuilds write one at a time.
pub(crate) struct Index {
    source: Source,
    /// Place up to which the journal is durable.
    durable: AtomicU64,
    current: RwLock<Option<Arc<Opened>>>,
    writer: Mutex<Writer>,
    rebuilds: AtomicU64,
}

struct Writer {
    meta: Meta,
    failed_at: Option<Instant>,
}

/// How the index was found when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    /// It was not usable and has been made anew.
    pub rebuilt: bool,
    /// The journal it was brought up to date from has damage.
    pub damaged: bool,
}

impl Index {
    /// Opens the index and brings it up to place `durable` of the journal. `trust`: sled's files are what sled wrote, because
    /// nothing but this machine's page cache stood between the last daemon and us, or because they were synced and have
    /// the sum that they had then.
    pub(crate) fn open(source: Source, durable: u64, trust: bool) -> Result<(Self, Opening), StoreError> {
        let index = Self {
            source,
            durable: AtomicU64::new(durable),
            current: RwLock::new(None),
            writer: Mutex::new(Writer { meta: Meta::default(), failed_at: None }),
            rebuilds: AtomicU64::new(0),
        };
        let mut writer = index.writer();
        if trust && index.source.index.exists() {
            match index.catch_up(&mut writer) {
                Ok(damaged) => {
                    drop(writer);
                    return Ok((index, Opening { rebuilt: false, damaged }));
                }
                Err(fault) => log::warn!("index: {fault}; rebuilding it from the journal"),
            }
        }
        let built = index.rebuild(&mut writer);
        drop(writer);
        let damaged = built.map_err(|fault| StoreError::Index { detail: fault.to_string() })?;
        Ok((index, Opening { rebuilt: true, damaged }))
    }

    /// Makes the index anew from the whole journal, however sound it looks; says whether the journal is damaged.
    pub(crate) fn read_journal_again(&self) -> Result<bool, StoreError> {
        let built = self.rebuild(&mut self.writer());
        built.map_err(|fault| StoreError::Index { detail: fault.to_string() })
    }

    /// Number of rebuilds since open, the one at open included.
    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Ordering::Relaxed)
    }

    /// Answers a question; a database that breaks over it is rebuilt and asked once more.
    pub(crate) fn ask<T>(&self, question: impl Fn(View<'_>) -> Result<T, Fault>) -> Result<T, PortError> {
        let first = self.usable().and_then(|opened| opened.guard(&question));
        first.or_else(|_| self.usable()?.guard(&question)).map_err(Fault::into_port)
    }

    /// What the index knows of itself and the journal.
    pub(crate) fn meta(&self) -> Result<Meta, PortError> {
        self.usable().map_err(Fault::into_port)?;
        Ok(self.writer().meta)
    }

    /// Takes note of records that are durable now, each with the place after it.
    /// Never fails: a database that does not take them is behind, and is rebuilt when it is asked.
    pub(crate) fn apply(&self, records: &[(u64, &Record)]) {
        let mut writer = self.writer();
        if let Some((end, _)) = records.last() {
            self.durable.fetch_max(*end, Ordering::Release);
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(opened) = current else { return };
        let meta = writer.meta;
        let applied = opened.guard(|view| {
            let mut changes = Changes::new(view, meta);
            for (end, record) in records {
                changes.apply(*end, record)?;
            }
            let (writes, meta) = changes.finish()?;
            view.overlay.take(writes);
            Ok(meta)
        });
        if let Ok(meta) = applied {
            writer.meta = meta;
        }
    }

    /// Gives sled what it lacks: `all` of it, or only when that has become much. The committer does so after its callers
    /// have their answers; the store once more when it closes, which spares the next start a replay.
    pub(crate) fn settle(&self, all: bool) {
        let _writer = self.writer();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(opened) = current.filter(|opened| all || opened.overlay.is_full()) {
            // A failure marks the database: it is rebuilt when it is asked.
            let _told = opened.guard(|view| view.overlay.settle(view.tree));
        }
    }

    /// Gives sled everything and has it written, so that what it knows reaches up to the journal's end by its own word.
    pub(crate) fn flush(&self) {
        self.settle(true);
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(opened) = current {
            let _told = opened.guard(|view| Ok(view.tree.flush().map(drop)?));
        }
    }

    /// Closes the database for good and makes its files durable. Answers with their sum, by which the next start knows them,
    /// or none where the index is not worth knowing.
    pub(crate) fn close(&self) -> Option<u32> {
        self.flush();
        let opened = self.current.write().unwrap_or_else(PoisonError::into_inner).take()?;
        let opened = Arc::into_inner(opened)?;
        let sound = !opened.broken.load(Ordering::Acquire);
        drop(opened); // sled ends its threads and writes its last bytes
        let durable = sound.then(|| self.source.disk.sync_tree(&self.source.index).is_ok())?;
        durable.then(|| sum(&self.source.index).ok()).flatten()
    }

    /// Runs `work` while nothing is written to the index and no file of the journal is read for it.
    pub(crate) fn exclusively<T>(&self, work: impl FnOnce() -> T) -> T {
        let _writer = self.writer();
        work()
    }

    /// Keeps a queue for `destination` from now on, if that is not done yet.
    pub(crate) fn keep_queue(&self, destination: &str, what: What) -> Result<(), PortError> {
        if self.ask(|view| view.has_asked(destination, what))? {
            return Ok(());
        }
        let opened = self.usable().map_err(Fault::into_port)?;
        // The writer's lock: a parcel dispatched meanwhile must see the queue, or be seen by its making.
        let writer = self.writer();
        let meta = writer.meta;
        let begun = opened.guard(|view| {
            if view.has_asked(destination, what)? {
                return Ok(());
            }
            let mut changes = Changes::new(view, meta);
            changes.begin_queue(destination, what)?;
            // At once: as many keys as there are parcels.
            give(view, changes.finish()?.0)
        });
        begun.map_err(Fault::into_port)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A database that holds all durable records, rebuilt if need be.
    fn usable(&self) -> Result<Arc<Opened>, Fault> {
        let current = || self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sound = |opened: &Arc<Opened>| !opened.broken.load(Ordering::Acquire);
        if let Some(opened) = current().filter(sound) {
            return Ok(opened);
        }
        let mut writer = self.writer();
        if current().filter(sound).is_none() {
            if writer.failed_at.is_some_and(|at| at.elapsed() < REBUILD_PAUSE) {
                return Err(Fault::Broken("the index cannot be rebuilt yet".into()));
            }
            self.rebuild(&mut writer)?;
        }
        current().ok_or_else(|| Fault::Broken("the index is closed".into()))
    }

    /// Opens what is there and applies what it lacks; says whether the journal is damaged there.
    fn catch_up(&self, writer: &mut Writer) -> Result<bool, Fault> {
        let opened = self.open_sled()?;
        let meta = opened.guard(|view| view.meta())?.unwrap_or_default();
        let durable = self.durable.load(Ordering::Acquire);
        if meta.schema != SCHEMA || meta.journal_id != self.source.journal_id || meta.applied > durable {
            return Err(Fault::Broken("the index is not of this journal and version".into()));
        }
        self.fill(opened, meta, writer)
    }

    /// Empties the folder and applies the whole journal; says whether the journal is damaged.
    fn rebuild(&self, writer: &mut Writer) -> Result<bool, Fault> {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let meta = Meta { schema: SCHEMA, journal_id: self.source.journal_id, ..Meta::default() };
        let built = self.discard().and_then(|()| self.open_sled()).and_then(|opened| self.fill(opened, meta, writer));
        writer.failed_at = built.is_err().then(Instant::now);
        if built.is_ok() {
            let counts = writer.meta.counts;
            log::info!(
                "index rebuilt: {} objects, {} findings in {:?}",
                counts.objects,
                counts.findings,
                started.elapsed()
            );
        }
        built
    }

    /// Moves the folder aside, so that a process or thread that still has it open harms nothing, and removes it.
    /// A file that stands in its place goes the same way.
    fn discard(&self) -> Result<(), Fault> {
        let aside = self.source.index.with_extension("damaged");
        let remove = |path: &Path| match fs::symlink_metadata(path) {
            Ok(there) if !there.is_dir() => fs::remove_file(path),
            Ok(_) => fs::remove_dir_all(path),
            Err(error) => Err(error),
        };
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| Fault::Sled(sled::Error::Io(error))),
        };
        gone(remove(&aside))?;
        gone(fs::rename(&self.source.index, &aside))?;
        gone(remove(&aside))
    }

    fn open_sled(&self) -> Result<Opened, Fault> {
        // sled would make it for all to read.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.source.index);
        made.map_err(|error| Fault::Sled(sled::Error::Io(error)))?;
        let config = sled::Config::new()
            .path(&self.source.index)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .unwrap_or_else(|_| Err(sled::Error::ReportableBug("panic while opening".into())))?;
        Ok(Opened { db: Some(db), overlay: Overlay::default(), broken: AtomicBool::new(false) })
    }

    /// Applies the journal from where `meta` stands, and makes `opened` the current database.
    fn fill(&self, opened: Opened, meta: Meta, writer: &mut Writer) -> Result<bool, Fault> {
        let durable = self.durable.load(Ordering::Acquire);
        let source = &self.source;
        let (meta, damaged) = opened.guard(|view| {
            let mut meta = meta;
            let mut changes = Some(Changes::new(view, meta));
            let mut fault = None;
            let walk = journal::replay(
                &source.disk,
                &source.journal,
                &source.bad_journal,
                meta.applied,
                durable,
                &mut |end, record| {
                    let step = changes.take().map(|mut filling| -> Result<_, Fault> {
                        filling.apply(end, &record)?;
                        if filling.len() < BATCH_KEYS && filling.bytes() < BATCH_BYTES {
                            return Ok(filling);
                        }
                        let (writes, reached) = filling.finish()?;
                        give(view, writes)?;
                        Ok(Changes::new(view, reached))
                    });
                    match step {
                        Some(Ok(filling)) => changes = Some(filling),
                        Some(Err(error)) => fault = Some(error),
                        None => (), // an earlier record failed: the rest is walked over
                    }
                },
            );
            let walk = walk.map_err(|error| Fault::Sled(sled::Error::Io(error)))?;
            if let Some(fault) = fault {
                return Err(fault);
            }
            if let Some(mut rest) = changes {
                rest.reach(walk.end);
                let (writes, reached) = rest.finish()?;
                give(view, writes)?;
                meta = reached;
            }
            Ok((meta, !walk.gaps.is_empty() || walk.unknown > 0))
        })?;
        writer.meta = meta;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(opened));
        Ok(damaged)
    }
}

/// CRC-32 over the names, lengths and bytes of all files below a folder.
///
/// # Errors
/// When something there cannot be read.
pub(crate) fn sum(folder: &Path) -> std::io::Result<u32> {
    use std::io::Read;
    let mut hasher = crc32fast::Hasher::new();
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let mut buffer = vec![0; 1 << 20];
    for path in entries {
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        if path.is_dir() {
            hasher.update(&sum(&path)?.to_le_bytes());
            continue;
        }
        let mut file = fs::File::open(&path)?;
        hasher.update(&file.metadata()?.len().to_le_bytes());
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
    }
    Ok(hasher.finalize())
}

/// Keys straight to sled, with all that is on its way there.
fn give(view: View<'_>, writes: Writes) -> Result<(), Fault> {
    view.overlay.take(writes);
    view.overlay.settle(view.tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[test]
    fn an_index_that_cannot_be_rebuilt_yet_is_no_final_answer_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (journal_dir, away) = (dir.path().join("journal"), dir.path().join("away"));
        fs::create_dir(&journal_dir).unwrap();
        let (journal, _) = Journal::open(&Disk::default(), &journal_dir, &dir.path().join("q"), 1 << 20).unwrap();
        let source = Source {
            disk: Disk::default(),
            index: dir.path().join("index"),
            journal: journal_dir.clone(),
            bad_journal: dir.path().join("q"),
            journal_id: journal.id(),
        };
        let (index, _) = Index::open(source, journal.end(), false).unwrap();
        fs::rename(&journal_dir, &away).unwrap();
        let broken: Result<(), _> = index.ask(|_| Err(Fault::Broken("as told".into())));
        assert!(matches!(broken, Err(PortError::Io { .. })), "{broken:?}");
        let too_soon = index.ask(|view| view.pending(1));
        assert!(matches!(too_soon, Err(PortError::Io { .. })), "{too_soon:?}");
        fs::rename(&away, &journal_dir).unwrap();
        std::thread::sleep(REBUILD_PAUSE);
        assert!(index.ask(|view| view.pending(1)).unwrap().is_empty());
    }
}
