//! Random numbers that are the same on every machine and in every version.

use std::f64::consts::TAU;

/// SplitMix64. Source: G. Steele, D. Lea, C. Flood, OOPSLA 2014, doi 10.1145/2660193.2660195.
pub(super) struct Rng(u64);

impl Rng {
    /// One of several streams of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self(seed);
        let from_seed = start.next();
        let mut mixed = Self(from_seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and below 1.
    pub(super) fn uniform(&mut self) -> f64 {
        // 52 bits and a half: no sum of these rounds to 1.
        ((self.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// Mean 0, standard deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_algorithm() {
        let mut rng = Rng(1_234_567);
        // The reference implementation's first numbers for this state.
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn moments_are_as_said_and_streams_differ() {
        const COUNT: usize = 100_000;
        let mut rng = Rng::new(1, 1);
        let moments = |draw: &mut dyn FnMut() -> f64| {
            let numbers: Vec<f64> = (0..COUNT).map(|_| draw()).collect();
            let mean = numbers.iter().sum::<f64>() / COUNT as f64;
            (mean, numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / COUNT as f64)
        };
        for (draw, mean, variance) in [
            (&mut Rng::uniform as &mut dyn FnMut(&mut Rng) -> f64, 0.5, 1.0 / 12.0),
            (&mut Rng::exponential, 1.0, 1.0),
            (&mut Rng::normal, 0.0, 1.0),
        ] {
            let found = moments(&mut || draw(&mut rng));
            assert!((found.0 - mean).abs() < 0.01 && (found.1 - variance).abs() < 0.02, "{found:?}");
        }
        let first = |seed, stream| Rng::new(seed, stream).next();
        assert!(first(1, 1) != first(1, 2) && first(1, 1) != first(2, 1) && first(0, 0) != 0);
    }
}
