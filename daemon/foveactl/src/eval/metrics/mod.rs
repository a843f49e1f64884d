//! The figures of an evaluation, as pure functions over plain numbers.
//!
//! In: answers and truths of cases. Out: numbers, or none where a figure is not defined for what was given.
//! Promise: no I/O, no clock, no chance but the seeded one of the bootstrap; each definition stands beside its function, and the
//! tests hold hand-worked numbers and those of scikit-learn 1.x for the same input.

pub mod agreement;
pub mod auc;
pub mod calibration;
pub mod instances;
pub mod masks;

/// The middle value; of an even number the mean of the two in the middle. None for nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// None for nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.into_iter().fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// `part` of `whole`; none of nothing.
pub fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
pub mod fixture {
    //! 200 answers from a small generator, the same as the script drew that asked scikit-learn.

    /// Numbers from 0 to below 1: x -> (1103515245 x + 12345) mod 2^31.
    pub fn uniform(count: usize, mut state: u64) -> Vec<f64> {
        let mut next = || {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            state as f64 / f64::from(1u32 << 31)
        };
        (0..count).map(|_| next()).collect()
    }

    /// Probabilities of two digits, so that some are equal, and whether the case is positive.
    pub fn scored() -> Vec<(f64, bool)> {
        let (u, v) = (uniform(200, 7), uniform(200, 99));
        u.iter().zip(v).map(|(u, v)| ((u * 100.0).round() / 100.0, v < 0.15 + 0.7 * u)).collect()
    }

    /// True and found levels, 0 to 4.
    pub fn levels() -> Vec<(usize, usize)> {
        let (u, w) = (uniform(200, 7), uniform(200, 5));
        let level = |u: f64| (u * 5.0) as usize;
        u.iter().zip(w).map(|(u, w)| (level(*u), (level(*u) + (w * 3.0) as usize).saturating_sub(1).min(4))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_mean_and_share_of_nothing_are_none() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!((median(vec![]), mean([]), share(0, 0)), (None, None, None));
        assert_eq!((mean([1.0, 2.0]), share(1, 4)), (Some(1.5), Some(0.25)));
    }
}
