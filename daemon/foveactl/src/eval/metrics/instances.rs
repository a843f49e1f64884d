//! Found and true things of one frame, matched one to one: nuclei.

use std::collections::HashMap;

/// What became of the things of one frame at an overlap (IoU) of more than one half, at which no thing can have two partners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Matched {
    /// Pairs of a found and a true thing.
    pub pairs: usize,
    /// Found things.
    pub found: usize,
    /// True things.
    pub truth: usize,
}

impl Matched {
    /// Matches two label maps, row by row and of one length; 0 is background, every other number a thing.
    pub fn of(found: &[u16], truth: &[u16]) -> Self {
        let (found_px, truth_px) = (areas(found), areas(truth));
        let mut shared: HashMap<(u16, u16), u64> = HashMap::new();
        for pair in found.iter().copied().zip(truth.iter().copied()).filter(|(found, truth)| *found != 0 && *truth != 0)
        {
            *shared.entry(pair).or_default() += 1;
        }
        let is_pair = |(labels, both): &(&(u16, u16), &u64)| {
            let either = found_px[&labels.0] + truth_px[&labels.1] - **both;
            **both * 2 > either
        };
        Self { pairs: shared.iter().filter(is_pair).count(), found: found_px.len(), truth: truth_px.len() }
    }

    /// Nothing was found in a frame with this truth.
    pub fn missed(truth: &[u16]) -> Self {
        Self { pairs: 0, found: 0, truth: areas(truth).len() }
    }

    /// pairs / (pairs + found without partner + true without partner); 1 where there is nothing at all.
    ///
    /// Source: the average precision of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 16, 2019), at one overlap.
    pub fn ap50(self) -> f64 {
        match self.found + self.truth - self.pairs {
            0 => 1.0,
            all => self.pairs as f64 / all as f64,
        }
    }

    /// |found - true| / true; none where there is nothing to count.
    pub fn count_error(self) -> Option<f64> {
        super::share(self.found.abs_diff(self.truth), self.truth)
    }
}

fn areas(labels: &[u16]) -> HashMap<u16, u64> {
    let mut areas = HashMap::new();
    for label in labels.iter().filter(|label| **label != 0) {
        *areas.entry(*label).or_default() += 1;
    }
    areas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_partners_from_more_than_half_overlap_on() {
        // 1 and 5 share 2 of 3 pixels, 2 and 6 exactly half (1 of 2), 3 has no partner.
        let found = [1, 1, 1, 0, 2, 2, 0, 3];
        let truth = [5, 5, 0, 0, 6, 0, 0, 0];
        let matched = Matched::of(&found, &truth);
        assert_eq!(matched, Matched { pairs: 1, found: 3, truth: 2 });
        assert_eq!(matched.ap50(), 1.0 / 4.0);
        assert_eq!(matched.count_error(), Some(0.5));
    }

    #[test]
    fn nothing_found_where_nothing_is_is_right() {
        assert_eq!((Matched::of(&[0; 3], &[0; 3]).ap50(), Matched::of(&[0; 3], &[0; 3]).count_error()), (1.0, None));
        assert_eq!((Matched::missed(&[1, 0, 2]).ap50(), Matched::missed(&[1, 0, 2]).count_error()), (0.0, Some(1.0)));
    }
}
