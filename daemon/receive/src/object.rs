//! One object on its way from the wire to the inbox.
//!
//! In: the pieces of a data set. Out: what the inbox said, or why it was refused.
//! Promise: memory is two batches of [`BATCH_BYTES`], whatever the object's length; no disk call runs on an async
//! worker; an object that fits into one batch costs a single hop to a disk thread, with its acceptance in it. Of a longer
//! one the inbox is asked before each batch whether it may go on, so that it is refused (A700) while the disk still has room
//! and before its sender's share is passed.
//! Standard: PS3.10 section 7.1 (the file), PS3.4 section B.2.3 (the statuses).

use crate::counters::{Counters, add};
use crate::header::{HeaderError, HeaderLimits, HeaderWalker, Walked};
use crate::inflate::{InflateError, Inflater};
use crate::{Encoding, encoding_of};
use fovea_core::{Acceptance, Inbox, NewObject, ObjectHeader, PortError, Sender, Sha256, TempObject, Uid, UnixMicros};
use fovea_dimse::{Status, part10_prefix};
use sha2::Digest;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// Bytes gathered before they go to the disk: most still images are one batch.
const BATCH_BYTES: usize = 512 * 1024;
/// Empty batches kept for the next object: fresh memory costs a page fault for every 4 KiB.
const BATCHES_KEPT_MAX: usize = 8;
/// Disk calls at once. More would only queue in the kernel; the inbox syncs many callers together.
const DISK_JOBS_MAX: usize = 32;
/// A deflated data set unfolds to at most this: its plain form is looked at, never stored.
pub(crate) const PLAIN_BYTES_MAX: u64 = 1 << 30;
/// Deflated bytes taken before other tasks get their turn: they may unfold a thousandfold.
const DEFLATED_STEP_BYTES: usize = 4 * 1024;

/// What all objects share.
pub(crate) struct Intake {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) doorbell: Arc<Notify>,
    pub(crate) counters: Arc<Counters>,
    disk_jobs: Arc<Semaphore>,
    batches: Mutex<Vec<Vec<u8>>>,
    object_bytes_max: u64,
}

/// Why an object was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("longer than this box takes")]
    TooLong,
    #[error("class or instance differ from the command")]
    Mismatch,
    #[error("the class is not that of the presentation context")]
    ForeignClass,
    #[error("this peer may not store")]
    NotGranted,
    #[error("not a storage request")]
    BadRequest,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Inflate(#[from] InflateError),
    #[error("it could not be stored")]
    Store(#[from] PortError),
    #[error("a task of ours failed")]
    Lost,
}

impl Refusal {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TooLong | Self::Store(PortError::OutOfSpace { .. }) => Status::OUT_OF_RESOURCES,
            Self::Mismatch => Status::DATA_SET_MISMATCH,
            Self::ForeignClass => Status::SOP_CLASS_NOT_SUPPORTED,
            Self::NotGranted => Status::NOT_AUTHORIZED,
            Self::BadRequest | Self::Header(_) | Self::Inflate(_) => Status::CANNOT_UNDERSTAND,
            Self::Store(_) | Self::Lost => Status::PROCESSING_FAILURE,
        }
    }
}

impl Intake {
    pub(crate) fn new(
        inbox: Arc<dyn Inbox>,
        doorbell: Arc<Notify>,
        counters: Arc<Counters>,
        object_bytes_max: u64,
    ) -> Arc<Self> {
        let disk_jobs = Arc::new(Semaphore::new(DISK_JOBS_MAX));
        Arc::new(Self { inbox, doorbell, counters, disk_jobs, batches: Mutex::default(), object_bytes_max })
    }

    fn batch(&self) -> Vec<u8> {
        let kept = self.batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES))
    }

    fn keep(&self, mut batch: Vec<u8>) {
        batch.clear();
        let mut kept = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BATCHES_KEPT_MAX && batch.capacity() == BATCH_BYTES {
            kept.push(batch);
        }
    }

    /// Runs `job` on a disk thread.
    async fn on_disk<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // The semaphore is never closed; without a permit the job only waits less.
        let permit = Arc::clone(&self.disk_jobs).acquire_owned().await.ok();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job()
        })
    }

    /// Offers a whole object to the inbox, counts the answer and rings. Blocks.
    pub(crate) fn offer(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        let acceptance = self.inbox.accept(temp, object)?;
        match &acceptance {
            Acceptance::New(_) => {
                add(&self.counters.objects_accepted);
                self.doorbell.notify_one();
            }
            Acceptance::Duplicate(_) => add(&self.counters.objects_duplicate),
            Acceptance::Conflict { .. } => add(&self.counters.objects_conflict),
        }
        Ok(acceptance)
    }
}

