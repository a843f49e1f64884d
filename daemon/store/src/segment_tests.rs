use super::*;
use fovea_core::UnixMicros;

fn delivered(seq: u64) -> Record {
    Record::Delivered { seq, destination: "vna".repeat(seq as usize % 5 + 1), at: UnixMicros(5) }
}

fn append(journal: &mut Journal, seqs: Range<u64>) {
    let mut frames = Vec::new();
    let start = journal.begin().unwrap();
    for seq in seqs {
        record::encode(&delivered(seq), start + frames.len() as u64, &mut frames).unwrap();
    }
    journal.append(&frames).unwrap();
}

fn seqs(dir: &Path, from: u64) -> (Vec<u64>, Walk) {
    let mut seqs = Vec::new();
    let walk = replay(dir, &dir.join("q"), from, u64::MAX, &mut |_, record| match record {
        Record::Delivered { seq, .. } => seqs.push(seq),
        other => panic!("{other:?}"),
    })
    .unwrap();
    (seqs, walk)
}

fn open(dir: &Path, max: u64) -> (Journal, Found) {
    Journal::open(dir, &dir.join("q"), max).unwrap()
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
    assert!(list(dir.path()).unwrap().len() > 5);
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
        create(dir.path(), id, end).unwrap();
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
    let lost = list(dir.path()).unwrap().into_iter().nth(2).unwrap();
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
        match journal.append(&frames) {
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
