//! The rewriter's own codec: a stream of elements to a tree, and a tree to bytes.
//!
//! In: a data set in Implicit or Explicit VR Little Endian. Out: the tree of what stands before Pixel Data, values raw.
//! Promise: at most [`HEADER_BYTES_MAX`] bytes, [`ELEMENTS_MAX`] elements and [`DEPTH_MAX`] levels; a tag that comes twice,
//! a length that does not fit or an unknown structure is an error, never a guess.
//! Standard: DICOM PS3.5 sections 6.2.2, 7.1, 7.5, annex A.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use std::collections::BTreeMap;
use std::io::Read;

/// The most that may stand before Pixel Data.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;
/// The most elements and items before Pixel Data.
pub const ELEMENTS_MAX: u32 = 200_000;
/// The deepest nesting.
pub const DEPTH_MAX: u32 = 64;
const UNDEFINED: u32 = u32::MAX;
const ITEM: u32 = 0xFFFE_E000;
const ITEM_END: u32 = 0xFFFE_E00D;
const SEQUENCE_END: u32 = 0xFFFE_E0DD;

/// Why a data set is not read. Carries positions and tags, never values.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The file could not be read.
    #[error("read at byte {at}")]
    Read {
        /// Byte position in the (inflated) stream.
        at: u64,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what the standard says.
    #[error("malformed at byte {at}: {detail}")]
    Malformed {
        /// Byte position in the (inflated) stream.
        at: u64,
        /// What is wrong.
        detail: &'static str,
    },
}

/// Attributes by tag, group in the high half.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataSet(pub BTreeMap<u32, Element>);

/// One attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// Value representation, two letters.
    pub vr: [u8; 2],
    /// Its value.
    pub value: Value,
}

/// What an attribute holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Raw bytes, little endian.
    Bytes(Vec<u8>),
    /// Items of a sequence.
    Items(Vec<DataSet>),
}

impl DataSet {
    /// Raw bytes of an attribute that is no sequence.
    pub fn bytes(&self, tag: u32) -> Option<&[u8]> {
        match &self.0.get(&tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Items(_) => None,
        }
    }

    /// An ASCII value without padding, `None` where it is absent, empty or not ASCII.
    pub fn ascii(&self, tag: u32) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty() && text.is_ascii()).then_some(text)
    }

    /// A single unsigned short.
    pub fn us(&self, tag: u32) -> Option<u16> {
        self.bytes(tag)?.try_into().ok().map(u16::from_le_bytes)
    }

    /// Puts raw bytes.
    pub fn put(&mut self, tag: u32, vr: &[u8; 2], value: &[u8]) {
        self.0.insert(tag, Element { vr: *vr, value: Value::Bytes(value.to_vec()) });
    }

    /// Puts a sequence.
    pub fn put_items(&mut self, tag: u32, items: Vec<DataSet>) {
        self.0.insert(tag, Element { vr: *b"SQ", value: Value::Items(items) });
    }

    /// The attributes in tag order, items of explicit length.
    pub fn to_bytes(&self, explicit: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, element) in &self.0 {
            let value = match &element.value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Items(items) => items_to_bytes(items, explicit),
            };
            put_element(&mut out, *tag, element.vr, &value, explicit);
        }
        out
    }
}

fn items_to_bytes(items: &[DataSet], explicit: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let body = item.to_bytes(explicit);
        out.extend_from_slice(&tag_bytes(ITEM));
        out.extend_from_slice(&length(body.len()).to_le_bytes());
        out.extend_from_slice(&body);
    }
    out
}

/// Group then element, each little endian.
pub fn tag_bytes(tag: u32) -> [u8; 4] {
    tag.rotate_left(16).to_le_bytes()
}

/// A tree is never longer than its source, which is bounded far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(UNDEFINED - 1)
}

