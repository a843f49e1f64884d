//! The store: opens the state folder, holds its parts, says how it stands.
//! In: a [`Config`]. Out: [`Inbox`](fovea_core::Inbox), [`Ledger`](fovea_core::Ledger), [`Outbox`](fovea_core::Outbox) and
//! [`Documents`](fovea_core::Documents) on one `Arc`.
//! Promise: one daemon at a time; whatever state the last one left, this one starts and serves what is readable.

use crate::committer::Committer;
use crate::config::Config;
use crate::disk::{Calls, Disk};
use crate::error::{StoreError, port_io};
use crate::evict::Keep;
use crate::files::{Files, Layout};
use crate::index::{self, Index, Source};
use crate::journal::Journal;
use crate::record::Record;
use crate::recovery::{self, CleanMark, Lock};
use crate::reserve::Reservations;
use crate::segment;
use crate::space::Space;
use crate::upkeep::Upkeep;
use fovea_core::{DocumentKind, PortError, TempObject, Uid, UnixMicros};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Says what time it is.
pub type Clock = Box<dyn Fn() -> UnixMicros + Send + Sync>;

/// What callers must not do to the same thing at the same time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Key {
    Object(Uid),
    Outcome(Uid),
    Dispatch(Uid),
    ParcelName(Uid),
    Parcel(u64),
    Document(DocumentKind, String),
}

/// The four ports on disk.
pub struct Store {
    parts: Arc<Parts>,
    upkeep: Option<Upkeep>,
    /// None on a disk that exists only in a test.
    _lock: Option<Lock>,
}

impl Deref for Store {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What the ports and the upkeep share; nobody else can name it.
pub struct Parts {
    pub(crate) disk: Disk,
    pub(crate) layout: Layout,
    pub(crate) files: Files,
    pub(crate) space: Space,
    pub(crate) index: Arc<Index>,
    pub(crate) committer: Committer,
    pub(crate) reserved: Reservations<Key>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) keep: Keep,
    pub(crate) sender_bytes_max: Option<u64>,
    low_watermark_percent: u8,
    high_watermark_percent: u8,
    read_only: AtomicBool,
    /// What compaction has spared: the journal's places go on as if nothing had gone.
    pub(crate) saved_bytes: AtomicU64,
    /// Closed files of the journal that are not compacted because they are not whole, by their place.
    pub(crate) unsound: Mutex<BTreeSet<u64>>,
    /// Before this moment (microseconds since 1970) no file's time is over.
    pub(crate) evict_again_at: AtomicI64,
}

/// How the store stands, for people and for central IT. Counts of things, bytes and percents; no names.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// Objects held.
    pub objects: u64,
    /// Of them, those without an outcome.
    pub pending: u64,
    /// Outcomes recorded.
    pub findings: u64,
    /// Of them, those whose report and copy are not in the outbox yet.
    pub undispatched: u64,
    /// Parcels ever dispatched.
    pub parcels: u64,
    /// Parcels that no destination has taken or refused.
    pub outbox_waiting: u64,
    /// For each destination that has asked, the parcels that wait for it.
    pub waiting: Vec<Waiting>,
    /// Objects in quarantine because their UID is held with other bytes.
    pub conflicts: u64,
    /// Copies that were held back.
    pub held_back: u64,
    /// Documents that services remember.
    pub documents: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Share of the file system in use, percent.
    pub disk_used_percent: f64,
    /// fsync and fdatasync calls since start.
    pub syncs: u64,
    /// Times the index was made anew since start.
    pub index_rebuilds: u64,
    /// Nothing is taken, recorded or sent.
    pub read_only: bool,
    /// A new object would be taken now: not read-only, below the high watermark.
    pub takes_objects: bool,
    /// Share of the file system down to which files that an archive keeps go once the high one is passed, percent.
    pub low_watermark_percent: u8,
    /// Share of the file system past which no new object is taken, percent.
    pub high_watermark_percent: u8,
    /// Parcels that an archive has proved to keep.
    pub in_custody: u64,
    /// Parcels whose file went after that.
    pub evicted_parcels: u64,
    /// Objects whose file went after that.
    pub evicted_objects: u64,
    /// What is held of each sender.
    pub senders: Vec<SenderShare>,
    /// How much may be held of one sender, bytes; none without a limit.
    pub sender_bytes_max: Option<u64>,
}

