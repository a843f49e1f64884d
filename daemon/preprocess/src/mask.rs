//! Sets of pixels on a small grid.

/// A grid of booleans, row-major.
pub(crate) struct Mask {
    pub(crate) width: usize,
    pub(crate) height: usize,
    bits: Vec<bool>,
}

impl Mask {
    pub(crate) fn from_fn(width: usize, height: usize, mut inside: impl FnMut(usize, usize) -> bool) -> Self {
        let mut bits = Vec::with_capacity(width * height);
        for y in 0..height {
            bits.extend((0..width).map(|x| inside(x, y)));
        }
        Self { width, height, bits }
    }

    pub(crate) fn row(&self, y: usize) -> &[bool] {
        &self.bits[y * self.width..(y + 1) * self.width]
    }

    /// Pixels with more than half of the (at most nine) pixels around them set: takes single specks off.
    pub(crate) fn majority(&self) -> Self {
        // Votes of three neighbours in each row first, then of three rows: at the edge fewer pixels vote.
        let across = |y: usize, x: usize| {
            let row = self.row(y);
            let votes = |at: usize| u8::from(row.get(at).copied().unwrap_or(false));
            votes(x) + votes(x + 1) + if x > 0 { votes(x - 1) } else { 0 }
        };
        let sums: Vec<u8> = (0..self.height).flat_map(|y| (0..self.width).map(move |x| across(y, x))).collect();
        let along = |at: usize, length: usize| 1 + u8::from(at > 0) + u8::from(at + 1 < length);
        Self::from_fn(self.width, self.height, |x, y| {
            let at = y * self.width + x;
            let above = if y > 0 { sums[at - self.width] } else { 0 };
            let below = sums.get(at + self.width).copied().unwrap_or(0);
            2 * (sums[at] + above + below) > along(x, self.width) * along(y, self.height)
        })
    }

    /// The largest set of pixels that hang together by their sides; empty where nothing is set.
    pub(crate) fn largest_component(&self) -> Self {
        let mut label = vec![0_u32; self.bits.len()];
        let (mut best, mut best_size, mut next) = (0, 0, 0);
        let mut stack = Vec::new();
        for start in 0..self.bits.len() {
            if !self.bits[start] || label[start] != 0 {
                continue;
            }
            next += 1;
            label[start] = next;
            stack.push(start);
            let mut size = 0;
            while let Some(at) = stack.pop() {
                size += 1;
                let (x, y) = (at % self.width, at / self.width);
                let sides = [
                    (x > 0).then(|| at - 1),
                    (x + 1 < self.width).then(|| at + 1),
                    (y > 0).then(|| at - self.width),
                    (y + 1 < self.height).then(|| at + self.width),
                ];
                for side in sides.into_iter().flatten() {
                    if self.bits[side] && label[side] == 0 {
                        label[side] = next;
                        stack.push(side);
                    }
                }
            }
            if size > best_size {
                (best, best_size) = (next, size);
            }
        }
        let bits = label.iter().map(|label| best_size > 0 && *label == best).collect();
        Self { width: self.width, height: self.height, bits }
    }

    /// Pixels whose whole square of `2 * reach + 1` pixels is set; what lies outside the grid is not set.
    pub(crate) fn eroded(&self, reach: usize) -> Self {
        let mut across = vec![false; self.bits.len()];
        for y in 0..self.height {
            let mut run = 0;
            for (x, bit) in self.row(y).iter().enumerate() {
                run = if *bit { run + 1 } else { 0 };
                if run > 2 * reach {
                    across[y * self.width + x - reach] = true;
                }
            }
        }
        // Runs down all columns at once, so that memory is walked in its order.
        let mut bits = vec![false; self.bits.len()];
        let mut runs = vec![0_usize; self.width];
        for y in 0..self.height {
            let row = &across[y * self.width..(y + 1) * self.width];
            for (run, bit) in runs.iter_mut().zip(row) {
                *run = if *bit { *run + 1 } else { 0 };
            }
            if y >= 2 * reach {
                let out = &mut bits[(y - reach) * self.width..(y - reach + 1) * self.width];
                out.iter_mut().zip(&runs).for_each(|(bit, run)| *bit = *run > 2 * reach);
            }
        }
        Self { width: self.width, height: self.height, bits }
    }

    /// First and last set pixel of each row.
    pub(crate) fn row_spans(&self) -> Vec<Option<(usize, usize)>> {
        let span = |row: &[bool]| Some((row.iter().position(|bit| *bit)?, row.iter().rposition(|bit| *bit)?));
        (0..self.height).map(|y| span(self.row(y))).collect()
    }

    /// First and last set pixel of each column.
    pub(crate) fn column_spans(&self) -> Vec<Option<(usize, usize)>> {
        let mut spans: Vec<Option<(usize, usize)>> = vec![None; self.width];
        for y in 0..self.height {
            for (span, _) in spans.iter_mut().zip(self.row(y)).filter(|(_, bit)| **bit) {
                *span = Some((span.map_or(y, |(first, _)| first), y));
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeatable mask with three quarters of its pixels set.
    fn mask(width: usize, height: usize, seed: u64) -> Mask {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Mask::from_fn(width, height, |_, _| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            !state.is_multiple_of(4)
        })
    }

    fn around(mask: &Mask, x: usize, y: usize, reach: isize) -> Vec<Option<bool>> {
        let (x, y) = (x as isize, y as isize);
        let cells = (y - reach..=y + reach).flat_map(|row| (x - reach..=x + reach).map(move |column| (column, row)));
        cells
            .map(|(column, row)| {
                let inside = column >= 0 && row >= 0 && (column as usize) < mask.width && (row as usize) < mask.height;
                inside.then(|| mask.row(row as usize)[column as usize])
            })
            .collect()
    }

    #[test]
    fn majority_and_erosion_are_what_their_words_say() {
        for seed in 0..200 {
            let (width, height) = (1 + seed as usize % 9, 1 + seed as usize % 7);
            let mask = mask(width, height, seed);
            let (majority, eroded) = (mask.majority(), mask.eroded(1));
            for y in 0..height {
                for x in 0..width {
                    let cells = around(&mask, x, y, 1);
                    let set = cells.iter().filter(|cell| **cell == Some(true)).count();
                    let there = cells.iter().flatten().count();
                    assert_eq!(majority.row(y)[x], 2 * set > there, "seed={seed} {x},{y}");
                    assert_eq!(eroded.row(y)[x], set == 9, "seed={seed} {x},{y}");
                }
            }
        }
    }

    #[test]
    fn spans_and_components_are_what_their_words_say() {
        let picture = ["..##.", ".#..#", ".##..", "....#"];
        let mask = Mask::from_fn(5, 4, |x, y| picture[y].as_bytes()[x] == b'#');
        assert_eq!(mask.row_spans(), [Some((2, 3)), Some((1, 4)), Some((1, 2)), Some((4, 4))]);
        assert_eq!(mask.column_spans(), [None, Some((1, 2)), Some((0, 2)), Some((0, 0)), Some((1, 3))]);
        let largest = mask.largest_component();
        assert_eq!(largest.row_spans(), [None, Some((1, 1)), Some((1, 2)), None]);
    }
}
