//! The three durable places between stages. Sides: the store on disk, and its twin in memory for tests.
//!
//! All calls block (disk) and belong off the async workers. All are safe to call again after a crash: what was
//! done is not done twice. What a call answered with `Ok` survives kill -9 and power cuts (invariant 1).

use crate::{Accepted, Finding, FindingId, NewObject, Sender, Uid, UnixMicros};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::PathBuf;

/// Why a port could not do it. After any error the port stays usable and nothing half-done shows.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The disk is full, or past the high watermark: the sender should try again later (status A700).
    #[error("out of space: {detail}")]
    OutOfSpace {
        /// What ran out.
        detail: String,
    },
    /// Reading or writing failed.
    #[error("{doing}")]
    Io {
        /// What we were doing.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The record or file that was named is missing or not what was written: a lasting fact, trying again cannot help.
    /// What may pass (an index that cannot be asked just now, too many open files) is [`PortError::Io`].
    #[error("damaged: {detail}")]
    Damaged {
        /// What is damaged, where.
        detail: String,
    },
    /// What was named was never held: as lasting as damage.
    #[error("not held: {what}")]
    NotHeld {
        /// What was asked for.
        what: String,
    },
}

/// A file that is being written on the store's own file system; dropped without being accepted, it is removed.
#[derive(Debug)]
pub struct TempObject {
    /// Open for reading and writing, position at its end.
    pub file: File,
    /// Its path, none for the memory twin. The store that made it removes it or renames it.
    pub path: Option<PathBuf>,
}

impl TempObject {
    /// A temporary file that the caller made on the store's file system.
    #[must_use]
    pub fn new(file: File, path: Option<PathBuf>) -> Self {
        Self { file, path }
    }
}

impl Drop for TempObject {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Left-overs are swept when the store opens, so a failure here costs only space.
            let _swept_later = std::fs::remove_file(path);
        }
    }
}

/// What became of an object that was offered to the inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Acceptance {
    /// Durable now.
    New(Accepted),
    /// The same data set was durable already: success, and no second outcome.
    Duplicate(Accepted),
    /// The UID is held with other bytes: the newcomer is kept in quarantine, the held one stays.
    Conflict {
        /// What was held before.
        held: Accepted,
        /// Where the newcomer lies, for people.
        quarantined: PathBuf,
    },
}

/// Durable objects, each waiting for or having one outcome.
pub trait Inbox: Send + Sync {
    /// A fresh temporary file to write an object into.
    ///
    /// # Errors
    /// [`PortError::OutOfSpace`] past the high watermark.
    fn open_temp(&self) -> Result<TempObject, PortError>;

    /// Whether `bytes` more of an object from `sender` would be taken: asked before an object of known length is begun
    /// and again with each batch of one that is on its way, so that a refusal comes before the disk is full.
    /// A store without limits takes everything.
    ///
    /// # Errors
    /// [`PortError::OutOfSpace`] past the high watermark or the sender's quota, without room, or when read-only.
    fn check_space(&self, sender: &Sender, bytes: u64) -> Result<(), PortError> {
        let _no_limit_here = (sender, bytes);
        Ok(())
    }

    /// Makes a complete Part 10 file durable: data, name, folder, journal record. Many callers share one journal sync.
    ///
    /// # Errors
    /// On any error the object is not held and must not be acknowledged.
    fn accept(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError>;

    /// Up to `limit` objects without an outcome, oldest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError>;

    /// The record of one object.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn accepted(&self, sop_instance_uid: &Uid) -> Result<Option<Accepted>, PortError>;

    /// Opens the stored Part 10 file, read-only.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such object.
    fn open_object(&self, sop_instance_uid: &Uid) -> Result<File, PortError>;

    /// Up to `limit` objects accepted after place `after` (0 for all), oldest first, whatever became of them since: for
    /// views that follow the inbox.
    ///
    /// # Errors
    /// When the index cannot be read; [`PortError::Io`] from an inbox that keeps no order.
    fn accepted_after(&self, after: u64, limit: usize) -> Result<Vec<Accepted>, PortError> {
        let _no_order_here = (after, limit);
        let source = std::io::ErrorKind::Unsupported.into();
        Err(PortError::Io { doing: "list what was accepted".to_owned(), source })
    }

    /// Up to `limit` notes of files that went on purpose (eviction), those after place `after` (0 for all), oldest first,
    /// each with its place. A store that evicts nothing has none.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn gone_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Gone)>, PortError> {
        let _nothing_goes_here = (after, limit);
        Ok(Vec::new())
    }
}

