//! Small data sets of messages: identifiers, action information, event information, attribute lists.
//!
//! In: at most [`DATA_SET_BYTES_MAX`] bytes in a native little endian syntax. Out: [`DataSet`], and back.
//! Promise: a length inside the bytes is believed only when that many bytes are there; nesting and the number of
//! elements are bounded; what is encoded decodes to the same set. Never an object with pixels: those are streamed.
//! Standard: PS3.5 sections 7.1, 7.5 and annex A.

use crate::part10::LONG_VRS;
use crate::transfer_syntax::{EXPLICIT_VR_LE, IMPLICIT_VR_LE};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use fovea_core::{TagNumber, Uid};
use std::collections::BTreeMap;
use std::fmt;

mod read;

/// Longest data set that is read or kept: more than 1,500 references.
pub const DATA_SET_BYTES_MAX: usize = 256 * 1024;
/// Elements in all levels together: a reference takes three.
pub const DATA_SET_ELEMENTS_MAX: usize = 16 * 1024;
/// Sequences within each other: a procedure step has three.
pub const DATA_SET_DEPTH_MAX: usize = 8;

/// How a data set is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// Implicit VR Little Endian.
    Implicit,
    /// Explicit VR Little Endian.
    Explicit,
}

impl Coding {
    /// That of a transfer syntax, none where it is not one of the two that messages are exchanged in.
    #[must_use]
    pub fn of(transfer_syntax: &Uid) -> Option<Self> {
        match transfer_syntax.as_str() {
            IMPLICIT_VR_LE => Some(Self::Implicit),
            EXPLICIT_VR_LE => Some(Self::Explicit),
            _ => None,
        }
    }
}

/// Why bytes are no data set that we take. Never a value: it may name a patient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataSetError {
    /// More bytes than we take.
    #[error("the data set has more than {bytes_max} bytes")]
    TooLong {
        /// Our limit.
        bytes_max: usize,
    },
    /// More elements than we take.
    #[error("the data set has more than {elements_max} elements")]
    TooMany {
        /// Our limit.
        elements_max: usize,
    },
    /// Sequences within sequences beyond our limit.
    #[error("the data set is nested deeper than {depth_max}")]
    TooDeep {
        /// Our limit.
        depth_max: usize,
    },
    /// An element or item ends behind the end of what holds it.
    #[error("the data set ends inside what begins at byte {position}")]
    Truncated {
        /// Where that begins.
        position: usize,
    },
    /// Something that may not stand where it does.
    #[error("the data set cannot be read at byte {position}")]
    Malformed {
        /// Where.
        position: usize,
    },
    /// The presentation context is in a syntax that messages are not exchanged in.
    #[error("data sets of messages are taken in implicit and explicit VR little endian only")]
    Syntax,
}

/// Elements by tag. Shown for debugging it tells tags, never values.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DataSet {
    elements: BTreeMap<TagNumber, Held>,
}

#[derive(Clone, PartialEq, Eq)]
struct Held {
    vr: [u8; 2],
    value: Value,
}

#[derive(Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Items(Vec<DataSet>),
}

impl fmt::Debug for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = self.elements.keys().map(|tag| format!("({:04X},{:04X})", tag >> 16, tag & 0xffff));
        f.debug_list().entries(tags).finish()
    }
}

/// The VR of an element in the standard's dictionary, UN where it is not in there (PS3.6 chapter 6).
fn vr_of(tag: TagNumber) -> [u8; 2] {
    let tag = dicom_core::Tag((tag >> 16) as u16, (tag & 0xffff) as u16);
    let entry = StandardDataDictionary.by_tag(tag);
    entry.map_or(*b"UN", |entry| entry.vr().relaxed().to_bytes())
}

impl DataSet {
    /// Reads a data set.
    ///
    /// # Errors
    /// [`DataSetError`].
    pub fn decode(bytes: &[u8], coding: Coding) -> Result<Self, DataSetError> {
        read::data_set(bytes, coding)
    }

