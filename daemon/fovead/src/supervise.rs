//! Starts every task, tells systemd, and stops them in order.
//!
//! In: a checked config. Out: the running box.
//! Promise: READY means that objects are accepted and bundles are admitted or refused; a task that ends unasked stops
//! the daemon with an error (the service manager starts it again); a stop finishes what is in hand, up to a deadline.

use crate::capture::SandboxedPictures;
use crate::catalogue;
use crate::config::Config;
use crate::copies::Copies;
use crate::heartbeat::Heartbeat;
use crate::models::{Models, Shelf};
use crate::pipeline::{Bells, Pipeline};
use crate::scheduled::Planned;
use crate::status::StatusSource;
use crate::web;
use crate::worker_thread::WorkerThread;
use crate::worklist::WorklistSource;
use anyhow::Context;
use fovea_catalogue::Catalogue;
use fovea_core::{Inbox, Ledger, Outbox, Schedule, chain};
use fovea_review::Api;
use fovea_store::Store;
use fovea_worklist::Worklist;
use sd_notify::NotifyState;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to finish what is in hand; below TimeoutStopSec of the unit.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Of it, how long the object in hand may take before it is given up: a slide takes minutes, and waits for the next start.
const OBJECT_DRAIN_MAX: Duration = Duration::from_secs(10);
/// Threads that wait for the network. Disk and engine calls have threads of their own.
const ASYNC_WORKERS: usize = 2;
/// Threads for disk calls: as many objects as are made durable at once; more would only queue at the disk.
const BLOCKING_THREADS_MAX: usize = 64;

