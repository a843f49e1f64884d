//! Promises to keep what was sent: storage commitment as SCP.
//!
//! In: requests of peers. Out: durable promises, and for each the report of what is really held.
//! Promise: a request that was answered with success is in the documents, and stays there until the peer has
//! acknowledged its report or [`KEEP`] is over: no kill and no power cut lets it be forgotten. A report calls committed
//! only what the inbox says is accepted with that very class, and whose file opens.
//! Standard: PS3.4 annex J.

use crate::counters::{Counters, add};
use fovea_core::{AeTitle, Document, DocumentKind, Documents, Inbox, PortError, Uid, UnixMicros};
use fovea_dimse::Status;
use fovea_dimse::commitment::{Failure, Reference, Report, Request};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// Requests that are open at once, of all peers together: each costs a document of up to 256 KiB.
pub(crate) const OPEN_MAX: usize = 1024;
/// How long a peer that cannot be told is remembered.
pub(crate) const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an association may take to tell a request that came over it, before another way is tried.
pub(crate) const CLAIM: Duration = Duration::from_secs(60);
/// First pause after a report could not be told; doubles each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Documents read at once when we start.
const PAGE: usize = 16;
const VERSION: u32 = 1;

/// A request as it is kept.
#[derive(Serialize, Deserialize)]
struct Asked {
    version: u32,
    peer: AeTitle,
    asked_at: UnixMicros,
    /// Class and instance.
    references: Vec<(Uid, Uid)>,
}

/// What is known of an open request without reading it.
struct Open {
    peer: AeTitle,
    asked_at: UnixMicros,
    /// Not before this.
    next_at: Instant,
    failures: u32,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("too many requests are open")]
    TooMany,
    #[error("the transaction UID is in use")]
    InUse,
    #[error("it could not be made durable")]
    Port(#[from] PortError),
}

impl NotTaken {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TooMany | Self::Port(PortError::OutOfSpace { .. }) => Status::RESOURCE_LIMITATION,
            Self::InUse | Self::Port(_) => Status::PROCESSING_FAILURE,
        }
    }
}

/// All open requests.
pub(crate) struct Commitments {
    documents: Arc<dyn Documents>,
    inbox: Arc<dyn Inbox>,
    counters: Arc<Counters>,
    open: Mutex<BTreeMap<Uid, Open>>,
    /// Rung when something may have become due.
    pub(crate) bell: Notify,
}

