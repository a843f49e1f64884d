//! One destination's task: takes what goes first, sends it, tells the outbox, and waits when there is nothing to do.

use crate::backoff::{Tries, pause};
use crate::config::{Destination, Line};
use crate::counters::Counters;
use crate::custodian::{Custodian, Desk};
use crate::deliver::{Content, Sent, Session, Unreadable, ready, scu_config};
use crate::notes::Notes;
use crate::pace::Purse;
use crate::prove;
use crate::queue::{Next, Ports, Queue, look};
use crate::web::{Part, WebSession};
use fovea_core::{Parcel, UnixMicros, chain};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Without a ring the outbox is asked so often: a lost ring costs seconds, not a parcel.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Rows of the outbox that are read together to know what was sent today.
const SCAN: usize = 1000;

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

/// So many failures in a row are the archive's and not one object's: when it is back, all go in their order again.
const OUTAGE_FAILURES: u32 = 3;

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

/// A line to the archive that stands.
enum Link {
    Dimse(Box<Session>),
    Web(WebSession),
}

/// A file that is opened while the one before it is on the line.
type Opening = JoinHandle<Result<Content, Unreadable>>;

struct Task {
    destination: Destination,
    ports: Ports,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    desk: Arc<Desk>,
    link: Option<Link>,
    queue: Queue,
    tries: Tries,
    purse: Purse,
    notes: Notes,
    ahead: Option<(u64, Opening)>,
    /// Instances in one request; fewer once the archive found one too large.
    instances_max: usize,
    /// Failures of the destination in a row.
    failures: u32,
}

/// Sends what waits for `destination` until `stop`, and asks for proof of custody; the object in hand is finished and the
/// association released, unless the archive takes longer than [`STOP_PATIENCE`] for it.
///
/// `doorbell`: rung with `notify_one` when something was dispatched, after it; one for each destination, for a ring wakes one.
/// Blocking calls of the ports run off the async workers.
///
/// # Errors
/// [`SyncError`] only when a call to a port panics; trouble with the archive is waited out.
pub async fn run(
    destination: Destination,
    ports: Ports,
    custodian: Arc<Custodian>,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) -> Result<(), SyncError> {
    let proving = prove::run(
        destination.clone(),
        Arc::clone(&ports.outbox),
        Arc::clone(&custodian),
        Arc::clone(&counters),
        stop.clone(),
    );
    let desk = custodian.desk(&destination.name);
    let task = Task {
        desk,
        link: None,
        queue: Queue::default(),
        tries: Tries::default(),
        purse: Purse::new(destination.budget, destination.hours.clone(), (ports.clock)()),
        notes: Notes::new(Arc::clone(&ports.outbox), &destination.name),
        ahead: None,
        instances_max: match destination.line {
            Line::Dimse { .. } => 1,
            Line::Web { batch_instances_max, .. } => batch_instances_max,
        },
        failures: 0,
        destination,
        ports,
        doorbell,
        counters,
    };
    tokio::try_join!(task.send_all(stop), proving).map(drop)
}

/// Returns some time after `stop` fires.
async fn patience_ends(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(STOP_PATIENCE).await;
}

impl Task {
    async fn send_all(mut self, stop: CancellationToken) -> Result<(), SyncError> {
        self.count_today().await?;
        let result = loop {
            if stop.is_cancelled() {
                break Ok(());
            }
            let step = tokio::select! { // a dropped step loses nothing: a parcel that is not noted as delivered goes again, under its UID
                biased;
                step = self.step() => step,
                () = patience_ends(&stop) => {
                    // An association with half an object on it cannot be released.
                    self.link = None;
                    break Ok(());
                }
            };
            match step {
                Ok(Step::On) => (),
                Ok(Step::Idle(longest)) => {
                    self.close().await;
                    tokio::select! { // cancel-safe: a ring that comes in between is kept by the Notify
                        () = stop.cancelled() => (),
                        () = self.doorbell.notified() => (),
                        () = sleep(longest) => (),
                    }
                    self.queue.mark_stale();
                }
                Ok(Step::Pause(pause)) => {
                    self.close().await;
                    self.tell_next_try(Some(pause));
                    tokio::select! { // cancel-safe: both only wait
                        () = stop.cancelled() => (),
                        () = sleep(pause) => (),
                    }
                    self.tell_next_try(None);
                    self.queue.mark_stale();
                }
                Err(error) => break Err(error),
            }
        };
        // Last chance for a success that was not noted: else the archive gets a duplicate, which it must bear.
        let noted = self.settle_notes().await;
        self.close().await;
        result.and(noted.map(drop))
    }

