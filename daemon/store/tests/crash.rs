//! What the store promises across crashes, torn writes and lost or damaged indexes.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{Config, Store};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const STATE: &str = "FOVEA_STORE_TEST_STATE";

/// The child: accepts, records and dispatches in four threads, and prints what it was told is durable.
#[test]
#[ignore = "run as a child process by inv_01"]
fn child_that_is_killed() {
    let Ok(state) = std::env::var(STATE) else { return };
    let store = open(Path::new(&state));
    let start = store.status().unwrap().objects;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    let sop = uid(format!("1.2.{start}.{thread}.{number}"));
                    let bytes = sop.as_str().repeat(50);
                    accept(&**store, &uid(format!("1.{}", number % 3)), &sop, bytes.as_bytes()).unwrap();
                    println!("accepted {sop}");
                    store.record(finding(&sop, 0.5)).unwrap();
                    println!("recorded {sop}");
                    let report = uid(format!("2.2.{start}.{thread}.{number}"));
                    let parcels = vec![parcel(&**store, &report, What::Findings, Lane::Findings, b"report")];
                    store.dispatch(&sop, parcels, vec![], UnixMicros(1)).unwrap();
                    println!("dispatched {sop}");
                }
            });
        }
    });
}

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % below
}

/// Runs the child, kills it `after` its first print, and gives what it printed.
fn run_and_kill(state: &Path, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_is_killed", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STATE, state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn inv_01_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut accepted, mut recorded, mut dispatched) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..12 {
        let after = Duration::from_millis(20 + random(250));
        for line in run_and_kill(dir.path(), after) {
            // The last two words: the harness prints its own before the first line of a test.
            let mut words = line.split_whitespace().rev();
            let (Some(sop), Some(what)) = (words.next().and_then(|sop| Uid::new(sop).ok()), words.next()) else {
                continue;
            };
            let set = match what {
                "accepted" => &mut accepted,
                "recorded" => &mut recorded,
                "dispatched" => &mut dispatched,
                _ => continue,
            };
            set.insert(sop);
        }
        if round % 4 == 3 {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = open(dir.path());
        for sop in &accepted {
            let held = store.accepted(sop).unwrap().unwrap_or_else(|| panic!("{sop} lost, killed after {after:?}"));
            assert_eq!(read(store.open_object(sop).unwrap()), sop.as_str().repeat(50).as_bytes());
            assert_eq!(held.file_bytes, sop.as_str().len() as u64 * 50);
        }
        for sop in &recorded {
            assert_eq!(store.finding_of(sop).unwrap(), Some(finding(sop, 0.5)));
        }
        for sop in &dispatched {
            let (ways, _) = store.sent_for(sop).unwrap();
            assert_eq!(fs::read(&ways[0].path).unwrap(), b"report");
        }
        let status = store.status().unwrap();
        assert_eq!(status.objects, status.findings + status.pending);
        // No file without a record, no record without a file.
        assert_eq!(files(&dir.path().join("objects")).len() as u64, status.objects);
        assert_eq!(files(&dir.path().join("outbox")).len() as u64, status.parcels);
        assert!(files(&dir.path().join("tmp")).is_empty());
        assert!(files(&dir.path().join("quarantine/orphans")).is_empty(), "nothing is suspect after a mere kill");
    }
    println!("acknowledged: {} objects, {} findings, {} dispatches", accepted.len(), recorded.len(), dispatched.len());
    assert!(accepted.len() > 50, "the child did its work: {}", accepted.len());
}

fn fill(store: &Store) {
    for number in 1..=5 {
        let sop = uid(format!("1.9.{number}"));
        accept(store, &uid("1.9"), &sop, b"photo").unwrap();
        if number < 5 {
            store.record(finding(&sop, f64::from(number) / 10.0)).unwrap();
        }
        if number < 4 {
            let report = uid(format!("2.2.{number}"));
            let parcels = vec![parcel(store, &report, What::Findings, Lane::Findings, b"report")];
            store.dispatch(&sop, parcels, vec![], UnixMicros(1)).unwrap();
        }
    }
    accept(store, &uid("1.9"), &uid("1.9.1"), b"other").unwrap();
    store.delivered(1, "vna", UnixMicros(5)).unwrap();
    store.set_aside(2, "vna", "refused").unwrap();
}

/// All that the ports say, as text; paths without the state folder, which tests copy.
fn answers(store: &Store) -> String {
    let status = store.status().unwrap();
    let ways = store.parcels_after(0, 100).unwrap();
    let ways: Vec<_> = ways.into_iter().map(|way| (way.parcel, way.delivered, way.set_aside)).collect();
    let answers = (
        store.pending(100).unwrap(),
        store.findings_after(0, 100).unwrap(),
        store.undispatched(100).unwrap(),
        store.waiting("vna", &[What::Findings], 100).unwrap(),
        ways,
        (status.objects, status.pending, status.findings, status.undispatched, status.outbox_waiting),
        (status.conflicts, status.parcels, status.journal_bytes),
    );
    format!("{answers:?}")
}

