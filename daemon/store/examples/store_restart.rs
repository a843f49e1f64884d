//! How long a start takes: `cargo run --release -p fovea-store --example store_restart -- DIR [OBJECTS]`.
//! Budget, with 100,000 objects that each have an outcome and a delivered report: 3 s to an open store after a clean stop,
//! also when the machine was off in between; 60 s with the index made anew. Files are read from the page cache.

use fovea_core::{
    AeTitle, Finding, FindingId, FindingStatus, Inbox, Lane, Ledger, NewObject, NewParcel, ObjectHeader, Outbox,
    Outcome, Priority, Quality, ReaderGrade, Sender, Sha256, Timing, Uid, UnixMicros, What,
};
use fovea_store::{Config, Store};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const THREADS: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let state = arguments.next().ok_or("usage: store_restart DIR [OBJECTS]")?;
    let objects: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let (state, config) = (Path::new(&state), Config { upkeep_every: None, ..Config::at(Path::new(&state)) });
    let store = Store::open(&config)?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || (0..objects / THREADS).for_each(|number| one(store, thread, number)));
        }
    });
    let status = store.status()?;
    println!(
        "{} objects, {} findings, {} parcels; journal {} MB; made in {:.1} s",
        status.objects,
        status.findings,
        status.parcels,
        status.journal_bytes >> 20,
        started.elapsed().as_secs_f64()
    );
    let mut store = Some(store);
    println!("{:<58} {:>8} {:>8} {:>9}", "start", "s", "CPU s", "rebuilds");
    start(&mut store, &config, "after a clean stop", &|| Ok(()))?;
    let other_boot = || std::fs::write(state.join("lock"), "1 another-boot\n");
    start(&mut store, &config, "after a clean stop, the machine was off in between", &other_boot)?;
    let unmarked = || std::fs::remove_file(state.join("journal/clean"));
    start(&mut store, &config, "after a crash of the daemon", &unmarked)?;
    let power = || {
        other_boot()?;
        unmarked()
    };
    start(&mut store, &config, "after a power cut: index made anew, left-overs looked for", &power)?;
    let index = || std::fs::remove_dir_all(state.join("index"));
    start(&mut store, &config, "without an index: made anew", &index)?;
    Ok(())
}

/// Stops the store, does what the name says, and measures the next start.
fn start(
    store: &mut Option<Arc<Store>>,
    config: &Config,
    name: &str,
    before: &dyn Fn() -> std::io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let stopping = Instant::now();
    drop(store.take());
    let stop = stopping.elapsed().as_secs_f64();
    before()?;
    let (started, cpu) = (Instant::now(), cpu_s()?);
    let opened = Store::open(config)?;
    let rebuilds = opened.status()?.index_rebuilds;
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_s()? - cpu);
    println!("{name:<58} {wall:>8.2} {cpu:>8.2} {rebuilds:>9}   (stop before it {stop:.2} s)");
    *store = Some(opened);
    Ok(())
}

/// Seconds of CPU that this process has had: on a busy machine the only figure that means something.
fn cpu_s() -> Result<f64, Box<dyn std::error::Error>> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn uid(text: String) -> Uid {
    Uid::new(&text).expect("digits and dots")
}

/// One object with an outcome and a delivered report.
fn one(store: &Store, thread: usize, number: usize) {
    let sop = uid(format!("1.2.826.0.1.3680043.9.1.{thread}.{number}"));
    let study = uid(format!("1.2.826.0.1.3680043.9.2.{thread}.{}", number / 20));
    let header = ObjectHeader {
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.77.1.5.1".into()),
        sop_instance_uid: sop.clone(),
        study_uid: study.clone(),
        series_uid: uid(format!("{study}.1")),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.4.50".into()),
        modality: Some("OP".into()),
        body_part: None,
        laterality: None,
        rows_px: Some(1536),
        columns_px: Some(2048),
        frames: 1,
        photometric: Some("YBR_FULL_422".into()),
        burned_in_annotation: None,
        pixel_data_offset: Some(1400),
    };
    let mut temp = store.open_temp().expect("room");
    temp.file.write_all(sop.as_str().as_bytes()).expect("room");
    let object = NewObject {
        header,
        sender: Sender::Dimse(AeTitle::new("BENCH").expect("letters")),
        last_byte_at: UnixMicros(0),
        data_set_sha256: Sha256::of(sop.as_str().as_bytes()),
        file_bytes: sop.as_str().len() as u64,
    };
    store.accept(temp, object).expect("accepted");
    store.record(finding(&sop, &study)).expect("recorded");
    let report = uid(format!("2.25.{thread}.{number}"));
    let mut content = store.open_result_temp().expect("room");
    content.file.write_all(b"report").expect("room");
    let parcel = NewParcel {
        what: What::Findings,
        lane: Lane::Findings,
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.88.33".into()),
        sop_instance_uid: report,
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1".into()),
        content,
    };
    store.dispatch(&sop, vec![parcel], vec![], UnixMicros(1)).expect("dispatched");
    let sent = store.sent_for(&sop).expect("known").0;
    store.delivered(sent[0].parcel.seq, "vna", UnixMicros(2)).expect("noted");
}

fn finding(sop: &Uid, study: &Uid) -> Finding {
    Finding {
        finding_id: FindingId::of(sop, &Sha256::of(sop.as_str().as_bytes()), None),
        study_uid: study.clone(),
        series_uid: uid(format!("{study}.1")),
        sop_instance_uid: sop.clone(),
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.77.1.5.1".into()),
        frame: 1,
        task: "diabetic_retinopathy_screening".into(),
        outcome: Outcome::Finding,
        reason: None,
        reason_code: None,
        advice: None,
        label: Some("no referable diabetic retinopathy".into()),
        code: None,
        probability: Some(0.04),
        band: None,
        priority: Priority::Routine,
        reader_grade: ReaderGrade::Any,
        measurements: Vec::new(),
        classes: Vec::new(),
        tile_map: None,
        regions: Vec::new(),
        quality: Quality::new(),
        model: None,
        device: Some("CPU".into()),
        status: FindingStatus::Preliminary,
        timing_us: Timing::default(),
        recorded_at_unix_us: UnixMicros(7),
    }
}
