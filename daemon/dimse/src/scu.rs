//! The asking side: opens an association, echoes and stores; `ask` has the other services.
//!
//! In: a peer's address and titles, contexts, data sets to read from. Out: the peer's status for each.
//! Promise: every wait is bounded by the configured timers; an error tells whether the peer could not be reached,
//! said no for now, said no for good, did not answer, or broke off.
//! Standard: PS3.7 sections 9.1 and 9.3, PS3.8 section 7.1.

use crate::association::Agreement;
use crate::pdu::{APPLICATION_CONTEXT, ASSOCIATE_RJ};
use crate::wire::Wire;
use crate::{
    Association, AssociationError, CommandError, CommandField, CommandSet, DataSetError, Element, EventReport, Limits,
    NegotiatedContext, ProtocolError, Roles, Status, TlsClient, TlsError, Transport, UserIdentity, VERIFICATION,
    acceptor, pdu,
};
use dicom_ul::pdu::{AbortRQSource, PresentationContextResultReason, RequestorRoles, UserIdentityType};
use dicom_ul::pdu::{
    AssociationAC, AssociationRJResult, AssociationRQ, Pdu, PresentationContextProposed, UserVariableItem,
};
use fovea_core::{AeTitle, Uid};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How to reach a peer.
#[derive(Clone)]
pub struct ScuConfig {
    /// `host:port`.
    pub address: String,
    /// The peer's title.
    pub called_ae: AeTitle,
    /// Our title.
    pub calling_ae: AeTitle,
    /// For name resolution and TCP together.
    pub connect_timeout: Duration,
    /// For each answer, and for each write to make progress.
    pub response_timeout: Duration,
    /// Longest PDU that we take and send. 128 KiB is fast and common; at least 128.
    pub max_pdu_bytes: u32,
    /// Encrypted, or none for plain TCP.
    pub tls: Option<ScuTls>,
}

/// Whom we prove to be and whom we want to find.
#[derive(Clone)]
pub struct ScuTls {
    /// Our certificate and our authorities.
    pub client: TlsClient,
    /// The name in the peer's certificate, where it is not the host of the address.
    pub name: Option<String>,
}

/// The host of `host:port`; an IPv6 address without its brackets.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A presentation context to propose. The peer picks one of the transfer syntaxes: propose a class once for each
/// syntax that must be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Context {
    /// SOP class.
    pub sop_class_uid: Uid,
    /// Transfer syntaxes, best first.
    pub transfer_syntax_uids: Vec<Uid>,
}

/// Who asked for the C-MOVE that an object is sent for (PS3.7 section 9.1.1.1.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Originator {
    /// Its title.
    pub title: AeTitle,
    /// The message id of its request.
    pub message_id: u16,
}

/// What is proposed besides contexts.
#[derive(Clone, Default)]
pub struct Proposal {
    /// Roles of ours, by class; we are SCU of any other (PS3.7 section D.3.3.4).
    pub roles: Vec<(Uid, Roles)>,
    /// Who we say we are beyond our title; without a username nothing is said.
    pub user_identity: Option<UserIdentity>,
}

/// Why a peer did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// No connection: wrong address, peer down, network away.
    #[error("could not reach {address}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The peer is there, but no encrypted connection came about.
    #[error("no TLS with {address}")]
    Tls {
        /// `host:port`.
        address: String,
        /// Why.
        source: TlsError,
    },
    /// The peer refused the association.
    #[error("association rejected {}: {reason}", if *.permanent { "for good" } else { "for now" })]
    Rejected {
        /// Asking again will not help.
        permanent: bool,
        /// The peer's reason, in the standard's words.
        reason: String,
    },
    /// The peer does not take this class in this syntax.
    #[error("the peer does not accept {sop_class_uid} in {transfer_syntax_uid}")]
    ContextNotAccepted {
        /// Class.
        sop_class_uid: Uid,
        /// Transfer syntax.
        transfer_syntax_uid: Uid,
    },
    /// No answer in time.
    #[error("timed out: {doing}")]
    Timeout {
        /// What we were waiting for.
        doing: &'static str,
    },
    /// The peer sent A-ABORT.
    #[error("the peer aborted (source {source_code}, reason {reason_code})")]
    PeerAborted {
        /// 0 the peer's program, 2 its upper layer.
        source_code: u8,
        /// PS3.8 table 9-26.
        reason_code: u8,
    },
    /// The connection broke or was closed.
    #[error("the connection was lost: {doing}")]
    ConnectionLost {
        /// What we were doing.
        doing: &'static str,
        /// Why, none where the peer just closed it.
        source: Option<io::Error>,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol")]
    Protocol {
        /// How.
        #[from]
        source: ProtocolError,
    },
    /// The data set of an answer cannot be used; the association stands.
    #[error("the data set of the answer cannot be used")]
    Answer {
        /// Why.
        #[from]
        source: DataSetError,
    },
    /// Our own data set could not be read to its end; the association was aborted.
    #[error("the data set to send could not be read")]
    DataSet {
        /// Why.
        source: io::Error,
    },
    /// More contexts, or none, than an association can hold; or a PDU limit below 128.
    #[error(
        "an association holds 1 to 128 contexts with PDUs of at least 128 bytes; {contexts} contexts were asked for"
    )]
    BadRequest {
        /// Contexts asked for.
        contexts: usize,
    },
}

