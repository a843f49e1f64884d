//! Walks a data set while it streams by: checks its structure, takes the routing facts out.
//!
//! In: the plain bytes of a data set, in any pieces. Out: [`Walked`] at its end, or why it cannot be understood.
//! Promise, for every data set that is walked to its end:
//! - every length lies within its parent and within the bytes that came; sequences nest at most
//!   [`HeaderLimits::nesting_max`] deep; elements, their lengths and the whole header stay within the limits;
//! - value lengths fit their VR, so that dicom-object's parser, which trusts lengths and rounds them down, sees the
//!   same elements up to the Pixel Data as this walk did.
//!
//! No patient identity is kept.
//! Standard: PS3.5 sections 7.1, 7.5, A.1, A.2 and A.4.

mod walked;

use crate::Encoding;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use fovea_core::{Laterality, Uid};
pub use walked::{HeaderError, HeaderLimits, Walked};

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);
const UNDEFINED: u32 = u32::MAX;
/// Longest value that is kept to be looked at; a UID has 64 characters.
const KEPT_BYTES_MAX: u32 = 130;

const SOP_CLASS: Tag = Tag(0x0008, 0x0016);
const SOP_INSTANCE: Tag = Tag(0x0008, 0x0018);
const MODALITY: Tag = Tag(0x0008, 0x0060);
const BODY_PART: Tag = Tag(0x0018, 0x0015);
const STUDY: Tag = Tag(0x0020, 0x000D);
const SERIES: Tag = Tag(0x0020, 0x000E);
const LATERALITY: Tag = Tag(0x0020, 0x0060);
const IMAGE_LATERALITY: Tag = Tag(0x0020, 0x0062);
const PHOTOMETRIC: Tag = Tag(0x0028, 0x0004);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const BURNED_IN: Tag = Tag(0x0028, 0x0301);
const KEPT: [Tag; 13] = [
    SOP_CLASS,
    SOP_INSTANCE,
    MODALITY,
    BODY_PART,
    STUDY,
    SERIES,
    LATERALITY,
    IMAGE_LATERALITY,
    PHOTOMETRIC,
    FRAMES,
    ROWS,
    COLUMNS,
    BURNED_IN,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sequence,
    Item,
    Fragments,
}

/// An open sequence, item or run of fragments.
#[derive(Clone, Copy)]
struct Level {
    kind: Kind,
    /// Where it ends, none where a delimiter ends it.
    end: Option<u64>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy)]
enum Step {
    /// An element's or item's header, collected in `header`.
    Header,
    /// A value: so many bytes to come, and how it is looked at.
    Value { bytes_left: u64, look: Look },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Skipped: pixels.
    Away,
    /// Counted against the limits: any other value.
    Count,
    /// Kept as well.
    Keep(Tag),
}

/// The walk. Feed it with [`push`](Self::push), end it with [`finish`](Self::finish).
pub struct HeaderWalker {
    explicit: bool,
    encapsulated: bool,
    limits: HeaderLimits,
    position: u64,
    header: [u8; 12],
    header_bytes: usize,
    step: Step,
    levels: Vec<Level>,
    elements: u32,
    backslashes: u64,
    kept: Vec<(Tag, Vec<u8>)>,
    pixel_data_position: Option<u64>,
}

