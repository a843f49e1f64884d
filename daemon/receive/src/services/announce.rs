//! Tells peers what we commit to on associations of our own, and keeps house for the services.
//!
//! In: requests that are due. Out: their reports, told; pauses that grow where a peer cannot be reached.
//! Promise: one association at a time to each peer, [`PEERS_MAX`] peers at once; a stop ends it between two reports.
//! Standard: PS3.4 section J.3.3, PS3.7 section D.3.3.4 (we propose ourselves as SCP).

use crate::Config;
use crate::services::blocking;
use crate::services::commit::Commitments;
use crate::services::send::{peer_to_call, scu_config};
use crate::services::steps::Steps;
use crate::services::studies::Studies;
use fovea_core::{AeTitle, Uid, UnixMicros, chain};
use fovea_dimse::{Context, Proposal, Roles, Scu, ScuError, Status, commitment, transfer_syntax};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Peers that are told at once.
const PEERS_MAX: usize = 4;
/// Reports told over one association.
const REPORTS_MAX: usize = 32;
/// Between two looks at what has become old.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// Between two looks at studies that have become quiet.
const LOOK: Duration = Duration::from_secs(1);

/// Tells what is due until `stop` fires.
pub(crate) async fn announce(commitments: Arc<Commitments>, config: Arc<Config>, stop: CancellationToken) {
    let mut busy: BTreeSet<AeTitle> = BTreeSet::new();
    let mut telling = JoinSet::new();
    loop {
        let free = |peer: &AeTitle| peer_to_call(&config, peer).is_some() && !busy.contains(peer);
        if busy.len() < PEERS_MAX
            && let Some((peer, first)) = commitments.claim(1, free).pop()
        {
            let more = commitments.claim(REPORTS_MAX - 1, |other| *other == peer);
            let transactions = std::iter::once(first).chain(more.into_iter().map(|(_, uid)| uid)).collect();
            busy.insert(peer.clone());
            telling.spawn(tell_peer(Arc::clone(&commitments), Arc::clone(&config), peer, transactions));
            continue;
        }
        let next = if busy.len() < PEERS_MAX { commitments.next_due(free) } else { None };
        let due = next.unwrap_or_else(|| Instant::now() + HOUSEKEEPING);
        tokio::select! { // cancel-safe: none of them loses anything when it is dropped
            biased;
            () = stop.cancelled() => break,
            Some(told) = telling.join_next() => {
                // A task that panicked leaves its peer busy, and the panic in the log.
                let _was_busy = told.map(|peer| busy.remove(&peer));
            }
            () = commitments.bell.notified() => {}
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
    // The peer may have its report and not be forgotten yet: it is told once more after the next start.
    telling.shutdown().await;
}

/// Tells one peer; gives its title back.
async fn tell_peer(
    commitments: Arc<Commitments>,
    config: Arc<Config>,
    peer: AeTitle,
    transactions: Vec<Uid>,
) -> AeTitle {
    let mut scu = match connect(&config, &peer).await {
        Ok(scu) => scu,
        Err(error) => {
            log::warn!("{peer} cannot be told what is committed: {}", chain(&error));
            transactions.iter().for_each(|transaction| commitments.not_told(transaction));
            return peer;
        }
    };
    let mut left = transactions.iter();
    for transaction in left.by_ref() {
        match tell(&commitments, &mut scu, transaction).await {
            Ok(status) if status.is_success() => {}
            Ok(status) => log::warn!("{peer} answered {status} to the commitment {transaction}"),
            Err(error) => {
                log::warn!("{peer} did not take the commitment {transaction}: {}", chain(&error));
                commitments.not_told(transaction);
                left.for_each(|transaction| commitments.not_told(transaction));
                return peer;
            }
        }
    }
    if let Err(error) = scu.release().await {
        log::debug!("release: {}", chain(&error));
    }
    peer
}

async fn connect(config: &Config, peer: &AeTitle) -> Result<Scu, ScuError> {
    let scu = peer_to_call(config, peer).and_then(|peer| scu_config(config, peer));
    let scu = scu.ok_or(ScuError::BadRequest { contexts: 0 })?;
    let syntaxes = [transfer_syntax::EXPLICIT_VR_LE, transfer_syntax::IMPLICIT_VR_LE];
    let context = Context {
        sop_class_uid: commitment::class(),
        transfer_syntax_uids: syntaxes.iter().filter_map(|text| Uid::new(text).ok()).collect(),
    };
    let roles = vec![(commitment::class(), Roles { scu: false, scp: true })];
    // A peer that takes the class and forgets to answer the role is told all the same: it can only refuse.
    Scu::connect_as(&scu, &[context], &Proposal { roles, user_identity: None }).await
}

async fn tell(commitments: &Arc<Commitments>, scu: &mut Scu, transaction: &Uid) -> Result<Status, ScuError> {
    let report = {
        let (commitments, transaction) = (Arc::clone(commitments), transaction.clone());
        blocking(move || commitments.report(&transaction)).await
    };
    let report = match report {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(Status::SUCCESS),
        Err(error) => {
            log::warn!("what is held for a commitment cannot be read: {}", chain(&error));
            commitments.not_told(transaction);
            return Ok(Status::PROCESSING_FAILURE);
        }
    };
    let (class, instance) = (commitment::class(), commitment::instance());
    let reply = scu.n_event_report(&class, &instance, report.event_type(), &report.to_data_set()).await?;
    settle(commitments, transaction, reply.status).await;
    Ok(reply.status)
}

/// Takes a peer's answer to a report.
pub(crate) async fn settle(commitments: &Arc<Commitments>, transaction: &Uid, status: Status) {
    if status.is_success() || status.is_warning() {
        let (commitments, transaction) = (Arc::clone(commitments), transaction.clone());
        blocking(move || commitments.told(&transaction)).await;
    } else {
        commitments.not_told(transaction);
    }
}

/// Watches for studies that have become whole, and drops what has become old, until `stop` fires.
pub(crate) async fn keep_house(
    studies: Arc<Studies>,
    commitments: Option<Arc<Commitments>>,
    steps: Option<Arc<Steps>>,
    stop: CancellationToken,
) {
    let mut cleaned: Option<Instant> = None;
    loop {
        for whole in studies.look(Instant::now()) {
            log::info!(study_uid:% = whole.study_uid, by:? = whole.by, instances = whole.instances; "study whole");
        }
        if cleaned.is_none_or(|at| at.elapsed() >= HOUSEKEEPING) {
            cleaned = Some(Instant::now());
            let (commitments, steps) = (commitments.clone(), steps.clone());
            let now = UnixMicros::from(SystemTime::now());
            blocking(move || {
                commitments.iter().for_each(|commitments| commitments.forget_old(now));
                steps.iter().for_each(|steps| steps.forget_old(now));
            })
            .await;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What one association has to tell: requests that came over it, and older ones of the same peer.
pub(crate) struct OwedHere {
    /// Not told yet.
    waiting: Vec<Uid>,
    /// Told and not answered, by message id.
    told: BTreeMap<u16, Uid>,
    message_id: u16,
    commitments: Option<Arc<Commitments>>,
}

impl OwedHere {
    pub(crate) fn new(commitments: Option<Arc<Commitments>>, peer: &AeTitle) -> Self {
        let older = commitments.as_ref().map(|held| held.claim(REPORTS_MAX, |other| other == peer));
        let waiting = older.into_iter().flatten().map(|(_, transaction)| transaction).collect();
        Self { waiting, told: BTreeMap::new(), message_id: 0, commitments }
    }

    pub(crate) fn owe(&mut self, transaction: Uid) {
        if !self.waiting.contains(&transaction) {
            self.waiting.push(transaction);
        }
    }

    /// Something is to be told, and the peer owes no answer.
    pub(crate) fn is_due(&self) -> bool {
        !self.waiting.is_empty() && self.told.is_empty()
    }

    /// The next to tell, with a message id.
    pub(crate) fn next(&mut self) -> Option<(u16, Uid)> {
        let transaction = if self.waiting.is_empty() { return None } else { self.waiting.remove(0) };
        self.message_id = self.message_id.checked_add(1).unwrap_or(1);
        self.told.insert(self.message_id, transaction.clone());
        Some((self.message_id, transaction))
    }

    /// Which report this message id answers.
    pub(crate) fn answered(&mut self, message_id: u16) -> Option<Uid> {
        self.told.remove(&message_id)
    }
}

impl Drop for OwedHere {
    fn drop(&mut self) {
        let Some(commitments) = &self.commitments else { return };
        let told = std::mem::take(&mut self.told).into_values();
        self.waiting.drain(..).chain(told).for_each(|transaction| commitments.released(&transaction));
    }
}
