//! What archives owe us: proofs of custody, wherever they are heard.
//!
//! In: results of storage commitment, from our own association or from the port that archives call back; answers to queries. Out: proofs in
//! the outbox, or a parcel that waits once more. Promise: a proof is durable before the archive is told that we heard it (invariant
//! 6); a result counts only for a transaction that we opened, with the archive that we asked; what is not kept is sent again a
//! bounded number of times, then set aside with the reason.
//! Standard: PS3.4 annex J.

use crate::config::{CustodyBy, Destination, Line};
use fovea_core::{
    AeTitle, Document, DocumentKind, Documents, Outbox, Parcel, PortError, Proof, Uid, UnixMicros, chain,
};
use fovea_dimse::Status;
use fovea_dimse::commitment::{Listener, Report};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Parcels whose resends are counted for one destination; past that the counts begin anew.
const RESENDS_REMEMBERED: usize = 4096;
/// Deliveries that wait to be asked about; what is beyond is found by the next scan.
const FRESH_MAX: usize = 4096;

/// Tells the time; a test has its own.
pub type Clock = Arc<dyn Fn() -> UnixMicros + Send + Sync>;

/// A request for commitment on its way, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub destination: String,
    pub asked_at: UnixMicros,
    /// Parcels and their instances.
    pub parcels: Vec<(u64, Uid)>,
}

/// What came of one parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// The archive keeps it.
    Proved(u64),
    /// It does not: the parcel waits once more.
    SentAgain(u64),
    /// It does not, too often.
    GivenUp(u64),
    /// Nothing was said of it: ask again.
    Unsaid(u64),
}

/// One destination's side.
#[derive(Default)]
pub(crate) struct Desk {
    /// Who may answer for it; none where it does not commit itself.
    answers: Option<AeTitle>,
    resends_max: u32,
    resends: Mutex<HashMap<u64, u32>>,
    fresh: Mutex<Fresh>,
    news: Mutex<Vec<News>>,
    /// Rung when there is something fresh or new.
    pub(crate) bell: Notify,
    /// The destination's own: something waits for it.
    doorbell: Arc<Notify>,
}

/// Deliveries that nobody has asked about.
#[derive(Default)]
pub(crate) struct Fresh {
    pub parcels: Vec<Parcel>,
    /// More came than are remembered.
    pub overflowed: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A parcel was delivered, and that is noted.
    pub(crate) fn delivered(&self, parcel: Parcel) {
        let mut fresh = locked(&self.fresh);
        if fresh.parcels.len() < FRESH_MAX {
            fresh.parcels.push(parcel)
        } else {
            fresh.overflowed = true
        }
        drop(fresh);
        self.bell.notify_one();
    }

    pub(crate) fn take_fresh(&self) -> Fresh {
        std::mem::take(&mut locked(&self.fresh))
    }

    pub(crate) fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut locked(&self.news))
    }
}

/// Takes proofs for all destinations.
pub struct Custodian {
    outbox: Arc<dyn Outbox>,
    documents: Arc<dyn Documents>,
    clock: Clock,
    desks: HashMap<String, Arc<Desk>>,
}

impl Custodian {
    /// For these destinations, each with its doorbell.
    #[must_use]
    pub fn new<'a>(
        destinations: impl IntoIterator<Item = (&'a Destination, Arc<Notify>)>,
        outbox: Arc<dyn Outbox>,
        documents: Arc<dyn Documents>,
        clock: Clock,
    ) -> Arc<Self> {
        let desk = |(destination, doorbell): (&Destination, Arc<Notify>)| {
            let answers = match &destination.line {
                Line::Dimse { called_ae, .. } if destination.custody == CustodyBy::Commitment => {
                    Some(called_ae.clone())
                }
                _ => None,
            };
            let resends_max = destination.custody_resends_max;
            (destination.name.clone(), Arc::new(Desk { answers, resends_max, doorbell, ..Desk::default() }))
        };
        let desks = destinations.into_iter().map(desk).collect();
        Arc::new(Self { outbox, documents, clock, desks })
    }

    pub(crate) fn desk(&self, destination: &str) -> Arc<Desk> {
        self.desks.get(destination).cloned().unwrap_or_default()
    }

    pub(crate) fn documents(&self) -> &dyn Documents {
        &*self.documents
    }

    pub(crate) fn now(&self) -> UnixMicros {
        (self.clock)()
    }

