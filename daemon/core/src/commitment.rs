//! What an archive answers when we asked it to commit itself to instances: the hand-over from whoever hears the answer (our own
//! association, or the port that the archive calls back) to whoever asked.
//!
//! Standard: PS3.4 section J.3.3 (Storage Commitment Result).

use crate::{AeTitle, PortError, Uid};

/// Most instances in one result; we ask for fewer at a time.
pub const COMMITMENT_REFERENCES_MAX: usize = 4096;

/// The result of one transaction, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitmentResult {
    /// (0008,1195), ours: 128 random bits, so nobody else can name it.
    pub transaction_uid: Uid,
    /// SOP Instance UIDs that the archive commits itself to, (0008,1199); at most [`COMMITMENT_REFERENCES_MAX`].
    pub committed: Vec<Uid>,
    /// SOP Instance UIDs that it does not, with the failure reason (0008,1197); at most [`COMMITMENT_REFERENCES_MAX`].
    pub failed: Vec<(Uid, u16)>,
}

/// What became of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitmentTaken {
    /// Durably noted: the archive may forget the transaction.
    Noted,
    /// No such transaction is open, or it was asked of somebody else: a second copy of a result looks so, too. Answer it with success
    /// all the same, or an archive goes on sending it.
    Unknown,
}

/// Takes results. Calls block on disk.
pub trait CommitmentResults: Send + Sync {
    /// Notes a result that `from` sent, by the AE title it calls itself. When it returns [`CommitmentTaken::Noted`] the proofs are durable.
    ///
    /// # Errors
    /// When it could not be kept: the archive should try again (0110).
    fn take_result(&self, from: &AeTitle, result: CommitmentResult) -> Result<CommitmentTaken, PortError>;
}
