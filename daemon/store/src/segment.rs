//! One file of the journal: `<state>/journal/<place of its first byte>.jnl`, a header, records, and a seal once it is full.
//!
//! In: bytes of a file, whole or not. Out: the records in it, and what is wrong with the rest.
//! Promise: reading changes nothing; bad bytes with good records behind them are skipped and named; a file of a newer
//! version is refused, not guessed at.
//!
//! | part | bytes, numbers little endian |
//! | --- | --- |
//! | header, versions 2 and 3 | `FVJOURN2` or `3`, journal id u64, place of the first byte u64, place up to which it stands for its predecessors u64 or 0, crc32 of these, zeros to 48 |
//! | header, version 1 | `FVJOURN1`, journal id u64, place of the first byte u64, crc32 of these, zeros to 32 |
//! | record | see `record.rs` |
//! | seal (since version 2) | `FVSEALED`, number of records u64, place of its first byte u64, crc32 of all bytes before it, crc32 of the seal so far |
//!
//! A place is a byte count since the journal began, headers and seals included; it names a record for ever.
//! A daemon never adds to a file of an older version: it begins a new one, so that the header speaks for the whole file.

use crate::disk::Disk;
use crate::record::{self, FRAME_BYTES, MARK};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes before the first record, since version 2.
pub(crate) const HEADER_BYTES: u64 = 48;
/// The same, version 1.
const HEADER_BYTES_V1: u64 = 32;
/// Bytes of a seal.
pub(crate) const SEAL_BYTES: u64 = 32;
/// What this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 3;
const MAGIC: &[u8; 7] = b"FVJOURN";
const SEAL_MAGIC: &[u8; 8] = b"FVSEALED";
/// Bytes that are looked through at once for the next good record.
const LOOK_BYTES: usize = 64 << 10;

/// One file of the journal, as its header says.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub path: PathBuf,
    /// Place of its first byte.
    pub base: u64,
    /// Place of its first record.
    pub first: u64,
    /// Its version; none where the header is not whole.
    pub version: Option<u8>,
    /// The journal's name; none where the header is not whole.
    pub id: Option<u64>,
    /// It was rewritten, and stands for everything before this place.
    pub until: Option<u64>,
}

/// What a walk over records met.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Place after the last good record, or after the seal.
    pub end: u64,
    /// Places of bytes that are no records, with good records or a seal after them.
    pub gaps: Vec<Range<u64>>,
    /// Bytes after `end` that are no record.
    pub tail_bytes: u64,
    /// Good records that were met.
    pub records: u64,
    /// Whole records that this version does not understand.
    pub unknown: u64,
    /// The file ends with its seal.
    pub sealed: bool,
}

/// Segments in order, without those that a rewritten one stands for. Other files in the folder are left alone.
pub(crate) fn list(disk: &Disk, dir: &Path) -> io::Result<Vec<Segment>> {
    let mut covered_until = 0;
    let mut segments = list_all(disk, dir)?;
    segments.retain(|segment| {
        let counts = segment.base >= covered_until;
        covered_until = covered_until.max(segment.until.unwrap_or(0));
        counts
    });
    Ok(segments)
}

/// All segments in order, superseded ones included.
pub(crate) fn list_all(disk: &Disk, dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for (path, _) in disk.list(dir)? {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Ok(base) = stem.parse()
        {
            segments.push(Segment::look(disk, path, base)?);
        }
    }
    segments.sort_by_key(|segment| segment.base);
    Ok(segments)
}

