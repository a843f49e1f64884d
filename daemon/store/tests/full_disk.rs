//! A disk that is really full. Needs root for a small tmpfs; says so and passes where that is not possible.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_core::*;
use fovea_store::{Config, Store};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=700");
        match mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(Self(at.to_owned())),
            Err(errno) => {
                println!("skipped: a small tmpfs cannot be mounted here ({errno})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path(), "8m") else { return };
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    // The watermark is off, so that the disk itself says no, anywhere.
    let config = Config { high_watermark_percent: 101, ..Config::at(dir.path()) };
    let store = Store::open(&config).unwrap();
    let study = uid("1.9");
    let mut held = Vec::new();
    let mut refusals = 0;
    for number in 0..2000 {
        let sop = uid(format!("1.9.{number}"));
        // Small ones too, so that the last free pages go to whatever asks: file, folder, journal, index.
        let bytes = vec![7; if number % 3 == 0 { 40_000 } else { 100 }];
        match accept(&*store, &study, &sop, &bytes) {
            Ok(Acceptance::New(_)) => held.push((sop, bytes)),
            Ok(other) => panic!("{other:?}"),
            Err(PortError::OutOfSpace { .. }) => refusals += 1,
            // With no room at all even the index may be gone for the moment: a refusal, too, and not a final one.
            Err(PortError::Io { .. }) => refusals += 1,
            Err(other) => panic!("{other:?}"),
        }
        if refusals > 50 {
            break;
        }
    }
    assert!(refusals > 50 && held.len() > 20, "{refusals} refused, {} held", held.len());
    assert_eq!(files(&dir.path().join("objects")).len(), held.len(), "nothing half-done shows");
    assert!(files(&dir.path().join("tmp")).is_empty());

    std::fs::remove_file(&ballast).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100)); // a failed rebuild is not tried again sooner
    let check = |store: &Store| {
        for (sop, bytes) in &held {
            assert_eq!(read(store.open_object(sop).unwrap()), *bytes);
        }
        assert_eq!(store.pending(5000).unwrap().len() as u64, store.status().unwrap().objects);
    };
    check(&store);
    let again = accept(&*store, &study, &uid("1.9.9999"), b"room again").unwrap();
    assert!(matches!(again, Acceptance::New(_)));
    assert_eq!(store.record(finding(&held[0].0, 0.5)).unwrap(), Recorded::New);
    drop(store);
    // The journal alone must know all of it.
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = Store::open(&config).unwrap();
    for (sop, bytes) in &held {
        assert_eq!(read(store.open_object(sop).unwrap()), *bytes, "{sop}");
    }
    assert_eq!(store.finding_of(&held[0].0).unwrap(), Some(finding(&held[0].0, 0.5)));
    assert_eq!(store.status().unwrap().objects as usize, held.len() + 1);
}
