//! A finding becomes a structured report.
//!
//! In: a [`fovea_core::Finding`], the stored Part 10 object that it is about, who computed it and where.
//! Out: one Comprehensive SR by TID 1500 as a whole Part 10 file, Explicit VR Little Endian.
//! Promise: the same finding from the same node gives the same bytes (invariant 4: every UID and time follows from the
//! finding, no clock is read); every outcome gets a report, so "nothing found", "not gradable" and "not analysed" can be
//! told apart; every report is PRELIMINARY and UNVERIFIED, names device, model and version (invariant 10), and has
//! passed [`check`] before anyone sees it.
//! Patient and study attributes are the source's own bytes, in the source's own character set: nothing is decoded.
//! Standard: DICOM PS3.3 section A.35.3, PS3.16 TID 1500, 1501, 1410, 1600, 4019.

mod check;
mod codes;
mod content;
mod encode;
mod measure;
mod moment;
mod source;

pub use check::{Fault, check};
pub use content::{Item, Relation, Value};

use encode::{DataSet, vr};
use fovea_core::{Code, Finding, FindingStatus, Uid, sop_class};
use source::SourceHeader;
use std::io::{Read, Seek};

/// Explicit VR Little Endian, the syntax of every report.
pub const TRANSFER_SYNTAX_UID: &str = "1.2.840.10008.1.2.1";

/// The program that computed a finding (TID 4019).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Algorithm {
    /// Name for people, up to 64 characters are used.
    pub name: String,
    /// Version of the model bundle.
    pub version: String,
    /// Kind of algorithm, CID 7162; [`Algorithm::artificial_intelligence`] for a trained network.
    pub family: Code,
    /// Who made it; left out where empty.
    pub manufacturer: String,
}

impl Algorithm {
    /// A trained network: family (123110, DCM, "Artificial Intelligence").
    #[must_use]
    pub fn artificial_intelligence(name: &str, version: &str, manufacturer: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            family: Code::new("DCM", "123110", "Artificial Intelligence"),
            manufacturer: manufacturer.into(),
        }
    }
}

/// The box that says it (TID 1004, device observer).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observer {
    /// Stable UID of this box.
    pub device_uid: Uid,
    /// Name of this box, for instance the configured node name.
    pub name: String,
    /// Maker of the box.
    pub manufacturer: String,
    /// Model of the box.
    pub model: String,
    /// Serial number; left out where empty.
    pub serial: String,
    /// Software version, for instance `0.1.0`.
    pub software_version: String,
}

/// A finished report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The whole Part 10 file; some 10 kB.
    pub bytes: Vec<u8>,
    /// Comprehensive SR Storage.
    pub sop_class_uid: Uid,
    /// The report's own UID; follows from the finding's id.
    pub sop_instance_uid: Uid,
    /// Its series: one for each study and model.
    pub series_uid: Uid,
    /// Explicit VR Little Endian.
    pub transfer_syntax_uid: Uid,
}

