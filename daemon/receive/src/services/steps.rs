//! What modalities tell of their work: performed procedure steps as SCP.
//!
//! In: N-CREATE and N-SET. Out: durable steps, and to [`Studies`] which of what a step lists is not here.
//! Promise: a step goes from IN PROGRESS to COMPLETED or DISCONTINUED and never back or on; success is answered only
//! after the change is durable. The attributes are kept as they came.
//! Standard: PS3.4 section F.7, PS3.3 section B.17.2.

use crate::services::studies::Studies;
use fovea_core::{Document, DocumentKind, Documents, Inbox, PortError, TagNumber, Uid, UnixMicros};
use fovea_dimse::{Coding, DataSet, Status};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Steps kept: at a hundred a day those of a month.
const STEPS_MAX: usize = 4096;
/// How long a step is kept after its last change.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest attributes of one step. The document around them is a few bytes longer.
const STEP_BYTES_MAX: usize = 192 * 1024;
/// Documents read at once.
const PAGE: usize = 16;
/// First bytes of a document: what it is, and its version.
const MAGIC: &[u8; 4] = b"MPS1";

const STEP_STATUS: TagNumber = 0x0040_0252;
const SCHEDULED: TagNumber = 0x0040_0270;
const STUDY: TagNumber = 0x0020_000D;
const SERIES: TagNumber = 0x0040_0340;
const IMAGES: TagNumber = 0x0008_1140;
const OTHERS: TagNumber = 0x0040_0220;
const INSTANCE: TagNumber = 0x0008_1155;

/// (0040,0252).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StepStatus {
    InProgress,
    Completed,
    Discontinued,
}

impl StepStatus {
    fn of(attributes: &DataSet) -> Option<Self> {
        match attributes.text(STEP_STATUS)? {
            "IN PROGRESS" => Some(Self::InProgress),
            "COMPLETED" => Some(Self::Completed),
            "DISCONTINUED" => Some(Self::Discontinued),
            _ => None,
        }
    }
}

/// Why a step is not taken as it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepRefusal {
    #[error("the step is held already")]
    Duplicate,
    #[error("no such step")]
    NoSuch,
    #[error("no step status")]
    NoStatus,
    #[error("not a step status that may come now")]
    BadStatus,
    #[error("the step is over and may no longer be updated")]
    Over,
    #[error("too many steps, or too long")]
    TooMuch,
    #[error("the step could not be made durable")]
    Port(#[from] PortError),
}

impl StepRefusal {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Duplicate => Status::DUPLICATE_SOP_INSTANCE,
            Self::NoSuch => Status::NO_SUCH_INSTANCE,
            Self::NoStatus => Status::MISSING_ATTRIBUTE,
            Self::BadStatus => Status::INVALID_ATTRIBUTE_VALUE,
            Self::TooMuch | Self::Port(PortError::OutOfSpace { .. }) => Status::RESOURCE_LIMITATION,
            // PS3.4 section F.7.2.2.2: 0110 with error id A710.
            Self::Over | Self::Port(_) => Status::PROCESSING_FAILURE,
        }
    }

    /// (0000,0903): PS3.4 section F.7.2.2.2.
    pub(crate) fn error_id(&self) -> Option<u16> {
        matches!(self, Self::Over).then_some(0xA710)
    }
}

/// The steps.
pub(crate) struct Steps {
    documents: Arc<dyn Documents>,
    inbox: Arc<dyn Inbox>,
    studies: Arc<Studies>,
    /// How many are held. Held while a step changes: two changes of one step come one after the other.
    held: Mutex<usize>,
}

impl Steps {
    /// Reads what is held, and waits again for what the steps that are over list. Blocks.
    ///
    /// # Errors
    /// When the documents cannot be read.
    pub(crate) fn load(
        documents: Arc<dyn Documents>,
        inbox: Arc<dyn Inbox>,
        studies: Arc<Studies>,
    ) -> Result<Arc<Self>, PortError> {
        let steps = Self { documents, inbox, studies, held: Mutex::new(0) };
        let mut count = 0;
        steps.each(|_, _, attributes| {
            count += 1;
            steps.expect(&attributes, true)
        })?;
        *steps.held.lock().unwrap_or_else(PoisonError::into_inner) = count;
        Ok(Arc::new(steps))
    }

    /// Walks over all steps: key, last change, attributes.
    fn each(&self, mut visit: impl FnMut(&str, UnixMicros, DataSet) -> Result<(), PortError>) -> Result<(), PortError> {
        let mut after = String::new();
        loop {
            let page = self.documents.documents(DocumentKind::ProcedureStep, &after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.key);
            for document in page {
                match parse(&document.content) {
                    Some((changed_at, attributes)) => visit(&document.key, changed_at, attributes)?,
                    None => log::warn!("a procedure step on the disk cannot be read: it is left where it is"),
                }
            }
        }
    }

