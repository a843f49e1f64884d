//! Makes an object around a picture, with a pending patient: Ophthalmic Photography 8 Bit, unless another class is asked for.
//!
//! In: what is known of the picture. Out: the bytes of the data set before and behind the pixels.
//! Promise: the same picture with the same sidecar, plan and time gives the same bytes (invariant 4); no attribute claims
//! what is not known: the patient is pending unless the worklist names one, attributes that may be empty are empty.
//! Standard: PS3.3 section A.41 and the modules it names.

use super::jpeg::Colour;
use super::sidecar::Sidecar;
use fovea_core::{Laterality, ScheduledItem, Sha256, Uid, sop_class};
use std::time::{SystemTime, UNIX_EPOCH};

/// The picture's pixels, as they go into the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PixelForm {
    /// A baseline JPEG stream of so many bytes.
    Jpeg { colour: Colour, stream_bytes: u64 },
    /// Red, green, blue bytes, from a file whose compression lost nothing, or something: then with its length.
    Rgb { lossy_file_bytes: Option<u64> },
}

/// As what a picture is presented: what a device would have said of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PictureClass {
    /// (0008,0016).
    pub sop_class_uid: Uid,
    /// (0008,0060), a code string of 1 to 16 characters.
    pub modality: String,
    /// (0018,0015), the same; none where nothing is said.
    pub body_part: Option<String>,
}

impl PictureClass {
    /// A photograph of an eye; none never, for the class is a constant of the standard.
    pub(super) fn eye() -> Option<Self> {
        let sop_class_uid = Uid::new(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT).ok()?;
        Some(Self { sop_class_uid, modality: "OP".to_owned(), body_part: None })
    }

    fn is_of_an_eye(&self) -> bool {
        self.sop_class_uid.as_str() == sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT
    }
}

/// What is known of a picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Picture {
    pub(super) class: PictureClass,
    pub(super) file_sha256: Sha256,
    pub(super) taken_at: SystemTime,
    pub(super) sidecar: Sidecar,
    /// The step that it was planned as: it names the patient.
    pub(super) scheduled: Option<ScheduledItem>,
    pub(super) width_px: u16,
    pub(super) height_px: u16,
    pub(super) pixels: PixelForm,
}

/// The identity of the object that a picture becomes: it follows from the file and its sidecar.
pub(super) fn instance_uid(file: &Sha256, sidecar: &Sidecar) -> Uid {
    let side = sidecar.laterality.map(laterality_code).unwrap_or_default();
    let accession = sidecar.accession_number.as_deref().unwrap_or_default();
    let burned_in = if sidecar.burned_in_annotation { "YES" } else { "NO" };
    let file = file.to_string();
    let mut parts = vec![file.as_str(), side, accession, burned_in];
    parts.extend(sidecar.study_uid.as_ref().map(Uid::as_str));
    Uid::derived("capture instance", &parts)
}

fn laterality_code(laterality: Laterality) -> &'static str {
    match laterality {
        Laterality::Left => "L",
        Laterality::Right => "R",
        Laterality::Both => "B",
    }
}

/// Everything before the Pixel Data element, and that element's header; Explicit VR Little Endian.
pub(super) fn before_pixels(picture: &Picture) -> Vec<u8> {
    let mut out = DataSet::default();
    identification(&mut out, picture);
    acquisition(&mut out, picture);
    image(&mut out, picture);
    match picture.pixels {
        // An empty offset table, then one fragment (PS3.5 section A.4).
        PixelForm::Jpeg { stream_bytes, .. } => {
            out.long_head(0x7FE0, 0x0010, b"OB", u32::MAX);
            out.item(0);
            // Captured files are at most some megabytes: the caller has checked.
            out.item((stream_bytes + stream_bytes % 2) as u32);
        }
        PixelForm::Rgb { .. } => {
            let bytes = u32::from(picture.width_px) * u32::from(picture.height_px) * 3;
            out.long_head(0x7FE0, 0x0010, b"OB", bytes + bytes % 2);
        }
    }
    out.bytes
}

