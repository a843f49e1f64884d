//! A power cut at every moment of a busy store: what was promised before it holds after it.
//!
//! A script runs on the simulated disk, which keeps an image for every sync, name and write: with nothing of what is
//! unsynced, with all of it, with a random part, and with a write torn at each sector. Each different image is opened as
//! a new store and asked.

use crate::config::Config;
use crate::disk::Disk;
use crate::evict::Keep;
use crate::files::Layout;
use crate::sim::{Image, Lie, SimDisk};
use crate::store::Store;
use common::*;
use fovea_core::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[path = "../tests/common/mod.rs"]
mod common;

/// What an answer said would last.
#[derive(Clone, Debug)]
enum Promise {
    Accepted {
        sop: Uid,
        bytes: Vec<u8>,
        seq: u64,
    },
    Conflict {
        sop: Uid,
        bytes: Vec<u8>,
    },
    Recorded {
        sop: Uid,
        probability: f64,
    },
    Dispatched {
        sop: Uid,
        reports: Vec<Uid>,
    },
    Delivered {
        seq: u64,
    },
    SetAside {
        seq: u64,
    },
    Custody {
        seq: u64,
    },
    /// It has this or a later version, or its removal after the last one was on its way.
    Remembered {
        key: String,
        version: u8,
    },
    Forgotten {
        key: String,
    },
}

struct Script {
    sim: Arc<SimDisk>,
    promises: Mutex<Vec<Promise>>,
}

impl Script {
    fn promise(&self, promise: Promise) {
        let mut promises = self.promises.lock().unwrap();
        promises.push(promise);
        assert_eq!(self.sim.promise(), promises.len() as u64);
    }
}

const ROOT: &str = "/sim/state";

/// Small segments, so that a script rolls through several; what an archive keeps goes at once, when the script says so.
fn config() -> Config {
    let at_once = std::time::Duration::ZERO;
    let keep = Keep { originals: at_once, deidentified: at_once, findings: at_once };
    Config { segment_bytes_max: 1500, keep, upkeep_every: None, ..Config::at(Path::new(ROOT)) }
}

/// Room in memory where there is some: an index is made for each image.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn start(sim: &Arc<SimDisk>, index: &Path) -> Arc<Store> {
    let layout = Layout { index: index.join("index"), ..Layout::new(Path::new(ROOT)) };
    let clock = Box::new(|| UnixMicros(77));
    Store::open_on(Disk::simulated(sim.clone()), layout, &config(), clock, None).unwrap()
}

fn bytes_of(sop: &Uid) -> Vec<u8> {
    // Longer than a sector, so that an object can be torn.
    sop.as_str().repeat(700 / sop.as_str().len()).into_bytes()
}

/// One association: objects, some with conflicts, outcomes, parcels and answers of a destination.
fn work(script: &Script, store: &Store, thread: usize, objects: usize) {
    for number in 0..objects {
        remember(script, store, thread, number);
        let sop = uid(format!("1.2.{thread}.{number}"));
        let study = uid(format!("1.{}", number % 2));
        let bytes = bytes_of(&sop);
        let Acceptance::New(held) = accept(store, &study, &sop, &bytes).unwrap() else { panic!("{sop} is new") };
        script.promise(Promise::Accepted { sop: sop.clone(), bytes, seq: held.seq });
        if number % 3 == 1 {
            let other = format!("other bytes of {sop}").into_bytes();
            accept(store, &study, &sop, &other).unwrap();
            script.promise(Promise::Conflict { sop: sop.clone(), bytes: other });
        }
        if number % 4 == 3 {
            continue; // waits for its outcome
        }
        store.record(finding(&sop, 0.25)).unwrap();
        script.promise(Promise::Recorded { sop: sop.clone(), probability: 0.25 });
        let reports = vec![uid(format!("2.1.{thread}.{number}")), uid(format!("2.2.{thread}.{number}"))];
        let parcels = reports.iter().map(|name| parcel(store, name, What::Findings, Lane::Findings, b"report"));
        let original = parcel(store, &sop, What::Originals, Lane::Pixels, &bytes_of(&sop));
        store.dispatch(&sop, parcels.chain([original]).collect(), vec![], UnixMicros(1)).unwrap();
        script.promise(Promise::Dispatched { sop: sop.clone(), reports });
        let parcels = store.sent_for(&sop).unwrap().0;
        store.delivered(parcels[0].parcel.seq, "vna", UnixMicros(5)).unwrap();
        script.promise(Promise::Delivered { seq: parcels[0].parcel.seq });
        if number % 2 == 0 {
            store.set_aside(parcels[1].parcel.seq, "vna", "refused").unwrap();
            script.promise(Promise::SetAside { seq: parcels[1].parcel.seq });
            let original = parcels[2].parcel.seq;
            store.delivered(original, "vna", UnixMicros(5)).unwrap();
            store.custody(original, "vna", Proof::Query, UnixMicros(6)).unwrap();
            script.promise(Promise::Custody { seq: original });
        }
        if number % 2 == 1 {
            store.evict().unwrap();
        }
    }
}

