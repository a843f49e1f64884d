//! Storage commitment, as both sides say it.
//!
//! In: the data sets of N-ACTION and N-EVENT-REPORT. Out: [`Request`] and [`Report`], and back.
//! Promise: at most [`REFERENCES_MAX`] references, so that request and report always fit into a message.
//! Standard: PS3.4 annex J (Storage Commitment Push Model).

use crate::{DataSet, Status};
use fovea_core::{AeTitle, TagNumber, Uid};

/// Storage Commitment Push Model SOP Class (PS3.4 section J.3.5).
pub const CLASS: &str = "1.2.840.10008.1.20.1";
/// Its well-known instance (PS3.4 section J.3.5).
pub const INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Action type: request storage commitment (PS3.4 table J.3-1).
pub const ACTION_REQUEST: u16 = 1;
/// Event type: all is committed (PS3.4 table J.3-3).
pub const EVENT_COMMITTED: u16 = 1;
/// Event type: complete, failures exist (PS3.4 table J.3-3).
pub const EVENT_FAILURES: u16 = 2;
/// References in one request. A failed one takes at most 162 bytes, and a data set has 256 KiB.
pub const REFERENCES_MAX: usize = 1500;

const TRANSACTION: TagNumber = 0x0008_1195;
const REFERENCED: TagNumber = 0x0008_1199;
const FAILED: TagNumber = 0x0008_1198;
const REASON: TagNumber = 0x0008_1197;
const REFERENCED_CLASS: TagNumber = 0x0008_1150;
const REFERENCED_INSTANCE: TagNumber = 0x0008_1155;

/// The class as a UID.
#[must_use]
pub fn class() -> Uid {
    well_known(CLASS)
}

/// The instance as a UID.
#[must_use]
pub fn instance() -> Uid {
    well_known(INSTANCE)
}

fn well_known(text: &str) -> Uid {
    // Both are UIDs of the standard, checked by a test below.
    Uid::new(text).unwrap_or_else(|_| Uid::derived("unreachable", &[]))
}

/// An instance that is spoken of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    /// (0008,1150).
    pub sop_class_uid: Uid,
    /// (0008,1155).
    pub sop_instance_uid: Uid,
}

/// An instance that is not committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which.
    pub reference: Reference,
    /// (0008,1197): 0110 processing failure, 0112 no such instance, 0119 class-instance conflict, 0122 class not
    /// supported, 0131 duplicate transaction, 0213 resource limitation (PS3.3 section C.14.1.1).
    pub reason: Status,
}

/// What is asked for: the action information (PS3.4 table J.3-1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// (0008,1195), chosen by the asker and never used again.
    pub transaction_uid: Uid,
    /// (0008,1199), at least one.
    pub references: Vec<Reference>,
}

/// What came of it: the event information (PS3.4 table J.3-3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// (0008,1195) of the request.
    pub transaction_uid: Uid,
    /// (0008,1199): these are kept.
    pub committed: Vec<Reference>,
    /// (0008,1198): these are not.
    pub failed: Vec<Failure>,
}

/// Why a data set is no request or report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// An element that must be there is not, or is not what it should be.
    #[error("({:04X},{:04X}) is missing or no value of its kind", .tag >> 16, .tag & 0xffff)]
    Missing {
        /// The element.
        tag: TagNumber,
    },
    /// No reference, or more than [`REFERENCES_MAX`].
    #[error("{references} references, 1 to {REFERENCES_MAX} are taken")]
    References {
        /// How many.
        references: usize,
    },
    /// Neither of the two event types.
    #[error("event type {event_type}, 1 or 2 are taken")]
    EventType {
        /// Which.
        event_type: u16,
    },
}

/// Whom an archive's answer to a request of ours is told to: archives send it on an association of their own.
pub trait Listener: Send + Sync {
    /// `from` says what it commits to. Blocks for as long as it takes to make that durable; the answer goes back to the
    /// archive: success, or 0112 for a transaction that is not ours, or a failure after which the archive tells again.
    fn reported(&self, from: &AeTitle, report: &Report) -> Status;
}

fn reference(item: &DataSet) -> Result<Reference, CommitmentError> {
    let uid = |tag| item.uid(tag).ok_or(CommitmentError::Missing { tag });
    Ok(Reference { sop_class_uid: uid(REFERENCED_CLASS)?, sop_instance_uid: uid(REFERENCED_INSTANCE)? })
}

fn reference_item(reference: &Reference) -> DataSet {
    DataSet::default()
        .with_uid(REFERENCED_CLASS, &reference.sop_class_uid)
        .with_uid(REFERENCED_INSTANCE, &reference.sop_instance_uid)
}

fn bounded(references: usize) -> Result<(), CommitmentError> {
    if (1..=REFERENCES_MAX).contains(&references) { Ok(()) } else { Err(CommitmentError::References { references }) }
}

fn transaction(data_set: &DataSet) -> Result<Uid, CommitmentError> {
    data_set.uid(TRANSACTION).ok_or(CommitmentError::Missing { tag: TRANSACTION })
}