impl Commitments {
    /// Reads what is open. Blocks.
    ///
    /// # Errors
    /// When the documents cannot be read.
    pub(crate) fn load(
        documents: Arc<dyn Documents>,
        inbox: Arc<dyn Inbox>,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>, PortError> {
        let (mut open, mut after) = (BTreeMap::new(), String::new());
        loop {
            let page = documents.documents(DocumentKind::CommitmentAsked, &after, PAGE)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.key);
            for document in page {
                let (Ok(transaction), Some(asked)) = (Uid::new(&document.key), parse(&document)) else {
                    log::warn!("a commitment request on the disk cannot be read: it is left where it is");
                    continue;
                };
                let Asked { peer, asked_at, .. } = asked;
                open.insert(transaction, Open { peer, asked_at, next_at: Instant::now(), failures: 0 });
            }
        }
        let open = Mutex::new(open);
        Ok(Arc::new(Self { documents, inbox, counters, open, bell: Notify::new() }))
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Uid, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request of `peer` durable; it is then claimed by the association that it came over. A repeat of a request
    /// that is open is no other request. Blocks.
    pub(crate) fn ask(&self, peer: &AeTitle, request: &Request) -> Result<(), NotTaken> {
        let transaction = &request.transaction_uid;
        let references: Vec<_> = request
            .references
            .iter()
            .map(|reference| (reference.sop_class_uid.clone(), reference.sop_instance_uid.clone()))
            .collect();
        let asked_at = UnixMicros::from(SystemTime::now());
        let asked = Asked { version: VERSION, peer: peer.clone(), asked_at, references };
        let entry = Open { peer: peer.clone(), asked_at, next_at: Instant::now() + CLAIM, failures: 0 };
        // The place is taken before the disk is asked, so that the bound holds for those who ask at once.
        let is_fresh = self.reserve(transaction, entry)?;
        let kept = self.keep(transaction, &asked);
        match &kept {
            Ok(()) => add(&self.counters.commitments_asked),
            Err(_) if is_fresh => _ = self.open().remove(transaction),
            Err(_) => {}
        }
        kept
    }

    /// True where the request is a new one.
    fn reserve(&self, transaction: &Uid, entry: Open) -> Result<bool, NotTaken> {
        let mut open = self.open();
        let is_full = open.len() >= OPEN_MAX;
        match open.get_mut(transaction) {
            Some(held) if held.peer != entry.peer => Err(NotTaken::InUse),
            Some(held) => {
                held.next_at = entry.next_at;
                Ok(false)
            }
            None if is_full => Err(NotTaken::TooMany),
            None => {
                open.insert(transaction.clone(), entry);
                Ok(true)
            }
        }
    }

    fn keep(&self, transaction: &Uid, asked: &Asked) -> Result<(), NotTaken> {
        if let Some(held) = self.documents.document(DocumentKind::CommitmentAsked, transaction.as_str())? {
            let same = parse(&held).is_some_and(|held| held.peer == asked.peer && held.references == asked.references);
            return if same { Ok(()) } else { Err(NotTaken::InUse) };
        }
        // A list of checked texts: it can be written as JSON.
        let content = serde_json::to_vec(asked).unwrap_or_default();
        let document = Document { key: transaction.as_str().to_owned(), content };
        Ok(self.documents.put_document(DocumentKind::CommitmentAsked, document)?)
    }

    /// What is to be told of a request, as of now; none when it is not open any more. Blocks.
    pub(crate) fn report(&self, transaction: &Uid) -> Result<Option<Report>, PortError> {
        let held = self.documents.document(DocumentKind::CommitmentAsked, transaction.as_str())?;
        let Some(asked) = held.as_ref().and_then(parse) else {
            self.open().remove(transaction);
            return Ok(None);
        };
        let mut report = Report { transaction_uid: transaction.clone(), committed: Vec::new(), failed: Vec::new() };
        for (sop_class_uid, sop_instance_uid) in asked.references {
            let reference = Reference { sop_class_uid, sop_instance_uid };
            match self.failure(&reference)? {
                None => report.committed.push(reference),
                Some(reason) => report.failed.push(Failure { reference, reason }),
            }
        }
        Ok(Some(report))
    }

    /// Why this instance is not committed, none where it is.
    fn failure(&self, reference: &Reference) -> Result<Option<Status>, PortError> {
        let Some(held) = self.inbox.accepted(&reference.sop_instance_uid)? else {
            return Ok(Some(Status::NO_SUCH_INSTANCE));
        };
        if held.header.sop_class_uid != reference.sop_class_uid {
            return Ok(Some(Status::CLASS_INSTANCE_CONFLICT));
        }
        match self.inbox.open_object(&reference.sop_instance_uid) {
            Ok(_) => Ok(None),
            Err(PortError::NotHeld { .. } | PortError::Damaged { .. }) => Ok(Some(Status::NO_SUCH_INSTANCE)),
            Err(error) => Err(error),
        }
    }

    /// The peer has acknowledged the report: forgets the request. Blocks.
    pub(crate) fn told(&self, transaction: &Uid) {
        if let Err(error) = self.documents.remove_document(DocumentKind::CommitmentAsked, transaction.as_str()) {
            // It is told once more after the next start: that does no harm.
            log::warn!("a commitment that was told stays on the disk: {}", fovea_core::chain(&error));
        }
        self.open().remove(transaction);
        add(&self.counters.commitments_told);
    }

    /// The report could not be told: later again.
    pub(crate) fn not_told(&self, transaction: &Uid) {
        add(&self.counters.commitments_not_told);
        if let Some(entry) = self.open().get_mut(transaction) {
            entry.failures = entry.failures.saturating_add(1);
            let pause = RETRY_MIN.saturating_mul(1 << entry.failures.min(16).saturating_sub(1)).min(RETRY_MAX);
            entry.next_at = Instant::now() + pause;
        }
        self.bell.notify_one();
    }

    /// The association that a request came over is gone without having told it: another way, now.
    pub(crate) fn released(&self, transaction: &Uid) {
        if let Some(entry) = self.open().get_mut(transaction) {
            entry.next_at = Instant::now();
        }
        self.bell.notify_one();
    }

    /// Claims up to `limit` requests that are due: those of `peer`, or of any.
    pub(crate) fn claim(&self, limit: usize, wanted: impl Fn(&AeTitle) -> bool) -> Vec<(AeTitle, Uid)> {
        let now = Instant::now();
        let mut claimed = Vec::new();
        for (transaction, entry) in self.open().iter_mut() {
            if claimed.len() < limit && entry.next_at <= now && wanted(&entry.peer) {
                entry.next_at = now + CLAIM;
                claimed.push((entry.peer.clone(), transaction.clone()));
            }
        }
        claimed
    }

    /// When the next request of such a peer becomes due.
    pub(crate) fn next_due(&self, wanted: impl Fn(&AeTitle) -> bool) -> Option<Instant> {
        self.open().values().filter(|entry| wanted(&entry.peer)).map(|entry| entry.next_at).min()
    }

    /// Forgets what nobody could be told within [`KEEP`]. Blocks.
    pub(crate) fn forget_old(&self, now: UnixMicros) {
        let old = |entry: &Open| now.since(entry.asked_at) > KEEP.as_micros() as u64;
        let gone: Vec<Uid> = self.open().iter().filter(|(_, entry)| old(entry)).map(|(uid, _)| uid.clone()).collect();
        for transaction in gone {
            log::warn!("the commitment {transaction} is given up: its peer could not be told for a week");
            if self.documents.remove_document(DocumentKind::CommitmentAsked, transaction.as_str()).is_ok() {
                self.open().remove(&transaction);
            }
        }
    }
}

fn parse(document: &Document) -> Option<Asked> {
    serde_json::from_slice::<Asked>(&document.content).ok().filter(|asked| asked.version == VERSION)
}
