//! Which model may answer for an object.
//! In: routing facts of an object, and the models in the order of the configuration. Out: the first that fits.
//! Promise: a fact that the object does not state never makes it fit a list, with two exceptions: laterality and body
//! part, which most devices leave out; a bundle may ask that the body part be stated.

use crate::bundle::manifest::{Eligible, Manifest};
use fovea_core::{Laterality, ObjectHeader, Reason};

/// Code of the reason of [`NotSelected::NoModel`].
pub const NO_ELIGIBLE_MODEL: &str = "no_eligible_model";

/// Why no model was selected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotSelected {
    /// No model is meant for such objects.
    NoModel(Reason),
    /// A model is, but the picture has too few pixels for it: it can be taken again.
    TooSmall {
        /// Which model, by its place.
        index: usize,
        /// For the person at the device.
        reason: Reason,
    },
}

/// The first model that is meant for the object, by its place in `models`.
///
/// # Errors
/// [`NotSelected`]: a model that fits but for the size counts only when no other fits.
pub fn select<'a>(models: impl IntoIterator<Item = &'a Manifest>, header: &ObjectHeader) -> Result<usize, NotSelected> {
    let mut too_small = None;
    for (index, manifest) in models.into_iter().enumerate() {
        if !manifest.eligible.meant_for(header) {
            continue;
        }
        match manifest.eligible.large_enough(header) {
            Ok(()) => return Ok(index),
            Err(reason) => too_small = too_small.or(Some(NotSelected::TooSmall { index, reason })),
        }
    }
    Err(too_small.unwrap_or_else(|| NotSelected::NoModel(Reason::new(NO_ELIGIBLE_MODEL, "no eligible model", ""))))
}

impl Eligible {
    /// True when class, modality, body part, laterality and photometric interpretation fit.
    #[must_use]
    pub fn meant_for(&self, header: &ObjectHeader) -> bool {
        fits(&self.sop_classes, Some(header.sop_class_uid.as_str()))
            && fits(&self.modalities, header.modality.as_deref())
            && fits(&self.photometrics, header.photometric.as_deref())
            && (header.laterality.is_none() || fits(&self.lateralities, header.laterality.map(letter)))
            && self.body_part_fits(header.body_part.as_deref())
    }

    /// A stated body part must be listed; an empty value states none.
    fn body_part_fits(&self, body_part: Option<&str>) -> bool {
        match body_part.map(str::trim).filter(|part| !part.is_empty()) {
            Some(part) => fits(&self.body_parts, Some(part)),
            None => !self.body_part_required,
        }
    }

    /// Whether the picture has the pixels that the model needs.
    ///
    /// # Errors
    /// The reason, for the person at the device. An object that does not state its size is not large enough.
    pub fn large_enough(&self, header: &ObjectHeader) -> Result<(), Reason> {
        let (rows, columns) = (header.rows_px.unwrap_or(0), header.columns_px.unwrap_or(0));
        if rows >= self.min_rows_px && columns >= self.min_columns_px {
            return Ok(());
        }
        let text = format!(
            "the picture has {columns} x {rows} pixels, {} x {} are needed",
            self.min_columns_px, self.min_rows_px
        );
        Err(Reason::new("too_small", text, "Take the picture again at full resolution."))
    }
}

/// As (0020,0060) and (0020,0062) have it.
fn letter(laterality: Laterality) -> &'static str {
    match laterality {
        Laterality::Left => "L",
        Laterality::Right => "R",
        Laterality::Both => "B",
    }
}

