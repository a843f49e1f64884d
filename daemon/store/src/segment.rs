//! The journal's files: `<state>/journal/<place of its first byte>.jnl`, each a header and then records.
//!
//! In: encoded records. Out: the same, in order, after any crash.
//! Promise: `append` returns only after fdatasync. A tail that is no record is cut when the journal opens: nobody was
//! told of it; zeros at the end are room that was written ahead. Bad bytes with good records behind them are skipped, copied to quarantine and reported.
//!
//! A place is a byte count since the journal began, headers included; it names a record for ever.

use crate::error::StoreError;
use crate::record::{self, FRAME_BYTES, MARK, Record};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Magic, journal id, place of the first byte, checksum, zeros.
pub(crate) const HEADER_BYTES: u64 = 32;
const MAGIC: [u8; 8] = *b"FVJOURN1";
/// Zeros written ahead of the records. An fdatasync that changes no length has no file system journal to wait for.
const RESERVE_BYTES: u64 = 1 << 20;

/// One file of the journal.
pub(crate) struct Segment {
    path: PathBuf,
    base: u64,
}

/// What a walk over records met.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Place after the last good record.
    pub end: u64,
    /// Places of bytes that are no records, with good records after them.
    pub gaps: Vec<Range<u64>>,
    /// Bytes after `end` that are no record.
    pub tail_bytes: u64,
    /// Whole records that this version does not understand.
    pub unknown: u64,
}

/// The journal, open for writing. One owner: the committer.
pub(crate) struct Journal {
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
    pub(crate) fn open(dir: &Path, quarantine: &Path, segment_bytes_max: u64) -> Result<(Self, Found), StoreError> {
        let segments = list(dir).map_err(StoreError::io("list", dir))?;
        let Some(last) = segments.last() else {
            let (id, base) = (random_id(), 0);
            let file = create(dir, id, base).map_err(StoreError::io("create the journal in", dir))?;
            let journal = Self::at(dir, id, file, base..HEADER_BYTES, segment_bytes_max);
            return Ok((journal, Found { created: true, ..Found::default() }));
        };
        let failed = |doing| StoreError::io(doing, &last.path);
        let id = segments.iter().find_map(|segment| read_id(&segment.path).ok().flatten()).unwrap_or_else(random_id);
        let walk = last.walk(last.base + HEADER_BYTES, u64::MAX, &mut |_, _| ()).map_err(failed("read"))?;
        let has_header = read_id(&last.path).map_err(failed("read"))?.is_some();
        let has_records = walk.end > last.base + HEADER_BYTES;
        let torn_bytes = if last.is_zero_from(walk.end).map_err(failed("read"))? { 0 } else { walk.tail_bytes };
        let mut found = Found { torn_bytes, gaps: walk.gaps, created: false };
        let file = if !has_header && !has_records {
            // The power went while this segment was being created; nothing was ever written behind the header.
            create(dir, id, last.base).map_err(failed("create"))?
        } else {
            if !has_header {
                log::error!("a journal segment lost its header; its records are served");
                found.gaps.push(last.base..last.base + HEADER_BYTES);
            }
            cut(last, walk.end, torn_bytes, quarantine).map_err(failed("cut the torn end of"))?
        };
        Ok((Self::at(dir, id, file, last.base..walk.end, segment_bytes_max), found))
    }

    fn at(dir: &Path, id: u64, file: File, segment: Range<u64>, segment_bytes_max: u64) -> Self {
        let (base, end) = (segment.start, segment.end);
        Self { dir: dir.into(), id, file, base, end, reserved: end, segment_bytes_max, suspect: false }
    }

    /// Names this journal, so that an index of another one is not believed.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Place after the last durable record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Makes ready for an append and says at which place it will stand: settles an earlier failure, begins a new segment.
    pub(crate) fn begin(&mut self) -> io::Result<u64> {
        if self.suspect {
            self.settle()?;
        }
        if self.end - self.base >= self.segment_bytes_max {
            // Without its reserve first: the next segment's name says where this one ends.
            self.settle()?;
            self.file = create(&self.dir, self.id, self.end)?;
            self.base = self.end;
            self.end += HEADER_BYTES;
            self.reserved = self.end;
        }
        Ok(self.end)
    }

