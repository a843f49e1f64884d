//! Scores become a finding with band, priority and reader; open findings become a list in the order of need.
//!
//! In: an accepted object, what the worker says of it, and the moments. Out: the one [`Finding`] of that object
//! ([`triage`]). In: open [`Item`]s, the section `[triage]`, a moment. Out: their [`order`], who reads each next
//! ([`assign`]), and what is still to be read ([`next_step`]). [`simulate`] measures all of that against first come,
//! first served; `docs/triage.md` has the rules in prose and the table.
//! Promise: total, pure and repeatable: clock and readers are inputs; each object gets exactly one outcome (invariant 2);
//! the same object and model give the same finding id (invariant 4); what is not a number never becomes a probability; a
//! finding always fits the ledger.

mod assign;
mod bounds;
mod config;
mod duty;
mod reader;
mod reading;
mod simulate;
mod worklist;

pub use assign::{Assignment, Waiting, assign, may_read, worklist_of};
pub use bounds::{OUTLINE_POINTS_MAX, TEXT_CHARS_MAX};
pub use config::{Config, ConfigError, RawConfig, RawRule, Rule, SecondRead};
pub use duty::{Duty, DutyError};
pub use reader::{Agreement, Grade, RawAgreement, RawReader, Reader};
pub use reading::{Call, Reading, Stage, Step, next_step};
pub use simulate::{Policy, RawSimConfig, Report, Row, SimConfig, SimError, Truth, simulate};
pub use worklist::{Item, Place, Rank, Subject, Why, deadline, due_from, is_due, order, score};

use bounds::{
    ITEMS_MAX, finite_classes, finite_measurements, finite_quality, finite_regions, short, short_code, whole_map,
};
use fovea_core::{
    Accepted, Analysis, Band, Finding, FindingId, FindingStatus, Outcome, Priority, ReaderGrade, Reason, Scores,
    Timing, UnixMicros, Verdict,
};

/// What follows from the verdict alone.
struct Decision {
    outcome: Outcome,
    reason: Option<Reason>,
    scores: Option<(Scores, Band)>,
    priority: Priority,
    reader_grade: ReaderGrade,
}

/// The one finding of `accepted`.
///
/// - `taken_at`: when the worker took the object up; `now`: when the finding is handed to the ledger.
/// - Band: significant from `significant_from` on, clear below `clear_below`, else ambiguous.
/// - Priority: urgent when significant; high when ambiguous, and when ungradable, because the patient is still in the
///   chair and the picture can be taken again; else routine.
/// - Reader: senior when significant or ambiguous, else any.
/// - A probability outside 0 to 1, thresholds that are not numbers or stand the wrong way round: not analysed.
#[must_use]
pub fn triage(accepted: &Accepted, analysis: Analysis, taken_at: UnixMicros, now: UnixMicros) -> Finding {
    let Decision { outcome, reason, scores, priority, reader_grade } = decide(analysis.verdict);
    let timing_us = timing(accepted, analysis.times, taken_at, now, scores.is_some());
    let header = &accepted.header;
    let model_sha256 = analysis.model.as_ref().map(|model| &model.sha256);
    let (scores, band) = scores.unzip();
    let (label, code, probability, classes) = match scores {
        Some(scores) => (
            Some(short(scores.label)),
            Some(short_code(scores.code)),
            Some(scores.probability),
            finite_classes(scores.classes),
        ),
        None => (None, None, None, Vec::new()),
    };
    Finding {
        finding_id: FindingId::of(&header.sop_instance_uid, &accepted.data_set_sha256, model_sha256),
        study_uid: header.study_uid.clone(),
        series_uid: header.series_uid.clone(),
        sop_instance_uid: header.sop_instance_uid.clone(),
        sop_class_uid: header.sop_class_uid.clone(),
        frame: analysis.frame.max(1),
        task: short(analysis.task),
        outcome,
        reason_code: reason.as_ref().map(|reason| short(reason.code.clone())),
        advice: reason.as_ref().filter(|reason| !reason.advice.is_empty()).map(|reason| short(reason.advice.clone())),
        reason: reason.map(|reason| short(reason.text)),
        label,
        code,
        probability,
        classes,
        band,
        priority,
        reader_grade,
        measurements: finite_measurements(analysis.measurements, ITEMS_MAX),
        regions: finite_regions(analysis.regions),
        tile_map: analysis.tile_map.and_then(whole_map),
        quality: finite_quality(analysis.quality),
        model: analysis.model,
        device: analysis.device.map(short),
        status: FindingStatus::Preliminary,
        timing_us,
        recorded_at_unix_us: now,
    }
}

fn decide(verdict: Verdict) -> Decision {
    let without = |outcome, reason, priority| Decision {
        outcome,
        reason: Some(reason),
        scores: None,
        priority,
        reader_grade: ReaderGrade::Any,
    };
    match verdict {
        Verdict::Ungradable(reason) => without(Outcome::Ungradable, reason, Priority::High),
        Verdict::NotAnalysed(reason) => without(Outcome::NotAnalysed, reason, Priority::Routine),
        Verdict::Scored(scores) => match band(&scores) {
            Err(reason) => without(Outcome::NotAnalysed, reason, Priority::Routine),
            Ok(band) => {
                let (priority, reader_grade) = match band {
                    Band::Significant => (Priority::Urgent, ReaderGrade::Senior),
                    Band::Ambiguous => (Priority::High, ReaderGrade::Senior),
                    Band::Clear => (Priority::Routine, ReaderGrade::Any),
                };
                Decision {
                    outcome: Outcome::Finding,
                    reason: None,
                    scores: Some((scores, band)),
                    priority,
                    reader_grade,
                }
            }
        },
    }
}

fn band(scores: &Scores) -> Result<Band, Reason> {
    let Scores { probability, clear_below, significant_from, .. } = *scores;
    // Written so that a NaN anywhere falls through to a refusal.
    if !(0.0..=1.0).contains(&probability) {
        return Err(Reason::new("model_answer_invalid", "the model's answer is no probability", ""));
    }
    if clear_below.is_finite() && significant_from.is_finite() && clear_below <= significant_from {
        let from = |threshold: f64| probability >= threshold;
        return Ok(if from(significant_from) {
            Band::Significant
        } else if from(clear_below) {
            Band::Ambiguous
        } else {
            Band::Clear
        });
    }
    Err(Reason::new("model_thresholds_invalid", "the model's thresholds are not in order", ""))
}

/// Ends of the steps as offsets from the object's last byte. The worker measures durations: they follow `taken_at`.
fn timing(
    accepted: &Accepted,
    times: fovea_core::StageTimes,
    taken_at: UnixMicros,
    now: UnixMicros,
    scored: bool,
) -> Timing {
    let since = |moment: UnixMicros| moment.since(accepted.last_byte_at);
    let queued = since(taken_at);
    let decoded = queued.saturating_add(times.decode_us);
    let preprocessed = decoded.saturating_add(times.preprocess_us);
    let inferred = preprocessed.saturating_add(times.infer_us);
    let reached = |took_us: u64, end: u64| if took_us > 0 || scored { end } else { 0 };
    Timing {
        received: since(accepted.accepted_at),
        queued,
        decoded: reached(times.decode_us, decoded),
        preprocessed: reached(times.preprocess_us, preprocessed),
        inferred: reached(times.infer_us, inferred),
        recorded: since(now),
    }
}

#[cfg(test)]
mod tests;