/// An empty list takes anything; otherwise the value must be there and listed. Padding and case do not count.
fn fits(list: &[String], value: Option<&str>) -> bool {
    list.is_empty() || value.is_some_and(|value| list.iter().any(|entry| entry.eq_ignore_ascii_case(value.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::{Uid, sop_class};

    fn header() -> ObjectHeader {
        let uid = Uid::new("1.2.3").unwrap();
        ObjectHeader {
            sop_class_uid: Uid::new(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT).unwrap(),
            sop_instance_uid: uid.clone(),
            study_uid: uid.clone(),
            series_uid: uid,
            transfer_syntax_uid: Uid::new("1.2.840.10008.1.2.1").unwrap(),
            modality: Some("OP".to_owned()),
            body_part: None,
            laterality: None,
            rows_px: Some(600),
            columns_px: Some(800),
            frames: 1,
            photometric: Some("RGB".to_owned()),
            burned_in_annotation: None,
            pixel_data_offset: None,
        }
    }

    fn eye() -> Eligible {
        Eligible {
            sop_classes: vec![sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT.to_owned()],
            modalities: vec!["OP".to_owned()],
            body_parts: vec!["EYE".to_owned(), "RETINA".to_owned()],
            body_part_required: false,
            lateralities: Vec::new(),
            photometrics: vec!["RGB".to_owned(), "YBR_FULL_422".to_owned()],
            min_rows_px: 400,
            min_columns_px: 400,
        }
    }

    type Change = fn(&mut ObjectHeader);

    #[test]
    fn every_stated_fact_must_fit() {
        assert!(eye().meant_for(&header()));
        let changes: [(&str, Change); 6] = [
            ("class", |h| h.sop_class_uid = Uid::new(sop_class::ULTRASOUND).unwrap()),
            ("modality", |h| h.modality = Some("US".to_owned())),
            ("no modality", |h| h.modality = None),
            ("body part", |h| h.body_part = Some("THYROID".to_owned())),
            ("photometric", |h| h.photometric = Some("MONOCHROME2".to_owned())),
            ("no photometric", |h| h.photometric = None),
        ];
        for (what, change) in changes {
            let mut header = header();
            change(&mut header);
            assert!(!eye().meant_for(&header), "{what}");
        }
    }

    #[test]
    fn padding_case_and_an_unstated_body_part_do_not_count() {
        let mut padded = header();
        padded.modality = Some("op ".to_owned());
        padded.body_part = Some("Retina".to_owned());
        assert!(eye().meant_for(&padded));
        assert!(Eligible::default().meant_for(&header()));
        assert!(Eligible { min_rows_px: 0, min_columns_px: 0, ..eye() }.large_enough(&header()).is_ok());
    }

    #[test]
    fn a_stated_side_must_be_listed_and_an_unstated_one_passes() {
        let left = Eligible { lateralities: vec!["L".to_owned(), "B".to_owned()], ..eye() };
        for (side, fits) in [
            (None, true),
            (Some(Laterality::Left), true),
            (Some(Laterality::Both), true),
            (Some(Laterality::Right), false),
        ] {
            let header = ObjectHeader { laterality: side, ..header() };
            assert_eq!(left.meant_for(&header), fits, "{side:?}");
            assert!(eye().meant_for(&header), "without a list no side is asked");
        }
    }

    #[test]
    fn a_body_part_may_have_to_be_stated() {
        let strict = Eligible { body_part_required: true, ..eye() };
        for (part, loosely, strictly) in
            [(None, true, false), (Some("  "), true, false), (Some("EYE"), true, true), (Some("LUNG"), false, false)]
        {
            let header = ObjectHeader { body_part: part.map(str::to_owned), ..header() };
            assert_eq!((eye().meant_for(&header), strict.meant_for(&header)), (loosely, strictly), "{part:?}");
        }
    }

    #[test]
    fn of_several_bundles_the_first_that_fits_answers() {
        let manifest =
            |id: &str, eligible: Eligible| Manifest { id: id.to_owned(), eligible, ..crate::bundle::tests::manifest() };
        let thyroid = Eligible {
            modalities: vec!["US".to_owned()],
            body_parts: vec!["THYROID".to_owned()],
            body_part_required: true,
            ..Eligible::default()
        };
        let large = Eligible { min_rows_px: 2000, ..eye() };
        let models = [manifest("thyroid", thyroid), manifest("large-eye", large), manifest("eye", eye())];
        assert_eq!(select(&models, &header()), Ok(2), "one that fits but for the size gives way to one that fits");
        let too_small = select(&models[..2], &header());
        assert!(matches!(&too_small, Err(NotSelected::TooSmall { index: 1, .. })), "{too_small:?}");
        let scan = ObjectHeader { modality: Some("US".to_owned()), body_part: Some("Thyroid".to_owned()), ..header() };
        assert_eq!(select(&models, &scan), Ok(0));
        let abdomen = ObjectHeader { body_part: Some("ABDOMEN".to_owned()), ..scan.clone() };
        let unstated = ObjectHeader { body_part: None, ..scan };
        for other in [abdomen, unstated] {
            assert!(
                matches!(select(&models, &other), Err(NotSelected::NoModel(reason)) if reason.code == NO_ELIGIBLE_MODEL)
            );
        }
    }

    #[test]
    fn a_small_picture_can_be_taken_again() {
        let mut small = header();
        small.rows_px = Some(399);
        assert!(eye().meant_for(&small));
        let reason = eye().large_enough(&small).unwrap_err();
        assert_eq!(reason.code, "too_small");
        assert!(!reason.advice.is_empty());
        small.rows_px = None;
        assert!(eye().large_enough(&small).is_err());
    }
}
