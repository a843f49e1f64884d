//! Reports read back by a parser that is not ours (dicom-object), for every outcome and for poor sources.

// Helpers of a test binary may panic; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used)]

use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry as _; // registers the deflated syntax
use fovea_core::{
    Band, ClassScore, Code, Finding, FindingId, FindingStatus, Measurement, ModelRef, Outcome, Priority, Quality,
    ReaderGrade, Region, Sha256, Timing, Uid, UnixMicros, sop_class,
};
use fovea_report::{Algorithm, Observer, Report, ReportError, structured_report};
use std::io::Cursor;

const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn node() -> Observer {
    Observer {
        device_uid: uid("1.2.77"),
        name: "node".into(),
        manufacturer: "Fovea".into(),
        model: "box".into(),
        serial: "S1".into(),
        software_version: "0.1.0".into(),
    }
}

fn algorithm() -> Algorithm {
    Algorithm::artificial_intelligence("dr-screening", "1.0.0", "Fovea")
}

fn header() -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::SOP_CLASS_UID, VR::UI, sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
        DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.4"),
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
        DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.3"),
        DataElement::new(tags::MODALITY, VR::CS, "OP"),
    ])
}

fn file(header: &InMemDicomObject, syntax: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let meta = FileMetaTableBuilder::new().transfer_syntax(syntax);
    header.clone().with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    bytes
}