fn put_element(out: &mut Vec<u8>, tag: u32, vr: [u8; 2], value: &[u8], explicit: bool) {
    out.extend_from_slice(&tag_bytes(tag));
    let padded = length(value.len() + value.len() % 2);
    if !explicit {
        out.extend_from_slice(&padded.to_le_bytes());
    } else if is_long(vr) {
        out.extend_from_slice(&[vr[0], vr[1], 0, 0]);
        out.extend_from_slice(&padded.to_le_bytes());
    } else {
        // Short forms: what we keep was read with a 16-bit length or is bounded in rules.rs.
        let [low, high, ..] = padded.to_le_bytes();
        out.extend_from_slice(&[vr[0], vr[1], low, high]);
    }
    out.extend_from_slice(value);
    if value.len() % 2 == 1 {
        let is_text = matches!(
            &vr,
            b"AE"
                | b"AS"
                | b"CS"
                | b"DA"
                | b"DS"
                | b"DT"
                | b"IS"
                | b"LO"
                | b"LT"
                | b"PN"
                | b"SH"
                | b"ST"
                | b"TM"
                | b"UC"
                | b"UR"
                | b"UT"
        );
        out.push(if is_text { b' ' } else { 0 });
    }
}

/// Whether the explicit form has a 32-bit length (PS3.5 table 7.1-1).
pub fn is_long(vr: [u8; 2]) -> bool {
    matches!(&vr, b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV")
}

/// The representation that the dictionary gives a public tag; for the ambiguous ones the most general.
pub fn dictionary_vr(tag: u32) -> Option<VirtualVr> {
    let tag = Tag((tag >> 16) as u16, tag as u16);
    StandardDataDictionary.by_tag(tag).map(DataDictionaryEntry::vr)
}

/// Where the header ended.
#[derive(Clone, Copy, Debug)]
pub struct PixelStart {
    /// Float, double or integer pixel data.
    pub tag: u32,
    /// As written; `OW` in implicit syntax.
    pub vr: [u8; 2],
    /// `None` where undefined.
    pub length: Option<u32>,
    /// Byte position of its tag in the stream.
    pub at: u64,
}

/// Reads elements; what is left in `inner` after [`Reader::header`] is the value of Pixel Data.
pub struct Reader<R> {
    /// The stream.
    pub inner: R,
    /// Bytes taken so far.
    pub at: u64,
    explicit: bool,
    elements: u32,
}

struct Start {
    tag: u32,
    vr: [u8; 2],
    length: u32,
    at: u64,
}

impl<R: Read> Reader<R> {
    /// A reader of `inner`, whose next byte is at position `at`.
    pub fn new(inner: R, at: u64, explicit: bool) -> Self {
        Self { inner, at, explicit, elements: 0 }
    }

    fn malformed<T>(&self, detail: &'static str) -> Result<T, WireError> {
        Err(WireError::Malformed { at: self.at, detail })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), WireError> {
        if self.at + buffer.len() as u64 > HEADER_BYTES_MAX {
            return self.malformed("more than 16 MiB before pixel data");
        }
        self.inner.read_exact(buffer).map_err(|source| WireError::Read { at: self.at, source })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn value(&mut self, length: u32) -> Result<Vec<u8>, WireError> {
        if self.at + u64::from(length) > HEADER_BYTES_MAX {
            return self.malformed("more than 16 MiB before pixel data");
        }
        let mut value = vec![0u8; length as usize];
        self.fill(&mut value)?;
        Ok(value)
    }

    fn start(&mut self) -> Result<Start, WireError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return self.malformed("too many elements");
        }
        let at = self.at;
        let mut head = [0u8; 8];
        self.fill(&mut head)?;
        let tag = u32::from_le_bytes([head[0], head[1], head[2], head[3]]).rotate_left(16);
        let long = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if tag >> 16 == 0xFFFE {
            return Ok(Start { tag, vr: *b"  ", length: long, at });
        }
        if !self.explicit {
            let vr = dictionary_vr(tag).map_or(*b"UN", |vr| vr.relaxed().to_bytes());
            return Ok(Start { tag, vr, length: long, at });
        }
        let vr = [head[4], head[5]];
        if VR::from_binary(vr).is_none() {
            return self.malformed("no known value representation");
        }
        if !is_long(vr) {
            return Ok(Start { tag, vr, length: u32::from(u16::from_le_bytes([head[6], head[7]])), at });
        }
        let mut long = [0u8; 4];
        self.fill(&mut long)?;
        Ok(Start { tag, vr, length: u32::from_le_bytes(long), at })
    }

    /// The file meta group: reads preamble, prefix and group 0002.
    pub fn meta(&mut self) -> Result<DataSet, WireError> {
        let mut prefix = [0u8; 132];
        self.fill(&mut prefix)?;
        if &prefix[128..] != b"DICM" {
            return self.malformed("no DICM prefix");
        }
        let first = self.start()?;
        if first.tag != 0x0002_0000 || first.length != 4 {
            return self.malformed("no file meta group length");
        }
        let mut length = [0u8; 4];
        self.fill(&mut length)?;
        let end = self.at + u64::from(u32::from_le_bytes(length));
        let mut meta = DataSet::default();
        while self.at < end {
            let start = self.start()?;
            if start.tag >> 16 != 2 || start.length == UNDEFINED {
                return self.malformed("foreign element in the file meta group");
            }
            let value = Value::Bytes(self.value(start.length)?);
            meta.0.insert(start.tag, Element { vr: start.vr, value });
        }
        if self.at == end { Ok(meta) } else { self.malformed("wrong file meta group length") }
    }

    /// Everything before Pixel Data, and where that begins.
    pub fn header(&mut self) -> Result<(DataSet, PixelStart), WireError> {
        let mut data = DataSet::default();
        loop {
            let start = self.start()?;
            if matches!(start.tag, 0x7FE0_0008..=0x7FE0_0010) {
                let length = (start.length != UNDEFINED).then_some(start.length);
                return Ok((data, PixelStart { tag: start.tag, vr: start.vr, length, at: start.at }));
            }
            if start.tag > 0x7FE0_0010 {
                return self.malformed("no pixel data");
            }
            self.element(start, &mut data, 0)?;
        }
    }

    fn element(&mut self, start: Start, data: &mut DataSet, depth: u32) -> Result<(), WireError> {
        if start.tag >> 16 == 0xFFFE {
            return self.malformed("an item or delimiter where an element must be");
        }
        let is_sequence = &start.vr == b"SQ" || start.length == UNDEFINED;
        if is_sequence && start.length == UNDEFINED && !matches!(&start.vr, b"SQ" | b"UN") {
            return self.malformed("undefined length of a value that is no sequence");
        }
        let (vr, value) = if is_sequence {
            // PS3.5 section 6.2.2 note: UN of undefined length holds items in implicit VR.
            let explicit = self.explicit;
            self.explicit = explicit && &start.vr != b"UN";
            let end = (start.length != UNDEFINED).then(|| self.at + u64::from(start.length));
            let items = self.items(end, depth + 1)?;
            self.explicit = explicit;
            (*b"SQ", Value::Items(items))
        } else {
            (start.vr, Value::Bytes(self.value(start.length)?))
        };
        match data.0.insert(start.tag, Element { vr, value }) {
            None => Ok(()),
            Some(_) => self.malformed("a tag comes twice"),
        }
    }

    fn items(&mut self, end: Option<u64>, depth: u32) -> Result<Vec<DataSet>, WireError> {
        if depth > DEPTH_MAX {
            return self.malformed("nested too deep");
        }
        let mut items = Vec::new();
        while end != Some(self.at) {
            let start = self.start()?;
            match start.tag {
                ITEM => {
                    let item_end = (start.length != UNDEFINED).then(|| self.at + u64::from(start.length));
                    items.push(self.item(item_end, depth)?);
                }
                SEQUENCE_END if end.is_none() && start.length == 0 => return Ok(items),
                _ => return self.malformed("no item where one must be"),
            }
            if end.is_some_and(|end| self.at > end) {
                return self.malformed("an item reaches beyond its sequence");
            }
        }
        Ok(items)
    }

    fn item(&mut self, end: Option<u64>, depth: u32) -> Result<DataSet, WireError> {
        let mut data = DataSet::default();
        while end != Some(self.at) {
            let start = self.start()?;
            if start.tag == ITEM_END && end.is_none() && start.length == 0 {
                return Ok(data);
            }
            self.element(start, &mut data, depth)?;
            if end.is_some_and(|end| self.at > end) {
                return self.malformed("an element reaches beyond its item");
            }
        }
        Ok(data)
    }
}
