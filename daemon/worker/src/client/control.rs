//! What other threads may do while the worker's own thread waits for an answer: see how far it is, and tell it to stop.
//!
//! In: progress from the thread that waits. Out: a copy for whoever asks; a stop for the thread that waits.
//! Promise: a stop is seen within [`STOP_SEEN_MAX`]; the worker process is then killed, whatever it has in hand, because
//! a slide may take minutes. The object in hand gets no outcome and waits for the next start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time between [`Control::stop`] and the end of the worker process.
pub const STOP_SEEN_MAX: Duration = Duration::from_millis(200);

/// How far an object is that takes long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Fields that were read.
    pub fields_done: u32,
    /// Fields that will be, at least 1.
    pub fields: u32,
    /// When it was last heard of, by the monotonic clock.
    pub at: Instant,
}

/// A handle to one worker's client; its clones are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    progress: Mutex<Option<Progress>>,
}

impl Control {
    /// Gives up what is in hand and everything after it: [`crate::Worker::analyse`] answers `worker_unavailable` from now on.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// Of the object in hand; none between objects and for those that are one picture.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }

    pub(super) fn tell(&self, progress: Option<Progress>) {
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}
