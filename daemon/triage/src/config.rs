//! The section `[triage]`: how long who may wait, who reads what and when, and what is read twice.
//!
//! In: the raw section. Out: a [`Config`] that can be used without asking again, or an error that names the key.
//! Promise: without the section nothing is asked of a site: everything is open to any reader, or to any senior one, as the
//! band says. Thresholds are not here: they belong to the bundle that was calibrated with them.

use crate::reader::{Grade, RawReader, Reader, readers};
use fovea_core::Priority;
use serde::Deserialize;
use std::collections::HashSet;

/// A week: who waits longer is not waiting any more.
const WAIT_MIN_MAX: u32 = 7 * 24 * 60;
/// Rules, one a task.
const RULES_MAX: usize = 64;
/// Characters of a task's name.
const TASK_CHARS_MAX: usize = 64;
/// Stands for every task without a rule of its own.
const EVERY_TASK: &str = "*";

/// `[triage]` as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Longest wait of an urgent item, minutes, 1 to 10080.
    pub urgent_wait_max_min: u32,
    /// The same of one with high priority; not below the urgent one's.
    pub high_wait_max_min: u32,
    /// The same of a routine one; not below the high one's.
    pub routine_wait_max_min: u32,
    /// Share of the longest wait after which an item goes before all that are not so far, percent, 50 to 100.
    pub due_at_percent: u32,
    /// Priority levels that an item climbs, evenly, from its arrival to its longest wait, 0 to 2.
    pub ageing_levels: f64,
    /// Offset from UTC of duty hours, for readers who state none.
    pub utc_offset: Option<String>,
    /// Who reads; empty: whoever signs in.
    pub readers: Vec<RawReader>,
    /// What is read twice.
    pub rules: Vec<RawRule>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            urgent_wait_max_min: 60,
            high_wait_max_min: 120,
            routine_wait_max_min: 240,
            due_at_percent: 75,
            ageing_levels: 1.0,
            utc_offset: None,
            readers: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// Which items two people read, each without the other's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondRead {
    /// None.
    #[default]
    Never,
    /// Those that the model calls significant.
    Significant,
    /// Those, and ambiguous ones.
    NotClear,
    /// All, also those without an answer of a model.
    Always,
}

/// One `[[triage.rules]]` as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// The task, or `*` for every task without a rule of its own.
    pub task: String,
    /// What is read twice.
    #[serde(default)]
    pub second_read: SecondRead,
    /// Of all others, the share that is read twice all the same, to measure readers; percent, 0 to 100.
    #[serde(default)]
    pub second_read_sample_percent: u32,
    /// Whether a reader who says the opposite of the model's band calls in a second one.
    #[serde(default)]
    pub second_read_if_model_differs: bool,
    /// Least grade of the second reader.
    #[serde(default)]
    pub second_reader_grade: Grade,
    /// Least grade of the third, who decides where two differ.
    #[serde(default = "senior")]
    pub adjudicator_grade: Grade,
}

fn senior() -> Grade {
    Grade::Senior
}

/// Checked rule of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    task: String,
    /// What is read twice.
    pub second_read: SecondRead,
    /// Share of all others that is, percent, at most 100.
    pub sample_percent: u32,
    /// A reader who contradicts the model calls in a second one.
    pub if_model_differs: bool,
    /// Least grade of the second reader.
    pub second_grade: Grade,
    /// Least grade of the third.
    pub adjudicator_grade: Grade,
}

/// Nothing is read twice; where two readings differ all the same, a senior decides.
static RULE_DEFAULT: Rule = Rule {
    task: String::new(),
    second_read: SecondRead::Never,
    sample_percent: 0,
    if_model_differs: false,
    second_grade: Grade::Trained,
    adjudicator_grade: Grade::Senior,
};

/// Checked `[triage]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(crate) urgent_wait_max_min: u32,
    pub(crate) high_wait_max_min: u32,
    pub(crate) routine_wait_max_min: u32,
    pub(crate) due_at_percent: u32,
    pub(crate) ageing_levels: f64,
    pub(crate) readers: Vec<Reader>,
    pub(crate) rules: Vec<Rule>,
}

/// What is wrong with `[triage]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("triage.{key} {problem}")]
pub struct ConfigError {
    /// The key, for instance `readers[2].duty[0]` (counted from 0).
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// `value`, when it is `least` to `most`.
pub(crate) fn within(key: &str, value: u32, least: u32, most: u32) -> Result<u32, ConfigError> {
    let problem = || format!("is {value}, it must be {least} to {most}");
    if (least..=most).contains(&value) { Ok(value) } else { Err(ConfigError::new(key, problem())) }
}

/// `text`, when it can name a task.
pub(crate) fn task(key: &str, text: String) -> Result<String, ConfigError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if (1..=TASK_CHARS_MAX).contains(&text.len()) && text.bytes().all(letter) {
        return Ok(text);
    }
    Err(ConfigError::new(key, "must be 1 to 64 lower-case letters, digits, _ or -"))
}

