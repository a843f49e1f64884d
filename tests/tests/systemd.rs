//! The daemon as a service: the unit is sound, the manager is told, a stop drains, a bad configuration is named, and nothing that
//! names a patient reaches the log or a file name.
//!
//! In: systemd/fovead.service and running boxes. Out: what systemd's own checker says, what arrives on the notify socket, exit codes.

use anyhow::{Context as _, ensure};
use fovea_core::sop_class;
use fovea_tests::archive::Archive;
use fovea_tests::node::Setup;
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::wire::{self, Association};
use fovea_tests::{dcmtk, paths, wait};
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const EYE: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
/// The service manager's exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h).
const EX_CONFIG: i32 = 78;

/// The committed unit, with a program that is on every machine in place of ours: systemd checks that it exists.
fn checkable_unit(folder: &Path) -> anyhow::Result<PathBuf> {
    let unit = std::fs::read_to_string(paths::workspace().join("systemd/fovead.service")).context("read the unit")?;
    let mut replaced = 0;
    let lines = unit.lines().map(|line| {
        let start = line.starts_with("ExecStart=");
        replaced += usize::from(start);
        if start { "ExecStart=/bin/true" } else { line }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    ensure!(replaced == 1, "the unit has {replaced} lines with ExecStart");
    let path = folder.join("fovead.service");
    std::fs::write(&path, text).context("write the unit")?;
    Ok(path)
}

fn systemd_analyze(arguments: &[&str], unit: &Path) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).arg(unit).output();
    let output = output.context("systemd-analyze is not installed: run `scripts/setup-peers.sh`")?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

#[test]
fn the_unit_is_sound_and_exposes_little() {
    let folder = tempfile::tempdir().unwrap();
    let unit = checkable_unit(folder.path()).unwrap();
    let (sound, said) = systemd_analyze(&["verify", "--man=no"], &unit).unwrap();
    // Lines about other units of the machine are not ours to judge.
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("fovead")).collect();
    assert!(sound && about_us.is_empty(), "{said}");

    // systemd counts in tenths: 15 is a score of 1.5.
    let (below, said) = systemd_analyze(&["security", "--offline=yes", "--no-pager", "--threshold=15"], &unit).unwrap();
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(below, "{said}");
}

#[test]
fn the_checker_sees_a_unit_that_is_not_sound() {
    let folder = tempfile::tempdir().unwrap();
    let unit = checkable_unit(folder.path()).unwrap();
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("NoNewPrivileges=", "NoNewPrivilegs=")).unwrap();
    let (_, said) = systemd_analyze(&["verify", "--man=no"], &unit).unwrap();
    assert!(said.lines().any(|line| line.contains("fovead") && line.contains("NoNewPrivilegs")), "{said}");
}

/// A service manager's end of the notify socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: String,
}

impl Manager {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).context("bind the notify socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).context("set a time limit")?;
        Ok(Self { socket, path, heard: String::new() })
    }

    /// Waits for a line that starts with `wanted`.
    fn hears(&mut self, wanted: &str, limit: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        let mut buffer = [0; 4096];
        while Instant::now() < end {
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push_str(&message);
            self.heard.push('\n');
            if message.lines().any(|line| line.starts_with(wanted)) {
                return Ok(());
            }
        }
        anyhow::bail!("no {wanted} within {} s; heard:\n{}", limit.as_secs(), self.heard)
    }
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::new(folder.path()).unwrap();
    let mut node = Setup::new(&folder.path().join("box")).unwrap().prepare().unwrap();
    let socket = manager.path.to_str().unwrap().to_owned();
    node.launch(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "1500000")]).unwrap();
    manager.hears("READY=1", Duration::from_secs(60)).unwrap();
    assert!(node.ctl().status().is_ok(), "ready means that it answers");
    assert!(Association::open_for(node.port(), EYE).is_ok(), "and that it takes objects");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1", Duration::from_secs(10)).unwrap();
    }
    let process = node.process().unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    manager.hears("STOPPING=1", Duration::from_secs(5)).unwrap();
    assert!(process.wait(Duration::from_secs(30)).unwrap().success());
}

