//! The order of the worklist, and in words why an item stands where it stands.
//!
//! In: items, the longest waits, a moment. Out: their order. Promise: pure; a total order that does not depend on the order
//! of the input; nobody starves: once an item is due (three quarters of its longest wait, unless configured otherwise) only
//! items with an earlier deadline go before it, and of those no new ones can come for ever.

use crate::config::Config;
use crate::reading::{Reading, Stage};
use fovea_core::{Band, Finding, FindingId, Outcome, Priority, ReaderGrade, UnixMicros};
use serde::Serialize;
use std::fmt;

const MINUTE_US: u64 = 60_000_000;
/// Parts of one priority level in a score.
const LEVEL: f64 = 1_000_000.0;
/// What certainty counts within a band, in levels: below 1, so that at equal age no probability lifts an item over a level.
const PROBABILITY_LEVELS: f64 = 0.9;

/// What the box says of an item, in the word that a reader's list shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Significant band.
    Significant,
    /// Ambiguous band.
    Ambiguous,
    /// Clear band.
    Clear,
    /// The picture is not good enough.
    Ungradable,
    /// No model looked.
    NotAnalysed,
}

/// One open item: a finding that no person has settled.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// The finding.
    pub id: FindingId,
    /// Its task, empty where no model was eligible.
    pub task: String,
    /// When the object's last byte came: from then on a patient waits.
    pub arrived: UnixMicros,
    /// What the box says.
    pub subject: Subject,
    /// Of a model's answer; whatever is no probability counts as 0.
    pub probability: Option<f64>,
    /// How soon.
    pub priority: Priority,
    /// Who at least.
    pub reader_grade: ReaderGrade,
    /// Readings so far, oldest first.
    pub readings: Vec<Reading>,
}

impl Item {
    /// The item of a finding that nobody has read.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        let subject = match (finding.outcome, finding.band) {
            (Outcome::Finding, Some(Band::Significant)) => Subject::Significant,
            (Outcome::Finding, Some(Band::Ambiguous)) => Subject::Ambiguous,
            (Outcome::Finding, Some(Band::Clear)) => Subject::Clear,
            (Outcome::Ungradable, _) => Subject::Ungradable,
            (Outcome::NotAnalysed, _) | (Outcome::Finding, None) => Subject::NotAnalysed,
        };
        let recorded_us = i64::try_from(finding.timing_us.recorded).unwrap_or(i64::MAX);
        Self {
            id: finding.finding_id.clone(),
            task: finding.task.clone(),
            arrived: UnixMicros(finding.recorded_at_unix_us.0.saturating_sub(recorded_us)),
            subject,
            probability: finding.probability,
            priority: finding.priority,
            reader_grade: finding.reader_grade,
            readings: Vec::new(),
        }
    }

    /// Which reading comes next, by how many there were.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.readings.len() {
            0 => Stage::First,
            1 => Stage::Second,
            _ => Stage::Adjudication,
        }
    }
}

/// Where an item stands among others at one moment; the lesser goes first, and on a tie the lesser id.
///
/// Due items go first, by deadline; all others by score, greatest first; then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    not_due: bool,
    /// Deadline in microseconds of a due item; of others the score, negative so that the greatest is least.
    key: i64,
    arrived: UnixMicros,
}

impl Rank {
    /// The rank of `item` at `now`.
    #[must_use]
    pub fn of(config: &Config, item: &Item, now: UnixMicros) -> Self {
        let not_due = !is_due(config, item, now);
        let key = if not_due { -score(config, item, now) } else { deadline(config, item).0 };
        Self { not_due, key, arrived: item.arrived }
    }

    /// First come, first served: what a list without triage does.
    pub(crate) fn of_arrival(item: &Item) -> Self {
        Self { not_due: true, key: 0, arrived: item.arrived }
    }
}

/// When the longest wait of `item` is over.
#[must_use]
pub fn deadline(config: &Config, item: &Item) -> UnixMicros {
    let wait_max_us = wait_max_us(config, item).cast_signed();
    UnixMicros(item.arrived.0.saturating_add(wait_max_us))
}

/// From when on `item` goes before all that are not due.
#[must_use]
pub fn due_from(config: &Config, item: &Item) -> UnixMicros {
    let due_after_us = wait_max_us(config, item) / 100 * u64::from(config.due_at_percent);
    UnixMicros(item.arrived.0.saturating_add(due_after_us.cast_signed()))
}