/// Versions of each document; those of odd numbers are removed after the last.
const VERSIONS: u8 = 3;

fn document_of(key: &str, version: u8) -> Document {
    // The last version is longer than a sector.
    let content = [version].repeat(if version == VERSIONS { 600 } else { 20 });
    Document { key: key.to_owned(), content }
}

/// One document: changed, and some of them removed. One that all threads share changes, too.
fn remember(script: &Script, store: &Store, thread: usize, number: usize) {
    let key = format!("{thread}.{number}");
    for version in 1..=VERSIONS {
        store.put_document(DocumentKind::ProcedureStep, document_of(&key, version)).unwrap();
        script.promise(Promise::Remembered { key: key.clone(), version });
    }
    let shared = Document { key: "shared".into(), content: key.clone().into_bytes() };
    store.put_document(DocumentKind::Verdict, shared).unwrap();
    if number % 2 == 1 {
        store.remove_document(DocumentKind::ProcedureStep, &key).unwrap();
        script.promise(Promise::Forgotten { key });
    }
}

struct Ran {
    images: Vec<(Image, usize)>,
    promises: Vec<Promise>,
}

/// The script: a first life of the store with `threads` associations, a clean stop, a second life. Upkeep goes on beside.
fn run(threads: usize, objects: usize, seed: u64, lie: Option<Lie>) -> Ran {
    let sim = SimDisk::new(Path::new("/sim"), seed);
    let (index, script) = (scratch(), Script { sim: sim.clone(), promises: Mutex::default() });
    Disk::simulated(sim.clone()).create_folders(Path::new(ROOT)).unwrap();
    Disk::simulated(sim.clone()).sync_folder(Path::new("/sim")).unwrap();
    sim.watch();
    let mut compactions = 0;
    lie.into_iter().for_each(|lie| sim.lie(lie));
    for life in 0..2 {
        let store = start(&sim, index.path());
        assert_eq!(store.status().unwrap().index_rebuilds, 1 - life as u64, "a clean stop leaves an index to believe");
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (script, store) = (&script, &store);
                scope.spawn(move || work(script, store, life * threads + thread, objects));
            }
        });
        while store.compact().unwrap().is_some() {
            compactions += 1;
        }
        let status = store.status().unwrap();
        assert!(status.evicted_objects > 0 && status.evicted_objects < status.objects, "{status:?}");
    }
    assert!(compactions >= 2, "{compactions} compactions");
    let (images, moments) = sim.images();
    let promises = script.promises.into_inner().unwrap();
    println!("seed {seed}: {moments} moments, {} different disks, {} promises", images.len(), promises.len());
    assert!(images.len() > 100 && promises.len() >= threads * objects * 2);
    Ran { images, promises }
}

/// Without those that a later one about the same document takes the place of.
fn standing(promises: &[Promise]) -> Vec<Promise> {
    let mut last = BTreeMap::new();
    for (at, promise) in promises.iter().enumerate() {
        if let Promise::Remembered { key, .. } | Promise::Forgotten { key } = promise {
            last.insert(key, at);
        }
    }
    let stands = |(at, promise): &(usize, &Promise)| match promise {
        Promise::Remembered { key, .. } | Promise::Forgotten { key } => last[key] == *at,
        _ => true,
    };
    promises.iter().enumerate().filter(stands).map(|(_, promise)| promise.clone()).collect()
}

