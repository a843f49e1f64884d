//! Models on a running box: installed, activated, rolled back, refused, damaged, and measured on labelled pictures. Everything through the
//! built programs.

use anyhow::Context as _;
use ed25519_dalek::{Signer, SigningKey};
use fovea_core::{Outcome, Sha256};
use fovea_tests::node::{Node, Setup};
use fovea_tests::{paths, wait};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "dr-screening";

/// Signs what these tests make; no box of anybody trusts it.
fn signer() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// A box that serves the built-in eye model and also trusts the tests' key.
fn boxed(folder: &Path) -> Node {
    let mut node = stopped(folder);
    node.start().expect("the box starts");
    node
}

/// The same, not started yet.
fn stopped(folder: &Path) -> Node {
    let node = Setup::new(folder).expect("a box").prepare().expect("a configuration");
    let text = fs::read_to_string(node.config_path()).expect("the configuration");
    let key = Sha256(signer().verifying_key().to_bytes());
    let text = text.replace("trusted_keys = [", &format!("trusted_keys = [\"{key}\", "));
    fs::write(node.config_path(), text).expect("the configuration");
    node
}

/// The eye bundle under another version, signed by the tests; `spoil` may change files before they are hashed.
fn version(folder: &Path, version: &str, spoil: impl Fn(&Path)) -> PathBuf {
    let from = paths::bundle().expect("the eye bundle");
    let to = folder.join(format!("bundle-{version}"));
    copy(&from, &to);
    spoil(&to);
    let toml = fs::read_to_string(from.join("bundle.toml")).expect("a manifest");
    let built_in = built_in_version();
    let (head, files) = toml.split_once("[files]").expect("a manifest lists its files");
    let mut toml = head.replacen(&format!("version = \"{built_in}\""), &format!("version = \"{version}\""), 1);
    toml.push_str("[files]\n");
    for line in files.lines().filter(|line| line.starts_with('"')) {
        let name = line.split('"').nth(1).expect("a file's name");
        let digest = Sha256::of(&fs::read(to.join(name)).expect("a file of the bundle"));
        toml.push_str(&format!("\"{name}\" = \"{digest}\"\n"));
    }
    fs::write(to.join("bundle.sig"), signer().sign(toml.as_bytes()).to_bytes()).expect("a signature");
    fs::write(to.join("bundle.toml"), toml).expect("a manifest");
    to
}

fn built_in_version() -> String {
    let toml = fs::read_to_string(paths::bundle().expect("the eye bundle").join("bundle.toml")).expect("a manifest");
    let toml: toml::Table = toml.parse().expect("a manifest is TOML");
    toml["version"].as_str().expect("a version").to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a copy");
        }
    }
}

/// Changes one byte of a file, whatever its mode.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::remove_file(path).expect("it can be replaced");
    fs::write(path, bytes).expect("it can be written");
}

