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

    pub(crate) fn at(&self, x: usize, y: usize) -> bool {
        self.bits[y * self.width + x]
    }

    pub(crate) fn row(&self, y: usize) -> &[bool] {
        &self.bits[y * self.width..(y + 1) * self.width]
    }

    /// Pixels with at least five of the nine around them set: takes single specks off and rounds nothing away.
    pub(crate) fn majority(&self) -> Self {
        Self::from_fn(self.width, self.height, |x, y| {
            let rows = y.saturating_sub(1)..(y + 2).min(self.height);
            let columns = x.saturating_sub(1)..(x + 2).min(self.width);
            // At the edge fewer than nine pixels vote.
            let voters = rows.len() * columns.len();
            let votes: usize = rows.map(|row| columns.clone().filter(|column| self.at(*column, row)).count()).sum();
            votes * 2 > voters
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
        let across = self.eroded_rows(reach).transposed();
        across.eroded_rows(reach).transposed()
    }

    fn eroded_rows(&self, reach: usize) -> Self {
        let mut bits = vec![false; self.bits.len()];
        for y in 0..self.height {
            let mut run = 0;
            for (x, bit) in self.row(y).iter().enumerate() {
                run = if *bit { run + 1 } else { 0 };
                if run > 2 * reach {
                    bits[y * self.width + x - reach] = true;
                }
            }
        }
        Self { width: self.width, height: self.height, bits }
    }

    fn transposed(&self) -> Self {
        Self::from_fn(self.height, self.width, |x, y| self.at(y, x))
    }

    /// First and last set pixel of each row.
    pub(crate) fn row_spans(&self) -> Vec<Option<(usize, usize)>> {
        let span = |row: &[bool]| Some((row.iter().position(|bit| *bit)?, row.iter().rposition(|bit| *bit)?));
        (0..self.height).map(|y| span(self.row(y))).collect()
    }

    /// First and last set pixel of each column.
    pub(crate) fn column_spans(&self) -> Vec<Option<(usize, usize)>> {
        self.transposed().row_spans()
    }
}
