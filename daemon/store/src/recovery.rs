//! What stands between one daemon's end and the next one's start: the lock, the mark of a clean stop, left-overs.
//!
//! A crash between an object's rename and its journal record leaves a file that nobody was told about. It is removed,
//! not adopted: its sender has no success status and sends again, while adopting would mean parsing what may be half
//! a story (no sender, no last-byte time) and would add objects nobody is waiting for. Only where the journal
//! has lost records may such a file be all that is left of an acknowledged object: then it goes to quarantine instead.
//! Whether a file has a record is the journal's word: an index that was not made from all of it at this start may be
//! short of a key, so before anything is removed it is made anew and asked again.

use crate::disk::Disk;
use crate::error::StoreError;
use crate::files::Layout;
use crate::index::{Index, Opening};
use fovea_core::Uid;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held while the store is open; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    /// The last daemon ran since this machine was started, so what it wrote is at least in the page cache.
    pub same_boot: bool,
}

impl Lock {
    pub(crate) fn take(state: &Path) -> Result<Self, StoreError> {
        let path = state.join("lock");
        let failed = |doing| StoreError::io(doing, &path);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(failed("open"))?;
        let mut before = String::new();
        let locked = file.try_lock();
        // Bounded: a lock file is two short words.
        Read::by_ref(&mut file).take(256).read_to_string(&mut before).map_err(failed("read"))?;
        match locked {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path, owner: format!("pid {}", before.trim()) });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        // The machine's start has a name of its own; without one, sled's file is not trusted after a crash.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim();
        let same_boot = !boot.is_empty() && before.split_whitespace().nth(1) == Some(boot);
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed("write"))?;
        file.write_all(format!("{} {boot}\n", std::process::id()).as_bytes()).map_err(failed("write"))?;
        Ok(Self { _file: file, same_boot })
    }
}

/// What the last daemon left when it stopped in peace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CleanMark {
    /// Place where the journal then ended.
    pub journal_end: u64,
    /// Sum over the index's files, which were durable before this was written; none where that failed.
    pub index: Option<u32>,
}

/// Reads and removes the mark of a clean stop.
pub(crate) fn take_clean_mark(disk: &Disk, layout: &Layout) -> Result<Option<CleanMark>, StoreError> {
    let path = layout.journal.join("clean");
    let Ok(text) = disk.read_text(&path) else { return Ok(None) };
    disk.remove_file(&path).map_err(StoreError::io("remove", &path))?;
    // Durable before anything new is: a mark that came back after a power cut would hide left-overs, and speak for an
    // index that was opened since.
    disk.sync_folder(&layout.journal).map_err(StoreError::io("sync", &layout.journal))?;
    let mut words = text.split_whitespace();
    let journal_end = words.next().and_then(|word| word.parse().ok());
    let index = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    Ok(journal_end.map(|journal_end| CleanMark { journal_end, index }))
}

/// Leaves the mark, durably: it spares the next start the search for left-overs, and lets it believe the index even when the
/// machine was off in between. Without it that start is slower, so failures are not told.
pub(crate) fn leave_clean_mark(disk: &Disk, layout: &Layout, mark: CleanMark) {
    let index = mark.index.map_or(String::new(), |sum| format!(" {sum:08x}"));
    let text = format!("{}{index}\n", mark.journal_end);
    let _slower_next_time = (|| {
        let file = disk.write_file(&layout.journal.join("clean"), text.as_bytes())?;
        disk.sync_all(&file)?;
        disk.sync_folder(&layout.journal)
    })();
}

/// Removes temporary files always, and files without a record unless the last stop was clean.
/// `sound`: the journal's last segment has all its records; with those before it sound as well, a file without one was
/// never acknowledged.
pub(crate) fn sweep(
    disk: &Disk,
    layout: &Layout,
    index: &Index,
    opening: Opening,
    clean: bool,
    sound: bool,
) -> Result<(), StoreError> {
    each_file(disk, &layout.tmp, &mut |path| disk.remove_file(path).map_err(StoreError::io("remove", path)))?;
    if clean {
        return Ok(());
    }
    let mut found = orphans(disk, layout, index)?;
    let mut damaged = opening.damaged;
    if !found.is_empty() && !opening.rebuilt {
        let suspected = found.len();
        damaged = index.read_journal_again()?;
        found = orphans(disk, layout, index)?;
        if found.len() < suspected {
            log::error!("the index did not know {} files that the journal names", suspected - found.len());
        }
    }
    let sound = sound && !damaged;
    found.iter().try_for_each(|path| put_away(disk, layout, path, sound))?;
    for study in studies(disk, layout)? {
        // Only an empty folder goes.
        let _not_empty = disk.remove_folder(&study);
    }
    if !found.is_empty() && sound {
        log::info!("removed {} files of which nobody had been told", found.len());
    } else if !found.is_empty() {
        let count = found.len();
        log::error!("moved {count} files without a journal record to quarantine: the journal has lost records");
    }
    Ok(())
}

