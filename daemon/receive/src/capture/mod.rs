//! The capture folder: a JPEG or PNG that a scope writes becomes an object.
//!
//! In: files in `<dir>/` and `<dir>/eye/`, each with an optional sidecar. Out: Ophthalmic Photography objects in the
//! inbox; the file in `<dir>/done/`, or in `<dir>/refused/` with a `.reason.txt`.
//! Promise: a file leaves the folder only after its object is durable, or was refused for good; a crash at any moment
//! gives no second object, for the object's identity follows from the file. Pixels that are not baseline JPEG are
//! decoded by the [`PictureDecoder`], never here. EXIF and its like do not reach the object.
//!
//! A file is tried when neither length nor time changed between two looks: names that begin with a dot or end in
//! `.part` or `.tmp` are not looked at. A slow copy may stand still for longer than that, so a file that is no whole
//! picture is refused only when it has been left alone for [`REFUSED_AFTER`]. A sidecar must be there before its
//! picture.

mod jpeg;
mod named;
mod photograph;
mod sidecar;
mod wrapped;

use crate::counters::{Counters, add};
use crate::object::{Intake, Object, Refusal};
use fovea_core::{Acceptance, Inbox, Schedule, Sender, Sha256, Uid, chain};
use fovea_dimse::transfer_syntax;
use jpeg::{Jpeg, JpegError};
use nix::fcntl::OFlag;
use photograph::{Picture, PixelForm, before_pixels, behind_pixels, instance_uid};
use sidecar::{SIDECAR_BYTES_MAX, Sidecar, SidecarError};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use photograph::PictureClass;
pub use wrapped::{WrapError, picture_object};

/// Between two looks into the folder.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before a picture is tried again that could not be stored or decoded just now.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A file that is no whole picture may still be written: it is refused when nobody has touched it for so long.
const REFUSED_AFTER: Duration = Duration::from_secs(10);
/// Longest picture file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Pixels of a decoded picture: ten times those of the best fundus cameras.
const PIXELS_MAX: u64 = 200_000_000;
/// Files looked at in one round; the rest wait for the next.
const FILES_A_ROUND_MAX: usize = 256;
/// Bytes read from a decoded picture at once.
const STEP_BYTES: usize = 256 * 1024;

/// A decoded picture: plain bytes in a file, position at its start.
#[derive(Debug)]
pub struct RawPicture {
    /// Columns, at least 1.
    pub width_px: u32,
    /// Rows, at least 1.
    pub height_px: u32,
    /// Red, green, blue, row by row without padding: `width_px * height_px * 3` bytes.
    pub rgb: File,
}

/// Why there is no decoded picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file is no picture that can be read: it will not be tried again.
    #[error("not a picture that can be read: {reason}")]
    Refused {
        /// Why, in words for people, without anything from the file.
        reason: String,
    },
    /// The decoder does not answer just now: the file stays and is tried again.
    #[error("the decoder is not available: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Decodes pictures somewhere else than in this process. Sides: the sandboxed worker, and a fake in tests.
/// May block for seconds.
pub trait PictureDecoder: Send + Sync {
    /// Decodes a JPEG or PNG; `picture` is open for reading, at its start.
    ///
    /// # Errors
    /// [`PictureError`] says whether to try again.
    fn decode_rgb8(&self, picture: &File) -> Result<RawPicture, PictureError>;
}

