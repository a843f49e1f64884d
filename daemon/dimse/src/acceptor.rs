//! The accepting side of the handshake.
//!
//! In: a fresh connection. Out: a [`Requested`] association that the caller rejects or accepts, context by context.
//! Promise: the whole handshake is over within the limit for it; a rejection says whether to try again.
//! Standard: PS3.8 sections 7.1 and 9.3.2 to 9.3.4; PS3.7 annex D.

use crate::association::{Agreement, PEER_PDU_BYTES_MIN};
use crate::pdu::{APPLICATION_CONTEXT, ASSOCIATE_RQ};
use crate::wire::Wire;
use crate::{Association, AssociationError, Limits, NegotiatedContext, ProtocolError, pdu};
use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextResult, PresentationContextResultReason, RequestorRoles,
    UserVariableItem,
};
use fovea_core::{AeTitle, Uid};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A requestor has 128 odd context ids (PS3.8 table 9-13).
const CONTEXTS_MAX: usize = 128;

/// Why we say no to a whole association (PS3.8 table 9-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// Permanent: not a calling title we serve.
    #[error("calling AE title not recognized")]
    CallingAe,
    /// Permanent: not our title.
    #[error("called AE title not recognized")]
    CalledAe,
    /// Permanent: another application context than DICOM's.
    #[error("application context name not supported")]
    ApplicationContext,
    /// Permanent: another protocol version than 1.
    #[error("protocol version not supported")]
    ProtocolVersion,
    /// Permanent: nothing better fits.
    #[error("no reason given")]
    NoReason,
    /// Transient: all our associations are taken.
    #[error("local limit exceeded")]
    LocalLimit,
    /// Transient: we cannot serve now, for instance while we stop.
    #[error("temporary congestion")]
    Congestion,
}

impl Rejection {
    /// Result, source and reason.
    fn codes(self) -> (u8, u8, u8) {
        match self {
            Self::NoReason => (1, 1, 1),
            Self::ApplicationContext => (1, 1, 2),
            Self::CallingAe => (1, 1, 3),
            Self::CalledAe => (1, 1, 7),
            Self::ProtocolVersion => (1, 2, 2),
            Self::Congestion => (2, 3, 1),
            Self::LocalLimit => (2, 3, 2),
        }
    }
}

/// Our answer to one proposed context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContextAnswer {
    /// Yes, in this of the proposed transfer syntaxes.
    Accept(Uid),
    /// We do not serve this class.
    AbstractSyntaxNotSupported,
    /// We serve the class, in none of these syntaxes.
    TransferSyntaxesNotSupported,
}

/// Why there is no association.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The request itself was unacceptable; the peer was told.
    #[error("the request was rejected")]
    Rejected {
        /// What the peer was told.
        #[from]
        source: Rejection,
    },
    /// The handshake broke.
    #[error("the handshake failed")]
    Handshake {
        /// How.
        #[from]
        source: AssociationError,
    },
}

/// An association that a peer asked for; dropping it closes the connection.
pub struct Requested<S> {
    wire: Wire<S>,
    request: AssociationRQ,
    calling_ae: AeTitle,
    limits: Limits,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Requested<S> {
    /// Reads the request.
    ///
    /// # Errors
    /// [`AcceptError`]: the peer was told, where it spoke our protocol at all.
    pub async fn read(stream: S, limits: Limits) -> Result<Self, AcceptError> {
        let mut wire = Wire::new(stream, limits.pdu_bytes_max, limits.associate);
        wire.set_deadline(Some(Instant::now() + limits.associate));
        let read = wire.association_pdu("waiting for an association request").await;
        let request = match read.and_then(|bytes| parse_request(&bytes).map_err(Into::into)) {
            Ok(request) => request,
            Err(AssociationError::Protocol { source }) => {
                wire.farewell(&pdu::abort(2, source.abort_reason())).await;
                return Err(AssociationError::from(source).into());
            }
            Err(error) => return Err(error.into()),
        };
        match check_request(&request) {
            Ok(calling_ae) => Ok(Self { wire, request, calling_ae, limits }),
            Err(rejection) => {
                let (result, source, reason) = rejection.codes();
                wire.farewell(&pdu::reject(result, source, reason)).await;
                Err(rejection.into())
            }
        }
    }

    /// Who calls.
    #[must_use]
    pub fn calling_ae(&self) -> &AeTitle {
        &self.calling_ae
    }

    /// Who is called, as sent without padding; any text.
    #[must_use]
    pub fn called_ae(&self) -> &str {
        self.request.called_ae_title.trim_matches([' ', '\0'])
    }

    /// Says no.
    pub async fn reject(mut self, rejection: Rejection) {
        let (result, source, reason) = rejection.codes();
        self.wire.farewell(&pdu::reject(result, source, reason)).await;
    }

    /// Says yes; `answer` decides on each context from its class and its syntaxes in the peer's order. A context whose
    /// class or syntaxes are no UIDs is refused without asking.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept(self, answer: impl Fn(&Uid, &[Uid]) -> ContextAnswer) -> Result<Association<S>, AcceptError> {
        let Self { mut wire, request, calling_ae, limits } = self;
        let called_ae = AeTitle::new(&request.called_ae_title).map_err(|_| Rejection::CalledAe)?;
        let (results, contexts) = answer_contexts(&request, answer);
        let mut user_variables = pdu::user_variables(limits.pdu_bytes_max);
        user_variables.extend(answer_roles(&request, &contexts));
        let reply = Pdu::AssociationAC(AssociationAC {
            protocol_version: 1,
            calling_ae_title: calling_ae.as_str().to_owned(),
            called_ae_title: called_ae.as_str().to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: results,
            user_variables,
        });
        let reply = pdu::encode(&reply).ok_or(ProtocolError::Malformed { pdu_type: ASSOCIATE_RQ });
        let reply = reply.map_err(AssociationError::from)?;
        wire.write(&reply, "accepting an association").await?;
        let peer_pdu_bytes_max = pdu::max_length(&request.user_variables).unwrap_or(0);
        let agreement = Agreement { calling_ae, called_ae, contexts, peer_pdu_bytes_max };
        Association::new(wire, agreement, limits).map_err(|source| AssociationError::from(source).into())
    }
}

