//! The open findings in the order of need.
//!
//! In: the ledger and `[triage]`. Out: the head of the worklist at a moment. Promise: each finding is read from the ledger once; memory is
//! bounded, and what does not fit is counted, not hidden.

use fovea_core::{Band, Finding, FindingStatus, Ledger, Outcome, PortError, Uid, UnixMicros};
use fovea_review::{Worklist, WorklistRow};
use fovea_triage::{Config, Item, deadline, is_due, order};
use std::sync::{Arc, Mutex, PoisonError};

/// Open findings in the list, about 10 MB: the pictures of a busy clinic's month. The latest stay.
const OPEN_MAX: usize = 20_000;
/// Findings read from the ledger at once.
const PAGE: usize = 1_000;

/// Puts the open findings in order when asked.
pub struct WorklistSource {
    ledger: Arc<dyn Ledger>,
    config: Config,
    open_max: usize,
    seen: Mutex<Seen>,
}

/// What was read so far.
#[derive(Default)]
struct Seen {
    /// Place of the last finding that was read.
    after: u64,
    /// Open ones, oldest first.
    items: Vec<Item>,
    /// The same ones.
    about: Vec<About>,
    left_out: u64,
}

/// What the list shows of a finding beside its item.
struct About {
    study_uid: Uid,
    sop_instance_uid: Uid,
    outcome: Outcome,
    label: Option<String>,
    band: Option<Band>,
}

impl WorklistSource {
    pub fn new(ledger: Arc<dyn Ledger>, config: Config) -> Self {
        Self { ledger, config, open_max: OPEN_MAX, seen: Mutex::default() }
    }

    /// At most `limit` rows, first to be read first, at `now`. The first call reads the whole ledger, each later one what came since.
    ///
    /// # Errors
    /// When the ledger cannot be read; what was read until then is kept.
    pub fn at(&self, limit: usize, now: UnixMicros) -> Result<Worklist, PortError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let findings = self.ledger.findings_after(seen.after, PAGE)?;
            let Some((last, _)) = findings.last() else { break };
            seen.after = *last;
            findings.iter().for_each(|(_, finding)| seen.add(finding));
            seen.keep_latest(self.open_max);
        }
        let places = order(&self.config, &seen.items, now);
        let row = |place: &fovea_triage::Place| {
            let (item, about) = (&seen.items[place.index], &seen.about[place.index]);
            WorklistRow {
                finding_id: item.id.clone(),
                study_uid: about.study_uid.clone(),
                sop_instance_uid: about.sop_instance_uid.clone(),
                task: item.task.clone(),
                outcome: about.outcome,
                label: about.label.clone(),
                probability: item.probability,
                band: about.band,
                priority: item.priority,
                reader_grade: item.reader_grade,
                arrived_at_unix_us: item.arrived,
                deadline_unix_us: deadline(&self.config, item),
                due: is_due(&self.config, item, now),
                waited_min: place.why.waited_min,
                why: place.why.to_string(),
            }
        };
        let rows = places.iter().take(limit).map(row).collect();
        Ok(Worklist { rows, open: seen.items.len() as u64, left_out: seen.left_out })
    }
}

impl Seen {
    fn add(&mut self, finding: &Finding) {
        // What a person has settled waits for nobody.
        if finding.status != FindingStatus::Preliminary {
            return;
        }
        self.items.push(Item::of(finding));
        self.about.push(About {
            study_uid: finding.study_uid.clone(),
            sop_instance_uid: finding.sop_instance_uid.clone(),
            outcome: finding.outcome,
            label: finding.label.clone(),
            band: finding.band,
        });
    }