/// Everything behind the pixels: `pixel_bytes` of them were written.
pub(super) fn behind_pixels(form: PixelForm, pixel_bytes: u64) -> Vec<u8> {
    let mut out = DataSet::default();
    if pixel_bytes % 2 == 1 {
        out.bytes.push(0);
    }
    if matches!(form, PixelForm::Jpeg { .. }) {
        out.bytes.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    }
    out.bytes
}

/// Groups 0008, 0010: SOP Common, Patient, General Study, Series, Equipment.
fn identification(out: &mut DataSet, picture: &Picture) {
    let (date, time) = utc(picture.taken_at);
    let file = picture.file_sha256.to_string();
    out.text(0x0008, 0x0005, b"CS", "ISO_IR 192");
    let image_type = if matches!(picture.pixels, PixelForm::Rgb { lossy_file_bytes: Some(_) }) {
        "DERIVED\\PRIMARY"
    } else {
        "ORIGINAL\\PRIMARY"
    };
    out.text(0x0008, 0x0008, b"CS", image_type);
    out.text(0x0008, 0x0016, b"UI", picture.class.sop_class_uid.as_str());
    out.text(0x0008, 0x0018, b"UI", instance_uid(&picture.file_sha256, &picture.sidecar).as_str());
    out.text(0x0008, 0x0020, b"DA", &date);
    out.text(0x0008, 0x0023, b"DA", &date);
    out.text(0x0008, 0x002A, b"DT", &format!("{date}{time}+0000"));
    out.text(0x0008, 0x0030, b"TM", &time);
    out.text(0x0008, 0x0033, b"TM", &time);
    let scheduled = picture.scheduled.as_ref();
    let planned = scheduled.map(|item| item.accession_number.as_str()).filter(|text| !text.is_empty());
    let accession = planned.or(picture.sidecar.accession_number.as_deref());
    out.text(0x0008, 0x0050, b"SH", accession.unwrap_or_default());
    out.text(0x0008, 0x0060, b"CS", &picture.class.modality);
    out.text(0x0008, 0x0070, b"LO", "Fovea");
    out.text(0x0008, 0x0090, b"PN", scheduled.map_or("", |item| &item.referring_physician));
    out.text(0x0008, 0x0201, b"SH", "+0000");
    if let Some(item) = scheduled.filter(|item| !item.procedure_description.is_empty()) {
        out.text(0x0008, 0x1030, b"LO", &item.procedure_description);
    }
    out.text(0x0008, 0x1090, b"LO", "Capture folder");
    if matches!(picture.pixels, PixelForm::Rgb { lossy_file_bytes: Some(_) }) {
        out.text(0x0008, 0x2111, b"ST", "Decoded from a JPEG that is not baseline");
    }
    if picture.class.is_of_an_eye() {
        out.code(0x0008, 0x2218, &[("81745001", "SCT", "Eye")]);
    }
    patient(out, scheduled, &file);
}

/// Group 0010: the patient of the worklist, or one that is pending.
fn patient(out: &mut DataSet, scheduled: Option<&ScheduledItem>, file: &str) {
    let Some(item) = scheduled else {
        out.text(0x0010, 0x0010, b"PN", "PENDING^CAPTURE");
        out.text(0x0010, 0x0020, b"LO", &format!("PENDING-{}", &file[..12]));
        out.text(0x0010, 0x0030, b"DA", "");
        out.text(0x0010, 0x0040, b"CS", "");
        return;
    };
    out.text(0x0010, 0x0010, b"PN", &item.patient_name);
    out.text(0x0010, 0x0020, b"LO", &item.patient_id);
    if !item.patient_id_issuer.is_empty() {
        out.text(0x0010, 0x0021, b"LO", &item.patient_id_issuer);
    }
    out.text(0x0010, 0x0030, b"DA", &item.patient_birth_date);
    out.text(0x0010, 0x0040, b"CS", &item.patient_sex);
}

