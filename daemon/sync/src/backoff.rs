//! Pauses that double and are jittered, so that a hundred boxes do not knock on one archive at the same moment.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Parcels in a pause of their own at the same time. When they are so many, the archive refuses everything: then no new
/// ones are tried until one of these is settled. Also bounds what is asked of the outbox at a time.
pub(crate) const HELD_MAX: usize = 256;

/// Half to all of `min * 2^failures`, at most `max`.
pub(crate) fn pause(min: Duration, max: Duration, failures: u32) -> Duration {
    let full = min.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(max);
    let mut bytes = [0; 4];
    // Without randomness the pause is the longest: right, only not spread.
    let share =
        getrandom::fill(&mut bytes).map_or(1.0, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX));
    full.mul_f64(0.5 + 0.5 * share)
}

/// Parcels that were tried without success. In memory only: a restart gives each its tries again.
#[derive(Debug, Default)]
pub(crate) struct Tries(HashMap<u64, Try>);

#[derive(Debug, Clone, Copy)]
struct Try {
    /// Answers that refused this object.
    refusals: u32,
    /// Failures of any kind while it was sent.
    failures: u32,
    not_before: Instant,
}

impl Tries {
    /// The parcel may be sent now.
    pub(crate) fn ready(&self, seq: u64, now: Instant) -> bool {
        match self.0.get(&seq) {
            Some(tried) => tried.not_before <= now,
            None => self.0.len() < HELD_MAX,
        }
    }

    pub(crate) fn tried(&self, seq: u64) -> bool {
        self.0.contains_key(&seq)
    }

    /// Notes a failure; says how often the object has been refused.
    pub(crate) fn failed(&mut self, seq: u64, refused: bool, min: Duration, max: Duration) -> u32 {
        let now = Instant::now();
        let tried = self.0.entry(seq).or_insert(Try { refusals: 0, failures: 0, not_before: now });
        tried.refusals += u32::from(refused);
        tried.failures = tried.failures.saturating_add(1);
        // One step longer than the destination's own pause after the same failure, so that another parcel goes first.
        tried.not_before = now + pause(min, max, tried.failures);
        tried.refusals
    }

    pub(crate) fn settled(&mut self, seq: u64) {
        self.0.remove(&seq);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first of them may be tried again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|tried| tried.not_before).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(300));
        for failures in 0..80 {
            let full = min * 2u32.pow(failures.min(9));
            let full = full.min(max);
            let pauses: Vec<_> = (0..20).map(|_| pause(min, max, failures)).collect();
            assert!(pauses.iter().all(|pause| (full / 2..=full).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{failures}: jittered");
        }
    }

    #[test]
    fn no_more_parcels_are_tried_than_are_remembered() {
        let mut tries = Tries::default();
        let pause = Duration::from_secs(60);
        (0..HELD_MAX as u64).for_each(|seq| assert_eq!(tries.failed(seq, true, pause, pause), 1));
        let now = Instant::now();
        assert!(!tries.ready(0, now) && !tries.ready(9999, now));
        assert!(tries.ready(0, now + pause));
        tries.settled(0);
        assert!(tries.ready(9999, now));
    }
}