/// What is held of one sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SenderShare {
    /// Its application entity title, or `capture folder`.
    pub sender: String,
    /// Objects whose files are here.
    pub objects: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// One destination's queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Waiting {
    /// Name from the config.
    pub destination: String,
    /// Parcels.
    pub parcels: u64,
}

impl Store {
    /// Opens the state folder, made if missing, with the system's clock.
    ///
    /// # Errors
    /// [`StoreError`]: in use by another daemon, or the disk refuses. Damage is no error; it is logged and worked round.
    pub fn open(config: &Config) -> Result<Arc<Self>, StoreError> {
        Self::open_with_clock(config, Box::new(|| SystemTime::now().into()))
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_clock(config: &Config, clock: Clock) -> Result<Arc<Self>, StoreError> {
        let (disk, layout) = (Disk::default(), Layout::new(&config.state_dir));
        create_state(&disk, &layout.state)?;
        let lock = Lock::take(&layout.state)?;
        Self::open_on(disk, layout, config, clock, Some(lock))
    }

    /// The same on any disk. Without a lock nobody else can have been here in this life of the machine.
    pub(crate) fn open_on(
        disk: Disk,
        layout: Layout,
        config: &Config,
        clock: Clock,
        lock: Option<Lock>,
    ) -> Result<Arc<Self>, StoreError> {
        layout.create(&disk)?;
        let (journal, found) = Journal::open(&disk, &layout.journal, &layout.bad_journal, config.segment_bytes_max)?;
        let mark = recovery::take_clean_mark(&disk, &layout)?.filter(|mark| mark.journal_end == journal.end());
        // sled does not sync: its files are believed while the machine that wrote them has not been off, and else only
        // when the last stop synced them and they are byte for byte what they were then.
        let same_boot = lock.as_ref().is_some_and(|lock| lock.same_boot);
        let synced = || mark.is_some_and(|mark| mark.index.is_some() && mark.index == index::sum(&layout.index).ok());
        let trust = same_boot || synced();
        let source = Source {
            disk: disk.clone(),
            index: layout.index.clone(),
            journal: layout.journal.clone(),
            bad_journal: layout.bad_journal.clone(),
            journal_id: journal.id(),
        };
        let (index, opening) = Index::open(source, journal.end(), trust)?;
        let sound = found.gaps.is_empty() && found.torn_bytes == 0 && !found.created;
        recovery::sweep(&disk, &layout, &index, opening, mark.is_some(), sound)?;
        let index = Arc::new(index);
        let counts = index.meta().map_err(|error| StoreError::Index { detail: error.to_string() })?.counts;
        let clock = Arc::new(clock);
        let saved_bytes = AtomicU64::new(saved(&disk, &layout)?);
        let committer = Committer::new(journal, index.clone(), counts, clock.clone());
        let space =
            Space::new(disk.clone(), layout.state.clone(), config.high_watermark_percent, config.low_watermark_percent);
        let parts = Arc::new(Parts {
            files: Files::new(disk.clone()),
            disk,
            layout,
            space,
            index,
            committer,
            reserved: Reservations::default(),
            clock,
            keep: config.keep,
            sender_bytes_max: config.sender_bytes_max,
            low_watermark_percent: config.low_watermark_percent,
            high_watermark_percent: config.high_watermark_percent,
            read_only: AtomicBool::new(config.read_only),
            saved_bytes,
            unsound: Mutex::default(),
            evict_again_at: AtomicI64::new(i64::MIN),
        });
        let upkeep = config.upkeep_every.map(|every| Upkeep::start(parts.clone(), every)).transpose()?;
        Ok(Arc::new(Self { parts, upkeep, _lock: lock }))
    }

    /// From now on nothing is taken, recorded or sent, or everything again. What is held can be read and asked for in
    /// either case.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Release);
    }