type Written = Result<(TempObject, Vec<u8>), PortError>;

/// Where the bytes are.
enum File {
    /// Nothing was written yet.
    Unopened,
    /// A batch is being written.
    Writing(JoinHandle<Written>),
}

/// An object that is being received.
pub(crate) struct Object {
    intake: Arc<Intake>,
    sop_class: Uid,
    sop_instance: Uid,
    transfer_syntax: Uid,
    sender: Sender,
    /// The only study that it may be of.
    study: Option<Uid>,
    prefix_bytes: u64,
    data_set_bytes: u64,
    hasher: sha2::Sha256,
    walker: HeaderWalker,
    inflater: Option<Inflater>,
    batch: Vec<u8>,
    file: File,
}

impl Object {
    /// Starts an object: its Part 10 head is the first thing in its file.
    pub(crate) fn start(
        intake: &Arc<Intake>,
        sop_class: Uid,
        sop_instance: Uid,
        transfer_syntax: Uid,
        sender: Sender,
    ) -> Result<Self, Refusal> {
        let encoding = encoding_of(&transfer_syntax).ok_or(Refusal::BadRequest)?;
        let source_ae = match &sender {
            Sender::Dimse(ae) => Some(ae),
            Sender::Capture | Sender::Web => None,
        };
        let prefix = part10_prefix(&sop_class, &sop_instance, &transfer_syntax, source_ae);
        let mut batch = intake.batch();
        batch.extend_from_slice(&prefix);
        Ok(Self {
            intake: Arc::clone(intake),
            sop_class,
            sop_instance,
            transfer_syntax,
            sender,
            study: None,
            prefix_bytes: prefix.len() as u64,
            data_set_bytes: 0,
            hasher: sha2::Sha256::new(),
            walker: HeaderWalker::new(encoding, HeaderLimits::default()),
            inflater: (encoding == Encoding::Deflated).then(|| Inflater::new(PLAIN_BYTES_MAX)),
            batch,
            file: File::Unopened,
        })
    }

    /// Of another study it will be refused.
    pub(crate) fn only_of(self, study: Option<Uid>) -> Self {
        Self { study, ..self }
    }