fn finding(outcome: Outcome) -> Finding {
    let is_finding = outcome == Outcome::Finding;
    Finding {
        finding_id: FindingId::of(&uid("1.2.3.4"), &Sha256::of(b"object"), None),
        study_uid: uid("1.2.3"),
        series_uid: uid("1.2.3.3"),
        sop_instance_uid: uid("1.2.3.4"),
        sop_class_uid: uid(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
        frame: 1,
        task: "dr".into(),
        outcome,
        reason: (!is_finding).then(|| "the picture is out of focus".into()),
        reason_code: (!is_finding).then(|| "out_of_focus".into()),
        advice: None,
        label: is_finding.then(|| "diabetic retinopathy".into()),
        code: is_finding.then(|| Code::new("SCT", "4855003", "Diabetic retinopathy")),
        probability: is_finding.then_some(0.875),
        band: is_finding.then_some(Band::Significant),
        priority: Priority::High,
        reader_grade: ReaderGrade::Any,
        measurements: Vec::new(),
        regions: Vec::new(),
        classes: Vec::new(),
        tile_map: None,
        quality: Quality::new(),
        model: Some(ModelRef { id: "dr".into(), version: "1".into(), sha256: Sha256::of(b"m") }),
        device: Some("CPU".into()),
        status: FindingStatus::Preliminary,
        timing_us: Timing::default(),
        recorded_at_unix_us: UnixMicros(1_767_346_530_123_456),
    }
}

fn report(finding: &Finding, source: &[u8]) -> Report {
    structured_report(finding, &mut Cursor::new(source), Some(&algorithm()), &node()).unwrap()
}

fn read(report: &Report) -> InMemDicomObject {
    dicom_object::from_reader(Cursor::new(&report.bytes)).unwrap().into_inner()
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches('\0').to_string()
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element(tag).unwrap().items().unwrap()
}

/// Every content item as `concept meaning = value`.
fn said(object: &InMemDicomObject) -> Vec<String> {
    let mut lines = Vec::new();
    for item in object.get(tags::CONTENT_SEQUENCE).and_then(|e| e.items()).unwrap_or_default() {
        let meaning = |sequence| text(&items(item, sequence)[0], tags::CODE_MEANING);
        let value = match text(item, tags::VALUE_TYPE).as_str() {
            "CODE" => meaning(tags::CONCEPT_CODE_SEQUENCE),
            "TEXT" => text(item, tags::TEXT_VALUE),
            "NUM" => {
                let number = &items(item, tags::MEASURED_VALUE_SEQUENCE)[0];
                let unit = &items(number, tags::MEASUREMENT_UNITS_CODE_SEQUENCE)[0];
                format!("{} {}", text(number, tags::NUMERIC_VALUE), text(unit, tags::CODE_VALUE))
            }
            "IMAGE" => text(&items(item, tags::REFERENCED_SOP_SEQUENCE)[0], tags::REFERENCED_SOP_INSTANCE_UID),
            "UIDREF" => text(item, tags::UID),
            other => other.to_owned(),
        };
        lines.push(format!("{} = {value}", meaning(tags::CONCEPT_NAME_CODE_SEQUENCE)));
        lines.extend(said(item));
    }
    lines
}

#[test]
fn inv_04_the_same_finding_gives_the_same_bytes() {
    let source = file(&header(), EXPLICIT);
    let first = report(&finding(Outcome::Finding), &source);
    let mut slower = finding(Outcome::Finding);
    slower.timing_us.inferred = 999;
    assert_eq!(first, report(&slower, &source));
    let mut other = finding(Outcome::Finding);
    other.finding_id = FindingId::of(&uid("1.2.3.4"), &Sha256::of(b"other"), None);
    let other = report(&other, &source);
    assert_ne!(first.sop_instance_uid, other.sop_instance_uid);
    assert_eq!(first.series_uid, other.series_uid, "one series for a study and a model");
}

#[test]
fn inv_10_every_report_names_device_model_and_version_and_is_preliminary() {
    for outcome in [Outcome::Finding, Outcome::Ungradable, Outcome::NotAnalysed] {
        let sr = read(&report(&finding(outcome), &file(&header(), EXPLICIT)));
        assert_eq!(text(&sr, Tag(0x0040, 0xA496)), "PRELIMINARY");
        assert_eq!(text(&sr, tags::VERIFICATION_FLAG), "UNVERIFIED");
        assert_eq!(text(&sr, tags::COMPLETION_FLAG), "COMPLETE");
        let said = said(&sr);
        for line in [
            "Device Observer UID = 1.2.77",
            "Algorithm Name = dr-screening",
            "Algorithm Version = 1.0.0",
            "Algorithm Parameters = computed on CPU",
            "Source of Measurement = 1.2.3.4",
        ] {
            assert!(said.iter().any(|s| s == line), "{outcome:?}: {line} in {said:#?}");
        }
        assert!(said.iter().any(|s| s.starts_with("Comment = Research use only")), "{said:#?}");
    }
}

#[test]
fn inv_02_each_outcome_has_its_own_words() {
    let source = file(&header(), EXPLICIT);
    let has = |finding: &Finding, line: &str| said(&read(&report(finding, &source))).iter().any(|s| s.contains(line));
    let positive = finding(Outcome::Finding);
    assert!(has(&positive, "Diabetic retinopathy = Present"));
    assert!(has(&positive, "Finding = Diabetic retinopathy"));
    assert!(has(&positive, "= 0.875 1"));
    let mut negative = finding(Outcome::Finding);
    (negative.band, negative.probability) = (Some(Band::Clear), Some(0.01));
    assert!(has(&negative, "Diabetic retinopathy = Absent"));
    assert!(!has(&negative, "Finding = Diabetic retinopathy"));
    assert!(has(&negative, "Outcome of the analysis = Analysed"));
    for (outcome, words) in [(Outcome::Ungradable, "Not gradable"), (Outcome::NotAnalysed, "Not analysed")] {
        assert!(has(&finding(outcome), words));
        assert!(has(&finding(outcome), "= the picture is out of focus"));
        assert!(!has(&finding(outcome), "Diabetic retinopathy"));
    }
}

#[test]
fn patient_and_study_are_the_sources_own_bytes_in_every_syntax() {
    let mut source = header();
    // Bytes of ISO 2022 with code extensions: no decoder may touch them. ISO_IR 100 passes each byte through here.
    source.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"));
    source.put(DataElement::new(tags::PATIENT_NAME, VR::PN, "M\u{fc}ller^\u{1b}$B;3ED"));
    source.put(DataElement::new(tags::ACCESSION_NUMBER, VR::SH, "A 1"));
    source.put(DataElement::new(tags::STUDY_TIME, VR::TM, "101112.5"));
    for syntax in [IMPLICIT, EXPLICIT, DEFLATED] {
        let sr = report(&finding(Outcome::Finding), &file(&source, syntax));
        let name: &[u8] = b"\x10\x00\x10\x00PN\x0e\x00M\xfcller^\x1b$B;3ED";
        assert!(sr.bytes.windows(name.len()).any(|w| w == name), "{syntax}");
        let sr = read(&sr);
        assert_eq!(text(&sr, tags::SPECIFIC_CHARACTER_SET).trim(), "ISO_IR 100");
        assert_eq!(text(&sr, tags::ACCESSION_NUMBER), "A 1 ".trim_end());
        assert_eq!(text(&sr, tags::STUDY_TIME).trim(), "101112.5");
        assert_eq!(text(&sr, tags::STUDY_INSTANCE_UID), "1.2.3");
    }
}

#[test]
fn a_bare_source_still_gives_every_type_2_attribute() {
    let sr = read(&report(&finding(Outcome::NotAnalysed), &file(&header(), EXPLICIT)));
    for tag in [
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::STUDY_ID,
        tags::ACCESSION_NUMBER,
        tags::REFERRING_PHYSICIAN_NAME,
    ] {
        assert_eq!(text(&sr, tag), "", "{tag}");
    }
    let study = &items(&sr, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)[0];
    assert_eq!(text(study, tags::STUDY_INSTANCE_UID), "1.2.3");
    let image = &items(&items(study, tags::REFERENCED_SERIES_SEQUENCE)[0], tags::REFERENCED_SOP_SEQUENCE)[0];
    assert_eq!(text(image, tags::REFERENCED_SOP_INSTANCE_UID), "1.2.3.4");
}

#[test]
fn the_time_is_in_the_sources_zone_or_in_utc() {
    let at = |zone: Option<&str>| {
        let mut source = header();
        if let Some(zone) = zone {
            source.put(DataElement::new(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, zone));
        }
        let sr = read(&report(&finding(Outcome::Finding), &file(&source, EXPLICIT)));
        let has_zone = sr.get(tags::TIMEZONE_OFFSET_FROM_UTC).is_some();
        (text(&sr, tags::CONTENT_DATE), text(&sr, tags::CONTENT_TIME).trim().to_owned(), has_zone)
    };
    assert_eq!(at(None), ("20260102".into(), "093530.123456".into(), false));
    assert_eq!(at(Some("+0530")), ("20260102".into(), "150530.123456".into(), true));
    assert_eq!(at(Some("-1000")), ("20260101".into(), "233530.123456".into(), true));
    assert_eq!(at(Some("nonsense")), ("20260102".into(), "093530.123456".into(), false));
}

#[test]
fn measurements_and_private_schemes_are_declared() {
    let mut finding = finding(Outcome::Finding);
    let unit = Code::new("UCUM", "mm", "mm");
    let code = Code::new("99LOCAL", "LEN", "Length");
    finding.measurements.push(Measurement { code, value: 12.5, unit });
    let sr = read(&report(&finding, &file(&header(), EXPLICIT)));
    assert!(said(&sr).contains(&"Length = 12.5 mm".to_owned()));
    let schemes = items(&sr, tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE);
    let schemes: Vec<_> = schemes.iter().map(|s| text(s, tags::CODING_SCHEME_DESIGNATOR)).collect();
    assert_eq!(schemes.iter().map(|s| s.trim()).collect::<Vec<_>>(), ["99FOVEA", "99LOCAL"]);
}

#[test]
fn each_outlined_place_is_a_group_with_its_closed_outline_and_its_sizes() {
    let mut finding = finding(Outcome::Finding);
    let code = Code::new("99FOVEA", "nodule", "Nodule");
    let sizes = vec![Measurement {
        code: Code::new("SCT", "103339001", "Long axis"),
        value: 12.5,
        unit: Code::new("UCUM", "mm", "mm"),
    }];
    let outline_px = vec![[1.0, 2.0], [5.0, 2.5], [4.0, 6.0]];
    finding.regions = vec![
        Region { label: "nodule".into(), code: Some(code), outline_px: outline_px.clone(), measurements: sizes },
        Region { label: "looked at".into(), code: None, outline_px, measurements: Vec::new() },
    ];
    finding.classes = vec![ClassScore {
        label: "benign".into(),
        code: Code::new("99FOVEA", "benign", "Benign tissue"),
        probability: 0.25,
    }];
    let sr = read(&report(&finding, &file(&header(), EXPLICIT)));
    let lines = said(&sr);
    for line in ["Long axis = 12.5 mm", "Finding = Nodule", "Benign tissue = 0.25 1", "Comment = looked at"] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "Image Region = SCOORD").count(), 2);
    let root = items(&sr, tags::CONTENT_SEQUENCE);
    let groups = items(root.last().unwrap(), tags::CONTENT_SEQUENCE);
    let outline = items(&groups[1], tags::CONTENT_SEQUENCE)
        .iter()
        .find(|item| text(item, tags::VALUE_TYPE) == "SCOORD")
        .expect("an outline");
    let points = outline.element(tags::GRAPHIC_DATA).unwrap().to_multi_float32().unwrap();
    assert_eq!(points, [1.0, 2.0, 5.0, 2.5, 4.0, 6.0, 1.0, 2.0]);
    let tracked: std::collections::BTreeSet<_> =
        lines.iter().filter(|line| line.starts_with("Tracking Unique Identifier")).collect();
    assert_eq!(tracked.len(), 3);
}

