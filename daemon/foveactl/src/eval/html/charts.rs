//! Charts as SVG, and what else a page needs of text: escaping, base64.
//!
//! In: numbers. Out: markup in the page's own colours. Promise: coordinates are finite and inside the chart.

use std::fmt::Write;

const SIDE: f64 = 300.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = 290.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 262.0;

/// A square chart.
pub struct Chart {
    marks: String,
    x: (&'static str, f64),
    y: (&'static str, f64),
}

impl Chart {
    /// Both axes from 0 to 1.
    pub fn unit(x: &'static str, y: &'static str) -> Self {
        Self::new((x, 1.0), (y, 1.0))
    }

    fn new(x: (&'static str, f64), y: (&'static str, f64)) -> Self {
        Self { marks: String::new(), x, y }
    }

    /// Dots over two axes of one length.
    pub fn scatter(x: &'static str, y: &'static str, points: &[(f64, f64)]) -> Self {
        let most = points.iter().flat_map(|(x, y)| [*x, *y]).fold(1.0, f64::max);
        let mut chart = Self::new((x, most), (y, most));
        chart.diagonal();
        points.iter().for_each(|(x, y)| chart.dot(*x, *y, 3.0));
        chart
    }

    /// Values from 0 to 1, counted in tenths.
    pub fn histogram(x: &'static str, values: &[f64]) -> Self {
        let mut counts = [0u32; 10];
        values.iter().for_each(|value| counts[((value * 10.0) as usize).min(9)] += 1);
        let most = f64::from(counts.into_iter().max().unwrap_or(0).max(1));
        let mut chart = Self::new((x, 1.0), ("cases", most));
        for (bin, count) in (0u32..).zip(counts) {
            let (x0, y0) = chart.at(f64::from(bin) / 10.0, f64::from(count));
            let (x1, y1) = chart.at(f64::from(bin + 1) / 10.0, 0.0);
            let (width, height) = (x1 - x0 - 2.0, y1 - y0);
            chart.put(format_args!(
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{y0:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
                x0 + 1.0
            ));
        }
        chart
    }

    /// Where both are equal.
    pub fn diagonal(&mut self) {
        let end = self.x.1.min(self.y.1);
        let ((x0, y0), (x1, y1)) = (self.at(0.0, 0.0), self.at(end, end));
        self.put(format_args!("<path class=\"even\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}\"/>"));
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(*x, *y);
            // Writing to a String cannot fail.
            let _infallible = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        self.put(format_args!("<path class=\"line\" d=\"{path}\"/>"));
    }

    /// A dot.
    pub fn dot(&mut self, x: f64, y: f64, radius: f64) {
        let (x, y) = self.at(x, y);
        self.put(format_args!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"));
    }

    /// An upright line.
    pub fn upright(&mut self, x: f64) {
        let (x, _) = self.at(x, 0.0);
        self.put(format_args!("<path class=\"limit\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>"));
    }

    /// The chart with its axes.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        let (x, y) = (escaped(self.x.0), escaped(self.y.0));
        let _infallible = write!(
            out,
            "<svg viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"{y} over {x}\"><path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>{}",
            self.marks
        );
        for part in [0.0, 0.5, 1.0] {
            let (at_x, at_y) = self.at(self.x.1 * part, self.y.1 * part);
            let _infallible = write!(
                out,
                "<text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                BOTTOM + 14.0,
                number(self.x.1 * part),
                LEFT - 4.0,
                at_y + 4.0,
                number(self.y.1 * part)
            );
        }
        let (middle, low) = ((LEFT + RIGHT) / 2.0, SIDE - 8.0);
        let _infallible = write!(
            out,
            "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{x}</text><text transform=\"translate(10 {}) rotate(-90)\" text-anchor=\"middle\">{y}</text></svg>",
            (TOP + BOTTOM) / 2.0
        );
        out
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let part = |value: f64, most: f64| if value.is_finite() { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        (LEFT + part(x, self.x.1) * (RIGHT - LEFT), BOTTOM - part(y, self.y.1) * (BOTTOM - TOP))
    }

    fn put(&mut self, text: std::fmt::Arguments) {
        let _infallible = self.marks.write_fmt(text);
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text as it may stand in an element or an attribute.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// RFC 4648 section 4.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn what_is_outside_or_no_number_stays_inside_the_chart() {
        let chart = Chart::unit("x", "y");
        assert_eq!(chart.at(f64::NAN, 7.0), (LEFT, TOP));
        assert_eq!(chart.at(-1.0, f64::NEG_INFINITY), (LEFT, BOTTOM));
        let mut chart = Chart::scatter("true", "found", &[(0.0, 0.0), (200.0, 100.0)]);
        chart.line(&[]);
        assert!(!chart.svg().contains("NaN") && chart.svg().contains(">200<"));
        assert!(Chart::histogram("Dice", &[0.0, 1.0, 0.95]).svg().contains("<rect"));
    }
}
