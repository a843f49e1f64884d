//! The store: opens the state folder, holds its parts, says how it stands.
//! In: a [`Config`]. Out: [`Inbox`](fovea_core::Inbox), [`Ledger`](fovea_core::Ledger) and
//! [`Outbox`](fovea_core::Outbox) on one `Arc`.
//! Promise: one daemon at a time; whatever state the last one left, this one starts and serves what is readable.

use crate::committer::Committer;
use crate::config::Config;
use crate::disk::{Calls, Disk};
use crate::error::{StoreError, port_io};
use crate::files::{Files, Layout};
use crate::index::{Index, Source};
use crate::journal::Journal;
use crate::recovery::{self, Lock};
use crate::reserve::Reservations;
use crate::space::Space;
use fovea_core::{PortError, TempObject, Uid, UnixMicros};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
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
}

/// The three ports on disk.
pub struct Store {
    pub(crate) disk: Disk,
    pub(crate) layout: Layout,
    pub(crate) files: Files,
    pub(crate) space: Space,
    pub(crate) index: Arc<Index>,
    pub(crate) committer: Committer,
    pub(crate) reserved: Reservations<Key>,
    /// None on a disk that exists only in a test.
    _lock: Option<Lock>,
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
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Share of the file system in use, percent.
    pub disk_used_percent: f64,
    /// fsync and fdatasync calls since start.
    pub syncs: u64,
    /// Times the index was made anew since start.
    pub index_rebuilds: u64,
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
        let clean = recovery::take_clean_mark(&disk, &layout)? == Some(journal.end());
        let source = Source {
            disk: disk.clone(),
            index: layout.index.clone(),
            journal: layout.journal.clone(),
            bad_journal: layout.bad_journal.clone(),
            journal_id: journal.id(),
        };
        // Not on the clean mark's word: sled's last write may never have reached the disk before the power went.
        let (index, opening) = Index::open(source, journal.end(), lock.as_ref().is_some_and(|lock| lock.same_boot))?;
        let sound = found.gaps.is_empty() && found.torn_bytes == 0 && !found.created;
        recovery::sweep(&disk, &layout, &index, opening, clean, sound)?;
        let index = Arc::new(index);
        let counts = index.meta().map_err(|error| StoreError::Index { detail: error.to_string() })?.counts;
        let committer = Committer::start(journal, index.clone(), counts, Arc::new(clock))?;
        let space = Space::new(disk.clone(), layout.state.clone(), config.high_watermark_percent);
        Ok(Arc::new(Self {
            files: Files::new(disk.clone()),
            disk,
            layout,
            space,
            index,
            committer,
            reserved: Reservations::default(),
            _lock: lock,
        }))
    }

    /// How the store stands.
    ///
    /// # Errors
    /// When the index or the file system cannot be asked.
    pub fn status(&self) -> Result<Status, PortError> {
        let counts = self.index.meta()?.counts;
        let queues = self.index.ask(|view| view.queues())?;
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
            journal_bytes: self.committer.end(),
            disk_used_percent: self.space.used_percent()?,
            syncs: self.disk.calls().syncs(),
            index_rebuilds: self.index.rebuilds(),
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
    /// [`PortError::OutOfSpace`] on a full disk.
    pub fn open_result_temp(&self) -> Result<TempObject, PortError> {
        self.files.temp(&self.layout.tmp).map_err(port_io("create a temporary file"))
    }
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
        self.committer.stop();
        self.index.settle(true);
        recovery::leave_clean_mark(&self.disk, &self.layout, self.committer.end());
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("state", &self.layout.state).finish_non_exhaustive()
    }
}
