//! A full disk: senders are told to come back, nothing acknowledged is lost, and all goes on once there is space.
//!
//! In: a box whose state lies on a small tmpfs. Out: statuses and outcomes while it is full and after. Promise: each object ends in
//! one outcome, however full the disk was when it came. Needs the right to mount; without it the test says so and passes.

use anyhow::{Context as _, ensure};
use fovea_core::sop_class;
use fovea_tests::node::Setup;
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::wire::{self, Association};
use fovea_tests::{paths, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const EYE: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
const DISK_MIB: u64 = 48;
const OUT_OF_RESOURCES: u16 = 0xa700;
/// The box asks how full the disk is at most five times a second.
const WATERMARK_ANSWER: Duration = Duration::from_millis(300);

/// A tmpfs of 48 MiB, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(at: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(at).with_context(|| format!("make {}", at.display()))?;
        let size = format!("size={DISK_MIB}m,mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let done = done.context("run mount")?;
        if done.status.success() {
            return Ok(Some(Self(at.to_owned())));
        }
        println!("SKIPPED: this process may not mount a tmpfs: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(None)
    }

    /// Writes a file until `keep` bytes are left; 0 fills it to the last byte.
    fn fill(&self, keep: u64) -> anyhow::Result<()> {
        let mut ballast = std::fs::File::options().create(true).append(true).open(self.ballast())?;
        let block = vec![0xa5; 64 << 10];
        while self.free()? > keep {
            let bytes = (self.free()? - keep).min(block.len() as u64) as usize;
            match ballast.write(&block[..bytes.max(1)]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("make space again")
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn free(&self) -> anyhow::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.0).context("ask for free space")?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test leaves running still has files open in there.
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

/// Sends one small eye photograph over an association of its own.
fn send(port: u16, seed: u64) -> anyhow::Result<(String, u16)> {
    let mut sample = Sample::secondary_capture(seed).class(EYE, "OP").size(100, 100);
    sample.samples_per_pixel = 3;
    let (uid, data_set) = (sample.sop_instance_uid(), wire::encode(sample.data_set(), EXPLICIT_VR_LE)?);
    let mut association = Association::open_for(port, EYE)?;
    let status = association.store(EYE, &uid, &data_set)?;
    association.release()?;
    Ok((uid, status))
}

fn send_stored(port: u16, seed: u64) -> anyhow::Result<String> {
    let (uid, status) = send(port, seed)?;
    ensure!(status == 0, "status {status:04x}");
    Ok(uid)
}

#[test]
fn inv_01_inv_02_inv_08_a_full_disk_refuses_for_now_keeps_what_it_said_and_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path()).unwrap();
    // Mounted before the box is made, so dropped after it has ended.
    let Some(disk) = SmallDisk::mount(&folder.path().join("state")).unwrap() else { return };
    let mut node = setup.start().unwrap();
    let (port, ctl) = (node.port(), node.ctl());
    let mut acknowledged: Vec<String> = (0..3).map(|seed| send_stored(port, seed).unwrap()).collect();
    for uid in &acknowledged {
        ctl.wait_for_finding(uid, Duration::from_secs(30)).unwrap();
    }

    // Accepted while there is space, looked at when there is none: the worker sleeps in between.
    let worker = Pid::from_raw(node.worker_pid().unwrap().cast_signed());
    kill(worker, Signal::SIGSTOP).unwrap();
    acknowledged.extend((10..13).map(|seed| send_stored(port, seed).unwrap()));
    // Past the watermark of 90 %, with room for one picture in the capture folder.
    disk.fill(3 << 20).unwrap();
    std::thread::sleep(WATERMARK_ANSWER);
    let picture = paths::sample("retina.jpg").unwrap();
    node.capture(&picture).unwrap();
    let waiting = node.state().join("capture/retina.jpg");
    let (refused, status) = send(port, 20).unwrap();
    assert_eq!(status, OUT_OF_RESOURCES, "past the watermark: come back later");

    disk.fill(0).unwrap();
    kill(worker, Signal::SIGCONT).unwrap();
    assert_eq!(send(port, 20).unwrap(), (refused.clone(), OUT_OF_RESOURCES), "no byte left: come back later");
    std::thread::sleep(Duration::from_secs(4));
    assert!(node.process().unwrap().ended().unwrap().is_none(), "the daemon stays up");
    assert!(waiting.is_file(), "a captured picture waits in its folder");
    let known = ctl.findings().unwrap();
    assert!(known.iter().all(|finding| finding.sop_instance_uid.as_str() != refused), "what was refused is not held");

    disk.empty().unwrap();
    let again = wait::until(
        Duration::from_secs(10),
        || "space to be noticed".into(),
        || {
            let (uid, status) = send(port, 20)?;
            Ok((status == 0).then_some(uid))
        },
    );
    acknowledged.push(again.unwrap());
    for uid in &acknowledged {
        ctl.wait_for_finding(uid, Duration::from_secs(60)).unwrap();
    }
    let captured = || Ok((ctl.findings()?.len() > acknowledged.len() && !waiting.exists()).then_some(()));
    wait::until(Duration::from_secs(60), || "the captured picture's outcome".into(), captured).unwrap();
    assert_each_has_one_outcome(&ctl, &acknowledged);

    node.stop().unwrap();
    node.start().unwrap();
    assert_each_has_one_outcome(&node.ctl(), &acknowledged);
    // Ended before the disk under it goes.
    node.stop().unwrap();
}

/// The acknowledged objects and the captured one: one outcome each.
fn assert_each_has_one_outcome(ctl: &fovea_tests::ctl::Ctl, acknowledged: &[String]) {
    let findings = ctl.findings().expect("the daemon answers");
    for uid in acknowledged {
        let count = findings.iter().filter(|finding| finding.sop_instance_uid.as_str() == uid).count();
        assert_eq!(count, 1, "outcomes of {uid}");
    }
    assert_eq!(findings.len(), acknowledged.len() + 1, "and one for the captured picture");
}