    /// Takes the next bytes of the data set.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.data_set_bytes += bytes.len() as u64;
        if self.data_set_bytes > self.intake.object_bytes_max {
            return Err(Refusal::TooLong);
        }
        self.hasher.update(bytes);
        self.walk(bytes).await?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = BATCH_BYTES - self.batch.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.batch.extend_from_slice(now);
            rest = later;
            if self.batch.len() == BATCH_BYTES {
                self.write_batch().await?;
            }
        }
        Ok(())
    }

    async fn walk(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(inflater) = &mut self.inflater else { return Ok(self.walker.push(bytes)?) };
        for step in bytes.chunks(DEFLATED_STEP_BYTES) {
            inflater.push(step, |plain| self.walker.push(plain).map_err(Refusal::from))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends the full batch to the disk and goes on with an empty one; waits for the batch before, so that at most
    /// one is on its way.
    async fn write_batch(&mut self) -> Result<(), Refusal> {
        let (temp, spare) = self.written().await?;
        let batch = std::mem::replace(&mut self.batch, spare.unwrap_or_else(|| self.intake.batch()));
        let (intake, asked) = (Arc::clone(&self.intake), self.asked());
        let job = move || {
            asked.of(&*intake.inbox)?;
            let temp = write(temp, &*intake.inbox, &batch)?;
            Ok((temp, batch))
        };
        self.file = File::Writing(self.intake.on_disk(job).await);
        Ok(())
    }

    /// What the inbox is asked before the next bytes are written.
    fn asked(&self) -> Asked {
        let bytes = self.prefix_bytes + self.data_set_bytes;
        Asked { sender: self.sender.clone(), sop_instance: self.sop_instance.clone(), bytes }
    }

    /// Waits for the batch on its way.
    async fn written(&mut self) -> Result<(Option<TempObject>, Option<Vec<u8>>), Refusal> {
        match std::mem::replace(&mut self.file, File::Unopened) {
            File::Unopened => Ok((None, None)),
            File::Writing(job) => {
                let (temp, mut batch) = job.await.map_err(|_| Refusal::Lost)??;
                batch.clear();
                Ok((Some(temp), Some(batch)))
            }
        }
    }

    /// The last byte has come: makes the object durable.
    pub(crate) async fn finish(mut self) -> Result<Acceptance, Refusal> {
        let last_byte_at = UnixMicros::from(SystemTime::now());
        if self.inflater.as_ref().is_some_and(|inflater| !inflater.ended()) {
            return Err(HeaderError::Truncated.into());
        }
        // Of an object that is one batch, the inbox asks itself: a file is opened only below the mark, and the sender's share
        // is looked at when it is offered.
        let asked = matches!(self.file, File::Writing(_)).then(|| self.asked());
        let (temp, spare) = self.written().await?;
        if let Some(spare) = spare {
            self.intake.keep(spare);
        }
        let Self { intake, sop_class, sop_instance, transfer_syntax, sender, study, walker, batch, .. } = self;
        let walked = walker.finish()?;
        let is_elsewhere = study.is_some_and(|study| study != walked.study_uid);
        if walked.sop_class_uid != sop_class || walked.sop_instance_uid != sop_instance || is_elsewhere {
            return Err(Refusal::Mismatch);
        }
        let pixels_at = if self.inflater.is_some() { None } else { walked.pixel_data_position };
        let object = NewObject {
            header: object_header(walked, transfer_syntax, pixels_at.map(|at| at + self.prefix_bytes)),
            sender,
            last_byte_at,
            data_set_sha256: Sha256(self.hasher.finalize().into()),
            file_bytes: self.prefix_bytes + self.data_set_bytes,
        };
        let on_disk = Arc::clone(&intake);
        let job = move || {
            asked.map_or(Ok(()), |asked| asked.of(&*on_disk.inbox))?;
            let temp = write(temp, &*on_disk.inbox, &batch)?;
            on_disk.keep(batch);
            on_disk.offer(temp, object)
        };
        Ok(intake.on_disk(job).await.await.map_err(|_| Refusal::Lost)??)
    }
}

/// Whether an object that is on its way may go on.
struct Asked {
    sender: Sender,
    sop_instance: Uid,
    /// All that has come of it. What of that is written already counts twice against the disk, which refuses an object too
    /// early only where it is longer than the room that the high watermark leaves.
    bytes: u64,
}

impl Asked {
    /// Asks `inbox`. Blocks.
    fn of(&self, inbox: &dyn Inbox) -> Result<(), PortError> {
        match inbox.check_space(&self.sender, self.bytes) {
            // A repeat of what is held adds nothing to its sender's share, and must hear success: only the mark counts.
            Err(PortError::OutOfSpace { .. }) if inbox.accepted(&self.sop_instance)?.is_some() => {
                inbox.check_space(&self.sender, 0)
            }
            answer => answer,
        }
    }
}

/// Appends a batch to the object's file, which is opened with the first one. Blocks.
fn write(temp: Option<TempObject>, inbox: &dyn Inbox, batch: &[u8]) -> Result<TempObject, PortError> {
    let mut temp = match temp {
        Some(temp) => temp,
        None => inbox.open_temp()?,
    };
    temp.file.write_all(batch).map_err(|source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            PortError::OutOfSpace { detail: "the disk is full".to_owned() }
        }
        _ => PortError::Io { doing: "write an object that is being received".to_owned(), source },
    })?;
    Ok(temp)
}

/// Joins what the walk found with what only the file knows.
pub(crate) fn object_header(walked: Walked, transfer_syntax_uid: Uid, pixel_data_offset: Option<u64>) -> ObjectHeader {
    ObjectHeader {
        sop_class_uid: walked.sop_class_uid,
        sop_instance_uid: walked.sop_instance_uid,
        study_uid: walked.study_uid,
        series_uid: walked.series_uid,
        transfer_syntax_uid,
        modality: walked.modality,
        body_part: walked.body_part,
        laterality: walked.laterality,
        rows_px: walked.rows_px,
        columns_px: walked.columns_px,
        frames: walked.frames,
        photometric: walked.photometric,
        burned_in_annotation: walked.burned_in_annotation,
        pixel_data_offset,
    }
}