impl Request {
    /// The action information.
    #[must_use]
    pub fn to_data_set(&self) -> DataSet {
        let items = self.references.iter().map(reference_item).collect();
        DataSet::default().with_uid(TRANSACTION, &self.transaction_uid).with_items(REFERENCED, items)
    }

    /// Reads the action information.
    ///
    /// # Errors
    /// [`CommitmentError`].
    pub fn from_data_set(data_set: &DataSet) -> Result<Self, CommitmentError> {
        let items = data_set.items(REFERENCED);
        bounded(items.len())?;
        let references = items.iter().map(reference).collect::<Result<_, _>>()?;
        Ok(Self { transaction_uid: transaction(data_set)?, references })
    }
}

impl Report {
    /// 1 where all is committed, else 2.
    #[must_use]
    pub fn event_type(&self) -> u16 {
        if self.failed.is_empty() { EVENT_COMMITTED } else { EVENT_FAILURES }
    }

    /// The event information.
    #[must_use]
    pub fn to_data_set(&self) -> DataSet {
        let mut data_set = DataSet::default().with_uid(TRANSACTION, &self.transaction_uid);
        if !self.committed.is_empty() {
            data_set = data_set.with_items(REFERENCED, self.committed.iter().map(reference_item).collect());
        }
        if !self.failed.is_empty() {
            let item = |failure: &Failure| reference_item(&failure.reference).with_u16(REASON, failure.reason.0);
            data_set = data_set.with_items(FAILED, self.failed.iter().map(item).collect());
        }
        data_set
    }

    /// Reads the event information of an event of this type.
    ///
    /// # Errors
    /// [`CommitmentError`].
    pub fn from_data_set(event_type: u16, data_set: &DataSet) -> Result<Self, CommitmentError> {
        if !matches!(event_type, EVENT_COMMITTED | EVENT_FAILURES) {
            return Err(CommitmentError::EventType { event_type });
        }
        let (kept, lost) = (data_set.items(REFERENCED), data_set.items(FAILED));
        bounded(kept.len() + lost.len())?;
        let failure = |item: &DataSet| {
            let reason = item.u16(REASON).ok_or(CommitmentError::Missing { tag: REASON })?;
            Ok(Failure { reference: reference(item)?, reason: Status(reason) })
        };
        Ok(Self {
            transaction_uid: transaction(data_set)?,
            committed: kept.iter().map(reference).collect::<Result<_, _>>()?,
            failed: lost.iter().map(failure).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Coding, DATA_SET_BYTES_MAX};

    fn longest(index: usize) -> Reference {
        let uid = |root: &str| Uid::new(&format!("{root}.{index:0>width$}", width = 63 - root.len())).unwrap();
        Reference { sop_class_uid: uid("1.2.840.10008.5.1.4.1.1"), sop_instance_uid: uid("1.2.3") }
    }

    #[test]
    fn the_constants_are_uids() {
        assert_eq!((class().as_str(), instance().as_str()), (CLASS, INSTANCE));
    }

    #[test]
    fn request_and_report_survive_both_codings() {
        let request =
            Request { transaction_uid: longest(7).sop_instance_uid, references: vec![longest(1), longest(2)] };
        let failed = vec![Failure { reference: longest(2), reason: Status::NO_SUCH_INSTANCE }];
        let report = Report { transaction_uid: request.transaction_uid.clone(), committed: vec![longest(1)], failed };
        for coding in [Coding::Implicit, Coding::Explicit] {
            let read = DataSet::decode(&request.to_data_set().encode(coding), coding).unwrap();
            assert_eq!(Request::from_data_set(&read), Ok(request.clone()));
            let read = DataSet::decode(&report.to_data_set().encode(coding), coding).unwrap();
            assert_eq!(Report::from_data_set(report.event_type(), &read), Ok(report.clone()));
        }
        assert_eq!(report.event_type(), EVENT_FAILURES);
        assert!(Report::from_data_set(3, &report.to_data_set()).is_err());
    }

    #[test]
    fn inv_08_the_longest_report_fits_into_a_message_and_one_reference_more_is_refused() {
        let failure = |index| Failure { reference: longest(index), reason: Status::NO_SUCH_INSTANCE };
        let failed = (0..REFERENCES_MAX).map(failure).collect();
        let report = Report { transaction_uid: longest(0).sop_instance_uid, committed: vec![], failed };
        for coding in [Coding::Implicit, Coding::Explicit] {
            let bytes = report.to_data_set().encode(coding);
            assert!(bytes.len() <= DATA_SET_BYTES_MAX, "{}", bytes.len());
            assert!(DataSet::decode(&bytes, coding).is_ok());
        }
        let references = (0..=REFERENCES_MAX).map(longest).collect();
        let request = Request { transaction_uid: longest(0).sop_instance_uid, references };
        assert!(matches!(
            Request::from_data_set(&request.to_data_set()),
            Err(CommitmentError::References { references: 1501 })
        ));
    }
}
