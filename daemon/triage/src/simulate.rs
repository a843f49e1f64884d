//! A discrete-event simulator of a reading room: what triage does to waiting, against first come, first served.
//!
//! In: a [`SimConfig`] and a seed. Out: a [`Report`]: mean, 95th percentile and longest wait by what is truly there, at each
//! load, for three orders of the list. Promise: the same configuration and seed give the same report; the list is ordered,
//! and readers are chosen, by the very functions that the box uses.
//!
//! Cases arrive as a Poisson process and take a lognormal time to read; a reader who has begun is not interrupted. All orders
//! see the same cases, and all loads the same cases faster. Load is arrivals times mean reading time over the number of
//! readers, counting first readings. Simulated readers are always right and always on duty.

mod config;
mod report;
mod rng;
mod room;

pub use config::{RawSimConfig, SimConfig, SimError};
pub use report::{Policy, Report, Row, Truth};

use crate::worklist::{Item, Subject};
use config::{CLEAR_BELOW, SIGNIFICANT_FROM};
use fovea_core::{FindingId, Priority, ReaderGrade, Sha256, Uid, UnixMicros};
use rng::Rng;

const MINUTE_US: f64 = 60e6;

/// One simulated case.
struct Case {
    item: Item,
    truth: Truth,
    /// Time that a reading takes.
    reading_us: i64,
}

/// Runs every load under every order.
#[must_use]
pub fn simulate(config: &SimConfig, seed: u64) -> Report {
    let mut rows = Vec::new();
    for &load in &config.raw.loads {
        let cases = cases(config, load, seed);
        // The room starts empty: its first cases wait less than all that come later.
        let counted_from = cases.len() / 20;
        for policy in Policy::ALL {
            let seen = room::run(&config.triage, policy, &cases);
            rows.extend(report::rows(&config.triage, load, policy, &cases[counted_from..], &seen[counted_from..]));
        }
    }
    Report { seed, config: config.clone(), rows }
}

/// The cases of one load. Each property has its own stream, so that a change of one leaves the others as they were.
fn cases(config: &SimConfig, load: f64, seed: u64) -> Vec<Case> {
    let raw = &config.raw;
    let [mut gaps, mut truths, mut answers, mut times] = [1, 2, 3, 4].map(|stream| Rng::new(seed, stream));
    let gap_mean_min = raw.reading_mean_min / (load * f64::from(config.readers()));
    // The mean of a lognormal is exp(mu + sigma^2 / 2).
    let mu = raw.reading_mean_min.ln() - raw.reading_log_sd * raw.reading_log_sd / 2.0;
    let mut now_us = 0;
    let case = |number| {
        now_us += micros(gaps.exponential() * gap_mean_min);
        let truth = if truths.uniform() < raw.prevalence { Truth::Significant } else { Truth::NotSignificant };
        let reading_us = micros((mu + raw.reading_log_sd * times.normal()).exp());
        Case { item: item(raw, number, UnixMicros(now_us), truth, &mut answers), truth, reading_us }
    };
    (0..raw.cases).map(case).collect()
}

/// Whole milliseconds, so that no last bit of a logarithm decides which of two events came first.
fn micros(minutes: f64) -> i64 {
    (minutes * MINUTE_US / 1000.0).round() as i64 * 1000
}

/// What the box says of one case, by the model's figures.
fn item(raw: &RawSimConfig, number: u32, arrived: UnixMicros, truth: Truth, answers: &mut Rng) -> Item {
    let (answered, which, certainty) = (answers.uniform(), answers.uniform(), answers.uniform());
    let (significant, not_clear) = match truth {
        Truth::Significant => (raw.sensitivity_significant, raw.sensitivity),
        Truth::NotSignificant => (1.0 - raw.specificity, 1.0 - raw.specificity_clear),
    };
    let between = |from: f64, to: f64| Some(probability(truth, from, to, certainty));
    let (subject, priority, probability) = if answered < raw.not_analysed {
        (Subject::NotAnalysed, Priority::Routine, None)
    } else if answered < raw.not_analysed + raw.ungradable {
        (Subject::Ungradable, Priority::High, None)
    } else if which < significant {
        (Subject::Significant, Priority::Urgent, between(SIGNIFICANT_FROM, 1.0))
    } else if which < not_clear {
        (Subject::Ambiguous, Priority::High, between(CLEAR_BELOW, SIGNIFICANT_FROM))
    } else {
        (Subject::Clear, Priority::Routine, between(0.0, CLEAR_BELOW))
    };
    let senior = matches!(subject, Subject::Significant | Subject::Ambiguous);
    let number = number.to_string();
    Item {
        id: FindingId::of(&Uid::derived("simulated", &[&number]), &Sha256::of(number.as_bytes()), None),
        task: "simulated".to_owned(),
        arrived,
        subject,
        probability,
        priority,
        reader_grade: if senior { ReaderGrade::Senior } else { ReaderGrade::Any },
        readings: Vec::new(),
    }
}

/// A probability in a band, by a number spread evenly over 0 to 1: as far as a calibrated one tells the true from the others,
/// with a density that rises as p among the truly significant, and falls as 1 - p among the others.
fn probability(truth: Truth, from: f64, to: f64, evenly: f64) -> f64 {
    let rising = |from: f64, to: f64| (from * from + evenly * (to * to - from * from)).sqrt();
    match truth {
        Truth::Significant => rising(from, to),
        Truth::NotSignificant => 1.0 - rising(1.0 - to, 1.0 - from),
    }
}

#[cfg(test)]
mod tests;
