//! What a report takes from the object it is about.
//!
//! In: the stored Part 10 file. Out: the raw values of patient and study attributes, and the facts that place a finding.
//! Promise: only top-level attributes before Pixel Data are read, at most [`HEADER_BYTES_MAX`]; values are never decoded,
//! so a copy is exact whatever the character set.
//! Standard: DICOM PS3.5 section 7, PS3.10 section 7.1, PS3.3 sections C.7.1.1, C.7.2.1, C.7.2.2.

use crate::ReportError;
use crate::encode::{DataSet, vr};
use fovea_core::{Finding, Laterality};
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// The most that is read before Pixel Data, inflated.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// The longest single value that is copied; longer ones are left out (only comments could be so long).
const VALUE_BYTES_MAX: u32 = 65_000;
/// The deepest nesting that is skipped through.
const DEPTH_MAX: u32 = 64;
const UNDEFINED: u32 = u32::MAX;

/// Copied as they are, with their representation. `true`: Type 2, written empty where the source has none.
const COPIED: [(u32, [u8; 2], bool); 20] = [
    (0x0008_0005, vr::CS, false), // SpecificCharacterSet
    (0x0008_0020, vr::DA, true),  // StudyDate
    (0x0008_0030, vr::TM, true),  // StudyTime
    (0x0008_0050, vr::SH, true),  // AccessionNumber
    (0x0008_0090, vr::PN, true),  // ReferringPhysicianName
    (0x0008_0201, vr::SH, false), // TimezoneOffsetFromUTC
    (0x0008_1030, vr::LO, false), // StudyDescription
    (0x0010_0010, vr::PN, true),  // PatientName
    (0x0010_0020, vr::LO, true),  // PatientID
    (0x0010_0021, vr::LO, false), // IssuerOfPatientID
    (0x0010_0030, vr::DA, true),  // PatientBirthDate
    (0x0010_0032, vr::TM, false), // PatientBirthTime
    (0x0010_0040, vr::CS, true),  // PatientSex
    (0x0010_1010, vr::AS, false), // PatientAge
    (0x0010_1020, vr::DS, false), // PatientSize
    (0x0010_1030, vr::DS, false), // PatientWeight
    (0x0010_2160, vr::SH, false), // EthnicGroup
    (0x0010_4000, vr::LT, false), // PatientComments
    (0x0020_000D, vr::UI, true),  // StudyInstanceUID
    (0x0020_0010, vr::SH, true),  // StudyID
];

/// Read for their meaning, not copied.
const FACTS: [u32; 7] = [
    0x0008_0016, // SOPClassUID
    0x0008_0018, // SOPInstanceUID
    0x0008_0060, // Modality
    0x0020_000E, // SeriesInstanceUID
    0x0020_0060, // Laterality
    0x0020_0062, // ImageLaterality
    0x0028_0008, // NumberOfFrames
];

/// Top-level attributes of the source, raw.
#[derive(Debug, Default)]
pub struct SourceHeader(BTreeMap<u32, Vec<u8>>);

impl SourceHeader {
    /// Fails unless study, series, class and instance are those of `finding`.
    pub fn belongs_to(&self, finding: &Finding) -> Result<(), ReportError> {
        let same = [
            (0x0008_0016, &finding.sop_class_uid, "SOP Class UID"),
            (0x0008_0018, &finding.sop_instance_uid, "SOP Instance UID"),
            (0x0020_000D, &finding.study_uid, "Study Instance UID"),
            (0x0020_000E, &finding.series_uid, "Series Instance UID"),
        ];
        for (tag, uid, attribute) in same {
            if self.ascii(tag).as_deref() != Some(uid.as_str()) {
                return Err(ReportError::OtherObject { attribute });
            }
        }
        Ok(())
    }

    /// Writes patient and study attributes as the source has them.
    pub fn copy_patient_and_study(&self, data: &mut DataSet) {
        for (tag, vr, type_2) in COPIED {
            let value = self.0.get(&tag);
            // An optional attribute without a value says nothing, and some (Character Set) may not be empty.
            let has_value = value.is_some_and(|bytes| bytes.iter().any(|byte| !matches!(byte, b' ' | 0)));
            let is_bad_zone = tag == 0x0008_0201 && self.zone().is_none();
            if (has_value && !is_bad_zone) || type_2 {
                data.put_raw(tag, vr, value.cloned().unwrap_or_default());
            }
        }
    }

