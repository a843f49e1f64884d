//! C-MOVE and C-GET of what the box holds.
//!
//! In: identifiers. Out: C-STORE sub-operations to a configured peer, or to the asker on its own association; counters with
//! each, and the instances that were not sent.
//! Promise: at most [`INSTANCES_MAX`] instances an operation, each streamed from the disk in the syntax that it is stored in;
//! C-CANCEL is heard between two of them; only peers of the configuration are destinations.
//! Standard: PS3.4 sections C.4.2 and C.4.3, PS3.7 sections 9.3.3 and 9.3.4.

use crate::classes::{PATIENT_GET, PATIENT_MOVE, STUDY_GET, STUDY_MOVE, is_given};
use crate::counters::add;
use crate::services::blocking;
use crate::services::find::Refused;
use crate::services::identifier::Root;
use crate::services::send::{peer_to_call, scu_config};
use crate::session::{After, Meanwhile, Session};
use fovea_core::{AeTitle, HeldInstance, Holdings, Uid, chain};
use fovea_dimse::{
    AssociationError, CommandSet, Context, DataSet, Element, Message, Originator, Scu, ScuError, Status, part10_head,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use tokio::io::BufReader;

/// Instances of one operation.
const INSTANCES_MAX: usize = 10_000;
/// Instances that are named as not sent: as many UIDs as the element has room for in explicit VR.
const FAILED_LISTED_MAX: usize = 1_000;
/// Contexts of one association (PS3.8 section 9.3.2).
const CONTEXTS_MAX: usize = 128;
/// Bytes read from the disk at once.
const READ_BYTES: usize = 128 * 1024;
/// Failed SOP Instance UID List.
const FAILED_LIST: u32 = 0x0008_0058;

/// How far an operation is.
#[derive(Default)]
struct Progress {
    remaining: usize,
    completed: u16,
    failed: u16,
    warning: u16,
    failed_uids: Vec<Uid>,
}

impl Progress {
    fn count(&mut self, instance: &HeldInstance, status: Option<Status>) {
        self.remaining -= 1;
        match status {
            Some(status) if status.is_success() => self.completed += 1,
            Some(status) if status.is_warning() => self.warning += 1,
            _ => {
                self.failed += 1;
                if self.failed_uids.len() < FAILED_LISTED_MAX {
                    self.failed_uids.push(instance.sop_instance_uid.clone());
                }
            }
        }
    }

    /// What the operation came to, when nothing remains.
    fn status(&self) -> Status {
        match (self.completed + self.warning, self.failed) {
            (_, 0) => Status::SUCCESS,
            (0, _) => Status::UNABLE_TO_PERFORM,
            _ => Status::SOME_FAILED,
        }
    }

    fn response(&self, message: &Message, status: Status) -> CommandSet {
        let response = CommandSet::response_to(&message.command, status)
            .with_u16(Element::Completed, self.completed)
            .with_u16(Element::Failed, self.failed)
            .with_u16(Element::Warning, self.warning);
        // Not in the final answers but for a cancelled one (PS3.7 tables 9.1-3 and 9.1-4).
        if status.is_pending() || status == Status::CANCEL {
            // At most `INSTANCES_MAX`.
            return response.with_u16(Element::Remaining, self.remaining as u16);
        }
        response
    }
}

/// Where instances go.
enum Way {
    /// Over the association that they were asked for on.
    Here,
    /// To another peer.
    There { scu: Box<Scu>, asker: AeTitle, message_id: u16 },
}

impl Session<'_> {
    /// Answers C-GET-RQ.
    pub(crate) async fn get(&mut self, message: &Message) -> Result<After, AssociationError> {
        let models = [(PATIENT_GET, Root::Patient), (STUDY_GET, Root::Study)];
        self.retrieve(message, &models, None).await
    }

    /// Answers C-MOVE-RQ.
    pub(crate) async fn move_to(&mut self, message: &Message) -> Result<After, AssociationError> {
        let models = [(PATIENT_MOVE, Root::Patient), (STUDY_MOVE, Root::Study)];
        let destination = message.command.ae(Element::MoveDestination).ok();
        self.retrieve(message, &models, Some(destination)).await
    }

    /// `destination`: none for C-GET, else that of a C-MOVE where it is a title at all.
    async fn retrieve(
        &mut self,
        message: &Message,
        models: &[(&str, Root)],
        destination: Option<Option<AeTitle>>,
    ) -> Result<After, AssociationError> {
        add(&self.hub.counters.retrievals);
        let selection = match self.asked(message, models).await? {
            Ok(asked) => asked.selection().map_err(|error| (Status::DATA_SET_MISMATCH, error.to_string())),
            Err(refused) => Err(refused),
        };
        let hub = Arc::clone(&self.hub);
        // The permit bounds the lists in memory; the semaphore is never closed.
        let _permit = hub.retrievals.acquire().await.ok();
        let found = match (selection, hub.ports.holdings.clone()) {
            (Err(refused), _) => Err(refused),
            (Ok(_), None) => Err((Status::CANNOT_UNDERSTAND, "no index".to_owned())),
            (Ok(selection), Some(holdings)) => {
                let asked = Arc::clone(&holdings);
                let selected = blocking(move || asked.select(&selection, INSTANCES_MAX + 1)).await;
                match selected {
                    Ok(instances) => bounded(instances).map(|instances| (instances, holdings)),
                    Err(error) => {
                        log::error!("the index cannot be asked: {}", chain(&error));
                        Err((Status::CANNOT_UNDERSTAND, "the index cannot be asked".to_owned()))
                    }
                }
            }
        };
        let (instances, holdings) = match found {
            Ok(found) => found,
            Err(refused) => return self.refuse(message, refused).await,
        };
        let way = match destination {
            None => Way::Here,
            Some(destination) => match self.way_there(message, destination, &instances).await {
                Ok(way) => way,
                Err(refused) => return self.refuse(message, refused).await,
            },
        };
        self.send_all(message, way, &instances, &holdings).await
    }

    async fn way_there(
        &self,
        message: &Message,
        destination: Option<AeTitle>,
        instances: &[HeldInstance],
    ) -> Result<Way, Refused> {
        let peer = destination.and_then(|title| peer_to_call(&self.hub.config, &title));
        let config = peer.and_then(|peer| scu_config(&self.hub.config, peer));
        let config = config.ok_or((Status::MOVE_DESTINATION_UNKNOWN, String::new()))?;
        let pairs: BTreeSet<(&Uid, &Uid)> =
            instances.iter().map(|held| (&held.sop_class_uid, &held.transfer_syntax_uid)).collect();
        let context = |(class, syntax): (&Uid, &Uid)| Context {
            sop_class_uid: class.clone(),
            transfer_syntax_uids: vec![syntax.clone()],
        };
        let mut contexts: Vec<Context> = pairs.into_iter().take(CONTEXTS_MAX).map(context).collect();
        if contexts.is_empty() {
            // Nothing matches: that is a success without sub-operations, and needs no association.
            return Ok(Way::Here);
        }
        contexts.truncate(CONTEXTS_MAX);
        let scu = Scu::connect(&config, &contexts).await.map_err(|error| {
            log::warn!("no association with {} for a retrieval: {}", config.called_ae, chain(&error));
            (Status::UNABLE_TO_PERFORM, "no association with the destination".to_owned())
        })?;
        let asker = self.association.calling_ae().clone();
        Ok(Way::There { scu: Box::new(scu), asker, message_id: message.command.message_id().unwrap_or(0) })
    }

    async fn send_all(
        &mut self,
        message: &Message,
        mut way: Way,
        instances: &[HeldInstance],
        holdings: &Arc<dyn Holdings>,
    ) -> Result<After, AssociationError> {
        let mut progress = Progress { remaining: instances.len(), ..Progress::default() };
        for instance in instances {
            let mut meanwhile = self.meanwhile(message).await?;
            if self.stop.is_cancelled() {
                meanwhile = Meanwhile::Cancelled;
            }
            let status = match meanwhile {
                Meanwhile::Nothing => self.send_one(message, &mut way, instance, holdings).await?,
                other => Sent::Meanwhile(other),
            };
            match status {
                Sent::Answered(status) => progress.count(instance, status),
                Sent::Meanwhile(Meanwhile::Released) => return Ok(After::Released),
                Sent::Meanwhile(_) => return self.finish(message, way, &progress, Status::CANCEL).await,
            }
            let pending = progress.response(message, Status::PENDING);
            self.association.send_command(message.context_id, &pending).await?;
        }
        let status = progress.status();
        self.finish(message, way, &progress, status).await
    }

    async fn finish(
        &mut self,
        message: &Message,
        way: Way,
        progress: &Progress,
        status: Status,
    ) -> Result<After, AssociationError> {
        if let Way::There { scu, .. } = way
            && let Err(error) = scu.release().await
        {
            log::debug!("release: {}", chain(&error));
        }
        let response = progress.response(message, status);
        if progress.failed_uids.is_empty() {
            self.association.send_command(message.context_id, &response).await?;
        } else {
            let listed: Vec<&str> = progress.failed_uids.iter().map(Uid::as_str).collect();
            let failed = DataSet::default().with_text(FAILED_LIST, &listed.join("\\"));
            self.association.send_message(message.context_id, response, &failed).await?;
        }
        Ok(After::GoOn)
    }

    async fn send_one(
        &mut self,
        message: &Message,
        way: &mut Way,
        instance: &HeldInstance,
        holdings: &Arc<dyn Holdings>,
    ) -> Result<Sent, AssociationError> {
        let file = match opened(holdings, &instance.sop_instance_uid).await {
            Ok(file) => file,
            Err(error) => {
                log::warn!("{} cannot be sent: {error}", instance.sop_instance_uid);
                return Ok(Sent::Answered(None));
            }
        };
        let data_set = BufReader::with_capacity(READ_BYTES, tokio::fs::File::from_std(file));
        let HeldInstance { sop_class_uid, sop_instance_uid, transfer_syntax_uid, .. } = instance;
        let sent = match way {
            Way::Here => return self.send_here(message, instance, data_set).await,
            Way::There { scu, asker, message_id } => {
                let originator = Originator { title: asker.clone(), message_id: *message_id };
                scu.store_for(&originator, sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set).await
            }
        };
        match sent {
            Ok(status) => Ok(Sent::Answered(Some(status))),
            Err(ScuError::ContextNotAccepted { .. }) => Ok(Sent::Answered(None)),
            Err(error) => {
                log::warn!("a retrieval broke: {}", chain(&error));
                Ok(Sent::Answered(None))
            }
        }
    }

    /// One sub-operation of C-GET (PS3.4 section C.4.3.2).
    async fn send_here(
        &mut self,
        message: &Message,
        instance: &HeldInstance,
        data_set: BufReader<tokio::fs::File>,
    ) -> Result<Sent, AssociationError> {
        let fits = |context: &&fovea_dimse::NegotiatedContext| {
            context.requestor.scp
                && context.abstract_syntax == instance.sop_class_uid
                && context.transfer_syntax == instance.transfer_syntax_uid
        };
        let context_id = self.association.contexts().iter().find(fits).map(|context| context.id);
        let Some(context_id) = context_id.filter(|_| is_given(&instance.sop_class_uid)) else {
            return Ok(Sent::Answered(None));
        };
        self.store_id = self.store_id.checked_add(1).unwrap_or(1);
        let command = CommandSet::store_request(self.store_id, &instance.sop_class_uid, &instance.sop_instance_uid);
        let sent = self.association.send_with_data(context_id, &command, data_set).await?;
        sent.map_err(|source| AssociationError::Io { doing: "reading an instance to send", source })?;
        loop {
            let Some(answer) = self.association.next_command().await? else {
                return Ok(Sent::Meanwhile(Meanwhile::Released));
            };
            let answers = answer.command.u16(Element::MessageIdRespondedTo) == Ok(self.store_id)
                && answer.command.field() == Ok(fovea_dimse::CommandField::C_STORE_RQ.response());
            if answers {
                return Ok(Sent::Answered(answer.command.status().ok()));
            }
            if self.is_cancel(message, &answer) {
                // The answer to what was sent is still to come; it is read and not counted.
                return Ok(Sent::Meanwhile(Meanwhile::Cancelled));
            }
            self.out_of_turn(&answer).await?;
        }
    }
}

/// What came of a sub-operation.
enum Sent {
    /// The status of the other side, none where it was not sent or not answered.
    Answered(Option<Status>),
    Meanwhile(Meanwhile),
}

fn bounded(instances: Vec<HeldInstance>) -> Result<Vec<HeldInstance>, Refused> {
    if instances.len() > INSTANCES_MAX {
        return Err((Status::UNABLE_TO_COUNT, format!("more than {INSTANCES_MAX} instances: narrow the request")));
    }
    Ok(instances)
}

/// The stored file, at its data set.
async fn opened(holdings: &Arc<dyn Holdings>, instance: &Uid) -> Result<File, String> {
    let (holdings, instance) = (Arc::clone(holdings), instance.clone());
    blocking(move || {
        let mut file = holdings.open(&instance).map_err(|error| chain(&error))?;
        part10_head(&mut file).map_err(|error| chain(&error))?;
        Ok(file)
    })
    .await
}