    /// The archive proved that it keeps a parcel. Durable when it returns.
    pub(crate) fn proved(&self, destination: &str, seq: u64, proof: Proof) -> Result<(), PortError> {
        self.outbox.custody(seq, destination, proof, self.now())?;
        self.tell(destination, News::Proved(seq));
        Ok(())
    }

    /// The archive took a parcel and does not keep it: once more, or no more. Durable when it returns.
    pub(crate) fn lost(&self, destination: &str, seq: u64, why: &str) -> Result<(), PortError> {
        let desk = self.desk(destination);
        let resends = {
            let mut resends = locked(&desk.resends);
            if resends.len() >= RESENDS_REMEMBERED {
                resends.clear();
            }
            let count = resends.entry(seq).or_default();
            *count += 1;
            *count
        };
        if resends > desk.resends_max {
            log::warn!("destination {destination}: parcel {seq} set aside: {why}, sent {resends} times");
            self.outbox.set_aside(seq, destination, &format!("taken {resends} times and not kept: {why}"))?;
            self.tell(destination, News::GivenUp(seq));
            return Ok(());
        }
        log::warn!("destination {destination}: parcel {seq} is sent again: {why}");
        self.outbox.send_again(seq, destination)?;
        self.tell(destination, News::SentAgain(seq));
        desk.doorbell.notify_one();
        Ok(())
    }

    fn tell(&self, destination: &str, news: News) {
        let desk = self.desk(destination);
        if let News::Proved(seq) | News::GivenUp(seq) = news {
            locked(&desk.resends).remove(&seq);
        }
        locked(&desk.news).push(news);
        desk.bell.notify_one();
    }

    /// Keeps that we are about to ask.
    pub(crate) fn open(&self, transaction_uid: &Uid, asked: &Asked) -> Result<(), PortError> {
        let content = serde_json::to_vec(asked).map_err(|error| PortError::Damaged { detail: error.to_string() })?;
        let document = Document { key: transaction_uid.to_string(), content };
        self.documents.put_document(DocumentKind::CommitmentSent, document)
    }

    /// Forgets a transaction.
    pub(crate) fn close(&self, transaction_uid: &Uid) -> Result<(), PortError> {
        self.documents.remove_document(DocumentKind::CommitmentSent, transaction_uid.as_str())
    }

    fn take(&self, from: &AeTitle, report: &Report) -> Result<Status, PortError> {
        let key = report.transaction_uid.as_str();
        let Some(document) = self.documents.document(DocumentKind::CommitmentSent, key)? else {
            log::info!("{from} tells the result of a transaction that is not open");
            return Ok(Status::NO_SUCH_INSTANCE);
        };
        let Some(asked) = read(&document) else { return Ok(Status::PROCESSING_FAILURE) };
        if self.desk(&asked.destination).answers.as_ref() != Some(from) {
            log::warn!("{from} tells a result that {} was asked for", asked.destination);
            return Ok(Status::NOT_AUTHORIZED);
        }
        let mut unsaid: HashMap<&Uid, u64> = asked.parcels.iter().map(|(seq, uid)| (uid, *seq)).collect();
        for reference in &report.committed {
            if let Some(seq) = unsaid.remove(&reference.sop_instance_uid) {
                let proof = Proof::Commitment { transaction_uid: report.transaction_uid.clone() };
                self.proved(&asked.destination, seq, proof)?;
            }
        }
        for failure in &report.failed {
            if let Some(seq) = unsaid.remove(&failure.reference.sop_instance_uid) {
                let why = format!("it does not commit itself ({})", failure.reason);
                self.lost(&asked.destination, seq, &why)?;
            }
        }
        self.close(&report.transaction_uid)?;
        unsaid.into_values().for_each(|seq| self.tell(&asked.destination, News::Unsaid(seq)));
        Ok(Status::SUCCESS)
    }
}

/// A kept request; none where it is not one.
pub(crate) fn read(document: &Document) -> Option<Asked> {
    serde_json::from_slice(&document.content).ok()
}

impl Listener for Custodian {
    fn reported(&self, from: &AeTitle, report: &Report) -> Status {
        self.take(from, report).unwrap_or_else(|error| {
            log::error!("a result of storage commitment cannot be kept: {}", chain(&error));
            Status::PROCESSING_FAILURE
        })
    }
}