/// Whether `item` goes before all that are not due.
#[must_use]
pub fn is_due(config: &Config, item: &Item, now: UnixMicros) -> bool {
    now >= due_from(config, item)
}

/// Below 2^40: minutes are bounded.
fn wait_max_us(config: &Config, item: &Item) -> u64 {
    u64::from(config.wait_max_min(item.priority)) * MINUTE_US
}

/// Priority score of an item that is not due, in millionths of a level, 0 to 4.9 levels.
///
/// Level of the priority (routine 0, high 1, urgent 2), plus 0.9 times the probability, plus the levels of ageing times
/// the share of the longest wait that is over.
#[must_use]
pub fn score(config: &Config, item: &Item, now: UnixMicros) -> i64 {
    let level = match item.priority {
        Priority::Routine => 0.0,
        Priority::High => 1.0,
        Priority::Urgent => 2.0,
    };
    // A NaN is in no range, so it becomes 0.
    let probability = item.probability.filter(|probability| (0.0..=1.0).contains(probability)).unwrap_or(0.0);
    let waited = now.since(item.arrived) as f64 / wait_max_us(config, item) as f64;
    let levels = level + PROBABILITY_LEVELS * probability + config.ageing_levels * waited.min(1.0);
    (levels * LEVEL).round() as i64
}

/// An item's place in a worklist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Place {
    /// Which of the items that were given.
    pub index: usize,
    /// Why it stands there.
    pub why: Why,
}

/// The order of `items` at `now`, first to be read first. Each item has exactly one place.
#[must_use]
pub fn order(config: &Config, items: &[Item], now: UnixMicros) -> Vec<Place> {
    order_of(config, items, 0..items.len(), now)
}

/// The same for some of the items, by index.
pub(crate) fn order_of(
    config: &Config,
    items: &[Item],
    some: impl Iterator<Item = usize>,
    now: UnixMicros,
) -> Vec<Place> {
    let mut ranked: Vec<(Rank, usize)> = some.map(|index| (Rank::of(config, &items[index], now), index)).collect();
    // The index comes last: two entries of one finding keep the order in which they were given.
    ranked.sort_unstable_by(|(one, a), (other, b)| {
        one.cmp(other).then_with(|| items[*a].id.cmp(&items[*b].id)).then(a.cmp(b))
    });
    ranked.into_iter().map(|(_, index)| Place { index, why: Why::of(config, &items[index], now) }).collect()
}

/// Why an item stands where it stands, for the reader's list. As text, in English: `significant, waiting 12 min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Why {
    /// What the box says.
    pub subject: Subject,
    /// Which reading is asked for.
    pub stage: Stage,
    /// Whole minutes since arrival.
    pub waited_min: u64,
    /// The longest wait, minutes; only of an item that is due.
    pub wait_max_min: Option<u32>,
}

impl Why {
    /// Says it of `item` at `now`.
    #[must_use]
    pub fn of(config: &Config, item: &Item, now: UnixMicros) -> Self {
        Self {
            subject: item.subject,
            stage: item.stage(),
            waited_min: now.since(item.arrived) / MINUTE_US,
            wait_max_min: is_due(config, item, now).then(|| config.wait_max_min(item.priority)),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::First => "",
            Stage::Second => "second reading, ",
            Stage::Adjudication => "two readers differ, ",
        })?;
        f.write_str(match self.subject {
            Subject::Significant => "significant",
            Subject::Ambiguous => "ambiguous",
            Subject::Clear => "clear",
            Subject::Ungradable => "ungradable",
            Subject::NotAnalysed => "not analysed",
        })?;
        write!(f, ", waiting {}", Minutes(self.waited_min))?;
        match self.wait_max_min.map(u64::from) {
            None => Ok(()),
            Some(limit) if self.waited_min >= limit => write!(f, ", past the limit of {}", Minutes(limit)),
            Some(limit) => write!(f, " of at most {}", Minutes(limit)),
        }
    }
}

/// `12 min`, `2 h`, `2 h 5 min`.
struct Minutes(u64);

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 60, self.0 % 60) {
            (0, minutes) => write!(f, "{minutes} min"),
            (hours, 0) => write!(f, "{hours} h"),
            (hours, minutes) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

#[cfg(test)]
#[path = "worklist_tests.rs"]
mod tests;
