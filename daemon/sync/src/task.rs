//! One destination's task: takes what goes first, sends it, tells the outbox, and waits when there is nothing to do.

use crate::backoff::{Tries, pause};
use crate::config::Destination;
use crate::counters::Counters;
use crate::deliver::{Sent, Session, Unreadable, to_data_set};
use fovea_core::{Outbox, Parcel, PortError, UnixMicros, chain};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Parcels looked at to choose the next and to know which classes to propose.
const WINDOW: usize = 16;
/// Without a ring the outbox is asked so often: a lost ring costs seconds, not a parcel.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Why the task ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A call to the outbox panicked or the runtime went away.
    #[error("a call to the outbox did not come back")]
    Outbox {
        /// Why.
        #[from]
        source: JoinError,
    },
}

/// A refused object is tried at least so often before it is set aside.
const TRIES_IN_REFUSAL_TIME: u32 = 16;

/// What to do after a step.
enum Step {
    /// Go on at once.
    On,
    /// Nothing to send now: until a ring, or so long.
    Idle(Duration),
    /// The destination is not to be disturbed for so long.
    Pause(Duration),
}

/// How long a stop waits for an archive that is in the middle of an object: a box must not take its whole drain time to
/// go down because an archive hangs.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

struct Task {
    destination: Destination,
    outbox: Arc<dyn Outbox>,
    counters: Arc<Counters>,
    session: Option<Session>,
    tries: Tries,
    /// Failures of the destination in a row.
    failures: u32,
    /// Taken by the archive, but the outbox could not note it: before anything else is sent.
    unrecorded: Option<(u64, UnixMicros)>,
}

/// Sends what waits for `destination` until `stop`; the object in hand is finished and the association released, unless
/// the archive takes longer than [`STOP_PATIENCE`] for it.
///
/// `doorbell`: rung with `notify_one` when something was dispatched; one for each destination, for a ring wakes one.
/// Blocking calls of the outbox run off the async workers.
///
/// # Errors
/// [`SyncError`] only when a call to the outbox panics; trouble with the archive is waited out.
pub async fn run(
    destination: Destination,
    outbox: Arc<dyn Outbox>,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) -> Result<(), SyncError> {
    let mut task =
        Task { destination, outbox, counters, session: None, tries: Tries::default(), failures: 0, unrecorded: None };
    let result = loop {
        if stop.is_cancelled() {
            break Ok(());
        }
        let step = tokio::select! { // a dropped step loses nothing: a parcel that is not noted as delivered goes again, under its UID
            biased;
            step = task.step() => step,
            () = patience_ends(&stop) => {
                // An association with half an object on it cannot be released.
                task.session = None;
                break Ok(());
            }
        };
        match step {
            Ok(Step::On) => (),
            Ok(Step::Idle(longest)) => {
                task.close().await;
                tokio::select! { // cancel-safe: a ring that comes in between is kept by the Notify
                    () = stop.cancelled() => (),
                    () = doorbell.notified() => (),
                    () = sleep(longest) => (),
                }
            }
            Ok(Step::Pause(pause)) => {
                task.close().await;
                task.tell_next_try(Some(pause));
                tokio::select! { // cancel-safe: both only wait
                    () = stop.cancelled() => (),
                    () = sleep(pause) => (),
                }
                task.tell_next_try(None);
            }
            Err(error) => break Err(error),
        }
    };
    // Last chance for a success that was not noted: else the archive gets a duplicate, which it must bear.
    let noted = task.record_delivery().await;
    task.close().await;
    result.and(noted.map(drop))
}

/// Returns some time after `stop` fires.
async fn patience_ends(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(STOP_PATIENCE).await;
}

impl Task {
    /// Sends one parcel, if there is one to send.
    async fn step(&mut self) -> Result<Step, SyncError> {
        if !self.record_delivery().await? {
            return Ok(self.unavailable("the outbox cannot note a delivery"));
        }
        let window = match self.waiting().await? {
            Ok(window) => window,
            Err(error) => return Ok(self.unavailable(&format!("the outbox cannot be read: {}", chain(&error)))),
        };
        let now = Instant::now();
        let Some(first) = window.iter().position(|parcel| self.tries.ready(parcel.seq, parcel.lane, now)) else {
            let soonest = self.tries.next().filter(|_| !window.is_empty());
            let wait = soonest.map_or(LOOK_AGAIN, |at| at.saturating_duration_since(now));
            return Ok(Step::Idle(wait.clamp(Duration::from_millis(1), LOOK_AGAIN)));
        };
        let parcel = &window[first];
        let data_set = match self.open(parcel.seq).await? {
            Ok(file) => file,
            Err(Unreadable::ForGood(why)) => {
                self.counters.failure(&why);
                return self.set_aside(parcel, &why).await;
            }
            Err(Unreadable::Now(why)) => return Ok(self.failed(parcel, &why)),
        };
        let stale = |session: &Session| {
            // A refusal of the class is asked again with a new association only.
            !session.has_asked(parcel) || (self.tries.tried(parcel.seq) && !session.accepts(parcel))
        };
        if self.session.as_ref().is_some_and(stale) {
            self.close().await;
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => match Session::open(&self.destination, &window[first..]).await {
                Ok(session) => {
                    self.counters.note(|now| now.connected = true);
                    self.session.insert(session)
                }
                Err(why) => return Ok(self.unavailable(&why)),
            },
        };
        match session.send(parcel, data_set).await {
            Sent::Delivered => {
                self.unrecorded = Some((parcel.seq, SystemTime::now().into()));
                self.failures = 0;
                self.counters.note(|now| {
                    now.sent += 1;
                    now.last_error = None;
                });
                Ok(Step::On)
            }
            Sent::Refused(why) => self.refused(parcel, &why).await,
            Sent::Unavailable(why) => {
                self.session = None;
                self.counters.note(|now| now.connected = false);
                Ok(self.failed(parcel, &why))
            }
        }
    }