/// Groups 0018, 0020, 0022: equipment, synchronization, references, and of an eye the ophthalmic parameters.
fn acquisition(out: &mut DataSet, picture: &Picture) {
    let file = picture.file_sha256.to_string();
    if let Some(body_part) = &picture.class.body_part {
        out.text(0x0018, 0x0015, b"CS", body_part);
    }
    out.text(0x0018, 0x1020, b"LO", env!("CARGO_PKG_VERSION"));
    out.text(0x0018, 0x1063, b"DS", "0");
    out.text(0x0018, 0x106A, b"CS", "NO TRIGGER");
    out.text(0x0018, 0x1800, b"CS", "N");
    out.text(0x0018, 0x7004, b"CS", "");
    let study = match &picture.scheduled {
        Some(item) => item.study_uid.clone(),
        None => Uid::derived("capture study", &[&file]),
    };
    out.text(0x0020, 0x000D, b"UI", study.as_str());
    out.text(0x0020, 0x000E, b"UI", Uid::derived("capture series", &[&file]).as_str());
    out.text(0x0020, 0x0010, b"SH", "");
    out.text(0x0020, 0x0011, b"IS", "1");
    out.text(0x0020, 0x0013, b"IS", "1");
    out.text(0x0020, 0x0020, b"CS", "");
    if picture.class.is_of_an_eye() {
        // The standard wants one of L, R, B and has no word for "not known": B, as either eye is possible, and a remark.
        out.text(0x0020, 0x0062, b"CS", laterality_code(picture.sidecar.laterality.unwrap_or(Laterality::Both)));
    }
    out.text(0x0020, 0x0200, b"UI", Uid::derived("capture synchronization", &[&file]).as_str());
    if picture.class.is_of_an_eye() && picture.sidecar.laterality.is_none() {
        out.text(0x0020, 0x4000, b"LT", "Laterality was not stated at capture");
    }
    if picture.class.is_of_an_eye() {
        ophthalmic(out);
    }
}

/// Group 0022: how the eye was photographed, as far as anybody knows.
fn ophthalmic(out: &mut DataSet) {
    out.text(0x0022, 0x0005, b"CS", "");
    out.long_head(0x0022, 0x000A, b"FL", 0);
    out.long_head(0x0022, 0x000B, b"FL", 0);
    out.long_head(0x0022, 0x000C, b"FL", 0);
    out.text(0x0022, 0x000D, b"CS", "");
    out.code(0x0022, 0x0015, &[("409898007", "SCT", "Fundus Camera")]);
    for unknown in [0x0016, 0x0017, 0x0018, 0x0019] {
        out.code(0x0022, unknown, &[]);
    }
    out.code(0x0022, 0x001B, &[]);
}

/// Groups 0028, 0040, 2050: Image Pixel, compression, context.
fn image(out: &mut DataSet, picture: &Picture) {
    let (samples, photometric) = match picture.pixels {
        PixelForm::Jpeg { colour: Colour::Gray, .. } => (1, "MONOCHROME2"),
        PixelForm::Jpeg { colour: Colour::Ybr, .. } => (3, "YBR_FULL_422"),
        PixelForm::Jpeg { colour: Colour::Rgb, .. } | PixelForm::Rgb { .. } => (3, "RGB"),
    };
    out.short(0x0028, 0x0002, samples);
    out.text(0x0028, 0x0004, b"CS", photometric);
    if samples == 3 {
        out.short(0x0028, 0x0006, 0);
    }
    out.text(0x0028, 0x0008, b"IS", "1");
    // Frame Increment Pointer to Frame Time, as Multi-frame wants it even of one frame.
    out.long_head(0x0028, 0x0009, b"AT", 4);
    out.bytes.extend_from_slice(&[0x18, 0, 0x63, 0x10]);
    out.short(0x0028, 0x0010, picture.height_px);
    out.short(0x0028, 0x0011, picture.width_px);
    for (element, value) in [(0x0100, 8), (0x0101, 8), (0x0102, 7), (0x0103, 0)] {
        out.short(0x0028, element, value);
    }
    out.text(0x0028, 0x0301, b"CS", if picture.sidecar.burned_in_annotation { "YES" } else { "NO" });
    let plain_bytes = f64::from(picture.width_px) * f64::from(picture.height_px) * f64::from(samples);
    let compressed = match picture.pixels {
        PixelForm::Jpeg { stream_bytes, .. } => Some(stream_bytes),
        PixelForm::Rgb { lossy_file_bytes } => lossy_file_bytes,
    };
    out.text(0x0028, 0x2110, b"CS", if compressed.is_some() { "01" } else { "00" });
    if let Some(compressed) = compressed {
        out.text(0x0028, 0x2112, b"DS", &format!("{:.2}", plain_bytes / (compressed.max(1) as f64)));
        out.text(0x0028, 0x2114, b"CS", "ISO_10918_1");
    }
    if let Some(item) = &picture.scheduled {
        out.request(item);
    }
    out.code(0x0040, 0x0555, &[]);
    if samples == 1 {
        out.text(0x2050, 0x0020, b"CS", "IDENTITY");
    }
}