    /// Minutes east of UTC that the source's times are in, 0 where it does not say.
    pub fn offset_minutes(&self) -> i32 {
        self.zone().unwrap_or(0)
    }

    /// (0020,0062), else (0020,0060).
    pub fn laterality(&self) -> Option<Laterality> {
        let side = self.ascii(0x0020_0062).or_else(|| self.ascii(0x0020_0060))?;
        match side.as_str() {
            "L" => Some(Laterality::Left),
            "R" => Some(Laterality::Right),
            "B" => Some(Laterality::Both),
            _ => None,
        }
    }

    /// (0008,0060), where it is one plain code string.
    pub fn modality(&self) -> Option<String> {
        self.ascii(0x0008_0060).filter(|text| text.len() <= 16 && text.bytes().all(|b| b.is_ascii_alphanumeric()))
    }

    /// (0028,0008), 1 where absent or unreadable.
    pub fn frames(&self) -> u32 {
        self.ascii(0x0028_0008).and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    fn zone(&self) -> Option<i32> {
        let text = self.ascii(0x0008_0201)?;
        let (sign, digits) = match text.split_at_checked(1)? {
            ("+", digits) => (1, digits),
            ("-", digits) => (-1, digits),
            _ => return None,
        };
        if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
        let offset = sign * (hours * 60 + minutes);
        // PS3.3 section C.12.1.1.8: from -1200 to +1400.
        (minutes < 60 && (-720..=840).contains(&offset)).then_some(offset)
    }

    /// A non-empty ASCII value without padding.
    fn ascii(&self, tag: u32) -> Option<String> {
        let text = std::str::from_utf8(self.0.get(&tag)?).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty() && text.is_ascii()).then(|| text.to_owned())
    }
}

/// Reads the header of a Part 10 file from its start.
pub fn read<S: Read + Seek>(source: &mut S) -> Result<SourceHeader, ReportError> {
    source.seek(SeekFrom::Start(0)).map_err(ReportError::ReadSource)?;
    let mut reader = Reader { inner: BufReader::new(source), at: 0, explicit: true };
    let mut start = [0u8; 132];
    reader.fill(&mut start)?;
    if &start[128..] != b"DICM" {
        return Err(reader.malformed("no DICM prefix"));
    }
    let syntax = reader.meta()?;
    match syntax.trim_end_matches(['\0', ' ']) {
        "1.2.840.10008.1.2" => reader.explicit = false,
        "1.2.840.10008.1.2.2" => return Err(reader.malformed("big endian is not supported")),
        "1.2.840.10008.1.2.1.99" => {
            let inner = flate2::bufread::DeflateDecoder::new(reader.inner);
            return Reader { inner, at: reader.at, explicit: true }.header();
        }
        _ => {}
    }
    reader.header()
}

/// Walks elements; `at` counts bytes and bounds the walk.
struct Reader<R> {
    inner: R,
    at: u64,
    explicit: bool,
}

/// Start of an element.
struct Start {
    tag: u32,
    vr: [u8; 2],
    length: u32,
}

