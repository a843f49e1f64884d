//! DICOMweb against a foreign client, and what a box says of bodies that are hostile, twice there or in the wrong place.
//! Standard: PS3.18 sections 10.4 to 10.6.

use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::{object, peer, ports};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A box with DICOMweb on loopback, and its port.
fn web_box(folder: &Path, more: &str) -> (Node, u16) {
    let port = ports::free().expect("a free port");
    let section = format!("[dicomweb]\nlisten = \"127.0.0.1:{port}\"\n{more}");
    (Setup::new(folder).expect("a box").config(&section).start().expect("the box starts"), port)
}

fn client(asked: &Value) -> Value {
    peer::run("web.py", &[asked.to_string()]).expect("the client's answers")
}

fn uid(sample: &Sample, tag: dicom_core::Tag) -> String {
    object::text(&sample.data_set(), tag).expect("a sample has its UIDs")
}

/// Three samples of one study, one of them with frames.
fn study(folder: &Path) -> Vec<(Sample, PathBuf)> {
    let samples = (1..=3).map(|seed| {
        let mut sample = Sample::secondary_capture(seed).size(64, 48);
        sample.study_seed = 7;
        sample.patient_token = "WEB".to_owned();
        sample.frames = if seed == 3 { 4 } else { 1 };
        if seed == 3 {
            sample = sample.class("1.2.840.10008.5.1.4.1.1.7.2", "OT");
        }
        let path = sample.write(folder).expect("a file");
        (sample, path)
    });
    samples.collect()
}

#[test]
fn a_foreign_client_stores_finds_and_fetches_what_it_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (node, port) = web_box(folder.path(), "");
    let samples = study(folder.path());
    let (last, last_path) = &samples[2];
    let paths: Vec<&PathBuf> = samples.iter().map(|(_, path)| path).collect();
    let (study, series) = (
        uid(last, dicom_dictionary_std::tags::STUDY_INSTANCE_UID),
        uid(last, dicom_dictionary_std::tags::SERIES_INSTANCE_UID),
    );
    let url = format!("http://127.0.0.1:{port}/dicomweb");
    let answers = client(&json!({
        "url": url, "store": paths, "study": study, "series": series, "instance": last.sop_instance_uid(),
        "frames": [1, 3, 4], "bulk": "7FE00010", "filters": { "PatientName": "web*" }, "compare": paths,
    }));
    let stored = answers["stored"]["00081199"]["Value"].as_array().unwrap();
    assert_eq!(stored.len(), 3, "{}", answers["stored"]);
    assert_eq!(answers["stored"].get("00081198"), None);

    assert_eq!(answers["studies"].as_array().unwrap().len(), 1, "{}", answers["studies"]);
    let found = &answers["studies"][0];
    // Reports that the box has made meanwhile are of the study, too.
    assert!(found["00201208"]["Value"][0].as_u64().unwrap() >= 3, "a question sees what was stored before it: {found}");
    assert_eq!(found["00100010"]["Value"][0]["Alphabetic"], "WEB^Invented");
    assert_eq!(found["00081190"]["Value"][0], format!("{url}/studies/{study}"));
    let images =
        |rows: &Value| rows.as_array().unwrap().iter().filter(|row| row["00080060"]["Value"][0] != "SR").count();
    assert_eq!((images(&answers["series"]), images(&answers["instances"])), (1, 3), "{answers}");
    assert_eq!(answers["limited"], 1);

    // Byte for byte what each of its own writers makes of it.
    for (sample, path) in &samples {
        let sent = &answers["sent"][path.to_str().unwrap()];
        assert_eq!(&answers["retrieved"][sample.sop_instance_uid()], sent, "{}", path.display());
    }
    assert_eq!(answers["one"], answers["sent"][last_path.to_str().unwrap()]);
    let metadata = answers["metadata"].as_array().unwrap();
    assert!(metadata.len() >= 3);
    let told = metadata.iter().find(|one| one["00080018"]["Value"][0] == last.sop_instance_uid()).unwrap();
    assert_eq!((&told["00280010"]["Value"], &told["00280008"]["Value"]), (&json!([48]), &json!([4])));
    let pixels = object::pixel_data(&last.data_set()).unwrap().concat();
    let digest = |frame: usize| fovea_core::Sha256::of(&pixels[(frame - 1) * 64 * 48..frame * 64 * 48]).to_string();
    assert_eq!(answers["frames"], json!([digest(1), digest(3), digest(4)]));
    assert_eq!(answers["bulk"], json!([digest(1), digest(2), digest(3), digest(4)]));
    // The box looked at what came over the web as at anything else.
    node.ctl().wait_for_finding(&last.sop_instance_uid(), Duration::from_secs(30)).unwrap();
}