    /// Writes it, elements in rising order, sequences with their lengths.
    #[must_use]
    pub fn encode(&self, coding: Coding) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(coding, &mut out);
        out
    }

    fn write(&self, coding: Coding, out: &mut Vec<u8>) {
        for (tag, Held { vr, value }) in &self.elements {
            let value = match value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Items(items) => written_items(items, coding),
            };
            write_element(*tag, *vr, value, coding, out);
        }
    }

    /// No element is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The tags that are in it, rising.
    pub fn tags(&self) -> impl Iterator<Item = TagNumber> + '_ {
        self.elements.keys().copied()
    }

    /// It has this element, with or without a value.
    #[must_use]
    pub fn has(&self, tag: TagNumber) -> bool {
        self.elements.contains_key(&tag)
    }

    /// The VR of an element, as it was read or as the dictionary has it.
    #[must_use]
    pub fn vr(&self, tag: TagNumber) -> Option<&[u8; 2]> {
        self.elements.get(&tag).map(|held| &held.vr)
    }

    /// The bytes of a value, padding included; none where the element is not there or is a sequence.
    #[must_use]
    pub fn bytes(&self, tag: TagNumber) -> Option<&[u8]> {
        match &self.elements.get(&tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Items(_) => None,
        }
    }

    /// A text without padding; none where the element is not there, empty, or not UTF-8. For values in other character
    /// sets than ASCII and UTF-8 take [`Self::bytes`].
    #[must_use]
    pub fn text(&self, tag: TagNumber) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty()).then_some(text)
    }

    /// A UID; none where there is none.
    #[must_use]
    pub fn uid(&self, tag: TagNumber) -> Option<Uid> {
        Uid::new(self.text(tag)?).ok()
    }

    /// An unsigned short (VR US); none where there is none.
    #[must_use]
    pub fn u16(&self, tag: TagNumber) -> Option<u16> {
        self.bytes(tag)?.try_into().ok().map(u16::from_le_bytes)
    }

    /// The items of a sequence, none where it is not there.
    #[must_use]
    pub fn items(&self, tag: TagNumber) -> &[DataSet] {
        match self.elements.get(&tag).map(|held| &held.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// Sets an element to bytes that are already as the standard wants them, but for padding; its VR is the dictionary's.
    #[must_use]
    pub fn with_bytes(mut self, tag: TagNumber, bytes: &[u8]) -> Self {
        self.elements.insert(tag, Held { vr: vr_of(tag), value: Value::Bytes(padded(vr_of(tag), bytes)) });
        self
    }

    /// Sets an element to a text: ASCII, or UTF-8 in a data set that says so in (0008,0005).
    #[must_use]
    pub fn with_text(self, tag: TagNumber, text: &str) -> Self {
        self.with_bytes(tag, text.as_bytes())
    }

    /// Sets an element to a UID.
    #[must_use]
    pub fn with_uid(self, tag: TagNumber, uid: &Uid) -> Self {
        self.with_bytes(tag, uid.as_str().as_bytes())
    }

    /// Sets an element to an unsigned short.
    #[must_use]
    pub fn with_u16(self, tag: TagNumber, value: u16) -> Self {
        self.with_bytes(tag, &value.to_le_bytes())
    }

    /// Sets a sequence.
    #[must_use]
    pub fn with_items(mut self, tag: TagNumber, items: Vec<DataSet>) -> Self {
        self.elements.insert(tag, Held { vr: *b"SQ", value: Value::Items(items) });
        self
    }

    /// Takes every element of `other`, in place of our own of the same tag.
    pub fn overlay(&mut self, other: DataSet) {
        self.elements.extend(other.elements);
    }
}

/// PS3.5 section 6.2: UIDs and bytes are padded with zero, text with a space.
fn padded(vr: [u8; 2], bytes: &[u8]) -> Vec<u8> {
    let mut value = bytes.to_vec();
    if value.len() % 2 == 1 {
        value.push(if matches!(&vr, b"UI" | b"OB" | b"UN") { 0 } else { b' ' });
    }
    value
}

fn written_items(items: &[DataSet], coding: Coding) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let content = item.encode(coding);
        out.extend_from_slice(&[0xfe, 0xff, 0x00, 0xe0]);
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        out.extend_from_slice(&content);
    }
    out
}

