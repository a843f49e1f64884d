//! How many objects a second become durable: `cargo run --release -p fovea-store --example ingest -- DIR [OBJECTS]`.
//! Budget: 1,500 a second from 4 threads on a disk with 0.3 ms fdatasync (the durable sink that peers are held against).

use fovea_core::{AeTitle, Inbox, NewObject, ObjectHeader, Sender, Sha256, Uid, UnixMicros};
use fovea_store::{Config, Store};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const OBJECT_BYTES: usize = 512 * 512 + 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let state = arguments.next().ok_or("usage: ingest DIR [OBJECTS]")?;
    let objects: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let store = Store::open(&Config::at(Path::new(&state)))?;
    println!("{:>8} {:>10} {:>9} {:>9} {:>13}", "threads", "objects/s", "p50 ms", "p99 ms", "syncs/object");
    for threads in [1, 4, 16] {
        let before = store.status()?;
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
        let after = store.status()?;
        let done = after.objects - before.objects;
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let syncs = (after.syncs - before.syncs) as f64 / done as f64;
        println!("{threads:>8} {:>10.0} {:>9.2} {:>9.2} {syncs:>13.2}", done as f64 / seconds, at(0.5), at(0.99));
    }
    Ok(())
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