impl From<AssociationError> for ScuError {
    fn from(error: AssociationError) -> Self {
        match error {
            AssociationError::Io { doing, source } => Self::ConnectionLost { doing, source: Some(source) },
            AssociationError::Closed => Self::ConnectionLost { doing: "waiting for an answer", source: None },
            AssociationError::Timeout { doing } => Self::Timeout { doing },
            AssociationError::PeerAborted { source_code, reason_code } => {
                Self::PeerAborted { source_code, reason_code }
            }
            AssociationError::Protocol { source } => Self::Protocol { source },
        }
    }
}

impl From<CommandError> for ScuError {
    fn from(source: CommandError) -> Self {
        ProtocolError::from(source).into()
    }
}

/// An association that we opened. After an error, or a call whose future was dropped, it is of no more use.
pub struct Scu {
    pub(crate) association: Association<Transport>,
    message_id: u16,
    /// Reports of the peer that came while we waited for an answer.
    pub(crate) events: VecDeque<EventReport>,
}

impl Scu {
    /// Opens an association that proposes `contexts`, at most 128.
    ///
    /// # Errors
    /// [`ScuError`].
    pub async fn connect(config: &ScuConfig, contexts: &[Context]) -> Result<Self, ScuError> {
        Self::connect_as(config, contexts, &Proposal::default()).await
    }

