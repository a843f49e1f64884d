//! Plain files: where each lies, and how a file gets its final name durably.
//!
//! In: a complete temporary file. Out: the same under its name. Promise: when `install` returns, file and name survive
//! a power cut; callers who need the same folder synced share one fsync.

use crate::disk::Disk;
use crate::error::{StoreError, port_io};
use fovea_core::{PortError, TempObject, Uid};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Study folders whose own name is known to be durable; past this many the memory starts afresh, which costs one
/// extra fsync a study.
const KNOWN_FOLDERS_MAX: usize = 4096;

/// The folders of one state.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub state: PathBuf,
    pub journal: PathBuf,
    pub index: PathBuf,
    pub objects: PathBuf,
    pub outbox: PathBuf,
    pub tmp: PathBuf,
    pub conflict: PathBuf,
    pub orphans: PathBuf,
    pub damaged: PathBuf,
    pub bad_journal: PathBuf,
}

impl Layout {
    pub(crate) fn new(state: &Path) -> Self {
        let quarantine = state.join("quarantine");
        Self {
            state: state.to_owned(),
            journal: state.join("journal"),
            index: state.join("index"),
            objects: state.join("objects"),
            outbox: state.join("outbox"),
            tmp: state.join("tmp"),
            conflict: quarantine.join("conflict"),
            orphans: quarantine.join("orphans"),
            damaged: quarantine.join("damaged"),
            bad_journal: quarantine.join("journal"),
        }
    }

    /// Makes every folder, for the daemon's eyes only, and makes their names durable.
    pub(crate) fn create(&self, disk: &Disk) -> Result<(), StoreError> {
        let folders = [&self.journal, &self.objects, &self.outbox, &self.tmp];
        let quarantines = [&self.conflict, &self.orphans, &self.damaged, &self.bad_journal];
        for folder in folders.into_iter().chain(quarantines) {
            disk.create_folders(folder).map_err(StoreError::io("create", folder))?;
        }
        for folder in [&self.state.join("quarantine"), &self.state] {
            disk.sync_folder(folder).map_err(StoreError::io("sync", folder))?;
        }
        Ok(())
    }

    pub(crate) fn study(&self, study_uid: &Uid) -> PathBuf {
        self.objects.join(study_uid.as_str())
    }

    pub(crate) fn object(&self, study_uid: &Uid, sop_instance_uid: &Uid) -> PathBuf {
        self.study(study_uid).join(file_name(sop_instance_uid))
    }

    pub(crate) fn parcel(&self, sop_instance_uid: &Uid) -> PathBuf {
        self.outbox.join(file_name(sop_instance_uid))
    }
}

/// `<uid>.dcm`; a UID is safe as a path component by its type.
pub(crate) fn file_name(uid: &Uid) -> String {
    format!("{uid}.dcm")
}

/// Installs files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    disk: Disk,
    folders: Mutex<HashMap<PathBuf, Turns>>,
    turned: Condvar,
    known: Mutex<HashSet<PathBuf>>,
    temps: AtomicU64,
}

/// Syncs of one folder, counted from 1. A caller needs one that starts after it came.
#[derive(Debug, Default)]
struct Turns {
    started: u64,
    done: u64,
    /// The last one that failed: it failed for all who counted on it, for the kernel tells an error only once.
    failed: u64,
    running: bool,
    callers: u32,
}

