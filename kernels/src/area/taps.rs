//! Which source pixels lie under an output pixel along one axis, and how much each counts.

use super::WEIGHT_BITS;
use std::ops::Range;

/// Samples that must be readable behind a row of sums: the vector variant reads groups of 4 taps as 8 samples each.
pub(super) const ROW_SLACK: usize = 32;

/// The weights of one axis: for each output pixel a run of source pixels inside the image.
///
/// Weights of source pixels that lie outside the image are dropped (black adds nothing), so a run's weights sum to
/// `1 << WEIGHT_BITS` only where the output pixel lies wholly inside.
pub(super) struct Taps {
    /// First source pixel and number of taps, for each output pixel.
    runs: Vec<(usize, usize)>,
    /// All weights; the run of output pixel `i` starts at `i * stride`, filled up with zeros.
    weights: Vec<i16>,
    /// A multiple of 4, at least the longest run.
    stride: usize,
}

impl Taps {
    /// The axis: a window of `window_px` pixels from `start_px` over an image of `image_px`, made into `out_px` pixels.
    pub(super) fn new(start_px: i64, window_px: u32, image_px: u32, out_px: u32) -> Self {
        let (window, out) = (u64::from(window_px), u64::from(out_px));
        // An output pixel touches at most this many source pixels: its length, rounded up, and one for the offset.
        let stride = (window.div_ceil(out) as usize + 1).next_multiple_of(4);
        let mut taps =
            Self { runs: Vec::with_capacity(out_px as usize), weights: vec![0; out_px as usize * stride], stride };
        for index in 0..out {
            // In units of 1/out of a source pixel the output pixel covers [index * window, (index + 1) * window).
            let (from, to) = (index * window, (index + 1) * window);
            let row = &mut taps.weights[index as usize * stride..][..stride];
            let mut run = None;
            let mut count = 0;
            for position in from / out..to.div_ceil(out) {
                let covered_to = ((position + 1) * out).min(to) - from;
                let covered_from = (position * out).max(from) - from;
                // Differences of rounded running sums: each is within one unit, and together they make exactly one.
                let weight = share(covered_to, window) - share(covered_from, window);
                let source = start_px.saturating_add(position as i64);
                if (0..i64::from(image_px)).contains(&source) {
                    run.get_or_insert(source as usize);
                    row[count] = weight;
                    count += 1;
                }
            }
            taps.runs.push((run.unwrap_or(0), count));
        }
        taps
    }

    /// First source pixel and the weights of output pixel `index`.
    pub(super) fn of(&self, index: usize) -> (usize, &[i16]) {
        let (first, count) = self.runs[index];
        (first, &self.weights[index * self.stride..][..count])
    }

    /// As [`Taps::of`], with zeros behind up to a multiple of 4.
    pub(super) fn groups_of(&self, index: usize) -> (usize, &[i16]) {
        let (first, count) = self.runs[index];
        (first, &self.weights[index * self.stride..][..count.next_multiple_of(4)])
    }

    /// The source pixels that any run touches.
    pub(super) fn inside(&self) -> Range<usize> {
        let touched = || self.runs.iter().filter(|(_, count)| *count > 0);
        let start = touched().map(|(first, _)| *first).min().unwrap_or(0);
        let end = touched().map(|(first, count)| first + count).max().unwrap_or(start);
        start..end
    }
}

/// `part / whole` in units of `1 / (1 << WEIGHT_BITS)`, rounded to nearest.
fn share(part: u64, whole: u64) -> i16 {
    // At most 1 << 14, so it fits.
    (((part << (WEIGHT_BITS + 1)) / whole + 1) >> 1) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_output_pixel_sum_to_one_inside_the_image() {
        for window in (1..200).chain([4288, 65_535]) {
            for out in [1, 2, 3, 7, 32, 100, 384, 512] {
                let taps = Taps::new(0, window, window, out);
                for index in 0..out as usize {
                    let (first, weights) = taps.of(index);
                    let sum: i32 = weights.iter().map(|weight| i32::from(*weight)).sum();
                    assert_eq!(sum, 1 << WEIGHT_BITS, "window={window} out={out} index={index}");
                    assert!(first + weights.len() <= window as usize, "window={window} out={out} index={index}");
                }
            }
        }
    }

    #[test]
    fn a_window_beside_the_image_has_no_taps() {
        for start in [-40, 20] {
            let taps = Taps::new(start, 10, 20, 5);
            assert!((0..5).all(|index| taps.of(index).1.is_empty()), "start={start}");
            assert!(taps.inside().is_empty());
        }
    }
}