fn write_element(tag: TagNumber, vr: [u8; 2], value: Vec<u8>, coding: Coding, out: &mut Vec<u8>) {
    out.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
    out.extend_from_slice(&((tag & 0xffff) as u16).to_le_bytes());
    let length = value.len() as u32;
    match (coding, u16::try_from(length)) {
        (Coding::Implicit, _) => out.extend_from_slice(&length.to_le_bytes()),
        (Coding::Explicit, Ok(short)) if !LONG_VRS.contains(&&vr) => {
            out.extend_from_slice(&vr);
            out.extend_from_slice(&short.to_le_bytes());
        }
        (Coding::Explicit, _) => {
            // A value that its VR has no room for is written as UN (PS3.5 section 6.2.2, note 4).
            let vr = if LONG_VRS.contains(&&vr) { vr } else { *b"UN" };
            out.extend_from_slice(&vr);
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&length.to_le_bytes());
        }
    }
    out.extend_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REFERENCED: TagNumber = 0x0008_1199;
    const CLASS: TagNumber = 0x0008_1150;
    const NAME: TagNumber = 0x0010_0010;
    const STUDY: TagNumber = 0x0020_000D;

    fn sample() -> DataSet {
        let uid = |text| Uid::new(text).unwrap();
        let item = |text| DataSet::default().with_uid(CLASS, &uid(text));
        DataSet::default()
            .with_text(NAME, "Jürgen^A")
            .with_uid(STUDY, &uid("1.2.3"))
            .with_u16(0x0008_1197, 0x0112)
            .with_items(REFERENCED, vec![item("1.2"), item("1.2.840"), DataSet::default()])
    }

    #[test]
    fn what_is_written_is_read_in_both_codings() {
        for coding in [Coding::Implicit, Coding::Explicit] {
            let bytes = sample().encode(coding);
            assert_eq!(bytes.len() % 2, 0);
            let read = DataSet::decode(&bytes, coding).unwrap();
            assert_eq!(read, sample());
            assert_eq!(read.text(NAME), Some("Jürgen^A"));
            assert_eq!(read.uid(STUDY), Uid::new("1.2.3").ok());
            assert_eq!(read.u16(0x0008_1197), Some(0x0112));
            assert_eq!(read.items(REFERENCED)[1].uid(CLASS), Uid::new("1.2.840").ok());
            assert_eq!(read.items(REFERENCED).len(), 3);
        }
    }

    #[test]
    fn inv_09_a_data_set_shows_tags_and_never_values() {
        let shown = format!("{:?}", sample());
        assert!(shown.contains("(0010,0010)") && !shown.contains("rgen"), "{shown}");
    }

    #[test]
    fn undefined_lengths_are_read_as_the_defined_ones() {
        let sequence = [8, 0, 0x99, 0x11, 0xff, 0xff, 0xff, 0xff];
        let item = [0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff];
        let class = [8, 0, 0x50, 0x11, 4, 0, 0, 0, b'1', b'.', b'2', 0];
        let ends = [[0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0], [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]].concat();
        let bytes = [&sequence[..], &item[..], &class[..], &ends[..]].concat();
        let read = DataSet::decode(&bytes, Coding::Implicit).unwrap();
        assert_eq!(read.items(REFERENCED)[0].uid(CLASS), Uid::new("1.2").ok());
        for cut in 1..bytes.len() {
            assert!(DataSet::decode(&bytes[..cut], Coding::Implicit).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn inv_08_lengths_that_lie_nesting_and_numbers_are_bounded() {
        let long = [8, 0, 0x50, 0x11, 0xff, 0xff, 0xff, 0x7f, 0, 0];
        assert_eq!(DataSet::decode(&long, Coding::Implicit), Err(DataSetError::Truncated { position: 0 }));
        let sequence = [8, 0, 0x99, 0x11, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff];
        let depth_max = DATA_SET_DEPTH_MAX;
        assert_eq!(
            DataSet::decode(&sequence.repeat(depth_max + 1), Coding::Implicit),
            Err(DataSetError::TooDeep { depth_max })
        );
        let many: Vec<u8> =
            (0..=DATA_SET_ELEMENTS_MAX as u16).flat_map(|n| [0x10, 0, n as u8, (n >> 8) as u8, 0, 0, 0, 0]).collect();
        let elements_max = DATA_SET_ELEMENTS_MAX;
        // Element 0000 of the group is a group length, which is not kept and not counted.
        assert!(DataSet::decode(&many, Coding::Implicit).is_ok());
        let more = [&many[..], &[0x12, 0, 1, 0, 0, 0, 0, 0]].concat();
        assert_eq!(DataSet::decode(&more, Coding::Implicit), Err(DataSetError::TooMany { elements_max }));
        let bytes_max = DATA_SET_BYTES_MAX;
        assert_eq!(
            DataSet::decode(&vec![0; bytes_max + 1], Coding::Implicit),
            Err(DataSetError::TooLong { bytes_max })
        );
    }

    proptest! {
        #[test]
        fn inv_08_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), implicit: bool) {
            let coding = if implicit { Coding::Implicit } else { Coding::Explicit };
            let _any = DataSet::decode(&bytes, coding);
        }

        #[test]
        fn inv_08_mutated_sets_never_panic(at in 0usize..400, value: u8, cut in 0usize..400, implicit: bool) {
            let coding = if implicit { Coding::Implicit } else { Coding::Explicit };
            let mut bytes = sample().encode(coding);
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(cut);
            if let Ok(read) = DataSet::decode(&bytes, coding) {
                prop_assert!(DataSet::decode(&read.encode(coding), coding).is_ok());
            }
        }
    }
}