    /// How the store stands.
    ///
    /// # Errors
    /// When the index or the file system cannot be asked.
    pub fn status(&self) -> Result<Status, PortError> {
        let counts = self.index.meta()?.counts;
        let (queues, shares) = self.index.ask(|view| Ok((view.queues()?, view.shares()?)))?;
        Ok(Status {
            objects: counts.objects,
            pending: counts.pending,
            findings: counts.findings,
            undispatched: counts.undispatched,
            parcels: counts.parcels,
            outbox_waiting: counts.untouched,
            waiting: queues.into_iter().map(|(destination, parcels)| Waiting { destination, parcels }).collect(),
            conflicts: counts.conflicts,
            held_back: counts.held_back,
            documents: counts.documents,
            journal_bytes: self.committer.end() - self.saved_bytes.load(Ordering::Relaxed),
            disk_used_percent: self.space.room()?.used_percent(),
            syncs: self.disk.calls().syncs(),
            index_rebuilds: self.index.rebuilds(),
            read_only: self.is_read_only(),
            takes_objects: self.takes(0).is_ok(),
            low_watermark_percent: self.low_watermark_percent,
            high_watermark_percent: self.high_watermark_percent,
            in_custody: counts.in_custody,
            evicted_parcels: counts.evicted_parcels,
            evicted_objects: counts.evicted_objects,
            senders: shares
                .into_iter()
                .map(|(sender, share)| SenderShare { sender, objects: share.objects, bytes: share.bytes })
                .collect(),
            sender_bytes_max: self.sender_bytes_max,
        })
    }

    /// How often the store asked the file system for each kind of work since it was opened.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.disk.calls()
    }

    /// A temporary file for a result of what is already held (a report, a copy). Unlike `open_temp` it goes past
    /// the high watermark: what leaves the box is what makes room again. A disk that is really full still refuses.
    ///
    /// # Errors
    /// [`PortError::OutOfSpace`] on a full disk, or when read-only.
    pub fn open_result_temp(&self) -> Result<TempObject, PortError> {
        self.writable()?;
        self.files.temp(&self.layout.tmp).map_err(port_io("create a temporary file"))
    }
}

impl Parts {
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// Refuses when read-only. It says "out of space", for that is what senders understand: try again later.
    pub(crate) fn writable(&self) -> Result<(), PortError> {
        let refused = || PortError::OutOfSpace { detail: "the store is read-only".into() };
        if self.is_read_only() { Err(refused()) } else { Ok(()) }
    }

    /// Whether an object with so many bytes to come would be taken.
    pub(crate) fn takes(&self, bytes: u64) -> Result<(), PortError> {
        self.writable()?;
        self.space.check(bytes)
    }

    /// Makes a record durable, unless read-only.
    pub(crate) fn commit(&self, record: Record) -> Result<Record, PortError> {
        self.writable()?;
        self.committer.commit(record)
    }
}

/// Bytes that the journal is shorter than its places say, because files were compacted.
fn saved(disk: &Disk, layout: &Layout) -> Result<u64, StoreError> {
    let failed = || StoreError::io("look at", &layout.journal);
    let mut saved = 0;
    for segment in segment::list(disk, &layout.journal).map_err(failed())? {
        if let Some(until) = segment.until {
            let length = disk.open(&segment.path).and_then(|file| file.metadata()).map_err(failed())?.len();
            saved += (until - segment.base).saturating_sub(length);
        }
    }
    Ok(saved)
}

/// The state folder itself, for the daemon's eyes only: what lies in it names patients. One that is there already is
/// taken as it is. Its name is made durable where it is new, else the first power cut could take all of it.
fn create_state(disk: &Disk, state: &Path) -> Result<(), StoreError> {
    if state.is_dir() {
        return Ok(());
    }
    let parent = state.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
    disk.create_folder(state).map_err(StoreError::io("create", state))?;
    disk.sync_folder(parent).map_err(StoreError::io("sync", parent))
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.upkeep.take());
        self.committer.stop();
        let mark = CleanMark { journal_end: self.committer.end(), index: self.index.close() };
        recovery::leave_clean_mark(&self.disk, &self.layout, mark);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("state", &self.layout.state).finish_non_exhaustive()
    }
}