/// A request on a connection of its own: its status, and the body as JSON where it is some.
fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let mut head = format!("{method} /dicomweb{path} HTTP/1.0\r\nHost: box\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all((head + "\r\n").as_bytes()).expect("a head sent");
    // A box that refuses early closes before it has read all.
    let _refused_early = stream.write_all(body);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer with a head");
    let status = String::from_utf8_lossy(&answer[9..12]).parse().expect("a status");
    (status, serde_json::from_slice(&answer[end + 4..]).unwrap_or(Value::Null))
}

const MULTIPART: (&str, &str) = ("Content-Type", "multipart/related; type=\"application/dicom\"; boundary=BB");

fn body(parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"\r\n--BB\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(part);
    }
    body.extend_from_slice(b"\r\n--BB--\r\n");
    body
}

/// Statuses of the failures: those whose object was understood, and the others.
fn reasons(answer: &Value) -> (Vec<u64>, Vec<u64>) {
    let of = |tag: &str| {
        let items = answer[tag]["Value"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["00081197"]["Value"][0].as_u64().expect("a reason")).collect()
    };
    (of("00081198"), of("0008119A"))
}

#[test]
fn each_object_of_a_body_has_its_own_result_and_a_bad_one_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (node, port) = web_box(folder.path(), "");
    let samples = study(folder.path());
    let files: Vec<Vec<u8>> = samples.iter().map(|(_, path)| std::fs::read(path).unwrap()).collect();
    let store = |parts: &[&[u8]]| ask(port, "POST", "/studies", &[MULTIPART], &body(parts));

    let (status, answer) = store(&[b"no object", &files[0]]);
    assert_eq!((status, reasons(&answer)), (202, (vec![], vec![0xC000])), "{answer}");
    assert_eq!(answer["00081199"]["Value"].as_array().unwrap().len(), 1);
    assert_eq!(store(&[&files[0]]).0, 200, "what is held already is a success");
    assert_eq!(store(&[b"no object", b""]).0, 409);
    let cut = &files[1][..files[1].len() - 100];
    let (status, answer) = store(&[cut]);
    assert_eq!((status, reasons(&answer).0), (409, vec![0xC000]), "{answer}");

    let mut other = files[0].clone();
    *other.last_mut().unwrap() ^= 1;
    let (status, answer) = store(&[&other]);
    assert_eq!((status, reasons(&answer).0), (409, vec![0x0111]), "{answer}");
    let (status, answer) = ask(port, "POST", "/studies/1.2.3", &[MULTIPART], &body(&[&files[1]]));
    assert_eq!((status, reasons(&answer).0), (409, vec![0xA900]), "{answer}");
    let here = format!("/studies/{}", uid(&samples[1].0, dicom_dictionary_std::tags::STUDY_INSTANCE_UID));
    assert_eq!(ask(port, "POST", &here, &[MULTIPART], &body(&[&files[1]])).0, 200);
    let unknown = samples[2].0.clone().class("1.2.840.10008.5.1.4.1.1.2", "CT").write(folder.path()).unwrap();
    let (status, answer) = store(&[&std::fs::read(unknown).unwrap()]);
    assert_eq!((status, reasons(&answer).0), (409, vec![0x0122]), "{answer}");

    // The end of the body is missing, or all of it, or it is another thing.
    let whole = body(&[&files[2]]);
    let (status, _) = ask(port, "POST", "/studies", &[MULTIPART], &whole[..whole.len() - 40]);
    assert_eq!(status, 409);
    assert_eq!(ask(port, "POST", "/studies", &[MULTIPART], b"").0, 409);
    assert_eq!(ask(port, "POST", "/studies", &[("Content-Type", "application/dicom")], &files[2]).0, 415);
    for (path, expected) in [
        ("/studies/1.2.3", 404),
        ("/studies/not-a-uid", 400),
        ("/studies?Nonsense=1", 400),
        ("/studies?PatientID=nobody", 204),
        ("/nothing", 404),
    ] {
        assert_eq!(ask(port, "GET", path, &[], b"").0, expected, "{path}");
    }
    let instance = format!(
        "{here}/series/{}/instances/{}",
        uid(&samples[0].0, dicom_dictionary_std::tags::SERIES_INSTANCE_UID),
        samples[0].0.sop_instance_uid()
    );
    for (path, accept, expected) in [
        ("/frames/2", "*/*", 404),
        ("/frames/0", "*/*", 400),
        ("/frames/1", "multipart/related; type=\"image/jpeg\"", 406),
        ("/bulkdata/0-99999999", "*/*", 404),
        ("", "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.50", 406),
        ("", "application/dicom", 200),
        ("/metadata", "application/dicom+xml", 406),
    ] {
        let status = ask(port, "GET", &format!("{instance}{path}"), &[("Accept", accept)], b"").0;
        assert_eq!(status, expected, "{path} {accept}");
    }
    assert_eq!(node.ctl().status().unwrap()["store"]["objects"], 2);
}