    /// N-CREATE (PS3.4 section F.7.2.1). Blocks.
    pub(crate) fn create(&self, instance: &Uid, attributes: DataSet) -> Result<(), StepRefusal> {
        if !attributes.has(STEP_STATUS) {
            return Err(StepRefusal::NoStatus);
        }
        if StepStatus::of(&attributes) != Some(StepStatus::InProgress) {
            return Err(StepRefusal::BadStatus);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.documents.document(DocumentKind::ProcedureStep, instance.as_str())?.is_some() {
            return Err(StepRefusal::Duplicate);
        }
        if *held >= STEPS_MAX {
            return Err(StepRefusal::TooMuch);
        }
        self.keep(instance, &attributes)?;
        *held += 1;
        Ok(())
    }

    /// N-SET (PS3.4 section F.7.2.2). Blocks.
    pub(crate) fn set(&self, instance: &Uid, changes: DataSet) -> Result<(), StepRefusal> {
        if changes.has(STEP_STATUS) && StepStatus::of(&changes).is_none() {
            return Err(StepRefusal::BadStatus);
        }
        let _one_at_a_time = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.documents.document(DocumentKind::ProcedureStep, instance.as_str())?;
        let (_, mut attributes) = held.and_then(|held| parse(&held.content)).ok_or(StepRefusal::NoSuch)?;
        if StepStatus::of(&attributes) != Some(StepStatus::InProgress) {
            return Err(StepRefusal::Over);
        }
        attributes.overlay(changes);
        self.keep(instance, &attributes)?;
        // The change is durable whatever comes of this: the next start waits for the same instances.
        if let Err(error) = self.expect(&attributes, false) {
            log::warn!("what a step lists cannot be looked for: {}", fovea_core::chain(&error));
        }
        Ok(())
    }

    fn keep(&self, instance: &Uid, attributes: &DataSet) -> Result<(), StepRefusal> {
        let now = UnixMicros::from(SystemTime::now());
        let content = [&MAGIC[..], &now.0.to_le_bytes(), &attributes.encode(Coding::Explicit)].concat();
        if content.len() > STEP_BYTES_MAX {
            return Err(StepRefusal::TooMuch);
        }
        let document = Document { key: instance.as_str().to_owned(), content };
        Ok(self.documents.put_document(DocumentKind::ProcedureStep, document)?)
    }

    /// Of a step that is over: which of the instances it lists are not here, for each of its studies. What is known again
    /// after a restart is told only where something is missing: the rest was told before.
    fn expect(&self, attributes: &DataSet, only_missing: bool) -> Result<(), PortError> {
        let is_over = StepStatus::of(attributes).is_some_and(|status| status != StepStatus::InProgress);
        let listed = listed(attributes);
        if !is_over || listed.is_empty() {
            return Ok(());
        }
        let mut missing = BTreeSet::new();
        for instance in listed {
            if self.inbox.accepted(&instance)?.is_none() {
                missing.insert(instance);
            }
        }
        if only_missing && missing.is_empty() {
            return Ok(());
        }
        let studies: BTreeSet<Uid> = attributes.items(SCHEDULED).iter().filter_map(|item| item.uid(STUDY)).collect();
        // A step of several studies does not say which image belongs to which: it says nothing of either.
        if let (1, Some(study)) = (studies.len(), studies.first()) {
            self.studies.step_over(study, missing, Instant::now());
        }
        Ok(())
    }

    /// Forgets steps whose last change is older than [`KEEP`]. Blocks.
    pub(crate) fn forget_old(&self, now: UnixMicros) {
        let mut old = Vec::new();
        let walked = self.each(|key, changed_at, _| {
            if now.since(changed_at) > KEEP.as_micros() as u64 {
                old.push(key.to_owned());
            }
            Ok(())
        });
        if let Err(error) = walked {
            log::warn!("old procedure steps cannot be looked for: {}", fovea_core::chain(&error));
        }
        for key in old {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if self.documents.remove_document(DocumentKind::ProcedureStep, &key).is_ok() {
                *held = held.saturating_sub(1);
            }
        }
    }
}

fn parse(content: &[u8]) -> Option<(UnixMicros, DataSet)> {
    let (at, attributes) = content.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    Some((UnixMicros(i64::from_le_bytes(*at)), DataSet::decode(attributes, Coding::Explicit).ok()?))
}

/// The instances that a step lists (PS3.3 table B.17.2-1, Performed Series Sequence).
fn listed(attributes: &DataSet) -> BTreeSet<Uid> {
    let series = attributes.items(SERIES).iter();
    let items = series.flat_map(|series| series.items(IMAGES).iter().chain(series.items(OTHERS)));
    items.filter_map(|item| item.uid(INSTANCE)).collect()
}
