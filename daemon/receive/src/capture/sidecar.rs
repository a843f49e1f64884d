//! What a device or a person may say of a picture, beside it: `picture.jpg.json` or `picture.json`.

use fovea_core::{Laterality, Uid};
use serde::Deserialize;

/// Longest sidecar that is read.
pub(super) const SIDECAR_BYTES_MAX: u64 = 16 * 1024;

/// A sidecar as it is written; unknown keys are refused, so that a misspelt one is not lost in silence.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSidecar {
    laterality: Option<String>,
    accession_number: Option<String>,
    study_uid: Option<String>,
    burned_in_annotation: Option<bool>,
}

/// A checked sidecar.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sidecar {
    pub(super) laterality: Option<Laterality>,
    /// 1 to 16 printable ASCII characters, no backslash (VR SH).
    pub(super) accession_number: Option<String>,
    /// A study that is planned: names the patient only if it stands in the worklist.
    pub(super) study_uid: Option<Uid>,
    /// Text is burned into the pixels.
    pub(super) burned_in_annotation: bool,
}

/// Why a sidecar cannot be used. The text itself is not repeated: it may name a patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// No JSON object with the known keys.
    #[error(
        "the sidecar is no JSON object with the keys laterality, accession_number, study_uid, burned_in_annotation"
    )]
    Form,
    /// A folder, a link, a pipe.
    #[error("the sidecar is no plain file")]
    NotFile,
    /// Another laterality.
    #[error("laterality must be \"L\", \"R\" or \"B\"")]
    Laterality,
    /// Another accession number.
    #[error("accession_number must be 1 to 16 printable ASCII characters, no backslash")]
    AccessionNumber,
    /// No UID.
    #[error("study_uid must be a UID")]
    StudyUid,
}

impl Sidecar {
    /// Reads a sidecar.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub(super) fn parse(json: &[u8]) -> Result<Self, SidecarError> {
        let raw: RawSidecar = serde_json::from_slice(json).map_err(|_| SidecarError::Form)?;
        let laterality = match raw.laterality.as_deref() {
            None => None,
            Some("L") => Some(Laterality::Left),
            Some("R") => Some(Laterality::Right),
            Some("B") => Some(Laterality::Both),
            Some(_) => return Err(SidecarError::Laterality),
        };
        let accession_number = raw.accession_number.map(|text| text.trim().to_owned());
        let fits = |text: &String| {
            (1..=16).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\')
        };
        if accession_number.as_ref().is_some_and(|text| !fits(text)) {
            return Err(SidecarError::AccessionNumber);
        }
        let study_uid = raw.study_uid.map(|text| Uid::new(text.trim()));
        let study_uid = study_uid.transpose().map_err(|_| SidecarError::StudyUid)?;
        Ok(Self {
            laterality,
            accession_number,
            study_uid,
            burned_in_annotation: raw.burned_in_annotation.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_and_others_refused() {
        let read = Sidecar::parse(br#"{"laterality":"R","accession_number":" A-17 "}"#).unwrap();
        assert_eq!((read.laterality, read.accession_number.as_deref()), (Some(Laterality::Right), Some("A-17")));
        assert!(!read.burned_in_annotation);
        assert_eq!(Sidecar::parse(b"{}"), Ok(Sidecar::default()));
        assert_eq!(Sidecar::parse(br#"{"patient_name":"X"}"#), Err(SidecarError::Form));
        assert_eq!(Sidecar::parse(br#"{"laterality":"left"}"#), Err(SidecarError::Laterality));
        assert_eq!(Sidecar::parse(br#"{"accession_number":"a\\b"}"#), Err(SidecarError::AccessionNumber));
        assert_eq!(Sidecar::parse(b"\xff"), Err(SidecarError::Form));
    }
}
