//! The page of an evaluation: one file, no request to anywhere, readable on a phone and in the dark.
//!
//! In: figures and results. Out: HTML with its charts (SVG) and pictures (PNG) inside.
//! Promise: all text from outside is escaped; the page says that it is for research and what every figure is of.

mod charts;
mod target;

pub use target::Target;

use super::metrics::calibration;
use super::report::{answered, figures, outcome_word, reasons};
use super::result::{CaseResult, Ruler, Summary, confusion, scored};
use crate::eval::metrics::auc::roc;
use charts::{Chart, escaped};
use fovea_core::Outcome;
use fovea_infer::Manifest;
use std::fmt::Write;

/// Pictures on the page.
const WORST: usize = 20;
/// Most of them without an answer, where there are others: a site whose pictures are often turned away shall see wrong answers too.
const WORST_UNANSWERED: usize = 10;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b2530;--soft:#5b6875;--line:#d5dbe1;--ground:#fff;--card:#f5f7f9;--mark:#0b63b0;--warn:#b65c00}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9aa8b5;--line:#33404c;--ground:#12181e;--card:#1b232b;--mark:#6db3f2;--warn:#f0a050}}
*{box-sizing:border-box}body{margin:0 auto;max-width:70rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground)}
h1{font-size:1.4rem;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.soft{color:var(--soft)}
.note{border-left:4px solid var(--warn);padding:.4rem .8rem;background:var(--card)}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap;font-weight:600}.wide{overflow-x:auto}
.matrix td,.matrix th{text-align:center;padding:.4rem .6rem;border:1px solid var(--line)}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,18rem),1fr))}
.grid>div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.8rem;min-width:0;overflow-wrap:anywhere}
.grid img{width:100%;height:auto;display:block;border-radius:4px;image-rendering:auto}
.grid h3{font-size:1rem;margin:0 0 .4rem}svg{width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .axis{stroke:var(--line);fill:none}svg .even{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
svg .line{stroke:var(--mark);stroke-width:2;fill:none}svg .dot{fill:var(--mark)}svg .bar{fill:var(--mark)}svg .limit{stroke:var(--warn);fill:none}";

/// What the page shows.
pub struct Page<'a> {
    /// The bundle.
    pub manifest: &'a Manifest,
    /// What it was measured with.
    pub ruler: &'a Ruler,
    /// The figures.
    pub summary: &'a Summary,
    /// Every case.
    pub results: &'a [CaseResult],
}

/// Writes the page; `picture` makes a PNG of a case, by its number.
pub fn page(page: &Page, picture: impl Fn(usize) -> Option<Vec<u8>>) -> String {
    let (summary, manifest) = (page.summary, page.manifest);
    let title = escaped(&format!("{} {}: evaluation", summary.bundle, summary.version));
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
        ),
    );
    put(&mut out, format_args!("{}", target::MARK));
    // Nothing is ever fetched, whatever a file name holds.
    put(
        &mut out,
        format_args!(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        ),
    );
    put(&mut out, format_args!("<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"));
    put(&mut out, format_args!("<p>{}</p>", escaped(&manifest.description)));
    put(
        &mut out,
        format_args!(
            "<p class=\"soft\">{}. Labels: {}. Manifest SHA-256 {}.</p>",
            answered(summary),
            escaped(&manifest.labels.meaning),
            escaped(&summary.sha256)
        ),
    );
    put(
        &mut out,
        format_args!(
            "<p class=\"note\">Research use only, not a medical device. These figures hold for these pictures, and for others only as far as they are alike.</p>"
        ),
    );
    headline(&mut out, page);
    diagrams(&mut out, page);
    matrix(&mut out, page);
    unanswered(&mut out, page);
    worst(&mut out, page, picture);
    out.push_str("</body></html>\n");
    out
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _infallible = out.write_fmt(text);
    out.push('\n');
}

fn headline(out: &mut String, page: &Page) {
    out.push_str("<h2>Figures</h2><div class=\"wide\"><table>\n");
    for (name, value, of) in figures(page.summary) {
        put(
            out,
            format_args!(
                "<tr><td>{name}</td><td class=\"n\">{}</td><td class=\"soft\">{}</td></tr>",
                escaped(&value),
                escaped(&of)
            ),
        );
    }
    out.push_str("</table></div>\n");
}