#[test]
fn a_missing_index_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path());
    assert_eq!(answers(&store), before);
    assert_eq!(store.status().unwrap().index_rebuilds, 1);
    drop(store);
    let store = open(dir.path());
    assert_eq!(answers(&store), before);
    assert_eq!(store.status().unwrap().index_rebuilds, 0, "a sound index is used as it is");
}

#[test]
fn a_damaged_index_is_made_anew_with_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    let index = dir.path().join("index");
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("zeros", |bytes| vec![0; bytes.len()]),
        ("ones", |bytes| vec![0xff; bytes.len()]),
        ("empty", |_| Vec::new()),
        ("scattered", |mut bytes| {
            bytes.iter_mut().step_by(61).for_each(|byte| *byte ^= 0x55);
            bytes
        }),
    ];
    for (name, damage) in damages {
        for file in files(&index) {
            let path = index.join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, damage(bytes)).unwrap();
        }
        let store = open(dir.path());
        assert_eq!(answers(&store), before, "{name}");
    }
}

#[test]
fn a_file_where_the_index_should_be_is_replaced_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::write(dir.path().join("index"), b"no folder").unwrap();
    assert_eq!(answers(&open(dir.path())), before);
}

#[test]
fn an_index_that_is_behind_catches_up_and_one_of_another_journal_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&*store, &uid("1.8"), &uid("1.8.1"), b"first").unwrap();
    drop(store);
    let copy = |from: &Path, to: &Path| {
        let _absent = fs::remove_dir_all(to);
        assert!(Command::new("cp").args(["-a".as_ref(), from, to]).status().unwrap().success());
    };
    copy(&dir.path().join("index"), &old.path().join("index"));
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    copy(&old.path().join("index"), &dir.path().join("index"));
    let store = open(dir.path());
    assert_eq!(answers(&store), before);
    assert_eq!(store.status().unwrap().index_rebuilds, 0, "caught up, not rebuilt");
    drop(store);

    let other = tempfile::tempdir().unwrap();
    let stranger = open(other.path());
    accept(&*stranger, &uid("3.1"), &uid("3.1.1"), b"not ours").unwrap();
    drop(stranger);
    copy(&other.path().join("index"), &dir.path().join("index"));
    let store = open(dir.path());
    assert_eq!(answers(&store), before);
    assert_eq!(store.accepted(&uid("3.1.1")).unwrap(), None);
}

#[test]
fn after_another_start_of_the_machine_the_index_is_believed_only_if_it_is_what_a_clean_stop_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    let flip_in_index = || {
        let path = dir.path().join("index/db");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let lose_mark = || fs::remove_file(dir.path().join("journal/clean")).unwrap();
    let mark_of_another = || fs::write(dir.path().join("journal/clean"), "12345 deadbeef\n").unwrap();
    type Step<'a> = (&'a str, &'a dyn Fn(), u64);
    let steps: [Step; 4] = [
        ("clean", &|| (), 0),
        ("a flipped bit", &flip_in_index, 1),
        ("no mark", &lose_mark, 1),
        ("a mark of another end", &mark_of_another, 1),
    ];
    for (name, damage, rebuilds) in steps {
        fs::write(dir.path().join("lock"), "1 another-boot\n").unwrap();
        damage();
        let store = open(dir.path());
        assert_eq!(store.status().unwrap().index_rebuilds, rebuilds, "{name}");
        assert_eq!(answers(&store), before, "{name}");
    }
}

#[test]
fn inv_01_no_acknowledged_file_is_removed_on_the_word_of_an_index_that_is_short_of_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    let before = answers(&store);
    drop(store);
    // The index as a lost page would leave it: up to date by its own word, without one object and one parcel.
    let index = sled::open(dir.path().join("index")).unwrap();
    for key in ["o1.9.2", "n2.2.3"] {
        assert!(index.remove(key).unwrap().is_some(), "{key}");
    }
    drop(index);
    fs::remove_file(dir.path().join("journal/clean")).unwrap();
    let store = open(dir.path());
    assert_eq!(answers(&store), before);
    assert_eq!(read(store.open_object(&uid("1.9.2")).unwrap()), b"photo");
    assert_eq!(files(&dir.path().join("outbox")).len(), 3);
    assert!(files(&dir.path().join("quarantine/orphans")).is_empty());
}

/// The state folder as a crash leaves it: no clean mark, journal cut at `length`.
fn crash_at(from: &Path, to: &Path, journal: &[u8], length: usize) {
    let _absent = fs::remove_dir_all(to);
    assert!(Command::new("cp").args(["-a".as_ref(), from, to]).status().unwrap().success());
    let _absent = fs::remove_file(to.join("journal/clean"));
    fs::write(to.join(format!("journal/{:020}.jnl", 0)), &journal[..length]).unwrap();
}