/// Runs the box until SIGTERM or SIGINT.
///
/// # Errors
/// When something cannot be started, or a task ends unasked.
pub fn run(config: Config) -> anyhow::Result<()> {
    let store = Store::open(&config.store).context("open the state folder")?;
    let shelf = Shelf::open(&config.store.state_dir.join("models"), &config.worker).context("open the model store")?;
    let worker = WorkerThread::start(config.worker.clone(), shelf.choice()).context("start the worker's thread")?;
    let models = Arc::new(Models::new(shelf, worker.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(supervise(config, store, worker, models));
    // What is left is a blocking call past the deadline: it must not hold the stop up any longer.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

async fn supervise(config: Config, store: Arc<Store>, worker: WorkerThread, models: Arc<Models>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new();
    let beats = start(&config, store, worker.clone(), models, &stop, &mut tasks).await?;
    notify(&[NotifyState::Ready, NotifyState::Status("accepting objects")]);
    log::info!("ready");

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(task) = tasks.join_next() => Err(unasked(task)),
        never = watchdog(beats, &worker, &config) => match never {},
    };
    notify(&[NotifyState::Stopping]);
    log::info!("stopping");
    stop.cancel();
    let mut drained = drain(&mut tasks, OBJECT_DRAIN_MAX).await;
    if drained.is_err() {
        worker.give_up();
        drained = drain(&mut tasks, DRAIN_MAX - OBJECT_DRAIN_MAX).await;
    }
    if drained.is_err() {
        log::warn!(
            "some tasks did not finish within {} s; what they had in hand is done again at the next start",
            DRAIN_MAX.as_secs()
        );
    }
    ended
}

async fn drain(tasks: &mut Tasks, limit: Duration) -> Result<(), tokio::time::error::Elapsed> {
    tokio::time::timeout(limit, async { while tasks.join_next().await.is_some() {} }).await
}

/// Wires the stages together; returns the heartbeats of the two loops. The control socket opens last: who reaches it
/// finds everything else at work.
async fn start(
    config: &Config,
    store: Arc<Store>,
    worker: WorkerThread,
    models: Arc<Models>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<[Heartbeat; 2]> {
    let bells = Bells {
        accepted: Arc::new(Notify::new()),
        recorded: Arc::new(Notify::new()),
        published: watch::Sender::new(0),
        dispatched: config.destinations.iter().map(|_| Arc::new(Notify::new())).collect(),
    };
    let (inbox, ledger, outbox): (Arc<dyn Inbox>, Arc<dyn Ledger>, Arc<dyn Outbox>) =
        (store.clone(), store.clone(), store.clone());
    let catalogue = Catalogue::new(&config.store.state_dir.join("catalogue"), inbox.clone(), outbox.clone());
    let catalogue = Arc::new(catalogue);
    spawn(tasks, "catalogue", endless(catalogue::follow(catalogue.clone(), stop.clone())));

    let clock: fovea_sync::Clock = Arc::new(|| SystemTime::now().into());
    let named = config.destinations.iter().zip(bells.dispatched.iter().cloned());
    let custodian = fovea_sync::Custodian::new(named, outbox.clone(), store.clone(), clock.clone());
    let counters = Arc::new(fovea_receive::Counters::default());
    let ports = fovea_receive::Ports {
        inbox: inbox.clone(),
        documents: Some(store.clone()),
        holdings: Some(catalogue.clone()),
        committed: Some(custodian.clone()),
    };
    let planned = Planned::open(config, store.clone());
    if let (Some(config), Some(list)) = (config.scheduled.clone(), planned.list.clone()) {
        let fetching = fovea_worklist::run(config, list, planned.state.clone(), stop.clone());
        spawn(tasks, "worklist", endless(fetching));
    }
    if let Some((listener, config, web)) =
        web::open(config, catalogue, inbox.clone(), &bells.accepted, &counters).await?
    {
        spawn(tasks, "DICOMweb", fovea_review::serve_web(listener, config, web, stop.clone()));
    }
    take_in(config, ports, &bells.accepted, &counters, &worker, planned.list.clone(), stop, tasks).await?;

    let beats = [Heartbeat::new(), Heartbeat::new()];
    let sending = fovea_sync::Ports { inbox: inbox.clone(), ledger: ledger.clone(), outbox: outbox.clone(), clock };
    let pipeline = Arc::new(Pipeline {
        inbox,
        ledger: ledger.clone(),
        outbox: outbox.clone(),
        worker: worker.clone(),
        copies: Arc::new(Copies::new(config, store.clone())?),
        bells: bells.clone(),
        analysing: beats[0].clone(),
        dispatching: beats[1].clone(),
    });
    spawn(tasks, "analyse", endless(pipeline.clone().analyse(stop.clone())));
    spawn(tasks, "dispatch", endless(pipeline.dispatch(stop.clone())));

    let mut sync = Vec::new();
    for (destination, bell) in config.destinations.iter().zip(bells.dispatched.iter()) {
        let counters = Arc::new(fovea_sync::Counters::default());
        sync.push((destination.name.clone(), Arc::clone(&counters)));
        let (destination, ports, custodian) = (destination.clone(), sending.clone(), custodian.clone());
        let sending = fovea_sync::run(destination, ports, custodian, bell.clone(), counters, stop.clone());
        spawn(tasks, "sync", sending);
    }

    let status = StatusSource::new(config, store, worker, Arc::clone(&models), counters, sync);
    let status = Arc::new(move || status.object());
    let open = WorklistSource::new(ledger.clone(), config.triage.clone());
    let worklist = Arc::new(move |limit| open.at(limit, SystemTime::now().into()));
    let scheduled = planned.told();
    let api = Api { ledger, outbox, status, worklist, scheduled, models, recorded: bells.published.subscribe() };
    let (socket, control_stop) = (config.store.state_dir.join("control.sock"), stop.clone());
    spawn(tasks, "control socket", async move { fovea_review::serve(&socket, api, control_stop).await });
    Ok(beats)
}

/// Opens the ways in: the DICOM ports and the capture folder.
#[expect(clippy::too_many_arguments, reason = "each is a stage's end that is tied here and nowhere else")]
async fn take_in(
    config: &Config,
    ports: fovea_receive::Ports,
    accepted: &Arc<Notify>,
    counters: &Arc<fovea_receive::Counters>,
    worker: &WorkerThread,
    planned: Option<Arc<Worklist>>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let listen = config.receive.listen;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on {listen} ([receive] listen)"))?;
    log::info!("DICOM: {} on {listen}", config.receive.ae_title);
    let secured = match &config.receive.tls {
        None => None,
        Some(tls) => {
            let listener = tokio::net::TcpListener::bind(tls.listen).await;
            let listener = listener.with_context(|| format!("listen on {} ([receive.tls] listen)", tls.listen))?;
            log::info!("DICOM over TLS: {} on {}", config.receive.ae_title, tls.listen);
            Some((listener, tls.server.clone()))
        }
    };
    let doors = fovea_receive::Doors { plain: listener, secured };
    let receive = Arc::new(config.receive.clone());
    let inbox = ports.inbox.clone();
    let serving = fovea_receive::serve(doors, receive, counters.clone(), ports, accepted.clone(), stop.clone());
    spawn(tasks, "receive", serving);

    let folder = config.store.state_dir.join("capture");
    // Made here as well, so that it is there when we say that we are ready.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("make the folder {}", folder.display()))?;
    let pictures = Arc::new(SandboxedPictures::new(worker.clone()));
    let (bell, planned) = (accepted.clone(), planned.map(|list| list as Arc<dyn Schedule>));
    let watching =
        fovea_receive::watch_scheduled(folder, inbox, bell, counters.clone(), pictures, planned, stop.clone());
    spawn(tasks, "capture", watching);
    Ok(())
}

/// A loop that knows no error of its own.
async fn endless(task: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    task.await;
    Ok(())
}

fn spawn<E: std::error::Error + Send + Sync + 'static>(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tasks.spawn(async move { (name, task.await.map_err(anyhow::Error::new)) });
}

fn unasked(task: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    match task {
        Ok((name, Ok(()))) => anyhow::anyhow!("the task {name} ended unasked"),
        Ok((name, Err(error))) => error.context(format!("the task {name} failed")),
        Err(error) => anyhow::anyhow!("a task panicked: {}", chain(&error)),
    }
}

/// Feeds systemd's watchdog while both loops go round: a box that hangs is restarted.
async fn watchdog(beats: [Heartbeat; 2], worker: &WorkerThread, config: &Config) -> std::convert::Infallible {
    let Some(interval) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // One object may take both of its tries to the deadline, and a reload of the worker between them.
    let round_max = 3 * config.worker.object_deadline + config.worker.load_deadline;
    loop {
        tokio::time::sleep(interval / 3).await;
        // A slide shows life with each field that was read.
        let analysing = beats[0].age().min(worker.progress_age().unwrap_or(Duration::MAX));
        match analysing.max(beats[1].age()) {
            age if age >= round_max => log::error!("a loop has not gone round for {} s", age.as_secs()),
            _ => notify(&[NotifyState::Watchdog]),
        }
    }
}

fn notify(state: &[NotifyState]) {
    // Without systemd there is no socket, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot tell the service manager: {error}");
    }
}
