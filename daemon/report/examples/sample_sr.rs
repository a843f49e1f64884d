//! Writes sample reports (and the synthetic sources they are about) into a folder, for foreign validators.
//!
//! In: `sample_sr FOLDER`. Out: `FOLDER/sr_<case>.dcm` and `FOLDER/source_<case>.dcm`, the same bytes at each run.

use anyhow::Context;
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use fovea_core::{
    Band, Code, Finding, FindingId, FindingStatus, Measurement, ModelRef, Outcome, Priority, Quality, ReaderGrade,
    Region, Sha256, Timing, Uid, UnixMicros, sop_class,
};
use fovea_report::{Algorithm, Observer, structured_report};
use std::io::Cursor;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: sample_sr FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    let algorithm = Algorithm::artificial_intelligence("dr-screening", "1.0.0", "Fovea");
    for (case, header, outcome, band) in [
        ("significant", Header::Whole, Outcome::Finding, Some((0.9312, Band::Significant))),
        ("ambiguous", Header::Whole, Outcome::Finding, Some((0.5, Band::Ambiguous))),
        ("clear", Header::Whole, Outcome::Finding, Some((0.0, Band::Clear))),
        ("ungradable", Header::Whole, Outcome::Ungradable, None),
        ("not_analysed", Header::Whole, Outcome::NotAnalysed, None),
        ("bare_header", Header::Bare, Outcome::Finding, Some((0.25, Band::Clear))),
        ("bare_not_analysed", Header::Bare, Outcome::NotAnalysed, None),
        ("latin1", Header::Latin1, Outcome::Finding, Some((0.75, Band::Significant))),
        ("utf8_multiframe", Header::Utf8MultiFrame, Outcome::Ungradable, None),
    ] {
        let source = source(case, header)?;
        let mut finding = finding(case, outcome, band)?;
        if case == "significant" {
            finding.regions = vec![region()];
        }
        let used = (outcome != Outcome::NotAnalysed).then_some(&algorithm);
        let report = structured_report(&finding, &mut Cursor::new(&source), used, &node())?;
        std::fs::write(folder.join(format!("source_{case}.dcm")), &source)?;
        std::fs::write(folder.join(format!("sr_{case}.dcm")), &report.bytes)?;
        println!("{case}: {} B", report.bytes.len());
    }
    Ok(())
}

fn region() -> Region {
    let long_axis = Measurement {
        code: Code::new("SCT", "103339001", "Long axis"),
        value: 12.5,
        unit: Code::new("UCUM", "mm", "millimeter"),
    };
    Region {
        label: "outlined by the model".into(),
        code: Some(Code::new("99FOVEA", "lesion", "Lesion")),
        outline_px: vec![[0.5, 0.5], [1.5, 0.5], [1.0, 1.5]],
        measurements: vec![long_axis],
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Header {
    Whole,
    /// No patient, no accession, no study id, no dates.
    Bare,
    Latin1,
    Utf8MultiFrame,
}

fn node() -> Observer {
    Observer {
        device_uid: Uid::derived("sample-node", &[]),
        name: "sample-node".into(),
        manufacturer: "Fovea".into(),
        model: "Fovea node".into(),
        serial: String::new(),
        software_version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn uid(case: &str, what: &str) -> Uid {
    Uid::derived("sample", &[case, what])
}

/// A header as a scope sends it; the pixels are four bytes, for no reader of headers looks at them.
fn source(case: &str, header: Header) -> anyhow::Result<Vec<u8>> {
    let class = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
    let mut object = InMemDicomObject::new_empty();
    let mut put = |tag, vr, text: &str| object.put(DataElement::new(tag, vr, text));
    put(tags::SOP_CLASS_UID, VR::UI, class);
    put(tags::SOP_INSTANCE_UID, VR::UI, uid(case, "instance").as_str());
    put(tags::STUDY_INSTANCE_UID, VR::UI, uid(case, "study").as_str());
    put(tags::SERIES_INSTANCE_UID, VR::UI, uid(case, "series").as_str());
    put(tags::MODALITY, VR::CS, "OP");
    if header != Header::Bare {
        put(tags::STUDY_DATE, VR::DA, "20260102");
        put(tags::STUDY_TIME, VR::TM, "101530");
        put(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "+0200");
        put(tags::ACCESSION_NUMBER, VR::SH, "ACC-1");
        put(tags::STUDY_DESCRIPTION, VR::LO, "Fundus photography");
        put(tags::PATIENT_ID, VR::LO, "SYN-1");
        put(tags::PATIENT_BIRTH_DATE, VR::DA, "19600229");
        put(tags::PATIENT_SEX, VR::CS, "F");
        put(tags::IMAGE_LATERALITY, VR::CS, "R");
    }
    match header {
        Header::Bare => {}
        Header::Whole => _ = put(tags::PATIENT_NAME, VR::PN, "Test^Synthetic"),
        Header::Latin1 => {
            put(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
            put(tags::PATIENT_NAME, VR::PN, "Müller^Jürgen");
        }
        Header::Utf8MultiFrame => {
            put(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
            put(tags::PATIENT_NAME, VR::PN, "Yamada^Tarou=山田^太郎");
            put(tags::NUMBER_OF_FRAMES, VR::IS, "2");
        }
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, dicom_value!(U8, [0, 1, 2, 3])));
    object.put(DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(2u16)));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut bytes = Vec::new();
    object.with_meta(meta)?.write_all(&mut bytes)?;
    Ok(bytes)
}

fn finding(case: &str, outcome: Outcome, answer: Option<(f64, Band)>) -> anyhow::Result<Finding> {
    let model = (outcome != Outcome::NotAnalysed).then(|| ModelRef {
        id: "dr-screening".into(),
        version: "1.0.0".into(),
        sha256: Sha256::of(b"sample bundle"),
    });
    let (reason, advice) = match outcome {
        Outcome::Finding => (None, None),
        Outcome::Ungradable => (Some("the picture is out of focus"), Some("clean the lens and take it again")),
        Outcome::NotAnalysed => (Some("no eligible model"), None),
    };
    let code = Code::new("SCT", "4855003", "Diabetic retinopathy");
    Ok(Finding {
        finding_id: FindingId::of(
            &uid(case, "instance"),
            &Sha256::of(case.as_bytes()),
            model.as_ref().map(|m| &m.sha256),
        ),
        study_uid: uid(case, "study"),
        series_uid: uid(case, "series"),
        sop_instance_uid: uid(case, "instance"),
        sop_class_uid: Uid::new(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT)?,
        frame: 1,
        task: if outcome == Outcome::NotAnalysed { String::new() } else { "diabetic_retinopathy_screening".into() },
        outcome,
        reason: reason.map(Into::into),
        reason_code: reason.map(|_| "sample".into()),
        advice: advice.map(Into::into),
        label: answer.map(|_| "diabetic retinopathy".into()),
        code: answer.map(|_| code),
        probability: answer.map(|(probability, _)| probability),
        band: answer.map(|(_, band)| band),
        priority: Priority::Routine,
        reader_grade: ReaderGrade::Any,
        measurements: Vec::new(),
        regions: Vec::new(),
        classes: Vec::new(),
        tile_map: None,
        quality: Quality::new(),
        device: model.as_ref().map(|_| "CPU".into()),
        model,
        status: FindingStatus::Preliminary,
        timing_us: Timing::default(),
        recorded_at_unix_us: UnixMicros(1_767_346_530_123_456),
    })
}
