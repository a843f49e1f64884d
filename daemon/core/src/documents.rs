//! Small records that a service must not forget: promises made to a peer, steps that a modality reported, lists that were
//! fetched, verdicts of people.
//!
//! One durable place for all of them, so that a service that has something to remember needs no store of its own.

use crate::PortError;
use serde::{Deserialize, Serialize};

/// What a document is about; each kind has keys of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// A peer asked us to commit to instances and has not been told the result yet; key: transaction UID.
    CommitmentAsked,
    /// We asked an archive to commit to instances; key: transaction UID.
    CommitmentSent,
    /// A performed procedure step; key: its SOP instance UID.
    ProcedureStep,
    /// An item of a modality worklist that was fetched; key: chosen by the fetcher.
    WorklistItem,
    /// What a person said of a finding; key: chosen by review.
    Verdict,
    /// A message for the health record; key: chosen by the lane that sends it.
    Message,
}

/// A document and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// 1 to [`DOCUMENT_KEY_BYTES_MAX`] bytes. May not name a patient: it can come up in an error.
    pub key: String,
    /// At most [`DOCUMENT_BYTES_MAX`] bytes, in a form that its kind's owner chose and can version.
    pub content: Vec<u8>,
}

/// Longest key.
pub const DOCUMENT_KEY_BYTES_MAX: usize = 128;
/// Longest content.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Documents by kind and key. Sides: the store on disk, and its twin in memory for tests. Calls block.
pub trait Documents: Send + Sync {
    /// Makes a document durable, in place of one with the same kind and key. Durable when it returns (invariant 1).
    ///
    /// # Errors
    /// [`PortError::Damaged`] past a bound; else as any write. On an error the former document stands.
    fn put_document(&self, kind: DocumentKind, document: Document) -> Result<(), PortError>;

    /// Durably forgets a document; one that is not there is no error.
    ///
    /// # Errors
    /// As any write.
    fn remove_document(&self, kind: DocumentKind, key: &str) -> Result<(), PortError>;

    /// One document.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Document>, PortError>;

    /// Up to `limit` documents of a kind whose key comes after `after` (empty for all), in the order of their keys' bytes.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn documents(&self, kind: DocumentKind, after: &str, limit: usize) -> Result<Vec<Document>, PortError>;
}
