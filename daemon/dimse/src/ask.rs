//! What an SCU asks besides echo and store: queries, actions, events, steps; and events that the peer reports to it.
//!
//! In: small data sets. Out: the peer's [`Reply`], [`Found`] rows, [`EventReport`]s.
//! Promise: answers are matched by message id; a peer may report an event at any moment, also between our question and
//! its answer: it is kept and told by [`Scu::next_event_report`].
//! Standard: PS3.7 sections 9.1 and 10.1.

use crate::{
    CommandField, CommandSet, DataSet, Element, Message, NegotiatedContext, ProtocolError, Scu, ScuError, Status,
};
use fovea_core::{AeTitle, Uid};
use std::time::Duration;

/// Reports kept while an answer is waited for; a peer that sends more is refused the rest (0213).
pub const EVENTS_WAITING_MAX: usize = 4;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// The whole command: sub-operation counters, error comment.
    pub command: CommandSet,
    /// The data set that came with it.
    pub data_set: Option<DataSet>,
}

/// What a query found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The identifiers of the pending responses, in their order.
    pub rows: Vec<DataSet>,
    /// The last status: success, or cancelled where `is_cut`, or why there is no more.
    pub status: Status,
    /// There were more rows than were wanted; the rest was cancelled.
    pub is_cut: bool,
}

/// An event that the peer reports; answer it with [`Scu::answer_event`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventReport {
    message: Message,
    /// Its class.
    pub sop_class_uid: Uid,
    /// Its instance.
    pub sop_instance_uid: Uid,
    /// Which event.
    pub event_type: u16,
    /// The event information.
    pub data_set: Option<DataSet>,
}

impl Scu {
    /// The peer agreed that we are SCP of this class (on the association that we opened).
    #[must_use]
    pub fn is_scp(&self, sop_class: &Uid) -> bool {
        self.small_context(sop_class).is_some_and(|context| context.requestor.scp)
    }

    /// The peer took this class, in a syntax that messages are exchanged in.
    #[must_use]
    pub fn serves(&self, sop_class: &Uid) -> bool {
        self.small_context(sop_class).is_some()
    }

    fn small_context(&self, sop_class: &Uid) -> Option<&NegotiatedContext> {
        let fits = |context: &&NegotiatedContext| {
            context.abstract_syntax == *sop_class && crate::Coding::of(&context.transfer_syntax).is_some()
        };
        self.association.contexts().iter().find(fits)
    }

    fn context_of(&self, sop_class: &Uid) -> Result<u8, ScuError> {
        let context = self.small_context(sop_class).map(|context| context.id);
        context.ok_or_else(|| ScuError::ContextNotAccepted {
            sop_class_uid: sop_class.clone(),
            transfer_syntax_uid: crate::scu::implicit(),
        })
    }

    /// N-ACTION; a commitment request for instance.
    ///
    /// # Errors
    /// [`ScuError`]; [`ScuError::ContextNotAccepted`] and [`ScuError::Answer`] leave the association usable.
    pub async fn n_action(
        &mut self,
        sop_class: &Uid,
        sop_instance: &Uid,
        action_type: u16,
        data_set: &DataSet,
    ) -> Result<Reply, ScuError> {
        let id = self.next_id();
        let command = CommandSet::action_request(id, sop_class, sop_instance, action_type);
        self.ask(sop_class, id, command, data_set).await
    }

    /// N-EVENT-REPORT: for a class that the peer agreed we are SCP of.
    ///
    /// # Errors
    /// As [`Self::n_action`].
    pub async fn n_event_report(
        &mut self,
        sop_class: &Uid,
        sop_instance: &Uid,
        event_type: u16,
        data_set: &DataSet,
    ) -> Result<Reply, ScuError> {
        let id = self.next_id();
        let command = CommandSet::event_request(id, sop_class, sop_instance, event_type);
        self.ask(sop_class, id, command, data_set).await
    }

    /// N-CREATE.
    ///
    /// # Errors
    /// As [`Self::n_action`].
    pub async fn n_create(
        &mut self,
        sop_class: &Uid,
        sop_instance: &Uid,
        data_set: &DataSet,
    ) -> Result<Reply, ScuError> {
        let id = self.next_id();
        self.ask(sop_class, id, CommandSet::create_request(id, sop_class, sop_instance), data_set).await
    }

    /// N-SET.
    ///
    /// # Errors
    /// As [`Self::n_action`].
    pub async fn n_set(&mut self, sop_class: &Uid, sop_instance: &Uid, data_set: &DataSet) -> Result<Reply, ScuError> {
        let id = self.next_id();
        self.ask(sop_class, id, CommandSet::set_request(id, sop_class, sop_instance), data_set).await
    }

    async fn ask(
        &mut self,
        sop_class: &Uid,
        message_id: u16,
        command: CommandSet,
        data_set: &DataSet,
    ) -> Result<Reply, ScuError> {
        let (context_id, asked) = (self.context_of(sop_class)?, command.field()?);
        self.association.send_message(context_id, command, data_set).await?;
        self.reply(asked, message_id).await
    }