    /// Opens an association that proposes `contexts`, at most 128, with roles and a user identity. What the peer made of the
    /// roles tells [`Self::is_scp`].
    ///
    /// # Errors
    /// [`ScuError`].
    pub async fn connect_as(config: &ScuConfig, contexts: &[Context], proposal: &Proposal) -> Result<Self, ScuError> {
        if contexts.is_empty() || contexts.len() > 128 || config.max_pdu_bytes < 128 {
            return Err(ScuError::BadRequest { contexts: contexts.len() });
        }
        let unreachable = |source| ScuError::Unreachable { address: config.address.clone(), source };
        let stream = timeout(config.connect_timeout, TcpStream::connect(&config.address))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        // Nagle would hold the last piece of every message for the peer's delayed acknowledgement: 40 ms.
        stream.set_nodelay(true).map_err(unreachable)?;
        let limits = Limits {
            pdu_bytes_max: config.max_pdu_bytes,
            associate: config.response_timeout,
            idle: config.response_timeout,
            message: config.response_timeout,
        };
        let transport = match &config.tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let name = tls.name.as_deref().unwrap_or_else(|| host_of(&config.address));
                let secured = tls.client.connect(stream, name, config.connect_timeout).await;
                secured.map_err(|source| ScuError::Tls { address: config.address.clone(), source })?
            }
        };
        let mut wire = Wire::new(transport, limits.pdu_bytes_max, limits.idle);
        let request =
            request(config, contexts, proposal).ok_or(ProtocolError::Malformed { pdu_type: pdu::ASSOCIATE_RQ })?;
        wire.write(&request, "asking for an association").await?;
        wire.set_deadline(Some(Instant::now() + config.response_timeout));
        let accepted = read_acceptance(&mut wire).await?;
        let agreement = Agreement {
            calling_ae: config.calling_ae.clone(),
            called_ae: config.called_ae.clone(),
            contexts: agreed(contexts, &proposal.roles, &accepted)?,
            peer_pdu_bytes_max: pdu::max_length(&accepted.user_variables).unwrap_or(0),
        };
        let association = Association::new(wire, agreement, limits)?;
        Ok(Self { association, message_id: 0, events: VecDeque::new() })
    }

    /// The peer takes this class in this syntax.
    #[must_use]
    pub fn accepts(&self, sop_class: &Uid, transfer_syntax: &Uid) -> bool {
        self.context_for(sop_class, transfer_syntax).is_some()
    }

    fn context_for(&self, sop_class: &Uid, transfer_syntax: &Uid) -> Option<u8> {
        let fits = |c: &&NegotiatedContext| c.abstract_syntax == *sop_class && c.transfer_syntax == *transfer_syntax;
        self.association.contexts().iter().find(fits).map(|context| context.id)
    }

    /// C-ECHO; the class Verification must be among the contexts.
    ///
    /// # Errors
    /// [`ScuError`].
    pub async fn echo(&mut self) -> Result<Status, ScuError> {
        let context = self.association.contexts().iter().find(|c| c.abstract_syntax.as_str() == VERIFICATION);
        let context_id = context.map(|context| context.id).ok_or_else(not_verification)?;
        let message_id = self.next_id();
        self.association.send_command(context_id, &CommandSet::echo_request(message_id)).await?;
        self.answer(CommandField::C_ECHO_RQ, message_id).await
    }

    /// C-STORE of the data set that starts at the reader's position and goes to its end. It is sent as it is: the
    /// reader must hold it in `transfer_syntax`, without preamble and file meta.
    ///
    /// # Errors
    /// [`ScuError`]; [`ScuError::ContextNotAccepted`] leaves the association usable.
    pub async fn store<R: AsyncRead + Unpin>(
        &mut self,
        sop_class: &Uid,
        sop_instance: &Uid,
        transfer_syntax: &Uid,
        data_set: R,
    ) -> Result<Status, ScuError> {
        self.store_with(None, sop_class, sop_instance, transfer_syntax, data_set).await
    }

    /// As [`Self::store`], in the course of a C-MOVE that another asked for.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub async fn store_for<R: AsyncRead + Unpin>(
        &mut self,
        originator: &Originator,
        sop_class: &Uid,
        sop_instance: &Uid,
        transfer_syntax: &Uid,
        data_set: R,
    ) -> Result<Status, ScuError> {
        self.store_with(Some(originator), sop_class, sop_instance, transfer_syntax, data_set).await
    }

    async fn store_with<R: AsyncRead + Unpin>(
        &mut self,
        originator: Option<&Originator>,
        sop_class: &Uid,
        sop_instance: &Uid,
        transfer_syntax: &Uid,
        data_set: R,
    ) -> Result<Status, ScuError> {
        let context_id = self.context_for(sop_class, transfer_syntax).ok_or_else(|| ScuError::ContextNotAccepted {
            sop_class_uid: sop_class.clone(),
            transfer_syntax_uid: transfer_syntax.clone(),
        })?;
        let message_id = self.next_id();
        let mut command = CommandSet::store_request(message_id, sop_class, sop_instance);
        if let Some(Originator { title, message_id }) = originator {
            command =
                command.with_ae(Element::MoveOriginatorAe, title).with_u16(Element::MoveOriginatorMessage, *message_id);
        }
        let sent = self.association.send_with_data(context_id, &command, data_set).await?;
        sent.map_err(|source| ScuError::DataSet { source })?;
        self.answer(CommandField::C_STORE_RQ, message_id).await
    }

    /// The association itself, for what has no method here.
    #[must_use]
    pub fn into_association(self) -> Association<Transport> {
        self.association
    }

    /// Releases the association.
    ///
    /// # Errors
    /// [`ScuError`].
    pub async fn release(self) -> Result<(), ScuError> {
        Ok(self.association.release().await?)
    }

    /// Ends the association at once.
    pub async fn abort(self) {
        self.association.abort().await;
    }

    pub(crate) fn next_id(&mut self) -> u16 {
        self.message_id = self.message_id.checked_add(1).unwrap_or(1);
        self.message_id
    }

    async fn answer(&mut self, asked: CommandField, message_id: u16) -> Result<Status, ScuError> {
        Ok(self.reply(asked, message_id).await?.status)
    }
}

fn not_verification() -> ScuError {
    // A constant of the standard, checked by a test below.
    let sop_class_uid = Uid::new(VERIFICATION).unwrap_or_else(|_| Uid::derived("unreachable", &[]));
    ScuError::ContextNotAccepted { sop_class_uid, transfer_syntax_uid: implicit() }
}

/// Implicit VR Little Endian, which every side must know.
pub(crate) fn implicit() -> Uid {
    // A constant of the standard, checked by a test below.
    Uid::new(crate::transfer_syntax::IMPLICIT_VR_LE).unwrap_or_else(|_| Uid::derived("unreachable", &[]))
}

