//! Random choices that can be made again.
//!
//! In: `FOVEA_SEED` where set, else the system's randomness. Out: numbers and bytes. Promise: the seed is printed, and the same seed
//! gives the same choices.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// A xorshift generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Seeds from `FOVEA_SEED` or anew, and prints how to repeat.
    ///
    /// # Panics
    /// When `FOVEA_SEED` is set and no number.
    #[must_use]
    pub fn seeded() -> Self {
        let seed = match std::env::var("FOVEA_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("FOVEA_SEED is '{text}', a number is needed")),
            // A fresh RandomState is keyed from the system's randomness.
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        println!("random choices: repeat with FOVEA_SEED={seed}");
        Self(seed | 1)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of a bare xorshift are weak.
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 16) % end
    }

    /// A time from 0 to below `end`, in whole milliseconds.
    pub fn shorter_than(&mut self, end: Duration) -> Duration {
        Duration::from_millis(self.below(end.as_millis().max(1) as u64))
    }

    /// Noise.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.number() >> 32) as u8).collect()
    }
}
