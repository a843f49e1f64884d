//! The accepting side of the handshake.
//!
//! In: a fresh connection. Out: a [`Requested`] association that the caller rejects or accepts, context by context.
//! Promise: the whole handshake is over within the limit for it; a rejection says whether to try again.
//! Standard: PS3.8 sections 7.1 and 9.3.2 to 9.3.4; PS3.7 annex D.

use crate::association::{Agreement, PEER_PDU_BYTES_MIN};
use crate::pdu::{APPLICATION_CONTEXT, ASSOCIATE_RQ};
use crate::wire::Wire;
use crate::{Association, AssociationError, Limits, NegotiatedContext, ProtocolError, Roles, pdu};
use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextResult, PresentationContextResultReason, RequestorRoles,
    UserIdentityType, UserVariableItem,
};
use fovea_core::{AeTitle, Uid};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A requestor has 128 odd context ids (PS3.8 table 9-13).
pub(crate) const CONTEXTS_MAX: usize = 128;
/// Item type of the asynchronous operations window (PS3.7 section D.3.3.3).
const ASYNCHRONOUS: u8 = 0x53;
/// Item type of the answer to a user identity (PS3.7 section D.3.3.7.2).
const IDENTITY_RESPONSE: u8 = 0x59;

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

/// On what terms we accept an association.
pub trait Terms {
    /// Our answer to one proposed context, from its class and its syntaxes in the peer's order.
    fn context(&self, class: &Uid, syntaxes: &[Uid]) -> ContextAnswer;

    /// What the requestor may be in a class of an accepted context, from what it proposes; never more than that. Where it
    /// proposes nothing it is SCU.
    fn roles(&self, class: &Uid, proposed: Roles) -> Roles {
        let _any_class = class;
        Roles { scu: proposed.scu, scp: false }
    }

    /// The user identity was checked: the requestor is told so where it asks (PS3.7 section D.3.3.7.2).
    fn confirms_identity(&self) -> bool {
        false
    }
}

/// Terms that are contexts alone.
struct ContextsOnly<F>(F);

impl<F: Fn(&Uid, &[Uid]) -> ContextAnswer> Terms for ContextsOnly<F> {
    fn context(&self, class: &Uid, syntaxes: &[Uid]) -> ContextAnswer {
        (self.0)(class, syntaxes)
    }
}

