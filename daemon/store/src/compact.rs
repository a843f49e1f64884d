//! Several sealed files of the journal become one that says the same in less.
//!
//! In: sealed files, oldest first. Out: one file that stands for all of them. Promise: at every moment the folder holds either
//! the old files or the whole new one under the first one's name; what is left of the others after a crash is not read.
//!
//! Dropped is what a replay would drop: second copies of what happened once, and what was said of a document before the last
//! that the journal says of it. All answers for one parcel become one record.
//! What an object was and what was found stays word for word. A damaged file is left as it is: that it has lost records is
//! itself worth knowing, for then no file is removed on its word.

use crate::disk::Disk;
use crate::record::{self, Forgotten, Record, Remembered, Settled};
use crate::segment::{self, HEADER_BYTES, SEAL_BYTES, Segment, Walk};
use crate::store::Parts;
use fovea_core::{DocumentKind, Uid};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// So many sealed files are made one: with 64 MiB each a rewrite is worth its reading and stays a matter of seconds.
const FILES: usize = 4;
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Files that became one.
    pub files: usize,
    /// Their length.
    pub bytes_before: u64,
    /// Its length.
    pub bytes_after: u64,
}

impl Parts {
    /// Compacts the oldest sealed files that are not compacted yet, if there are enough of them.
    pub(crate) fn compact(&self) -> io::Result<Option<Compacted>> {
        if self.is_read_only() {
            return Ok(None);
        }
        let dir = &self.layout.journal;
        let closed_before = self.committer.closed_before();
        let mut closed = segment::list(&self.disk, dir)?;
        closed.retain(|segment| segment.base < closed_before);
        let Some(run) = self.sound_run(&closed)? else { return Ok(None) };
        // What sled knows shall not end within what is rewritten: it would have to be made anew after a crash.
        self.index.flush();
        let new = self.rewrite(run, self.later_documents(run)?)?;
        let Some((bytes_before, bytes_after)) = new else { return Ok(None) };
        self.index.exclusively(|| self.put_in_place(run))?;
        self.saved_bytes.fetch_add(bytes_before - bytes_after, Ordering::Relaxed);
        Ok(Some(Compacted { files: run.len(), bytes_before, bytes_after }))
    }