fn diagrams(out: &mut String, page: &Page) {
    out.push_str("<h2>Charts</h2><div class=\"grid\">\n");
    let scored = scored(page.results, &page.ruler.meaning);
    let curve: Vec<(f64, f64)> =
        roc(&scored).iter().map(|point| (point.false_positive_rate, point.sensitivity)).collect();
    if !curve.is_empty() {
        let mut chart = Chart::unit("1 - specificity", "sensitivity");
        chart.diagonal();
        chart.line(&curve);
        if let (Some(sensitivity), Some(specificity)) = (page.summary.sensitivity, page.summary.specificity) {
            chart.dot(1.0 - specificity, sensitivity, 5.0);
        }
        card(out, "ROC", &chart.svg(), "The dot is the threshold of the clear band.");
    }
    let pairs: Vec<(f64, bool)> = scored.iter().map(|case| (case.probability, case.positive)).collect();
    let bins = calibration::bins(&pairs);
    if !bins.is_empty() {
        let mut chart = Chart::unit("probability", "share of positives");
        chart.diagonal();
        chart.line(&bins.iter().map(|bin| (bin.said, bin.was)).collect::<Vec<_>>());
        bins.iter().for_each(|bin| chart.dot(bin.said, bin.was, 4.0));
        chart.upright(page.summary.clear_below);
        chart.upright(page.summary.significant_from);
        card(
            out,
            "Calibration",
            &chart.svg(),
            "Ten bins of equal count; on the diagonal a probability means what it says. Upright: the thresholds of the bands.",
        );
    }
    let dice: Vec<f64> =
        page.results.iter().filter_map(|result| result.overlap).map(|overlap| overlap.dice()).collect();
    if !dice.is_empty() {
        card(out, "Dice", &Chart::histogram("Dice", &dice).svg(), "Cases by overlap with the site's masks, in tenths.");
    }
    let counts: Vec<(f64, f64)> =
        page.results.iter().filter_map(|result| result.matched).map(|m| (m.truth as f64, m.found as f64)).collect();
    if !counts.is_empty() {
        card(
            out,
            "Counts",
            &Chart::scatter("true", "found", &counts).svg(),
            "Each dot is a case; on the diagonal the count is right.",
        );
    }
    out.push_str("</div>\n");
}

fn card(out: &mut String, title: &str, svg: &str, says: &str) {
    put(out, format_args!("<div><h3>{title}</h3>{svg}<p class=\"soft\">{says}</p></div>"));
}

