use super::*;
use crate::record;
use fovea_core::UnixMicros;
use std::fs;

fn delivered(seq: u64) -> Record {
    Record::Delivered { seq, destination: "vna".repeat(seq as usize % 5 + 1), at: UnixMicros(5) }
}

fn append(journal: &mut Journal, seqs: Range<u64>) {
    let mut frames = Vec::new();
    let start = journal.begin().unwrap();
    for seq in seqs.clone() {
        record::encode(&delivered(seq), start + frames.len() as u64, &mut frames).unwrap();
    }
    let records = seqs.end - seqs.start;
    journal.append(&frames, records).unwrap();
}

fn seqs(dir: &Path, from: u64) -> (Vec<u64>, Walk) {
    let mut seqs = Vec::new();
    let walk = replay(&Disk::default(), dir, &dir.join("q"), from, u64::MAX, &mut |_, record| match record {
        Record::Delivered { seq, .. } => seqs.push(seq),
        other => panic!("{other:?}"),
    })
    .unwrap();
    (seqs, walk)
}

fn open(dir: &Path, max: u64) -> (Journal, Found) {
    Journal::open(&Disk::default(), dir, &dir.join("q"), max).unwrap()
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, found) = open(dir.path(), 1 << 20);
    assert!(found.created);
    append(&mut journal, 0..3);
    let before = journal.end();
    append(&mut journal, 3..4);
    let after = journal.end();
    let path = dir.path().join(format!("{:020}.jnl", 0));
    let whole = fs::read(&path).unwrap();
    drop(journal);
    for length in before..after {
        for garbage in [0usize, 7] {
            let mut torn = whole[..length as usize].to_vec();
            torn.extend(std::iter::repeat_n(0xa5, garbage));
            fs::write(&path, torn).unwrap();
            let (mut journal, found) = open(dir.path(), 1 << 20);
            assert_eq!((journal.end(), found.torn_bytes), (before, length - before + garbage as u64));
            append(&mut journal, 9..10);
            drop(journal);
            assert_eq!(seqs(dir.path(), 0).0, [0, 1, 2, 9], "length={length}");
        }
    }
}

#[test]
fn room_that_was_written_ahead_is_no_damage_and_a_record_torn_inside_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 8 << 20);
    append(&mut journal, 0..3);
    let before = journal.end();
    append(&mut journal, 3..4);
    let after = journal.end();
    let path = dir.path().join(format!("{:020}.jnl", 0));
    let killed = fs::read(&path).unwrap();
    assert!(killed.len() as u64 >= RESERVE_BYTES, "a killed daemon leaves its reserve");
    drop(journal);
    assert_eq!(fs::metadata(&path).unwrap().len(), after, "a closed one does not");
    fs::write(&path, &killed).unwrap();
    let (journal, found) = open(dir.path(), 8 << 20);
    assert_eq!((journal.end(), found.torn_bytes, found.gaps.len()), (after, 0, 0));
    drop(journal);
    let mut torn = killed;
    torn[after as usize - 9..after as usize].fill(0);
    fs::write(&path, &torn).unwrap();
    let (mut journal, found) = open(dir.path(), 8 << 20);
    assert!(journal.end() == before && found.torn_bytes > 0, "{found:?}");
    append(&mut journal, 7..8);
    drop(journal);
    assert_eq!(seqs(dir.path(), 0).0, [0, 1, 2, 7]);
}

