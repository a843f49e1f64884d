//! What carts, modalities and viewers ask of a real box besides storage: commitment, steps, queries, retrievals, and with what
//! they introduce themselves. The peers are DCMTK's and pynetdicom's.

use dicom_dictionary_std::tags;
use fovea_core::sop_class;
use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::{dcmtk, object, peer, ports, wait};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const CLASS: &str = sop_class::SECONDARY_CAPTURE;
const ALL: &str = r#"["store", "commitment", "steps", "query", "retrieve"]"#;

/// A box for a cart and for `foveactl send`, each granted everything; `more` are further keys of the cart.
fn start(folder: &Path, more: &str) -> Node {
    let peers = format!("peers = [{{ ae_title = \"CART\", services = {ALL}{more} }}, {{ ae_title = \"FOVEACTL\" }}]");
    Setup::new(folder).expect("a box").receive(&peers).start().expect("the box starts")
}

fn sample(folder: &Path, seed: u64) -> (PathBuf, Sample) {
    let sample = Sample::secondary_capture(seed);
    (sample.write(folder).expect("the sample is written"), sample)
}

fn ask(asked: Value) -> Value {
    peer::run("services.py", &[asked.to_string()]).expect("the peer runs")
}

fn study_of(path: &Path) -> String {
    object::text(&object::open(path).expect("a Part 10 file"), tags::STUDY_INSTANCE_UID).expect("a study")
}

fn counts(node: &Node) -> Value {
    node.ctl().status().expect("the box answers")["receive"].clone()
}

#[test]
fn a_cart_that_waits_hears_on_its_own_association_what_the_box_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), "");
    let (file, sample) = sample(folder.path(), 1);
    let uid = sample.sop_instance_uid();
    let references = json!([[CLASS, uid], [CLASS, "1.2.3.4"], [sop_class::ULTRASOUND, uid]]);
    let told = ask(json!({
        "do": "commit", "port": node.port(), "files": [file], "references": references, "transaction": "1.2.9.1", "wait_s": 15,
    }));
    assert_eq!((&told["stored"][0], &told["asked"]), (&json!(0), &json!(0)), "{told}");
    let report = &told["reports"][0];
    assert_eq!(report["same_association"], true, "{told}");
    assert_eq!((&report["transaction"], &report["event_type"]), (&json!("1.2.9.1"), &json!(2)));
    assert_eq!((&report["committed"], &report["reasons"]), (&json!([uid]), &json!([0x0112, 0x0119])));
    assert_eq!((&counts(&node)["commitments_asked"], &counts(&node)["commitments_told"]), (&json!(1), &json!(1)));
}

#[test]
fn a_cart_that_released_is_called_back() {
    let folder = tempfile::tempdir().unwrap();
    let reply_port = ports::free().unwrap();
    let node = start(folder.path(), &format!(", reply_to = \"127.0.0.1:{reply_port}\""));
    let (file, sample) = sample(folder.path(), 2);
    let told = ask(json!({
        "do": "commit", "port": node.port(), "files": [file], "references": [[CLASS, sample.sop_instance_uid()]],
        "transaction": "1.2.9.2", "reply_port": reply_port, "wait_s": 20,
    }));
    let report = &told["reports"][0];
    assert_eq!((&report["same_association"], &report["event_type"]), (&json!(false), &json!(1)), "{told}");
    assert_eq!(report["committed"], json!([sample.sop_instance_uid()]));
}

#[test]
fn inv_01_a_commitment_that_was_taken_is_told_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let reply_port = ports::free().unwrap();
    let mut node = start(folder.path(), &format!(", reply_to = \"127.0.0.1:{reply_port}\""));
    let (file, sample) = sample(folder.path(), 3);
    // Nobody listens where the box calls back: it cannot tell before it dies.
    let told = ask(json!({
        "do": "commit", "port": node.port(), "files": [file], "references": [[CLASS, sample.sop_instance_uid()]],
        "transaction": "1.2.9.3", "wait_s": 0,
    }));
    assert_eq!((&told["asked"], &told["reports"]), (&json!(0), &json!([])), "{told}");
    node.kill().unwrap();
    let asked = json!({ "do": "listen", "reply_port": reply_port, "wait_s": 90, "port": 0 });
    let listening = std::thread::spawn(move || ask(asked));
    wait::until(LIMIT, || "the peer to listen".into(), || Ok(ports::listening(reply_port).then_some(()))).unwrap();
    node.start().unwrap();
    let told = listening.join().unwrap();
    let report = &told["reports"][0];
    assert_eq!((&report["transaction"], &report["event_type"]), (&json!("1.2.9.3"), &json!(1)), "{told}");
    assert_eq!(report["committed"], json!([sample.sop_instance_uid()]));
}