/// The header of a new file.
pub(crate) fn header(id: u64, base: u64, until: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..7].copy_from_slice(MAGIC);
    header[7] = b'0' + VERSION;
    header[8..16].copy_from_slice(&id.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    header[24..32].copy_from_slice(&until.to_le_bytes());
    let checksum = crc32fast::hash(&header[..32]);
    header[32..36].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The seal that stands at `place`, after so many records; `content` has hashed all bytes before it.
pub(crate) fn seal(place: u64, records: u64, content: crc32fast::Hasher) -> [u8; SEAL_BYTES as usize] {
    let mut seal = [0; SEAL_BYTES as usize];
    seal[..8].copy_from_slice(SEAL_MAGIC);
    seal[8..16].copy_from_slice(&records.to_le_bytes());
    seal[16..24].copy_from_slice(&place.to_le_bytes());
    seal[24..28].copy_from_slice(&content.finalize().to_le_bytes());
    let checksum = crc32fast::hash(&seal[..28]);
    seal[28..].copy_from_slice(&checksum.to_le_bytes());
    seal
}

/// A new file with its header, durable with its name.
pub(crate) fn create(disk: &Disk, dir: &Path, id: u64, base: u64) -> io::Result<File> {
    let file = disk.create(&path_of(dir, base))?;
    disk.write_all_at(&file, &header(id, base, 0), 0)?;
    disk.sync_all(&file)?;
    disk.sync_folder(dir)?;
    Ok(file)
}

/// The file whose first byte is at place `base`.
pub(crate) fn path_of(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.jnl"))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn short(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Segment {
    /// Reads the header of the file at `path`.
    fn look(disk: &Disk, path: PathBuf, base: u64) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        disk.open(&path)?.take(HEADER_BYTES).read_to_end(&mut bytes)?;
        let mut segment = Self { path, base, first: base + HEADER_BYTES_V1, version: None, id: None, until: None };
        let version = bytes.get(7).map_or(0, |digit| digit.wrapping_sub(b'0'));
        let hashed = if version == 1 { 24 } else { 32 };
        let whole = bytes.len() >= hashed + 4
            && bytes[..7] == *MAGIC
            && version > 0
            && crc32fast::hash(&bytes[..hashed]) == short(&bytes, hashed);
        if whole {
            segment.version = Some(version);
            segment.id = Some(word(&bytes, 8));
            if version > 1 {
                segment.first = base + HEADER_BYTES;
                segment.until = Some(word(&bytes, 24)).filter(|until| *until > base);
            }
        }
        Ok(segment)
    }

    /// Nothing but zeros, or nothing at all, from place `from` on.
    pub(crate) fn is_zero_from(&self, disk: &Disk, from: u64) -> io::Result<bool> {
        let mut file = disk.open(&self.path)?;
        file.seek(SeekFrom::Start(from - self.base))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        Ok(rest.iter().all(|byte| *byte == 0))
    }

    /// Hash of all bytes before place `end`, for a seal there.
    pub(crate) fn hash_until(&self, disk: &Disk, end: u64) -> io::Result<crc32fast::Hasher> {
        let mut hasher = crc32fast::Hasher::new();
        let mut rest = disk.open(&self.path)?.take(end - self.base);
        let mut buffer = vec![0; LOOK_BYTES];
        loop {
            match rest.read(&mut buffer)? {
                0 => return Ok(hasher),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    /// Whether all bytes are those that were sealed; none where there is no seal.
    pub(crate) fn sealed_well(&self, disk: &Disk) -> io::Result<Option<bool>> {
        let file = disk.open(&self.path)?;
        let length = file.metadata()?.len();
        let Some(place) = (self.base + length).checked_sub(SEAL_BYTES).filter(|place| *place >= self.first) else {
            return Ok(None);
        };
        let mut found = [0; SEAL_BYTES as usize];
        file.read_exact_at(&mut found, place - self.base)?;
        if found[..8] != *SEAL_MAGIC {
            return Ok(None);
        }
        let expected = seal(place, word(&found, 8), self.hash_until(disk, place)?);
        Ok(Some(found == expected))
    }

    /// Visits the JSON of each good record that starts at `from` or later and ends at `to` or earlier.
    pub(crate) fn walk(&self, disk: &Disk, from: u64, to: u64, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<Walk> {
        let file = disk.open(&self.path)?;
        let limit = to.min(self.base + file.metadata()?.len());
        let mut walk = Walk { end: from, ..Walk::default() };
        let mut reader = BufReader::with_capacity(1 << 18, &file);
        reader.seek(SeekFrom::Start(from - self.base))?;
        let mut json = Vec::new();
        while walk.end < limit {
            match next(&mut reader, walk.end, limit, &mut json)? {
                Next::Record(end) => {
                    visit(end, &json);
                    walk.end = end;
                    walk.records += 1;
                }
                Next::Seal(end) => {
                    walk.end = end;
                    walk.sealed = true;
                    walk.tail_bytes = limit - end;
                    break;
                }
                Next::Bad => {
                    let Some(good) = resync(&file, self.base, walk.end + 1, limit)? else {
                        walk.tail_bytes = limit - walk.end;
                        break;
                    };
                    walk.gaps.push(walk.end..good);
                    walk.end = good;
                    reader.seek(SeekFrom::Start(good - self.base))?;
                }
            }
        }
        Ok(walk)
    }
}

/// What stands at one place.
enum Next {
    /// A good record up to this place.
    Record(u64),
    /// The seal, up to this place.
    Seal(u64),
    /// Neither.
    Bad,
}

/// What stands at place `at`; the JSON of a record is then in `json`.
fn next(reader: &mut impl Read, at: u64, limit: u64, json: &mut Vec<u8>) -> io::Result<Next> {
    let room = limit - at;
    let mut head = [0; FRAME_BYTES];
    if room < FRAME_BYTES as u64 {
        return Ok(Next::Bad);
    }
    reader.read_exact(&mut head)?;
    if head[..8] == *SEAL_MAGIC && room >= SEAL_BYTES {
        let mut seal = [0; SEAL_BYTES as usize];
        seal[..FRAME_BYTES].copy_from_slice(&head);
        reader.read_exact(&mut seal[FRAME_BYTES..])?;
        let good = word(&seal, 16) == at && crc32fast::hash(&seal[..28]) == short(&seal, 28);
        return Ok(if good { Next::Seal(at + SEAL_BYTES) } else { Next::Bad });
    }
    let Some((length, checksum)) = record::frame(&head) else { return Ok(Next::Bad) };
    if length as u64 > room - FRAME_BYTES as u64 {
        return Ok(Next::Bad);
    }
    json.resize(length, 0);
    reader.read_exact(json)?;
    let good = record::checksum(at, json) == checksum;
    Ok(if good { Next::Record(at + (FRAME_BYTES + length) as u64) } else { Next::Bad })
}

/// The first place from `from` on where a good record or a seal starts.
fn resync(file: &File, base: u64, from: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut json = Vec::new();
    let mut piece = vec![0; LOOK_BYTES];
    let mut start = from;
    while start < limit {
        let length = piece.len().min(usize::try_from(limit - start).unwrap_or(usize::MAX));
        file.read_exact_at(&mut piece[..length], start - base)?;
        for index in 0..length.saturating_sub(MARK.len() - 1) {
            if piece[index..].starts_with(&MARK[..3]) || piece[index..].starts_with(&SEAL_MAGIC[..4]) {
                let at = start + index as u64;
                let mut rest = file;
                rest.seek(SeekFrom::Start(at - base))?;
                if !matches!(next(&mut rest, at, limit, &mut json)?, Next::Bad) {
                    return Ok(Some(at));
                }
            }
        }
        if length < piece.len() {
            break;
        }
        // A mark may lie across the border of two pieces.
        start += (length - (MARK.len() - 1)) as u64;
    }
    Ok(None)
}
