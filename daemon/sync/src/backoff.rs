//! Pauses that double and are jittered, so that a hundred boxes do not knock on one archive at the same moment.

use fovea_core::Lane;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Parcels of one lane in a pause of their own at the same time: more than a clinic makes in a day. When they are so
/// many, the archive refuses everything of that lane: then no new ones are tried until one of these is settled. Findings
/// are never held up by pictures. Also bounds what is asked of the outbox at a time.
pub(crate) const HELD_MAX: usize = 4096;

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
    lane: Lane,
    /// Answers that refused this object.
    refusals: u32,
    /// The first of them.
    refused_since: Option<Instant>,
    /// Failures of any kind while it was sent.
    failures: u32,
    not_before: Instant,
}

impl Tries {
    /// The parcel may be sent now.
    pub(crate) fn ready(&self, seq: u64, lane: Lane, now: Instant) -> bool {
        match self.0.get(&seq) {
            Some(tried) => tried.not_before <= now,
            None => self.0.len() < HELD_MAX || self.0.values().filter(|tried| tried.lane == lane).count() < HELD_MAX,
        }
    }

    pub(crate) fn tried(&self, seq: u64) -> bool {
        self.0.contains_key(&seq)
    }

    /// Notes a failure that says nothing about the object.
    pub(crate) fn failed(&mut self, seq: u64, lane: Lane, min: Duration, max: Duration) {
        let now = Instant::now();
        let fresh = Try { lane, refusals: 0, refused_since: None, failures: 0, not_before: now };
        let tried = self.0.entry(seq).or_insert(fresh);
        tried.failures = tried.failures.saturating_add(1);
        // One step longer than the destination's own pause after the same failure, so that another parcel goes first.
        tried.not_before = now + pause(min, max, tried.failures);
    }

    /// Notes an answer that refused the object; says how many there were, and for how long.
    pub(crate) fn refused(&mut self, seq: u64, lane: Lane, min: Duration, max: Duration) -> (u32, Duration) {
        self.failed(seq, lane, min, max);
        let Some(tried) = self.0.get_mut(&seq) else { return (1, Duration::ZERO) };
        tried.refusals = tried.refusals.saturating_add(1);
        (tried.refusals, tried.refused_since.get_or_insert_with(Instant::now).elapsed())
    }

    /// The archive takes objects again after an outage: what failed in it, and was not refused, need not wait any longer.
    pub(crate) fn recovered(&mut self) {
        let now = Instant::now();
        for tried in self.0.values_mut().filter(|tried| tried.refusals == 0) {
            (tried.failures, tried.not_before) = (0, now);
        }
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
        (0..HELD_MAX as u64).for_each(|seq| assert_eq!(tries.refused(seq, Lane::Pixels, pause, pause).0, 1));
        let now = Instant::now();
        assert!(!tries.ready(0, Lane::Pixels, now) && !tries.ready(9999, Lane::Pixels, now));
        assert!(tries.ready(0, Lane::Pixels, now + pause));
        assert!(tries.ready(9999, Lane::Findings, now), "refused pictures hold up no finding");
        tries.settled(0);
        assert!(tries.ready(9999, Lane::Pixels, now));
    }
}