/// Why the capture folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A folder cannot be made.
    #[error("make the folder {dir}")]
    MakeFolder {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why one picture is not an object now.
#[derive(Debug, thiserror::Error)]
enum PictureFate {
    #[error("reading it failed")]
    Read { source: io::Error },
    #[error("writing its object failed")]
    Write { source: io::Error },
    #[error("the file has {bytes} bytes, the limit is {FILE_BYTES_MAX}")]
    TooLong { bytes: u64 },
    #[error("neither JPEG nor PNG")]
    Unknown,
    #[error("a picture of {width_px} x {height_px} pixels cannot be taken")]
    Size { width_px: u32, height_px: u32 },
    #[error(transparent)]
    Jpeg(#[from] JpegError),
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error(transparent)]
    Decode(#[from] PictureError),
    #[error("the decoder's answer is not the picture's size")]
    DecodedLength,
    #[error("an object of the same identity and other content is held")]
    Conflict,
    #[error(transparent)]
    Object(#[from] Refusal),
    #[error("a task of ours failed")]
    Lost,
}

impl PictureFate {
    /// More bytes may mend it.
    fn may_be_unfinished(&self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::Size { .. }
                | Self::Jpeg(_)
                | Self::Sidecar(SidecarError::Form)
                | Self::Decode(PictureError::Refused { .. })
        )
    }

    /// Another time it may work.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::Lost
                | Self::Object(Refusal::Lost | Refusal::Store(_))
                | Self::Decode(PictureError::Unavailable { .. })
        )
    }
}

/// Watches `dir` until `stop` fires; makes it and its sub-folders where they are missing. Rings `doorbell` after each
/// newly accepted object, and counts into `counters`.
///
/// # Errors
/// [`CaptureError`] when a folder cannot be made.
pub async fn watch(
    dir: PathBuf,
    inbox: Arc<dyn Inbox>,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    pictures: Arc<dyn PictureDecoder>,
    stop: CancellationToken,
) -> Result<(), CaptureError> {
    watch_scheduled(dir, inbox, doorbell, counters, pictures, None, stop).await
}

/// The same, with a worklist by which pictures get their patient and study.
///
/// # Errors
/// As [`watch`].
pub async fn watch_scheduled(
    dir: PathBuf,
    inbox: Arc<dyn Inbox>,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    pictures: Arc<dyn PictureDecoder>,
    schedule: Option<Arc<dyn Schedule>>,
    stop: CancellationToken,
) -> Result<(), CaptureError> {
    for dir in [dir.clone(), dir.join("eye"), dir.join("done"), dir.join("refused")] {
        // Pictures of patients: for nobody else, whatever the umask.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|source| CaptureError::MakeFolder { dir, source })?;
    }
    // Raw pixels of the largest picture, and their header.
    let intake = Intake::new(inbox, doorbell, counters, PIXELS_MAX * 3 + (1 << 20));
    let mut folder =
        Folder { dir, intake, pictures, schedule, seen: HashMap::new(), unfinished: HashMap::new(), pause_until: None };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        folder.look(&stop).await;
    }
}

/// What is compared between two looks.
type Shape = (u64, SystemTime);

struct Folder {
    dir: PathBuf,
    intake: Arc<Intake>,
    pictures: Arc<dyn PictureDecoder>,
    schedule: Option<Arc<dyn Schedule>>,
    seen: HashMap<PathBuf, Shape>,
    /// Files that were no whole pictures in this shape, and since when they have it.
    unfinished: HashMap<PathBuf, (Shape, Instant)>,
    pause_until: Option<Instant>,
}