#[test]
fn a_stop_with_objects_in_flight_ends_in_time_and_each_gets_its_outcome_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let samples: Vec<Sample> = (0..40).map(|seed| Sample::secondary_capture(seed).size(256, 256)).collect();
    let mut association = Association::open_for(node.port(), sop_class::SECONDARY_CAPTURE).unwrap();
    let mut acknowledged = Vec::new();
    let process = node.process().unwrap();
    for (index, sample) in samples.iter().enumerate() {
        if index == samples.len() / 2 {
            process.signal(Signal::SIGTERM).unwrap();
        }
        let data_set = wire::encode(sample.data_set(), EXPLICIT_VR_LE).unwrap();
        match association.store(&sample.sop_class_uid, &sample.sop_instance_uid(), &data_set) {
            Ok(0) => acknowledged.push(sample.sop_instance_uid()),
            // Told no, or cut off between objects: the sender keeps it.
            Ok(_) | Err(_) => break,
        }
    }
    assert!(acknowledged.len() >= samples.len() / 2, "those before the signal were acknowledged");
    // An open association must not hold the stop up past the drain deadline.
    assert!(process.wait(Duration::from_secs(30)).unwrap().success(), "{}", process.log_tail());

    node.start().unwrap();
    for uid in &acknowledged {
        node.ctl().wait_for_finding(uid, Duration::from_secs(30)).unwrap();
    }
    assert_eq!(node.ctl().findings().unwrap().len(), acknowledged.len(), "and no other object has an outcome");
}

#[test]
fn a_bad_configuration_ends_with_78_and_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fovea.toml");
    let destination = "[[sync.destination]]\nname = 'vna'\nkind = 'dimse'\naddress = 'h:104'\nae_title = 'VNA'\n";
    for (text, key) in [
        ("[receive]\nlisten = 'somewhere'".to_owned(), "receive.listen"),
        ("[receive]\nlisten = '0.0.0.0:11112'".to_owned(), "receive.peers"),
        ("[receive]\nlisen = '127.0.0.1:11112'".to_owned(), "lisen"),
        ("[receive]\nae_title = 'LONGER_THAN_SIXTEEN'".to_owned(), "receive.ae_title"),
        ("[infer]\nobject_deadline_ms = 1".to_owned(), "infer.object_deadline_ms"),
        ("[store]\nhigh_watermark_percent = 10".to_owned(), "store.high_watermark_percent"),
        ("[log]\nlevel = 'chatty'".to_owned(), "log.level"),
        (format!("{destination}what = ['everything']"), "what"),
        ("not toml at all".to_owned(), "fovea.toml"),
    ] {
        std::fs::write(&path, &text).unwrap();
        for command in ["check", "run"] {
            let mut fovead = Command::new(paths::program("fovead").unwrap());
            fovead.arg(command).arg("--config").arg(&path).arg("--state").arg(folder.path().join("state"));
            let output = fovead.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(EX_CONFIG), "{command} {text:?}: {said}");
            assert!(said.contains(key), "{command} {text:?} must name {key}: {said}");
        }
    }
    std::fs::write(&path, "[node]\nname = 'box'").unwrap();
    let mut fovead = Command::new(paths::program("fovead").unwrap());
    let output = fovead.arg("check").arg("--config").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn inv_09_no_patient_identity_reaches_the_log_the_status_or_a_file_name() {
    const TOKEN: &str = "ZQXMARKED";
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let mut archive = Archive::prepare(&folder.path().join("archive"), setup.port()).unwrap();
    archive.start().unwrap();
    let mut node = setup.archive(&archive).config("[log]\nlevel = \"trace\"\n").start().unwrap();

    let mut good = Sample::secondary_capture(1).class(EYE, "OP").size(300, 300);
    good.samples_per_pixel = 3;
    let other = Sample::secondary_capture(2);
    let mut damaged = Sample::secondary_capture(3).class(EYE, "OP").size(0, 300);
    damaged.samples_per_pixel = 3;
    let samples = [good, other, damaged].map(|sample| Sample { patient_token: TOKEN.into(), ..sample });
    for sample in &samples {
        let data_set = wire::encode(sample.data_set(), EXPLICIT_VR_LE).unwrap();
        let mut association = Association::open_for(node.port(), &sample.sop_class_uid).unwrap();
        let status = association.store(&sample.sop_class_uid, &sample.sop_instance_uid(), &data_set).unwrap();
        assert_eq!(status, 0);
        // The same UID with other bytes, and a data set that ends early: both are told of in the log.
        let changed = Sample { patient_token: format!("{TOKEN}2"), ..sample.clone() };
        let conflict = wire::encode(changed.data_set(), EXPLICIT_VR_LE).unwrap();
        association.store(&sample.sop_class_uid, &sample.sop_instance_uid(), &conflict).unwrap();
        let cut = Sample { seed: sample.seed + 50, ..sample.clone() };
        association.store(&sample.sop_class_uid, &cut.sop_instance_uid(), &data_set[..data_set.len() / 3]).unwrap();
        node.ctl().wait_for_finding(&sample.sop_instance_uid(), Duration::from_secs(30)).unwrap();
        node.ctl().wait_for_delivery(&sample.sop_instance_uid(), 1, Duration::from_secs(30)).unwrap();
    }
    // The original must hold the token, or this test could not fail.
    let stored = find(&node.state().join("objects"), &|path| contains(path, TOKEN));
    assert!(stored.is_some(), "the stored object names its patient");

    let status = node.ctl().status().unwrap().to_string();
    let listings = format!("{:?}{:?}{status}", node.ctl().findings().unwrap(), node.ctl().outbox().unwrap());
    node.stop().unwrap();
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(log.lines().count() > 5, "there is a log");
    for (place, text) in [("the log", &log), ("findings, outbox or status", &listings)] {
        assert!(!text.contains(TOKEN), "{place}: {:?}", text.lines().find(|line| line.contains(TOKEN)));
    }
    let named = find(node.state(), &|path| path.to_string_lossy().contains(TOKEN));
    assert_eq!(named, None, "a file name");
}