/// Who a requestor says it is beyond its title (PS3.7 section D.3.3.7). Has no `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// Type 1 and 2: the name of a user. Of the other types (tickets, assertions, tokens) the content is not kept.
    pub username: Option<String>,
    /// Type 2: the passcode.
    pub passcode: Option<String>,
    /// The requestor wants to be told that it was believed.
    pub wants_confirmation: bool,
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

    /// The user identity that was sent, none where none was.
    #[must_use]
    pub fn user_identity(&self) -> Option<UserIdentity> {
        self.request.user_variables.iter().find_map(|item| match item {
            UserVariableItem::UserIdentityItem(identity) => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
                let kind = identity.identity_type();
                let is_named = matches!(kind, UserIdentityType::Username | UserIdentityType::UsernamePassword);
                let username = text(identity.primary_field()).filter(|_| is_named);
                let has_passcode = kind == UserIdentityType::UsernamePassword;
                let passcode = text(identity.secondary_field()).filter(|_| has_passcode);
                Some(UserIdentity { username, passcode, wants_confirmation: identity.positive_response_requested() })
            }
            _ => None,
        })
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
        self.accept_on(&ContextsOnly(answer)).await
    }

    /// Says yes on these terms. A context whose class or syntaxes are no UIDs is refused without asking.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept_on(self, terms: &impl Terms) -> Result<Association<S>, AcceptError> {
        let Self { mut wire, request, calling_ae, limits } = self;
        let called_ae = AeTitle::new(&request.called_ae_title).map_err(|_| Rejection::CalledAe)?;
        let roles = proposed_roles(&request.user_variables);
        let (results, contexts) = answer_contexts(&request, terms, &roles);
        let mut user_variables = pdu::user_variables(limits.pdu_bytes_max);
        user_variables.extend(answer_roles(&roles, &contexts));
        user_variables.extend(answer_others(&request.user_variables, terms.confirms_identity()));
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
    terms: &impl Terms,
    roles: &BTreeMap<Uid, Roles>,
) -> (Vec<PresentationContextResult>, Vec<NegotiatedContext>) {
    let mut accepted = Vec::new();
    let results = request.presentation_contexts.iter().map(|proposed| {
        let class = Uid::new(&proposed.abstract_syntax);
        let syntaxes: Vec<Uid> = proposed.transfer_syntaxes.iter().filter_map(|text| Uid::new(text).ok()).collect();
        let decision = match &class {
            Ok(class) => terms.context(class, &syntaxes),
            Err(_) => ContextAnswer::AbstractSyntaxNotSupported,
        };
        // Not significant in a refusal, but it must be there and be a UID (PS3.8 section 9.3.3.2).
        let mut transfer_syntax = crate::transfer_syntax::IMPLICIT_VR_LE.to_owned();
        let reason = match (decision, class) {
            (ContextAnswer::Accept(chosen), Ok(abstract_syntax)) if syntaxes.contains(&chosen) => {
                transfer_syntax = chosen.as_str().to_owned();
                let requestor = roles
                    .get(&abstract_syntax)
                    .map_or(Roles::DEFAULT, |proposed| terms.roles(&abstract_syntax, *proposed).and(*proposed));
                let id = proposed.id;
                accepted.push(NegotiatedContext { id, abstract_syntax, transfer_syntax: chosen, requestor });
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

/// The roles that are proposed, by class; some eye-care devices propose them for every class, and some twice: the
/// first proposal counts. More classes than there can be contexts are not looked at.
pub(crate) fn proposed_roles(items: &[UserVariableItem]) -> BTreeMap<Uid, Roles> {
    let mut roles = BTreeMap::new();
    for item in items {
        if let UserVariableItem::ScuScpRoleSelectionSubItem(class, RequestorRoles { scu, scp }) = item
            && let Ok(class) = Uid::new(class)
            && roles.len() < CONTEXTS_MAX
        {
            roles.entry(class).or_insert(Roles { scu: *scu, scp: *scp });
        }
    }
    roles
}

/// One answer for each class that was proposed with roles and accepted (PS3.7 section D.3.3.4.2).
fn answer_roles(proposed: &BTreeMap<Uid, Roles>, accepted: &[NegotiatedContext]) -> Vec<UserVariableItem> {
    let answers = proposed.keys().filter_map(|class| {
        let context = accepted.iter().find(|context| context.abstract_syntax == *class)?;
        let Roles { scu, scp } = context.requestor;
        Some(UserVariableItem::ScuScpRoleSelectionSubItem(class.as_str().to_owned(), RequestorRoles { scu, scp }))
    });
    answers.collect()
}

/// Answers to the items that a requestor waits for.
fn answer_others(proposed: &[UserVariableItem], confirms_identity: bool) -> Vec<UserVariableItem> {
    let mut answers = Vec::new();
    if proposed.iter().any(|item| matches!(item, UserVariableItem::Unknown(ASYNCHRONOUS, _))) {
        // One operation invoked and one performed at a time (PS3.7 table D.3-8).
        answers.push(UserVariableItem::Unknown(ASYNCHRONOUS, vec![0, 1, 0, 1]));
    }
    let asks = |item: &UserVariableItem| match item {
        UserVariableItem::UserIdentityItem(identity) => identity.positive_response_requested(),
        _ => false,
    };
    if confirms_identity && proposed.iter().any(asks) {
        // Names and passcodes are confirmed by a response of no length (PS3.7 table D.3-15).
        answers.push(UserVariableItem::Unknown(IDENTITY_RESPONSE, vec![0, 0]));
    }
    answers
}