impl Folder {
    /// One look: takes every file that did not change since the last.
    async fn look(&mut self, stop: &CancellationToken) {
        if self.pause_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.pause_until = None;
        let dir = self.dir.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || list(&dir)).await else { return };
        let is_settled =
            |path: &PathBuf, shape: Shape| self.seen.get(path) == Some(&shape) && !self.is_unfinished(path, shape);
        let settled: Vec<(PathBuf, Shape)> = now
            .iter()
            .map(|(path, shape)| (path.clone(), *shape))
            .filter(|(path, shape)| is_settled(path, *shape))
            .collect();
        self.unfinished.retain(|path, _| now.contains_key(path));
        self.seen = now;
        for (path, shape) in settled {
            if stop.is_cancelled() || self.pause_until.is_some() {
                return;
            }
            self.take(&path, shape).await;
        }
    }

    /// Makes an object of one file, and moves the file.
    async fn take(&mut self, path: &Path, shape: Shape) {
        let (to, reason) = match self.store(path).await {
            Ok(()) => ("done", None),
            Err(fate) if fate.may_pass() => {
                log::warn!("a captured picture has to wait: {}", chain(&fate));
                self.pause_until = Some(Instant::now() + TRY_AGAIN_AFTER);
                return;
            }
            Err(fate) if fate.may_be_unfinished() && !is_old(shape) && !self.has_waited(path, shape) => {
                log::debug!("a captured file is no whole picture yet: {}", chain(&fate));
                return;
            }
            Err(fate) => {
                log::warn!("a captured picture was refused: {}", chain(&fate));
                ("refused", Some(chain(&fate)))
            }
        };
        let is_refused = reason.is_some();
        self.seen.remove(path);
        let (from, to) = (path.to_owned(), self.dir.join(to));
        let moved = tokio::task::spawn_blocking(move || put_away(&from, &to, reason.as_deref())).await;
        if !matches!(moved, Ok(Ok(()))) {
            // It will be taken again, and found to be held.
            log::warn!("a captured picture could not be moved");
            self.pause_until = Some(Instant::now() + TRY_AGAIN_AFTER);
            return;
        }
        let counters = &self.intake.counters;
        add(if is_refused { &counters.captures_refused } else { &counters.captures_accepted });
    }

    /// The file has been seen in this shape, as no whole picture, for long enough; else that begins now.
    fn has_waited(&mut self, path: &Path, shape: Shape) -> bool {
        match self.unfinished.get(path) {
            Some((then, since)) if *then == shape => since.elapsed() >= REFUSED_AFTER,
            _ => {
                self.unfinished.insert(path.to_owned(), (shape, Instant::now()));
                false
            }
        }
    }

    /// In this shape the file was no whole picture, and too little time has passed to say that it never will be.
    fn is_unfinished(&self, path: &Path, shape: Shape) -> bool {
        let known = self.unfinished.get(path).filter(|(then, _)| *then == shape);
        known.is_some_and(|(_, since)| since.elapsed() < REFUSED_AFTER && !is_old(shape))
    }

    async fn store(&self, path: &Path) -> Result<(), PictureFate> {
        let (path, pictures, inbox) = (path.to_owned(), Arc::clone(&self.pictures), Arc::clone(&self.intake.inbox));
        let schedule = self.schedule.clone();
        let prepared =
            tokio::task::spawn_blocking(move || prepare(&path, &*pictures, &*inbox, schedule.as_deref())).await;
        let Some(mut prepared) = prepared.map_err(|_| PictureFate::Lost)?? else { return Ok(()) };
        let instance = instance_uid(&prepared.picture.file_sha256, &prepared.picture.sidecar);
        let syntax = match prepared.picture.pixels {
            PixelForm::Jpeg { .. } => transfer_syntax::JPEG_BASELINE,
            PixelForm::Rgb { .. } => transfer_syntax::EXPLICIT_VR_LE,
        };
        // Constants of the standard: both are UIDs.
        let uid = |text| Uid::new(text).map_err(|_| PictureFate::Lost);
        let class = prepared.picture.class.sop_class_uid.clone();
        let mut object = Object::start(&self.intake, class, instance, uid(syntax)?, Sender::Capture)?;
        object.push(&before_pixels(&prepared.picture)).await?;
        let mut pixel_bytes = 0;
        while let Some((source, step)) = prepared.next().await? {
            prepared.source = source;
            pixel_bytes += step.len() as u64;
            object.push(&step).await?;
        }
        object.push(&behind_pixels(prepared.picture.pixels, pixel_bytes)).await?;
        match object.finish().await? {
            Acceptance::New(_) | Acceptance::Duplicate(_) => Ok(()),
            Acceptance::Conflict { .. } => Err(PictureFate::Conflict),
        }
    }
}

/// Nobody has touched the file for [`REFUSED_AFTER`]. A time in the future, by a clock that is ahead, says nothing.
fn is_old((_, modified): Shape) -> bool {
    SystemTime::now().duration_since(modified).is_ok_and(|age| age >= REFUSED_AFTER)
}