fn matrix(out: &mut String, page: &Page) {
    let Some((words, confusion)) = confusion(page.results, page.ruler) else { return };
    out.push_str("<h2>True against found</h2><div class=\"wide\"><table class=\"matrix\"><tr><th>is \\ found</th>\n");
    words.iter().for_each(|word| put(out, format_args!("<th>{}</th>", escaped(word))));
    out.push_str("</tr>");
    for (word, row) in words.iter().zip(&confusion.counts) {
        put(out, format_args!("<tr><th>{}</th>", escaped(word)));
        let all = row.iter().sum::<usize>().max(1) as f64;
        for count in row {
            let share = (*count as f64 / all * 60.0).round();
            put(
                out,
                format_args!(
                    "<td style=\"background:color-mix(in srgb,var(--mark) {share}%,transparent)\">{count}</td>"
                ),
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    if words.len() == 2 {
        out.push_str("<p class=\"soft\">Positive from a probability of 0.5 on.</p>\n");
    }
}

fn unanswered(out: &mut String, page: &Page) {
    let reasons = reasons(page.results);
    if reasons.is_empty() {
        return;
    }
    out.push_str("<h2>Without an answer</h2><div class=\"wide\"><table>\n");
    for (outcome, text, count) in reasons {
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td class=\"n\">{count}</td><td>{}</td></tr>",
                outcome_word(outcome),
                escaped(&text)
            ),
        );
    }
    out.push_str("</table></div>\n");
}

fn worst(out: &mut String, page: &Page, picture: impl Fn(usize) -> Option<Vec<u8>>) {
    let wrong = |(number, result): (usize, &CaseResult)| Some((number, result.wrongness(&page.ruler.meaning)?));
    let mut worst: Vec<(usize, f64)> = page.results.iter().enumerate().filter_map(wrong).collect();
    worst.sort_by(|a, b| b.1.total_cmp(&a.1));
    let is_answered = |number: usize| page.results[number].outcome == Outcome::Finding;
    let answered = worst.iter().filter(|(number, _)| is_answered(*number)).count();
    let mut room = WORST_UNANSWERED.max(WORST.saturating_sub(answered));
    worst.retain(|(number, _)| {
        let is_shown = is_answered(*number) || room > 0;
        room -= usize::from(is_shown && !is_answered(*number));
        is_shown
    });
    if worst.is_empty() {
        return;
    }
    out.push_str("<h2>The worst cases</h2><p class=\"soft\">Farthest from their label or mask first, at most half of them without an answer where there are others. Orange: found. Blue: as the site drew it.</p><div class=\"grid\">\n");
    for (number, _) in worst.into_iter().take(WORST) {
        let result = &page.results[number];
        put(out, format_args!("<div><h3>{}</h3>", escaped(&result.file)));
        match picture(number) {
            Some(png) => put(
                out,
                format_args!(
                    "<img alt=\"{}\" src=\"data:image/png;base64,{}\">",
                    escaped(&result.file),
                    charts::base64(&png)
                ),
            ),
            None => put(out, format_args!("<p class=\"soft\">No preview of this file.</p>")),
        }
        put(out, format_args!("<p>{}</p></div>", escaped(&says(result, page.ruler))));
    }
    out.push_str("</div>\n");
}

fn says(result: &CaseResult, ruler: &Ruler) -> String {
    let mut parts = Vec::new();
    if let Some(truth) = result.truth {
        parts.push(format!("label {}", ruler.meaning.word(truth)));
    }
    if let (Outcome::Finding, Some(probability)) = (result.outcome, result.probability) {
        parts.push(format!("probability {probability:.3}"));
    }
    if let Some(reason) = &result.reason {
        parts.push(format!("{}: {}", outcome_word(result.outcome), reason.text));
    }
    if let Some(level) = result.level {
        parts.push(format!("level {level}"));
    }
    if let Some(class) = result.class().and_then(|class| ruler.classes.get(class)) {
        parts.push(class.clone());
    }
    if let Some(overlap) = result.overlap {
        parts.push(format!("Dice {:.3}", overlap.dice()));
    }
    if let Some(matched) = result.matched {
        parts.push(format!("{} of {} found, AP {:.3}", matched.found, matched.truth, matched.ap50()));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::labels::{Meaning, Truth};
    use fovea_infer::Bands;

    #[test]
    fn what_a_site_writes_cannot_become_markup_and_nothing_is_fetched() {
        let result = CaseResult {
            file: "<script>alert(1)</script>\"'&.png".to_owned(),
            truth: Some(Truth::Binary(true)),
            group: None,
            outcome: Outcome::Finding,
            reason: None,
            probability: Some(0.1),
            level: None,
            classes: Vec::new(),
            fit_probability: None,
            overlap: None,
            matched: None,
            without_map: false,
            latency_us: 1,
        };
        let bands = Bands { clear_below: 0.3, significant_from: 0.7 };
        let ruler = Ruler { meaning: Meaning::Binary, bands, classes: Vec::new(), outlines: false, counts: false };
        let toml =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../image/models/dr-screening/bundle/bundle.toml"));
        let manifest = Manifest::parse(&toml.unwrap()).unwrap();
        let model = fovea_core::ModelRef { id: "x".into(), version: "1".into(), sha256: fovea_core::Sha256::of(b"") };
        let negative = CaseResult { truth: Some(Truth::Binary(false)), file: "b".to_owned(), ..result.clone() };
        let unanswered = CaseResult {
            file: "turned-away".to_owned(),
            outcome: Outcome::Ungradable,
            reason: Some(fovea_core::Reason::new("dark", "the picture is <dark>", "")),
            probability: None,
            ..result.clone()
        };
        let mut results = vec![result, negative];
        results.extend(std::iter::repeat_n(unanswered, 30));
        let summary = Summary::of(&results, &ruler, &model);
        let html = page(&Page { manifest: &manifest, ruler: &ruler, summary: &summary, results: &results }, |_| {
            Some(vec![1, 2])
        });
        assert!(
            !html.contains("<script") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;.png")
        );
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("src=\"/"));
        // Both answered ones, and as many of the others as there is room for.
        assert_eq!(html.matches("<h3>turned-away</h3>").count(), 18);
        assert_eq!(html.matches("<img ").count(), 20);
        for part in [
            "label 1 \u{b7} ungradable: the picture is &lt;dark&gt;",
            "2 of 32 cases were answered",
            "Research use only",
            "ROC",
            "Calibration",
            "True against found",
            "data:image/png;base64,AQI=",
            "prefers-color-scheme",
        ] {
            assert!(html.contains(part), "{part}");
        }
    }
}