    /// Writes whole frames at the place that [`Self::begin`] named, and syncs. On an error none of them counts.
    pub(crate) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        self.reserve(frames.len() as u64);
        let written = self.file.write_all_at(frames, self.end - self.base).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.end += frames.len() as u64;
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
        let zeros = vec![0; (self.end + bytes - from + RESERVE_BYTES) as usize];
        match self.file.write_all_at(&zeros, from - self.base).and_then(|()| self.file.sync_all()) {
            Ok(()) => self.reserved = from + zeros.len() as u64,
            // What was written of them goes, so that others have the room; a failure shows in the append.
            // Records stay: the cut is never before `end`.
            Err(_) => drop(self.file.set_len(from - self.base)),
        }
    }

    /// Takes back what a failed append may have left, and the zeros ahead.
    fn settle(&mut self) -> io::Result<()> {
        self.file.set_len(self.end - self.base)?;
        self.file.sync_all()?;
        self.reserved = self.end;
        self.suspect = false;
        Ok(())
    }
}

impl Drop for Journal {
    /// A journal that was closed ends with its last record; one that was killed ends in zeros, which open cuts.
    fn drop(&mut self) {
        let _cut_by_the_next_open = self.file.set_len(self.end - self.base);
    }
}

/// All records from place `from` up to place `to`, in order; `visit` gets the place after each.
/// Damage is skipped, reported in the answer and copied to `quarantine`.
pub(crate) fn replay(
    dir: &Path,
    quarantine: &Path,
    from: u64,
    to: u64,
    visit: &mut dyn FnMut(u64, Record),
) -> io::Result<Walk> {
    let mut whole = Walk { end: from, ..Walk::default() };
    let segments = list(dir)?;
    for (index, segment) in segments.iter().enumerate() {
        let next_base = segments.get(index + 1).map_or(u64::MAX, |next| next.base);
        if next_base <= from || segment.base >= to {
            continue;
        }
        if segment.base > whole.end && whole.end > 0 {
            whole.gaps.push(whole.end..segment.base);
        }
        let mut unknown = 0;
        let start = from.max(segment.base + HEADER_BYTES);
        let walk = segment.walk(start, to, &mut |end, json| match serde_json::from_slice(json) {
            Ok(record) => visit(end, record),
            Err(_) => unknown += 1,
        })?;
        for gap in &walk.gaps {
            keep_copy(&segment.path, segment.base, gap.clone(), quarantine);
        }
        if walk.tail_bytes > 0 {
            let gap = walk.end..walk.end + walk.tail_bytes;
            keep_copy(&segment.path, segment.base, gap.clone(), quarantine);
            whole.gaps.push(gap);
        }
        whole.gaps.extend(walk.gaps);
        whole.unknown += unknown;
        // Also past a bad end of a segment: the next one continues where this file ends, not where its records do.
        whole.end = walk.end + walk.tail_bytes;
    }
    for gap in &whole.gaps {
        log::error!(
            "journal damaged from place {} to {}: records there are lost, the rest is served",
            gap.start,
            gap.end
        );
    }
    if whole.unknown > 0 {
        log::error!("{} journal records are of a newer version and are not served", whole.unknown);
    }
    Ok(whole)
}