#[test]
fn any_flipped_byte_in_the_middle_loses_one_record_is_reported_and_kept_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 1 << 20);
    append(&mut journal, 0..1);
    let middle = journal.end();
    append(&mut journal, 1..2);
    let behind = journal.end();
    append(&mut journal, 2..4);
    drop(journal);
    let path = dir.path().join(format!("{:020}.jnl", 0));
    let whole = fs::read(&path).unwrap();
    let lost: Vec<_> = std::iter::once(middle..behind).collect();
    for at in middle..behind {
        let mut bad = whole.clone();
        bad[at as usize] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let (journal, found) = open(dir.path(), 1 << 20);
        assert_eq!((journal.end(), found.gaps), (whole.len() as u64, lost.clone()));
        drop(journal);
        let (left, walk) = seqs(dir.path(), 0);
        assert_eq!(left, [0, 2, 3], "at={at}");
        assert_eq!(walk.gaps, lost);
        let kept = fs::read(dir.path().join(format!("q/{middle:020}-{}.bin", behind - middle))).unwrap();
        assert_eq!(kept, bad[middle as usize..behind as usize]);
    }
}

#[test]
fn segments_rotate_and_replay_from_any_record_border() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 300);
    let mut borders = vec![HEADER_BYTES];
    for seq in 0..40 {
        append(&mut journal, seq..seq + 1);
        borders.push(journal.end());
    }
    let id = journal.id();
    drop(journal);
    assert!(list(&Disk::default(), dir.path()).unwrap().len() > 5);
    for (seq, from) in borders.iter().enumerate() {
        assert_eq!(seqs(dir.path(), *from).0, (seq as u64..40).collect::<Vec<_>>());
    }
    let (journal, found) = open(dir.path(), 300);
    assert_eq!((journal.id(), journal.end(), found.torn_bytes), (id, borders[40], 0));
}

#[test]
fn a_segment_that_was_being_created_when_the_power_went_is_begun_again() {
    for length in 0..HEADER_BYTES as usize {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path(), 100);
        append(&mut journal, 0..4);
        let (id, end) = (journal.id(), journal.end());
        drop(journal);
        create(&Disk::default(), dir.path(), id, end).unwrap();
        let path = dir.path().join(format!("{end:020}.jnl"));
        let header = fs::read(&path).unwrap();
        fs::write(&path, &header[..length]).unwrap();
        let (mut journal, _) = open(dir.path(), 100);
        assert_eq!((journal.id(), journal.end()), (id, end + HEADER_BYTES), "length={length}");
        append(&mut journal, 4..5);
        assert_eq!(seqs(dir.path(), 0).0, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_missing_segment_is_reported_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 1);
    for seq in 0..3 {
        append(&mut journal, seq..seq + 1);
    }
    drop(journal);
    let lost = list(&Disk::default(), dir.path()).unwrap().into_iter().nth(2).unwrap();
    fs::remove_file(&lost.path).unwrap();
    let (left, walk) = seqs(dir.path(), 0);
    assert_eq!((left.len(), walk.gaps.len()), (2, 1), "{:?}", walk.gaps);
}

#[test]
fn inv_01_a_disk_without_room_for_zeros_keeps_every_record_that_was_acknowledged() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            umount2(self.0, MntFlags::MNT_DETACH).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    // Far smaller than the zeros: each append is done without them, until not even a record fits.
    let mounted = mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700"));
    if let Err(errno) = mounted {
        println!("skipped: a small tmpfs cannot be mounted here ({errno})");
        return;
    }
    let _mounted = Mounted(dir.path());
    let (mut journal, _) = open(dir.path(), 1 << 20);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let seq = acknowledged.len() as u64;
        let mut frames = Vec::new();
        record::encode(&delivered(seq), journal.begin().unwrap(), &mut frames).unwrap();
        match journal.append(&frames, 1) {
            Ok(()) => acknowledged.push(seq),
            Err(error) => break error,
        }
        assert!(seq < 10_000, "the disk is never full");
    };
    let killed = seqs(dir.path(), 0);
    drop(journal);
    let closed = open(dir.path(), 1 << 20).1;
    let left = seqs(dir.path(), 0);
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(acknowledged.len() > 100, "{} fit", acknowledged.len());
    assert_eq!((killed.0, killed.1.gaps), (acknowledged.clone(), vec![]), "while it is open");
    assert_eq!((left.0, left.1.gaps), (acknowledged, vec![]), "opened again");
    assert_eq!((closed.torn_bytes, closed.gaps), (0, vec![]));
}

