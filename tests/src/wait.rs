//! Waiting with an end.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// Asks `found` until it has an answer.
///
/// # Errors
/// After `limit`, an error with what `missing` says then.
pub fn until<T>(
    limit: Duration,
    missing: impl Fn() -> String,
    mut found: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = found()? {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < end, "waited {} s for {}", limit.as_secs_f32(), missing());
        std::thread::sleep(EVERY);
    }
}
