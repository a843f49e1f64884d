//! The messages of one association: echo and store.
//!
//! In: an association that stands. Out: objects, and a response to each request.
//! Promise: success is answered only after the inbox accepted (invariant 1). An object that is refused is read to
//! its end and answered with its status: the association goes on.
//! Standard: PS3.7 sections 9.3.1 and 9.3.5, PS3.4 annexes A and B.

use crate::counters::add;
use crate::object::{Intake, Object, Refusal};
use crate::serve::Place;
use fovea_core::{Acceptance, Sender, chain};
use fovea_dimse::{Association, AssociationError, CommandField, CommandSet, Element, Message, Status, Transport};
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

/// One association with its place.
pub(crate) struct Session<'a> {
    pub(crate) association: Association<Transport>,
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

impl Session<'_> {
    /// Runs until the peer releases, something breaks, another needs the place, or we stop; the message in hand is
    /// always finished.
    pub(crate) async fn run(mut self) -> Result<Ended, AssociationError> {
        loop {
            self.place.idle();
            let message = tokio::select! { // what a dropped read loses does not matter: the association is aborted
                biased;
                () = self.stop.cancelled() => Err(Ended::Stopped),
                message = self.association.next_command() => Ok(message?),
                () = self.place.wanted() => Err(Ended::GaveWay),
            };
            match message {
                Ok(Some(message)) => {
                    self.place.busy();
                    if let Err(error) = self.answer(message).await {
                        if matches!(error, AssociationError::Timeout { doing: TOO_SLOW }) {
                            self.association.abort().await;
                        }
                        return Err(error);
                    }
                }
                Ok(None) => return Ok(Ended::Released),
                Err(ended) => {
                    self.association.abort().await;
                    return Ok(ended);
                }
            }
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), AssociationError> {
        // `next_command` has checked that the field is there.
        match message.command.field().unwrap_or(CommandField::C_CANCEL_RQ) {
            CommandField::C_ECHO_RQ => {
                add(&self.intake.counters.echoes);
                self.association.respond(&message, Status::SUCCESS).await
            }
            CommandField::C_STORE_RQ => self.store(message).await,
            CommandField::C_CANCEL_RQ => Ok(()),
            field if field.is_response() => Ok(()),
            _ => self.association.respond(&message, Status::UNRECOGNIZED_OPERATION).await,
        }
    }

    async fn store(&mut self, message: Message) -> Result<(), AssociationError> {
        let outcome = self.receive(&message).await?;
        let mut response = CommandSet::response_to(&message.command, Status::SUCCESS);
        match outcome {
            Ok(Acceptance::New(_) | Acceptance::Duplicate(_)) => {}
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

    /// Takes the data set to its end, whatever comes of it.
    async fn receive(&mut self, message: &Message) -> Result<Result<Acceptance, Refusal>, AssociationError> {
        let mut object = self.start(message);
        let (mut waited, mut bytes) = (Duration::ZERO, 0);
        loop {
            // Only the time that we wait for the peer counts, not that which our disk takes.
            let (patience, begun) = (self.pace.allows(bytes).saturating_sub(waited), Instant::now());
            let next = tokio::time::timeout(patience, self.association.next_data()).await;
            let Some(piece) = next.map_err(|_| AssociationError::Timeout { doing: TOO_SLOW })?? else { break };
            waited += begun.elapsed();
            bytes += piece.len() as u64;
            self.intake.counters.data_set_bytes.fetch_add(piece.len() as u64, Relaxed);
            if let Ok(taking) = &mut object
                && let Err(refusal) = taking.push(piece).await
            {
                object = Err(refusal);
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
        if class != context.abstract_syntax {
            return Err(Refusal::ForeignClass);
        }
        if !message.has_data_set {
            return Err(Refusal::BadRequest);
        }
        let sender = Sender::Dimse(self.association.calling_ae().clone());
        Object::start(&self.intake, class, instance, context.transfer_syntax.clone(), sender)
    }
}
