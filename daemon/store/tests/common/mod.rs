//! Small makers of objects, findings and parcels for the store's tests.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)] // each test file uses its own part

use fovea_core::*;
use fovea_store::{Config, Store};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

pub fn uid(text: impl std::fmt::Display) -> Uid {
    Uid::new(&text.to_string()).unwrap()
}

pub fn open(state: &Path) -> Arc<Store> {
    Store::open(&Config::at(state)).unwrap()
}

pub fn header(study: &Uid, sop: &Uid) -> ObjectHeader {
    ObjectHeader {
        sop_class_uid: uid(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
        sop_instance_uid: sop.clone(),
        study_uid: study.clone(),
        series_uid: uid("1.2.3"),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
        modality: Some("OP".into()),
        body_part: None,
        laterality: Some(Laterality::Left),
        rows_px: Some(512),
        columns_px: Some(512),
        frames: 1,
        photometric: Some("RGB".into()),
        burned_in_annotation: None,
        pixel_data_offset: Some(900),
    }
}

pub fn new_object(study: &Uid, sop: &Uid, bytes: &[u8]) -> NewObject {
    NewObject {
        header: header(study, sop),
        sender: Sender::Dimse(AeTitle::new("SCOPE").unwrap()),
        last_byte_at: UnixMicros(1_000_000),
        data_set_sha256: Sha256::of(bytes),
        file_bytes: bytes.len() as u64,
    }
}

pub fn accept(inbox: &dyn Inbox, study: &Uid, sop: &Uid, bytes: &[u8]) -> Result<Acceptance, PortError> {
    let mut temp = inbox.open_temp()?;
    let written = temp.file.write_all(bytes);
    written.map_err(|source| PortError::OutOfSpace { detail: source.to_string() })?;
    inbox.accept(temp, new_object(study, sop, bytes))
}

pub fn read(mut file: std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes
}

pub fn finding(sop: &Uid, probability: f64) -> Finding {
    Finding {
        finding_id: FindingId::of(sop, &Sha256::of(sop.as_str().as_bytes()), None),
        study_uid: uid("1.9"),
        series_uid: uid("1.2.3"),
        sop_instance_uid: sop.clone(),
        sop_class_uid: uid(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
        frame: 1,
        task: "diabetic_retinopathy_screening".into(),
        outcome: Outcome::Finding,
        reason: None,
        reason_code: None,
        advice: None,
        label: Some("referable".into()),
        code: Some(Code::new("SCT", "4855003", "Diabetic retinopathy")),
        probability: Some(probability),
        band: Some(Band::Ambiguous),
        priority: Priority::High,
        reader_grade: ReaderGrade::Senior,
        measurements: Vec::new(),
        classes: Vec::new(),
        tile_map: None,
        regions: vec![Region {
            label: "lesion".into(),
            code: None,
            outline_px: vec![[0.1, 1.7], [3.0, 4.0], [5.5, 0.3]],
            measurements: Vec::new(),
        }],
        quality: BTreeMap::from([("focus".to_owned(), Measure { value: 0.1 + 0.2, unit: "1".into() })]),
        model: None,
        device: Some("CPU".into()),
        status: FindingStatus::Preliminary,
        timing_us: Timing { received: 1, queued: 2, ..Timing::default() },
        recorded_at_unix_us: UnixMicros(7),
    }
}

pub fn parcel(outbox: &dyn Inbox, sop: &Uid, what: What, lane: Lane, bytes: &[u8]) -> NewParcel {
    let mut content = outbox.open_temp().unwrap();
    content.file.write_all(bytes).unwrap();
    NewParcel {
        what,
        lane,
        sop_class_uid: uid(sop_class::COMPREHENSIVE_SR),
        sop_instance_uid: sop.clone(),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
        content,
    }
}

/// All files below a folder, relative, sorted.
pub fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