#[test]
fn inv_01_a_journal_torn_at_any_byte_of_its_last_record_keeps_all_before_and_takes_the_object_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("whole");
    let store = open(&state);
    fill(&store);
    let before = answers(&store);
    let kept = store.status().unwrap().journal_bytes as usize;
    accept(&*store, &uid("1.9"), &uid("1.9.6"), b"last").unwrap();
    drop(store);
    let journal = fs::read(state.join(format!("journal/{:020}.jnl", 0))).unwrap();
    assert!(kept < journal.len());
    let torn = dir.path().join("torn");
    // Every byte for the cut itself is tried in the journal's own tests; here whole stores at every seventh.
    for length in (kept..journal.len()).step_by(7).chain([journal.len() - 1]) {
        crash_at(&state, &torn, &journal, length);
        let store = open(&torn);
        assert_eq!(answers(&store), before, "length={length}");
        assert_eq!(store.accepted(&uid("1.9.6")).unwrap(), None);
        assert!(!torn.join("objects/1.9/1.9.6.dcm").exists(), "the file without a record is out of the way");
        let again = accept(&*store, &uid("1.9"), &uid("1.9.6"), b"last").unwrap();
        assert!(matches!(again, Acceptance::New(ref object) if object.seq == 6), "{again:?}");
    }
}

#[test]
fn a_record_lost_in_the_middle_is_worked_round_and_its_object_kept_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = uid("1.9.1");
    accept(&*store, &uid("1.9"), &first, b"first").unwrap();
    let start = store.status().unwrap().journal_bytes as usize;
    accept(&*store, &uid("1.9"), &uid("1.9.2"), b"second").unwrap();
    accept(&*store, &uid("1.9"), &uid("1.9.3"), b"third").unwrap();
    drop(store);
    let path = dir.path().join(format!("journal/{:020}.jnl", 0));
    let mut journal = fs::read(&path).unwrap();
    journal[start + 40] ^= 1;
    fs::write(&path, journal).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::remove_file(dir.path().join("journal/clean")).unwrap();
    let store = open(dir.path());
    let seqs: Vec<u64> = store.pending(10).unwrap().iter().map(|object| object.seq).collect();
    assert_eq!(seqs, [1, 3]);
    assert_eq!(fs::read(dir.path().join("quarantine/orphans/1.9.2.dcm")).unwrap(), b"second");
    assert_eq!(files(&dir.path().join("quarantine/journal")).len(), 1);
    assert!(matches!(accept(&*store, &uid("1.9"), &uid("1.9.2"), b"second").unwrap(), Acceptance::New(_)));
}

#[test]
fn files_of_which_nobody_was_told_are_removed_when_the_store_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store);
    drop(store);
    fs::remove_file(dir.path().join("journal/clean")).unwrap();
    fs::create_dir_all(dir.path().join("objects/5.5")).unwrap();
    for orphan in ["objects/5.5/5.5.1.dcm", "objects/1.9/1.9.77.dcm", "outbox/2.2.77.dcm", "tmp/1-1.part"] {
        fs::write(dir.path().join(orphan), b"half a story").unwrap();
    }
    let store = open(dir.path());
    assert_eq!(files(&dir.path().join("objects")).len(), 5);
    assert_eq!(files(&dir.path().join("outbox")).len(), 3);
    assert!(files(&dir.path().join("tmp")).is_empty() && !dir.path().join("objects/5.5").exists());
    assert!(matches!(accept(&*store, &uid("5.5"), &uid("5.5.1"), b"whole").unwrap(), Acceptance::New(_)));
}

#[test]
fn the_journal_rotates_and_an_index_is_rebuilt_from_all_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes_max: 2000, ..Config::at(dir.path()) };
    let store = Store::open(&config).unwrap();
    fill(&store);
    let before = answers(&store);
    drop(store);
    assert!(fs::read_dir(dir.path().join("journal")).unwrap().count() > 4);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(answers(&Store::open(&config).unwrap()), before);
}

#[test]
fn sealed_journal_files_are_compacted_beside_the_work_and_the_answers_stay() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes_max: 700, upkeep_every: None, ..Config::at(dir.path()) };
    let store = Store::open(&config).unwrap();
    fill(&store);
    for number in 1..=3 {
        store.delivered(number, "ehr", UnixMicros(6)).unwrap();
        store.custody(number, "ehr", Proof::Query, UnixMicros(7)).unwrap();
    }
    let without_length = |store: &Store| {
        let proofs: Vec<_> = (1..=3).map(|seq| store.custody_of(seq).unwrap()).collect();
        let answers = answers(store);
        (answers[..answers.rfind(',').unwrap()].to_owned(), proofs)
    };
    let before = without_length(&store);
    let long = store.status().unwrap().journal_bytes;
    drop(store);
    let journal_files = || files(&dir.path().join("journal")).into_iter().filter(|name| name.ends_with(".jnl")).count();
    let many = journal_files();
    let busy = Config { upkeep_every: Some(Duration::from_millis(5)), ..config.clone() };
    let store = Store::open(&busy).unwrap();
    for _patience in 0..1000 {
        if journal_files() + 3 <= many {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(journal_files() + 3 <= many, "{many} files are {}", journal_files());
    assert_eq!(without_length(&store), before);
    drop(store);
    for without_index in [false, true] {
        if without_index {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(&config).unwrap();
        assert_eq!(without_length(&store), before, "without index: {without_index}");
        assert!(store.status().unwrap().journal_bytes < long);
        assert_eq!(store.status().unwrap().index_rebuilds, u64::from(without_index));
    }
}
