//! `foveactl`: the command line of one box.
//!
//! In: arguments, the daemon's control socket. Out: tables for people, or with `--json` one object a line with stable keys.
//! Promise: it changes nothing on the box but, where asked to, the set of models, and with `store` what is damaged on a stopped one;
//! every error names the cure.

mod check;
mod client;
mod conformance;
mod doctor;
mod eval;
mod models;
mod outbox;
mod send;
mod store;
mod table;
mod triage;
mod views;

use clap::{Args, Parser, Subcommand};
use client::Client;
use send::Node;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Looks after one Fovea box. Research use only, not a medical device.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  foveactl status
  foveactl findings --follow
  foveactl worklist
  foveactl show f-0123456789abcdef0123456789abcdef --json
  foveactl models check dr-screening/
  foveactl models eval dr-screening/ --labels labels.csv --images photos/ --html
  foveactl models install dr-screening-1.1.0.fovea
  foveactl send photo.dcm studies/ --to FOVEA@127.0.0.1:11112 --associations 4"
)]
struct Cli {
    /// State folder of the daemon; its control socket is in there.
    #[arg(long, env = "FOVEA_STATE", default_value = "/var/lib/fovea", global = true)]
    state: PathBuf,
    /// One JSON object a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is running: models, queue, outbox, disk, peers.
    Status,
    /// Findings, oldest first.
    Findings(FindingsArgs),
    /// One finding by its id or by SOP Instance UID, with what was sent for it.
    Show {
        /// Finding id or SOP Instance UID.
        id: String,
    },
    /// Open findings in the order of need: who is looked at first, and why.
    Worklist(WorklistArgs),
    /// What leaves the box, and where each piece stands.
    #[command(after_help = "Examples:
  foveactl outbox
  foveactl outbox list --set-aside
  foveactl outbox retry 17
  foveactl outbox retry --all --destination vna")]
    Outbox {
        #[command(subcommand)]
        command: Option<outbox::OutboxCommand>,
    },
    /// Model bundles.
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// What the box keeps: checks it, and mends what can be mended. Needs the daemon stopped.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// What sorting by need does to waiting.
    Triage {
        #[command(subcommand)]
        command: TriageCommand,
    },
    /// Looks for what would keep the box from working; exit status 1 when something would.
    Doctor,
    /// Prints the DICOM conformance statement of this version, as Markdown.
    Conformance,
    /// Sends DICOM files to a DICOM node, as a scope or cart would.
    Send(SendArgs),
}

#[derive(Args)]
struct FindingsArgs {
    /// Goes on printing findings as they are recorded.
    #[arg(long)]
    follow: bool,
    /// Starts after this place (the number in the first column).
    #[arg(long, default_value_t = 0, value_name = "PLACE")]
    after: u64,
}

#[derive(Args)]
struct WorklistArgs {
    /// Shows so many, the most urgent first.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Shows what is planned instead: the modality worklist as it was last fetched.
    #[arg(long)]
    scheduled: bool,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Reads every byte that is kept and says what is not as it was acknowledged; exit status 1 when something is not.
    ///
    /// The journal against its seals and checksums, each object against its SHA-256, each parcel against its length. A damaged
    /// object is moved to quarantine/damaged with a note beside it; when its sender brings it again, that takes its place.
    /// The daemon must be stopped, for the state folder has one owner; as root the work is done as the folder's own user.
    #[command(after_help = "Examples:
  systemctl stop fovead; foveactl store verify; systemctl start fovead
  foveactl --state /srv/fovea store verify --json")]
    Verify,
    /// Mends what can be mended, then verifies; exit status 1 when something is still not as it was acknowledged.
    ///
    /// Writes again what the journal has lost and the index still knows, makes the index anew from the journal, makes records again from
    /// objects that lost theirs, and gives files that came back into quarantine/damaged or quarantine/orphans their place, if they are
    /// byte for byte what was acknowledged. Nothing that can still be read is removed.
    /// The daemon must be stopped, for the state folder has one owner; as root the work is done as the folder's own user.
    #[command(after_help = "Examples:
  systemctl stop fovead; foveactl store rebuild; systemctl start fovead
  foveactl --state /srv/fovea store rebuild --json")]
    Rebuild,
}

#[derive(Subcommand)]
enum TriageCommand {
    /// Simulates a reading room: waits by need against first come, first served, as Markdown. Needs no daemon.
    ///
    /// The list is ordered, and readers are chosen, by the functions of the box. The same configuration and seed give the same table.
    #[command(after_help = "Examples:
  foveactl triage simulate
  foveactl triage simulate --seed 7 --config room.toml --json

room.toml, each key as in the defaults unless stated:
  trained_readers = 2
  loads = [0.7, 0.9]
  triage.routine_wait_max_min = 480")]
    Simulate(SimulateArgs),
}

