//! The messages of one association: echo and store here, the other services in `services`.
//!
//! In: an association that stands. Out: objects, and a response to each request; reports that the peer is owed.
//! Promise: success is answered only after the inbox accepted (invariant 1). An object that is refused is read to
//! its end and answered with its status: the association goes on.
//! Standard: PS3.7 sections 9.3.1 and 9.3.5, PS3.4 annexes A and B.

use crate::classes::is_stored;
use crate::counters::add;
use crate::object::{Intake, Object, Refusal};
use crate::places::Place;
use crate::services::announce::OwedHere;
use crate::services::{Caller, Hub, Service};
use fovea_core::{Acceptance, Sender, Uid, chain};
use fovea_dimse::{
    Association, AssociationError, CommandField, CommandSet, Element, Message, NegotiatedContext, Status, Transport,
    commitment,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How a session ended.
pub(crate) enum Ended {
    Released,
    GaveWay,
    Stopped,
}

/// What follows a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    GoOn,
    /// The peer released in the middle of an operation, and was answered.
    Released,
}

/// What a peer says while we answer it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Nothing,
    Cancelled,
    Released,
}

/// One association with its place.
pub(crate) struct Session<'a> {
    pub(crate) association: Association<Transport>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) caller: Caller,
    /// Commitments that may be told here.
    pub(crate) owed: OwedHere,
    /// Studies that something came of.
    pub(crate) studies: BTreeSet<Uid>,
    /// Message id of our last C-STORE-RQ.
    pub(crate) store_id: u16,
    pub(crate) intake: Arc<Intake>,
    pub(crate) place: &'a Place,
    pub(crate) stop: CancellationToken,
    pub(crate) pace: Pace,
}

/// The lowest rate at which an object may come: a sender of a byte a second would keep its place for half an hour.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// 0 for any.
    pub(crate) bytes_per_s_min: u64,
    /// What may have come and is not seen yet, for we see whole PDUs only.
    pub(crate) pdu_bytes_max: u64,
}

/// Longer than any network needs to get going again.
const PACE_GRACE: Duration = Duration::from_secs(10);
/// Silence after which a peer that asked for a commitment is taken as waiting for the report on this association; one that
/// does not wait releases at once.
const SETTLE: Duration = Duration::from_millis(500);
/// Studies of one association that are watched for being whole.
const STUDIES_MAX: usize = 64;
const TOO_SLOW: &str = "receiving a data set slower than the lowest rate";

impl Pace {
    /// How long we may have waited for the network by the time that more than `bytes` of the object are seen.
    fn allows(self, bytes: u64) -> Duration {
        match self.bytes_per_s_min {
            0 => Duration::MAX,
            rate => PACE_GRACE + Duration::from_millis((bytes + self.pdu_bytes_max).saturating_mul(1000) / rate),
        }
    }
}

/// The context over which a report of ours may go.
pub(crate) fn commitment_context(association: &Association<Transport>) -> Option<u8> {
    let fits =
        |context: &&NegotiatedContext| context.abstract_syntax.as_str() == commitment::CLASS && context.requestor.scu;
    association.contexts().iter().find(fits).map(|context| context.id)
}

