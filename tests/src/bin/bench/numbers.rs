//! Medians, percentiles, and the table.

/// One line of the table: what was measured, the figure, beside what, and what the design asks for.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// What.
    pub what: String,
    /// Our figure, with its unit.
    pub ours: String,
    /// The peer's, or where ours comes from.
    pub beside: String,
    /// Ours by the peer's.
    pub ratio: Option<f64>,
    /// What the design asks for.
    pub wanted: String,
}

impl Row {
    /// A line with one figure.
    pub fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self { what: what.into(), ours: ours.into(), ..Self::default() }
    }

    /// Beside a peer.
    pub fn beside(mut self, beside: impl Into<String>, ratio: f64) -> Self {
        self.beside = beside.into();
        self.ratio = Some(ratio);
        self
    }

    /// With a remark in the place of a peer.
    pub fn remark(mut self, remark: impl Into<String>) -> Self {
        self.beside = remark.into();
        self
    }

    /// With what the design asks for.
    pub fn wanted(mut self, wanted: &str) -> Self {
        wanted.clone_into(&mut self.wanted);
        self
    }
}

/// The value below which a share of `values` lies, 0 to 1, by nearest rank. 0 where there are none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The least and the greatest, for a spread beside a median.
pub fn spread(values: &[f64]) -> (f64, f64) {
    (percentile(values, 0.0), percentile(values, 1.0))
}

/// Prints the table in columns as wide as their widest cell.
pub fn print(rows: &[Row]) {
    let head = ["what", "ours", "beside", "ratio", "wanted"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        [row.what.clone(), row.ours.clone(), row.beside.clone(), ratio, row.wanted.clone()]
    });
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    for (number, line) in lines.iter().enumerate() {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", padded.join(" | "));
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=50).map(f64::from).rev().collect();
        assert_eq!((median(&values), percentile(&values, 0.99), percentile(&values, 0.0)), (25.0, 50.0, 1.0));
        assert_eq!(median(&[]), 0.0);
    }
}
