//! The items that are known.
//!
//! In: complete answers of the provider. Out: items, for people and by name. Promise: an item is durable before it is served; one
//! that the provider no longer tells stays for a while; nothing else takes it away.

use crate::fetch::ITEMS_MAX;
use fovea_core::{Document, DocumentKind, Documents, PortError, Schedule, ScheduledItem, Uid, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Items read from the documents at once.
const PAGE: usize = 256;
/// When an item was last told is written anew only when it is so much newer: a write for each item and question would be many.
const SEEN_STEP_US: i64 = 3_600_000_000;
/// Version of a document's form.
const VERSION: u32 = 1;

/// An item as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u32,
    item: ScheduledItem,
    /// When the provider told it last.
    seen: UnixMicros,
}

/// The worklist. Questions are answered from memory.
pub struct Worklist {
    documents: Arc<dyn Documents>,
    kept: RwLock<BTreeMap<String, Kept>>,
}

impl Worklist {
    /// The items that were kept. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(documents: Arc<dyn Documents>) -> Result<Self, PortError> {
        let mut kept = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = documents.documents(DocumentKind::WorklistItem, &after, PAGE)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.key);
            for document in page {
                // One of a later version is left as it is, and told again by the provider.
                if let Ok(read) = serde_json::from_slice::<Kept>(&document.content)
                    && read.version == VERSION
                {
                    kept.insert(document.key, read);
                }
            }
        }
        Ok(Self { documents, kept: RwLock::new(kept) })
    }

    /// Takes over a complete answer of `now`, and forgets what has not been told for `keep`. Blocks.
    ///
    /// # Errors
    /// When something cannot be written; what was written until then is served.
    pub fn update(&self, items: Vec<ScheduledItem>, now: UnixMicros, keep: Duration) -> Result<(), PortError> {
        for item in items {
            let key = key(&item);
            let known = self.read(|kept| kept.get(&key).cloned());
            let is_news = known.is_none_or(|known| known.item != item || known.seen.0 + SEEN_STEP_US <= now.0);
            if is_news {
                self.put(key, Kept { version: VERSION, item, seen: now })?;
            }
        }
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX).saturating_add(SEEN_STEP_US);
        let mut stale: Vec<(UnixMicros, String)> =
            self.read(|kept| kept.iter().map(|(key, kept)| (kept.seen, key.clone())).collect());
        stale.sort();
        let too_many = stale.len().saturating_sub(ITEMS_MAX);
        for (number, (seen, key)) in stale.into_iter().enumerate() {
            if number < too_many || seen.0.saturating_add(keep) < now.0 {
                self.documents.remove_document(DocumentKind::WorklistItem, &key)?;
                self.kept.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
        }
        Ok(())
    }

    fn put(&self, key: String, kept: Kept) -> Result<(), PortError> {
        let content = serde_json::to_vec(&kept)
            .map_err(|error| PortError::Damaged { detail: format!("an item without JSON: {error}") })?;
        self.documents.put_document(DocumentKind::WorklistItem, Document { key: key.clone(), content })?;
        self.kept.write().unwrap_or_else(PoisonError::into_inner).insert(key, kept);
        Ok(())
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Kept>) -> T) -> T {
        look(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All items in the order of their start.
    #[must_use]
    pub fn items(&self) -> Vec<ScheduledItem> {
        let mut items: Vec<ScheduledItem> = self.read(|kept| kept.values().map(|kept| kept.item.clone()).collect());
        items.sort_by(|a, b| {
            (&a.start_date, &a.start_time, &a.step_id).cmp(&(&b.start_date, &b.start_time, &b.step_id))
        });
        items
    }
}

impl Schedule for Worklist {
    fn item(&self, named: &str) -> Option<ScheduledItem> {
        let named = named.trim();
        if named.is_empty() {
            return None;
        }
        let is_meant = |item: &ScheduledItem| item.accession_number == named || item.study_uid.as_str() == named;
        let mut meant = self.items();
        meant.retain(is_meant);
        let first = meant.first()?;
        let is_same = |item: &ScheduledItem| {
            let whose = |item: &ScheduledItem| (item.patient_id.clone(), item.patient_id_issuer.clone());
            item.study_uid == first.study_uid && whose(item) == whose(first)
        };
        if meant.iter().all(is_same) { meant.into_iter().next() } else { None }
    }
}

/// A name that tells nothing of the patient.
fn key(item: &ScheduledItem) -> String {
    let parts = [item.study_uid.as_str(), &item.step_id, &item.procedure_id, &item.patient_id];
    Uid::derived("worklist item", &parts).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_store::MemoryStore;

    fn item(study: &str, accession: &str, patient: &str, step: &str) -> ScheduledItem {
        ScheduledItem {
            study_uid: Uid::new(study).unwrap(),
            accession_number: accession.to_owned(),
            patient_name: format!("{patient}^Name"),
            patient_id: patient.to_owned(),
            patient_id_issuer: String::new(),
            patient_birth_date: String::new(),
            patient_sex: String::new(),
            referring_physician: String::new(),
            procedure_id: String::new(),
            procedure_description: String::new(),
            step_id: step.to_owned(),
            step_description: String::new(),
            station_ae_title: String::new(),
            modality: "OP".to_owned(),
            start_date: "20260102".to_owned(),
            start_time: step.to_owned(),
        }
    }

    const HOUR_US: i64 = 3_600_000_000;
    const KEEP: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_was_fetched_survives_a_restart_and_goes_only_when_it_was_long_not_told() {
        let store = Arc::new(MemoryStore::new());
        let open = || Worklist::open(store.clone()).unwrap();
        open().update(vec![item("1.1", "A1", "P1", "2"), item("1.2", "A2", "P2", "1")], UnixMicros(0), KEEP).unwrap();
        let steps = |list: &Worklist| list.items().into_iter().map(|item| item.step_id).collect::<Vec<_>>();
        let list = open();
        assert_eq!(steps(&list), ["1", "2"]);
        list.update(vec![item("1.1", "A1", "P1", "2")], UnixMicros(20 * HOUR_US), KEEP).unwrap();
        assert_eq!(steps(&list).len(), 2, "ticked off, and its pictures may still come");
        list.update(Vec::new(), UnixMicros(26 * HOUR_US), KEEP).unwrap();
        assert_eq!((steps(&list), steps(&open())), (vec!["2".to_owned()], vec!["2".to_owned()]));
    }

    #[test]
    fn a_name_means_one_patient_and_study_or_nothing() {
        let list = Worklist::open(Arc::new(MemoryStore::new())).unwrap();
        let items = vec![
            item("1.1", "A1", "P1", "1"),
            item("1.1", "A1", "P1", "2"),
            item("1.2", "A2", "P2", "3"),
            item("1.3", "A2", "P3", "4"),
            item("1.4", "", "P4", "5"),
        ];
        list.update(items, UnixMicros(0), KEEP).unwrap();
        assert_eq!(list.item("A1").unwrap().step_id, "1");
        assert_eq!(list.item("1.3").unwrap().patient_id, "P3");
        for nobody in ["A2", "", " ", "A", "a1", "1", "P1"] {
            assert!(list.item(nobody).is_none(), "{nobody:?}");
        }
    }
}