    /// The first row of neighbours that are whole and not compacted yet, if there is one that is long enough.
    fn sound_run<'a>(&self, closed: &'a [Segment]) -> io::Result<Option<&'a [Segment]>> {
        let mut unsound = self.unsound.lock().unwrap_or_else(PoisonError::into_inner);
        'rows: for row in closed.windows(FILES) {
            for segment in row {
                if segment.until.is_some() || unsound.contains(&segment.base) {
                    continue 'rows;
                }
            }
            for segment in row {
                if segment.sealed_well(&self.disk)? != Some(true) {
                    // Of an older version, or damaged: not read again each time.
                    unsound.insert(segment.base);
                    continue 'rows;
                }
            }
            return Ok(Some(row));
        }
        Ok(None)
    }

    /// Writes the new file beside the old ones; none when it would not be shorter.
    fn rewrite(&self, run: &[Segment], mut documents: Last) -> io::Result<Option<(u64, u64)>> {
        let first = &run[0];
        let mut answers: HashMap<u64, Settled> = HashMap::new();
        let mut until = first.base;
        for segment in run {
            let visit = &mut |record| {
                documents.see(&record);
                gather(&mut answers, record);
            };
            until = self.each_record(segment, visit)?.end;
        }
        let path = new_path(&first.path);
        let header = segment::header(first.id.unwrap_or_default(), first.base, until);
        let mut output = Output::begin(&self.disk, &path, first.base, &header)?;
        let mut known = Known { documents, ..Known::default() };
        for segment in run {
            let mut failed = None;
            self.each_record(segment, &mut |record| {
                if failed.is_none()
                    && let Some(record) = known.keep(record, &mut answers)
                {
                    failed = output.add(&record).err();
                }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        let after = output.finish()?;
        if first.base + after < until {
            return Ok(Some((until - first.base, after)));
        }
        self.disk.remove_file(&path)?;
        Ok(None)
    }

    /// What the journal says of documents after the run. Its word, not the index's: what is dropped here is gone.
    fn later_documents(&self, run: &[Segment]) -> io::Result<Last> {
        let (mut last, end) = (Last::default(), self.committer.end());
        let after = run.last().map_or(0, |segment| segment.base);
        for segment in segment::list(&self.disk, &self.layout.journal)?.iter().filter(|segment| segment.base > after) {
            segment.walk(&self.disk, segment.first, end, &mut |_, json| {
                // What is not understood is no document.
                if let Ok(record) = serde_json::from_slice(json) {
                    last.see(&record);
                }
            })?;
        }
        Ok(last)
    }

    fn each_record(&self, segment: &Segment, visit: &mut dyn FnMut(Record)) -> io::Result<Walk> {
        let mut unknown = None;
        let walk =
            segment.walk(&self.disk, segment.first, u64::MAX, &mut |_, json| match serde_json::from_slice(json) {
                Ok(record) => visit(record),
                Err(error) => unknown = Some(error),
            })?;
        // What is not understood must not be thrown away.
        unknown.map_or(Ok(walk), |error| Err(io::Error::other(error)))
    }

    /// The switch: from this rename on the new file stands for all of them.
    fn put_in_place(&self, run: &[Segment]) -> io::Result<()> {
        self.disk.rename(&new_path(&run[0].path), &run[0].path)?;
        self.disk.sync_folder(&self.layout.journal)?;
        run[1..].iter().try_for_each(|segment| self.disk.remove_file(&segment.path))?;
        self.disk.sync_folder(&self.layout.journal)
    }
}

/// Not a name of the journal's, so that a half-written one is not read; removed when the journal opens.
fn new_path(path: &Path) -> std::path::PathBuf {
    path.with_extension("compact")
}

fn gather(answers: &mut HashMap<u64, Settled>, record: Record) {
    let (Record::Delivered { seq, .. }
    | Record::SetAside { seq, .. }
    | Record::Again { seq, .. }
    | Record::Custody { seq, .. }) = record
    else {
        return;
    };
    let of_parcel = answers.entry(seq).or_default();
    of_parcel.seq = seq;
    match record {
        Record::Delivered { destination, at, .. } => of_parcel.delivered.push((destination, at)),
        Record::SetAside { destination, reason, .. } => of_parcel.set_aside.push((destination, reason)),
        Record::Again { destination, .. } => {
            of_parcel.delivered.retain(|(name, _)| *name != destination);
            of_parcel.set_aside.retain(|(name, _)| *name != destination);
            of_parcel.again.push(destination);
        }
        Record::Custody { custody, .. } => of_parcel.custody.push(custody),
        _ => (),
    }
}

/// What has been written, so that nothing is twice.
#[derive(Default)]
struct Known {
    accepted: HashSet<Uid>,
    found: HashSet<Uid>,
    dispatched: HashSet<Uid>,
    documents: Last,
}

/// The number of the last record of each document.
#[derive(Default)]
struct Last(HashMap<DocumentKind, HashMap<String, u64>>);

impl Last {
    fn see(&mut self, record: &Record) {
        let (Record::Remembered(Remembered { number, kind, key, .. })
        | Record::Forgotten(Forgotten { number, kind, key })) = record
        else {
            return;
        };
        let of_kind = self.0.entry(*kind).or_default();
        match of_kind.get_mut(key) {
            Some(last) => *last = (*last).max(*number),
            None => _ = of_kind.insert(key.clone(), *number),
        }
    }

    fn is(&self, number: u64, kind: DocumentKind, key: &str) -> bool {
        self.0.get(&kind).and_then(|of_kind| of_kind.get(key)).is_none_or(|last| *last == number)
    }
}

impl Known {
    /// The record that takes this one's place, if any.
    fn keep(&mut self, record: Record, answers: &mut HashMap<u64, Settled>) -> Option<Record> {
        let first = match &record {
            Record::Accepted(accepted) => self.accepted.insert(accepted.header.sop_instance_uid.clone()),
            Record::Finding { finding, .. } => self.found.insert(finding.sop_instance_uid.clone()),
            Record::Dispatched(dispatched) => self.dispatched.insert(dispatched.source_sop_instance_uid.clone()),
            Record::Delivered { seq, .. }
            | Record::SetAside { seq, .. }
            | Record::Again { seq, .. }
            | Record::Custody { seq, .. } => {
                // At the place of the first: all of them came after the dispatch, and before an eviction.
                return answers.remove(seq).map(Record::Settled);
            }
            // That it went stays known: an older file may still say what it was.
            Record::Remembered(Remembered { number, kind, key, .. })
            | Record::Forgotten(Forgotten { number, kind, key }) => self.documents.is(*number, *kind, key),
            Record::Conflict(_) | Record::Evicted(_) | Record::Settled(_) => true,
        };
        first.then_some(record)
    }
}

/// The new file, written in large pieces and synced at its end.
struct Output<'a> {
    disk: &'a Disk,
    file: File,
    base: u64,
    written: u64,
    piece: Vec<u8>,
    content: crc32fast::Hasher,
    records: u64,
}

impl<'a> Output<'a> {
    fn begin(disk: &'a Disk, path: &Path, base: u64, header: &[u8]) -> io::Result<Self> {
        debug_assert_eq!(header.len() as u64, HEADER_BYTES);
        let (file, content) = (disk.create(path)?, crc32fast::Hasher::new());
        Ok(Self { disk, file, base, written: 0, piece: header.to_vec(), content, records: 0 })
    }

    fn add(&mut self, record: &Record) -> io::Result<()> {
        let place = self.base + self.written + self.piece.len() as u64;
        record::encode(record, place, &mut self.piece).map_err(io::Error::other)?;
        self.records += 1;
        if self.piece.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.disk.write_all_at(&self.file, &self.piece, self.written)?;
        self.content.update(&self.piece);
        self.written += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Seals and syncs; answers with the length.
    fn finish(mut self) -> io::Result<u64> {
        self.write()?;
        let seal = segment::seal(self.base + self.written, self.records, self.content.clone());
        self.disk.write_all_at(&self.file, &seal, self.written)?;
        self.disk.sync_all(&self.file)?;
        Ok(self.written + SEAL_BYTES)
    }
}
