//! How many objects a second become durable: `cargo run --release -p fovea-store --example store_ingest -- DIR [OBJECTS]`.
//! Budget: 1,500 a second from 4 threads on a disk with 0.3 ms fdatasync. Beside it in the same run, because disks differ
//! from minute to minute: a bare sink (write, fdatasync, rename, fsync of the folder), which keeps no record at all.
//! The second table is the cost model: calls of the store on the file system for each object, from its own file layer.

use fovea_core::{AeTitle, Inbox, NewObject, ObjectHeader, Sender, Sha256, Uid, UnixMicros};
use fovea_store::{Calls, Config, Store};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const OBJECT_BYTES: usize = 512 * 512 + 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let state = arguments.next().ok_or("usage: store_ingest DIR [OBJECTS]")?;
    let objects: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let store = Store::open(&Config::at(Path::new(&state)))?;
    println!(
        "{:>8} {:>10} {:>9} {:>9} {:>13} {:>11}",
        "threads", "objects/s", "p50 ms", "p99 ms", "syncs/object", "bare sink/s"
    );
    let mut costs = Vec::new();
    for threads in [1, 4, 16] {
        let (before, calls_before) = (store.status()?, store.calls());
        let times = Mutex::new(Vec::new());
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (store, times) = (&store, &times);
                scope.spawn(move || {
                    let mine = run(store, before.objects, threads, thread, objects / threads);
                    times.lock().expect("no thread panics").extend(mine);
                });
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        let mut times = times.into_inner()?;
        times.sort_unstable();
        let (after, calls) = (store.status()?, store.calls());
        let done = after.objects - before.objects;
        costs.push((threads, done, calls_before, calls));
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let syncs = (after.syncs - before.syncs) as f64 / done as f64;
        let sink = bare_sink(Path::new(&state), threads, objects)?;
        println!(
            "{threads:>8} {:>10.0} {:>9.2} {:>9.2} {syncs:>13.2} {sink:>11.0}",
            done as f64 / seconds,
            at(0.5),
            at(0.99)
        );
    }
    print_costs(&costs);
    Ok(())
}

/// Calls for each object, by number of threads.
fn print_costs(costs: &[(usize, u64, Calls, Calls)]) {
    println!(
        "\n{:>8} {:>10} {:>10} {:>12} {:>9} {:>9} {:>9} {:>15}",
        "threads", "fdatasync", "fsync", "fsync folder", "creates", "renames", "removes", "journal writes"
    );
    for (threads, objects, before, after) in costs {
        let each = |count: fn(&Calls) -> u64| (count(after) - count(before)) as f64 / *objects as f64;
        println!(
            "{threads:>8} {:>10.2} {:>10.2} {:>12.2} {:>9.2} {:>9.2} {:>9.2} {:>15.2}",
            each(|calls| calls.data_syncs),
            each(|calls| calls.file_syncs),
            each(|calls| calls.folder_syncs),
            each(|calls| calls.creates),
            each(|calls| calls.renames),
            each(|calls| calls.removes),
            each(|calls| calls.writes)
        );
    }
}

/// Objects a second that only get durable bytes and a durable name.
fn bare_sink(state: &Path, threads: usize, objects: usize) -> std::io::Result<f64> {
    let folder = state.join("sink");
    std::fs::create_dir_all(&folder)?;
    let bytes = vec![0x5a; OBJECT_BYTES];
    let one = |name: String| -> std::io::Result<()> {
        let temp = folder.join(format!("{name}.part"));
        let mut file = File::create(&temp)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(temp, folder.join(name))?;
        File::open(&folder)?.sync_all()
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let one = &one;
                scope.spawn(move || (0..objects / threads).try_for_each(|number| one(format!("{thread}-{number}"))))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no thread panics"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&folder)?;
    Ok((objects / threads * threads) as f64 / seconds)
}

fn run(store: &Store, start: u64, threads: usize, thread: usize, objects: usize) -> Vec<Duration> {
    let bytes = vec![0x5a; OBJECT_BYTES];
    let uid = |text: String| Uid::new(&text).expect("digits and dots");
    (0..objects)
        .map(|number| {
            let sop = uid(format!("1.2.{start}.{threads}.{thread}.{number}"));
            let started = Instant::now();
            let mut temp = store.open_temp().expect("room");
            temp.file.write_all(&bytes).expect("room");
            let header = ObjectHeader {
                sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.6.1".into()),
                sop_instance_uid: sop,
                study_uid: uid(format!("1.2.{start}.{thread}")),
                series_uid: uid("1.2.3".into()),
                transfer_syntax_uid: uid("1.2.840.10008.1.2.1".into()),
                modality: Some("US".into()),
                body_part: None,
                laterality: None,
                rows_px: Some(512),
                columns_px: Some(512),
                frames: 1,
                photometric: Some("MONOCHROME2".into()),
                burned_in_annotation: None,
                pixel_data_offset: None,
            };
            let object = NewObject {
                header,
                sender: Sender::Dimse(AeTitle::new("BENCH").expect("letters")),
                last_byte_at: UnixMicros(0),
                data_set_sha256: Sha256([7; 32]),
                file_bytes: OBJECT_BYTES as u64,
            };
            store.accept(temp, object).expect("accepted");
            started.elapsed()
        })
        .collect()
}
