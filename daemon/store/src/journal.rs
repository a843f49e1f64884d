//! The journal: its files as one row of places, appended to at the end.
//!
//! In: encoded records. Out: the same, in order, after any crash.
//! Promise: `append` returns only after fdatasync. A tail that is no record is cut when the journal opens: nobody was
//! told of it; zeros at the end are room that was written ahead. A full file is sealed before the next one is begun, and never
//! written again. Bad bytes with good records behind them are skipped, copied to quarantine and reported.

use crate::disk::Disk;
use crate::error::StoreError;
use crate::record::Record;
use crate::segment::{self, HEADER_BYTES, SEAL_BYTES, Segment, VERSION, Walk, create, list};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Zeros written ahead of the records, less where a whole file is to be shorter. An fdatasync that changes no length
/// has no file system journal to wait for.
const RESERVE_BYTES: u64 = 1 << 20;

/// The journal, open for writing. One owner: the committer.
pub(crate) struct Journal {
    disk: Disk,
    dir: PathBuf,
    id: u64,
    file: File,
    base: u64,
    end: u64,
    /// Place up to which the file is written: records, then zeros ahead of them. Never before `end`.
    reserved: u64,
    segment_bytes_max: u64,
    /// A write or sync failed: bytes after `end` may be on disk and must go before the next append.
    suspect: bool,
    /// The file takes no more records: the next append begins a new one at `end`.
    closed: bool,
    /// All bytes of the file before `end`, and how many records they are: what its seal will say.
    content: crc32fast::Hasher,
    records: u64,
}

/// The state in which the journal was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// There was none.
    pub created: bool,
    /// Bytes cut from the end.
    pub torn_bytes: u64,
    /// Damage before the end of the last segment.
    pub gaps: Vec<Range<u64>>,
}

impl Journal {
    /// Opens the journal in `dir`, which exists; cuts a torn tail. `quarantine` gets a copy of what is cut.
    pub(crate) fn open(
        disk: &Disk,
        dir: &Path,
        quarantine: &Path,
        segment_bytes_max: u64,
    ) -> Result<(Self, Found), StoreError> {
        let segments = list(disk, dir).map_err(StoreError::io("list", dir))?;
        if let Some(newer) = segments.iter().find(|segment| segment.version.is_some_and(|version| version > VERSION)) {
            return Err(StoreError::NewerFormat {
                path: newer.path.clone(),
                found: newer.version.unwrap_or(0),
                newest: VERSION,
            });
        }
        remove_left_overs(disk, dir, &segments).map_err(StoreError::io("clear", dir))?;
        let Some(last) = segments.last() else {
            let (id, base) = (random_id(), 0);
            let file = create(disk, dir, id, base).map_err(StoreError::io("create the journal in", dir))?;
            let journal = Self::begun(disk, dir, id, file, base, segment_bytes_max);
            return Ok((journal, Found { created: true, ..Found::default() }));
        };
        let id = segments.iter().find_map(|segment| segment.id).unwrap_or_else(random_id);
        Self::open_last(disk, dir, quarantine, segment_bytes_max, id, last)
    }

    fn open_last(
        disk: &Disk,
        dir: &Path,
        quarantine: &Path,
        segment_bytes_max: u64,
        id: u64,
        last: &Segment,
    ) -> Result<(Self, Found), StoreError> {
        let failed = |doing| StoreError::io(doing, &last.path);
        let walk = last.walk(disk, last.first, u64::MAX, &mut |_, _| ()).map_err(failed("read"))?;
        let torn_bytes = if last.is_zero_from(disk, walk.end).map_err(failed("read"))? { 0 } else { walk.tail_bytes };
        let mut found = Found { torn_bytes, gaps: walk.gaps, created: false };
        if last.version.is_none() && walk.records == 0 && !walk.sealed {
            // The power went while this segment was being created; nothing was ever written behind the header.
            let file = create(disk, dir, id, last.base).map_err(failed("create"))?;
            return Ok((Self::begun(disk, dir, id, file, last.base, segment_bytes_max), found));
        }
        if last.version.is_none() {
            log::error!("a journal segment lost its header; its records are served");
            found.gaps.push(last.base..last.first);
        }
        let file = cut(disk, last, walk.end, torn_bytes, quarantine).map_err(failed("cut the torn end of"))?;
        let content = last.hash_until(disk, walk.end).map_err(failed("read"))?;
        let mut journal = Self::begun(disk, dir, id, file, last.base, segment_bytes_max);
        (journal.end, journal.reserved) = (walk.end, walk.end);
        (journal.content, journal.records) = (content, walk.records);
        // A file of an older version, or without the header that says so, takes no more.
        journal.closed = walk.sealed || last.version != Some(VERSION);
        Ok((journal, found))
    }

