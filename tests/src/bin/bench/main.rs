//! `make bench`: how fast the box is, beside the peers that the design names, in one run and one table.
//!
//! In: release programs, the samples, DCMTK, OpenVINO's benchmark_app. Out: a table with machine and commit; exit status 0 whatever
//! the figures are: they are read, not enforced, because a shared machine would fail them by chance.
//! Promise: peers run interleaved with us, round by round, on the same machine and files; each figure is a median over rounds.

mod drain;
mod engine;
mod fundus;
mod ingest;
mod machine;
mod numbers;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use machine::Machine;
use numbers::Row;
use std::process::ExitCode;

/// Measures this box beside its peers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only these parts.
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Part>,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

#[derive(Subcommand)]
enum Command {
    /// Runs our engine alone and prints inferences a second; the bench starts it as a process of its own.
    #[command(hide = true)]
    EngineLoop {
        /// How long.
        #[arg(long)]
        seconds: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Last byte to recorded finding of a large photograph.
    Fundus,
    /// Inference alone, beside benchmark_app.
    Engine,
    /// C-STORE, beside storescp.
    Ingest,
    /// The outbox to storescp, beside dcmsend.
    Drain,
}

type Measure = fn(&Machine, u32) -> anyhow::Result<Vec<Row>>;

const PARTS: [(Part, Measure); 4] = [
    (Part::Fundus, fundus::measure),
    (Part::Engine, engine::measure),
    (Part::Ingest, ingest::measure),
    (Part::Drain, drain::measure),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::EngineLoop { seconds }) => engine::run_alone(seconds),
        None => run(&cli.only, cli.rounds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(only: &[Part], rounds: u32) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("bench: this is not a release build; the figures say little");
    }
    let machine = Machine::look()?;
    let mut rows = Vec::new();
    for (part, measure) in PARTS {
        if only.is_empty() || only.contains(&part) {
            eprintln!("bench: {part:?}");
            rows.extend(measure(&machine, rounds).with_context(|| format!("measure {part:?}"))?);
        }
    }
    println!("{machine}");
    numbers::print(&rows);
    Ok(())
}
