//! Makes DICOM objects of any class and size, for load and for hostile input.
//!
//! In: class, size, a seed. Out: a Part 10 file in Explicit VR Little Endian. Promise: the same sample gives the same bytes; another
//! seed gives another instance with other pixels; patients are invented, and findable by their token.

use crate::object;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use fovea_core::{Uid, sop_class};
use std::path::{Path, PathBuf};

/// Explicit VR Little Endian.
pub const EXPLICIT_VR_LE: &str = "1.2.840.10008.1.2.1";

/// One object, not written yet.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Tells it from others; also seeds the pixels.
    pub seed: u64,
    /// Its class.
    pub sop_class_uid: String,
    /// (0008,0060).
    pub modality: String,
    /// Rows, pixels.
    pub rows: u16,
    /// Columns, pixels.
    pub columns: u16,
    /// Frames; more than one writes (0028,0008).
    pub frames: u32,
    /// 1 (MONOCHROME2) or 3 (RGB), 8 bits each.
    pub samples_per_pixel: u16,
    /// Stands in the patient's name and id, so that a leak of either can be searched for.
    pub patient_token: String,
    /// Objects of one study share this.
    pub study_seed: u64,
}

impl Sample {
    /// A secondary capture of 512 x 512 pixels, 8 bits, one sample.
    #[must_use]
    pub fn secondary_capture(seed: u64) -> Self {
        Self {
            seed,
            sop_class_uid: sop_class::SECONDARY_CAPTURE.into(),
            modality: "OT".into(),
            rows: 512,
            columns: 512,
            frames: 1,
            samples_per_pixel: 1,
            patient_token: format!("TOKEN{seed}"),
            study_seed: seed,
        }
    }

    /// The same as another class.
    #[must_use]
    pub fn class(mut self, sop_class_uid: &str, modality: &str) -> Self {
        self.sop_class_uid = sop_class_uid.into();
        self.modality = modality.into();
        self
    }

    /// The same in another size.
    #[must_use]
    pub fn size(mut self, columns: u16, rows: u16) -> Self {
        self.columns = columns;
        self.rows = rows;
        self
    }

    /// Its SOP Instance UID.
    #[must_use]
    pub fn sop_instance_uid(&self) -> String {
        let (seed, study) = (self.seed.to_string(), self.study_seed.to_string());
        Uid::derived("fovea-tests instance", &[&seed, &study, &self.sop_class_uid]).to_string()
    }

    /// The data set.
    #[must_use]
    pub fn data_set(&self) -> InMemDicomObject {
        let mut data_set = InMemDicomObject::new_empty();
        let study = self.study_seed.to_string();
        let texts = [
            (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192".to_owned()),
            (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY".to_owned()),
            (tags::SOP_CLASS_UID, VR::UI, self.sop_class_uid.clone()),
            (tags::SOP_INSTANCE_UID, VR::UI, self.sop_instance_uid()),
            (tags::STUDY_DATE, VR::DA, "20260102".to_owned()),
            (tags::STUDY_TIME, VR::TM, "101112".to_owned()),
            (tags::CONTENT_DATE, VR::DA, "20260102".to_owned()),
            (tags::CONTENT_TIME, VR::TM, "101112".to_owned()),
            (tags::ACCESSION_NUMBER, VR::SH, String::new()),
            (tags::MODALITY, VR::CS, self.modality.clone()),
            (tags::CONVERSION_TYPE, VR::CS, "SYN".to_owned()),
            (tags::MANUFACTURER, VR::LO, "Invented".to_owned()),
            (tags::REFERRING_PHYSICIAN_NAME, VR::PN, String::new()),
            (tags::PATIENT_NAME, VR::PN, format!("{}^Invented", self.patient_token)),
            (tags::PATIENT_ID, VR::LO, format!("{}-ID", self.patient_token)),
            (tags::PATIENT_BIRTH_DATE, VR::DA, "19500101".to_owned()),
            (tags::PATIENT_SEX, VR::CS, "O".to_owned()),
            (tags::STUDY_INSTANCE_UID, VR::UI, Uid::derived("fovea-tests study", &[&study]).to_string()),
            (tags::SERIES_INSTANCE_UID, VR::UI, Uid::derived("fovea-tests series", &[&study]).to_string()),
            (tags::STUDY_ID, VR::SH, "1".to_owned()),
            (tags::SERIES_NUMBER, VR::IS, "1".to_owned()),
            (tags::LATERALITY, VR::CS, String::new()),
            (tags::INSTANCE_NUMBER, VR::IS, "1".to_owned()),
            (tags::PATIENT_ORIENTATION, VR::CS, String::new()),
            (
                tags::PHOTOMETRIC_INTERPRETATION,
                VR::CS,
                if self.samples_per_pixel == 3 { "RGB" } else { "MONOCHROME2" }.to_owned(),
            ),
        ];
        for (tag, vr, text) in texts {
            object::put(&mut data_set, tag, vr, &text);
        }
        let numbers = [
            (tags::SAMPLES_PER_PIXEL, self.samples_per_pixel),
            (tags::ROWS, self.rows),
            (tags::COLUMNS, self.columns),
            (tags::BITS_ALLOCATED, 8),
            (tags::BITS_STORED, 8),
            (tags::HIGH_BIT, 7),
            (tags::PIXEL_REPRESENTATION, 0),
        ];
        for (tag, number) in numbers {
            data_set.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number)));
        }
        if self.samples_per_pixel == 3 {
            data_set.put(DataElement::new(tags::PLANAR_CONFIGURATION, VR::US, PrimitiveValue::from(0u16)));
        }
        if self.frames > 1 {
            object::put(&mut data_set, tags::NUMBER_OF_FRAMES, VR::IS, &self.frames.to_string());
        }
        data_set.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(self.pixels())));
        data_set
    }

    /// Writes it into `folder`, named by its seed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let path = folder.join(format!("sample-{}-{}.dcm", self.study_seed, self.seed));
        object::write(self.data_set(), EXPLICIT_VR_LE, &path)?;
        Ok(path)
    }

    /// Noise of a xorshift generator, padded to an even length (PS3.5 section 8.1.1).
    fn pixels(&self) -> Vec<u8> {
        let bytes =
            u64::from(self.rows) * u64::from(self.columns) * u64::from(self.samples_per_pixel) * u64::from(self.frames);
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pixels = Vec::with_capacity(bytes as usize + 8);
        while (pixels.len() as u64) < bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pixels.extend_from_slice(&state.to_le_bytes());
        }
        pixels.truncate(bytes.next_multiple_of(2) as usize);
        pixels
    }
}
