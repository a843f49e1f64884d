//! What is simulated.
//! In: numbers as an operator states them. Out: a [`SimConfig`] that can be run without asking again.

use crate::config::{Config, ConfigError, RawConfig};
use crate::reader::{Grade, Reader};
use serde::Deserialize;

/// Below it that bundle says clear.
pub(super) const CLEAR_BELOW: f64 = 0.24;
/// From it on that bundle says significant.
pub(super) const SIGNIFICANT_FROM: f64 = 0.37;

/// A simulation as stated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSimConfig {
    /// Cases of each load, 1000 to 200000; the first twentieth is not counted.
    pub cases: u32,
    /// 1 to 8 loads, each 0.05 to 0.99.
    pub loads: Vec<f64>,
    /// Senior readers, 1 to 50: without one, nobody would be asked for what is significant.
    pub senior_readers: u32,
    /// Trained readers, 0 to 50.
    pub trained_readers: u32,
    /// Mean time to read a case, minutes, 0.1 to 120.
    pub reading_mean_min: f64,
    /// Standard deviation of the logarithm of that time, 0 to 1.5.
    pub reading_log_sd: f64,
    /// Share of cases that are truly significant, 0.01 to 0.99.
    pub prevalence: f64,
    /// Share of the truly significant that the model does not call clear.
    pub sensitivity: f64,
    /// Share of the truly significant that it calls significant, at most `sensitivity`.
    pub sensitivity_significant: f64,
    /// Share of the others that it does not call significant.
    pub specificity: f64,
    /// Share of the others that it calls clear, at most `specificity`.
    pub specificity_clear: f64,
    /// Share of all pictures that are ungradable, 0 to 0.5.
    pub ungradable: f64,
    /// Share of all pictures that no model looks at, 0 to 0.5.
    pub not_analysed: f64,
    /// Longest waits, ageing and rules; its readers are replaced by the simulated ones.
    pub triage: RawConfig,
}

impl Default for RawSimConfig {
    /// The model's figures are those of the bundle `dr-screening` 2.0.0 as it is served (INT8, out of fold); the share of
    /// ungradable pictures too. A test holds them against its card.
    fn default() -> Self {
        Self {
            cases: 20_000,
            loads: vec![0.6, 0.8, 0.95],
            senior_readers: 2,
            trained_readers: 0,
            reading_mean_min: 4.0,
            reading_log_sd: 0.6,
            prevalence: 0.15,
            sensitivity: 0.961,
            sensitivity_significant: 0.949,
            specificity: 0.921,
            specificity_clear: 0.862,
            ungradable: 0.005,
            not_analysed: 0.01,
            triage: RawConfig::default(),
        }
    }
}

/// A checked simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    pub(super) raw: RawSimConfig,
    /// With the simulated readers.
    pub(super) triage: Config,
}

/// What cannot be simulated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimError {
    /// A number out of its range.
    #[error("{key} is {found}, it must be {least} to {most}")]
    Range {
        /// Which.
        key: &'static str,
        /// The number.
        found: f64,
        /// The least there may be.
        least: f64,
        /// The greatest.
        most: f64,
    },
    /// None, or more than eight.
    #[error("loads are {found}, they must be 1 to 8")]
    Loads {
        /// How many.
        found: usize,
    },
    /// The longest waits, or rules.
    #[error(transparent)]
    Triage(#[from] ConfigError),
}

impl Default for SimConfig {
    /// [`RawSimConfig::default`], which is in its ranges.
    fn default() -> Self {
        let raw = RawSimConfig::default();
        let readers = simulated(&raw);
        Self { triage: Config { readers, ..Config::default() }, raw }
    }
}

impl TryFrom<RawSimConfig> for SimConfig {
    type Error = SimError;

    /// # Errors
    /// [`SimError`] names what is out of its range.
    fn try_from(raw: RawSimConfig) -> Result<Self, SimError> {
        if !(1..=8).contains(&raw.loads.len()) {
            return Err(SimError::Loads { found: raw.loads.len() });
        }
        for load in &raw.loads {
            within("loads", *load, 0.05, 0.99)?;
        }
        for (key, found, least, most) in [
            ("cases", f64::from(raw.cases), 1e3, 2e5),
            ("senior_readers", f64::from(raw.senior_readers), 1.0, 50.0),
            ("trained_readers", f64::from(raw.trained_readers), 0.0, 50.0),
            ("reading_mean_min", raw.reading_mean_min, 0.1, 120.0),
            ("reading_log_sd", raw.reading_log_sd, 0.0, 1.5),
            ("prevalence", raw.prevalence, 0.01, 0.99),
            ("sensitivity", raw.sensitivity, 0.0, 1.0),
            ("specificity", raw.specificity, 0.0, 1.0),
            ("ungradable", raw.ungradable, 0.0, 0.5),
            ("not_analysed", raw.not_analysed, 0.0, 0.5),
        ] {
            within(key, found, least, most)?;
        }
        within("sensitivity_significant", raw.sensitivity_significant, 0.0, raw.sensitivity)?;
        within("specificity_clear", raw.specificity_clear, 0.0, raw.specificity)?;
        Ok(Self { triage: Config::with_readers(raw.triage.clone(), simulated(&raw))?, raw })
    }
}

impl SimConfig {
    /// How many read, at least 1.
    pub(super) fn readers(&self) -> u32 {
        self.raw.senior_readers + self.raw.trained_readers
    }
}

fn simulated(raw: &RawSimConfig) -> Vec<Reader> {
    let grades = (0..raw.senior_readers).map(|_| Grade::Senior).chain((0..raw.trained_readers).map(|_| Grade::Trained));
    (1..).zip(grades).map(|(number, grade)| Reader::simulated(number, grade)).collect()
}

fn within(key: &'static str, found: f64, least: f64, most: f64) -> Result<(), SimError> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(SimError::Range { key, found, least, most }) }
}
