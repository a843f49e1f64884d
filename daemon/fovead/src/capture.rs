//! Lets the capture folder have pictures decoded in the worker's sandbox: this process decodes no untrusted pixel.

use crate::worker_thread::{self, WorkerThread};
use fovea_core::chain;
use fovea_receive::{PictureDecoder, PictureError, RawPicture};
use fovea_worker::WorkerError;
use std::fs::File;
use std::io::Seek;

/// [`PictureDecoder`] over the worker.
pub struct SandboxedPictures {
    worker: WorkerThread,
}

impl SandboxedPictures {
    pub fn new(worker: WorkerThread) -> Self {
        Self { worker }
    }
}

impl PictureDecoder for SandboxedPictures {
    fn decode_rgb8(&self, picture: &File) -> Result<RawPicture, PictureError> {
        use worker_thread::PictureError::{Stopping, Worker};
        match self.worker.picture_rgb8(picture) {
            Ok(mut picture) => {
                // The worker has written it through the same open file, and left the position at its end.
                let rewound = picture.rgb.rewind();
                rewound.map_err(|error| PictureError::Unavailable { reason: chain(&error) })?;
                Ok(RawPicture { width_px: picture.width_px, height_px: picture.height_px, rgb: picture.rgb })
            }
            // A picture over which the decoder dies would be tried for ever: it is refused, and kept for a person.
            Err(Worker { source: error @ (WorkerError::NoPicture(_) | WorkerError::Died { .. }) }) => {
                Err(PictureError::Refused { reason: chain(&error) })
            }
            Err(error @ (Worker { .. } | Stopping)) => Err(PictureError::Unavailable { reason: chain(&error) }),
        }
    }
}