/// Opens every image, on both cores, and checks it.
fn each_cut(ran: &Ran, check: impl Fn(&Store, &Arc<SimDisk>, &[Promise], usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _core in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some((image, promised)) = ran.images.get(number) else { break };
                    let (sim, index) = (SimDisk::from_image(Path::new("/sim"), image, number as u64), scratch());
                    let store = start(&sim, index.path());
                    check(&store, &sim, &standing(&ran.promises[..*promised]), number);
                }
            });
        }
    });
}

/// Objects and associations of the scripts: a taste in every run, the whole meal on demand.
fn size() -> (usize, usize, u64) {
    if std::env::var_os("FOVEA_TEST_LONG").is_some() { (4, 8, 5) } else { (2, 4, 1) }
}

fn seeds() -> impl Iterator<Item = u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let first = u64::from_le_bytes(random) >> 1;
    (0..size().2).map(move |number| first + number)
}

fn kept(store: &Store, promise: &Promise) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{what} of {promise:?}"));
    match promise {
        Promise::Accepted { sop, bytes, seq } => match store.accepted(sop).unwrap() {
            Some(held) if held.seq == *seq && held.data_set_sha256 == Sha256::of(bytes) => {
                match store.open_object(sop).map(read) {
                    Ok(found) if found == *bytes => Ok(()),
                    Err(PortError::NotHeld { .. }) if in_custody(store, sop) => Ok(()),
                    other => wrong(format!("{other:?}")),
                }
            }
            other => wrong(format!("{other:?}")),
        },
        Promise::Conflict { sop, bytes } => {
            let name = format!("quarantine/conflict/{sop}-{}.dcm", Sha256::of(bytes));
            let found = store.disk.open(&Path::new(ROOT).join(name)).map(read);
            if found.as_ref().is_ok_and(|found| found == bytes) { Ok(()) } else { wrong(format!("{found:?}")) }
        }
        Promise::Recorded { sop, probability } => match store.finding_of(sop).unwrap() {
            Some(found) if found == finding(sop, *probability) => Ok(()),
            other => wrong(format!("{other:?}")),
        },
        Promise::Dispatched { sop, reports } => {
            let sent = store.sent_for(sop).unwrap().0;
            let names: Vec<Uid> = sent.iter().map(|way| way.parcel.sop_instance_uid.clone()).collect();
            let whole = |way: &ParcelState| match store.open_parcel(way.parcel.seq).map(read) {
                Ok(found) => found == b"report" || found == bytes_of(sop),
                Err(PortError::NotHeld { .. }) => !store.custody_of(way.parcel.seq).unwrap().is_empty(),
                Err(_) => false,
            };
            let all = reports.iter().chain([sop]).eq(&names);
            if all && sent.iter().all(whole) { Ok(()) } else { wrong(format!("{sent:?}")) }
        }
        Promise::Delivered { seq } => match store.parcels_after(seq - 1, 1).unwrap().first() {
            Some(way) if way.delivered == [("vna".to_owned(), UnixMicros(5))] => Ok(()),
            other => wrong(format!("{other:?}")),
        },
        Promise::Custody { seq } => match store.custody_of(*seq) {
            Ok(held) if held.len() == 1 && held[0].destination == "vna" => Ok(()),
            other => wrong(format!("{other:?}")),
        },
        Promise::Remembered { key, version } => {
            let found = store.document(DocumentKind::ProcedureStep, key).unwrap();
            let removed = key.ends_with(['1', '3', '5', '7', '9']);
            match &found {
                Some(document) if (*version..=VERSIONS).any(|later| *document == document_of(key, later)) => Ok(()),
                None if removed && *version == VERSIONS => Ok(()),
                _ => wrong(format!("{found:?}")),
            }
        }
        Promise::Forgotten { key } => match store.document(DocumentKind::ProcedureStep, key).unwrap() {
            None => Ok(()),
            other => wrong(format!("{other:?}")),
        },
        Promise::SetAside { seq } => match store.parcels_after(seq - 1, 1).unwrap().first() {
            Some(way) if way.set_aside == [("vna".to_owned(), "refused".to_owned())] => Ok(()),
            other => wrong(format!("{other:?}")),
        },
    }
}