    /// C-FIND: at most `rows_max` rows; what is beyond is cancelled.
    ///
    /// # Errors
    /// As [`Self::n_action`].
    pub async fn find(&mut self, sop_class: &Uid, identifier: &DataSet, rows_max: usize) -> Result<Found, ScuError> {
        let (context_id, id) = (self.context_of(sop_class)?, self.next_id());
        let command = CommandSet::query_request(CommandField::C_FIND_RQ, id, sop_class);
        self.association.send_message(context_id, command, identifier).await?;
        let (mut rows, mut is_cut) = (Vec::new(), false);
        loop {
            let reply = self.reply(CommandField::C_FIND_RQ, id).await?;
            if !reply.status.is_pending() {
                return Ok(Found { rows, status: reply.status, is_cut });
            }
            if rows.len() < rows_max {
                rows.extend(reply.data_set);
            } else if !is_cut {
                is_cut = true;
                self.association.send_command(context_id, &CommandSet::cancel_request(id)).await?;
            }
        }
    }

    /// C-MOVE of what `identifier` names to `destination`; the last answer, with its counters.
    ///
    /// # Errors
    /// As [`Self::n_action`].
    pub async fn move_to(
        &mut self,
        sop_class: &Uid,
        destination: &AeTitle,
        identifier: &DataSet,
    ) -> Result<Reply, ScuError> {
        let (context_id, id) = (self.context_of(sop_class)?, self.next_id());
        self.association
            .send_message(context_id, CommandSet::move_request(id, sop_class, destination), identifier)
            .await?;
        loop {
            let reply = self.reply(CommandField::C_MOVE_RQ, id).await?;
            if !reply.status.is_pending() {
                return Ok(reply);
            }
        }
    }

    /// The next event that the peer reports; none when none came within `limit`, the association stands then.
    /// Loses nothing when it is dropped before the first byte came; after that the association is of no more use.
    ///
    /// # Errors
    /// [`ScuError::ConnectionLost`] when the peer released instead; else as any.
    pub async fn next_event_report(&mut self, limit: Duration) -> Result<Option<EventReport>, ScuError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if !self.association.wait_for_input(limit).await {
            return Ok(None);
        }
        let message = self.next_message().await?;
        self.take_event(message).await
    }

    /// Answers a reported event.
    ///
    /// # Errors
    /// [`ScuError`].
    pub async fn answer_event(&mut self, event: &EventReport, status: Status) -> Result<(), ScuError> {
        Ok(self.association.respond(&event.message, status).await?)
    }

    async fn next_message(&mut self) -> Result<Message, ScuError> {
        let released = ScuError::ConnectionLost { doing: "waiting for an answer", source: None };
        self.association.next_command().await?.ok_or(released)
    }

    /// The answer to what we asked, with its data set.
    pub(crate) async fn reply(&mut self, asked: CommandField, message_id: u16) -> Result<Reply, ScuError> {
        loop {
            let message = self.next_message().await?;
            if message.command.field()? == CommandField::N_EVENT_REPORT_RQ {
                if let Some(event) = self.take_event(message).await? {
                    self.events.push_back(event);
                }
                continue;
            }
            let answers = message.command.field()? == asked.response()
                && message.command.u16(Element::MessageIdRespondedTo)? == message_id;
            if !answers {
                return Err(ProtocolError::ForeignResponse.into());
            }
            let data_set = match message.has_data_set {
                true => Some(self.association.read_data_set(&message).await?),
                false => None,
            };
            let status = message.command.status()?;
            return Ok(Reply { status, data_set: data_set.transpose()?, command: message.command });
        }
    }

    /// Reads an event; one that is not understood, or one too many, is refused and not told.
    async fn take_event(&mut self, message: Message) -> Result<Option<EventReport>, ScuError> {
        if message.command.field()? != CommandField::N_EVENT_REPORT_RQ {
            return Err(ProtocolError::ForeignResponse.into());
        }
        let data_set = match message.has_data_set {
            true => self.association.read_data_set(&message).await?.map(Some),
            false => Ok(None),
        };
        let refusal = match &data_set {
            Err(_) => Some(Status::PROCESSING_FAILURE),
            Ok(_) if self.events.len() >= EVENTS_WAITING_MAX => Some(Status::RESOURCE_LIMITATION),
            Ok(_) => None,
        };
        let (Ok(data_set), None) = (data_set, refusal) else {
            self.association.respond(&message, refusal.unwrap_or(Status::PROCESSING_FAILURE)).await?;
            return Ok(None);
        };
        let sop_class_uid = message.command.uid(Element::AffectedSopClass)?;
        let sop_instance_uid = message.command.uid(Element::AffectedSopInstance)?;
        let event_type = message.command.u16(Element::EventType)?;
        Ok(Some(EventReport { message, sop_class_uid, sop_instance_uid, event_type, data_set }))
    }
}