impl Default for Config {
    /// What an empty section says.
    fn default() -> Self {
        let raw = RawConfig::default();
        Self {
            urgent_wait_max_min: raw.urgent_wait_max_min,
            high_wait_max_min: raw.high_wait_max_min,
            routine_wait_max_min: raw.routine_wait_max_min,
            due_at_percent: raw.due_at_percent,
            ageing_levels: raw.ageing_levels,
            readers: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    /// # Errors
    /// [`ConfigError`] names the key.
    fn try_from(mut raw: RawConfig) -> Result<Self, ConfigError> {
        let readers = readers(std::mem::take(&mut raw.readers), raw.utc_offset.as_deref())?;
        Self::with_readers(raw, readers)
    }
}

impl Config {
    /// The section with these readers in the place of its own.
    pub(crate) fn with_readers(raw: RawConfig, readers: Vec<Reader>) -> Result<Self, ConfigError> {
        let urgent = within("urgent_wait_max_min", raw.urgent_wait_max_min, 1, WAIT_MIN_MAX)?;
        // Each not below the one before it: else a case would gain by being less urgent.
        let high = within("high_wait_max_min", raw.high_wait_max_min, urgent, WAIT_MIN_MAX)?;
        let routine = within("routine_wait_max_min", raw.routine_wait_max_min, high, WAIT_MIN_MAX)?;
        if !(0.0..=2.0).contains(&raw.ageing_levels) {
            let problem = format!("is {}, it must be 0 to 2", raw.ageing_levels);
            return Err(ConfigError::new("ageing_levels", problem));
        }
        let rules = rules(raw.rules, &readers)?;
        Ok(Self {
            urgent_wait_max_min: urgent,
            high_wait_max_min: high,
            routine_wait_max_min: routine,
            due_at_percent: within("due_at_percent", raw.due_at_percent, 50, 100)?,
            ageing_levels: raw.ageing_levels,
            readers,
            rules,
        })
    }

    /// Longest wait of an item of this priority, minutes, at least 1.
    #[must_use]
    pub fn wait_max_min(&self, priority: Priority) -> u32 {
        match priority {
            Priority::Urgent => self.urgent_wait_max_min,
            Priority::High => self.high_wait_max_min,
            Priority::Routine => self.routine_wait_max_min,
        }
    }

    /// Who reads, in the order written; empty: whoever signs in.
    #[must_use]
    pub fn readers(&self) -> &[Reader] {
        &self.readers
    }

    /// The rule of `task`: its own, else that of `*`, else that nothing is read twice.
    #[must_use]
    pub fn rule(&self, task: &str) -> &Rule {
        let named = |name: &str| self.rules.iter().find(|rule| rule.task == name);
        named(task).or_else(|| named(EVERY_TASK)).unwrap_or(&RULE_DEFAULT)
    }
}

fn rules(raw: Vec<RawRule>, readers: &[Reader]) -> Result<Vec<Rule>, ConfigError> {
    if raw.len() > RULES_MAX {
        return Err(ConfigError::new("rules", format!("are more than {RULES_MAX}")));
    }
    let mut names = HashSet::new();
    let mut rules = Vec::new();
    for (place, raw) in raw.into_iter().enumerate() {
        let key = |name: &str| format!("rules[{place}].{name}");
        let task = if raw.task == EVERY_TASK { raw.task } else { task(&key("task"), raw.task)? };
        if !names.insert(task.clone()) {
            return Err(ConfigError::new(key("task"), "is that of an earlier rule"));
        }
        let sample_percent = within(&key("second_read_sample_percent"), raw.second_read_sample_percent, 0, 100)?;
        let twice = raw.second_read != SecondRead::Never || sample_percent > 0 || raw.second_read_if_model_differs;
        let able = readers.iter().filter(|reader| task == EVERY_TASK || reader.reads(&task)).count();
        if twice && !readers.is_empty() && able < 3 {
            let problem =
                format!("asks for second readings, but {able} of readers read it: a third must be able to decide");
            return Err(ConfigError::new(key("task"), problem));
        }
        rules.push(Rule {
            task,
            second_read: raw.second_read,
            sample_percent,
            if_model_differs: raw.second_read_if_model_differs,
            second_grade: raw.second_reader_grade,
            adjudicator_grade: raw.adjudicator_grade,
        });
    }
    Ok(rules)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
