//! Which planned step a picture is of.
//!
//! In: a picture's sidecar, the worklist. Out: the item that it names. Promise: never a guess: only the sidecar's accession number
//! or study UID names one. A file name does not: cameras write patient numbers, counters and dates there, and any of
//! them may be somebody else's accession number.

use super::sidecar::Sidecar;
use fovea_core::{Schedule, ScheduledItem};

/// The item, none where nothing is named that is planned.
pub(super) fn scheduled(schedule: &dyn Schedule, sidecar: &Sidecar) -> Option<ScheduledItem> {
    let by_study = sidecar.study_uid.as_ref().map(|uid| schedule.item(uid.as_str()));
    let by_accession = sidecar.accession_number.as_ref().map(|text| schedule.item(text));
    match (by_study, by_accession) {
        // Both must mean the same.
        (Some(Some(study)), Some(Some(accession))) => (study.study_uid == accession.study_uid).then_some(study),
        (Some(Some(item)), None) | (None, Some(Some(item))) => Some(item),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::Uid;

    /// Accession numbers with their studies.
    struct Planned(Vec<(&'static str, &'static str)>);

    impl Schedule for Planned {
        fn item(&self, named: &str) -> Option<ScheduledItem> {
            let (accession, study) = self.0.iter().find(|(accession, study)| *accession == named || *study == named)?;
            Some(ScheduledItem {
                study_uid: Uid::new(study).unwrap(),
                accession_number: (*accession).to_owned(),
                patient_name: String::new(),
                patient_id: String::new(),
                patient_id_issuer: String::new(),
                patient_birth_date: String::new(),
                patient_sex: String::new(),
                referring_physician: String::new(),
                procedure_id: String::new(),
                procedure_description: String::new(),
                step_id: String::new(),
                step_description: String::new(),
                station_ae_title: String::new(),
                modality: String::new(),
                start_date: String::new(),
                start_time: String::new(),
            })
        }
    }

    #[test]
    fn a_picture_is_named_by_what_says_so_and_by_nothing_else() {
        let planned = Planned(vec![("ACC-17", "1.2.17"), ("0001", "1.2.1"), ("ACC-18", "1.2.18")]);
        for (sidecar, expected) in [
            ("{}", None),
            (r#"{"accession_number":"0001"}"#, Some("1.2.1")),
            (r#"{"accession_number":"ACC-17"}"#, Some("1.2.17")),
            (r#"{"accession_number":"ACC-99"}"#, None),
            (r#"{"study_uid":"1.2.18"}"#, Some("1.2.18")),
            (r#"{"study_uid":"1.2.18","accession_number":"ACC-18"}"#, Some("1.2.18")),
            (r#"{"study_uid":"1.2.18","accession_number":"ACC-17"}"#, None),
            (r#"{"study_uid":"1.2.18","accession_number":"ACC-99"}"#, None),
        ] {
            let sidecar = Sidecar::parse(sidecar.as_bytes()).unwrap();
            let item = scheduled(&planned, &sidecar);
            assert_eq!(item.as_ref().map(|item| item.study_uid.as_str()), expected, "{sidecar:?}");
        }
    }
}
