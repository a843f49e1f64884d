//! One picture through the sandboxed worker: the same decoders, preparation and engine as in production.
//!
//! In: a JPEG, PNG or Part 10 file. Out: what production would answer, with the maps that a site compares with its masks.
//! Promise: this process decodes no picture; a file over which the worker dies or that nobody can read is an outcome, not an end.

use fovea_core::{Analysis, ObjectHeader, Reason, Uid, chain, sop_class};
use fovea_dimse::Part10Error;
use fovea_infer::{Manifest, TrustedKey};
use fovea_receive::{
    ObjectFileError, PictureClass, PictureDecoder, PictureError, RawPicture, object_file_header, picture_object,
};
use fovea_worker::{Evaluated, ModelState, Picture, ServingModel, Worker, WorkerConfig, WorkerError};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bundle that was admitted, ready for pictures. Use it on the thread that made it.
pub struct Bench {
    worker: Mutex<Worker>,
    class: PictureClass,
    /// What admission said.
    pub serving: ServingModel,
}

/// Why a bundle is not looked at.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The bundle did not prove itself.
    #[error("the bundle is refused: {}; {}", .0.text, .0.advice)]
    Refused(Reason),
    /// Its manifest names a class that is no UID.
    #[error("the bundle's eligibility holds {0:?}, which is no UID")]
    Class(String),
}

impl Bench {
    /// Proves the bundle as before it serves; `config` names it alone.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn new(config: WorkerConfig, manifest: &Manifest) -> Result<Self, BenchError> {
        let worker = Worker::start(config)?;
        let serving = match worker.models().first().map(|status| status.state.clone()) {
            Some(ModelState::Serving(serving)) => *serving,
            Some(ModelState::Refused(reason)) => return Err(BenchError::Refused(reason)),
            None => return Err(BenchError::Worker(WorkerError::Answer)),
        };
        Ok(Self { worker: Mutex::new(worker), class: class(manifest)?, serving })
    }

    /// What production would say of the file.
    ///
    /// # Errors
    /// Only when no worker comes up any more: that says nothing about the file.
    pub fn look(&self, path: &Path) -> Result<Evaluated, WorkerError> {
        let (object, header) = match self.object(path) {
            Ok(object) => object,
            Err(reason) => return Ok(unanswered(reason)),
        };
        match self.worker().evaluate(&object, &header) {
            Err(error @ (WorkerError::Died { .. } | WorkerError::Answer)) => {
                Ok(unanswered(Reason::new("worker_died", chain(&error), "")))
            }
            looked => looked,
        }
    }

    /// The picture's pixels for people; none where the file is a DICOM object or nobody can read it.
    pub fn picture(&self, path: &Path) -> Option<Picture> {
        let file = File::open(path).ok()?;
        let mut picture = self.worker().picture_rgb8(&file).ok()?;
        // The worker has written it through the same open file, and left the position at its end.
        picture.rgb.rewind().ok()?;
        Some(picture)
    }

    /// The file as the object that the daemon would hold.
    fn object(&self, path: &Path) -> Result<(File, ObjectHeader), Reason> {
        let unreadable = |error: &dyn std::error::Error| Reason::new("object_unreadable", chain(error), "");
        let mut file = File::open(path).map_err(|error| unreadable(&error))?;
        let mut start = [0; 8];
        let length = file.read(&mut start).map_err(|error| unreadable(&error))?;
        file.rewind().map_err(|error| unreadable(&error))?;
        let start = &start[..length];
        let mut object = if start.starts_with(&[0xFF, 0xD8, 0xFF]) || start.starts_with(b"\x89PNG") {
            let mut object = tempfile::tempfile().map_err(|error| unreadable(&error))?;
            picture_object(&mut file, &self.class, self, &mut object).map_err(|error| unreadable(&error))?;
            object
        } else {
            file
        };
        let header = object_file_header(&mut object).map_err(|error| match error {
            ObjectFileError::Head(Part10Error::NotPart10) => {
                Reason::new("object_unreadable", "the file is neither JPEG, PNG nor DICOM", "")
            }
            error => unreadable(&error),
        })?;
        object.rewind().map_err(|error| unreadable(&error))?;
        Ok((object, header))
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PictureDecoder for Bench {
    fn decode_rgb8(&self, picture: &File) -> Result<RawPicture, PictureError> {
        let decoded = self.worker().picture_rgb8(picture);
        let mut picture = decoded.map_err(|error| PictureError::Refused { reason: chain(&error) })?;
        let rewound = picture.rgb.rewind();
        rewound.map_err(|error| PictureError::Unavailable { reason: chain(&error) })?;
        Ok(RawPicture { width_px: picture.width_px, height_px: picture.height_px, rgb: picture.rgb })
    }
}

/// As what a picture file is presented: the first class, modality and body part that the bundle is for, as a device would that takes such
/// pictures. A class of one picture is preferred to slides and clips, which a picture file is not.
fn class(manifest: &Manifest) -> Result<PictureClass, BenchError> {
    const MANY: [&str; 3] =
        [sop_class::VL_WHOLE_SLIDE, sop_class::ULTRASOUND_MULTI_FRAME, sop_class::ULTRASOUND_MULTI_FRAME_RETIRED];
    let eligible = &manifest.eligible;
    let single = eligible.sop_classes.iter().find(|class| !MANY.contains(&class.as_str()));
    let class = single.or(eligible.sop_classes.first()).map_or(sop_class::SECONDARY_CAPTURE, String::as_str);
    let sop_class_uid = Uid::new(class).map_err(|_| BenchError::Class(class.to_owned()))?;
    let modality = eligible.modalities.first().cloned().unwrap_or_else(|| "OT".to_owned());
    Ok(PictureClass { sop_class_uid, modality, body_part: eligible.body_parts.first().cloned() })
}

fn unanswered(reason: Reason) -> Evaluated {
    let analysis = Analysis::not_analysed(reason);
    Evaluated { analysis, fit_probability: None, level: None, mask: None, nuclei: None, in_fields: false }
}

/// How to run the bundle at `path`.
///
/// # Errors
/// When a key file cannot be used.
pub fn config(path: &Path, trust: &[std::path::PathBuf], runtime_dir: Option<&Path>) -> anyhow::Result<WorkerConfig> {
    use anyhow::Context;
    let mut config = WorkerConfig::installed().context("this build's release key is damaged")?;
    config.bundles = vec![path.to_owned()];
    for path in trust {
        config.trusted_keys.push(TrustedKey::read(path)?);
    }
    if let Some(runtime_dir) = runtime_dir {
        config.runtime_dir = runtime_dir.to_owned();
    }
    Ok(config)
}