impl Files {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, ..Self::default() }
    }

    /// A fresh file in `tmp`.
    pub(crate) fn temp(&self, tmp: &Path) -> io::Result<TempObject> {
        let number = self.temps.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("{}-{number}.part", std::process::id()));
        Ok(TempObject::new(self.disk.create_new(&path)?, Some(path)))
    }

    /// fdatasync of a temporary file: its bytes and length are durable, its name is not yet.
    pub(crate) fn sync_file(&self, temp: &TempObject) -> Result<(), PortError> {
        self.disk.sync_data(&temp.file).map_err(port_io("sync a file"))
    }

    /// Gives a temporary file of which nothing is durable yet a final name that no record names, and makes both durable.
    /// The name comes first, so that the file system writes file and name in one commit of its own and not in two; a cut in
    /// between leaves a file that may be torn and has no record, which goes when the store opens.
    /// On an error neither name is left, unless the disk fails to remove it too.
    pub(crate) fn install_unnamed(&self, temp: &mut TempObject, target: &Path) -> Result<(), PortError> {
        self.rename(temp, target)?;
        let synced = self.sync_file(temp).and_then(|()| self.sync_folder(target.parent().unwrap_or(target)));
        synced.inspect_err(|_| drop(self.disk.remove_file(target)))
    }

    /// Gives a synced temporary file its final name, replacing what is there, and makes the name durable.
    /// On an error neither name is left, unless the disk fails to remove it too.
    pub(crate) fn install(&self, temp: &mut TempObject, target: &Path) -> Result<(), PortError> {
        self.rename(temp, target)?;
        let folder = target.parent().unwrap_or(target);
        self.sync_folder(folder).inspect_err(|_| drop(self.disk.remove_file(target)))
    }

    /// Only the rename, for callers who sync the folder once for many.
    pub(crate) fn rename(&self, temp: &mut TempObject, target: &Path) -> Result<(), PortError> {
        let no_path = || io::Error::new(io::ErrorKind::InvalidInput, "the temporary object has no path");
        let path = temp.path.as_ref().ok_or_else(no_path).map_err(port_io("name a file"))?;
        self.disk.rename(path, target).map_err(port_io("name a file"))?;
        temp.path = None; // from here on the file is not the temporary's to remove
        Ok(())
    }

    /// Gives a file a second name, both durable: bytes first, then the name.
    pub(crate) fn link(&self, path: &Path, target: &Path) -> Result<(), PortError> {
        let linked = self.disk.open(path).and_then(|file| self.disk.sync_all(&file));
        linked.and_then(|()| self.disk.link(path, target)).map_err(port_io("name a file"))?;
        self.sync_folder(target.parent().unwrap_or(target))
    }

    /// Makes sure that `folder`, a child of `parent`, exists and that its name is durable.
    pub(crate) fn ensure_folder(&self, folder: &Path, parent: &Path) -> Result<(), PortError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(folder) {
            return Ok(());
        }
        match self.disk.create_folder(folder) {
            // There already, but whoever made it may not have synced its parent yet: we do.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            other => other.map_err(port_io("create a study folder"))?,
        }
        self.sync_folder(parent)?;
        let mut known = known();
        if known.len() >= KNOWN_FOLDERS_MAX {
            known.clear();
        }
        known.insert(folder.to_owned());
        Ok(())
    }

    /// Forgets that `folder` was durable: it has been removed by hand.
    pub(crate) fn forget_folder(&self, folder: &Path) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(folder);
    }

    /// fsync of a folder, shared with all who wait for the same one.
    pub(crate) fn sync_folder(&self, folder: &Path) -> Result<(), PortError> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = folders.entry(folder.to_owned()).or_default();
        turns.callers += 1;
        let wanted = turns.started + 1;
        let result = loop {
            let turns = folders.entry(folder.to_owned()).or_default();
            if turns.failed >= wanted {
                break Err(io::Error::other("the folder's sync failed"));
            }
            if turns.done >= wanted {
                break Ok(());
            }
            if turns.running {
                folders = self.turned.wait(folders).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            turns.running = true;
            turns.started += 1;
            let mine = turns.started;
            drop(folders);
            let synced = self.disk.sync_folder(folder);
            folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            let turns = folders.entry(folder.to_owned()).or_default();
            turns.running = false;
            match &synced {
                Ok(()) => turns.done = mine,
                Err(_) => turns.failed = mine,
            }
            self.turned.notify_all();
            break synced;
        };
        let turns = folders.entry(folder.to_owned()).or_default();
        turns.callers -= 1;
        if turns.callers == 0 {
            folders.remove(folder);
        }
        result.map_err(port_io("sync a folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_callers_share_folder_syncs_and_each_sees_one_that_began_after_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::default();
        let callers = 32;
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| (0..20).for_each(|_| files.sync_folder(dir.path()).unwrap()));
            }
        });
        assert!(files.disk.calls().folder_syncs <= callers * 20);
        assert!(files.folders.lock().unwrap().is_empty(), "nothing is remembered of a folder nobody waits for");
    }

    #[test]
    fn a_failed_install_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::default();
        let mut temp = files.temp(dir.path()).unwrap();
        assert!(files.install(&mut temp, &dir.path().join("missing/1.dcm")).is_err());
        drop(temp);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
