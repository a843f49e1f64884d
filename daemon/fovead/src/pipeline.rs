//! The whole flow on one screen.
//!
//! ```text
//! [Inbox] --Accepted--> worker --Analysis--> triage --Finding--> [Ledger]        (analyse)
//! [Ledger] --Finding--> report, deid --NewParcel | Quarantined--> [Outbox]       (dispatch)
//! ```
//!
//! Both loops pull what the ports say is not done yet, so a restart is no special case, memory does not grow with
//! the backlog, and a doorbell only shortens the wait.

use crate::copies::Copies;
use crate::logging::chain;
use crate::worker_thread::WorkerThread;
use fovea_core::{Accepted, Analysis, Finding, Inbox, Ledger, Outbox, PortError, Reason, Recorded, UnixMicros};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Rows pulled at once: bounds memory, and how long a stop waits for the object in hand.
const BATCH: usize = 32;
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
    pub beat: Heartbeat,
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

/// When the analyse loop last went round, for the watchdog.
#[derive(Clone, Default)]
pub struct Heartbeat(Arc<AtomicI64>);

impl Heartbeat {
    /// Time since the last round.
    pub fn age(&self) -> Duration {
        Duration::from_micros(now().since(UnixMicros(self.0.load(Ordering::Relaxed))))
    }

    pub fn beat(&self) {
        self.0.store(now().0, Ordering::Relaxed);
    }
}

impl Pipeline {
    /// Gives every accepted object its one outcome, oldest first, until `stop` fires; the object in hand is finished.
    pub async fn analyse(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.beat.beat();
            let inbox = Arc::clone(&self.inbox);
            match blocking(move || inbox.pending(BATCH)).await {
                Ok(batch) if batch.is_empty() => wait(&self.bells.accepted, &stop).await,
                Ok(batch) => {
                    for accepted in batch {
                        if stop.is_cancelled() {
                            return;
                        }
                        self.beat.beat();
                        if let Err(error) = self.look_at(accepted).await {
                            log::error!("an object waits for its outcome: {}", chain(&error));
                            pause(&stop).await;
                        }
                    }
                }
                Err(error) => {
                    log::error!("the inbox cannot be read: {}", chain(&error));
                    pause(&stop).await;
                }
            }
        }
    }

    /// worker -> triage -> ledger, for one object.
    async fn look_at(&self, accepted: Accepted) -> Result<(), PortError> {
        let taken_at = now();
        let (inbox, uid) = (Arc::clone(&self.inbox), accepted.header.sop_instance_uid.clone());
        let analysis = match blocking(move || inbox.open_object(&uid)).await {
            Ok(object) => self.worker.analyse(object, accepted.header.clone()).await,
            Err(error) => {
                log::error!("an accepted object cannot be opened: {}", chain(&error));
                let advice = "Send it again if the sender still has it; run `foveactl doctor`";
                Analysis::not_analysed(Reason::new("object_unreadable", "the stored object cannot be read", advice))
            }
        };
        let finding = fovea_triage::triage(&accepted, analysis, taken_at, now());
        log::info!(
            sop_instance_uid:% = finding.sop_instance_uid, outcome:? = finding.outcome, band:? = finding.band,
            recorded_us = finding.timing_us.recorded; "outcome"
        );
        let ledger = Arc::clone(&self.ledger);
        if let Recorded::Already(_) = blocking(move || ledger.record(finding)).await? {
            log::warn!("an object came up twice; its first outcome stands");
        }
        self.bells.recorded.notify_one();
        self.bells.published.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Puts report and copy of every finding into the outbox, oldest first, until `stop` fires.
    pub async fn dispatch(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let ledger = Arc::clone(&self.ledger);
            match blocking(move || ledger.undispatched(BATCH)).await {
                Ok(batch) if batch.is_empty() => wait(&self.bells.recorded, &stop).await,
                Ok(batch) => {
                    for finding in batch {
                        if stop.is_cancelled() {
                            return;
                        }
                        if let Err(error) = self.send_off(finding).await {
                            log::error!("a finding waits for the outbox: {}", chain(&error));
                            pause(&stop).await;
                        }
                    }
                }
                Err(error) => {
                    log::error!("the ledger cannot be read: {}", chain(&error));
                    pause(&stop).await;
                }
            }
        }
    }

    /// report and deid -> outbox, for one finding.
    async fn send_off(&self, finding: Finding) -> Result<(), PortError> {
        let (outbox, copies) = (Arc::clone(&self.outbox), Arc::clone(&self.copies));
        blocking(move || {
            let made = copies.make(&finding)?;
            outbox.dispatch(&finding.sop_instance_uid, made.parcels, made.quarantined, now())
        })
        .await?;
        self.bells.dispatched.iter().for_each(|bell| bell.notify_one());
        Ok(())
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