impl Session<'_> {
    /// Runs until the peer releases, something breaks, another needs the place, or we stop; the message in hand is
    /// always finished.
    pub(crate) async fn run(mut self) -> Result<Ended, AssociationError> {
        let ended = self.serve().await;
        let in_order = matches!(ended, Ok(Ended::Released));
        self.hub.counters.studies.ended(&self.studies, in_order);
        match ended {
            // Each ends the association by itself, unless the peer is to be told.
            Ok(Ended::GaveWay | Ended::Stopped) | Err(AssociationError::Timeout { doing: TOO_SLOW }) => {
                self.association.abort().await;
            }
            _ => {}
        }
        ended
    }

    async fn serve(&mut self) -> Result<Ended, AssociationError> {
        loop {
            self.place.idle();
            if self.owed.is_due() {
                let spoke = tokio::select! { // cancel-safe: what has come is kept
                    biased;
                    () = self.stop.cancelled() => return Ok(Ended::Stopped),
                    spoke = self.association.wait_for_input(SETTLE) => spoke,
                    () = self.place.wanted() => return Ok(Ended::GaveWay),
                };
                if !spoke {
                    self.place.busy();
                    self.tell_owed().await?;
                    continue;
                }
            }
            let message = tokio::select! { // what a dropped read loses does not matter: the association is aborted
                biased;
                () = self.stop.cancelled() => return Ok(Ended::Stopped),
                message = self.association.next_command() => message?,
                () = self.place.wanted() => return Ok(Ended::GaveWay),
            };
            let Some(message) = message else { return Ok(Ended::Released) };
            self.place.busy();
            if self.answer(message).await? == After::Released {
                return Ok(Ended::Released);
            }
        }
    }

    async fn answer(&mut self, message: Message) -> Result<After, AssociationError> {
        // `next_command` has checked that the field is there.
        match message.command.field().unwrap_or(CommandField::C_CANCEL_RQ) {
            CommandField::C_ECHO_RQ => {
                add(&self.intake.counters.echoes);
                self.association.respond(&message, Status::SUCCESS).await?;
            }
            CommandField::C_STORE_RQ => self.store(message).await?,
            CommandField::C_FIND_RQ => return self.find(&message).await,
            CommandField::C_MOVE_RQ => return self.move_to(&message).await,
            CommandField::C_GET_RQ => return self.get(&message).await,
            CommandField::N_ACTION_RQ => return self.action(&message).await,
            CommandField::N_EVENT_REPORT_RQ => return self.event(&message).await,
            CommandField::N_CREATE_RQ => return self.step(&message, true).await,
            CommandField::N_SET_RQ => return self.step(&message, false).await,
            CommandField::C_CANCEL_RQ => {}
            field if field.is_response() => self.report_answered(&message).await,
            _ => self.association.respond(&message, Status::UNRECOGNIZED_OPERATION).await?,
        }
        Ok(After::GoOn)
    }

    /// Hears what the peer says while `message` is being answered; without waiting for it.
    pub(crate) async fn meanwhile(&mut self, message: &Message) -> Result<Meanwhile, AssociationError> {
        while self.association.wait_for_input(Duration::ZERO).await {
            let Some(said) = self.association.next_command().await? else { return Ok(Meanwhile::Released) };
            if self.is_cancel(message, &said) {
                return Ok(Meanwhile::Cancelled);
            }
            self.out_of_turn(&said).await?;
        }
        Ok(Meanwhile::Nothing)
    }

    pub(crate) fn is_cancel(&self, message: &Message, said: &Message) -> bool {
        said.command.field() == Ok(CommandField::C_CANCEL_RQ)
            && said.command.u16(Element::MessageIdRespondedTo).ok() == message.command.message_id().ok()
    }

    /// One operation at a time was agreed on: another request waits for nobody and is refused.
    pub(crate) async fn out_of_turn(&mut self, said: &Message) -> Result<(), AssociationError> {
        match said.command.field() {
            Ok(CommandField::C_CANCEL_RQ) | Err(_) => Ok(()),
            Ok(field) if field.is_response() => {
                self.report_answered(said).await;
                Ok(())
            }
            Ok(_) => self.association.respond(said, Status::RESOURCE_LIMITATION).await,
        }
    }

    async fn store(&mut self, message: Message) -> Result<(), AssociationError> {
        let outcome = self.receive(&message).await?;
        let mut response = CommandSet::response_to(&message.command, Status::SUCCESS);
        match outcome {
            Ok(Acceptance::New(held) | Acceptance::Duplicate(held)) => {
                self.arrived(&held.header.study_uid, &held.header.sop_instance_uid);
            }
            Ok(Acceptance::Conflict { .. }) => {
                log::warn!("{} sent other content for an instance that is held", self.association.calling_ae());
                response = CommandSet::response_to(&message.command, Status::DUPLICATE_SOP_INSTANCE)
                    .with_comment("held with other content, kept in quarantine");
            }
            Err(refusal) => {
                let status = refusal.status();
                self.intake.counters.refused(status);
                log::warn!("object of {} refused, {status}: {}", self.association.calling_ae(), chain(&refusal));
                response = CommandSet::response_to(&message.command, status).with_comment(&refusal.to_string());
            }
        }
        self.association.send_command(message.context_id, &response).await
    }

    fn arrived(&mut self, study: &Uid, instance: &Uid) {
        let is_first = self.studies.len() < STUDIES_MAX && self.studies.insert(study.clone());
        if is_first || self.studies.contains(study) {
            self.hub.counters.studies.arrived(study, instance, is_first, Instant::now());
        }
    }

    /// Takes the data set to its end, whatever comes of it.
    async fn receive(&mut self, message: &Message) -> Result<Result<Acceptance, Refusal>, AssociationError> {
        let mut object = self.start(message);
        let (mut waited, mut bytes) = (Duration::ZERO, 0);
        loop {
            // Only the time that we wait for the peer counts, not that which our disk takes.
            let (patience, begun) = (self.pace.allows(bytes).saturating_sub(waited), Instant::now());
            self.place.waits();
            let next = tokio::select! { // what a dropped read loses does not matter: the association is aborted
                biased;
                next = tokio::time::timeout(patience, self.association.next_data()) => next,
                () = self.place.too_slow() => return Err(AssociationError::Timeout { doing: TOO_SLOW }),
            };
            let Some(piece) = next.map_err(|_| AssociationError::Timeout { doing: TOO_SLOW })?? else { break };
            waited += begun.elapsed();
            bytes += piece.len() as u64;
            let count = piece.len();
            self.place.came(count as u64);
            self.intake.counters.data_set_bytes.fetch_add(count as u64, Relaxed);
            if let Ok(taking) = &mut object
                && let Err(refusal) = taking.push(piece).await
            {
                object = Err(refusal);
            }
            let rest = self.caller.throttle.as_ref().map_or(Duration::ZERO, |throttle| throttle.take(count));
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
        Ok(match object {
            Ok(object) => object.finish().await,
            Err(refusal) => Err(refusal),
        })
    }

    fn start(&self, message: &Message) -> Result<Object, Refusal> {
        let context = self.association.context(message.context_id).ok_or(Refusal::BadRequest)?;
        let uid = |element| message.command.uid(element).map_err(|_| Refusal::BadRequest);
        let (class, instance) = (uid(Element::AffectedSopClass)?, uid(Element::AffectedSopInstance)?);
        if class != context.abstract_syntax || !is_stored(&class) {
            return Err(Refusal::ForeignClass);
        }
        if !self.caller.services.has(Service::Store) {
            return Err(Refusal::NotGranted);
        }
        if !message.has_data_set {
            return Err(Refusal::BadRequest);
        }
        let sender = Sender::Dimse(self.association.calling_ae().clone());
        Object::start(&self.intake, class, instance, context.transfer_syntax.clone(), sender)
    }
}
