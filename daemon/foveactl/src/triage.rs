//! What sorting by need does to waiting, simulated.
//!
//! In: a seed, and a file that says what is simulated. Out: a table in Markdown, or its rows as JSON. Promise: the same input gives the
//! same output; it is the one that `docs/triage.md` shows.

use crate::SimulateArgs;
use crate::table::json_line;
use anyhow::Context;
use fovea_triage::{RawSimConfig, Row, SimConfig};
use serde::Serialize;
use std::io::{Read, Write};
use std::path::Path;

/// Longest file: one with every reader and rule that there may be has a tenth of it.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// One row and what it belongs to.
#[derive(Serialize)]
struct Line<'a> {
    seed: u64,
    #[serde(flatten)]
    row: &'a Row,
}

pub fn simulate(args: &SimulateArgs, json: bool) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => config(path).with_context(|| format!("{} cannot be simulated", path.display()))?,
        None => SimConfig::default(),
    };
    let report = fovea_triage::simulate(&config, args.seed);
    if json {
        return report.rows.iter().try_for_each(|row| json_line(&Line { seed: report.seed, row }));
    }
    Ok(std::io::stdout().lock().write_all(report.markdown().as_bytes())?)
}

fn config(path: &Path) -> anyhow::Result<SimConfig> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= CONFIG_BYTES_MAX, "it has more than {CONFIG_BYTES_MAX} bytes");
    let raw: RawSimConfig = toml::from_str(&text)?;
    Ok(SimConfig::try_from(raw)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_is_simulated_and_an_error_names_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            config(&path)
        };
        let small = read("cases = 1000\nloads = [0.5]\ntriage.routine_wait_max_min = 480").unwrap();
        let table = fovea_triage::simulate(&small, 7).markdown();
        assert!(table.contains("Seed 7, 1000 cases") && table.contains("routine 480 min"), "{table}");
        for (text, key) in [
            ("cases = 10", "cases"),
            ("case = 10", "case"),
            ("loads = [2.0]", "loads"),
            ("[triage]\ndue_at_percent = 10", "triage.due_at_percent"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(key), "{text:?} gave {error}");
        }
    }
}
