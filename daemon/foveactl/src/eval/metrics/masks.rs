//! Overlap of a found and a true area.

/// Pixels of two areas of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overlap {
    /// In both.
    pub both: u64,
    /// Found.
    pub found: u64,
    /// True.
    pub truth: u64,
}

impl Overlap {
    /// Counts where the labels are not 0; both row by row and of one length.
    pub fn of(found: &[u16], truth: &[u16]) -> Self {
        let mut overlap = Self::default();
        for (found, truth) in found.iter().zip(truth) {
            overlap.found += u64::from(*found != 0);
            overlap.truth += u64::from(*truth != 0);
            overlap.both += u64::from(*found != 0 && *truth != 0);
        }
        overlap
    }

    /// Nothing was found in a frame with this truth.
    pub fn missed(truth: &[u16]) -> Self {
        Self { both: 0, found: 0, truth: truth.iter().filter(|label| **label != 0).count() as u64 }
    }

    /// 2 x both / (found + true); 1 where both are empty.
    pub fn dice(self) -> f64 {
        match self.found + self.truth {
            0 => 1.0,
            sum => 2.0 * self.both as f64 / sum as f64,
        }
    }

    /// both / (found or true); 1 where both are empty.
    pub fn iou(self) -> f64 {
        match self.found + self.truth - self.both {
            0 => 1.0,
            either => self.both as f64 / either as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_by_hand() {
        let overlap = Overlap::of(&[1, 1, 0, 0, 7], &[0, 2, 2, 0, 1]);
        assert_eq!(overlap, Overlap { both: 2, found: 3, truth: 3 });
        assert_eq!((overlap.dice(), overlap.iou()), (4.0 / 6.0, 0.5));
    }

    #[test]
    fn nothing_found_where_nothing_is_is_right_and_anything_else_is_wrong() {
        assert_eq!((Overlap::of(&[0; 4], &[0; 4]).dice(), Overlap::of(&[0; 4], &[0; 4]).iou()), (1.0, 1.0));
        assert_eq!((Overlap::of(&[1; 4], &[0; 4]).dice(), Overlap::missed(&[1; 4]).iou()), (0.0, 0.0));
        assert_eq!(Overlap::missed(&[0; 4]).dice(), 1.0);
    }
}