#[test]
fn a_frame_is_named_only_where_there_are_several() {
    for (frames, expected) in [("1", None), ("3", Some("2"))] {
        let mut source = header();
        source.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, frames));
        let mut finding = finding(Outcome::Finding);
        finding.frame = 2;
        let sr = report(&finding, &file(&source, EXPLICIT));
        let mut reference = b"\x08\x00\x60\x11IS\x02\x00".to_vec();
        reference.extend(expected.unwrap_or("2").bytes());
        assert_eq!(sr.bytes.windows(reference.len()).any(|w| w == reference), expected.is_some());
    }
}

#[test]
fn a_side_is_told_only_where_one_is_meant() {
    for (written, told) in [("L", Some("Left")), ("R", Some("Right")), ("B", None)] {
        let mut header = header();
        header.put(DataElement::new(tags::IMAGE_LATERALITY, VR::CS, written));
        let said = said(&read(&report(&finding(Outcome::Finding), &file(&header, EXPLICIT))));
        let side = said.iter().find_map(|line| line.strip_prefix("Laterality = "));
        assert_eq!(side, told, "{written}: {said:?}");
    }
}

#[test]
fn what_is_incomplete_or_about_another_object_is_refused() {
    let source = file(&header(), EXPLICIT);
    let refuse = |change: &dyn Fn(&mut Finding)| {
        let mut finding = finding(Outcome::Finding);
        change(&mut finding);
        structured_report(&finding, &mut Cursor::new(&source), Some(&algorithm()), &node()).unwrap_err()
    };
    assert!(matches!(refuse(&|f| f.code = None), ReportError::Incomplete { what: "code" }));
    assert!(matches!(refuse(&|f| f.probability = Some(f64::NAN)), ReportError::Incomplete { what: "probability" }));
    assert!(matches!(refuse(&|f| f.band = None), ReportError::Incomplete { what: "band" }));
    assert!(matches!(refuse(&|f| f.outcome = Outcome::Ungradable), ReportError::Incomplete { what: "reason" }));
    assert!(matches!(refuse(&|f| f.sop_instance_uid = uid("9.9")), ReportError::OtherObject { .. }));
    assert!(matches!(refuse(&|f| f.status = FindingStatus::Final), ReportError::NotPreliminary));
    let long = Code::new("SCT", "12345678901234567", "x");
    assert!(matches!(refuse(&|f| f.code = Some(long.clone())), ReportError::Code { .. }));
    let no_model = structured_report(&finding(Outcome::Finding), &mut Cursor::new(&source), None, &node());
    assert!(matches!(no_model, Err(ReportError::Incomplete { what: "algorithm" })));
}

#[test]
fn inv_08_every_cut_of_a_source_ends_in_an_error_or_a_report() {
    let mut source = header();
    let item = InMemDicomObject::from_element_iter([DataElement::new(tags::CODE_VALUE, VR::SH, "X")]);
    let sequence = dicom_core::value::DataSetSequence::from(vec![item]);
    source.put(DataElement::new(tags::ANATOMIC_REGION_SEQUENCE, VR::SQ, sequence));
    for syntax in [IMPLICIT, EXPLICIT, DEFLATED] {
        let whole = file(&source, syntax);
        for cut in 0..whole.len() {
            let cut_off = structured_report(
                &finding(Outcome::Finding),
                &mut Cursor::new(&whole[..cut]),
                Some(&algorithm()),
                &node(),
            );
            assert!(cut_off.is_err() || cut > 300, "{syntax} cut at {cut}");
        }
    }
}
