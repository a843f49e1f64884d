//! One question to the provider.
//!
//! In: a configuration, a moment. Out: the items that are planned around it, or why they are not known.
//! Promise: at most [`ITEMS_MAX`] items; texts are decoded and bounded; an item that lacks what names it is left out.
//! Standard: PS3.4 section K.4 and table K.6-1, PS3.7 section 9.1.2.

use crate::Config;
use fovea_core::{ScheduledItem, TagNumber, Uid, UnixMicros};
use fovea_dimse::{Context, DataSet, Found, Scu, ScuConfig, ScuError, Status, transfer_syntax};
use fovea_text::Repertoire;
use std::time::Duration;

/// Most items: a day of the busiest department, ten times over.
pub(crate) const ITEMS_MAX: usize = 5_000;
/// Longest text of an attribute.
const TEXT_CHARS_MAX: usize = 256;
/// Modality Worklist Information Model - FIND (PS3.4 table K.6.1.4-1).
const MODALITY_WORKLIST: &str = "1.2.840.10008.5.1.4.31";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A provider asks its own database first.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const PDU_BYTES_MAX: u32 = 128 * 1024;

const CHARACTER_SET: TagNumber = 0x0008_0005;
const STEPS: TagNumber = 0x0040_0100;
/// Asked for and told of the whole request, without a value to match.
const OF_REQUEST: [TagNumber; 11] = [
    0x0008_0050, // AccessionNumber
    0x0008_0090, // ReferringPhysicianName
    0x0010_0010, // PatientName
    0x0010_0020, // PatientID
    0x0010_0021, // IssuerOfPatientID
    0x0010_0030, // PatientBirthDate
    0x0010_0040, // PatientSex
    0x0020_000D, // StudyInstanceUID
    0x0032_1060, // RequestedProcedureDescription
    0x0040_1001, // RequestedProcedureID
    0x0040_1003, // RequestedProcedurePriority
];
/// The same of the step.
const OF_STEP: [TagNumber; 4] = [
    0x0040_0003, // ScheduledProcedureStepStartTime
    0x0040_0006, // ScheduledPerformingPhysicianName
    0x0040_0007, // ScheduledProcedureStepDescription
    0x0040_0009, // ScheduledProcedureStepID
];

/// Why the worklist is not known.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The provider could not be asked.
    #[error("ask the worklist provider")]
    Ask {
        /// Why.
        #[from]
        source: ScuError,
    },
    /// It said that it could not answer.
    #[error("the worklist provider answered {status:04X}")]
    Status {
        /// (0000,0900).
        status: u16,
    },
    /// More than we keep.
    #[error("the worklist has more than {ITEMS_MAX} items: ask for one station or modality")]
    TooMany,
}

/// Asks once.
pub(crate) async fn fetch(config: &Config, now: UnixMicros) -> Result<Vec<ScheduledItem>, FetchError> {
    let scu = ScuConfig {
        address: config.address.clone(),
        called_ae: config.called_ae.clone(),
        calling_ae: config.calling_ae.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: RESPONSE_TIMEOUT,
        max_pdu_bytes: PDU_BYTES_MAX,
        tls: None,
    };
    // Constants of the standard: all are UIDs.
    let uid = |text| Uid::new(text).map_err(|_| FetchError::Status { status: Status::PROCESSING_FAILURE.0 });
    let class = uid(MODALITY_WORKLIST)?;
    let syntaxes = vec![uid(transfer_syntax::EXPLICIT_VR_LE)?, uid(transfer_syntax::IMPLICIT_VR_LE)?];
    let context = Context { sop_class_uid: class.clone(), transfer_syntax_uids: syntaxes };
    let mut scu = Scu::connect(&scu, &[context]).await?;
    let found = scu.find(&class, &identifier(config, now), ITEMS_MAX).await;
    let Found { rows, status, is_cut } = match found {
        Ok(found) => found,
        Err(error) => {
            scu.abort().await;
            return Err(error.into());
        }
    };
    // What was asked has been answered, however the peer takes leave.
    let _answered = scu.release().await;
    if is_cut {
        return Err(FetchError::TooMany);
    }
    if status != Status::SUCCESS {
        return Err(FetchError::Status { status: status.0 });
    }
    let (known, all) = (rows.iter().filter_map(item).collect::<Vec<_>>(), rows.len());
    if known.len() < all {
        log::warn!("{} items of the worklist lack patient, study or step and are left out", all - known.len());
    }
    Ok(known)
}