/// Whether some archive has proved to keep the object as it was received.
fn in_custody(store: &Store, sop: &Uid) -> bool {
    let sent = store.sent_for(sop).unwrap().0;
    let original = sent.iter().find(|way| way.parcel.sop_instance_uid == *sop);
    original.is_some_and(|way| !store.custody_of(way.parcel.seq).unwrap().is_empty())
}

fn paths(disk: &Disk, folder: &Path) -> BTreeSet<PathBuf> {
    let entries = disk.list(folder).unwrap();
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, is_folder)| *is_folder);
    let below = folders.iter().flat_map(|(folder, _)| paths(disk, folder));
    files.iter().map(|(path, _)| path.clone()).chain(below).collect()
}

#[test]
fn inv_01_a_power_cut_at_any_moment_keeps_all_that_was_acknowledged() {
    let (threads, objects, _) = size();
    for seed in seeds() {
        let ran = run(threads, objects, seed, None);
        each_cut(&ran, |store, sim, promises, number| {
            for promise in promises {
                kept(store, promise).unwrap_or_else(|wrong| panic!("seed {seed}, image {number}: {wrong}"));
            }
            // The disk still works, and a second cut right after the recovery takes nothing either.
            let sop = uid("9.9.9");
            accept(store, &uid("9.9"), &sop, b"after the cut").unwrap();
            if number % 16 == 0 {
                let (cut, index) = (SimDisk::from_image(Path::new("/sim"), &sim.cut_now(), 1), scratch());
                let store = start(&cut, index.path());
                for promise in promises {
                    kept(&store, promise).unwrap_or_else(|wrong| panic!("seed {seed}, image {number} again: {wrong}"));
                }
                assert_eq!(read(store.open_object(&sop).unwrap()), b"after the cut");
            }
        });
    }
}