    /// Sends what goes next, if there is something that may go.
    async fn step(&mut self) -> Result<Step, SyncError> {
        if self.notes.has_failed() && !self.settle_notes().await? {
            return Ok(self.unavailable("the outbox cannot note a delivery"));
        }
        if self.queue.is_stale() || self.rang().await {
            match self.look().await? {
                Ok(0) => (),
                Ok(_ruled_out) => return Ok(Step::On),
                Err(why) => return Ok(self.unavailable(&why)),
            }
        }
        let bytes_max = match self.destination.line {
            Line::Dimse { .. } => u64::MAX,
            Line::Web { batch_bytes_max, .. } => batch_bytes_max,
        };
        let bounds = (self.instances_max, bytes_max);
        match self.queue.next(&self.tries, &mut self.purse, &self.ports.clock, bounds) {
            Next::Send(batch) => self.send(batch).await,
            Next::Wait(_) if self.notes.len() > 0 => {
                // What is being noted may be all that was seen.
                if self.settle_notes().await? {
                    Ok(Step::On)
                } else {
                    Ok(self.unavailable("the outbox cannot note a delivery"))
                }
            }
            Next::Wait(wait) => Ok(Step::Idle(wait.unwrap_or(LOOK_AGAIN).clamp(Duration::from_millis(1), LOOK_AGAIN))),
        }
    }

