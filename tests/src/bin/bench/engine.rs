//! Inference alone: our engine beside OpenVINO's benchmark_app, on the same bundle, in turns.
//! Budget: within 5 % of benchmark_app, so that the crate, its checks and our copies cost a clinic nothing.

use crate::machine::Machine;
use crate::numbers::{Row, median, spread};
use anyhow::{Context as _, ensure};
use fovea_infer::{Bundle, Device, TrustedKey};
use fovea_tests::{paths, process::Running};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a few hundred inferences.
const SECONDS: u64 = 4;

/// Our engine in this process: prints inferences a second.
///
/// # Errors
/// When the bundle does not load.
pub fn run_alone(seconds: u64) -> anyhow::Result<()> {
    let key = TrustedKey::read(&paths::trusted_key()?).context("read the key")?;
    let bundle = Bundle::open(&paths::bundle()?, &[key]).context("open the bundle")?;
    let mut device = Device::open("CPU", &paths::openvino()?).context("open the device")?;
    let mut engine = device.compile(&bundle, 0).context("compile the model")?;
    // Neither all zeros nor denormal: the kernels' time does not depend on other values.
    let length = bundle.manifest.networks[0].input_len();
    let tensor: Vec<f32> = (0..length).map(|index| (index % 255) as f32 / 127.5 - 1.0).collect();
    for _ in 0..5 {
        engine.infer(&tensor)?;
    }
    let (mut count, begun, limit) = (0u32, Instant::now(), Duration::from_secs(seconds));
    while begun.elapsed() < limit {
        black_box(engine.infer(black_box(&tensor))?);
        count += 1;
    }
    println!("{}", f64::from(count) / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Both in turns.
///
/// # Errors
/// When one of them fails.
pub fn measure(machine: &Machine, rounds: u32) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who goes first changes, so that a machine that gets warmer or busier favours nobody.
        let (one, other) = if round % 2 == 0 {
            let one = our_rate()?;
            (one, benchmark_app_rate(machine)?)
        } else {
            let other = benchmark_app_rate(machine)?;
            (our_rate()?, other)
        };
        ours.push(one);
        theirs.push(other);
        ratios.push(one / other);
    }
    let (least, greatest) = spread(&ratios);
    let what = format!("inference alone, 1 thread ({rounds} rounds, ratio {least:.2} to {greatest:.2})");
    let beside = format!("benchmark_app {:.1}/s", median(&theirs));
    Ok(vec![Row::new(what, format!("{:.1}/s", median(&ours))).beside(beside, median(&ratios)).wanted(">= 0.95")])
}

fn our_rate() -> anyhow::Result<f64> {
    let own = std::env::current_exe().context("find the running program")?;
    let output = Command::new(own).args(["engine-loop", "--seconds", &SECONDS.to_string()]).output();
    let output = output.context("run our engine")?;
    ensure!(output.status.success(), "our engine: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("our engine prints a rate")
}

/// The graph of the bundle's first network: the one that [`run_alone`] times.
fn first_graph() -> anyhow::Result<PathBuf> {
    let key = TrustedKey::read(&paths::trusted_key()?).context("read the key")?;
    let bundle = Bundle::open(&paths::bundle()?, &[key]).context("open the bundle")?;
    Ok(paths::bundle()?.join(bundle.manifest.networks[0].xml()))
}

/// One stream, one thread, exact arithmetic: as the box runs its models.
fn benchmark_app_rate(machine: &Machine) -> anyhow::Result<f64> {
    let program = paths::workspace().join("runtime/bench-venv/bin/benchmark_app");
    ensure!(program.is_file(), "{} is not there: run `scripts/setup-bench.sh`", program.display());
    let mut command = Command::new(program);
    command.arg("-m").arg(first_graph()?);
    command.args(["-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", "1"]);
    command.args(["-infer_precision", "f32", "-t", &SECONDS.to_string()]).current_dir(&machine.disk);
    let log = machine.disk.join("benchmark_app.log");
    // What it printed in earlier rounds would be read again.
    let _not_there = std::fs::remove_file(&log);
    let mut running = Running::start("benchmark_app", &mut command, &log)?;
    let status = running.wait(Duration::from_secs(120))?;
    ensure!(status.success(), "benchmark_app: {}", running.log_tail());
    let printed = running.log();
    let rate = printed.lines().find_map(|line| line.split_once("Throughput:").map(|(_, rate)| rate.trim()));
    let rate = rate.and_then(|rate| rate.split_whitespace().next()).context("benchmark_app prints a throughput")?;
    rate.parse().context("a throughput is a number")
}
