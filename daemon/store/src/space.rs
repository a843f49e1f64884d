//! How full the disk is, asked at most five times a second, and what follows from it.
//!
//! Two marks. Past the high one no new object is taken, and files that an archive keeps, too, go until the low one is
//! reached; results of what is held are written past both, for they are what makes room. What is announced must fit
//! as well, with some room to spare for journal and index.

use crate::disk::{Disk, Room};
use crate::error::port_io;
use fovea_core::PortError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer younger than this is used again: long enough to cost nothing at 1,500 objects a second, short enough
/// that a fast sender cannot fill the last tenth of a disk unseen (at 400 MB/s: 80 MB).
const ANSWER_LIVES: Duration = Duration::from_millis(200);
/// Room that no object may take: the journal's reserve, the index and the results of what is held need some.
const SPARE_BYTES: u64 = 64 << 20;

/// The marks of one file system.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Disk,
    dir: PathBuf,
    high_percent: u8,
    low_percent: u8,
    last: Mutex<Option<(Instant, Room)>>,
    /// The high mark was passed and the low one is not reached yet.
    making_room: AtomicBool,
}

impl Space {
    pub(crate) fn new(disk: Disk, dir: PathBuf, high_percent: u8, low_percent: u8) -> Self {
        Self { disk, dir, high_percent, low_percent, last: Mutex::new(None), making_room: AtomicBool::new(false) }
    }

    /// How full the file system is.
    pub(crate) fn room(&self) -> Result<Room, PortError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, room)) = *last
            && asked.elapsed() < ANSWER_LIVES
        {
            return Ok(room);
        }
        let room = self.disk.room(&self.dir).map_err(port_io("ask how full the disk is"))?;
        *last = Some((Instant::now(), room));
        Ok(room)
    }

    /// Refuses past the high mark, and what would not fit.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), PortError> {
        let room = self.room()?;
        let (percent, limit) = (room.used_percent(), self.high_percent);
        if percent >= f64::from(limit) {
            return Err(PortError::OutOfSpace { detail: format!("disk {percent:.1} % full, limit {limit} %") });
        }
        // An empty object asks only for the mark: a small disk may have less to spare than that.
        if bytes > 0 && room.total.saturating_sub(room.used) < bytes.saturating_add(SPARE_BYTES) {
            return Err(PortError::OutOfSpace { detail: format!("{bytes} bytes do not fit on the disk") });
        }
        Ok(())
    }

    /// Whether files that need not be here should go now; asks the disk each time.
    pub(crate) fn wants_room(&self) -> Result<bool, PortError> {
        let room = self.disk.room(&self.dir).map_err(port_io("ask how full the disk is"))?;
        let percent = room.used_percent();
        if percent >= f64::from(self.high_percent) {
            self.making_room.store(true, Ordering::Relaxed);
        } else if percent < f64::from(self.low_percent) {
            self.making_room.store(false, Ordering::Relaxed);
        }
        Ok(self.making_room.load(Ordering::Relaxed))
    }
}