/// Context ids are 1, 3, 5, ... in the order of `contexts`.
fn request(config: &ScuConfig, contexts: &[Context], proposal: &Proposal) -> Option<Vec<u8>> {
    let proposed = |(index, context): (usize, &Context)| PresentationContextProposed {
        id: (index * 2 + 1) as u8,
        abstract_syntax: context.sop_class_uid.as_str().to_owned(),
        transfer_syntaxes: context.transfer_syntax_uids.iter().map(|uid| uid.as_str().to_owned()).collect(),
    };
    let mut user_variables = pdu::user_variables(config.max_pdu_bytes);
    user_variables.extend(proposal.roles.iter().map(|(class, Roles { scu, scp })| {
        let roles = RequestorRoles { scu: *scu, scp: *scp };
        UserVariableItem::ScuScpRoleSelectionSubItem(class.as_str().to_owned(), roles)
    }));
    user_variables.extend(proposal.user_identity.as_ref().and_then(identity_item));
    pdu::encode(&Pdu::AssociationRQ(AssociationRQ {
        protocol_version: 1,
        calling_ae_title: config.calling_ae.as_str().to_owned(),
        called_ae_title: config.called_ae.as_str().to_owned(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: contexts.iter().enumerate().map(proposed).collect(),
        user_variables,
    }))
}

fn identity_item(identity: &UserIdentity) -> Option<UserVariableItem> {
    let username = identity.username.clone()?.into_bytes();
    let (kind, passcode) = match &identity.passcode {
        None => (UserIdentityType::Username, Vec::new()),
        Some(passcode) => (UserIdentityType::UsernamePassword, passcode.clone().into_bytes()),
    };
    let item = dicom_ul::pdu::UserIdentity::new(identity.wants_confirmation, kind, username, passcode);
    Some(UserVariableItem::UserIdentityItem(item))
}

async fn read_acceptance(wire: &mut Wire<Transport>) -> Result<AssociationAC, ScuError> {
    let bytes = wire.association_pdu("waiting for the association to be accepted").await?;
    match pdu::decode(&bytes) {
        Ok(Pdu::AssociationAC(accepted)) => Ok(accepted),
        Ok(Pdu::AssociationRJ(rejection)) => Err(ScuError::Rejected {
            permanent: rejection.result == AssociationRJResult::Permanent,
            reason: pdu::rejection_words(&rejection),
        }),
        Ok(Pdu::AbortRQ { source }) => {
            let source_code = if matches!(source, AbortRQSource::ServiceUser) { 0 } else { 2 };
            Err(ScuError::PeerAborted { source_code, reason_code: bytes[9] })
        }
        // A rejection with a reason that the standard does not know is still a rejection.
        Err(_) if bytes[0] == ASSOCIATE_RJ && bytes.len() == 10 => Err(ScuError::Rejected {
            permanent: bytes[7] != 2,
            reason: format!("source {}, reason {}", bytes[8], bytes[9]),
        }),
        Ok(_) => Err(ProtocolError::Malformed { pdu_type: bytes[0] }.into()),
        Err(source) => Err(source.into()),
    }
}

/// The contexts that the peer accepted; it may accept only what was proposed.
fn agreed(
    contexts: &[Context],
    proposed_roles: &[(Uid, Roles)],
    accepted: &AssociationAC,
) -> Result<Vec<NegotiatedContext>, ProtocolError> {
    let mut agreed = Vec::new();
    let answered = acceptor::proposed_roles(&accepted.user_variables);
    let roles = |class: &Uid| {
        let (_, proposed) = proposed_roles.iter().find(|(proposed, _)| proposed == class)?;
        Some(answered.get(class)?.and(*proposed))
    };
    for result in &accepted.presentation_contexts {
        if result.reason != PresentationContextResultReason::Acceptance {
            continue;
        }
        let proposed = contexts.get(usize::from(result.id / 2)).filter(|_| result.id % 2 == 1);
        let proposed = proposed.ok_or(ProtocolError::ForeignAcceptance)?;
        let chosen = Uid::new(&result.transfer_syntax).map_err(|_| ProtocolError::ForeignAcceptance)?;
        let is_new = agreed.iter().all(|context: &NegotiatedContext| context.id != result.id);
        if !is_new || !proposed.transfer_syntax_uids.contains(&chosen) {
            return Err(ProtocolError::ForeignAcceptance);
        }
        let abstract_syntax = proposed.sop_class_uid.clone();
        let requestor = roles(&abstract_syntax).unwrap_or(Roles::DEFAULT);
        agreed.push(NegotiatedContext { id: result.id, abstract_syntax, transfer_syntax: chosen, requestor });
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_uids() {
        assert!(Uid::new(VERIFICATION).is_ok() && Uid::new(crate::transfer_syntax::IMPLICIT_VR_LE).is_ok());
    }
}