impl<R: Read> Reader<R> {
    fn malformed(&self, detail: &'static str) -> ReportError {
        ReportError::MalformedSource { at: self.at, detail }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReportError> {
        self.at += buffer.len() as u64;
        if self.at > HEADER_BYTES_MAX {
            return Err(self.malformed("header above 16 MiB"));
        }
        self.inner.read_exact(buffer).map_err(ReportError::ReadSource)
    }

    fn value(&mut self, length: u32) -> Result<Vec<u8>, ReportError> {
        let mut value = vec![0u8; length as usize];
        self.fill(&mut value)?;
        Ok(value)
    }

    fn skip(&mut self, length: u32) -> Result<(), ReportError> {
        let end = self.at + u64::from(length);
        if end > HEADER_BYTES_MAX {
            return Err(self.malformed("header above 16 MiB"));
        }
        let skipped = std::io::copy(&mut self.inner.by_ref().take(u64::from(length)), &mut std::io::sink());
        let skipped = skipped.map_err(ReportError::ReadSource)?;
        self.at = end;
        if skipped == u64::from(length) { Ok(()) } else { Err(self.malformed("file ends inside a value")) }
    }

    /// The next element's start, `None` at the end of the file.
    fn start(&mut self) -> Result<Option<Start>, ReportError> {
        let mut tag = [0u8; 4];
        let first = self.inner.read(&mut tag[..1]).map_err(ReportError::ReadSource)?;
        if first == 0 {
            return Ok(None);
        }
        self.at += 1;
        self.fill(&mut tag[1..])?;
        let tag =
            u32::from(u16::from_le_bytes([tag[0], tag[1]])) << 16 | u32::from(u16::from_le_bytes([tag[2], tag[3]]));
        let mut rest = [0u8; 4];
        self.fill(&mut rest)?;
        // Items and delimiters have no representation in any syntax.
        if !self.explicit || tag >> 16 == 0xFFFE {
            return Ok(Some(Start { tag, vr: *b"  ", length: u32::from_le_bytes(rest) }));
        }
        let vr = [rest[0], rest[1]];
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(self.malformed("no value representation where one must be"));
        }
        let is_long = matches!(
            &vr,
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV"
        );
        let length = if is_long {
            let mut long = [0u8; 4];
            self.fill(&mut long)?;
            u32::from_le_bytes(long)
        } else {
            u32::from(u16::from_le_bytes([rest[2], rest[3]]))
        };
        Ok(Some(Start { tag, vr, length }))
    }

    /// Reads the file meta group and gives the transfer syntax.
    fn meta(&mut self) -> Result<String, ReportError> {
        let Some(first) = self.start()? else { return Err(self.malformed("no file meta group")) };
        if first.tag != 0x0002_0000 || first.length != 4 {
            return Err(self.malformed("no file meta group length"));
        }
        let mut length = [0u8; 4];
        self.fill(&mut length)?;
        let end = self.at + u64::from(u32::from_le_bytes(length));
        let mut syntax = None;
        while self.at < end {
            let Some(start) = self.start()? else { return Err(self.malformed("file ends in its meta group")) };
            if start.tag == 0x0002_0010 && start.length <= 64 {
                syntax = String::from_utf8(self.value(start.length)?).ok();
            } else {
                self.skip(start.length)?;
            }
        }
        if self.at != end {
            return Err(self.malformed("file meta group length is wrong"));
        }
        syntax.ok_or_else(|| self.malformed("no transfer syntax"))
    }

    /// Reads top-level elements up to Pixel Data or the end.
    fn header(mut self) -> Result<SourceHeader, ReportError> {
        let mut header = SourceHeader::default();
        while let Some(start) = self.start()? {
            if start.tag >= 0x7FE0_0008 {
                break;
            }
            let is_wanted = FACTS.contains(&start.tag) || COPIED.iter().any(|(tag, ..)| *tag == start.tag);
            if start.length == UNDEFINED {
                self.skip_undefined(start.vr, 0)?;
            } else if is_wanted && start.length <= VALUE_BYTES_MAX {
                let value = self.value(start.length)?;
                header.0.insert(start.tag, value);
            } else {
                self.skip(start.length)?;
            }
        }
        Ok(header)
    }

    /// Skips the items of a sequence of undefined length, through its delimiter.
    fn skip_undefined(&mut self, vr: [u8; 2], depth: u32) -> Result<(), ReportError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("nested too deep"));
        }
        // PS3.5 section 6.2.2 note 2: UN of undefined length holds implicit VR items.
        let explicit = self.explicit;
        self.explicit = explicit && &vr != b"UN";
        loop {
            let Some(item) = self.start()? else { return Err(self.malformed("file ends in a sequence")) };
            match (item.tag, item.length) {
                (0xFFFE_E0DD, _) => break,
                (0xFFFE_E000, UNDEFINED) => self.skip_item(depth)?,
                (0xFFFE_E000, length) => self.skip(length)?,
                _ => return Err(self.malformed("no item where one must be")),
            }
        }
        self.explicit = explicit;
        Ok(())
    }

    /// Skips the elements of an item of undefined length, through its delimiter.
    fn skip_item(&mut self, depth: u32) -> Result<(), ReportError> {
        loop {
            let Some(element) = self.start()? else { return Err(self.malformed("file ends in an item")) };
            match (element.tag, element.length) {
                (0xFFFE_E00D, _) => return Ok(()),
                (_, UNDEFINED) => self.skip_undefined(element.vr, depth + 1)?,
                (_, length) => self.skip(length)?,
            }
        }
    }
}
