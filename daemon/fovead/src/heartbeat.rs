//! Says how long ago a loop last went round. By the monotonic clock: a stepped wall clock must not hide a hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared between a loop, which beats, and the watchdog, which looks.
#[derive(Clone)]
pub struct Heartbeat {
    started: Instant,
    last_beat_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Beats for the first time.
    pub fn new() -> Self {
        Self { started: Instant::now(), last_beat_ms: Arc::default() }
    }

    pub fn beat(&self) {
        let since_start = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat_ms.store(since_start, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed)))
    }
}
