//! Who reads an item next.
//!
//! In: an item, the readers with what each has open, a moment. Out: one reader; or that anyone of a grade may; or that it
//! waits, until when and why; or that nothing is left to read.
//! Promise: pure; no reader reads one item twice; whoever is chosen does the task and is on duty; what nobody can take now
//! stays in the list, and from when it is due no capacity holds it back, nor its first reading a grade. Later readings wait
//! for the grade: they are what makes good that a first one did not.

use crate::config::Config;
use crate::reader::{Grade, Reader};
use crate::reading::{Call, Stage, Step, next_step};
use crate::worklist::{Item, Place, Subject, is_due, order_of};
use fovea_core::UnixMicros;
use std::cmp::Ordering;

/// Why an item waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Nobody reads this task, or all who do (of a second or third reading: all of the grade) have read this item: a person
    /// must add a reader.
    NobodyLeft,
    /// Nobody of the grade is on duty, or nobody at all once the item is due.
    NobodyOnDuty,
    /// All who could are at their `open_max`.
    AllFull,
}

/// Who reads an item next.
#[derive(Clone, PartialEq, Debug)]
pub enum Assignment<'a> {
    /// This reader.
    To {
        /// Who.
        reader: &'a Reader,
        /// Place of the reader in [`Config::readers`].
        index: usize,
        /// Which reading.
        stage: Stage,
        /// The item is due, and the reader is full or below the grade asked for; below it, a second reading follows.
        escalated: bool,
    },
    /// No readers are configured: whoever signs in, of this grade or above, and has not read it.
    Anyone {
        /// Least grade.
        grade: Grade,
        /// Which reading.
        stage: Stage,
    },
    /// Nobody now: it stays in the list.
    Waits {
        /// Why.
        why: Waiting,
        /// When the next who may is on duty; none when that is not what it waits for.
        next_duty: Option<UnixMicros>,
        /// Which reading.
        stage: Stage,
        /// The item is due: the people who run the box should hear of it.
        escalated: bool,
    },
    /// Nothing is left to read.
    Done(Call),
}

/// Who reads `item` next.
///
/// - `open`: how many items each reader of [`Config::readers`] has open, in that order; a missing one has none.
/// - What is significant, ambiguous or disputed goes to the most experienced who is free: grade, then agreement, then the
///   least share of `open_max` in use. What is clear, ungradable or not analysed goes to the least grade first, so that
///   experienced time is left for the others: grade, then share in use, then agreement. Then by name.
#[must_use]
pub fn assign<'a>(config: &'a Config, item: &Item, open: &[u32], now: UnixMicros) -> Assignment<'a> {
    let (stage, grade) = match next_step(config, item) {
        Step::Done(call) => return Assignment::Done(call),
        Step::Read { stage, grade } => (stage, grade),
    };
    if config.readers().is_empty() {
        return Assignment::Anyone { grade, stage };
    }
    let open_of = |index: usize| open.get(index).copied().unwrap_or(0);
    let candidates = config.readers().iter().enumerate().filter(|(_, reader)| may_ever(reader, item));
    let candidates = candidates.map(|(index, reader)| Candidate {
        reader,
        index,
        open: open_of(index),
        on_duty: reader.duty.is_on(now),
        graded: reader.grade >= grade,
    });
    let due = is_due(config, item, now);
    let careful = careful(item, stage);
    let candidates = candidates.filter(|candidate| candidate.graded || stage == Stage::First);
    let best = candidates.clone().filter(|candidate| candidate.on_duty && (due || candidate.as_asked()));
    match best.min_by(|one, other| one.tier().cmp(&other.tier()).then_with(|| one.compare(other, careful))) {
        Some(chosen) => {
            let Candidate { reader, index, .. } = chosen;
            Assignment::To { reader, index, stage, escalated: !chosen.as_asked() }
        }
        None => waits(candidates, stage, due, now),
    }
}

/// Whether `reader` may take `item` from the list now, asked for or not: the task fits, the reader has not read it, and
/// the grade is met, or it is the first reading of a due item and nobody of the grade is on duty. A person who is there may read off duty.
#[must_use]
pub fn may_read(config: &Config, reader: &Reader, item: &Item, now: UnixMicros) -> bool {
    let Step::Read { stage, grade } = next_step(config, item) else { return false };
    let graded_on_duty = || {
        let able = config.readers().iter().filter(|other| may_ever(other, item) && other.grade >= grade);
        able.into_iter().any(|other| other.duty.is_on(now))
    };
    may_ever(reader, item)
        && (reader.grade >= grade || (stage == Stage::First && is_due(config, item, now) && !graded_on_duty()))
}

/// The list of one reader at `now`: the items that [`may_read`] allows, in order.
#[must_use]
pub fn worklist_of(config: &Config, reader: &Reader, items: &[Item], now: UnixMicros) -> Vec<Place> {
    let own = (0..items.len()).filter(|index| may_read(config, reader, &items[*index], now));
    order_of(config, items, own, now)
}

/// Whether the most experienced reader is asked for.
fn careful(item: &Item, stage: Stage) -> bool {
    stage == Stage::Adjudication || matches!(item.subject, Subject::Significant | Subject::Ambiguous)
}

fn may_ever(reader: &Reader, item: &Item) -> bool {
    // Accounts are one regardless of case, as in the configuration.
    let has_read = item.readings.iter().any(|reading| reading.reader.eq_ignore_ascii_case(&reader.name));
    reader.reads(&item.task) && !has_read
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    reader: &'a Reader,
    index: usize,
    open: u32,
    on_duty: bool,
    graded: bool,
}

impl Candidate<'_> {
    fn full(&self) -> bool {
        self.open >= self.reader.open_max
    }

    fn as_asked(&self) -> bool {
        self.graded && !self.full()
    }

    /// Who is free goes before who is full, and then who has the grade before who has not: a patient at the limit is seen
    /// by someone now, and by the one asked for in the second reading.
    fn tier(&self) -> (bool, bool) {
        (self.full(), !self.graded)
    }

    fn compare(&self, other: &Self, careful: bool) -> Ordering {
        let grade = self.reader.grade.cmp(&other.reader.grade);
        let agreement = other.reader.agreement_at_least().total_cmp(&self.reader.agreement_at_least());
        // open / open_max without division.
        let share = |one: &Self, other: &Self| u64::from(one.open) * u64::from(other.reader.open_max);
        let load = share(self, other).cmp(&share(other, self));
        let by_name = || self.reader.name.cmp(&other.reader.name);
        if careful {
            grade.reverse().then(agreement).then(load).then_with(by_name)
        } else {
            grade.then(load).then(agreement).then_with(by_name)
        }
    }
}

fn waits<'a>(
    candidates: impl Iterator<Item = Candidate<'a>> + Clone,
    stage: Stage,
    due: bool,
    now: UnixMicros,
) -> Assignment<'static> {
    let graded = || candidates.clone().filter(|candidate| due || candidate.graded);
    let why = if candidates.clone().next().is_none() {
        Waiting::NobodyLeft
    } else if graded().any(|candidate| candidate.on_duty) {
        Waiting::AllFull
    } else {
        Waiting::NobodyOnDuty
    };
    let next_duty = match why {
        Waiting::NobodyOnDuty => graded().filter_map(|candidate| candidate.reader.duty.next_on(now)).min(),
        Waiting::NobodyLeft | Waiting::AllFull => None,
    };
    Assignment::Waits { why, next_duty, stage, escalated: due }
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
