//! How full the disk is, asked at most five times a second.

use crate::disk::Disk;
use fovea_core::PortError;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer younger than this is used again: long enough to cost nothing at 1,500 objects a second, short enough
/// that a fast sender cannot fill the last tenth of a disk unseen (at 400 MB/s: 80 MB).
const ANSWER_LIVES: Duration = Duration::from_millis(200);

/// The high watermark of one file system.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Disk,
    dir: PathBuf,
    limit_percent: u8,
    last: Mutex<Option<(Instant, f64)>>,
}

impl Space {
    pub(crate) fn new(disk: Disk, dir: PathBuf, limit_percent: u8) -> Self {
        Self { disk, dir, limit_percent, last: Mutex::new(None) }
    }

    /// Share of the file system in use, percent, as `df` counts it (what only root may use is not free).
    pub(crate) fn used_percent(&self) -> Result<f64, PortError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, percent)) = *last
            && asked.elapsed() < ANSWER_LIVES
        {
            return Ok(percent);
        }
        let room = self.disk.room(&self.dir).map_err(crate::error::port_io("ask how full the disk is"))?;
        let percent = room.used_percent();
        *last = Some((Instant::now(), percent));
        Ok(percent)
    }

    /// Refuses past the watermark.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        let percent = self.used_percent()?;
        if percent < f64::from(self.limit_percent) {
            return Ok(());
        }
        let limit = self.limit_percent;
        Err(PortError::OutOfSpace { detail: format!("disk {percent:.1} % full, limit {limit} %") })
    }
}