fn ctl(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(paths::program("foveactl").expect("foveactl is built"));
    command.env("FOVEA_OPENVINO_DIR", paths::openvino().expect("the runtime"));
    command.arg("--state").arg(node.state()).args(arguments).output().expect("foveactl runs")
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn done(node: &Node, arguments: &[&str]) -> String {
    let output = ctl(node, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", says(&output));
    says(&output)
}

fn lines(text: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(text).lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// Versions that serve as the eye model.
fn serving(node: &Node) -> Vec<String> {
    let rows = lines(&ctl(node, &["models", "list", "--json"]).stdout);
    let serve = rows.iter().filter(|row| row["id"] == ID && row["state"] == "serving");
    serve.map(|row| row["version"].as_str().expect("a version").to_owned()).collect()
}

/// Where an installed version of the eye model lies.
fn installed(node: &Node, version: &str) -> PathBuf {
    node.state().join("models/installed").join(ID).join(version)
}

fn staged(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.state().join("models")).expect("the model store").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.display().to_string().contains("/.new-")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

#[test]
fn a_version_is_installed_and_rolled_back_between_two_objects_and_none_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = boxed(folder.path());
    let (old, new) = (built_in_version(), version(folder.path(), "7.0.0", |_| ()));
    let picture = paths::sample("retina.jpg").expect("the sample");
    assert_eq!(serving(&node), std::slice::from_ref(&old));

    // Pictures keep coming while the set changes: each has its own identity, because its bytes differ.
    let bytes = fs::read(&picture).expect("the sample");
    let sent = 12;
    std::thread::scope(|scope| {
        let node = &node;
        let sending = scope.spawn(move || {
            for number in 0..sent {
                let copy = folder_of(node).join(format!("retina-{number}.jpg"));
                fs::write(&copy, [bytes.as_slice(), format!("{number}").as_bytes()].concat()).expect("a picture");
                node.capture(&copy).expect("captured");
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        let told = done(node, &["models", "install", text(&new)]);
        assert!(told.contains(&format!("{ID} 7.0.0 serves now, in the place of {old}")), "{told}");
        sending.join().expect("all pictures are sent");
    });
    let findings = wait::until(
        LIMIT,
        || "an outcome for every picture".into(),
        || Ok(Some(node.ctl().findings()?).filter(|findings| findings.len() == sent)),
    )
    .expect("no object is lost");
    for finding in &findings {
        assert_eq!(finding.outcome, Outcome::Finding, "{finding:?}");
        let by = finding.model.as_ref().expect("a model").version.as_str();
        assert!([old.as_str(), "7.0.0"].contains(&by), "{by}");
    }
    let after = node.capture_and_wait(&paths::sample("retina-blurred-dark.jpg").expect("the sample"), LIMIT);
    assert_eq!(after.expect("an outcome").model.expect("a model").version, "7.0.0");

    done(&node, &["models", "rollback", ID]);
    assert_eq!(serving(&node), std::slice::from_ref(&old));
    done(&node, &["models", "rollback", ID]);
    assert_eq!(serving(&node), ["7.0.0"], "a rollback can be rolled back");
    done(&node, &["models", "activate", ID, &old]);
    assert_eq!(serving(&node), std::slice::from_ref(&old));
    let told = done(&node, &["models", "install", text(&new), "--no-activate"]);
    assert!(told.contains("was installed already") && told.contains("goes on serving"), "{told}");
    assert_eq!(serving(&node), [old]);
}

fn folder_of(node: &Node) -> PathBuf {
    let folder = node.folder().join("pictures");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn without_named_bundles_an_installation_leaves_the_bundle_that_lies_in_the_models_folder_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = stopped(folder.path());
    let config = fs::read_to_string(node.config_path()).expect("the configuration");
    let default: Vec<&str> = config.lines().filter(|line| !line.starts_with("bundles = ")).collect();
    fs::write(node.config_path(), default.join("\n")).expect("the configuration");
    copy(&paths::bundle().expect("the eye bundle"), &node.state().join("models").join(ID));
    node.start().expect("the box starts");
    let old = built_in_version();
    assert_eq!(serving(&node), std::slice::from_ref(&old));

    done(&node, &["models", "install", text(&version(folder.path(), "7.0.0", |_| ()))]);
    assert_eq!(serving(&node), ["7.0.0"]);
    done(&node, &["models", "rollback", ID]);
    assert_eq!(serving(&node), std::slice::from_ref(&old));
    assert!(node.stop().expect("it stops").success());
    node.start().expect("it starts again");
    assert_eq!(serving(&node), std::slice::from_ref(&old));
    done(&node, &["models", "rollback", ID]);
    assert_eq!(serving(&node), ["7.0.0"]);
    assert!(ctl(&node, &["doctor"]).status.success());
}

/// A worker that waits to come up while `<folder>/hold` is there, and tells so with `<folder>/held`.
fn held_worker(folder: &Path) -> PathBuf {
    let worker = paths::program("fovea-worker").expect("the worker is built");
    let (hold, held) = (folder.join("hold"), folder.join("held"));
    let script = format!(
        "#!/bin/sh\nwhile [ -e '{0}' ]; do : > '{1}'; /bin/sleep 0.05; done\nexec '{2}'\n",
        hold.display(),
        held.display(),
        worker.display()
    );
    let path = folder.join("held-worker");
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it can be run");
    path
}

#[test]
fn objects_are_answered_and_the_list_is_told_while_a_new_set_comes_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = stopped(folder.path());
    let config = fs::read_to_string(node.config_path()).expect("the configuration");
    let worker = paths::program("fovea-worker").expect("the worker is built");
    let slow = config.replace(&format!("{worker:?}"), &format!("{:?}", held_worker(folder.path())));
    assert_ne!(slow, config);
    fs::write(node.config_path(), slow).expect("the configuration");
    node.start().expect("the box starts");
    let old = built_in_version();
    done(&node, &["models", "install", "--no-activate", text(&version(folder.path(), "7.0.0", |_| ()))]);

    let (hold, held) = (folder.path().join("hold"), folder.path().join("held"));
    fs::write(&hold, "").expect("a file");
    std::thread::scope(|scope| {
        let node = &node;
        let activating = scope.spawn(move || done(node, &["models", "activate", ID, "7.0.0"]));
        wait::until(LIMIT, || "the new worker".into(), || Ok(held.exists().then_some(()))).expect("it is coming up");
        let finding = node.capture_and_wait(&paths::sample("retina.jpg").expect("the sample"), LIMIT);
        let (list, meanwhile) = (ctl(node, &["models", "list"]), serving(node));
        let was_coming_up = !activating.is_finished();
        fs::remove_file(&hold).expect("it was there");
        activating.join().expect("it is activated");

        assert!(was_coming_up, "the new set cannot have been up");
        assert_eq!(finding.expect("an outcome").model.expect("a model").version, old);
        assert_eq!(meanwhile, std::slice::from_ref(&old));
        let told = String::from_utf8_lossy(&list.stderr).into_owned();
        assert!(list.status.success() && told.contains("busy: activating dr-screening 7.0.0"), "{}", says(&list));
    });
    assert_eq!(serving(&node), ["7.0.0"]);
    let after = node.capture_and_wait(&paths::sample("retina-blurred-dark.jpg").expect("the sample"), LIMIT);
    assert_eq!(after.expect("an outcome").model.expect("a model").version, "7.0.0");
}

#[test]
fn inv_03_a_bundle_that_is_refused_is_not_kept_and_what_serves_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = boxed(folder.path());
    let before = serving(&node);
    let golden = |bundle: &Path| {
        let path = bundle.join("golden");
        let expected = fs::read_dir(path).expect("golden answers").flatten().map(|entry| entry.path());
        for path in expected.filter(|path| path.to_string_lossy().contains("expected")) {
            let bytes = fs::read(&path).expect("golden answers").iter().map(|byte| !byte).collect::<Vec<u8>>();
            fs::write(&path, bytes).expect("other golden answers");
        }
    };
    let wrong = version(folder.path(), "7.1.0", golden);
    let damaged = version(folder.path(), "7.2.0", |_| ());
    flip(&damaged.join("card.md"));
    let foreign = version(folder.path(), "7.3.0", |_| ());
    let other = SigningKey::from_bytes(&[1; 32]).sign(&fs::read(foreign.join("bundle.toml")).expect("a manifest"));
    fs::write(foreign.join("bundle.sig"), other.to_bytes()).expect("a signature");
    let garbage = folder.path().join("garbage.fovea");
    fs::write(&garbage, [7; 4000]).expect("a file");
    for (path, why) in [(&wrong, "golden vector"), (&damaged, "SHA-256"), (&foreign, "trusted keys"), (&garbage, "tar")]
    {
        let output = ctl(&node, &["models", "install", text(path)]);
        let told = says(&output);
        assert!(
            !output.status.success() && told.contains(why) && told.contains("what to do"),
            "{}: {told}",
            path.display()
        );
    }
    let absent = ctl(&node, &["models", "activate", ID, "7.2.0"]);
    assert!(!absent.status.success() && says(&absent).contains("not on this box"), "{}", says(&absent));
    assert_eq!(serving(&node), before);
    assert_eq!(staged(&node), [] as [PathBuf; 0]);
    assert!(!installed(&node, "").exists() || names(&installed(&node, "")).is_empty());
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn inv_03_a_byte_changed_on_disk_between_starts_is_refused_and_the_version_before_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = boxed(folder.path());
    let old = built_in_version();
    let new = version(folder.path(), "7.0.0", |_| ());
    done(&node, &["models", "install", text(&new)]);
    assert!(node.stop().expect("it stops").success());
    flip(&installed(&node, "7.0.0").join("card.md"));
    node.start().expect("it starts all the same");

    assert_eq!(serving(&node), std::slice::from_ref(&old));
    let status = node.ctl().status().expect("a status");
    let told = status["models"].as_array().expect("models").iter().filter_map(|model| model["refused"].as_str());
    assert!(told.clone().any(|why| why.contains("SHA-256")), "{status}");
    let doctor = ctl(&node, &["doctor"]);
    assert!(!doctor.status.success() && says(&doctor).contains("SHA-256"), "{}", says(&doctor));
    let finding = node.capture_and_wait(&paths::sample("retina.jpg").expect("the sample"), LIMIT).expect("an outcome");
    assert_eq!((finding.outcome, finding.model.expect("a model").version), (Outcome::Finding, old));
    let log = fs::read_to_string(node.log_path()).expect("a log");
    assert!(log.contains("ERROR") && log.contains("does not serve, the version before it is asked"), "{log}");

    let told = done(&node, &["models", "install", text(&new)]);
    assert!(told.contains("is whole again"), "{told}");
    assert_eq!(serving(&node), ["7.0.0"]);
    assert!(ctl(&node, &["doctor"]).status.success());
}

#[test]
fn inv_03_killed_at_any_moment_of_a_change_the_box_comes_up_with_the_old_set_or_the_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = boxed(folder.path());
    let old = built_in_version();
    let new = version(folder.path(), "7.0.0", |_| ());
    for (round, wait_ms) in [20, 150, 400, 800, 1300, 2000].into_iter().enumerate() {
        let program = paths::program("foveactl").expect("foveactl is built");
        let mut change = Command::new(program);
        change.arg("--state").arg(node.state()).args(["models", "install"]).arg(&new);
        change.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut change = change.spawn().expect("foveactl runs");
        std::thread::sleep(Duration::from_millis(wait_ms));
        node.kill().expect("it is killed");
        change.wait().expect("foveactl ends");
        node.start().expect("it comes up");
        let serves = serving(&node);
        assert!(serves == [old.clone()] || serves == ["7.0.0"], "round {round}: {serves:?}");
        assert_eq!(staged(&node), [] as [PathBuf; 0], "round {round}: nothing is left of a half installation");
        if serves == ["7.0.0"] {
            done(&node, &["models", "rollback", ID]);
        }
    }
}

#[test]
fn without_a_daemon_a_change_says_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Setup::new(folder.path()).expect("a box").prepare().expect("a configuration");
    for arguments in [&["models", "rollback", ID][..], &["models", "list"], &["models", "activate", ID, "1.0.0"]] {
        let output = ctl(&node, arguments);
        assert!(!output.status.success() && says(&output).contains("fovead run --state"), "{}", says(&output));
    }
}

/// Three photographs with labels, one of them twice, in a folder with its table.
fn labelled(folder: &Path, table: &str) -> anyhow::Result<PathBuf> {
    for (name, sample) in
        [("a.jpg", "retina.jpg"), ("sub/a-again.jpg", "retina.jpg"), ("dark.jpg", "retina-blurred-dark.jpg")]
    {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().context("a path in a folder")?)?;
        fs::copy(paths::sample(sample)?, path)?;
    }
    fs::copy(paths::sample("us-rgb.dcm")?, folder.join("us.dcm"))?;
    let path = folder.join("labels.csv");
    fs::write(&path, table)?;
    Ok(path)
}

