//! Who reads: grade, tasks, duty hours, how much at once, and how often they were found right.
//!
//! In: `[[triage.readers]]`. Out: checked [`Reader`]s.
//! Promise: a reader's name is an account, not a person's name: it has no spaces, and it is all that triage knows of them.

use crate::config::{ConfigError, task, within};
use crate::duty::Duty;
use fovea_core::ReaderGrade;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Readers of one box.
const READERS_MAX: usize = 200;
/// Tasks of one reader.
const TASKS_MAX: usize = 32;
/// Characters of a reader's name.
const NAME_CHARS_MAX: usize = 32;

/// How experienced a reader is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Trained for the task.
    #[default]
    Trained,
    /// Reads what is not clear.
    Senior,
    /// The one others ask.
    Expert,
}

impl From<ReaderGrade> for Grade {
    /// The least grade that will do.
    fn from(asked: ReaderGrade) -> Self {
        match asked {
            ReaderGrade::Any => Self::Trained,
            ReaderGrade::Senior => Self::Senior,
        }
    }
}

/// One `[[triage.readers]]` as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReader {
    /// Account, 1 to 32 letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Grade.
    pub grade: Grade,
    /// Tasks, at most 32; empty: all.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Offset of the duty hours from UTC; without it that of the section.
    #[serde(default)]
    pub utc_offset: Option<String>,
    /// Weekly local windows, at most 28; empty: always.
    #[serde(default)]
    pub duty: Vec<String>,
    /// Items that may be open with this reader at once, 1 to 1000.
    #[serde(default = "open_max")]
    pub open_max: u32,
    /// How often the reader was found right.
    #[serde(default)]
    pub agreement: Option<RawAgreement>,
}

fn open_max() -> u32 {
    20
}

/// `agreement = { share = 0.94, n = 250 }`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAgreement {
    /// Share of readings that agreed with the reference, 0 to 1.
    pub share: f64,
    /// Of how many, 1 to 1000000.
    pub n: u32,
}

/// How often a reader agreed with the reference (a second reader or an adjudication).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    share: f64,
    n: u32,
}

impl Agreement {
    /// What the share is at least, by the lower end of Wilson's 95 % interval: three right of three say less than 240 of 250.
    ///
    /// 0 to 1. Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209.
    #[must_use]
    pub fn at_least(self) -> f64 {
        const Z: f64 = 1.959_964;
        let (share, n) = (self.share, f64::from(self.n));
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        ((middle - half) / (1.0 + Z * Z / n)).clamp(0.0, 1.0)
    }
}

/// A checked reader.
#[derive(Clone, Debug, PartialEq)]
pub struct Reader {
    /// Account.
    pub name: String,
    /// Grade.
    pub grade: Grade,
    /// Duty hours.
    pub duty: Duty,
    /// Items that may be open at once, at least 1.
    pub open_max: u32,
    /// Measured agreement.
    pub agreement: Option<Agreement>,
    tasks: Vec<String>,
}

impl Reader {
    /// Whether `task` is one of the reader's. What no model was eligible for has an empty task: all may read it.
    #[must_use]
    pub fn reads(&self, task: &str) -> bool {
        task.is_empty() || self.tasks.is_empty() || self.tasks.iter().any(|own| own == task)
    }

    /// [`Agreement::at_least`], 0 where none was measured.
    #[must_use]
    pub fn agreement_at_least(&self) -> f64 {
        self.agreement.map_or(0.0, Agreement::at_least)
    }

    /// A reader who is always on duty and has one item at a time, for the simulator.
    pub(crate) fn simulated(number: u32, grade: Grade) -> Self {
        let name = format!("reader-{number}");
        Self { name, grade, duty: Duty::default(), open_max: 1, agreement: None, tasks: Vec::new() }
    }
}

/// Checks all readers.
pub(crate) fn readers(raw: Vec<RawReader>, utc_offset: Option<&str>) -> Result<Vec<Reader>, ConfigError> {
    if raw.len() > READERS_MAX {
        return Err(ConfigError::new("readers", format!("are more than {READERS_MAX}")));
    }
    let mut names = HashSet::new();
    let mut readers = Vec::new();
    for (place, raw) in raw.into_iter().enumerate() {
        let reader = reader(place, raw, utc_offset)?;
        // Accounts that differ by case alone are one person's typing.
        if !names.insert(reader.name.to_ascii_lowercase()) {
            return Err(ConfigError::new(format!("readers[{place}].name"), "is that of an earlier reader"));
        }
        readers.push(reader);
    }
    Ok(readers)
}

fn reader(place: usize, raw: RawReader, utc_offset: Option<&str>) -> Result<Reader, ConfigError> {
    let key = |name: &str| format!("readers[{place}].{name}");
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=NAME_CHARS_MAX).contains(&raw.name.len()) || !raw.name.bytes().all(letter) {
        return Err(ConfigError::new(key("name"), "must be an account: 1 to 32 letters, digits, '.', '_' or '-'"));
    }
    if raw.tasks.len() > TASKS_MAX {
        return Err(ConfigError::new(key("tasks"), format!("are more than {TASKS_MAX}")));
    }
    let tasks = raw.tasks.into_iter().map(|text| task(&key("tasks"), text)).collect::<Result<_, _>>()?;
    let offset = match raw.utc_offset.as_deref().or(utc_offset) {
        Some(offset) => offset,
        None if raw.duty.is_empty() => "+00:00",
        None => return Err(ConfigError::new(key("utc_offset"), "is missing: duty hours are local to it")),
    };
    let duty = Duty::new(&raw.duty, offset).map_err(|(window, error)| {
        let key = match (window, &error) {
            (Some(window), _) => key(&format!("duty[{window}]")),
            (None, crate::DutyError::Offset) if raw.utc_offset.is_none() => "utc_offset".to_owned(),
            (None, crate::DutyError::Offset) => key("utc_offset"),
            (None, _) => key("duty"),
        };
        ConfigError::new(key, error.to_string())
    })?;
    let agreement = raw.agreement.map(|agreement| checked_agreement(&key, agreement)).transpose()?;
    let open_max = within(&key("open_max"), raw.open_max, 1, 1000)?;
    Ok(Reader { name: raw.name, grade: raw.grade, duty, open_max, agreement, tasks })
}

fn checked_agreement(key: &dyn Fn(&str) -> String, raw: RawAgreement) -> Result<Agreement, ConfigError> {
    if !(0.0..=1.0).contains(&raw.share) {
        let problem = format!("is {}, it must be 0 to 1", raw.share);
        return Err(ConfigError::new(key("agreement.share"), problem));
    }
    Ok(Agreement { share: raw.share, n: within(&key("agreement.n"), raw.n, 1, 1_000_000)? })
}