/// Files that went on purpose, because an archive keeps what was in them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gone {
    /// The parcel whose file went.
    pub parcel: u64,
    /// The object whose file went with it, where it was that object's original.
    pub object: Option<Uid>,
}

/// What `record` did.
#[derive(Clone, PartialEq, Debug)]
pub enum Recorded {
    /// Durable now.
    New,
    /// The object has an outcome already; this is it, and nothing was written.
    Already(Box<Finding>),
}

/// Outcomes: exactly one for each accepted object (invariant 2).
pub trait Ledger: Send + Sync {
    /// Makes an outcome durable.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when the object was never accepted.
    fn record(&self, finding: Finding) -> Result<Recorded, PortError>;

    /// One finding by its id.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn finding(&self, id: &FindingId) -> Result<Option<Finding>, PortError>;

    /// The outcome of one object.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn finding_of(&self, sop_instance_uid: &Uid) -> Result<Option<Finding>, PortError>;

    /// Up to `limit` findings recorded after place `after` (0 for all), oldest first, each with its place.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn findings_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Finding)>, PortError>;

    /// Up to `limit` findings whose report and copy are not yet in the outbox, oldest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn undispatched(&self, limit: usize) -> Result<Vec<Finding>, PortError>;
}

/// Kinds of things that leave the box; a destination names those it wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Reports.
    Findings,
    /// De-identified copies.
    Deidentified,
    /// Objects as received.
    Originals,
}

/// Order of sending: a lower lane goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Findings that are urgent.
    UrgentFindings,
    /// Other findings.
    Findings,
    /// Pictures that a finding points at.
    KeyImages,
    /// Images.
    Pixels,
}

/// A Part 10 file that shall leave the box.
#[derive(Debug)]
pub struct NewParcel {
    /// What it is.
    pub what: What,
    /// When it goes.
    pub lane: Lane,
    /// Its class.
    pub sop_class_uid: Uid,
    /// Its own instance UID, which also names it in the outbox.
    pub sop_instance_uid: Uid,
    /// Its transfer syntax.
    pub transfer_syntax_uid: Uid,
    /// The whole Part 10 file.
    pub content: TempObject,
}

/// A parcel in the outbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// Place in the order of dispatch, from 1; names the parcel.
    pub seq: u64,
    /// The object that it is about.
    pub source_sop_instance_uid: Uid,
    /// What it is.
    pub what: What,
    /// When it goes.
    pub lane: Lane,
    /// Its class.
    pub sop_class_uid: Uid,
    /// Its own instance UID.
    pub sop_instance_uid: Uid,
    /// Its transfer syntax.
    pub transfer_syntax_uid: Uid,
    /// Length of the Part 10 file.
    pub file_bytes: u64,
    /// When it was dispatched.
    pub dispatched_at: UnixMicros,
}

/// What is known of a parcel on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ParcelState {
    /// The parcel.
    pub parcel: Parcel,
    /// Where it lies on this box.
    pub path: PathBuf,
    /// Destinations that answered success, with the moment.
    pub delivered: Vec<(String, UnixMicros)>,
    /// Destinations that refused it for good, or whose rules do not want it ([`RULED_OUT`]), with the reason.
    pub set_aside: Vec<(String, String)>,
    /// Destinations that proved to keep it, the first first.
    #[serde(default)]
    pub custody: Vec<Custody>,
}