/// Elements in the order in which they are added.
#[derive(Default)]
struct DataSet {
    bytes: Vec<u8>,
}

impl DataSet {
    /// A header; `length` in 16 bits where the VR has it so.
    fn long_head(&mut self, group: u16, element: u16, vr: &[u8; 2], length: u32) {
        self.bytes.extend_from_slice(&group.to_le_bytes());
        self.bytes.extend_from_slice(&element.to_le_bytes());
        self.bytes.extend_from_slice(vr);
        if matches!(vr, b"OB" | b"SQ") {
            self.bytes.extend_from_slice(&[0, 0]);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        } else {
            self.bytes.extend_from_slice(&(length as u16).to_le_bytes());
        }
    }

    fn text(&mut self, group: u16, element: u16, vr: &[u8; 2], value: &str) {
        let padded = value.len() + value.len() % 2;
        self.long_head(group, element, vr, padded as u32);
        self.bytes.extend_from_slice(value.as_bytes());
        if value.len() % 2 == 1 {
            self.bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
    }

    fn short(&mut self, group: u16, element: u16, value: u16) {
        self.long_head(group, element, b"US", 2);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn item(&mut self, length: u32) {
        self.bytes.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    /// Request Attributes Sequence (PS3.3 table 10-9): which planned step this is.
    fn request(&mut self, scheduled: &ScheduledItem) {
        let mut item = Self::default();
        for (element, vr, text) in [
            (0x0007, b"LO", &scheduled.step_description),
            (0x0009, b"SH", &scheduled.step_id),
            (0x1001, b"SH", &scheduled.procedure_id),
        ] {
            // Each may be missing, none may be empty.
            if !text.is_empty() {
                item.text(0x0040, element, vr, text);
            }
        }
        if !item.bytes.is_empty() {
            self.long_head(0x0040, 0x0275, b"SQ", item.bytes.len() as u32 + 8);
            self.item(item.bytes.len() as u32);
            self.bytes.extend_from_slice(&item.bytes);
        }
    }

    /// A code sequence (PS3.3 section 8.8) of value, scheme and meaning.
    fn code(&mut self, group: u16, element: u16, codes: &[(&str, &str, &str)]) {
        let mut items = Self::default();
        for (value, scheme, meaning) in codes {
            let mut item = Self::default();
            item.text(0x0008, 0x0100, b"SH", value);
            item.text(0x0008, 0x0102, b"SH", scheme);
            item.text(0x0008, 0x0104, b"LO", meaning);
            items.item(item.bytes.len() as u32);
            items.bytes.extend_from_slice(&item.bytes);
        }
        self.long_head(group, element, b"SQ", items.bytes.len() as u32);
        self.bytes.extend_from_slice(&items.bytes);
    }
}

/// Date (VR DA) and time (VR TM) of a moment, UTC; days to civil date by shifting the year to begin in March.
fn utc(moment: SystemTime) -> (String, String) {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let time = format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}{month:02}{day:02}"), time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_civil_dates() {
        for (seconds, date, time) in [
            (0, "19700101", "000000"),
            (951_782_399, "20000228", "235959"),
            (951_782_400, "20000229", "000000"),
            (1_709_251_200, "20240301", "000000"),
            (4_102_444_799, "20991231", "235959"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), (date.to_owned(), time.to_owned()));
        }
    }

    #[test]
    fn inv_04_identity_follows_from_file_and_sidecar() {
        let file = Sha256::of(b"picture");
        let left = Sidecar { laterality: Some(Laterality::Left), ..Sidecar::default() };
        assert_eq!(instance_uid(&file, &left), instance_uid(&file, &left));
        assert_ne!(instance_uid(&file, &left), instance_uid(&file, &Sidecar::default()));
        assert_ne!(instance_uid(&file, &left), instance_uid(&Sha256::of(b"other"), &left));
    }
}