impl Segment {
    /// Nothing but zeros, or nothing at all, from place `from` on.
    fn is_zero_from(&self, from: u64) -> io::Result<bool> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from - self.base))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        Ok(rest.iter().all(|byte| *byte == 0))
    }

    /// Visits the JSON of each good record that starts at `from` or later and ends at `to` or earlier.
    fn walk(&self, from: u64, to: u64, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<Walk> {
        let file = File::open(&self.path)?;
        let limit = to.min(self.base + file.metadata()?.len());
        let mut walk = Walk { end: from, ..Walk::default() };
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        reader.seek(SeekFrom::Start(from - self.base))?;
        let mut json = Vec::new();
        while walk.end < limit {
            if let Some(end) = next(&mut reader, walk.end, limit, &mut json)? {
                visit(end, &json);
                walk.end = end;
            } else if let Some(good) = resync(&file, self.base, walk.end + 1, limit)? {
                walk.gaps.push(walk.end..good);
                walk.end = good;
                reader.seek(SeekFrom::Start(good - self.base))?;
            } else {
                walk.tail_bytes = limit - walk.end;
                break;
            }
        }
        Ok(walk)
    }
}

/// The record at place `at`: its JSON in `json`, and the place after it. None when there is no good one.
fn next(reader: &mut impl Read, at: u64, limit: u64, json: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let room = limit - at;
    let mut head = [0; FRAME_BYTES];
    if room < FRAME_BYTES as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut head)?;
    let Some((length, checksum)) = record::frame(&head) else { return Ok(None) };
    if length as u64 > room - FRAME_BYTES as u64 {
        return Ok(None);
    }
    json.resize(length, 0);
    reader.read_exact(json)?;
    let good = record::checksum(at, json) == checksum;
    Ok(good.then_some(at + (FRAME_BYTES + length) as u64))
}

/// The first place from `from` on where a good record starts.
fn resync(file: &File, base: u64, from: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut rest = vec![0; usize::try_from(limit.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut rest, from - base)?;
    let mut json = Vec::new();
    for (index, window) in rest.windows(MARK.len()).enumerate() {
        let at = from + index as u64;
        if window == MARK && next(&mut &rest[index..], at, limit, &mut json)?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Opens the last segment for writing, its torn end cut off and kept in quarantine.
fn cut(last: &Segment, end: u64, torn_bytes: u64, quarantine: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(&last.path)?;
    if torn_bytes > 0 {
        log::warn!("the journal's last {torn_bytes} bytes are no whole record: cut, nobody was told of them");
        keep_copy(&last.path, last.base, end..end + torn_bytes, quarantine);
    }
    file.set_len(end - last.base)?;
    // Also without a cut: what a killed daemon wrote without a sync is kept and must not go later.
    file.sync_all()?;
    Ok(file)
}

/// Copies bad bytes to quarantine, once; a failure is logged, for the copy only helps people.
fn keep_copy(segment: &Path, base: u64, gap: Range<u64>, quarantine: &Path) {
    let target = quarantine.join(format!("{:020}-{}.bin", gap.start, gap.end - gap.start));
    let copied = (|| {
        let mut bytes = vec![0; usize::try_from(gap.end - gap.start).unwrap_or(0)];
        File::open(segment)?.read_exact_at(&mut bytes, gap.start - base)?;
        fs::create_dir_all(quarantine)?;
        fs::write(&target, bytes)
    })();
    if let Err(error) = copied {
        log::warn!("keep a copy of damaged journal bytes: {error}");
    }
}

/// Segments in order. Other files in the folder are left alone.
fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Ok(base) = stem.parse()
        {
            segments.push(Segment { path, base });
        }
    }
    segments.sort_by_key(|segment| segment.base);
    Ok(segments)
}

/// A new, empty segment, durable with its name.
fn create(dir: &Path, id: u64, base: u64) -> io::Result<File> {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&id.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    let checksum = crc32fast::hash(&header[..24]);
    header[24..28].copy_from_slice(&checksum.to_le_bytes());
    let path = dir.join(format!("{base:020}.jnl"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// The journal's id from a segment's header, none when the header is not whole.
fn read_id(path: &Path) -> io::Result<Option<u64>> {
    let mut header = [0; HEADER_BYTES as usize];
    match File::open(path)?.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let word = |at: usize| header[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let whole = header[..8] == MAGIC && crc32fast::hash(&header[..24]).to_le_bytes() == header[24..28];
    Ok(whole.then(|| word(8)))
}

/// The standard library's per-process hash keys are random: enough to tell two journals apart.
fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
