//! `make demo`: real pictures through a whole box, beside an archive, ending in a table.
//!
//! In: the samples, the built programs, Orthanc (unless `--archive none`). Out: progress, the table, a state folder to look into.
//! Promise: it exits non-zero and says in plain words what was not as it must be; what it started is stopped, also on Ctrl-C.

mod pictures;
mod steps;
mod table;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use fovea_tests::{paths, process};
use std::path::PathBuf;
use std::process::ExitCode;

/// Sends real pictures through a Fovea box and shows what came of them. Research use only, not a medical device.
#[derive(Parser)]
struct Cli {
    /// What plays the archive.
    #[arg(long, value_enum, default_value_t = ArchiveKind::Orthanc)]
    archive: ArchiveKind,
    /// Folder for state, logs and archive; emptied first. Default: demo-out in the workspace.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArchiveKind {
    /// Orthanc, on loopback.
    Orthanc,
    /// None: the outbox holds.
    None,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = cli.out.unwrap_or_else(|| paths::workspace().join("demo-out"));
    match stop_on_signal().and_then(|()| steps::run(&out, cli.archive == ArchiveKind::Orthanc)) {
        Ok(wrong) if wrong.is_empty() => {
            println!("All as it must be. State, logs and archive are kept in {}", out.display());
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("Not as it must be:");
            wrong.iter().for_each(|line| println!("  {line}"));
            println!("State and logs are kept in {}", out.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            eprintln!("State and logs, as far as they came, are in {}", out.display());
            ExitCode::FAILURE
        }
    }
}

/// Ends the programs we started, then this one, on SIGINT and SIGTERM.
fn stop_on_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("watch for signals")?;
    let watch = std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            process::stop_everything();
            eprintln!("\ndemo: stopped");
            // 128 + SIGINT, as shells expect of an interrupted command.
            std::process::exit(130);
        });
    });
    // Never joined: it waits for a signal until the process ends.
    watch.map(drop).context("watch for signals")
}