/// The first file or folder below `folder` that fits.
fn find(folder: &Path, fits: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if fits(&path) {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = find(&path, fits)
        {
            return Some(found);
        }
    }
    None
}

fn contains(path: &Path, token: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.windows(token.len()).any(|window| window == token.as_bytes()))
}

/// SIGTERM while an archive does not answer: the stop does not wait for it, and nothing is lost.
#[test]
fn a_stop_does_not_wait_for_an_archive_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    // Accepts connections and never says a word.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    let setup = Setup::new(&folder.path().join("box")).unwrap();
    let mut node = setup.destination("deaf", "DEAF", port, &["findings"]).start().unwrap();
    let sample = Sample::secondary_capture(1);
    node.send(&[sample.write(folder.path()).unwrap()]).unwrap();
    node.ctl().wait_for_finding(&sample.sop_instance_uid(), Duration::from_secs(30)).unwrap();
    let (_held, _) = deaf.accept().unwrap();
    let begun = Instant::now();
    assert!(node.stop().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());

    let (running, port) = dcmtk::storescp(&folder.path().join("archive"), &["-aet", "DEAF"]).unwrap();
    let text = std::fs::read_to_string(node.config_path()).unwrap();
    let there = deaf.local_addr().unwrap().to_string();
    std::fs::write(node.config_path(), text.replace(&there, &format!("127.0.0.1:{port}"))).unwrap();
    node.start().unwrap();
    let ctl = node.ctl();
    let detail = ctl.wait_for_delivery(&sample.sop_instance_uid(), 1, Duration::from_secs(60)).unwrap();
    assert_eq!(detail.sent.len(), 1, "the report, once an archive answers");
    let arrived = || Ok(find(&folder.path().join("archive"), &|path| path.is_file()));
    wait::until(Duration::from_secs(5), || "the report's file".into(), arrived).unwrap();
    drop(running);
}
