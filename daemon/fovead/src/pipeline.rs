//! The whole flow on one screen.
//!
//! ```text
//! [Inbox] --Accepted--> worker --Analysis--> triage --Finding--> [Ledger]        (analyse)
//! [Ledger] --Finding--> report, deid --NewParcel | Quarantined--> [Outbox]       (dispatch)
//! ```
//!
//! `analyse` is two loops, one for slides and one for all else, so that no picture waits for a slide. All loops pull what the ports say is not done yet, so a restart is no special case, memory does not grow with
//! the backlog, and a doorbell only shortens the wait.

use crate::copies::Copies;
use crate::heartbeat::Heartbeat;
use crate::patience::Patience;
use crate::slides::is_slide;
use crate::worker_thread::WorkerThread;
use fovea_core::{Accepted, Analysis, Finding, Inbox, Ledger, Outbox, PortError, Reason, Recorded, UnixMicros, chain};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Rows pulled at once: bounds memory, and how long a stop waits for the object in hand.
const BATCH: usize = 32;
/// Objects of the other loop that are looked past: more slides than a box has room for; pictures are soon done.
const LOOK_PAST_MAX: usize = 16_384;
/// Longest silence of the loop over slides: longer than a worker may take to start, or a slide for one field, with all tries.
const SLIDE_SILENT_MAX: Duration = Duration::from_secs(600);
/// Wait after a port failed, for instance on a full disk, before it is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// A loop with nothing to do shows life at least this often.
const IDLE_BEAT: Duration = Duration::from_secs(5);

/// The ports and stages between "durable" and "ready to leave".
pub struct Pipeline {
    pub inbox: Arc<dyn Inbox>,
    pub ledger: Arc<dyn Ledger>,
    pub outbox: Arc<dyn Outbox>,
    pub worker: WorkerThread,
    pub copies: Arc<Copies>,
    pub bells: Bells,
    pub analysing: Heartbeat,
    pub dispatching: Heartbeat,
}

/// Doorbells: each says "look again", none carries data.
#[derive(Clone)]
pub struct Bells {
    /// An object was accepted.
    pub accepted: Arc<Notify>,
    /// A finding was recorded: for the dispatch loop.
    pub recorded: Arc<Notify>,
    /// A finding was recorded: for readers that wait.
    pub published: watch::Sender<u64>,
    /// Parcels were dispatched, one bell for each destination.
    pub dispatched: Arc<[Arc<Notify>]>,
}

impl Pipeline {
    /// Gives every accepted object its one outcome, oldest first, until `stop` fires; the objects in hand are finished.
    ///
    /// Slides and all else are two loops: which of them takes an object follows from its header, so none is taken by both.
    pub async fn analyse(self: Arc<Self>, stop: CancellationToken) {
        let (slides, seen) = (Heartbeat::new(), Notify::new());
        let pictures = Lane { of_slides: false, bell: &self.bells.accepted, beat: &self.analysing, seen: &seen };
        let of_slides = Lane { of_slides: true, bell: &seen, beat: &slides, seen: &seen };
        tokio::join!(self.analyse_lane(&pictures, Some(&slides), &stop), self.analyse_lane(&of_slides, None, &stop));
    }

