//! Times one bundle's inference alone, every network once a run, to be put beside OpenVINO's own benchmark of the same
//! graphs.
//!
//! `cargo run --release -p fovea-infer --example latency -- BUNDLE PUBLIC_KEY RUNTIME_FOLDER [RUNS]`

use anyhow::{Context, anyhow};
use fovea_infer::{Bundle, Device, Model, TrustedKey};
use std::path::Path;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, key, runtime, runs @ ..] = &arguments[..] else {
        return Err(anyhow!("usage: latency BUNDLE PUBLIC_KEY RUNTIME_FOLDER [RUNS]"));
    };
    let runs: usize = runs.first().map_or(Ok(200), |runs| runs.parse()).context("RUNS is no number")?;
    let bundle = Bundle::open(Path::new(bundle), &[TrustedKey::read(Path::new(key))?])?;
    let tensors: Vec<Vec<f32>> =
        bundle.manifest.networks.iter().map(|network| vec![0.25; network.input_len()]).collect();
    let mut model = Model::admit(bundle, &mut Device::open("CPU", Path::new(runtime))?)?;
    let mut times_us: Vec<u128> = Vec::with_capacity(runs);
    for _run in 0..runs.max(1) {
        let start = Instant::now();
        for (network, tensor) in tensors.iter().enumerate() {
            model.run(network, tensor)?;
        }
        times_us.push(start.elapsed().as_micros());
    }
    times_us.sort_unstable();
    let at = |percent: usize| times_us[(times_us.len() - 1) * percent / 100];
    println!("{} runs: median {} us, p99 {} us, least {} us", times_us.len(), at(50), at(99), at(0));
    Ok(())
}
