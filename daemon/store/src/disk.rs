//! The file layer: every operation of the file system that the store's promises rest on, and how often each was used.
//!
//! In: paths and open files. Out: the kernel's answers, unchanged. Promise: nothing of the journal, the objects, the outbox or
//! the quarantine is written, named, removed or synced but through here. sled's own folder is sled's affair, except
//! that [`Disk::sync_tree`] makes it durable.
//!
//! It has two sides. The real one is what a build has: a struct whose methods are the system calls and one counter. In this
//! crate's own tests it may stand on a simulated disk instead, which knows what a power cut takes (`sim.rs`); the test
//! for it is compiled out everywhere else, so the seam costs nothing.
//!
//! Object bytes are written by whoever holds the temporary file, straight to it: only their sync passes here.

use serde::Serialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often each operation was asked for since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Calls {
    /// Files made.
    pub creates: u64,
    /// Writes of the journal; an object's bytes are its bringer's.
    pub writes: u64,
    /// fdatasync of a file.
    pub data_syncs: u64,
    /// fsync of a file: data and all that is known of it.
    pub file_syncs: u64,
    /// fsync of a folder.
    pub folder_syncs: u64,
    /// Names given.
    pub renames: u64,
    /// Names taken away.
    pub removes: u64,
}

impl Calls {
    /// fsync and fdatasync together: what an object costs on a disk.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.data_syncs + self.file_syncs + self.folder_syncs
    }
}

/// How full a file system is, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    pub total: u64,
    pub used: u64,
}

impl Room {
    /// Share in use, percent.
    pub(crate) fn used_percent(self) -> f64 {
        if self.total > 0 { 100.0 * self.used as f64 / self.total as f64 } else { 0.0 }
    }
}

#[derive(Debug, Default)]
struct Counters {
    creates: AtomicU64,
    writes: AtomicU64,
    data_syncs: AtomicU64,
    file_syncs: AtomicU64,
    folder_syncs: AtomicU64,
    renames: AtomicU64,
    removes: AtomicU64,
}

/// A file system. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    counters: Arc<Counters>,
    #[cfg(test)]
    sim: Option<Arc<crate::sim::SimDisk>>,
}

/// Answers from the simulated disk where this one stands on it; compiled out of every build but this crate's tests.
macro_rules! simulated {
    ($disk:ident, $sim:ident => $answer:expr) => {
        #[cfg(test)]
        if let Some($sim) = &$disk.sim {
            return $answer;
        }
    };
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Disk {
    /// A file system that exists only in memory and may lose its power.
    #[cfg(test)]
    pub(crate) fn simulated(sim: Arc<crate::sim::SimDisk>) -> Self {
        Self { counters: Arc::default(), sim: Some(sim) }
    }

    pub(crate) fn calls(&self) -> Calls {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Calls {
            creates: read(&counters.creates),
            writes: read(&counters.writes),
            data_syncs: read(&counters.data_syncs),
            file_syncs: read(&counters.file_syncs),
            folder_syncs: read(&counters.folder_syncs),
            renames: read(&counters.renames),
            removes: read(&counters.removes),
        }
    }

    /// A new file for the daemon's eyes only, open for both; one that is there is an error.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        count(&self.counters.creates);
        simulated!(self, sim => sim.create(path, true));
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    /// The same, but a file that is there is emptied.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        count(&self.counters.creates);
        simulated!(self, sim => sim.create(path, false));
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    /// An existing file, for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        simulated!(self, sim => sim.open(path));
        File::open(path)
    }

    /// An existing file, for both.
    pub(crate) fn open_writable(&self, path: &Path) -> io::Result<File> {
        simulated!(self, sim => sim.open(path));
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        count(&self.counters.writes);
        simulated!(self, sim => sim.write_all_at(file, bytes, offset));
        file.write_all_at(bytes, offset)
    }

    /// Cuts or lengthens.
    pub(crate) fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        simulated!(self, sim => sim.set_len(file, length));
        file.set_len(length)
    }

    /// fdatasync: bytes and length are durable, the name is not.
    pub(crate) fn sync_data(&self, file: &File) -> io::Result<()> {
        count(&self.counters.data_syncs);
        simulated!(self, sim => sim.sync_file(file));
        file.sync_data()
    }

    /// fsync of a file.
    pub(crate) fn sync_all(&self, file: &File) -> io::Result<()> {
        count(&self.counters.file_syncs);
        simulated!(self, sim => sim.sync_file(file));
        file.sync_all()
    }

    /// fsync of a folder: the names in it are durable.
    pub(crate) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        count(&self.counters.folder_syncs);
        simulated!(self, sim => sim.sync_folder(folder));
        File::open(folder)?.sync_all()
    }

    /// Gives `from` the name `to`, replacing what has it.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        count(&self.counters.renames);
        simulated!(self, sim => sim.rename(from, to));
        fs::rename(from, to)
    }

    /// A second name for a file; one that is taken is an error.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        count(&self.counters.renames);
        simulated!(self, sim => sim.link(from, to));
        fs::hard_link(from, to)
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        count(&self.counters.removes);
        simulated!(self, sim => sim.remove_file(path));
        fs::remove_file(path)
    }

    /// Removes an empty folder.
    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        simulated!(self, sim => sim.remove_folder(path));
        fs::remove_dir(path)
    }

    /// One folder for the daemon's eyes only; one that is there is an error.
    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        simulated!(self, sim => sim.create_folder(path));
        DirBuilder::new().mode(0o700).create(path)
    }

    /// The same with all above it; what is there is taken as it is.
    pub(crate) fn create_folders(&self, path: &Path) -> io::Result<()> {
        simulated!(self, sim => sim.create_folders(path));
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// What lies in a folder, each with whether it is a folder itself.
    pub(crate) fn list(&self, folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        simulated!(self, sim => sim.list(folder));
        let entry = |entry: io::Result<fs::DirEntry>| {
            let path = entry?.path();
            let is_folder = path.is_dir();
            Ok((path, is_folder))
        };
        fs::read_dir(folder)?.map(entry).collect()
    }

    pub(crate) fn exists(&self, path: &Path) -> io::Result<bool> {
        simulated!(self, sim => Ok(sim.exists(path)));
        path.try_exists()
    }

    /// The whole of a small text file.
    pub(crate) fn read_text(&self, path: &Path) -> io::Result<String> {
        use io::Read;
        let mut text = String::new();
        self.open(path)?.take(1 << 20).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Makes a file with these contents; neither is durable.
    pub(crate) fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let file = self.create(path)?;
        self.write_all_at(&file, bytes, 0)?;
        Ok(file)
    }

    /// Bytes of the file system that `path` lies on: all that may be used, and of them those in use, as `df` counts (what
    /// only root may use is not there).
    pub(crate) fn room(&self, path: &Path) -> io::Result<Room> {
        simulated!(self, sim => sim.room());
        let stat = nix::sys::statvfs::statvfs(path)?;
        let unit = stat.fragment_size();
        let used = stat.blocks().saturating_sub(stat.blocks_free()) * unit;
        Ok(Room { total: used + stat.blocks_available() * unit, used })
    }

    /// fsync of everything below `folder`, which another library writes, and of its name. Always on the real file system.
    pub(crate) fn sync_tree(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.sync_tree(&path)?;
            } else {
                count(&self.counters.file_syncs);
                File::open(&path)?.sync_all()?;
            }
        }
        count(&self.counters.folder_syncs);
        File::open(folder)?.sync_all()
    }
}
