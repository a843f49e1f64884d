//! Whether a probability means what it says.

/// Bins of the calibration error.
pub const BINS: usize = 10;

/// Cases of neighbouring probability.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bin {
    /// Cases in it.
    pub count: usize,
    /// Their mean probability.
    pub said: f64,
    /// Share of them that is positive.
    pub was: f64,
}

/// Cases by rising probability in [`BINS`] bins whose sizes differ by one at most (the larger ones first); fewer where there are fewer
/// cases. Equal probabilities stay in the order given.
pub fn bins(scored: &[(f64, bool)]) -> Vec<Bin> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, larger) = (sorted.len() / BINS, sorted.len() % BINS);
    let mut rest = sorted.as_slice();
    let mut bins = Vec::with_capacity(BINS);
    for index in 0..BINS {
        let (bin, behind) = rest.split_at(least + usize::from(index < larger));
        rest = behind;
        if bin.is_empty() {
            break;
        }
        let count = bin.len() as f64;
        let said = bin.iter().map(|(probability, _)| probability).sum::<f64>() / count;
        let was = bin.iter().filter(|(_, positive)| *positive).count() as f64 / count;
        bins.push(Bin { count: bin.len(), said, was });
    }
    bins
}

/// Expected calibration error: the mean of |said - was| over the bins, each weighted with its cases. None for nothing.
pub fn ece(scored: &[(f64, bool)]) -> Option<f64> {
    let all = scored.len() as f64;
    let bins = bins(scored);
    (!bins.is_empty()).then(|| bins.iter().map(|bin| bin.count as f64 / all * (bin.said - bin.was).abs()).sum())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_probability_that_says_80_percent_and_is_right_half_the_time_is_off_by_30() {
        let scored: Vec<(f64, bool)> = (0..20).map(|index| (0.8, index % 2 == 0)).collect();
        assert!((ece(&scored).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(ece(&[(1.0, true), (0.0, false)]), Some(0.0));
        assert_eq!(ece(&[]), None);
    }

    #[test]
    fn bins_are_of_equal_count_and_the_error_is_that_of_the_reference() {
        let scored = fixture::scored();
        let counts: Vec<usize> = bins(&scored[..197]).iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [20, 20, 20, 20, 20, 20, 20, 19, 19, 19]);
        assert_eq!(bins(&scored[..3]).len(), 3);
        // numpy: stable argsort, array_split into 10, weighted mean of |mean p - mean y|.
        let error = ece(&scored).unwrap();
        assert!((error - 0.117_25).abs() < 1e-12, "{error}");
    }
}
