//! One fundus photograph as a camera delivers it, one at a time: from its last byte to its recorded finding.
//! Budget: 300 ms, so that the photographer knows before the patient has left the chair.

use crate::machine::Machine;
use crate::numbers::{Row, median, percentile};
use anyhow::{Context as _, ensure};
use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use fovea_core::{Finding, Outcome, Timing, sop_class};
use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::wire::{self, Association};
use fovea_tests::{http, object, paths, peer};
use std::path::Path;
use std::time::{Duration, Instant};

const CLASS: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
const WIDTH_PX: u16 = 2048;
const HEIGHT_PX: u16 = 1536;
/// Measured photographs, and those before them that warm caches and processor.
const RUNS: u64 = 50;
const WARM_UP: u64 = 5;
/// Between two photographs: the report and the copy of the one before are made in this time.
const PAUSE: Duration = Duration::from_millis(300);

/// Sends photographs one by one to an idle box.
///
/// # Errors
/// When the box does not start, or a photograph does not end in a finding.
pub fn measure(machine: &Machine, _rounds: u32) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir_in(&machine.disk).context("make a folder")?;
    let jpeg = photograph(folder.path())?;
    let mut node = Setup::new(&folder.path().join("box"))?.start()?;
    std::thread::sleep(Duration::from_secs(1));
    let idle = node.resident_bytes()?;
    let mut seen_ms = Vec::new();
    let mut place = 0;
    for seed in 0..WARM_UP + RUNS {
        let (took, last) = send_and_see(&node, seed, place, &jpeg)?;
        place = last;
        if seed >= WARM_UP {
            seen_ms.push(took.as_secs_f64() * 1e3);
        }
        std::thread::sleep(PAUSE);
    }
    let findings = node.ctl().findings()?;
    ensure!(findings.iter().all(|finding| finding.outcome == Outcome::Finding), "not each became a finding");
    let timings: Vec<Timing> = findings.iter().skip(WARM_UP as usize).map(|finding| finding.timing_us).collect();
    let busy = node.resident_bytes()?;
    node.stop()?;

    let recorded: Vec<f64> = timings.iter().map(|timing| timing.recorded as f64 / 1e3).collect();
    let what = format!("fundus {WIDTH_PX}x{HEIGHT_PX} JPEG ({} kB), last byte to finding", jpeg.len() / 1000);
    let figure = |values: &[f64]| format!("p50 {:.1} ms, p99 {:.1} ms", median(values), percentile(values, 0.99));
    Ok(vec![
        Row::new(what, figure(&recorded)).remark(format!("{RUNS} runs, one at a time")).wanted("p99 < 300 ms"),
        Row::new("  seen by a client of the control socket", figure(&seen_ms)).remark("durable, from outside"),
        Row::new("  by stage, p50", stages(&timings)),
        memory("resident after start", idle),
        memory(&format!("resident after {} photographs", WARM_UP + RUNS), busy),
    ])
}

fn memory(what: &str, (daemon, worker): (u64, u64)) -> Row {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let figure = format!("daemon {:.0} MiB, worker {:.0} MiB", mib(daemon), mib(worker));
    Row::new(what, figure).wanted("150 MB beside the models")
}

/// The sample photograph at the size of a camera's.
fn photograph(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let target = folder.join("fundus.jpg");
    let asked = serde_json::json!({
        "source": paths::sample("retina.jpg")?, "target": target, "width": WIDTH_PX, "height": HEIGHT_PX, "quality": 90,
    });
    peer::run("enlarge.py", &[asked.to_string()])?;
    std::fs::read(&target).context("read the photograph")
}

/// Sends one photograph; the time from the start of its last piece to the first finding after place `after` on the control socket,
/// and that finding's place.
fn send_and_see(node: &Node, seed: u64, after: u64, jpeg: &[u8]) -> anyhow::Result<(Duration, u64)> {
    let mut sample = Sample::secondary_capture(seed).class(CLASS, "OP").size(WIDTH_PX, HEIGHT_PX);
    sample.samples_per_pixel = 3;
    let uid = sample.sop_instance_uid();
    let mut data_set = sample.data_set();
    object::put(&mut data_set, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL_422");
    let mut code = jpeg.to_vec();
    code.resize(code.len().next_multiple_of(2), 0);
    let fragments = PixelFragmentSequence::new(Vec::<u32>::new(), vec![code]);
    data_set.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::PixelSequence(fragments)));
    let bytes = wire::encode(data_set, JPEG_BASELINE)?;

    let socket = node.state().join("control.sock");
    let waiter = std::thread::spawn(move || -> anyhow::Result<(Instant, u64, String)> {
        let path = format!("/v1/findings?after={after}&wait_ms=20000");
        let answer = http::ask_socket(&socket, &path)?.json()?;
        let at = Instant::now();
        let row = &answer["findings"][0];
        let finding: Finding = serde_json::from_value(row["finding"].clone())?;
        Ok((at, row["place"].as_u64().context("a finding has a place")?, finding.sop_instance_uid.to_string()))
    });
    // The waiter must be waiting before the object is there.
    std::thread::sleep(Duration::from_millis(50));
    let mut association = Association::open(node.port(), &[(CLASS, JPEG_BASELINE)])?;
    let status = association.store(CLASS, &uid, &bytes)?;
    ensure!(status == 0, "status {status:04x}");
    let begun = association.last_byte_at.context("an object was sent")?;
    association.release()?;
    let (seen_at, place, seen) = waiter.join().map_err(|_| anyhow::anyhow!("the waiter panicked"))??;
    ensure!(seen == uid, "another finding was seen");
    Ok((seen_at - begun, place))
}

/// The median of each step, as differences of what the finding tells.
fn stages(timings: &[Timing]) -> String {
    type Moment = fn(&Timing) -> u64;
    let steps: [(&str, Moment, Moment); 6] = [
        ("durable", |_| 0, |t| t.received),
        ("queue", |t| t.received, |t| t.queued),
        ("decode", |t| t.queued, |t| t.decoded),
        ("preprocess", |t| t.decoded, |t| t.preprocessed),
        ("infer", |t| t.preprocessed, |t| t.inferred),
        ("record", |t| t.inferred, |t| t.recorded),
    ];
    let step = |(name, from, to): &(&str, Moment, Moment)| {
        let values: Vec<f64> = timings.iter().map(|timing| (to(timing) as f64 - from(timing) as f64) / 1e3).collect();
        format!("{name} {:.1}", median(&values))
    };
    format!("{} ms", steps.iter().map(step).collect::<Vec<_>>().join(", "))
}
