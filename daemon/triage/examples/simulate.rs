//! Prints what the simulator finds: `cargo run -p fovea-triage --example simulate [SEED [SIM.toml]]`.

use fovea_triage::{RawSimConfig, SimConfig, simulate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let raw: RawSimConfig = match arguments.next() {
        Some(path) => toml::from_str(&std::fs::read_to_string(path)?)?,
        None => RawSimConfig::default(),
    };
    print!("{}", simulate(&SimConfig::try_from(raw)?, seed).markdown());
    Ok(())
}