/// A segment as version 1 wrote it: 32 bytes of header, the same frames under mark 1, no seal.
fn write_version_1(dir: &Path, id: u64, seqs: Range<u64>) -> u64 {
    let mut file = b"FVJOURN1".to_vec();
    file.extend(id.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file.extend([0; 4]);
    for seq in seqs {
        let start = file.len();
        record::encode(&delivered(seq), start as u64, &mut file).unwrap();
        file[start + 3] = 1;
    }
    fs::write(dir.join(format!("{:020}.jnl", 0)), &file).unwrap();
    file.len() as u64
}

#[test]
fn a_journal_of_version_1_is_read_as_it_is_and_continued_in_a_file_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let end = write_version_1(dir.path(), 4711, 0..3);
    let before = fs::read(dir.path().join(format!("{:020}.jnl", 0))).unwrap();
    let (mut journal, found) = open(dir.path(), 1 << 20);
    assert_eq!((journal.id(), journal.end(), found.torn_bytes, found.gaps.len()), (4711, end, 0, 0));
    append(&mut journal, 3..5);
    drop(journal);
    assert_eq!(seqs(dir.path(), 0).0, [0, 1, 2, 3, 4]);
    let segments = list(&Disk::default(), dir.path()).unwrap();
    let versions: Vec<_> = segments.iter().map(|segment| segment.version).collect();
    assert_eq!(versions, [Some(1), Some(VERSION)]);
    assert_eq!(fs::read(&segments[0].path).unwrap(), before, "what an older version wrote is not touched");
    assert_eq!((segments[1].id, segments[1].base), (Some(4711), end));
}

#[test]
fn a_journal_of_a_newer_version_is_refused_by_name_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 1 << 20);
    append(&mut journal, 0..3);
    drop(journal);
    let path = dir.path().join(format!("{:020}.jnl", 0));
    let mut file = fs::read(&path).unwrap();
    file[7] = b'0' + VERSION + 1;
    let checksum = crc32fast::hash(&file[..32]);
    file[32..36].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &file).unwrap();
    let Err(refused) = Journal::open(&Disk::default(), dir.path(), &dir.path().join("q"), 1 << 20) else {
        panic!("a newer journal was opened")
    };
    assert!(refused.to_string().contains("has journal format 4, this fovead reads up to 3"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), file);
}

#[test]
fn a_full_segment_is_sealed_its_seal_tells_any_flipped_byte_and_is_never_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), 200);
    append(&mut journal, 0..4);
    let full = journal.end();
    append(&mut journal, 4..5);
    drop(journal);
    let segments = list(&Disk::default(), dir.path()).unwrap();
    let first = &segments[0];
    assert_eq!((segments.len(), segments[1].base), (2, full + segment::SEAL_BYTES));
    let disk = Disk::default();
    assert_eq!(first.sealed_well(&disk).unwrap(), Some(true));
    assert_eq!(segments[1].sealed_well(&disk).unwrap(), None, "the last one is open");
    let whole = fs::read(&first.path).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        fs::write(&first.path, &bad).unwrap();
        assert_ne!(first.sealed_well(&disk).unwrap(), Some(true), "at={at}");
    }
    // Only the sealed one is left, as after a cut right behind the seal: the journal goes on after it.
    fs::write(&first.path, &whole).unwrap();
    fs::remove_file(&segments[1].path).unwrap();
    let (mut journal, found) = open(dir.path(), 1 << 20);
    assert_eq!((journal.end(), found.torn_bytes), (full + segment::SEAL_BYTES, 0));
    append(&mut journal, 9..10);
    drop(journal);
    assert_eq!(seqs(dir.path(), 0).0, [0, 1, 2, 3, 9]);
    assert_eq!(fs::read(&first.path).unwrap(), whole);
}