    /// Something was dispatched since it was asked last.
    async fn rang(&self) -> bool {
        tokio::select! { // cancel-safe: a ring is either taken or kept
            biased;
            () = self.doorbell.notified() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Reads the head of the queue anew; the number of parcels that the rules took from it.
    async fn look(&mut self) -> Result<Result<u64, String>, SyncError> {
        let limit = self.queue.limit(&mut self.purse, &self.tries, self.notes.len(), &self.ports.clock);
        let (ports, destination) = (self.ports.clone(), self.destination.clone());
        match spawn_blocking(move || look(&ports, &destination, limit)).await? {
            Ok(seen) => {
                self.queue.fill(seen.parcels, &self.notes.seqs());
                self.counters.note(|now| now.ruled_out += seen.ruled_out);
                Ok(Ok(seen.ruled_out))
            }
            Err(error) => Ok(Err(format!("the outbox cannot be read: {}", chain(&error)))),
        }
    }

    async fn send(&mut self, batch: Vec<Parcel>) -> Result<Step, SyncError> {
        let (mut parcels, mut contents) = (Vec::new(), Vec::new());
        for parcel in batch {
            match self.open(parcel.seq).await? {
                Ok(content) => {
                    parcels.push(parcel);
                    contents.push(content);
                }
                Err(Unreadable::ForGood(why)) => {
                    self.counters.failure(&why);
                    if let pause @ Step::Pause(_) = self.set_aside(&parcel, &why).await? {
                        return Ok(pause);
                    }
                }
                Err(Unreadable::Now(why)) => return Ok(self.failed(&[parcel], &why)),
            }
        }
        if parcels.is_empty() {
            return Ok(Step::On);
        }
        if let Err(why) = self.connect(&parcels).await {
            return Ok(self.unavailable(&why));
        }
        self.open_ahead();
        let now = (self.ports.clock)();
        self.purse.spend(parcels.iter().map(|parcel| parcel.file_bytes).sum(), now);
        let answers = match self.link.as_mut() {
            Some(Link::Dimse(session)) => match contents.pop() {
                Some(content) => vec![session.send(&parcels[0], content).await],
                None => Vec::new(),
            },
            Some(Link::Web(session)) => {
                let answers = session.store(parts(&parcels, contents)).await;
                self.instances_max = session.instances_max;
                answers
            }
            None => Vec::new(),
        };
        self.take_answers(parcels, answers).await
    }

    async fn take_answers(&mut self, parcels: Vec<Parcel>, answers: Vec<Sent>) -> Result<Step, SyncError> {
        let mut next = Step::On;
        let mut unserved: Option<(Vec<Parcel>, String)> = None;
        for (parcel, answer) in parcels.into_iter().zip(answers) {
            match answer {
                Sent::Delivered => self.delivered(parcel).await?,
                Sent::Refused(why) => {
                    if let pause @ Step::Pause(_) = self.refused(&parcel, &why).await? {
                        next = pause;
                    }
                }
                Sent::Unavailable(why) => unserved.get_or_insert_with(|| (Vec::new(), why)).0.push(parcel),
                Sent::Later(why, wait) => next = self.asked_to_wait(&why, wait),
                Sent::Smaller => self.queue.mark_stale(),
            }
        }
        if let Some((parcels, why)) = unserved {
            self.drop_link();
            return Ok(self.failed(&parcels, &why));
        }
        Ok(next)
    }

    async fn delivered(&mut self, parcel: Parcel) -> Result<(), SyncError> {
        if self.failures >= OUTAGE_FAILURES {
            self.tries.recovered();
            self.queue.mark_stale();
        }
        self.failures = 0;
        self.counters.note(|now| {
            now.sent += 1;
            now.last_error = None;
        });
        let at = (self.ports.clock)();
        let done = self.notes.add(parcel, at).await?;
        self.are_noted(done);
        Ok(())
    }

    fn are_noted(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels {
            self.tries.settled(parcel.seq);
            if self.destination.custody != crate::config::CustodyBy::None {
                self.desk.delivered(parcel);
            }
        }
    }

    /// Waits until all deliveries are noted; false when one could not be.
    async fn settle_notes(&mut self) -> Result<bool, SyncError> {
        let done = self.notes.settle().await?;
        self.queue.mark_stale();
        self.are_noted(done);
        Ok(!self.notes.has_failed())
    }

    /// A line that the archive has been asked about this parcel's class on.
    async fn connect(&mut self, parcels: &[Parcel]) -> Result<(), String> {
        let first = &parcels[0];
        let is_stale = match &self.link {
            // A refusal of the class is asked again with a new association only.
            Some(Link::Dimse(session)) => {
                !session.has_asked(first) || self.tries.tried(first.seq) && !session.accepts(first)
            }
            Some(Link::Web(session)) => !session.stands(),
            None => false,
        };
        if is_stale {
            self.close().await;
        }
        if self.link.is_some() {
            return Ok(());
        }
        let link = match &self.destination.line {
            Line::Dimse { .. } => {
                let config = scu_config(&self.destination).ok_or("the destination has no DIMSE address")?;
                Link::Dimse(Box::new(Session::open(&config, parcels.iter().chain(self.queue.head())).await?))
            }
            Line::Web { address, auth, .. } => {
                let Destination { tls, response_timeout, .. } = &self.destination;
                let opening =
                    WebSession::open(address, auth.as_ref(), tls.as_ref(), *response_timeout, self.instances_max);
                Link::Web(opening.await.map_err(|error| chain(&error))?)
            }
        };
        self.link = Some(link);
        self.counters.note(|now| now.connected = true);
        Ok(())
    }

    /// The parcel's file, opened ahead or now.
    async fn open(&mut self, seq: u64) -> Result<Result<Content, Unreadable>, SyncError> {
        match self.ahead.take() {
            Some((opened, opening)) if opened == seq => Ok(opening.await?),
            _ => Ok(self.opening(seq).await?),
        }
    }

    fn opening(&self, seq: u64) -> Opening {
        let outbox = Arc::clone(&self.ports.outbox);
        let whole = matches!(self.destination.line, Line::Web { .. });
        spawn_blocking(move || ready(outbox.open_parcel(seq)?, whole))
    }

    /// Opens what goes next, most likely, while this one is on the line.
    fn open_ahead(&mut self) {
        let next = self.queue.head().next().map(|parcel| parcel.seq);
        self.ahead = next.map(|seq| (seq, self.opening(seq)));
    }

    /// These parcels could not be sent now, and perhaps no other: they wait longer each time, so others go first.
    fn failed(&mut self, parcels: &[Parcel], why: &str) -> Step {
        let Destination { retry_min, retry_max, .. } = self.destination;
        for parcel in parcels {
            self.tries.failed(parcel.seq, parcel.lane, retry_min, retry_max);
        }
        self.unavailable(why)
    }

    /// The destination cannot be used now.
    fn unavailable(&mut self, why: &str) -> Step {
        self.queue.mark_stale();
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

    /// The archive says how long it wants to be left alone: so long, and no shorter than our own pause.
    fn asked_to_wait(&mut self, why: &str, wait: Duration) -> Step {
        match self.unavailable(why) {
            Step::Pause(pause) => Step::Pause(pause.max(wait)),
            other => other,
        }
    }

    /// The archive does not want this object: again later and ever more seldom, and in the end set aside.
    async fn refused(&mut self, parcel: &Parcel, why: &str) -> Result<Step, SyncError> {
        let Destination { retry_min, retry_max, refusals_max, refuse_after_min, .. } = &self.destination;
        self.counters.failure(why);
        self.queue.mark_stale();
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
        let (outbox, seq, name, why) = (Arc::clone(&self.ports.outbox), parcel.seq, name.clone(), why.to_owned());
        match spawn_blocking(move || outbox.set_aside(seq, &name, &why)).await? {
            Ok(()) => {
                self.tries.settled(seq);
                self.counters.note(|now| now.set_aside += 1);
                Ok(Step::On)
            }
            Err(error) => Ok(self.unavailable(&format!("the outbox cannot note a refusal: {}", chain(&error)))),
        }
    }

    /// What earlier runs sent today counts, where a day is bounded.
    async fn count_today(&mut self) -> Result<(), SyncError> {
        if !self.destination.budget.counts_days() {
            return Ok(());
        }
        let (mut after, now) = (0, (self.ports.clock)());
        loop {
            let outbox = Arc::clone(&self.ports.outbox);
            let Ok(rows) = spawn_blocking(move || outbox.parcels_after(after, SCAN)).await? else { return Ok(()) };
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.parcel.seq;
            for row in rows {
                let here = row.delivered.iter().filter(|(to, _)| *to == self.destination.name);
                if here.into_iter().any(|(_, at)| self.purse.is_today(*at, now)) {
                    self.purse.spent_before(row.parcel.file_bytes);
                }
            }
        }
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.counters.note(|now| now.connected = false);
    }

    async fn close(&mut self) {
        if let Some(link) = self.link.take() {
            if let Link::Dimse(session) = link {
                session.release().await;
            }
            self.counters.note(|now| now.connected = false);
        }
    }

    fn tell_next_try(&self, pause: Option<Duration>) {
        let at = pause.map(|pause| UnixMicros::from(SystemTime::now() + pause));
        self.counters.note(|now| now.next_try = at);
    }
}

/// Whole files with their lengths, as a request takes them.
fn parts(parcels: &[Parcel], contents: Vec<Content>) -> Vec<Part> {
    let part = |(parcel, content): (&Parcel, Content)| match content {
        Content::Whole(file, bytes) => Some(Part { parcel: parcel.clone(), file, bytes }),
        // A web line readies whole files only.
        Content::Small(_) | Content::Large(_) => None,
    };
    parcels.iter().zip(contents).filter_map(part).collect()
}
