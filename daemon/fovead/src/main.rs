//! `fovead`: the daemon of one Fovea box.
//!
//! In: a configuration file and a state folder. Out: a running box, until SIGTERM or SIGINT.
//! Promise: it stops in order (nothing in hand is cut), and can be killed at any instruction and started again.

mod capture;
mod catalogue;
mod config;
mod copies;
mod heartbeat;
mod identity;
mod logging;
mod models;
mod patience;
mod pipeline;
mod scheduled;
mod slides;
mod status;
mod supervise;
mod web;
mod worker_thread;
mod worklist;

use clap::{Parser, Subcommand};
use config::Config;
use std::path::PathBuf;
use std::process::ExitCode;

/// `EX_CONFIG` of sysexits.h: systemd shows it as "78/CONFIG", and the unit does not restart on it.
const EXIT_CONFIG: u8 = 78;

/// Edge inference for medical images. Research use only, not a medical device.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  fovead run --state /tmp/fovea
  fovead run --config /etc/fovea/fovea.toml
  fovead check --config /etc/fovea/fovea.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the box until SIGTERM or SIGINT.
    Run(Args),
    /// Checks the configuration; exit status 78 when it cannot be used.
    Check(Args),
}

#[derive(clap::Args)]
struct Args {
    /// Configuration (TOML); without one, the defaults: loopback only, no archive.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of everything the box keeps; wins over [store] state_dir.
    #[arg(long, env = "FOVEA_STATE")]
    state: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (args, run) = match cli.command {
        Command::Run(args) => (args, true),
        Command::Check(args) => (args, false),
    };
    let config = match Config::load(args.config.as_deref(), args.state.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("fovead: {}", fovea_core::chain(&error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if !run {
        println!("The configuration is good: state in {}", config.store.state_dir.display());
        return ExitCode::SUCCESS;
    }
    match logging::install(config.log_level).and_then(|()| supervise::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            eprintln!("fovead: {error:#}");
            ExitCode::FAILURE
        }
    }
}