/// What is asked.
fn identifier(config: &Config, now: UnixMicros) -> DataSet {
    let day = now.0.div_euclid(86_400_000_000);
    let (from, to) = (date(day - i64::from(config.days_before)), date(day + i64::from(config.days_after)));
    let step = OF_STEP.into_iter().fold(DataSet::default(), |step, tag| step.with_bytes(tag, b""));
    let step = step
        .with_text(0x0008_0060, config.modality.as_deref().unwrap_or_default())
        .with_text(0x0040_0001, config.station_ae.as_ref().map_or("", |title| title.as_str()))
        .with_text(0x0040_0002, &format!("{from}-{to}"));
    let asked = OF_REQUEST.into_iter().fold(DataSet::default(), |asked, tag| asked.with_bytes(tag, b""));
    asked.with_text(CHARACTER_SET, "ISO_IR 192").with_items(STEPS, vec![step])
}

/// One row; none where it lacks patient, study or step, or where what tells patients apart cannot be read whole: half a
/// number may be somebody else's.
fn item(row: &DataSet) -> Option<ScheduledItem> {
    let repertoire = Repertoire::of(row.bytes(CHARACTER_SET));
    let text = |of: &DataSet, tag| {
        let text = of.bytes(tag).map(|bytes| repertoire.text(bytes)).unwrap_or_default();
        // One value each: what stands behind a backslash is not ours to choose from.
        text.split('\\').next().unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect::<String>()
    };
    let is_whole = |tag| {
        let text = row.bytes(tag).map(|bytes| repertoire.text(bytes)).unwrap_or_default();
        !text.contains(['\\', char::REPLACEMENT_CHARACTER]) && text.chars().count() <= TEXT_CHARS_MAX
    };
    if ![0x0008_0050, 0x0010_0010, 0x0010_0020, 0x0010_0021, 0x0010_0030].into_iter().all(is_whole) {
        return None;
    }
    let step = row.items(STEPS).first()?;
    let item = ScheduledItem {
        study_uid: row.uid(0x0020_000D)?,
        accession_number: text(row, 0x0008_0050),
        patient_name: text(row, 0x0010_0010),
        patient_id: text(row, 0x0010_0020),
        patient_id_issuer: text(row, 0x0010_0021),
        patient_birth_date: text(row, 0x0010_0030),
        patient_sex: text(row, 0x0010_0040),
        referring_physician: text(row, 0x0008_0090),
        procedure_id: text(row, 0x0040_1001),
        procedure_description: text(row, 0x0032_1060),
        step_id: text(step, 0x0040_0009),
        step_description: text(step, 0x0040_0007),
        station_ae_title: text(step, 0x0040_0001),
        modality: text(step, 0x0008_0060),
        start_date: text(step, 0x0040_0002),
        start_time: text(step, 0x0040_0003),
    };
    (!item.patient_id.is_empty() && !item.patient_name.is_empty()).then_some(item)
}

/// Days since 1970 as YYYYMMDD, by shifting the year to begin in March.
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}{month:02}{day:02}", year_of_era + era * 400 + i64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_civil_dates() {
        for (day, expected) in [(0, "19700101"), (-1, "19691231"), (11_016, "20000229"), (20_512, "20260228")] {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn an_item_is_taken_whole_or_not_at_all() {
        let step = DataSet::default().with_text(0x0040_0009, "S1").with_text(0x0008_0060, "OP");
        let row = DataSet::default()
            .with_text(CHARACTER_SET, "ISO_IR 100")
            .with_bytes(0x0010_0010, b"Buc^J\xe9r\xf4me ")
            .with_text(0x0010_0020, "P1")
            .with_text(0x0020_000D, "1.2.3")
            .with_items(STEPS, vec![step]);
        let taken = item(&row).unwrap();
        let told = (taken.patient_name.as_str(), taken.patient_id.as_str(), taken.step_id.as_str());
        assert_eq!(told, ("Buc^Jérôme", "P1", "S1"));
        for unclear in [&b""[..], b"P1\\P2", b"7\xe417"] {
            let stated = row.clone().with_text(CHARACTER_SET, "ISO_IR 192").with_bytes(0x0010_0010, b"Buc^J");
            assert!(item(&stated.with_bytes(0x0010_0020, unclear)).is_none(), "{unclear:?}");
        }
        assert!(item(&row.with_items(STEPS, Vec::new())).is_none());
    }
}