    fn keep_latest(&mut self, open_max: usize) {
        let too_many = self.items.len().saturating_sub(open_max);
        self.items.drain(..too_many);
        self.about.drain(..too_many);
        self.left_out += too_many as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::{
        Acceptance, Accepted, Analysis, Inbox, NewObject, ObjectHeader, Reason, Scores, Sender, Sha256, sop_class,
    };
    use fovea_store::MemoryStore;
    use std::io::Write;

    const MINUTE_US: i64 = 60_000_000;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn accepted(store: &MemoryStore, number: u32, at: UnixMicros) -> Accepted {
        let mut temp = store.open_temp().unwrap();
        temp.file.write_all(b"object").unwrap();
        let header = ObjectHeader {
            sop_class_uid: uid(sop_class::SECONDARY_CAPTURE),
            sop_instance_uid: uid(&format!("1.2.{number}")),
            study_uid: uid("1.9"),
            series_uid: uid("1.8"),
            transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
            modality: None,
            body_part: None,
            laterality: None,
            rows_px: None,
            columns_px: None,
            frames: 1,
            photometric: None,
            burned_in_annotation: None,
            pixel_data_offset: None,
        };
        let (data_set_sha256, sender) = (Sha256::of(b"object"), Sender::Capture);
        let object = NewObject { header, sender, last_byte_at: at, data_set_sha256, file_bytes: 6 };
        match store.accept(temp, object).unwrap() {
            Acceptance::New(accepted) => accepted,
            other => panic!("{other:?}"),
        }
    }

    /// Records the outcome of one more object that came at a minute; its probability, or why there is none.
    fn record(store: &MemoryStore, number: u32, minute: i64, probability: Option<f64>) {
        let at = UnixMicros(minute * MINUTE_US);
        let mut analysis = Analysis::not_analysed(Reason::new("no_model", "no eligible model", ""));
        if let Some(probability) = probability {
            analysis.verdict = fovea_core::Verdict::Scored(Scores {
                label: "referable".to_owned(),
                code: fovea_core::Code::new("SCT", "4855003", "Diabetic retinopathy"),
                probability,
                classes: Vec::new(),
                clear_below: 0.2,
                significant_from: 0.5,
            });
        }
        let accepted = accepted(store, number, at);
        store.record(fovea_triage::triage(&accepted, analysis, at, at)).unwrap();
    }

    fn source(store: &Arc<MemoryStore>, open_max: usize) -> WorklistSource {
        WorklistSource { open_max, ..WorklistSource::new(store.clone(), Config::default()) }
    }

    fn shown(list: &Worklist) -> Vec<(&str, &str)> {
        list.rows.iter().map(|row| (row.sop_instance_uid.as_str(), row.why.as_str())).collect()
    }

    #[test]
    fn open_findings_stand_in_the_order_of_need_with_the_reason_and_news_take_their_place() {
        let store = Arc::new(MemoryStore::default());
        let source = source(&store, 100);
        assert!(source.at(10, UnixMicros(0)).unwrap().rows.is_empty());
        record(&store, 1, 0, Some(0.1));
        record(&store, 2, 5, Some(0.3));
        record(&store, 3, 9, None);
        let list = source.at(10, UnixMicros(10 * MINUTE_US)).unwrap();
        let expected = [
            ("1.2.2", "ambiguous, waiting 5 min"),
            ("1.2.1", "clear, waiting 10 min"),
            ("1.2.3", "not analysed, waiting 1 min"),
        ];
        assert_eq!(shown(&list), expected);
        record(&store, 4, 11, Some(0.9));
        // Three hours later the first is due, and the significant one past its limit.
        let list = source.at(2, UnixMicros(185 * MINUTE_US)).unwrap();
        let expected = [
            ("1.2.4", "significant, waiting 2 h 54 min, past the limit of 1 h"),
            ("1.2.2", "ambiguous, waiting 3 h, past the limit of 2 h"),
        ];
        assert_eq!((shown(&list), list.open, list.left_out), (expected.to_vec(), 4, 0));
        let first = &list.rows[0];
        assert!(first.due && first.deadline_unix_us == UnixMicros(71 * MINUTE_US), "{first:?}");
        assert_eq!((first.label.as_deref(), first.band), (Some("referable"), Some(Band::Significant)));
    }

    #[test]
    fn inv_08_a_long_list_keeps_the_latest_and_says_how_many_it_left_out() {
        let store = Arc::new(MemoryStore::default());
        (0..7).for_each(|number| record(&store, number, i64::from(number), Some(0.1)));
        let list = source(&store, 5).at(1000, UnixMicros(10 * MINUTE_US)).unwrap();
        let kept: Vec<&str> = list.rows.iter().map(|row| row.sop_instance_uid.as_str()).collect();
        assert_eq!((kept, list.open, list.left_out), (vec!["1.2.2", "1.2.3", "1.2.4", "1.2.5", "1.2.6"], 5, 2));
    }
}