/// Opens a plain file. Neither follows a link nor waits for the other end of a pipe: what is no plain file gives none.
fn open_plain(path: &Path) -> io::Result<Option<File>> {
    if !path.symlink_metadata()?.is_file() {
        return Ok(None);
    }
    // It may have been exchanged since.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Where pixels come from.
enum Source {
    Bytes(Vec<u8>),
    File { file: File, bytes_left: u64 },
}

/// A picture that is ready to be written.
struct Prepared {
    picture: Picture,
    source: Source,
}

impl Prepared {
    /// The next pixels, and the source behind them.
    async fn next(&mut self) -> Result<Option<(Source, Vec<u8>)>, PictureFate> {
        match std::mem::replace(&mut self.source, Source::Bytes(Vec::new())) {
            Source::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Source::Bytes(bytes) => Ok(Some((Source::Bytes(Vec::new()), bytes))),
            Source::File { bytes_left: 0, .. } => Ok(None),
            Source::File { mut file, bytes_left } => {
                let read = move || {
                    let mut step = vec![0; STEP_BYTES.min(usize::try_from(bytes_left).unwrap_or(STEP_BYTES))];
                    file.read_exact(&mut step).map_err(|_| PictureFate::DecodedLength)?;
                    Ok(Some((Source::File { file, bytes_left: bytes_left - step.len() as u64 }, step)))
                };
                tokio::task::spawn_blocking(read).await.map_err(|_| PictureFate::Lost)?
            }
        }
    }
}

/// Reads a picture and its sidecar, and has it decoded where that is needed; none where its object is held already.
/// Blocks.
fn prepare(
    path: &Path,
    pictures: &dyn PictureDecoder,
    inbox: &dyn Inbox,
    schedule: Option<&dyn Schedule>,
) -> Result<Option<Prepared>, PictureFate> {
    let read = |source| PictureFate::Read { source };
    let mut file = open_plain(path).map_err(read)?.ok_or(PictureFate::Unknown)?;
    let metadata = file.metadata().map_err(read)?;
    let bytes = whole(&file)?;
    let sidecar = match read_sidecar(path)? {
        Some(json) => Sidecar::parse(&json)?,
        None => Sidecar::default(),
    };
    let file_sha256 = Sha256::of(&bytes);
    let held = inbox.accepted(&instance_uid(&file_sha256, &sidecar)).map_err(Refusal::from)?;
    if held.is_some() {
        return Ok(None);
    }
    let (width_px, height_px, pixels, source) = pixels_of(bytes, &mut file, pictures)?;
    let taken_at = metadata.modified().map_err(read)?;
    let class = PictureClass::eye().ok_or(PictureFate::Lost)?;
    let scheduled = schedule.and_then(|schedule| named::scheduled(schedule, &sidecar));
    let picture = Picture { class, file_sha256, taken_at, sidecar, scheduled, width_px, height_px, pixels };
    Ok(Some(Prepared { picture, source }))
}

/// All bytes of a picture file, up to [`FILE_BYTES_MAX`].
fn whole(file: &File) -> Result<Vec<u8>, PictureFate> {
    let read = |source| PictureFate::Read { source };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(PictureFate::TooLong { bytes: file.metadata().map_err(read)?.len() });
    }
    Ok(bytes)
}