/// The reason of a parcel that a destination's own rules do not want: settled there, and nothing went wrong.
pub const RULED_OUT: &str = "not wanted by the rules of the destination";

/// A copy that must not leave the box until a person has looked (invariant 5).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quarantined {
    /// What it would have been.
    pub what: What,
    /// Why it stays: no patient identity in here.
    pub reason: String,
}

/// How an archive proved that it keeps an instance: more than a success status, which says only that it came.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It committed itself in answer to a request (PS3.4 annex J).
    Commitment {
        /// (0008,1195) of the request.
        transaction_uid: Uid,
    },
    /// A query afterwards found the instance there.
    Query,
}

/// One archive's proof for one parcel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Custody {
    /// Destination, by its name in the configuration.
    pub destination: String,
    /// How it proved it.
    pub proof: Proof,
    /// When.
    pub at: UnixMicros,
}

/// What leaves the box. A parcel waits for each destination that wants its kind until that one has it or refused it
/// for good; with no such destination it is held. Its file stays after that, too: only an archive's proof of custody lets
/// it go (invariant 6).
pub trait Outbox: Send + Sync {
    /// Makes all parcels and notes of one finding durable in one record. A second call for the same object does nothing.
    ///
    /// # Errors
    /// On any error nothing of it is held.
    fn dispatch(
        &self,
        source_sop_instance_uid: &Uid,
        parcels: Vec<NewParcel>,
        quarantined: Vec<Quarantined>,
        now: UnixMicros,
    ) -> Result<(), PortError>;

    /// Up to `limit` parcels of the wanted kinds that `destination` neither has nor refused: by lane, then by age.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, PortError>;

    /// Opens a parcel's Part 10 file, read-only.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel.
    fn open_parcel(&self, seq: u64) -> Result<File, PortError>;

    /// Notes that `destination` answered success. Durable when it returns.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel.
    fn delivered(&self, seq: u64, destination: &str, at: UnixMicros) -> Result<(), PortError>;

    /// Notes that `destination` refused the parcel for good. Durable when it returns.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel.
    fn set_aside(&self, seq: u64, destination: &str, reason: &str) -> Result<(), PortError>;

    /// Notes that `destination` proved that it keeps the parcel. Durable when it returns; the first proof stays.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel; [`PortError::Io`] from an outbox that keeps no proofs.
    fn custody(&self, seq: u64, destination: &str, proof: Proof, at: UnixMicros) -> Result<(), PortError> {
        let _not_kept = (destination, proof, at);
        let source = std::io::ErrorKind::Unsupported.into();
        Err(PortError::Io { doing: format!("keep a proof of custody for parcel {seq}"), source })
    }

    /// Who has proved to keep the parcel, the first first.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel.
    fn custody_of(&self, seq: u64) -> Result<Vec<Custody>, PortError> {
        let _none_kept = seq;
        Ok(Vec::new())
    }

    /// Durably forgets that `destination` has the parcel or refused it: it waits there once more, if that one wants its kind.
    /// One that waits already, or whose file an archive keeps in place of the box, is left as it is. Proofs stay.
    ///
    /// # Errors
    /// [`PortError::NotHeld`] when there is no such parcel; [`PortError::Io`] from an outbox that cannot.
    fn send_again(&self, seq: u64, destination: &str) -> Result<(), PortError> {
        let source = std::io::ErrorKind::Unsupported.into();
        Err(PortError::Io { doing: format!("send parcel {seq} to {destination} again"), source })
    }

    /// What came of one object: its parcels, and the copies that were held back.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn sent_for(&self, source_sop_instance_uid: &Uid) -> Result<(Vec<ParcelState>, Vec<Quarantined>), PortError>;

    /// Up to `limit` parcels after place `after`, oldest first, whatever their state.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn parcels_after(&self, after: u64, limit: usize) -> Result<Vec<ParcelState>, PortError>;
}