    /// This parcel could not be sent now, and perhaps no other: it waits longer each time, so others go first.
    fn failed(&mut self, parcel: &Parcel, why: &str) -> Step {
        let Destination { retry_min, retry_max, .. } = self.destination;
        self.tries.failed(parcel.seq, parcel.lane, retry_min, retry_max);
        self.unavailable(why)
    }

    /// The destination cannot be used now.
    fn unavailable(&mut self, why: &str) -> Step {
        let Destination { name, retry_min, retry_max, .. } = &self.destination;
        let pause = pause(*retry_min, *retry_max, self.failures);
        // Each further failure of the same kind is in the counters; the log gets the first and then ever fewer.
        if self.failures.is_power_of_two() || self.failures == 0 {
            log::warn!("destination {name}: {why}; next try in {pause:.1?}");
        }
        self.failures = self.failures.saturating_add(1);
        self.counters.failure(why);
        Step::Pause(pause)
    }

    /// The archive does not want this object: again later and ever more seldom, and in the end set aside.
    async fn refused(&mut self, parcel: &Parcel, why: &str) -> Result<Step, SyncError> {
        let Destination { retry_min, retry_max, refusals_max, refuse_after_min, .. } = &self.destination;
        self.counters.failure(why);
        let longest = (*retry_max).max(*refuse_after_min / TRIES_IN_REFUSAL_TIME);
        let (refusals, since) = self.tries.refused(parcel.seq, parcel.lane, *retry_min, longest);
        if refusals < refusals_max.get() || since < *refuse_after_min {
            return Ok(Step::On);
        }
        self.set_aside(parcel, &format!("{why}, {refusals} times")).await
    }

    /// Gives the object up for this destination; the outbox keeps it.
    async fn set_aside(&mut self, parcel: &Parcel, why: &str) -> Result<Step, SyncError> {
        let name = &self.destination.name;
        log::warn!("destination {name}: parcel {} set aside: {why}", parcel.seq);
        let (seq, name, why) = (parcel.seq, name.clone(), why.to_owned());
        match self.blocking(move |outbox| outbox.set_aside(seq, &name, &why)).await? {
            Ok(()) => {
                self.tries.settled(seq);
                self.counters.note(|now| now.set_aside += 1);
                Ok(Step::On)
            }
            Err(error) => Ok(self.unavailable(&format!("the outbox cannot note a refusal: {}", chain(&error)))),
        }
    }

    /// Notes the last delivery in the outbox; false when it could not.
    async fn record_delivery(&mut self) -> Result<bool, SyncError> {
        let Some((seq, at)) = self.unrecorded else { return Ok(true) };
        let name = self.destination.name.clone();
        match self.blocking(move |outbox| outbox.delivered(seq, &name, at)).await? {
            Ok(()) => {
                self.unrecorded = None;
                self.tries.settled(seq);
                Ok(true)
            }
            Err(error) => {
                log::error!("parcel {seq} was delivered, which cannot be recorded: {}", chain(&error));
                Ok(false)
            }
        }
    }

    async fn waiting(&self) -> Result<Result<Vec<Parcel>, PortError>, SyncError> {
        let (name, what) = (self.destination.name.clone(), self.destination.what.clone());
        let limit = WINDOW + self.tries.len();
        self.blocking(move |outbox| outbox.waiting(&name, &what, limit)).await
    }

    /// The parcel's file, at its data set.
    async fn open(&self, seq: u64) -> Result<Result<std::fs::File, Unreadable>, SyncError> {
        self.blocking(move |outbox| to_data_set(outbox.open_parcel(seq)?)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Outbox) -> T + Send + 'static,
    ) -> Result<T, SyncError> {
        let outbox = self.outbox.clone();
        Ok(spawn_blocking(move || call(&*outbox)).await?)
    }

    async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            session.release().await;
            self.counters.note(|now| now.connected = false);
        }
    }

    fn tell_next_try(&self, pause: Option<Duration>) {
        let at = pause.map(|pause| UnixMicros::from(SystemTime::now() + pause));
        self.counters.note(|now| now.next_try = at);
    }
}
