//! C-FIND over what the box holds.
//!
//! In: identifiers. Out: a pending response for each row, and the last word.
//! Promise: at most [`ROWS_MAX`] rows, taken from the index at one moment; C-CANCEL is heard between two of them.
//! Standard: PS3.4 section C.4.1, PS3.7 section 9.3.2.

use crate::classes::{PATIENT_FIND, STUDY_FIND};
use crate::counters::add;
use crate::services::blocking;
use crate::services::identifier::{Asked, Root};
use crate::session::{After, Meanwhile, Session};
use fovea_core::{Row, chain};
use fovea_dimse::{AssociationError, CommandSet, Message, Status};
use std::sync::Arc;

/// Rows told in answer to one question: a viewer shows some hundreds.
const ROWS_MAX: usize = 5_000;

/// A status, and what went wrong.
pub(crate) type Refused = (Status, String);

impl Session<'_> {
    /// Answers C-FIND-RQ.
    pub(crate) async fn find(&mut self, message: &Message) -> Result<After, AssociationError> {
        add(&self.hub.counters.queries);
        let asked = match self.asked(message, &[(PATIENT_FIND, Root::Patient), (STUDY_FIND, Root::Study)]).await? {
            Ok(asked) => asked,
            Err(refused) => return self.refuse(message, refused).await,
        };
        // The permit bounds the rows in memory; the semaphore is never closed.
        let hub = Arc::clone(&self.hub);
        let _permit = hub.questions.acquire().await.ok();
        let mut rows = match self.rows(&asked).await {
            Ok(rows) => rows,
            Err(refused) => return self.refuse(message, refused).await,
        };
        let is_cut = rows.len() > ROWS_MAX;
        rows.truncate(ROWS_MAX);
        for row in &rows {
            match self.meanwhile(message).await? {
                Meanwhile::Nothing => {}
                Meanwhile::Cancelled => return self.last(message, Status::CANCEL).await,
                Meanwhile::Released => return Ok(After::Released),
            }
            let (answer, is_complete) = asked.answer(row, &self.hub.config.ae_title);
            let status = if is_complete { Status::PENDING } else { Status::PENDING_KEYS_IGNORED };
            let response = CommandSet::response_to(&message.command, status);
            self.association.send_message(message.context_id, response, &answer).await?;
        }
        if is_cut {
            let comment = format!("more than {ROWS_MAX} matches: narrow the query");
            return self.refuse(message, (Status::OUT_OF_RESOURCES, comment)).await;
        }
        self.last(message, Status::SUCCESS).await
    }

    async fn rows(&self, asked: &Asked) -> Result<Vec<Row>, Refused> {
        let holdings = self.hub.ports.holdings.clone();
        let holdings = holdings.ok_or((Status::CANNOT_UNDERSTAND, "no index".to_owned()))?;
        let query = asked.query(ROWS_MAX + 1);
        blocking(move || holdings.find(&query)).await.map_err(|error| {
            log::error!("the index cannot be asked: {}", chain(&error));
            (Status::CANNOT_UNDERSTAND, "the index cannot be asked".to_owned())
        })
    }

    /// Reads the identifier of a message on a context of one of these models.
    pub(crate) async fn asked(
        &mut self,
        message: &Message,
        models: &[(&str, Root)],
    ) -> Result<Result<Asked, Refused>, AssociationError> {
        let data_set = self.association.read_data_set(message).await?;
        let class = self.class_of(message);
        let Some((_, root)) = models.iter().find(|(uid, _)| class.as_ref().is_some_and(|class| class.as_str() == *uid))
        else {
            return Ok(Err((Status::SOP_CLASS_NOT_SUPPORTED, String::new())));
        };
        Ok(match data_set {
            Err(error) => Err((Status::CANNOT_UNDERSTAND, error.to_string())),
            Ok(identifier) => {
                Asked::new(identifier, *root).map_err(|error| (Status::DATA_SET_MISMATCH, error.to_string()))
            }
        })
    }

    pub(crate) async fn refuse(
        &mut self,
        message: &Message,
        (status, comment): Refused,
    ) -> Result<After, AssociationError> {
        let mut response = CommandSet::response_to(&message.command, status);
        if !comment.is_empty() {
            response = response.with_comment(&comment);
        }
        self.association.send_command(message.context_id, &response).await?;
        Ok(After::GoOn)
    }

    async fn last(&mut self, message: &Message, status: Status) -> Result<After, AssociationError> {
        self.association.respond(message, status).await?;
        Ok(After::GoOn)
    }
}