impl HeaderWalker {
    /// A walk over a data set in `encoding`; the bytes of a deflated one are inflated by the caller.
    #[must_use]
    pub fn new(encoding: Encoding, limits: HeaderLimits) -> Self {
        Self {
            explicit: encoding != Encoding::Implicit,
            encapsulated: encoding == Encoding::Encapsulated,
            limits,
            position: 0,
            header: [0; 12],
            header_bytes: 0,
            step: Step::Header,
            levels: Vec::new(),
            elements: 0,
            backslashes: 0,
            kept: Vec::new(),
            pixel_data_position: None,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`HeaderError`]; the walk is over then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), HeaderError> {
        while !bytes.is_empty() {
            let taken = match self.step {
                Step::Header => self.take_header(bytes)?,
                Step::Value { bytes_left, look } => self.take_value(bytes, bytes_left, look)?,
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, HeaderError> {
        let needed = self.header_needed();
        let taken = bytes.len().min(needed - self.header_bytes);
        self.header[self.header_bytes..self.header_bytes + taken].copy_from_slice(&bytes[..taken]);
        self.header_bytes += taken;
        self.position += taken as u64;
        if self.header_bytes == needed && self.header_needed() == needed {
            let position = self.position - needed as u64;
            self.header_bytes = 0;
            self.element(position)?;
        }
        Ok(taken)
    }

    /// 8 bytes tell whether the header has 12.
    fn header_needed(&self) -> usize {
        let group = u16::from_le_bytes([self.header[0], self.header[1]]);
        let has_vr = self.header_bytes >= 8 && self.explicit && group != 0xFFFE && !self.in_sequence();
        if has_vr && !has_short_length(self.vr()) { 12 } else { 8 }
    }

    fn vr(&self) -> VR {
        VR::from_binary([self.header[4], self.header[5]]).unwrap_or(VR::UN)
    }

    /// Only items may stand here.
    fn in_sequence(&self) -> bool {
        self.levels.last().is_some_and(|level| level.kind != Kind::Item)
    }

    /// A whole header is in `self.header`; it began at `position`.
    fn element(&mut self, position: u64) -> Result<(), HeaderError> {
        self.elements += 1;
        if self.elements > self.limits.elements_max {
            return Err(HeaderError::Limit { what: "elements" });
        }
        let head = self.header;
        let tag = Tag(u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let long = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if tag.0 == 0xFFFE || self.in_sequence() {
            return self.item_or_delimiter(tag, long, position);
        }
        if tag.0 < 0x0008 && self.levels.is_empty() {
            return Err(HeaderError::Misplaced { position });
        }
        let (vr, length) = if !self.explicit {
            (implicit_vr(tag), long)
        } else if has_short_length(self.vr()) {
            (self.vr(), u32::from(u16::from_le_bytes([head[6], head[7]])))
        } else {
            (self.vr(), u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
        };
        let is_pixel_data = tag == PIXEL_DATA;
        if is_pixel_data && self.levels.is_empty() && self.pixel_data_position.replace(position).is_some() {
            return Err(HeaderError::Repeated { tag });
        }
        if length == UNDEFINED {
            return self.open_undefined(is_pixel_data, vr, position);
        }
        let end = self.end_within_parent(length, position)?;
        if vr == VR::SQ {
            return self.open(Kind::Sequence, Some(end));
        }
        self.open_value(tag, vr, length, position)
    }

    fn open_undefined(&mut self, is_pixel_data: bool, vr: VR, position: u64) -> Result<(), HeaderError> {
        if is_pixel_data && self.encapsulated {
            self.open(Kind::Fragments, None)
        } else if !is_pixel_data && (vr == VR::SQ || !self.explicit) {
            self.open(Kind::Sequence, None)
        } else {
            // UN of undefined length holds an implicit VR sequence (PS3.5 section 6.2.2), which dicom-object would
            // read as explicit: what it then takes for lengths nobody has checked.
            Err(HeaderError::UndefinedLength { position })
        }
    }

    fn open_value(&mut self, tag: Tag, vr: VR, length: u32, position: u64) -> Result<(), HeaderError> {
        let at_top = self.levels.is_empty();
        let mut look = Look::Count;
        if tag == PIXEL_DATA && at_top {
            look = Look::Away;
        } else if length > self.limits.value_bytes_max {
            return Err(HeaderError::Limit { what: "bytes of a value" });
        } else if self.pixel_data_position.is_none() && self.position > self.limits.header_bytes_max {
            return Err(HeaderError::Limit { what: "bytes before the pixel data" });
        } else if at_top && KEPT.contains(&tag) {
            if self.kept.iter().any(|(kept, _)| *kept == tag) {
                return Err(HeaderError::Repeated { tag });
            }
            self.kept.push((tag, Vec::new()));
            look = if length <= KEPT_BYTES_MAX { Look::Keep(tag) } else { Look::Count };
        }
        if !length.is_multiple_of(unit_bytes(vr)) {
            return Err(HeaderError::UnevenLength { position });
        }
        self.step = Step::Value { bytes_left: length.into(), look };
        if length == 0 { self.end_value() } else { Ok(()) }
    }

    fn item_or_delimiter(&mut self, tag: Tag, length: u32, position: u64) -> Result<(), HeaderError> {
        let misplaced = HeaderError::Misplaced { position };
        let Some(level) = self.levels.last().copied() else { return Err(misplaced) };
        match (level.kind, tag) {
            (Kind::Sequence, ITEM) => {
                let end = if length == UNDEFINED { None } else { Some(self.end_within_parent(length, position)?) };
                self.open(Kind::Item, end)
            }
            (Kind::Fragments, ITEM) if length != UNDEFINED => {
                self.end_within_parent(length, position)?;
                let at_top = self.levels.len() == 1;
                if !at_top && length > self.limits.value_bytes_max {
                    return Err(HeaderError::Limit { what: "bytes of a value" });
                }
                self.step = Step::Value { bytes_left: length.into(), look: Look::Away };
                if length == 0 { self.end_value() } else { Ok(()) }
            }
            (Kind::Sequence | Kind::Fragments, SEQUENCE_END) | (Kind::Item, ITEM_END)
                if level.end.is_none() && length == 0 =>
            {
                self.levels.pop();
                self.close_ended();
                Ok(())
            }
            _ => Err(misplaced),
        }
    }

    /// Where `length` bytes from here end, which must not be behind the end of the innermost parent that has one.
    fn end_within_parent(&self, length: u32, position: u64) -> Result<u64, HeaderError> {
        let end = self.position + u64::from(length);
        let parent_end = self.levels.iter().rev().find_map(|level| level.end);
        match parent_end {
            Some(parent_end) if end > parent_end => Err(HeaderError::BeyondParent { position }),
            _ => Ok(end),
        }
    }

    fn open(&mut self, kind: Kind, end: Option<u64>) -> Result<(), HeaderError> {
        self.levels.push(Level { kind, end });
        // A sequence and its item are one step of nesting.
        if self.levels.len() > 2 * self.limits.nesting_max {
            return Err(HeaderError::Limit { what: "nesting" });
        }
        self.step = Step::Header;
        self.close_ended();
        Ok(())
    }

    fn take_value(&mut self, bytes: &[u8], bytes_left: u64, look: Look) -> Result<usize, HeaderError> {
        let taken = usize::try_from(bytes_left).unwrap_or(usize::MAX).min(bytes.len());
        let value = &bytes[..taken];
        if look != Look::Away {
            self.backslashes += value.iter().filter(|byte| **byte == b'\\').count() as u64;
            if self.backslashes > self.limits.backslashes_max {
                return Err(HeaderError::Limit { what: "values" });
            }
        }
        if let (Look::Keep(_), Some((_, kept))) = (look, self.kept.last_mut()) {
            kept.extend_from_slice(value);
        }
        self.position += taken as u64;
        let bytes_left = bytes_left - taken as u64;
        self.step = Step::Value { bytes_left, look };
        if bytes_left == 0 {
            self.end_value()?;
        }
        Ok(taken)
    }

    fn end_value(&mut self) -> Result<(), HeaderError> {
        self.step = Step::Header;
        self.close_ended();
        Ok(())
    }

    /// Closes what ends here by its length.
    fn close_ended(&mut self) {
        while self.levels.last().is_some_and(|level| level.end == Some(self.position)) {
            self.levels.pop();
        }
    }

    /// The bytes came to their end.
    ///
    /// # Errors
    /// [`HeaderError`] when something is still open or a needed UID is not there.
    pub fn finish(self) -> Result<Walked, HeaderError> {
        let between_elements = matches!(self.step, Step::Header) && self.header_bytes == 0;
        if !between_elements || !self.levels.is_empty() {
            return Err(HeaderError::Truncated);
        }
        Ok(Walked {
            sop_class_uid: self.uid(SOP_CLASS)?,
            sop_instance_uid: self.uid(SOP_INSTANCE)?,
            study_uid: self.uid(STUDY)?,
            series_uid: self.uid(SERIES)?,
            modality: self.code(MODALITY),
            body_part: self.code(BODY_PART),
            laterality: self.laterality(IMAGE_LATERALITY).or_else(|| self.laterality(LATERALITY)),
            rows_px: self.u16(ROWS),
            columns_px: self.u16(COLUMNS),
            frames: self.text(FRAMES).and_then(|text| text.parse().ok()).unwrap_or(1),
            photometric: self.code(PHOTOMETRIC),
            burned_in_annotation: match self.text(BURNED_IN) {
                Some("YES") => Some(true),
                Some("NO") => Some(false),
                _ => None,
            },
            pixel_data_position: self.pixel_data_position,
            plain_bytes: self.position,
        })
    }

    fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.kept.iter().find(|(kept, _)| *kept == tag).map(|(_, bytes)| bytes.as_slice())
    }

    fn text(&self, tag: Tag) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty()).then_some(text)
    }

    fn uid(&self, tag: Tag) -> Result<Uid, HeaderError> {
        // Only padding at the end is taken off: another parser must read the same UID.
        let text = self.bytes(tag).and_then(|bytes| std::str::from_utf8(bytes).ok());
        Uid::new(text.ok_or(HeaderError::NotUid { tag })?).map_err(|_| HeaderError::NotUid { tag })
    }

    /// A code string (VR CS): nothing else may pass, for these are written to journal, log and network.
    fn code(&self, tag: Tag) -> Option<String> {
        let text = self.text(tag)?;
        let is_code = |b: u8| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_');
        (text.len() <= 16 && text.bytes().all(is_code)).then(|| text.to_owned())
    }

    fn laterality(&self, tag: Tag) -> Option<Laterality> {
        match self.text(tag)? {
            "L" => Some(Laterality::Left),
            "R" => Some(Laterality::Right),
            "B" => Some(Laterality::Both),
            _ => None,
        }
    }

    fn u16(&self, tag: Tag) -> Option<u32> {
        let value: [u8; 2] = self.bytes(tag)?.try_into().ok()?;
        Some(u16::from_le_bytes(value).into())
    }
}

/// 16-bit lengths in Explicit VR (PS3.5 table 7.1-2).
fn has_short_length(vr: VR) -> bool {
    use VR::{AE, AS, AT, CS, DA, DS, DT, FD, FL, IS, LO, LT, PN, SH, SL, SS, ST, TM, UI, UL, US};
    matches!(vr, AE | AS | AT | CS | DA | DS | DT | FD | FL | IS | LO | LT | PN | SH | SL | SS | ST | TM | UI | UL | US)
}

/// Bytes of one value where it is of fixed length.
fn unit_bytes(vr: VR) -> u32 {
    match vr {
        VR::US | VR::SS | VR::OW => 2,
        VR::UL | VR::SL | VR::FL | VR::AT | VR::OF | VR::OL => 4,
        VR::FD | VR::OD | VR::SV | VR::UV | VR::OV => 8,
        _ => 1,
    }
}

/// The type that dicom-object's parser gives an element of Implicit VR: the same dictionary, the same exceptions.
fn implicit_vr(tag: Tag) -> VR {
    if tag == PIXEL_DATA || (tag.0 >> 8 == 0x60 && tag.1 == 0x3000) {
        return VR::OW;
    }
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}
