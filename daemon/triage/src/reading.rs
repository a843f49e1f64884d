//! What is still to be read of one item: first, second, and the third reading that decides.
//!
//! In: the task's rule, what the model said, the readings so far. Out: the next reading and who may do it, or the call.
//! Promise: total and repeatable; every item ends after at most three readings; a reading by someone below the asked grade
//! never ends an item alone.

use crate::config::{Config, Rule, SecondRead};
use crate::reader::Grade;
use crate::worklist::{Item, Subject};
use fovea_core::FindingId;
use serde::{Deserialize, Serialize};

/// What a reader says, as far as a referral hangs on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// What was looked for is there.
    Positive,
    /// It is not.
    Negative,
    /// The picture does not say.
    Ungradable,
}

/// One reading that was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Who, an account.
    pub reader: String,
    /// The grade that the reader had then.
    pub grade: Grade,
    /// What.
    pub call: Call,
}

/// Which reading it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The first.
    First,
    /// The second, without sight of the first.
    Second,
    /// The third, which decides between two that differ.
    Adjudication,
}

/// What comes next for one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A reading.
    Read {
        /// Which.
        stage: Stage,
        /// Least grade of its reader.
        grade: Grade,
    },
    /// Nothing: this is the call.
    Done(Call),
}

/// What comes next for `item`.
///
/// - First: senior for what the finding asks a senior for, else any grade.
/// - Second, when the rule asks for one, and always when the first reader was below the grade asked for.
/// - Adjudication, when two differ or both were below the grade: the third reader's call stands, whatever it is.
#[must_use]
pub fn next_step(config: &Config, item: &Item) -> Step {
    let rule = config.rule(&item.task);
    let asked = Grade::from(item.reader_grade);
    match item.readings.as_slice() {
        [] => Step::Read { stage: Stage::First, grade: asked },
        [first] if first.grade < asked => Step::Read { stage: Stage::Second, grade: asked.max(rule.second_grade) },
        [first] if second_asked(rule, item, first.call) => {
            Step::Read { stage: Stage::Second, grade: rule.second_grade }
        }
        [only] => Step::Done(only.call),
        // Two who agree but were both below the grade settle nothing either.
        [first, second] if first.call != second.call || first.grade.max(second.grade) < asked => {
            Step::Read { stage: Stage::Adjudication, grade: asked.max(rule.adjudicator_grade) }
        }
        [_, second] => Step::Done(second.call),
        [_, _, third, ..] => Step::Done(third.call),
    }
}

fn second_asked(rule: &Rule, item: &Item, first: Call) -> bool {
    let by_rule = match rule.second_read {
        SecondRead::Never => false,
        SecondRead::Significant => item.subject == Subject::Significant,
        SecondRead::NotClear => matches!(item.subject, Subject::Significant | Subject::Ambiguous),
        SecondRead::Always => true,
    };
    let opposite =
        matches!((item.subject, first), (Subject::Significant, Call::Negative) | (Subject::Clear, Call::Positive));
    by_rule || (rule.if_model_differs && opposite) || sampled(&item.id, rule.sample_percent)
}

/// Whether an item is in the sample: by its id, so that it is in it or not however often it is asked.
fn sampled(id: &FindingId, percent: u32) -> bool {
    // The id is 32 hexadecimal digits of a SHA-256 behind `f-`; the last eight are a number spread evenly.
    let digits = id.as_str().as_bytes().iter().rev().take(8);
    let number =
        digits.fold(0_u64, |number, digit| number * 16 + u64::from((*digit as char).to_digit(16).unwrap_or(0)));
    number % 100 < u64::from(percent)
}
