//! Asks one archive for proof that it keeps what it took.
//!
//! In: deliveries, as they are noted, and those of earlier runs. Out: questions to the archive; its answers go to the
//! [`Custodian`]. Promise: a request is durable before it leaves, so its result is known for ours after any restart; what is asked for
//! never competes with an object for the line that objects go over; all that is held in memory is bounded and found again in the outbox.

use crate::backoff::pause;
use crate::config::{CustodyBy, Destination, Line};
use crate::counters::Counters;
use crate::custodian::{Asked, Custodian, Desk, News, read};
use crate::deliver::scu_config;
use crate::identity::query_identifier;
use crate::task::SyncError;
use crate::web::WebSession;
use fovea_core::{DocumentKind, Outbox, Parcel, PortError, Proof, Uid, chain};
use fovea_dimse::commitment::{self, Listener, Reference, Report, Request};
use fovea_dimse::{Context, Scu, Status, transfer_syntax};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Deliveries without proof that are remembered; more are found in the outbox once these are settled.
const OPEN_MAX: usize = 4096;
/// Rows of the outbox that are looked at together.
const SCAN: usize = 500;
/// Instances in one request, or asked for over one association.
const BATCH: usize = 100;
/// Some archives answer on the association that they were asked on, at once or after a moment.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_STEP: Duration = Duration::from_millis(200);
/// An archive may take a while until a query finds what it took: so often it is asked before the object is sent again.
const QUERIES_MAX: u32 = 5;
/// Study Root Query/Retrieve, FIND (PS3.4 section C.6.2).
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
/// From a ring to a look.
const GATHER: Duration = Duration::from_millis(50);
const SOP_INSTANCE: u32 = 0x0008_0018;

/// A delivery without proof.
struct Open {
    parcel: Parcel,
    not_before: Instant,
    /// Questions so far.
    asks: u32,
    /// The transaction that it is in, until then.
    pending: Option<(Uid, Instant)>,
}

struct Prover {
    destination: Destination,
    outbox: Arc<dyn Outbox>,
    custodian: Arc<Custodian>,
    desk: Arc<Desk>,
    counters: Arc<Counters>,
    open: BTreeMap<u64, Open>,
    /// Where the scan of the outbox goes on; none when it is through.
    scan_after: Option<u64>,
    failures: u32,
}

/// Asks until `stop`. Ends at once where the destination proves nothing.
pub(crate) async fn run(
    destination: Destination,
    outbox: Arc<dyn Outbox>,
    custodian: Arc<Custodian>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) -> Result<(), SyncError> {
    if destination.custody == CustodyBy::None {
        return Ok(());
    }
    let desk = custodian.desk(&destination.name);
    let open = BTreeMap::new();
    let mut prover = Prover { destination, outbox, custodian, desk, counters, open, scan_after: Some(0), failures: 0 };
    let mut begun = false;
    while !stop.is_cancelled() {
        let round = async {
            if !begun {
                prover.recall().await?;
                begun = true;
            }
            prover.round().await
        };
        let round = tokio::select! { // a request that is cut off is asked again: its document says so
            round = round => round,
            () = stop.cancelled() => return Ok(()),
        };
        let wait = match round? {
            Ok(wait) => {
                prover.failures = 0;
                wait
            }
            Err(why) => prover.trouble(&why),
        };
        tokio::select! { // cancel-safe: a ring that comes in between is kept by the Notify
            () = stop.cancelled() => (),
            () = rung(&prover.desk), if prover.failures == 0 => (),
            () = sleep(wait) => (),
        }
    }
    Ok(())
}

/// Rung, and a moment later: many deliveries are looked at together.
async fn rung(desk: &Desk) {
    desk.bell.notified().await;
    sleep(GATHER).await;
}

type Round<T> = Result<Result<T, String>, SyncError>;