/// Why there is no report. Texts name attributes, never their values (invariant 9).
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The source could not be read.
    #[error("read the source object")]
    ReadSource(#[source] std::io::Error),
    /// The source is not a Part 10 file that this reader understands.
    #[error("the source object is malformed at byte {at}: {detail}")]
    MalformedSource {
        /// Byte position in the (inflated) file.
        at: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// The source is another object than the finding is about.
    #[error("the source object has another {attribute} than the finding")]
    OtherObject {
        /// Which attribute differs.
        attribute: &'static str,
    },
    /// A finding lacks what its outcome needs, or a number is not finite.
    #[error("the finding has no usable {what}")]
    Incomplete {
        /// What is missing.
        what: &'static str,
    },
    /// A code does not fit its attributes (PS3.3 section 8.8): scheme and value up to 16 characters, meaning up to 64.
    #[error("the code of {what} does not fit: scheme and value 1 to 16 characters, meaning 1 to 64, ASCII")]
    Code {
        /// Whose code.
        what: &'static str,
    },
    /// Only preliminary findings become reports here: a verified one needs the verifying person and the predecessor.
    #[error("the finding is no longer preliminary")]
    NotPreliminary,
    /// The report broke a house rule; a defect of ours.
    #[error("the report breaks a house rule: {0}")]
    Rule(Fault),
    /// A UID that is constant or derived was refused; a defect of ours.
    #[error("make a UID")]
    Uid(#[from] fovea_core::UidError),
}

/// Writes the report of one finding.
///
/// - `source`: the stored Part 10 object; read from its start, only up to Pixel Data (at most 16 MiB).
/// - `algorithm`: who computed it; `None` where no model was eligible. A finding with outcome `Finding` needs one.
///
/// The report's Content Date and Time are the moment of recording, in the source's Timezone Offset From UTC where it has
/// one, otherwise in UTC.
///
/// # Errors
/// [`ReportError`]; nothing is written anywhere.
pub fn structured_report<S: Read + Seek>(
    finding: &Finding,
    source: &mut S,
    algorithm: Option<&Algorithm>,
    node: &Observer,
) -> Result<Report, ReportError> {
    if finding.status != FindingStatus::Preliminary {
        return Err(ReportError::NotPreliminary);
    }
    let header = source::read(source)?;
    header.belongs_to(finding)?;
    let root = measure::tree(finding, &header, algorithm, node)?;
    if let Some(fault) = check(&root, &finding.sop_instance_uid).err().and_then(|faults| faults.into_iter().next()) {
        return Err(ReportError::Rule(fault));
    }
    let (model_id, model_sha) = match &finding.model {
        Some(model) => (model.id.as_str(), model.sha256.to_string()),
        None => ("", String::new()),
    };
    let series_uid = Uid::derived("sr-series", &[finding.study_uid.as_str(), model_id, &model_sha]);
    let sop_instance_uid = Uid::derived("sr-instance", &[finding.finding_id.as_str()]);
    let sop_class_uid = Uid::new(sop_class::COMPREHENSIVE_SR)?;

    let mut data = DataSet::new();
    header.copy_patient_and_study(&mut data);
    put_document(&mut data, finding, &header, node);
    data.put_uid(0x0008_0016, &sop_class_uid);
    data.put_uid(0x0008_0018, &sop_instance_uid);
    data.put_uid(0x0020_000E, &series_uid);
    content::put_coding_schemes(&mut data, &root);
    content::put_root(&mut data, &root);
    Ok(Report {
        bytes: encode::part10(&sop_class_uid, &sop_instance_uid, TRANSFER_SYNTAX_UID, &data),
        sop_class_uid,
        sop_instance_uid,
        series_uid,
        transfer_syntax_uid: Uid::new(TRANSFER_SYNTAX_UID)?,
    })
}

/// Series, equipment and document attributes (PS3.3 sections C.17.1, C.7.5.1, C.17.2).
fn put_document(data: &mut DataSet, finding: &Finding, header: &SourceHeader, node: &Observer) {
    let (date, time) = moment::date_and_time(finding.recorded_at_unix_us, header.offset_minutes());
    data.put_text(0x0008_0012, vr::DA, &date);
    data.put_text(0x0008_0013, vr::TM, &time);
    data.put_text(0x0008_0023, vr::DA, &date);
    data.put_text(0x0008_0033, vr::TM, &time);
    data.put_text(0x0008_0060, vr::CS, "SR");
    data.put_text(0x0008_0070, vr::LO, &encode::short(&node.manufacturer, 64));
    data.put_text(0x0008_103E, vr::LO, "Computed findings, preliminary, research use");
    data.put_text(0x0008_1090, vr::LO, &encode::short(&node.model, 64));
    data.put_sequence(0x0008_1111, &[]);
    if !node.serial.is_empty() {
        data.put_text(0x0018_1000, vr::LO, &encode::short(&node.serial, 64));
    }
    data.put_text(0x0018_1020, vr::LO, &encode::short(&node.software_version, 64));
    data.put_text(0x0020_0011, vr::IS, "9001");
    data.put_text(0x0020_0013, vr::IS, "1");
    data.put_text(0x0040_A491, vr::CS, "COMPLETE");
    data.put_text(0x0040_A493, vr::CS, "UNVERIFIED");
    data.put_text(0x0040_A496, vr::CS, "PRELIMINARY");
    data.put_sequence(0x0040_A372, &[]);
    let mut instance = DataSet::new();
    instance.put_uid(0x0008_1150, &finding.sop_class_uid);
    instance.put_uid(0x0008_1155, &finding.sop_instance_uid);
    let mut series = DataSet::new();
    series.put_sequence(0x0008_1199, &[instance]);
    series.put_uid(0x0020_000E, &finding.series_uid);
    let mut study = DataSet::new();
    study.put_sequence(0x0008_1115, &[series]);
    study.put_uid(0x0020_000D, &finding.study_uid);
    data.put_sequence(0x0040_A375, &[study]);
}
