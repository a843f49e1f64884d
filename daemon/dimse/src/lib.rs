//! DIMSE messages between application entities, both roles: echo, store, query, retrieve, storage commitment, steps.
//!
//! In: a byte stream to a peer ([`Transport`]: TCP or TLS; anything that reads and writes). Out: command sets and data set bytes,
//! piece by piece, and the peer's or our answers.
//! Promise: nothing that a peer says sizes an allocation. An association costs one read buffer of 64 KiB and one
//! command of at most 4 KiB, however long its objects are, and where it asks a question one identifier of at most 256 KiB;
//! every wait has a timer; a response leaves in one write.
//! Standard: DICOM PS3.7 (messages), PS3.8 (upper layer).
//!
//! ```text
//! SCP: Requested::read -> reject | accept -> Association: next_command, next_data, respond, ...
//! SCU: Scu::connect -> echo, store, find, n_action, ... -> release
//! ```
//! The PDUs that open and close an association are coded by dicom-ul, over a buffer whose length we have bounded;
//! P-DATA, where the bytes are, is ours ([`Association`] tells why).

mod acceptor;
mod ask;
mod association;
mod command;
pub mod commitment;
mod data_set;
mod error;
mod part10;
mod pdu;
mod scu;
mod status;
mod transport;
mod wire;

pub use acceptor::{AcceptError, ContextAnswer, Rejection, Requested, Terms, UserIdentity};
pub use ask::{EVENTS_WAITING_MAX, EventReport, Found, Reply};
pub use association::{Association, Limits, Message, NegotiatedContext, Roles};
pub use command::{COMMAND_BYTES_MAX, CommandError, CommandField, CommandSet, Element};
pub use data_set::{Coding, DATA_SET_BYTES_MAX, DATA_SET_DEPTH_MAX, DATA_SET_ELEMENTS_MAX, DataSet, DataSetError};
pub use error::{AssociationError, ProtocolError};
pub use part10::{Part10Error, Part10Head, part10_head, part10_prefix};
pub use pdu::{implementation_class_uid, implementation_version_name};
pub use scu::{Context, Originator, Proposal, Scu, ScuConfig, ScuError, ScuTls};
pub use status::Status;
pub use transport::{PeerCertificate, TlsClient, TlsError, TlsFiles, TlsServer, Transport};

/// Verification SOP Class (PS3.4 annex A).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Transfer syntaxes that every side must know. Standard: PS3.5 annex A.
pub mod transfer_syntax {
    /// Implicit VR Little Endian, the default of DICOM.
    pub const IMPLICIT_VR_LE: &str = "1.2.840.10008.1.2";
    /// Explicit VR Little Endian.
    pub const EXPLICIT_VR_LE: &str = "1.2.840.10008.1.2.1";
    /// Deflated Explicit VR Little Endian.
    pub const DEFLATED_EXPLICIT_VR_LE: &str = "1.2.840.10008.1.2.1.99";
    /// JPEG Baseline (process 1).
    pub const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
}
