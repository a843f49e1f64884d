//! The normalized services on one association: actions, events, steps.
//!
//! In: messages. Out: their answers, after what they ask for is durable; and what we owe the peer on this association.
//! Standard: PS3.7 section 10.1, PS3.4 annexes F.7 and J.

use crate::classes::STEP;
use crate::counters::add;
use crate::services::blocking;
use crate::services::commit::NotTaken;
use crate::session::{After, Session, commitment_context};
use fovea_core::{Uid, chain};
use fovea_dimse::commitment::{self, CommitmentError, Report, Request};
use fovea_dimse::{AssociationError, CommandField, CommandSet, DataSet, DataSetError, Element, Message, Status};

type Read = Result<DataSet, DataSetError>;

impl Session<'_> {
    /// Answers N-ACTION-RQ: a commitment request is durable before it is answered.
    pub(crate) async fn action(&mut self, message: &Message) -> Result<After, AssociationError> {
        let data_set = self.association.read_data_set(message).await?;
        let (status, comment) = match self.request(message, data_set) {
            Ok(request) => self.commit(request).await,
            Err(refused) => refused,
        };
        if !status.is_success() {
            log::warn!("commitment request of {} refused, {status}: {comment}", self.association.calling_ae());
        }
        self.refuse(message, (status, comment)).await
    }

    fn request(&self, message: &Message, data_set: Read) -> Result<Request, (Status, String)> {
        self.is_commitment(message, Element::RequestedSopClass, Element::RequestedSopInstance)?;
        if message.command.u16(Element::ActionType) != Ok(commitment::ACTION_REQUEST) {
            return Err((Status::NO_SUCH_ACTION, String::new()));
        }
        let data_set = data_set.map_err(|error| match error {
            DataSetError::TooLong { .. } | DataSetError::TooMany { .. } => {
                (Status::RESOURCE_LIMITATION, error.to_string())
            }
            _ => (Status::INVALID_ARGUMENT_VALUE, error.to_string()),
        })?;
        Request::from_data_set(&data_set).map_err(|error| match error {
            CommitmentError::References { references } if references > 0 => {
                (Status::RESOURCE_LIMITATION, error.to_string())
            }
            _ => (Status::INVALID_ARGUMENT_VALUE, error.to_string()),
        })
    }

    /// Class and instance of the message are those of storage commitment, on a context of that class.
    fn is_commitment(&self, message: &Message, class: Element, instance: Element) -> Result<(), (Status, String)> {
        let context = self.association.context(message.context_id).map(|context| &context.abstract_syntax);
        let class = message.command.uid(class).ok();
        if class.as_ref() != context || class.is_none_or(|class| class.as_str() != commitment::CLASS) {
            return Err((Status::SOP_CLASS_NOT_SUPPORTED, String::new()));
        }
        match message.command.uid(instance) {
            Ok(instance) if instance.as_str() == commitment::INSTANCE => Ok(()),
            _ => Err((Status::NO_SUCH_INSTANCE, String::new())),
        }
    }

    async fn commit(&mut self, request: Request) -> (Status, String) {
        let Some(commitments) = self.hub.commitments.clone() else {
            return (Status::SOP_CLASS_NOT_SUPPORTED, String::new());
        };
        let (peer, transaction) = (self.association.calling_ae().clone(), request.transaction_uid.clone());
        match blocking(move || commitments.ask(&peer, &request)).await {
            Ok(()) => {
                self.owed.owe(transaction);
                (Status::SUCCESS, String::new())
            }
            Err(error) => {
                if let NotTaken::Port(error) = &error {
                    log::error!("a commitment request could not be kept: {}", chain(error));
                }
                (error.status(), error.to_string())
            }
        }
    }

    /// Tells the peer one report that we owe it, on this association; its answer comes as any other message.
    pub(crate) async fn tell_owed(&mut self) -> Result<(), AssociationError> {
        let Some(context_id) = commitment_context(&self.association) else { return Ok(()) };
        let (Some((message_id, transaction)), Some(commitments)) = (self.owed.next(), self.hub.commitments.clone())
        else {
            return Ok(());
        };
        let asked = transaction.clone();
        match blocking(move || commitments.report(&asked)).await {
            Ok(Some(report)) => {
                let (class, instance) = (commitment::class(), commitment::instance());
                let command = CommandSet::event_request(message_id, &class, &instance, report.event_type());
                self.association.send_message(context_id, command, &report.to_data_set()).await
            }
            Ok(None) => {
                self.owed.answered(message_id);
                Ok(())
            }
            Err(error) => {
                log::warn!("what is held for a commitment cannot be read: {}", chain(&error));
                self.owed.answered(message_id);
                self.not_told(&transaction);
                Ok(())
            }
        }
    }

    fn not_told(&self, transaction: &Uid) {
        self.hub.commitments.iter().for_each(|commitments| commitments.not_told(transaction));
    }

    /// Takes the answer to a report that we told here.
    pub(crate) async fn report_answered(&mut self, message: &Message) {
        let is_event = message.command.field() == Ok(CommandField::N_EVENT_REPORT_RQ.response());
        let Ok(message_id) = message.command.u16(Element::MessageIdRespondedTo) else { return };
        let transaction = if is_event { self.owed.answered(message_id) } else { None };
        if let (Some(transaction), Some(commitments)) = (transaction, self.hub.commitments.clone()) {
            let status = message.command.status().unwrap_or(Status::PROCESSING_FAILURE);
            crate::services::announce::settle(&commitments, &transaction, status).await;
        }
    }

    /// Answers N-EVENT-REPORT-RQ: an archive tells what it commits to.
    pub(crate) async fn event(&mut self, message: &Message) -> Result<After, AssociationError> {
        let data_set = self.association.read_data_set(message).await?;
        let status = match self.committed(message, data_set) {
            Err((status, _)) => status,
            Ok(report) => match self.hub.ports.committed.clone() {
                None => Status::SOP_CLASS_NOT_SUPPORTED,
                Some(listener) => {
                    let from = self.association.calling_ae().clone();
                    blocking(move || listener.reported(&from, &report)).await
                }
            },
        };
        self.refuse(message, (status, String::new())).await
    }

    fn committed(&self, message: &Message, data_set: Read) -> Result<Report, (Status, String)> {
        self.is_commitment(message, Element::AffectedSopClass, Element::AffectedSopInstance)?;
        let event_type = message.command.u16(Element::EventType).unwrap_or(0);
        let unreadable = |words: String| (Status::INVALID_ARGUMENT_VALUE, words);
        let data_set = data_set.map_err(|error| unreadable(error.to_string()))?;
        Report::from_data_set(event_type, &data_set).map_err(|error| match error {
            CommitmentError::EventType { .. } => (Status::NO_SUCH_EVENT_TYPE, error.to_string()),
            _ => unreadable(error.to_string()),
        })
    }

    /// Answers N-CREATE-RQ and N-SET-RQ of a procedure step.
    pub(crate) async fn step(&mut self, message: &Message, is_new: bool) -> Result<After, AssociationError> {
        let data_set = self.association.read_data_set(message).await?;
        let (class, instance) = match is_new {
            true => (Element::AffectedSopClass, Element::AffectedSopInstance),
            false => (Element::RequestedSopClass, Element::RequestedSopInstance),
        };
        let class = message.command.uid(class).ok();
        let of_step = class.is_some_and(|class| class.as_str() == STEP);
        let (Some(steps), true) = (self.hub.steps.clone(), of_step && self.class_is(message, STEP)) else {
            return self.refuse(message, (Status::SOP_CLASS_NOT_SUPPORTED, String::new())).await;
        };
        let Ok(instance) = message.command.uid(instance) else {
            return self.refuse(message, (Status::INVALID_SOP_INSTANCE, "the step has no UID".to_owned())).await;
        };
        let attributes = match data_set {
            Ok(attributes) => attributes,
            Err(error) => {
                return self.refuse(message, (Status::PROCESSING_FAILURE, error.to_string())).await;
            }
        };
        let outcome = blocking(move || match is_new {
            true => steps.create(&instance, attributes),
            false => steps.set(&instance, attributes),
        });
        let mut response = CommandSet::response_to(&message.command, Status::SUCCESS);
        match outcome.await {
            Ok(()) => add(&self.hub.counters.steps),
            Err(error) => {
                log::warn!("procedure step of {} refused: {}", self.association.calling_ae(), chain(&error));
                response = CommandSet::response_to(&message.command, error.status()).with_comment(&error.to_string());
                if let Some(id) = error.error_id() {
                    response = response.with_u16(Element::ErrorId, id);
                }
            }
        }
        self.association.send_command(message.context_id, &response).await?;
        Ok(After::GoOn)
    }

    fn class_is(&self, message: &Message, class: &str) -> bool {
        self.association.context(message.context_id).is_some_and(|context| context.abstract_syntax.as_str() == class)
    }

    /// The class of a composite message, where it is that of its context.
    pub(crate) fn class_of(&self, message: &Message) -> Option<Uid> {
        let class = message.command.uid(Element::AffectedSopClass).ok()?;
        self.class_is(message, class.as_str()).then_some(class)
    }
}