#[test]
fn a_step_that_is_over_makes_its_study_whole() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), "");
    let (file, sample) = sample(folder.path(), 4);
    let study = study_of(&file);
    let told = ask(json!({
        "do": "step", "port": node.port(), "instance": "1.2.8.1", "studies": [study],
        "instances": [[CLASS, sample.sop_instance_uid()]],
    }));
    // Created; created twice; completed; completed twice.
    assert_eq!(told["statuses"], json!([0x0000, 0x0111, 0x0000, 0x0110]), "{told}");
    let state = || -> Option<Value> {
        let status = node.ctl().status().ok()?;
        status["studies"].as_array()?.iter().find(|row| row["study_uid"] == json!(study)).cloned()
    };
    assert_eq!(state().expect("the study is known")["missing"], 1);
    node.send(&[file]).unwrap();
    let whole =
        wait::until(LIMIT, || "the study to be whole".into(), || Ok(state().filter(|state| state["by"] == "step")));
    assert_eq!(whole.unwrap()["missing"], 0);
}

#[test]
fn a_viewer_finds_and_fetches_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let moved = folder.path().join("moved");
    let (_receiver, moved_port) = dcmtk::storescp(&moved, &["-aet", "ARCHIVE"]).unwrap();
    let more = format!(" }}, {{ ae_title = \"ARCHIVE\", reply_to = \"127.0.0.1:{moved_port}\"");
    let node = start(folder.path(), &more);
    let (port, samples) = (node.port().to_string(), [sample(folder.path(), 5), sample(folder.path(), 6)]);
    let files: Vec<PathBuf> = samples.iter().map(|(file, _)| file.clone()).collect();
    node.send(&files).unwrap();
    let study = study_of(&files[0]);
    let key = format!("StudyInstanceUID={study}");
    let base = ["-S", "-aet", "CART", "-aec", "FOVEA"];
    let ask = |program: &str, more: &[&str]| {
        let arguments = [&base[..], more, &["127.0.0.1", &port]].concat();
        dcmtk::succeed(program, &arguments).unwrap()
    };
    let name = [
        "-v",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        &key,
        "-k",
        "PatientName",
        "-k",
        "NumberOfStudyRelatedInstances",
    ];
    let found = wait::until(
        LIMIT,
        || "the study to be found".into(),
        || {
            let said = ask("findscu", &name);
            Ok(said.contains(&study).then_some(said).filter(|said| said.contains("Find Response: 1")))
        },
    );
    assert!(found.unwrap().contains("PatientName"));
    let wanted = samples[0].1.sop_instance_uid();
    let instance = format!("SOPInstanceUID={wanted}");
    let got = folder.path().join("got");
    std::fs::create_dir(&got).unwrap();
    let level = ["-k", "QueryRetrieveLevel=IMAGE", "-k", &key, "-k", &instance];
    ask("getscu", &[&level[..], &["-od", got.to_str().unwrap()]].concat());
    ask("movescu", &[&level[..], &["-aem", "ARCHIVE"]].concat());
    for folder in [&got, &moved] {
        let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{}", folder.display());
        let fetched = object::open(&files[0]).unwrap();
        assert_eq!(object::text(&fetched, tags::SOP_INSTANCE_UID).as_deref(), Some(wanted.as_str()));
        let sent = object::open(&samples[0].0).unwrap();
        assert_eq!(object::pixel_data(&fetched).unwrap(), object::pixel_data(&sent).unwrap());
    }
    let unknown = [&base[..], &level, &["-aem", "NOBODY", "127.0.0.1", &port]].concat();
    let refused = dcmtk::run("movescu", &[&["-v"], &unknown[..]].concat()).unwrap();
    assert!(refused.text.contains("MoveDestinationUnknown"), "{}", refused.text);
}

#[test]
fn a_modality_is_not_told_of_patients_unless_it_is_granted_that() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), "");
    let port = node.port().to_string();
    let ask = |calling: &str| {
        let level = ["-S", "-aet", calling, "-aec", "FOVEA", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName"];
        dcmtk::run("findscu", &[&level[..], &["127.0.0.1", &port]].concat()).unwrap()
    };
    assert!(ask("CART").success);
    let refused = ask("FOVEACTL");
    assert!(refused.text.contains("No Acceptable Presentation Contexts"), "{}", refused.text);
}

#[test]
fn a_user_is_checked_and_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), ", username = \"cart\", passcode = \"sesame\"");
    let say = |username: &str, passcode: &str| {
        ask(json!({ "do": "user", "port": node.port(), "username": username, "passcode": passcode }))
    };
    let good = say("cart", "sesame");
    assert_eq!((&good["established"], &good["confirmed"]), (&json!(true), &json!(true)), "{good}");
    for wrong in [say("cart", "open"), say("nurse", "sesame")] {
        assert_eq!((&wrong["established"], &wrong["rejected"]), (&json!(false), &json!(true)), "{wrong}");
    }
}

#[test]
fn a_request_with_all_contexts_roles_for_every_class_a_window_and_a_user_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), "");
    let (file, _) = sample(folder.path(), 7);
    let told = ask(json!({ "do": "many", "port": node.port(), "filler": 127, "files": [file] }));
    assert_eq!((&told["established"], &told["proposed"]), (&json!(true), &json!(128)), "{told}");
    assert_eq!((&told["accepted"], &told["stored"]), (&json!(1), &json!([0])), "{told}");
    assert_eq!(told["window"], json!([1, 1]));
}