/// Files of which the index knows no record. Those that were evicted and are still there go on the way.
pub(crate) fn orphans(disk: &Disk, layout: &Layout, index: &Index) -> Result<Vec<PathBuf>, StoreError> {
    let mut orphans = Vec::new();
    let asked = |error: fovea_core::PortError| StoreError::Index { detail: error.to_string() };
    let counts = index.meta().map_err(asked)?.counts;
    // Nothing is asked that cannot be: a box holds hundreds of thousands of files.
    let (objects_went, parcels_went) = (counts.evicted_objects > 0, counts.evicted_parcels > 0);
    for study in studies(disk, layout)? {
        each_file(disk, &study, &mut |path| {
            let look = |uid: Uid| {
                index.ask(|view| {
                    let held = view.accepted(&uid)?;
                    let known = held.is_some_and(|held| layout.study(&held.header.study_uid) == study);
                    Ok((known, known && objects_went && view.object_evicted(&uid)?))
                })
            };
            let (known, gone) = uid_of(path).map(look).transpose().map_err(asked)?.unwrap_or_default();
            settle_one(disk, path, known, gone, &mut orphans)
        })?;
    }
    each_file(disk, &layout.outbox, &mut |path| {
        let look = |uid: Uid| {
            index.ask(|view| {
                let Some(seq) = view.parcel_named(&uid)? else { return Ok((false, false)) };
                Ok((true, parcels_went && view.way(seq)?.is_some_and(|way| way.evicted)))
            })
        };
        let (known, gone) = uid_of(path).map(look).transpose().map_err(asked)?.unwrap_or_default();
        settle_one(disk, path, known, gone, &mut orphans)
    })?;
    Ok(orphans)
}

/// One file: known and gone means that its record says that it went, and the cut came before it did.
fn settle_one(disk: &Disk, path: &Path, known: bool, gone: bool, orphans: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    if gone {
        return disk.remove_file(path).map_err(StoreError::io("remove", path));
    }
    if !known {
        orphans.push(path.to_owned());
    }
    Ok(())
}

/// The folders of the studies.
fn studies(disk: &Disk, layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let mut entries = disk.list(&layout.objects).map_err(StoreError::io("list", &layout.objects))?;
    entries.sort();
    Ok(entries.into_iter().filter(|(_, is_folder)| *is_folder).map(|(path, _)| path).collect())
}

fn put_away(disk: &Disk, layout: &Layout, path: &Path, sound: bool) -> Result<(), StoreError> {
    let free = || free_name(disk, &layout.orphans, path);
    let done = if sound { disk.remove_file(path) } else { disk.rename(path, &free()) };
    done.map_err(StoreError::io("put away", path))
}

/// A name in `folder` for the file at `path` that replaces none: what lies there waits for a person.
pub(crate) fn free_name(disk: &Disk, folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbered = (1..).map(|number| folder.join(format!("{number}-{name}")));
    let mut names = std::iter::once(folder.join(name.as_ref())).chain(numbered);
    names.find(|candidate| !matches!(disk.exists(candidate), Ok(true))).unwrap_or_else(|| folder.join(name.as_ref()))
}

pub(crate) fn uid_of(path: &Path) -> Option<Uid> {
    let stem = path.extension().is_some_and(|extension| extension == "dcm").then(|| path.file_stem())??;
    Uid::new(stem.to_str()?).ok()
}

fn each_file(
    disk: &Disk,
    folder: &Path,
    visit: &mut dyn FnMut(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut entries = disk.list(folder).map_err(StoreError::io("list", folder))?;
    // In the order of the index's keys, so that each of its pages is read once.
    entries.sort();
    entries.iter().filter(|(_, is_folder)| !is_folder).try_for_each(|(path, _)| visit(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_away_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let from = Path::new("objects/1.2/1.2.3.dcm");
        for expected in ["1.2.3.dcm", "1-1.2.3.dcm", "2-1.2.3.dcm"] {
            let name = free_name(&Disk::default(), folder.path(), from);
            assert_eq!(name, folder.path().join(expected));
            fs::write(name, b"an orphan").unwrap();
        }
    }
}
