//! UIDs, pixels, records and refusals of whole copies.
#![allow(clippy::unwrap_used)] // helpers of a test binary may panic

mod common;

use common::*;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use std::io::Cursor;

fn parsed(bytes: &[u8]) -> InMemDicomObject {
    dicom_object::from_reader(Cursor::new(bytes)).unwrap().into_inner()
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_matches(['\0', ' ']).to_owned()
}

fn with(extra: Vec<El>) -> Vec<El> {
    let mut all = base();
    all.retain(|e| extra.iter().all(|x| x.tag() != e.tag()));
    all.extend(extra);
    all
}

#[test]
fn the_same_key_gives_the_same_uids_in_every_place_and_object() {
    let other = "1.2.826.0.1.44.5";
    let referenced = El::Seq(0x0008_1140, vec![vec![el(0x0008_1150, "UI", OP8), el(0x0008_1155, "UI", other)]]);
    let first = simple(&with(vec![referenced, el(0x0020_0052, "UI", "1.2.840.10008.1.4.1.1")]));
    let second = simple(&with(vec![el(0x0008_0018, "UI", other)]));
    let (a, a_bytes) = copy(&first).unwrap();
    let (b, _) = copy(&second).unwrap();
    let a_object = parsed(&a_bytes);
    let reference = &a_object.element(tags::REFERENCED_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(text(reference, tags::REFERENCED_SOP_INSTANCE_UID), b.sop_instance_uid.as_str());
    assert_eq!(text(reference, tags::REFERENCED_SOP_CLASS_UID), OP8, "a class is well known and stays");
    assert_eq!(text(&a_object, tags::FRAME_OF_REFERENCE_UID), "1.2.840.10008.1.4.1.1");
    assert_eq!((&a.study_uid, &a.series_uid), (&b.study_uid, &b.series_uid));
    assert_ne!(a.sop_instance_uid, b.sop_instance_uid);
    assert_eq!(text(&a_object, tags::SOP_INSTANCE_UID), a.sop_instance_uid.as_str());
    assert_eq!(copy(&first).unwrap().1, a_bytes, "inv_04: the same object gives the same bytes");
    let (c, _) = copy_with(8, &first).unwrap();
    assert_ne!(c.sop_instance_uid, a.sop_instance_uid);
    assert_ne!(c.study_uid, a.study_uid);
}

#[test]
fn the_copy_says_what_was_done_and_keeps_what_pictures_need() {
    let earlier = El::Seq(
        0x0012_0064,
        vec![vec![el(0x0008_0100, "SH", "113105"), el(0x0008_0102, "SH", "DCM"), el(0x0008_0104, "LO", "mine")]],
    );
    let region = El::Seq(
        0x0008_2218,
        vec![vec![
            el(0x0008_0100, "SH", "81745001"),
            el(0x0008_0102, "SH", "SCT"),
            el(0x0008_0104, "LO", "Eye of Ann"),
        ]],
    );
    let extra = vec![earlier, region, el(0x0010_0020, "LO", "MRN123456"), el(0x0008_0020, "DA", "20260102")];
    let (_, bytes) = copy(&simple(&with(extra))).unwrap();
    let object = parsed(&bytes);
    assert_eq!(text(&object, tags::PATIENT_IDENTITY_REMOVED), "YES");
    assert_eq!(text(&object, tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED), "REMOVED");
    let codes = object.element(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE).unwrap().items().unwrap();
    let codes: Vec<_> = codes.iter().map(|item| text(item, tags::CODE_VALUE)).collect();
    assert_eq!(codes, ["113100", "113105"]);
    let region = &object.element(tags::ANATOMIC_REGION_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(text(region, tags::CODE_VALUE), "81745001");
    assert_eq!(text(region, tags::CODE_MEANING), "Eye");
    assert_eq!(text(&object, tags::STUDY_DATE), "");
    assert_eq!(text(&object, tags::IMAGE_TYPE), "ORIGINAL\\PRIMARY\\\\COLOR");
    assert_eq!(text(&object, tags::IMAGE_LATERALITY), "L");
    assert!(text(&object, tags::PATIENT_ID).starts_with("FV-"));
    assert_eq!(bytes[..128], [0; 128]);
}

#[test]
fn a_patient_keeps_one_pseudonym_under_one_key() {
    let id = |value, key| {
        let object = simple(&with(vec![el(0x0010_0020, "LO", value)]));
        text(&parsed(&copy_with(key, &object).unwrap().1), tags::PATIENT_ID)
    };
    assert_eq!(id("MRN-1234", 1), id("MRN-1234 ", 1));
    assert_ne!(id("MRN-1234", 1), id("MRN-1235", 1));
    assert_ne!(id("MRN-1234", 1), id("MRN-1234", 2));
}

#[test]
fn pixels_that_may_carry_text_stay_here_with_that_reason() {
    let burned = quarantine(&simple(&with(vec![el(0x0028_0301, "CS", "YES")])));
    assert!(burned.starts_with("pixels may carry burned-in text"), "{burned}");
    for class in ["1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.77.1.4"] {
        let reason = quarantine(&simple(&with(vec![el(0x0008_0016, "UI", class)])));
        assert!(reason.starts_with("pixels may carry burned-in text"), "{class}: {reason}");
    }
    let overlay = quarantine(&simple(&with(vec![us(0x6000_0102, 8)])));
    assert!(overlay.contains("overlay"), "{overlay}");
    let video = object(&base(), "1.2.840.10008.1.2.4.102", "", false, &jpeg_pixels("", ""), b"");
    assert!(quarantine(&video).contains("transfer syntax"));
}

#[test]
fn pixel_data_that_could_hold_more_than_pixels_is_held_back() {
    let mut longer = native_pixels(true);
    longer[8] = 52;
    longer.extend(b"WORD");
    assert!(quarantine(&object(&base(), EXPLICIT, "", false, &longer, b"")).contains("length differs"));
    let mut two = jpeg_pixels("", "");
    let end = two.split_off(two.len() - 8);
    two.extend([0xFE, 0xFF, 0x00, 0xE0, 10, 0, 0, 0, 0xFF, 0xD8, 0xFF, 0xDA, 0, 2, 1, 1, 0xFF, 0xD9]);
    two.extend(end);
    assert!(quarantine(&object(&base(), JPEG, "", false, &two, b"")).contains("number of frames"));
    let words =
        [&b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\0\0\0\0\xFE\xFF\x00\xE0\x04\0\0\0WORD"[..]].concat();
    assert!(copy(&object(&base(), JPEG, "", false, &words, b"")).is_err());
    assert!(quarantine(&object(&base(), EXPLICIT, "", false, b"", b"")).contains("cannot be read"));
}

#[test]
fn unused_high_bits_of_pixels_are_zero() {
    let bits = vec![
        us(0x0028_0002, 1),
        us(0x0028_0100, 16),
        us(0x0028_0101, 12),
        us(0x0028_0102, 11),
        el(0x0028_0004, "CS", "MONOCHROME2"),
    ];
    let mut pixels = b"\xE0\x7F\x10\x00OW\0\0\x20\0\0\0".to_vec();
    pixels.extend([0xCD, 0xFB].repeat(16));
    let (_, bytes) = copy(&object(&with(bits), EXPLICIT, "", false, &pixels, b"")).unwrap();
    assert!(bytes.ends_with(&[0xCD, 0x0B].repeat(16)));
}

#[test]
fn a_second_reading_that_differs_from_intake_is_held_back() {
    let mut object = simple(&base());
    object.header.pixel_data_offset = object.header.pixel_data_offset.map(|at| at - 2);
    assert!(quarantine(&object).contains("elsewhere"));
    let mut object = simple(&base());
    object.header.study_uid = fovea_core::Uid::new("1.9").unwrap();
    assert!(quarantine(&object).contains("(0020,000D)"));
    let mut object = simple(&base());
    object.header.transfer_syntax_uid = fovea_core::Uid::new(IMPLICIT).unwrap();
    assert!(quarantine(&object).contains("(0002,0010)"));
}

#[test]
fn identity_hidden_in_what_may_stay_is_found_by_the_audit() {
    // Numbers, code strings and codes pass the rewriter by their form; the audit knows the patient's id.
    let id = || el(0x0010_0020, "LO", "48151623");
    let code = El::Seq(0x0008_2218, vec![vec![el(0x0008_0100, "SH", "48151623"), el(0x0008_0102, "SH", "SCT")]]);
    for hidden in [el(0x0020_0013, "IS", "48151623"), el(0x0018_0050, "DS", "48151623"), code] {
        let reason = quarantine(&simple(&with(vec![id(), hidden.clone()])));
        assert!(reason.contains("identifier of the original"), "{hidden:?}: {reason}");
        assert!(!reason.contains("48151623"), "no value in a reason");
    }
}

#[test]
fn short_and_common_values_do_not_hold_a_copy_back() {
    for name in ["OP", "Eye^Retina", "RGB^Yes", "A", "Primary^Original", "Li^Bo"] {
        let extra = vec![
            el(0x0010_0010, "PN", name),
            el(0x0010_0020, "LO", "4"),
            el(0x0008_0050, "SH", "226"),
            el(0x0020_0010, "SH", "1"),
            el(0x0008_1030, "LO", "Retina Eye RGB"),
            el(0x0020_0013, "IS", "226"),
        ];
        copy(&simple(&with(extra))).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
