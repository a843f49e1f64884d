//! Which studies are whole: nothing more is expected of them.
//!
//! In: objects that were accepted, associations that ended, steps that the modality says are over, the clock. Out: for each
//! recent study how many objects came and whether it is whole, and by what sign.
//! Promise: the signs in the order of their worth. A step that is over with every instance it lists here; a release, and
//! [`RELEASED_QUIET`] without anything more; last, a timer: [`QUIET`]. What comes later opens the study again. At most
//! [`STUDIES_MAX`] studies are remembered, the longest quiet go first; after a restart only what steps tell is known again.
//! Standard: PS3.4 section F.7 (the step's lists); for the rest there is none.

use fovea_core::{Uid, UnixMicros};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Studies remembered: a day of a busy clinic.
const STUDIES_MAX: usize = 512;
/// Quiet after the sender released its association in order.
pub(crate) const RELEASED_QUIET: Duration = Duration::from_secs(5);
/// Quiet after which a study is taken as whole without any other sign.
pub(crate) const QUIET: Duration = Duration::from_secs(120);
/// Instances of one study that are waited for by name; of a step that lists more only the count of arrivals is known.
const MISSING_MAX: usize = 20_000;

/// By what sign a study is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WholeBy {
    /// The modality said that its step is over, and all that it lists is here.
    Step,
    /// The sender released, and nothing more came for a while.
    Release,
    /// Nothing came for a long time.
    Timer,
}

/// What is known of one recent study. Holds no patient identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StudyState {
    /// (0020,000D).
    pub study_uid: Uid,
    /// Objects that came since the start of the box, repeats included.
    pub instances: u64,
    /// Instances that a step lists and that are not here; none where no step has said.
    pub missing: Option<usize>,
    /// By what sign it is whole; none while more is expected.
    pub by: Option<WholeBy>,
    /// When that was seen.
    pub whole_at: Option<UnixMicros>,
}

#[derive(Debug)]
struct Study {
    instances: u64,
    last_at: Instant,
    /// Associations that brought something of it and still stand.
    open: u32,
    released: bool,
    /// None where no step is over.
    missing: Option<BTreeSet<Uid>>,
    whole: Option<(WholeBy, UnixMicros)>,
}

impl Study {
    fn new(now: Instant) -> Self {
        Self { instances: 0, last_at: now, open: 0, released: false, missing: None, whole: None }
    }

    fn sign(&self, now: Instant) -> Option<WholeBy> {
        let quiet = now.saturating_duration_since(self.last_at);
        match &self.missing {
            Some(missing) if missing.is_empty() => Some(WholeBy::Step),
            // The modality has said what belongs to it: what is missing is missing, however quiet it is.
            Some(_) => None,
            None if self.open > 0 => None,
            None if self.released && quiet >= RELEASED_QUIET => Some(WholeBy::Release),
            None => (quiet >= QUIET).then_some(WholeBy::Timer),
        }
    }

    fn state(&self, study_uid: &Uid) -> StudyState {
        StudyState {
            study_uid: study_uid.clone(),
            instances: self.instances,
            missing: self.missing.as_ref().map(BTreeSet::len),
            by: self.whole.map(|(by, _)| by),
            whole_at: self.whole.map(|(_, at)| at),
        }
    }
}

/// The recent studies.
#[derive(Debug, Default)]
pub(crate) struct Studies(Mutex<HashMap<Uid, Study>>);

impl Studies {
    fn held(&self) -> MutexGuard<'_, HashMap<Uid, Study>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object of the study is durable. True where the association is the first time seen with it (`is_first`).
    pub(crate) fn arrived(&self, study: &Uid, instance: &Uid, is_first: bool, now: Instant) {
        let mut held = self.held();
        let entry = entry(&mut held, study, now);
        entry.instances += 1;
        entry.last_at = now;
        entry.open += u32::from(is_first);
        entry.whole = None;
        if let Some(missing) = &mut entry.missing {
            missing.remove(instance);
        }
    }