/// The pixels of a picture file: a baseline JPEG's own stream, anything else decoded. `bytes` are all of `file`.
fn pixels_of(
    bytes: Vec<u8>,
    file: &mut File,
    pictures: &dyn PictureDecoder,
) -> Result<(u16, u16, PixelForm, Source), PictureFate> {
    let is_jpeg = bytes.starts_with(&[0xFF, 0xD8, 0xFF]);
    if !is_jpeg && !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(PictureFate::Unknown);
    }
    match if is_jpeg { jpeg::walk(&bytes)? } else { Jpeg::Other } {
        Jpeg::Baseline(jpeg) => {
            let pixels = PixelForm::Jpeg { colour: jpeg.colour, stream_bytes: jpeg.bytes.len() as u64 };
            Ok((jpeg.width_px, jpeg.height_px, pixels, Source::Bytes(jpeg.bytes)))
        }
        Jpeg::Other => {
            file.rewind().map_err(|source| PictureFate::Read { source })?;
            let (width_px, height_px, source) = decoded(pictures.decode_rgb8(file)?)?;
            let lossy_file_bytes = is_jpeg.then_some(bytes.len() as u64);
            Ok((width_px, height_px, PixelForm::Rgb { lossy_file_bytes }, source))
        }
    }
}

/// Checks what the decoder says against what is there.
fn decoded(raw: RawPicture) -> Result<(u16, u16, Source), PictureFate> {
    let RawPicture { width_px, height_px, rgb } = raw;
    let size = || PictureFate::Size { width_px, height_px };
    let pixels = u64::from(width_px) * u64::from(height_px);
    let (width, height) = (u16::try_from(width_px).map_err(|_| size())?, u16::try_from(height_px).map_err(|_| size())?);
    if pixels == 0 || pixels > PIXELS_MAX {
        return Err(size());
    }
    let bytes = rgb.metadata().map_err(|source| PictureFate::Read { source })?.len();
    if bytes != pixels * 3 {
        return Err(PictureFate::DecodedLength);
    }
    Ok((width, height, Source::File { file: rgb, bytes_left: bytes }))
}

/// The two places for a sidecar: `picture.jpg.json` and `picture.json`.
fn sidecar_paths(path: &Path) -> [PathBuf; 2] {
    let mut longer = path.as_os_str().to_owned();
    longer.push(".json");
    [PathBuf::from(longer), path.with_extension("json")]
}

fn read_sidecar(path: &Path) -> Result<Option<Vec<u8>>, PictureFate> {
    for place in sidecar_paths(path) {
        let file = match open_plain(&place) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(SidecarError::NotFile.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(PictureFate::Read { source }),
        };
        let mut json = Vec::new();
        file.take(SIDECAR_BYTES_MAX + 1).read_to_end(&mut json).map_err(|source| PictureFate::Read { source })?;
        // One byte too many makes it no JSON that we take.
        return if json.len() as u64 > SIDECAR_BYTES_MAX { Err(SidecarError::Form.into()) } else { Ok(Some(json)) };
    }
    Ok(None)
}

/// The picture files in the folder and its sub-folder, with their shapes. Blocks.
fn list(dir: &Path) -> HashMap<PathBuf, Shape> {
    let mut found = HashMap::new();
    for dir in [dir.to_owned(), dir.join("eye")] {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            if found.len() >= FILES_A_ROUND_MAX {
                return found;
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ignored = name.starts_with('.') || [".part", ".tmp", ".json"].iter().any(|end| name.ends_with(end));
            // Not through links: they may lead anywhere.
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            if let (false, true, Ok(modified)) = (ignored, metadata.is_file(), metadata.modified()) {
                found.insert(entry.path(), (metadata.len(), modified));
            }
        }
    }
    found
}

/// Moves a picture and its sidecar into `to`, under a name that is free there. Blocks.
fn put_away(from: &Path, to: &Path, reason: Option<&str>) -> io::Result<()> {
    let name = from.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut target = to.join(name);
    for number in 1.. {
        if !target.try_exists()? {
            break;
        }
        let mut numbered = std::ffi::OsString::from(format!("{number}-"));
        numbered.push(name);
        target = to.join(numbered);
    }
    let beside = |path: &Path, end: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    if let Some(reason) = reason {
        fs::write(beside(&target, ".reason.txt"), format!("{reason}\n"))?;
    }
    fs::rename(from, &target)?;
    if let Some(sidecar) = sidecar_paths(from).into_iter().find(|path| path.is_file()) {
        fs::rename(sidecar, beside(&target, ".json"))?;
    }
    Ok(())
}