fn parse_request(bytes: &[u8]) -> Result<AssociationRQ, ProtocolError> {
    match bytes[0] {
        ASSOCIATE_RQ => match pdu::decode(bytes)? {
            Pdu::AssociationRQ(request) => Ok(request),
            _ => Err(ProtocolError::Malformed { pdu_type: ASSOCIATE_RQ }),
        },
        pdu_type => Err(ProtocolError::UnexpectedPdu { pdu_type, doing: "waiting for an association request" }),
    }
}

/// What is wrong with any request, whoever sent it.
fn check_request(request: &AssociationRQ) -> Result<AeTitle, Rejection> {
    if request.protocol_version & 1 == 0 {
        return Err(Rejection::ProtocolVersion);
    }
    if request.application_context_name.trim_end_matches(['\0', ' ']) != APPLICATION_CONTEXT {
        return Err(Rejection::ApplicationContext);
    }
    let theirs = pdu::max_length(&request.user_variables).unwrap_or(0);
    let contexts = &request.presentation_contexts;
    let mut ids: Vec<u8> = contexts.iter().map(|context| context.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let ids_are_good = ids.len() == contexts.len() && ids.iter().all(|id| id % 2 == 1);
    if contexts.is_empty() || contexts.len() > CONTEXTS_MAX || !ids_are_good {
        return Err(Rejection::NoReason);
    }
    if (1..PEER_PDU_BYTES_MIN).contains(&theirs) {
        return Err(Rejection::NoReason);
    }
    AeTitle::new(&request.calling_ae_title).map_err(|_| Rejection::CallingAe)
}

/// One result for each proposed context, and those that were accepted.
fn answer_contexts(
    request: &AssociationRQ,
    answer: impl Fn(&Uid, &[Uid]) -> ContextAnswer,
) -> (Vec<PresentationContextResult>, Vec<NegotiatedContext>) {
    let mut accepted = Vec::new();
    let results = request.presentation_contexts.iter().map(|proposed| {
        let class = Uid::new(&proposed.abstract_syntax);
        let syntaxes: Vec<Uid> = proposed.transfer_syntaxes.iter().filter_map(|text| Uid::new(text).ok()).collect();
        let decision = match &class {
            Ok(class) => answer(class, &syntaxes),
            Err(_) => ContextAnswer::AbstractSyntaxNotSupported,
        };
        // Not significant in a refusal, but it must be there and be a UID (PS3.8 section 9.3.3.2).
        let mut transfer_syntax = crate::transfer_syntax::IMPLICIT_VR_LE.to_owned();
        let reason = match (decision, class) {
            (ContextAnswer::Accept(chosen), Ok(abstract_syntax)) if syntaxes.contains(&chosen) => {
                transfer_syntax = chosen.as_str().to_owned();
                accepted.push(NegotiatedContext { id: proposed.id, abstract_syntax, transfer_syntax: chosen });
                PresentationContextResultReason::Acceptance
            }
            (ContextAnswer::AbstractSyntaxNotSupported, _) | (_, Err(_)) => {
                PresentationContextResultReason::AbstractSyntaxNotSupported
            }
            _ => PresentationContextResultReason::TransferSyntaxesNotSupported,
        };
        PresentationContextResult { id: proposed.id, reason, transfer_syntax }
    });
    (results.collect(), accepted)
}

/// We are SCP of what we accept: the requestor may be SCU and nothing else (PS3.7 section D.3.3.4). Some eye-care
/// devices propose roles for every class and wait for the answer.
fn answer_roles(request: &AssociationRQ, accepted: &[NegotiatedContext]) -> Vec<UserVariableItem> {
    let answers = request.user_variables.iter().filter_map(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(class, proposed) => {
            let class = Uid::new(class).ok()?;
            accepted.iter().any(|context| context.abstract_syntax == class).then_some(())?;
            let roles = RequestorRoles { scu: proposed.scu, scp: false };
            Some(UserVariableItem::ScuScpRoleSelectionSubItem(class.as_str().to_owned(), roles))
        }
        _ => None,
    });
    answers.take(CONTEXTS_MAX).collect()
}