    /// At the start of a file that has its header and nothing else.
    fn begun(disk: &Disk, dir: &Path, id: u64, file: File, base: u64, segment_bytes_max: u64) -> Self {
        let mut content = crc32fast::Hasher::new();
        content.update(&segment::header(id, base, 0));
        let end = base + HEADER_BYTES;
        Self {
            disk: disk.clone(),
            dir: dir.into(),
            id,
            file,
            base,
            end,
            reserved: end,
            segment_bytes_max,
            suspect: false,
            closed: false,
            content,
            records: 0,
        }
    }

    /// Names this journal, so that an index of another one is not believed.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Place after the last durable record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Place of the first byte of the file that is written to: those before it are sealed.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Makes ready for an append and says at which place it will stand: settles an earlier failure, begins a new segment.
    pub(crate) fn begin(&mut self) -> io::Result<u64> {
        if self.suspect {
            self.settle()?;
        }
        if !self.closed && self.end - self.base >= self.segment_bytes_max {
            self.seal()?;
        }
        if self.closed {
            let file = create(&self.disk, &self.dir, self.id, self.end)?;
            *self = Self::begun(&self.disk, &self.dir, self.id, file, self.end, self.segment_bytes_max);
        }
        Ok(self.end)
    }

    /// Ends the file with its seal, durably; its reserve goes, for the next segment's name says where this one ends.
    fn seal(&mut self) -> io::Result<()> {
        let seal = segment::seal(self.end, self.records, self.content.clone());
        // Until it is durable it may be torn, and must go before anything else comes.
        self.suspect = true;
        self.disk.write_all_at(&self.file, &seal, self.end - self.base)?;
        self.disk.set_len(&self.file, self.end - self.base + SEAL_BYTES)?;
        self.disk.sync_all(&self.file)?;
        self.suspect = false;
        self.closed = true;
        self.end += SEAL_BYTES;
        self.reserved = self.end;
        Ok(())
    }

    /// Writes `records` whole frames at the place that [`Self::begin`] named, and syncs. On an error none of them counts.
    pub(crate) fn append(&mut self, frames: &[u8], records: u64) -> io::Result<()> {
        self.reserve(frames.len() as u64);
        let written = self.disk.write_all_at(&self.file, frames, self.end - self.base);
        let written = written.and_then(|()| self.disk.sync_data(&self.file));
        match written {
            Ok(()) => {
                self.end += frames.len() as u64;
                self.content.update(frames);
                self.records += records;
                // An append that found no room for zeros goes past them.
                self.reserved = self.reserved.max(self.end);
            }
            Err(_) => {
                self.suspect = true;
                // Now if possible, else before the next append: the callers are being told that nothing was written.
                let _before_next_append = self.settle();
            }
        }
        written
    }

    /// Writes zeros ahead when the next `bytes` would not fit into those that are there. On a disk without room for
    /// them the append does without.
    fn reserve(&mut self, bytes: u64) {
        if self.end + bytes <= self.reserved {
            return;
        }
        let from = self.reserved.max(self.end);
        let ahead = RESERVE_BYTES.min(self.segment_bytes_max);
        let zeros = vec![0; (self.end + bytes - from + ahead) as usize];
        let written = self.disk.write_all_at(&self.file, &zeros, from - self.base);
        match written.and_then(|()| self.disk.sync_all(&self.file)) {
            Ok(()) => self.reserved = from + zeros.len() as u64,
            // What was written of them goes, so that others have the room; a failure shows in the append.
            // Records stay: the cut is never before `end`.
            Err(_) => drop(self.disk.set_len(&self.file, from - self.base)),
        }
    }

    /// Takes back what a failed append may have left, and the zeros ahead.
    fn settle(&mut self) -> io::Result<()> {
        self.disk.set_len(&self.file, self.end - self.base)?;
        self.disk.sync_all(&self.file)?;
        self.reserved = self.end;
        self.suspect = false;
        Ok(())
    }
}

impl Drop for Journal {
    /// A journal that was closed ends with its last record; one that was killed ends in zeros, which open cuts.
    fn drop(&mut self) {
        let _cut_by_the_next_open = self.disk.set_len(&self.file, self.end - self.base);
    }
}

