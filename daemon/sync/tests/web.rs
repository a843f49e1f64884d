//! STOW-RS and QIDO-RS against a server that answers as it is told.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod support;

use fovea_core::*;
use fovea_dimse::part10_head;
use fovea_store::MemoryStore;
use fovea_sync::{Config, Destination, RawConfig};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    /// Keeps everything that is not in the list; a reason for each that is.
    Keep(Vec<(&'static str, u16)>),
    /// Keeps nothing.
    Say(u16),
    SayWith(u16, &'static str, &'static str),
    /// Keeps everything and goes away without a word.
    Vanish,
}

type Script = Arc<dyn Fn(&[String], usize) -> Reply + Send + Sync>;

#[derive(Default)]
struct Held {
    /// Instances, with how often each came.
    kept: BTreeMap<String, usize>,
    /// Instances of each request.
    requests: Vec<Vec<String>>,
    /// Kept, and then lost.
    lost: BTreeSet<String>,
    authorization: Option<String>,
}

struct Server {
    address: SocketAddr,
    held: Arc<Mutex<Held>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = held.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (held, script) = (shared.clone(), script.clone());
                let service = service_fn(move |request| answer(request, held.clone(), script.clone()));
                tokio::spawn(async move {
                    // A connection that breaks is part of the game.
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, held, task }
    }

    fn kept(&self) -> Vec<String> {
        self.held.lock().unwrap().kept.keys().cloned().collect()
    }
}

fn reply(status: u16, body: serde_json::Value) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.to_string().into())).unwrap()
}

