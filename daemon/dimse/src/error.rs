//! Why an association came to an end before its time.

use crate::CommandError;
use std::io;

/// What broke an association. After any of these it cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum AssociationError {
    /// The network failed.
    #[error("{doing}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Nothing came, or nothing could be sent, in time.
    #[error("timed out: {doing}")]
    Timeout {
        /// What we were waiting for.
        doing: &'static str,
    },
    /// The peer sent A-ABORT (PS3.8 section 9.3.8).
    #[error("the peer aborted (source {source_code}, reason {reason_code})")]
    PeerAborted {
        /// 0 the peer's program, 2 its upper layer.
        source_code: u8,
        /// PS3.8 table 9-26.
        reason_code: u8,
    },
    /// The peer closed the connection without releasing the association.
    #[error("the peer closed the connection without a release")]
    Closed,
    /// The peer broke the protocol; it was sent an A-ABORT.
    #[error("the peer broke the protocol")]
    Protocol {
        /// How.
        #[from]
        source: ProtocolError,
    },
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Longer than we said we take, or than such a PDU can be.
    #[error("PDU type {pdu_type:02X} of {pdu_bytes} bytes, the limit is {pdu_bytes_max}")]
    PduTooLong {
        /// PDU type.
        pdu_type: u8,
        /// Length announced.
        pdu_bytes: u32,
        /// Our limit.
        pdu_bytes_max: u32,
    },
    /// A PDU that may not come now.
    #[error("PDU type {pdu_type:02X} while {doing}")]
    UnexpectedPdu {
        /// PDU type.
        pdu_type: u8,
        /// What we were doing.
        doing: &'static str,
    },
    /// An association PDU that cannot be read.
    #[error("PDU type {pdu_type:02X} cannot be read")]
    Malformed {
        /// PDU type.
        pdu_type: u8,
    },
    /// A P-DATA PDU without a value, or with a value that does not fit into it.
    #[error("a presentation data value of {pdv_bytes} bytes in {pdu_bytes_left} bytes of PDU")]
    PdvLength {
        /// Length announced, 0 where not even a length was there.
        pdv_bytes: u32,
        /// What was left of the PDU.
        pdu_bytes_left: u32,
    },
    /// A presentation context that was not accepted.
    #[error("presentation context {context_id} was not accepted")]
    UnknownContext {
        /// Its id.
        context_id: u8,
    },
    /// Another context in the middle of a message.
    #[error("presentation context {context_id} in the middle of a message on {message_context_id}")]
    ContextChanged {
        /// The newcomer.
        context_id: u8,
        /// The message's.
        message_context_id: u8,
    },
    /// Data where a command was due.
    #[error("data set fragment where a command was due")]
    CommandDue,
    /// A command where data were due.
    #[error("command fragment where the data set was due")]
    DataDue,
    /// A command longer than [`crate::COMMAND_BYTES_MAX`].
    #[error("a command set of more than {command_bytes_max} bytes")]
    CommandTooLong {
        /// Our limit.
        command_bytes_max: usize,
    },
    /// A command set that cannot be read.
    #[error("the command set cannot be used")]
    Command {
        /// Why.
        #[from]
        source: CommandError,
    },
    /// An answer that belongs to no question of ours.
    #[error("a response to another message")]
    ForeignResponse,
    /// A maximum PDU length into which no message fits.
    #[error("the peer takes PDUs of at most {pdu_bytes} bytes, no message fits")]
    PeerPduTooShort {
        /// The peer's limit.
        pdu_bytes: u32,
    },
    /// An association that says yes to what was not asked.
    #[error("the peer accepted what was not proposed")]
    ForeignAcceptance,
    /// A call was cancelled between the first and the last byte of a message of ours.
    #[error("an earlier message of ours was cut")]
    OurMessageCut,
}

impl ProtocolError {
    /// The reason to send in A-ABORT, source 2 (PS3.8 table 9-26).
    pub(crate) fn abort_reason(&self) -> u8 {
        match self {
            Self::UnexpectedPdu { pdu_type: 0x01..=0x07, .. } => 2,
            Self::UnexpectedPdu { .. } => 1,
            Self::PduTooLong { .. } | Self::PdvLength { .. } | Self::UnknownContext { .. } => 6,
            Self::Malformed { .. } | Self::ContextChanged { .. } => 6,
            _ => 0,
        }
    }
}