#[derive(Args)]
struct SimulateArgs {
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is simulated (TOML): readers, loads, the model's figures, and [triage] as in fovea.toml.
    #[arg(long, value_name = "SIM.toml")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Every bundle that the daemon knows, built-in or installed: serving, idle, or refused and why.
    List,
    /// Proves bundles on this machine, as the daemon would before they serve; exit status 1 when one is refused.
    ///
    /// Signature, hashes, bounds and golden vectors, in a sandboxed process with time and memory limits. Needs no daemon.
    Check(CheckArgs),
    /// Measures a bundle on labelled pictures, through the code of production; writes a page with --html. Needs no daemon.
    Eval(Box<eval::EvalArgs>),
    /// Proves a bundle and keeps it on the box; it serves from the next object on.
    Install(InstallArgs),
    /// Lets an installed version, or the built-in one, serve from the next object on.
    Activate {
        /// Bundle id.
        id: String,
        /// Its version.
        version: String,
    },
    /// Lets the version serve again that served before.
    Rollback {
        /// Bundle id.
        id: String,
    },
}

#[derive(Args)]
struct InstallArgs {
    /// The bundle: a folder with a bundle.toml, or a *.fovea file.
    bundle: PathBuf,
    /// Lets it serve at once, which is the default.
    #[arg(long, conflicts_with = "no_activate")]
    activate: bool,
    /// Keeps it, and lets what serves go on serving.
    #[arg(long)]
    no_activate: bool,
}

#[derive(Args)]
struct CheckArgs {
    /// Bundles: folders with a bundle.toml, or *.fovea files.
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    /// A further key file whose bundles are trusted, beside the release's own.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// Folder of the OpenVINO runtime.
    #[arg(long, env = "FOVEA_OPENVINO_DIR")]
    runtime_dir: Option<PathBuf>,
}

#[derive(Args)]
struct SendArgs {
    /// Part 10 files, or folders searched for them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The node, as AE@HOST:PORT.
    #[arg(long, value_name = "AE@HOST:PORT")]
    to: Node,
    /// AE title that we call ourselves.
    #[arg(long, default_value = "FOVEACTL", value_parser = fovea_core::AeTitle::new)]
    calling_ae: fovea_core::AeTitle,
    /// Associations side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    associations: u16,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("start the runtime")),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        // A reader that closed the pipe (`foveactl findings | head`) is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let client = Client::new(&cli.state);
    match cli.command {
        Command::Status => views::status(&client, cli.json).await?,
        Command::Findings(args) => views::findings(&client, args.after, args.follow, cli.json).await?,
        Command::Show { id } => views::show(&client, &id, cli.json).await?,
        Command::Worklist(args) if args.scheduled => views::scheduled(&client, cli.json).await?,
        Command::Worklist(args) => views::worklist(&client, args.limit, cli.json).await?,
        Command::Outbox { command } => outbox::run(&client, command, cli.json).await?,
        Command::Models { command } => return run_models(&client, command, cli.json).await,
        Command::Store { command: StoreCommand::Verify } => return store::verify(&cli.state, cli.json),
        Command::Store { command: StoreCommand::Rebuild } => return store::rebuild(&cli.state, cli.json),
        Command::Triage { command: TriageCommand::Simulate(args) } => triage::simulate(&args, cli.json)?,
        Command::Doctor => return doctor::run(&client, &cli.state, cli.json).await,
        Command::Conformance => std::io::stdout().lock().write_all(conformance::statement().as_bytes())?,
        Command::Send(args) => return send::run(args, cli.json).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_models(client: &Client, command: ModelsCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        ModelsCommand::List => models::list(client, json).await?,
        ModelsCommand::Check(args) => return check::run(&args, json),
        ModelsCommand::Eval(args) => return eval::run(*args, json).await,
        ModelsCommand::Install(args) => models::install(client, &args, json).await?,
        ModelsCommand::Activate { id, version } => models::activate(client, &id, &version, json).await?,
        ModelsCommand::Rollback { id } => models::rollback(client, &id, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("foveactl: {error:#}");
    ExitCode::FAILURE
}

/// Our own output went nowhere. A connection that breaks is wrapped by its protocol's error, and is a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let plain = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = || error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    plain.or_else(json) == Some(std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure_with_and_without_json() {
        let json = serde_json::to_writer(Closed, &[1, 2, 3]).unwrap_err();
        assert!(is_broken_pipe(&anyhow::Error::new(json)));
        assert!(is_broken_pipe(&anyhow::Error::new(Error::from(ErrorKind::BrokenPipe))));
        assert!(!is_broken_pipe(&anyhow::Error::new(Error::from(ErrorKind::NotFound))));
        assert!(!is_broken_pipe(&anyhow::anyhow!("the daemon did not answer")));
    }
}