async fn answer(
    request: Request<Incoming>,
    held: Arc<Mutex<Held>>,
    script: Script,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, authorization) = (header("content-type"), header("authorization"));
    if request.method() == Method::GET {
        let query = request.uri().query().unwrap().to_owned();
        let asked = query.strip_prefix("SOPInstanceUID=").unwrap().split('&').next().unwrap().to_owned();
        let held = held.lock().unwrap();
        let is_held = held.kept.contains_key(&asked) && !held.lost.contains(&asked);
        return Ok(match is_held {
            true => reply(200, serde_json::json!([{ "00080018": { "vr": "UI", "Value": [asked] } }])),
            false => Response::builder().status(204).body(Full::default()).unwrap(),
        });
    }
    assert_eq!(request.uri().path(), "/dicom-web/studies");
    let length: usize = header("content-length").unwrap().parse().unwrap();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    assert_eq!(body.len(), length, "the length was known before");
    let instances = instances(&content_type.unwrap(), &body);
    let nth = {
        let mut held = held.lock().unwrap();
        held.authorization = authorization;
        held.requests.push(instances.clone());
        held.requests.len() - 1
    };
    let keep = |failed: &[(&str, u16)]| {
        let mut held = held.lock().unwrap();
        for uid in instances.iter().filter(|uid| failed.iter().all(|(failed, _)| failed != uid)) {
            *held.kept.entry(uid.clone()).or_default() += 1;
            held.lost.remove(uid);
        }
    };
    match script(&instances, nth) {
        Reply::Keep(failed) => {
            keep(&failed);
            let failed: Vec<_> =
                failed.into_iter().filter(|(uid, _)| instances.iter().any(|sent| sent == uid)).collect();
            let row = |uid: &str| serde_json::json!({ "00081155": { "vr": "UI", "Value": [uid] } });
            let kept: Vec<_> = instances
                .iter()
                .filter(|uid| failed.iter().all(|(failed, _)| failed != uid))
                .map(|uid| row(uid))
                .collect();
            let rows: Vec<_> = failed
                .iter()
                .map(|(uid, reason)| {
                    let mut row = row(uid);
                    row["00081197"] = serde_json::json!({ "vr": "US", "Value": [reason] });
                    row
                })
                .collect();
            let status = if rows.is_empty() {
                200
            } else if kept.is_empty() {
                409
            } else {
                202
            };
            Ok(reply(
                status,
                serde_json::json!({ "00081199": { "vr": "SQ", "Value": kept }, "00081198": { "vr": "SQ", "Value": rows } }),
            ))
        }
        Reply::Say(status) => Ok(Response::builder().status(status).body(Full::default()).unwrap()),
        Reply::SayWith(status, name, value) => {
            Ok(Response::builder().status(status).header(name, value).body(Full::default()).unwrap())
        }
        Reply::Vanish => {
            keep(&[]);
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
}

/// SOP Instance UIDs of a multipart body, read as RFC 2046 says.
fn instances(content_type: &str, body: &[u8]) -> Vec<String> {
    assert!(content_type.starts_with("multipart/related; type=\"application/dicom\"; boundary="), "{content_type}");
    let boundary = format!("--{}", content_type.split("boundary=").nth(1).unwrap());
    let find = |from: usize, what: &[u8]| {
        body[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
    };
    let (mut found, mut at) = (Vec::new(), find(0, boundary.as_bytes()).unwrap());
    loop {
        let after = at + boundary.len();
        if body[after..].starts_with(b"--") {
            return found;
        }
        let start = find(after, b"\r\n\r\n").unwrap() + 4;
        at = find(start, boundary.as_bytes()).unwrap();
        let file = &body[start..at - 2];
        found.push(part10_head(&mut Cursor::new(file)).unwrap().sop_instance_uid.to_string());
    }
}

fn web_destination(address: SocketAddr, more: &str) -> Destination {
    let text = format!(
        "[[destination]]\nname = 'vna'\nkind = 'dicomweb'\nurl = 'http://{address}/dicom-web'\n\
         what = ['findings', 'deidentified']\nretry_min_ms = 20\nretry_max_ms = 200\nrefusals_max = 3\n\
         refuse_after_min_s = 0\nresponse_timeout_ms = 2000\ncustody_after_s = 0\n{more}\n"
    );
    let raw: RawConfig = toml::from_str(&text).unwrap();
    Config::new(raw, &AeTitle::new("FOVEA").unwrap()).unwrap().destinations.remove(0)
}

fn start(outbox: &Arc<MemoryStore>, server: &Server, more: &str) -> Running {
    Running::start_with(outbox, outbox.clone(), web_destination(server.address, more))
}

fn pictures(outbox: &MemoryStore, count: usize) {
    for number in 1..=count {
        dispatch(outbox, &format!("1.{number}"), &[(&format!("3.{number}"), Lane::Pixels, 70_000)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_go_in_one_request_and_each_gets_its_own_answer() {
    let outbox = Arc::new(MemoryStore::new());
    pictures(&outbox, 8);
    dispatch(&outbox, "1.9", &[("2.9", Lane::Findings, 100)]);
    // One is never wanted, one only later.
    let server = Server::start(Arc::new(|_, nth| {
        Reply::Keep(if nth < 3 { vec![("3.2", 0xC000), ("3.5", 0xA700)] } else { vec![("3.2", 0xC000)] })
    }))
    .await;
    let running = start(&outbox, &server, "batch_instances_max = 4");
    running.until_empty().await;
    assert_eq!(server.kept(), ["2.9", "3.1", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8"]);
    {
        let held = server.held.lock().unwrap();
        assert_eq!(held.requests[0], ["2.9"], "a finding goes first and with no picture");
        assert_eq!(held.requests[1], ["3.1", "3.2", "3.3", "3.4"]);
        assert!(held.kept.values().all(|times| *times == 1), "nothing twice: {:?}", held.kept);
    }
    let (ways, _) = outbox.sent_for(&uid("1.2")).unwrap();
    assert!(ways[0].set_aside[0].1.contains("C000"), "{:?}", ways[0]);
    let counters = running.stop().await;
    assert_eq!((counters.sent, counters.set_aside), (8, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_sent_in_halves_and_one_that_is_bad_one_by_one() {
    for status in [413, 400] {
        let outbox = Arc::new(MemoryStore::new());
        pictures(&outbox, 8);
        let server = Server::start(Arc::new(move |sent, _| match sent.len() {
            1..=2 if status == 413 => Reply::Keep(vec![]),
            1 if sent[0] != "3.3" => Reply::Keep(vec![]),
            _ => Reply::Say(status),
        }))
        .await;
        let running = start(&outbox, &server, "");
        running.until_empty().await;
        let refused = usize::from(status == 400);
        assert_eq!(server.kept().len(), 8 - refused, "{status}");
        assert_eq!(running.stop().await.set_aside as usize, refused, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_time_gets_it_and_nothing_is_set_aside() {
    for status in [429, 503] {
        let outbox = Arc::new(MemoryStore::new());
        pictures(&outbox, 2);
        let server = Server::start(Arc::new(move |_, nth| match nth {
            0 => Reply::SayWith(status, "retry-after", "1"),
            _ => Reply::Keep(vec![]),
        }))
        .await;
        let begun = Instant::now();
        let running = start(&outbox, &server, "");
        running.until_empty().await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{status}: {:?}", begun.elapsed());
        assert_eq!(running.stop().await.set_aside, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_09_a_redirect_is_not_followed_and_trouble_with_the_server_sets_nothing_aside() {
    for (status, name, value) in
        [(307, "location", "http://192.0.2.1/studies"), (500, "x", "y"), (401, "www-authenticate", "Bearer")]
    {
        let outbox = Arc::new(MemoryStore::new());
        pictures(&outbox, 1);
        let server = Server::start(Arc::new(move |_, nth| match nth {
            0..=4 => Reply::SayWith(status, name, value),
            _ => Reply::Keep(vec![]),
        }))
        .await;
        let running = start(&outbox, &server, "");
        running.until("an error to show", |running| running.counters.snapshot().last_error.is_some()).await;
        running.until_empty().await;
        assert_eq!((server.kept().len(), running.stop().await.set_aside), (1, 0), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_costs_a_second_request_and_no_second_copy() {
    let outbox = Arc::new(MemoryStore::new());
    pictures(&outbox, 3);
    let server = Server::start(Arc::new(|_, nth| if nth == 0 { Reply::Vanish } else { Reply::Keep(vec![]) })).await;
    let running = start(&outbox, &server, "");
    running.until_empty().await;
    assert_eq!(server.kept(), ["3.1", "3.2", "3.3"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_06_a_query_proves_custody_and_what_is_lost_is_sent_again() {
    let outbox = Arc::new(MemoryStore::new());
    pictures(&outbox, 3);
    let server = Server::start(Arc::new(|_, _| Reply::Keep(vec![]))).await;
    // The archive answers success for 3.2 and loses it, once.
    let watched = server.held.clone();
    let thief = tokio::spawn(async move {
        loop {
            {
                let mut held = watched.lock().unwrap();
                if held.kept.get("3.2") == Some(&1) {
                    held.lost.insert("3.2".into());
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    let running = start(&outbox, &server, "custody = 'query'");
    let proved = |seq| outbox.custody_of(seq).unwrap().iter().any(|custody| custody.proof == Proof::Query);
    running.until("three proofs", |_| (1..=3).all(proved)).await;
    thief.abort();
    assert_eq!(server.held.lock().unwrap().kept.get("3.2"), Some(&2), "sent again under the same UID");
    let counters = running.stop().await;
    assert_eq!((counters.proved, counters.sent_again, counters.set_aside), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_06_what_an_archive_takes_again_and_again_and_never_keeps_is_set_aside_with_the_reason() {
    let outbox = Arc::new(MemoryStore::new());
    pictures(&outbox, 1);
    // Success without a word on the instance, and nothing kept.
    let server = Server::start(Arc::new(|_, _| Reply::Say(200))).await;
    let running = start(&outbox, &server, "custody = 'query'\ncustody_resends_max = 2");
    let aside = || outbox.sent_for(&uid("1.1")).unwrap().0[0].set_aside.clone();
    running.until("it to be set aside", |_| !aside().is_empty()).await;
    assert!(aside()[0].1.contains("not kept"), "{:?}", aside());
    assert!(outbox.custody_of(1).unwrap().is_empty());
    assert_eq!(server.held.lock().unwrap().requests.len(), 3);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_goes_with_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "t0ken\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let outbox = Arc::new(MemoryStore::new());
    pictures(&outbox, 1);
    let server = Server::start(Arc::new(|_, _| Reply::Keep(vec![]))).await;
    let running = start(&outbox, &server, &format!("auth.bearer_file = {file:?}"));
    running.until_empty().await;
    assert_eq!(server.held.lock().unwrap().authorization.as_deref(), Some("Bearer t0ken"));
    running.stop().await;
}
