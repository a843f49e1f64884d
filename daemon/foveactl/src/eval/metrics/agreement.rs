//! How far found and true classes or levels agree.

/// Counts of cases: rows are true, columns found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confusion {
    /// `counts[is][found]`.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts pairs of (true, found), each below `classes`; others are left out.
    pub fn of(classes: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (is, found) in pairs {
            if let Some(cell) = counts.get_mut(is).and_then(|row| row.get_mut(found)) {
                *cell += 1;
            }
        }
        Self { counts }
    }

    /// All cases.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Share of cases found as what they are. None for nothing.
    pub fn accuracy(&self) -> Option<f64> {
        super::share((0..self.counts.len()).map(|class| self.counts[class][class]).sum(), self.total())
    }

    /// Cohen's kappa with quadratic weights: 1 - (sum of (i - j)^2 counted) / (the same sum if found and true were independent).
    /// None where all cases have one and the same level both times.
    pub fn quadratic_kappa(&self) -> Option<f64> {
        let total = self.total() as f64;
        let classes = self.counts.len();
        let is: Vec<f64> = self.counts.iter().map(|row| row.iter().sum::<usize>() as f64).collect();
        let found: Vec<f64> =
            (0..classes).map(|j| self.counts.iter().map(|row| row[j]).sum::<usize>() as f64).collect();
        let (mut counted, mut by_chance) = (0.0, 0.0);
        for (i, row) in self.counts.iter().enumerate() {
            for (j, count) in row.iter().enumerate() {
                let weight = i.abs_diff(j).pow(2) as f64;
                counted += weight * *count as f64;
                by_chance += weight * is[i] * found[j] / total;
            }
        }
        (by_chance > 0.0).then(|| 1.0 - counted / by_chance)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn kappa_by_hand() {
        let confusion = Confusion::of(3, [(0, 0), (0, 1), (1, 1), (2, 2)]);
        // is = 2,1,1; found = 1,2,1: by chance (2*2 + 2*1*4 + 1*1 + 1*1 + 1*1*4 + 1*2) / 4 = 20/4 = 5; counted 1.
        assert_eq!(confusion.quadratic_kappa(), Some(1.0 - 1.0 / 5.0));
        assert_eq!(confusion.accuracy(), Some(0.75));
        assert_eq!(Confusion::of(3, [(1, 1), (1, 1)]).quadratic_kappa(), None);
        assert_eq!(Confusion::of(3, []).accuracy(), None);
        assert_eq!(Confusion::of(2, [(0, 1), (1, 0)]).quadratic_kappa(), Some(-1.0));
    }

    #[test]
    fn kappa_and_accuracy_are_those_of_scikit_learn() {
        let confusion = Confusion::of(5, fixture::levels());
        assert_eq!(confusion.total(), 200);
        let kappa = confusion.quadratic_kappa().unwrap();
        assert!((kappa - 0.858_592_148_621_049).abs() < 1e-12, "{kappa}");
        assert_eq!(confusion.accuracy(), Some(0.455));
    }
}