fn eval(folder: &Path, labels: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(paths::program("foveactl").expect("foveactl is built"));
    command.env("FOVEA_OPENVINO_DIR", paths::openvino().expect("the runtime"));
    command.args(["models", "eval"]).arg(paths::bundle().expect("the eye bundle"));
    command.arg("--labels").arg(labels).arg("--images").arg(folder).args(more).output().expect("foveactl runs")
}

#[test]
fn an_evaluation_counts_each_picture_once_and_tells_what_was_not_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = "file,label,group,other\na.jpg,0,p1,x\nsub/a-again.jpg,1,p1,x\ndark.jpg,no,p2,x\nus.dcm,1,p3,x\n";
    let labels = labelled(folder.path(), table).expect("pictures");
    let page = folder.path().join("page.html");
    let output = eval(folder.path(), &labels, &["--json", "--html", text(&page)]);
    assert!(output.status.success(), "{}", says(&output));
    assert!(says(&output).contains("line 3: sub/a-again.jpg is the same picture as a.jpg"), "{}", says(&output));
    let rows = lines(&output.stdout);
    let outcome = |file: &str| rows.iter().find(|row| row["file"] == file).expect("a line a case")["outcome"].clone();
    assert_eq!(
        (outcome("a.jpg"), outcome("dark.jpg"), outcome("us.dcm")),
        ("finding".into(), "ungradable".into(), "not_analysed".into())
    );
    let last = rows.last().expect("a last line");
    for key in [
        "n",
        "auc",
        "auc_low",
        "auc_high",
        "sensitivity",
        "specificity",
        "ece",
        "accuracy",
        "kappa",
        "dice",
        "iou",
        "ap50",
        "count_error",
        "ungradable_rate",
        "latency_ms_p50",
    ] {
        assert!(last.get(key).is_some(), "{key} in {last}");
    }
    assert_eq!(
        (last["n"].as_u64(), last["n_answered"].as_u64(), last["n_positive"].as_u64()),
        (Some(3), Some(1), Some(1))
    );
    assert!((last["ungradable_rate"].as_f64().expect("a rate") - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(last["auc"], Value::Null, "one case has no pair");
    let page = fs::read_to_string(page).expect("the page");
    assert!(page.contains("Research use only") && page.contains("data:image/png;base64,"));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched");
}

#[test]
fn an_evaluation_answers_as_the_box_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = boxed(folder.path());
    let finding = node.capture_and_wait(&paths::sample("retina.jpg").expect("the sample"), LIMIT).expect("an outcome");
    let labels = labelled(folder.path(), "file,label\na.jpg,0\n").expect("pictures");
    let rows = lines(&eval(folder.path(), &labels, &["--json"]).stdout);
    let (theirs, ours) =
        (finding.probability.expect("a probability"), rows[0]["probability"].as_f64().expect("one too"));
    assert!((theirs - ours).abs() < 1e-9, "{theirs} on the box, {ours} in the evaluation");
}

#[test]
fn an_evaluation_that_cannot_be_made_names_the_line() {
    let folder = tempfile::tempdir().expect("a folder");
    for (table, why) in [
        ("file,label\na.jpg,0\ngone.jpg,1\n", "line 3"),
        ("file,label\na.jpg,0\na.jpg,0\n", "line 3: a.jpg stands in line 2"),
        ("file,label\na.jpg,perhaps\n", "line 2: the label \"perhaps\""),
        ("picture,label\na.jpg,0\n", "no column `file`"),
    ] {
        let labels = labelled(folder.path(), table).expect("pictures");
        let output = eval(folder.path(), &labels, &[]);
        assert!(!output.status.success() && says(&output).contains(why), "{table:?}: {}", says(&output));
    }
    let labels = labelled(folder.path(), "file,label\na.jpg,0\ngone.jpg,1\n").expect("pictures");
    assert!(eval(folder.path(), &labels, &["--skip-missing"]).status.success());
}
