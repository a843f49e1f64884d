//! The figures as lines for people, or as the last JSON line.

use super::result::{CaseResult, Summary};
use crate::table::{Table, json_line};
use fovea_core::Outcome;
use fovea_infer::Manifest;
use std::collections::BTreeMap;

/// Figures with their explanation: name, value, what it is of.
pub fn figures(summary: &Summary) -> Vec<(&'static str, String, String)> {
    let mut rows = Vec::new();
    let mut row = |name, value: Option<f64>, text: fn(f64) -> String, of: String| {
        if let Some(value) = value {
            rows.push((name, text(value), of));
        }
    };
    let (three, percent) = (|value| format!("{value:.3}"), |value| format!("{:.1} %", value * 100.0));
    let labelled = format!("{} labelled and answered cases, {} positive", summary.n_scored, summary.n_positive);
    let interval = match (summary.auc_low, summary.auc_high) {
        (Some(low), Some(high)) => format!("95 % interval {low:.3} to {high:.3}; {labelled}"),
        _ => labelled.clone(),
    };
    let (clear, significant) = (summary.clear_below, summary.significant_from);
    row("AUC", summary.auc, three, interval);
    row("sensitivity", summary.sensitivity, percent, format!("everything that is not clear (from {clear} on)"));
    row("specificity", summary.specificity, percent, format!("clear (below {clear})"));
    row("sensitivity, significant", summary.sensitivity_significant, percent, format!("from {significant} on"));
    row("specificity, significant", summary.specificity_significant, percent, format!("below {significant}"));
    row("calibration error", summary.ece, three, "10 bins of equal count".to_owned());
    row("accuracy", summary.accuracy, percent, labelled);
    row("kappa, quadratic", summary.kappa, three, "level against level".to_owned());
    row("right level", summary.level_accuracy, percent, "level against level".to_owned());
    row("Dice", summary.dice, three, format!("mean of {} cases with a mask", summary.n_masks));
    row("IoU", summary.iou, three, format!("mean of {} cases with a mask", summary.n_masks));
    row("AP at 0.5", summary.ap50, three, format!("mean of {} cases with an instance map", summary.n_instances));
    row("count error", summary.count_error, percent, "median of |found - true| / true".to_owned());
    row("ungradable", summary.ungradable_rate, percent, format!("of {} cases", summary.n));
    row("not analysed", summary.not_analysed_rate, percent, format!("of {} cases", summary.n));
    row(
        "latency",
        summary.latency_ms_p50,
        |ms| format!("{ms:.1} ms"),
        "decode, preparation and inference, median".to_owned(),
    );
    rows
}

/// How often each kind of reason was given for no answer, the most frequent first, in the words of its first case.
pub fn reasons(results: &[CaseResult]) -> Vec<(Outcome, String, usize)> {
    let mut counts: BTreeMap<(&str, bool), (&str, usize)> = BTreeMap::new();
    for result in results {
        if let Some(reason) = &result.reason {
            let key = (reason.code.as_str(), result.outcome == Outcome::Ungradable);
            counts.entry(key).or_insert((&reason.text, 0)).1 += 1;
        }
    }
    let outcome = |ungradable| if ungradable { Outcome::Ungradable } else { Outcome::NotAnalysed };
    let row = |((code, ungradable), (text, count)): ((&str, bool), (&str, usize))| {
        let more = if count > 1 { ", and the like" } else { "" };
        (outcome(ungradable), format!("{code}: {text}{more}"), count)
    };
    let mut rows: Vec<(Outcome, String, usize)> = counts.into_iter().map(row).collect();
    rows.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    rows
}

/// How an outcome without an answer is called.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finding => "finding",
        Outcome::Ungradable => "ungradable",
        Outcome::NotAnalysed => "not analysed",
    }
}

/// How many have an answer, for whoever reads figures that are of these only.
pub fn answered(summary: &Summary) -> String {
    format!("{} of {} cases were answered", summary.n_answered, summary.n)
}

/// What a person must know of the figures, beside them.
pub fn warnings(summary: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    if summary.n_answered < summary.n {
        warnings.push(answered(summary));
    }
    if summary.n_without_map > 0 {
        warnings.push(format!(
            "{} of {} cases have a mask and were read field by field, which gives no map: they are not in dice, iou, ap50 and count_error",
            summary.n_without_map, summary.n
        ));
    }
    warnings
}

/// Prints the figures; with `json` the one last line.
pub fn print(summary: &Summary, results: &[CaseResult], manifest: &Manifest, json: bool) -> anyhow::Result<()> {
    if json {
        return json_line(summary);
    }
    let name = format!("{} {}", summary.bundle, summary.version);
    let mut table = Table::new(&[&name, "", &format!("{}; research use only", answered(summary))]);
    table.row(vec!["labels".to_owned(), String::new(), manifest.labels.meaning.clone()]);
    for (name, value, of) in figures(summary) {
        table.row(vec![name.to_owned(), value, of]);
    }
    for (outcome, text, count) in reasons(results) {
        table.row(vec![outcome_word(outcome).to_owned(), count.to_string(), text]);
    }
    Ok(table.print()?)
}