/// All records from place `from` up to place `to`, in order; `visit` gets the place after each.
/// Damage is skipped, reported in the answer and copied to `quarantine`.
///
/// # Errors
/// Of reading; and where `from` lies within a file that was rewritten since: what stood there has another place now.
pub(crate) fn replay(
    disk: &Disk,
    dir: &Path,
    quarantine: &Path,
    from: u64,
    to: u64,
    visit: &mut dyn FnMut(u64, Record),
) -> io::Result<Walk> {
    let mut whole = Walk { end: from, ..Walk::default() };
    let segments = list(disk, dir)?;
    for (index, segment) in segments.iter().enumerate() {
        let next_base = segments.get(index + 1).map_or(u64::MAX, |next| next.base);
        if next_base <= from || segment.base >= to {
            continue;
        }
        if from > segment.base && segment.until.is_some_and(|until| from < until) {
            return Err(io::Error::other("the journal was compacted there"));
        }
        if segment.base > whole.end && whole.end > 0 {
            whole.gaps.push(whole.end..segment.base);
        }
        let mut unknown = 0;
        let start = from.max(segment.first);
        let walk = segment.walk(disk, start, to, &mut |end, json| match serde_json::from_slice(json) {
            Ok(record) => visit(end, record),
            Err(_) => unknown += 1,
        })?;
        for gap in &walk.gaps {
            keep_copy(disk, &segment.path, segment.base, gap.clone(), quarantine);
        }
        if walk.tail_bytes > 0 {
            let gap = walk.end..walk.end + walk.tail_bytes;
            keep_copy(disk, &segment.path, segment.base, gap.clone(), quarantine);
            whole.gaps.push(gap);
        }
        whole.gaps.extend(walk.gaps);
        whole.records += walk.records;
        whole.unknown += unknown;
        // Also past a bad end of a segment: the next one continues where this file ends, not where its records do.
        whole.end = segment.until.unwrap_or(walk.end + walk.tail_bytes);
    }
    tell(&whole);
    Ok(whole)
}

fn tell(walk: &Walk) {
    for gap in &walk.gaps {
        log::error!(
            "journal damaged from place {} to {}: records there are lost, the rest is served",
            gap.start,
            gap.end
        );
    }
    if walk.unknown > 0 {
        log::error!("{} journal records are of a newer version and are not served", walk.unknown);
    }
}

/// Removes what an interrupted compaction left: its half-written file, or the files that the whole one stands for.
fn remove_left_overs(disk: &Disk, dir: &Path, segments: &[Segment]) -> io::Result<()> {
    let current = |path: &Path| segments.iter().any(|segment| segment.path == path);
    for (path, _) in disk.list(dir)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let numbered = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<u64>().is_ok());
        if numbered && (extension == Some("compact") || extension == Some("jnl") && !current(&path)) {
            disk.remove_file(&path)?;
        }
    }
    Ok(())
}

/// Opens the last segment for writing, its torn end cut off and kept in quarantine.
fn cut(disk: &Disk, last: &Segment, end: u64, torn_bytes: u64, quarantine: &Path) -> io::Result<File> {
    let file = disk.open_writable(&last.path)?;
    if torn_bytes > 0 {
        log::warn!("the journal's last {torn_bytes} bytes are no whole record: cut, nobody was told of them");
        keep_copy(disk, &last.path, last.base, end..end + torn_bytes, quarantine);
    }
    disk.set_len(&file, end - last.base)?;
    // Also without a cut: what a killed daemon wrote without a sync is kept and must not go later.
    disk.sync_all(&file)?;
    Ok(file)
}

/// Copies bad bytes to quarantine, once; a failure is logged, for the copy only helps people.
pub(crate) fn keep_copy(disk: &Disk, segment: &Path, base: u64, gap: Range<u64>, quarantine: &Path) {
    let target = quarantine.join(format!("{:020}-{}.bin", gap.start, gap.end - gap.start));
    let copied = (|| {
        let mut bytes = vec![0; usize::try_from(gap.end - gap.start).unwrap_or(0)];
        disk.open(segment)?.read_exact_at(&mut bytes, gap.start - base)?;
        disk.create_folders(quarantine)?;
        disk.write_file(&target, &bytes).map(drop)
    })();
    if let Err(error) = copied {
        log::warn!("keep a copy of damaged journal bytes: {error}");
    }
}

/// The standard library's per-process hash keys are random: enough to tell two journals apart.
fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