impl Prover {
    fn trouble(&mut self, why: &str) -> Duration {
        let Destination { name, retry_min, retry_max, .. } = &self.destination;
        let wait = pause(*retry_min, *retry_max, self.failures);
        if self.failures.is_power_of_two() || self.failures == 0 {
            log::warn!("destination {name}: no proof of custody: {why}; next try in {wait:.1?}");
        }
        self.failures = self.failures.saturating_add(1);
        self.counters.note(|now| now.custody_error = Some(why.to_owned()));
        wait
    }

    /// Requests of earlier runs: their results may still come.
    async fn recall(&mut self) -> Result<(), SyncError> {
        let custodian = Arc::clone(&self.custodian);
        let listed = spawn_blocking(move || {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let page = custodian.documents().documents(DocumentKind::CommitmentSent, &after, SCAN)?;
                let Some(last) = page.last() else { return Ok::<_, PortError>(all) };
                after = last.key.clone();
                all.extend(
                    page.into_iter().filter_map(|document| Some((Uid::new(&document.key).ok()?, read(&document)?))),
                );
                if all.len() > OPEN_MAX {
                    return Ok(all);
                }
            }
        });
        let Ok(asked) = listed.await? else { return Ok(()) };
        let now = Instant::now();
        for (transaction, asked) in asked.into_iter().filter(|(_, asked)| asked.destination == self.destination.name) {
            let age = Duration::from_micros(self.custodian.now().since(asked.asked_at));
            let until = now + self.destination.custody_wait.saturating_sub(age);
            for (seq, _) in asked.parcels {
                let Some(parcel) = self.delivered_parcel(seq).await? else { continue };
                let pending = Some((transaction.clone(), until));
                self.open.insert(seq, Open { parcel, not_before: until, asks: 1, pending });
            }
        }
        Ok(())
    }

    async fn delivered_parcel(&self, seq: u64) -> Result<Option<Parcel>, SyncError> {
        let page = self.page(seq.saturating_sub(1), 1).await?;
        Ok(page.into_iter().find(|parcel| parcel.seq == seq))
    }

    /// Parcels after `after` that were delivered and are not proved.
    async fn page(&self, after: u64, limit: usize) -> Result<Vec<Parcel>, SyncError> {
        Ok(self.page_to(after, limit).await?.map_or_else(|_| Vec::new(), |(parcels, _)| parcels))
    }

    async fn page_to(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Result<(Vec<Parcel>, Option<u64>), PortError>, SyncError> {
        let (outbox, name) = (Arc::clone(&self.outbox), self.destination.name.clone());
        Ok(spawn_blocking(move || {
            let rows = outbox.parcels_after(after, limit)?;
            let last = rows.last().map(|row| row.parcel.seq);
            let wanted = rows.into_iter().filter(|row| {
                row.delivered.iter().any(|(to, _)| *to == name)
                    && row.set_aside.iter().all(|(by, _)| *by != name)
                    && row.custody.iter().all(|custody| custody.destination != name)
            });
            Ok((wanted.map(|row| row.parcel).collect(), last))
        })
        .await?)
    }

    /// One look at everything; answers with the time until the next.
    async fn round(&mut self) -> Round<Duration> {
        self.hear();
        if let Err(why) = self.scan().await? {
            return Ok(Err(why));
        }
        if let Err(why) = self.expire().await? {
            return Ok(Err(why));
        }
        let now = Instant::now();
        let due = self.open.values().filter(|open| open.pending.is_none() && open.not_before <= now);
        let batch: Vec<Parcel> = due.take(BATCH).map(|open| open.parcel.clone()).collect();
        if !batch.is_empty() {
            let asked = match (&self.destination.line, self.destination.custody) {
                (Line::Web { .. }, _) => self.query_web(&batch).await?,
                (Line::Dimse { .. }, CustodyBy::Query) => self.query_dimse(&batch).await?,
                _ => self.ask_commitment(&batch).await?,
            };
            if let Err(why) = asked {
                return Ok(Err(why));
            }
            self.counters.note(|now| now.custody_error = None);
            self.hear();
        }
        self.counters.note(|now| now.unproved = self.open.len() as u64);
        let next =
            self.open.values().map(|open| open.pending.as_ref().map_or(open.not_before, |(_, until)| *until)).min();
        let wait = next.map_or(self.destination.custody_wait, |at| at.saturating_duration_since(Instant::now()));
        Ok(Ok(wait.max(Duration::from_millis(1))))
    }

    /// Takes in what was answered and what was delivered meanwhile. Deliveries are taken first and counted last: one that was sent
    /// again was answered before.
    fn hear(&mut self) {
        let (fresh, news) = (self.desk.take_fresh(), self.desk.take_news());
        for news in news {
            match news {
                News::Proved(seq) => {
                    self.open.remove(&seq);
                    self.counters.note(|now| now.proved += 1);
                }
                News::SentAgain(seq) => {
                    self.open.remove(&seq);
                    self.counters.note(|now| now.sent_again += 1);
                }
                News::GivenUp(seq) => {
                    self.open.remove(&seq);
                    self.counters.note(|now| now.set_aside += 1);
                }
                News::Unsaid(seq) => self.put_off(seq),
            }
        }
        let not_before = Instant::now() + self.destination.custody_after;
        for parcel in fresh.parcels {
            if self.open.len() < OPEN_MAX {
                self.open.entry(parcel.seq).or_insert(Open { parcel, not_before, asks: 0, pending: None });
            } else {
                self.scan_after = Some(0);
            }
        }
        if fresh.overflowed {
            self.scan_after = Some(0);
        }
    }

    /// Asks for this one later, ever later.
    fn put_off(&mut self, seq: u64) {
        let Destination { retry_min, custody_after, custody_wait, .. } = self.destination;
        if let Some(open) = self.open.get_mut(&seq) {
            let wait = pause(retry_min.max(custody_after), custody_wait.max(custody_after), open.asks);
            (open.pending, open.not_before) = (None, Instant::now() + wait);
        }
    }

    /// Finds deliveries of earlier runs, as many as there is room for.
    async fn scan(&mut self) -> Round<()> {
        while let Some(after) = self.scan_after.filter(|_| self.open.len() + SCAN <= OPEN_MAX) {
            let (found, last) = match self.page_to(after, SCAN).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(format!("the outbox cannot be read: {}", chain(&error)))),
            };
            let not_before = Instant::now();
            for parcel in found {
                self.open.entry(parcel.seq).or_insert(Open { parcel, not_before, asks: 0, pending: None });
            }
            self.scan_after = last;
        }
        Ok(Ok(()))
    }

    /// Forgets transactions whose result did not come: their instances are asked for again.
    async fn expire(&mut self) -> Round<()> {
        let now = Instant::now();
        let pending = self.open.iter().filter_map(|(seq, open)| Some((*seq, open.pending.clone()?)));
        let late: Vec<(u64, Uid)> =
            pending.filter(|(_, (_, until))| *until <= now).map(|(seq, (transaction, _))| (seq, transaction)).collect();
        let mut transactions: Vec<Uid> = late.iter().map(|(_, transaction)| transaction.clone()).collect();
        transactions.dedup();
        for transaction in transactions {
            log::warn!("destination {}: no result of a request for commitment", self.destination.name);
            let custodian = Arc::clone(&self.custodian);
            if let Err(error) = spawn_blocking(move || custodian.close(&transaction)).await? {
                return Ok(Err(chain(&error)));
            }
        }
        for (seq, _) in late {
            if let Some(open) = self.open.get_mut(&seq) {
                (open.pending, open.not_before) = (None, now);
            }
        }
        Ok(Ok(()))
    }

    async fn ask_commitment(&mut self, batch: &[Parcel]) -> Round<()> {
        let transaction_uid = transaction_uid();
        let asked = Asked {
            destination: self.destination.name.clone(),
            asked_at: self.custodian.now(),
            parcels: batch.iter().map(|parcel| (parcel.seq, parcel.sop_instance_uid.clone())).collect(),
        };
        let (custodian, transaction) = (Arc::clone(&self.custodian), transaction_uid.clone());
        if let Err(error) = spawn_blocking(move || custodian.open(&transaction, &asked)).await? {
            return Ok(Err(format!("a request for commitment cannot be kept: {}", chain(&error))));
        }
        let until = Instant::now() + self.destination.custody_wait;
        for parcel in batch {
            if let Some(open) = self.open.get_mut(&parcel.seq) {
                open.asks = open.asks.saturating_add(1);
                open.pending = Some((transaction_uid.clone(), until));
            }
        }
        let said = self.exchange(&transaction_uid, batch).await;
        let Err(why) = said else { return Ok(Ok(())) };
        // Not asked, or not taken: the next try has a transaction of its own.
        let (custodian, transaction) = (Arc::clone(&self.custodian), transaction_uid);
        let closed = spawn_blocking(move || custodian.close(&transaction)).await?;
        for parcel in batch {
            if let Some(open) = self.open.get_mut(&parcel.seq) {
                open.pending = None;
            }
        }
        Ok(Err(closed.map_or_else(|error| chain(&error), |()| why)))
    }

    /// N-ACTION, and a moment for an answer on the same association.
    async fn exchange(&self, transaction_uid: &Uid, batch: &[Parcel]) -> Result<(), String> {
        let mut scu = self.associate(commitment::class()).await?;
        let reference = |parcel: &Parcel| Reference {
            sop_class_uid: parcel.sop_class_uid.clone(),
            sop_instance_uid: parcel.sop_instance_uid.clone(),
        };
        let references = batch.iter().map(reference).collect();
        let request = Request { transaction_uid: transaction_uid.clone(), references }.to_data_set();
        let (class, instance) = (commitment::class(), commitment::instance());
        let reply = scu.n_action(&class, &instance, commitment::ACTION_REQUEST, &request).await;
        let status = reply.map_err(|error| chain(&error))?.status;
        if !status.is_success() && !status.is_warning() {
            return Err(format!("the archive answered {status} to a request for commitment"));
        }
        let lingers_until = Instant::now() + LINGER;
        while Instant::now() < lingers_until && !self.is_heard(transaction_uid).await {
            match scu.next_event_report(LINGER_STEP).await {
                Ok(None) => (),
                Ok(Some(event)) => {
                    let status = self.heard(event.event_type, event.data_set.as_ref()).await;
                    if scu.answer_event(&event, status).await.is_err() {
                        return Ok(());
                    }
                }
                // It ended the association: its result comes on one of its own.
                Err(_) => return Ok(()),
            }
        }
        let _it_may_be_gone = scu.release().await;
        Ok(())
    }

    async fn is_heard(&self, transaction_uid: &Uid) -> bool {
        let (custodian, key) = (Arc::clone(&self.custodian), transaction_uid.to_string());
        let held = spawn_blocking(move || custodian.documents().document(DocumentKind::CommitmentSent, &key)).await;
        matches!(held, Ok(Ok(None)))
    }

    async fn heard(&self, event_type: u16, data_set: Option<&fovea_dimse::DataSet>) -> Status {
        let Some(Ok(report)) = data_set.map(|data_set| Report::from_data_set(event_type, data_set)) else {
            return Status::PROCESSING_FAILURE;
        };
        let Line::Dimse { called_ae, .. } = &self.destination.line else { return Status::PROCESSING_FAILURE };
        let (custodian, from) = (Arc::clone(&self.custodian), called_ae.clone());
        spawn_blocking(move || custodian.reported(&from, &report)).await.unwrap_or(Status::PROCESSING_FAILURE)
    }

    async fn associate(&self, class: Uid) -> Result<Scu, String> {
        let config = scu_config(&self.destination).ok_or("the destination has no DIMSE address")?;
        let syntaxes = [transfer_syntax::EXPLICIT_VR_LE, transfer_syntax::IMPLICIT_VR_LE];
        let transfer_syntax_uids = syntaxes.iter().filter_map(|text| Uid::new(text).ok()).collect();
        let context = Context { sop_class_uid: class.clone(), transfer_syntax_uids };
        let scu = Scu::connect(&config, &[context]).await.map_err(|error| chain(&error))?;
        if scu.serves(&class) { Ok(scu) } else { Err(format!("the archive does not offer {class}")) }
    }

    async fn query_dimse(&mut self, batch: &[Parcel]) -> Round<()> {
        let Ok(class) = Uid::new(STUDY_ROOT_FIND) else { return Ok(Ok(())) };
        let mut scu = match self.associate(class.clone()).await {
            Ok(scu) => scu,
            Err(why) => return Ok(Err(why)),
        };
        for parcel in batch {
            let (outbox, seq) = (Arc::clone(&self.outbox), parcel.seq);
            let instance = parcel.sop_instance_uid.clone();
            let identifier = spawn_blocking(move || query_identifier(&*outbox, seq, &instance)).await?;
            let Some(identifier) = identifier else {
                // Its file cannot be read now: nothing to ask with.
                self.put_off_after_ask(parcel.seq);
                continue;
            };
            let found = match scu.find(&class, &identifier, 8).await {
                Ok(found) if found.status.is_success() || found.is_cut => found,
                Ok(found) => return Ok(Err(format!("the archive answered {} to a query", found.status))),
                Err(error) => return Ok(Err(chain(&error))),
            };
            let holds = found.rows.iter().any(|row| row.uid(SOP_INSTANCE).as_ref() == Some(&parcel.sop_instance_uid));
            if let Err(why) = self.answered(parcel.seq, holds).await? {
                return Ok(Err(why));
            }
        }
        let _it_may_be_gone = scu.release().await;
        Ok(Ok(()))
    }

    async fn query_web(&mut self, batch: &[Parcel]) -> Round<()> {
        let Line::Web { address, auth, .. } = self.destination.line.clone() else { return Ok(Ok(())) };
        let (tls, limit) = (self.destination.tls.clone(), self.destination.response_timeout);
        let mut session = match WebSession::open(&address, auth.as_ref(), tls.as_ref(), limit, 1).await {
            Ok(session) => session,
            Err(error) => return Ok(Err(chain(&error))),
        };
        for parcel in batch {
            let holds = match session.holds(&parcel.sop_instance_uid).await {
                Ok(holds) => holds,
                Err(why) => return Ok(Err(why)),
            };
            if let Err(why) = self.answered(parcel.seq, holds).await? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    fn put_off_after_ask(&mut self, seq: u64) -> u32 {
        let asks = self.open.get_mut(&seq).map_or(0, |open| {
            open.asks = open.asks.saturating_add(1);
            open.asks
        });
        self.put_off(seq);
        asks
    }

    /// A query said whether the archive holds an instance.
    async fn answered(&mut self, seq: u64, holds: bool) -> Round<()> {
        if !holds && self.put_off_after_ask(seq) < QUERIES_MAX {
            return Ok(Ok(()));
        }
        let (custodian, name) = (Arc::clone(&self.custodian), self.destination.name.clone());
        let noted = spawn_blocking(move || match holds {
            true => custodian.proved(&name, seq, Proof::Query),
            false => custodian.lost(&name, seq, "a query does not find it"),
        });
        Ok(noted.await?.map_err(|error| format!("a proof cannot be kept: {}", chain(&error))))
    }
}

/// 2.25 and 122 random bits (PS3.5 annex B.2): nobody who was not asked can name it. Without randomness from the clock, which
/// an archive cannot tell apart.
fn transaction_uid() -> Uid {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = nanos.to_be_bytes();
    }
    Uid::from_uuid_bytes(bytes)
}
