//! What a simulation found, as numbers and as a table.

use super::room::Seen;
use super::{Case, SimConfig};
use crate::config::Config;
use fovea_core::Priority;
use serde::Serialize;
use std::fmt;

/// How the list is ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// First come, first served, by anyone: what a list without triage does.
    FirstCome,
    /// By need, with no longest wait and no ageing.
    WithoutLimit,
    /// By need, as the box does it.
    WithLimit,
}

impl Policy {
    pub(super) const ALL: [Self; 3] = [Self::FirstCome, Self::WithoutLimit, Self::WithLimit];
}

/// What is truly in a picture, whatever the model says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// What was looked for.
    Significant,
    /// Nothing of it.
    NotSignificant,
}

/// One line of a report. Waits are from arrival to the begin of the first reading.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Of the readers' time.
    pub load: f64,
    /// Order of the list.
    pub policy: Policy,
    /// Of which cases.
    pub truth: Truth,
    /// How many.
    pub cases: usize,
    /// Mean wait, minutes.
    pub mean_min: f64,
    /// 95 of 100 wait at most so long, minutes.
    pub p95_min: f64,
    /// Longest wait, minutes.
    pub max_min: f64,
    /// How many waited longer than the longest wait of their priority.
    pub over_limit: usize,
    /// How many were first read by a senior.
    pub by_senior: usize,
}

/// What a simulation found.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Seed of the random numbers.
    pub seed: u64,
    /// What was simulated.
    pub config: SimConfig,
    /// By load, order and truth.
    pub rows: Vec<Row>,
}

/// Both lines of one load and order.
pub(super) fn rows(config: &Config, load: f64, policy: Policy, cases: &[Case], seen: &[Seen]) -> Vec<Row> {
    let row = |truth| {
        let of_truth = || cases.iter().zip(seen).filter(|(case, _)| case.truth == truth);
        let mut waits: Vec<i64> = of_truth().map(|(_, seen)| seen.wait_us).collect();
        waits.sort_unstable();
        let minutes = |wait_us: Option<&i64>| wait_us.map_or(0.0, |wait_us| *wait_us as f64 / super::MINUTE_US);
        let over = |priority: Priority, wait_us: i64| wait_us > i64::from(config.wait_max_min(priority)) * 60_000_000;
        Row {
            load,
            policy,
            truth,
            cases: waits.len(),
            mean_min: waits.iter().sum::<i64>() as f64 / super::MINUTE_US / waits.len().max(1) as f64,
            // The nearest rank: a wait that was.
            p95_min: minutes(waits.get((waits.len() * 95).div_ceil(100).saturating_sub(1))),
            max_min: minutes(waits.last()),
            over_limit: of_truth().filter(|(case, seen)| over(case.item.priority, seen.wait_us)).count(),
            by_senior: of_truth().filter(|(_, seen)| seen.by_senior).count(),
        }
    };
    [Truth::Significant, Truth::NotSignificant].map(row).into()
}

impl Report {
    /// The line of one load, order and truth.
    #[must_use]
    pub fn row(&self, load: f64, policy: Policy, truth: Truth) -> Option<&Row> {
        let wanted = |row: &&Row| row.load.total_cmp(&load).is_eq() && row.policy == policy && row.truth == truth;
        self.rows.iter().find(wanted)
    }

    /// 95th percentile of the wait of truly significant cases under `policy`, over that of first come, first served; none
    /// where that load was not run or nobody waited.
    #[must_use]
    pub fn p95_ratio(&self, load: f64, policy: Policy) -> Option<f64> {
        let p95 = |policy| self.row(load, policy, Truth::Significant).map(|row| row.p95_min);
        let first_come = p95(Policy::FirstCome).filter(|minutes| *minutes > 0.0)?;
        p95(policy).map(|minutes| minutes / first_come)
    }

    /// As Markdown: what was simulated in one paragraph, then the table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let _infallible = self.write_markdown(&mut text);
        text
    }

    /// [`Report::markdown`] into `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_markdown(&self, out: &mut impl fmt::Write) -> fmt::Result {
        self.write_setting(out)?;
        writeln!(
            out,
            "| load | order | truly | cases | mean, min | p95, min | longest, min | past limit | read by a senior |"
        )?;
        writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let order = match row.policy {
                Policy::FirstCome => "first come",
                Policy::WithoutLimit => "by need, no limit",
                Policy::WithLimit => "by need",
            };
            let truth = match row.truth {
                Truth::Significant => "significant",
                Truth::NotSignificant => "not",
            };
            let Row { load, cases, mean_min, p95_min, max_min, over_limit, .. } = row;
            let senior = percent(row.by_senior as f64 / row.cases.max(1) as f64);
            write!(out, "| {load} | {order} | {truth} | {cases} | {mean_min:.1} | {p95_min:.1} | {max_min:.1} | ")?;
            writeln!(out, "{over_limit} | {senior} |")?;
        }
        self.write_ratios(out)
    }

    fn write_setting(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (raw, triage) = (&self.config.raw, &self.config.triage);
        write!(out, "Seed {}, {} cases at each load. Readers: {} senior", self.seed, raw.cases, raw.senior_readers)?;
        write!(out, ", {} trained; a reading takes {} min on average ", raw.trained_readers, raw.reading_mean_min)?;
        writeln!(out, "(lognormal, log sd {}).", raw.reading_log_sd)?;
        write!(out, "Truly significant: {}. Of these the model calls ", percent(raw.prevalence))?;
        write!(out, "{} significant, {} not clear; ", percent(raw.sensitivity_significant), percent(raw.sensitivity))?;
        write!(
            out,
            "of the others {} not significant, {} clear. ",
            percent(raw.specificity),
            percent(raw.specificity_clear)
        )?;
        writeln!(out, "Ungradable {}, not analysed {}.", percent(raw.ungradable), percent(raw.not_analysed))?;
        let [urgent, high, routine] =
            [Priority::Urgent, Priority::High, Priority::Routine].map(|priority| triage.wait_max_min(priority));
        write!(
            out,
            "Longest waits: urgent {urgent}, high {high}, routine {routine} min; due at {} %; ",
            triage.due_at_percent
        )?;
        writeln!(out, "ageing {} levels.\n", triage.ageing_levels)
    }

    fn write_ratios(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let ratio =
            |load: &f64| self.p95_ratio(*load, Policy::WithLimit).map(|ratio| format!("{ratio:.2} at load {load}"));
        let ratios: Vec<String> = self.config.raw.loads.iter().filter_map(ratio).collect();
        writeln!(out, "\np95 wait of the truly significant, by need over first come: {}.", ratios.join(", "))
    }
}

/// `95.7 %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