#[test]
fn inv_01_what_was_told_as_stored_survives_a_kill_and_a_full_box_says_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut node, port) = web_box(folder.path(), "");
    let sample = Sample::secondary_capture(1);
    let file = std::fs::read(sample.write(folder.path()).unwrap()).unwrap();
    assert_eq!(ask(port, "POST", "/studies", &[MULTIPART], &body(&[&file])).0, 200);
    node.kill().unwrap();
    node.start().unwrap();
    let (status, rows) = ask(port, "GET", "/instances", &[], b"");
    assert_eq!((status, &rows[0]["00080018"]["Value"][0]), (200, &json!(sample.sop_instance_uid())));
    // A box that takes nothing more still answers what it is asked.
    node.stop().unwrap();
    let config = std::fs::read_to_string(node.config_path()).unwrap() + "\n[store]\nread_only = true\n";
    std::fs::write(node.config_path(), config).unwrap();
    node.start().unwrap();
    assert_eq!(ask(port, "GET", "/instances", &[], b"").0, 200);
    let other = Sample::secondary_capture(2).write(folder.path()).unwrap();
    let (status, answer) = ask(port, "POST", "/studies", &[MULTIPART], &body(&[&std::fs::read(other).unwrap()]));
    assert_eq!((status, reasons(&answer).0), (503, vec![0xA700]), "{answer}");
}

#[test]
fn over_tls_only_who_shows_a_credential_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own: else the certificate below would look like one that signed itself.
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = write("box.pem", &params.signed_by(&key, &issuer).unwrap().pem());
    let authority = write("ca.pem", &issuer.pem());
    let key = write("box.key", &key.serialize_pem());
    let credentials = write("credentials", "bearer 0123456789abcdef0123\n");
    let more =
        format!("credentials_file = {credentials:?}\n[dicomweb.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let (_node, port) = web_box(folder.path(), &more);
    let url = format!("https://127.0.0.1:{port}/dicomweb");
    let samples = study(folder.path());
    let mut asked =
        json!({ "url": url, "authority": authority, "token": "0123456789abcdef0123", "store": [samples[0].1] });
    let answers = client(&asked);
    assert!(answers["studies"][0]["00081190"]["Value"][0].as_str().unwrap().starts_with(&url), "{answers}");
    asked["token"] = json!("another");
    let refused = peer::run("web.py", &[asked.to_string()]).unwrap_err();
    assert!(format!("{refused:#}").contains("401"), "{refused:#}");
    // Plain HTTP on the encrypted port gets no answer.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain.write_all(b"GET /dicomweb/studies HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}