    /// One of the two loops; with `other` it shows no life while that one seems to hang, for the watchdog's sake.
    async fn analyse_lane(&self, lane: &Lane<'_>, other: Option<&Heartbeat>, stop: &CancellationToken) {
        let mut patience = Patience::default();
        let beat = || {
            if other.is_none_or(|other| !self.hangs_over_a_slide(other)) {
                lane.beat.beat();
            }
        };
        while !stop.is_cancelled() {
            beat();
            let (inbox, of_slides) = (Arc::clone(&self.inbox), lane.of_slides);
            let waiting = match blocking(move || Waiting::look(&*inbox, of_slides)).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    log::error!("the inbox cannot be read: {}", chain(&error));
                    pause(stop).await;
                    continue;
                }
            };
            if waiting.others && !lane.of_slides {
                lane.seen.notify_one();
            }
            if waiting.batch.is_empty() {
                wait(lane.bell, stop).await;
            }
            for accepted in waiting.batch {
                if stop.is_cancelled() {
                    return;
                }
                beat();
                let uid = accepted.header.sop_instance_uid.clone();
                match self.look_at(accepted, &mut patience).await {
                    Ok(()) => patience.done(&uid),
                    Err(error) => {
                        log::error!("{uid} waits for its outcome: {}", chain(&error));
                        pause(stop).await;
                    }
                }
            }
        }
    }

    fn hangs_over_a_slide(&self, slides: &Heartbeat) -> bool {
        // A slide shows life with each field that was read.
        slides.age().min(self.worker.slide_progress_age().unwrap_or(Duration::MAX)) > SLIDE_SILENT_MAX
    }

    /// worker -> triage -> ledger, for one object.
    async fn look_at(&self, accepted: Accepted, patience: &mut Patience) -> Result<(), StepError> {
        let taken_at = now();
        let analysis = match self.analysis(&accepted).await {
            Ok(analysis) => analysis,
            Err(error)
                if error.is_final() || patience.is_at_its_end(&accepted.header.sop_instance_uid, Instant::now()) =>
            {
                log::error!("{} is given up: {}", accepted.header.sop_instance_uid, chain(&error));
                Analysis::not_analysed(error.reason())
            }
            Err(error) => return Err(error),
        };
        let finding = fovea_triage::triage(&accepted, analysis, taken_at, now());
        log::info!(
            sop_instance_uid:% = finding.sop_instance_uid, outcome:? = finding.outcome, band:? = finding.band,
            recorded_us = finding.timing_us.recorded; "outcome"
        );
        let ledger = Arc::clone(&self.ledger);
        if let Recorded::Already(_) = blocking(move || ledger.record(finding)).await? {
            log::warn!("{} came up twice; its first outcome stands", accepted.header.sop_instance_uid);
        }
        self.bells.recorded.notify_one();
        self.bells.published.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn analysis(&self, accepted: &Accepted) -> Result<Analysis, StepError> {
        let (inbox, uid) = (Arc::clone(&self.inbox), accepted.header.sop_instance_uid.clone());
        let object = blocking(move || inbox.open_object(&uid)).await?;
        self.worker.analyse(object, accepted.header.clone()).await.ok_or(StepError::NoWorker)
    }

    /// Puts report and copy of every finding into the outbox, oldest first, until `stop` fires.
    pub async fn dispatch(self: Arc<Self>, stop: CancellationToken) {
        let mut patience = Patience::default();
        while !stop.is_cancelled() {
            self.dispatching.beat();
            let ledger = Arc::clone(&self.ledger);
            let batch = match blocking(move || ledger.undispatched(BATCH)).await {
                Ok(batch) => batch,
                Err(error) => {
                    log::error!("the ledger cannot be read: {}", chain(&error));
                    pause(&stop).await;
                    continue;
                }
            };
            if batch.is_empty() {
                wait(&self.bells.recorded, &stop).await;
            }
            for finding in batch {
                if stop.is_cancelled() {
                    return;
                }
                self.dispatching.beat();
                let uid = finding.sop_instance_uid.clone();
                match self.send_off(finding, &mut patience).await {
                    Ok(()) => patience.done(&uid),
                    Err(error) => {
                        log::error!("the finding of {uid} waits for the outbox: {}", chain(&error));
                        pause(&stop).await;
                    }
                }
            }
        }
    }

    /// report and deid -> outbox, for one finding.
    async fn send_off(&self, finding: Finding, patience: &mut Patience) -> Result<(), PortError> {
        let (outbox, copies, uid) =
            (Arc::clone(&self.outbox), Arc::clone(&self.copies), finding.sop_instance_uid.clone());
        let sent = blocking(move || {
            let made = copies.make(&finding)?;
            outbox.dispatch(&finding.sop_instance_uid, made.parcels, made.quarantined, now())
        });
        if let Err(error) = sent.await {
            let full = matches!(error, PortError::OutOfSpace { .. });
            if full || !patience.is_at_its_end(&uid, Instant::now()) {
                return Err(error);
            }
            log::error!("report and copy of {uid} are held back: {}", chain(&error));
            let (outbox, held) = (Arc::clone(&self.outbox), Copies::held_back(&chain(&error)));
            blocking(move || outbox.dispatch(&uid, Vec::new(), held, now())).await?;
        }
        self.bells.dispatched.iter().for_each(|bell| bell.notify_one());
        Ok(())
    }
}

/// One of the two loops over the inbox.
struct Lane<'a> {
    of_slides: bool,
    /// Rings when there may be something new for it.
    bell: &'a Notify,
    beat: &'a Heartbeat,
    /// To be rung by the loop for pictures when it has seen a slide.
    seen: &'a Notify,
}

/// What waits for one of the loops.
struct Waiting {
    /// Oldest first, at most [`BATCH`].
    batch: Vec<Accepted>,
    /// Whether something for the other loop was seen.
    others: bool,
}

impl Waiting {
    /// Looks past objects of the other loop, at most [`LOOK_PAST_MAX`].
    fn look(inbox: &dyn Inbox, of_slides: bool) -> Result<Self, PortError> {
        let mut limit = BATCH;
        loop {
            let pending = inbox.pending(limit)?;
            let count = pending.len();
            let (mut batch, others): (Vec<Accepted>, Vec<Accepted>) =
                pending.into_iter().partition(|accepted| is_slide(&accepted.header) == of_slides);
            if !batch.is_empty() || count < limit || limit >= LOOK_PAST_MAX {
                batch.truncate(BATCH);
                return Ok(Self { batch, others: !others.is_empty() });
            }
            limit *= 8;
        }
    }
}

/// Why an object has no analysis yet.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the store could not do it")]
    Port(#[from] PortError),
    #[error("no worker can be started, see `foveactl doctor`")]
    NoWorker,
}

impl StepError {
    /// Trying again cannot help: the stored object itself is gone or damaged.
    fn is_final(&self) -> bool {
        matches!(self, Self::Port(PortError::NotHeld { .. } | PortError::Damaged { .. }))
    }

    fn reason(&self) -> Reason {
        let advice = "Take the picture again if you can, and tell the person who looks after the box";
        match self {
            Self::Port(_) => Reason::new("object_unreadable", "the stored object cannot be read", advice),
            Self::NoWorker => Reason::new("worker_unavailable", "no worker could be started", advice),
        }
    }
}

/// The wall clock, read here and handed to the stages.
pub fn now() -> UnixMicros {
    SystemTime::now().into()
}

async fn wait(bell: &Notify, stop: &CancellationToken) {
    tokio::select! {
        () = bell.notified() => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(IDLE_BEAT) => {}
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(RETRY) => {}
    }
}

/// Runs a port call on the blocking pool. A panic in there is a bug: it is raised again here, for the supervisor.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