#[test]
fn a_disk_that_only_pretends_to_sync_is_found_out() {
    for lie in [Lie::Files, Lie::Folders] {
        let ran = run(1, 4, 3, Some(lie));
        let broken = std::sync::atomic::AtomicUsize::new(0);
        each_cut(&ran, |store, _, promises, _| {
            if promises.iter().any(|promise| kept(store, promise).is_err()) {
                broken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let broken = broken.into_inner();
        println!("{lie:?}: {broken} of {} disks break a promise", ran.images.len());
        assert!(broken > 20, "{lie:?}");
    }
}

#[test]
fn inv_06_after_a_power_cut_at_any_moment_no_file_is_gone_that_no_archive_has_proved_to_keep() {
    let (threads, objects, _) = size();
    for seed in seeds() {
        let ran = run(threads, objects, seed, None);
        each_cut(&ran, |store, _, _, number| {
            for thread in 0..2 * threads {
                for object in 0..objects {
                    let sop = uid(format!("1.2.{thread}.{object}"));
                    if store.accepted(&sop).unwrap().is_some() && !in_custody(store, &sop) {
                        let found = store.open_object(&sop).map(read).unwrap();
                        assert_eq!(found, bytes_of(&sop), "seed {seed}, image {number}: {sop}");
                    }
                }
            }
        });
    }
}

#[test]
fn inv_02_after_a_power_cut_at_any_moment_each_object_has_one_outcome_or_waits_for_it() {
    let (threads, objects, _) = size();
    for seed in seeds() {
        let ran = run(threads, objects, seed, None);
        each_cut(&ran, |store, _, promises, number| {
            let at = format!("seed {seed}, image {number}");
            let disk = &store.disk;
            let status = store.status().unwrap();
            let pending = store.pending(1000).unwrap();
            assert_eq!(status.objects, status.findings + status.pending, "{at}");
            assert_eq!(status.pending, pending.len() as u64, "{at}");
            // No file without a record, no record without a file.
            let (objects, parcels) = (status.objects - status.evicted_objects, status.parcels - status.evicted_parcels);
            assert_eq!(paths(disk, &Path::new(ROOT).join("objects")).len() as u64, objects, "{at}");
            assert_eq!(paths(disk, &Path::new(ROOT).join("outbox")).len() as u64, parcels, "{at}");
            // Where a record is torn its file is put away and not removed, but it is never one that was promised.
            let orphans = paths(disk, &Path::new(ROOT).join("quarantine/orphans"));
            let stems: BTreeSet<_> = orphans.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
            for promise in promises {
                let Promise::Accepted { sop, .. } = promise else { continue };
                // A parcel of the same name may lie there: then the object itself is in its place.
                let in_place = stems.contains(sop.as_str()).then(|| kept(store, promise));
                assert!(in_place.is_none_or(|kept| kept.is_ok()), "{at}: {sop} was promised");
            }
            assert!(paths(disk, &Path::new(ROOT).join("tmp")).is_empty(), "{at}");
            for object in &pending {
                let sop = &object.header.sop_instance_uid;
                assert_eq!(store.finding_of(sop).unwrap(), None, "{at}");
                assert_eq!(read(store.open_object(sop).unwrap()), bytes_of(sop), "{at}: what waits can be read");
                assert_eq!(store.record(finding(sop, 0.75)).unwrap(), Recorded::New, "{at}");
            }
            assert!(store.pending(1000).unwrap().is_empty(), "{at}");
            let outcomes = store.findings_after(0, 1000).unwrap();
            let places: BTreeMap<u64, Uid> =
                outcomes.into_iter().map(|(place, f)| (place, f.sop_instance_uid)).collect();
            let named: BTreeSet<&Uid> = places.values().collect();
            assert_eq!((places.len() as u64, named.len() as u64), (status.objects, status.objects), "{at}");
        });
    }
}

#[test]
fn inv_04_after_a_power_cut_at_any_moment_what_comes_again_is_known_and_answered_as_before() {
    let (threads, objects, _) = size();
    for seed in seeds() {
        let ran = run(threads, objects, seed, None);
        each_cut(&ran, |store, _, promises, number| {
            let at = format!("seed {seed}, image {number}");
            let acknowledged: BTreeMap<&Uid, u64> = promises
                .iter()
                .filter_map(|promise| match promise {
                    Promise::Accepted { sop, seq, .. } => Some((sop, *seq)),
                    _ => None,
                })
                .collect();
            let before = store.status().unwrap();
            let (mut new, mut seqs) = (0, BTreeSet::new());
            for thread in 0..2 * threads {
                for object in 0..objects {
                    let sop = uid(format!("1.2.{thread}.{object}"));
                    let answer = accept(store, &uid(format!("1.{}", object % 2)), &sop, &bytes_of(&sop)).unwrap();
                    let held = match answer {
                        Acceptance::New(held) => {
                            assert!(!acknowledged.contains_key(&sop), "{at}: {sop} was held");
                            new += 1;
                            held
                        }
                        Acceptance::Duplicate(held) => held,
                        Acceptance::Conflict { .. } => panic!("{at}: {sop} has become another"),
                    };
                    assert!(acknowledged.get(&sop).is_none_or(|seq| *seq == held.seq), "{at}: {sop}");
                    assert!(seqs.insert(held.seq), "{at}: place {} is given twice", held.seq);
                    answer_again(store, &sop, &at);
                }
            }
            assert_eq!(store.status().unwrap().objects, before.objects + new, "{at}");
        });
    }
}

/// Its outcome and its parcels stay what they were, whatever is said now.
fn answer_again(store: &Store, sop: &Uid, at: &str) {
    let (known, sent) = (store.finding_of(sop).unwrap(), store.sent_for(sop).unwrap());
    let again = store.record(finding(sop, 0.5)).unwrap();
    assert_eq!(again, known.map_or(Recorded::New, |known| Recorded::Already(Box::new(known))), "{at}: {sop}");
    if !sent.0.is_empty() {
        let parcels = vec![parcel(store, &uid(format!("3.{sop}")), What::Findings, Lane::Findings, b"other")];
        store.dispatch(sop, parcels, vec![], UnixMicros(2)).unwrap();
        assert_eq!(store.sent_for(sop).unwrap(), sent, "{at}: {sop}");
    }
}