    /// An association that brought something of these studies has ended; in order or not.
    pub(crate) fn ended<'a>(&self, studies: impl IntoIterator<Item = &'a Uid>, in_order: bool) {
        let mut held = self.held();
        for study in studies {
            if let Some(entry) = held.get_mut(study) {
                entry.open = entry.open.saturating_sub(1);
                entry.released = in_order;
            }
        }
    }

    /// A step of the study is over, and of what it lists these are not here.
    pub(crate) fn step_over(&self, study: &Uid, missing: BTreeSet<Uid>, now: Instant) {
        if missing.len() > MISSING_MAX {
            return;
        }
        let mut held = self.held();
        let entry = entry(&mut held, study, now);
        entry.whole = None;
        entry.missing.get_or_insert_default().extend(missing);
    }

    /// The studies that have become whole since the last look.
    pub(crate) fn look(&self, now: Instant) -> Vec<StudyState> {
        let mut whole = Vec::new();
        for (uid, study) in self.held().iter_mut().filter(|(_, study)| study.whole.is_none()) {
            if let Some(by) = study.sign(now) {
                study.whole = Some((by, UnixMicros::from(std::time::SystemTime::now())));
                whole.push(study.state(uid));
            }
        }
        whole
    }

    /// Up to `limit` studies, the last that something came of first.
    pub(crate) fn recent(&self, limit: usize) -> Vec<StudyState> {
        let held = self.held();
        let mut recent: Vec<(&Uid, &Study)> = held.iter().collect();
        recent.sort_by_key(|(_, study)| std::cmp::Reverse(study.last_at));
        recent.into_iter().take(limit).map(|(uid, study)| study.state(uid)).collect()
    }
}

fn entry<'a>(held: &'a mut HashMap<Uid, Study>, study: &Uid, now: Instant) -> &'a mut Study {
    if held.len() >= STUDIES_MAX
        && !held.contains_key(study)
        && let Some(oldest) = held.iter().min_by_key(|(_, study)| study.last_at).map(|(uid, _)| uid.clone())
    {
        held.remove(&oldest);
    }
    held.entry(study.clone()).or_insert_with(|| Study::new(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn signs(studies: &Studies, now: Instant) -> Vec<Option<WholeBy>> {
        studies.look(now).iter().map(|state| state.by).collect()
    }

    #[test]
    fn a_step_that_is_over_makes_a_study_whole_when_all_it_lists_is_here() {
        let (studies, start) = (Studies::default(), Instant::now());
        studies.arrived(&uid("1.1"), &uid("1.1.1"), true, start);
        studies.step_over(&uid("1.1"), BTreeSet::from([uid("1.1.2")]), start);
        studies.ended([&uid("1.1")], true);
        assert!(signs(&studies, start + QUIET * 10).is_empty(), "one instance is missing, however quiet it is");
        assert_eq!(studies.recent(9)[0].missing, Some(1));
        studies.arrived(&uid("1.1"), &uid("1.1.2"), true, start);
        assert_eq!(signs(&studies, start), [Some(WholeBy::Step)]);
        assert!(signs(&studies, start).is_empty(), "told once");
    }

    #[test]
    fn a_release_counts_after_a_while_and_not_while_another_association_stands() {
        let (studies, start) = (Studies::default(), Instant::now());
        studies.arrived(&uid("1.1"), &uid("1.1.1"), true, start);
        studies.arrived(&uid("1.1"), &uid("1.1.2"), true, start);
        studies.ended([&uid("1.1")], true);
        assert!(signs(&studies, start + QUIET * 10).is_empty());
        studies.ended([&uid("1.1")], true);
        assert!(signs(&studies, start + RELEASED_QUIET / 2).is_empty());
        assert_eq!(signs(&studies, start + RELEASED_QUIET), [Some(WholeBy::Release)]);
        studies.arrived(&uid("1.1"), &uid("1.1.3"), true, start + QUIET);
        assert_eq!(studies.recent(1)[0].by, None, "what comes later opens it again");
    }

    #[test]
    fn a_sender_that_broke_off_leaves_it_to_the_timer() {
        let (studies, start) = (Studies::default(), Instant::now());
        studies.arrived(&uid("1.1"), &uid("1.1.1"), true, start);
        studies.ended([&uid("1.1")], false);
        assert!(signs(&studies, start + QUIET / 2).is_empty());
        assert_eq!(signs(&studies, start + QUIET), [Some(WholeBy::Timer)]);
    }

    #[test]
    fn inv_08_only_so_many_studies_are_remembered() {
        let (studies, start) = (Studies::default(), Instant::now());
        for index in 0..STUDIES_MAX + 10 {
            let now = start + Duration::from_millis(index as u64);
            studies.arrived(&uid(&format!("1.{index}")), &uid("1.2"), true, now);
        }
        let recent = studies.recent(usize::MAX);
        assert_eq!(recent.len(), STUDIES_MAX);
        assert!(recent.iter().all(|study| study.study_uid != uid("1.0")), "the longest quiet one went");
    }
}
