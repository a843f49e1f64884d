//! Measures the accepting side alone: objects a second and its CPU time for each, on a folder in memory.
//!
//! `cargo run --release -p fovea-receive --example ingest -- [OBJECTS] [ASSOCIATIONS] [PIXEL_BYTES] [FOLDER]`
//! Server and sender have threads of their own names in one process; CPU is read for each from the kernel.
//! The inbox only renames: what the real store adds (sync, journal) is measured by the load tests.
#![allow(clippy::unwrap_used, reason = "a measurement may fail where it stands")]

#[path = "../tests/support/mod.rs"]
mod support;

use fovea_core::sop_class;
use fovea_receive::Counters;
use std::sync::Arc;
use std::time::Instant;
use support::{EXPLICIT, FolderInbox, contexts, native, uid};
use tokio_util::sync::CancellationToken;

fn runtime(name: &str) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().thread_name(name).build().unwrap()
}

/// CPU nanoseconds of all threads whose name is `name`.
fn cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let of = |path: std::path::PathBuf| {
        let is_it = std::fs::read_to_string(path.join("comm")).ok()?.trim() == name;
        let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        is_it.then(|| stat.split(' ').next().unwrap().parse::<u64>().unwrap())
    };
    tasks.filter_map(|task| of(task.path())).sum()
}

fn main() {
    let number = |at: usize, default: usize| std::env::args().nth(at).map_or(default, |text| text.parse().unwrap());
    let (objects, associations, bytes) = (number(1, 2000), number(2, 4), number(3, 512 * 512));
    let folder = std::env::args().nth(4).unwrap_or_else(|| "/dev/shm".to_owned());
    let (server, client) = (runtime("server"), runtime("client"));
    let inbox = FolderInbox::within(std::path::Path::new(&folder));
    let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Arc::new(fovea_receive::Config::try_from(fovea_receive::RawConfig::default()).unwrap());
    let stop = CancellationToken::new();
    let counters = Arc::new(Counters::default());
    server.spawn(fovea_receive::serve(listener, config, counters.clone(), inbox, Arc::default(), stop.clone()));
    let class = uid(sop_class::SECONDARY_CAPTURE);
    let set = |association: usize| -> Vec<(String, Vec<u8>)> {
        let ids = (0..objects / associations).map(|index| format!("1.2.{association}.{index}"));
        ids.map(|id| (id.clone(), native(&id, EXPLICIT, bytes))).collect()
    };
    let sets: Vec<_> = (0..associations).map(set).collect();
    let scu = support::scu_config(address);
    let started = Instant::now();
    let mut latencies_us: Vec<u64> = client.block_on(async {
        let senders: Vec<_> = sets
            .into_iter()
            .map(|set| {
                let (scu, class) = (scu.clone(), class.clone());
                tokio::spawn(async move {
                    let mut scu = fovea_dimse::Scu::connect(&scu, &contexts()).await.unwrap();
                    let mut latencies = Vec::with_capacity(set.len());
                    for (id, data) in &set {
                        let at = Instant::now();
                        let status = scu.store(&class, &uid(id), &uid(EXPLICIT), data.as_slice()).await.unwrap();
                        assert!(status.is_success(), "{status}");
                        latencies.push(at.elapsed().as_micros() as u64);
                    }
                    scu.release().await.unwrap();
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for sender in senders {
            all.extend(sender.await.unwrap());
        }
        all
    });
    let seconds = started.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let done = latencies_us.len();
    println!(
        "{done} objects of {bytes} B, {associations} associations: {:.0}/s, p50 {} us, p99 {} us; CPU per object: server {:.3} ms, sender {:.3} ms",
        done as f64 / seconds,
        latencies_us[done / 2],
        latencies_us[done * 99 / 100],
        cpu_ns("server") as f64 / 1e6 / done as f64,
        cpu_ns("client") as f64 / 1e6 / done as f64,
    );
    stop.cancel();
}
