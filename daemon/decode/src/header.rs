//! Walks a data set up to its pixels and keeps what describes them.
//!
//! In: bytes. Out: [`Header`]. Promise: no value is read but those few, and none before its length is known to fit
//! the bytes that are there, so a length field can neither allocate nor loop. Standard: PS3.5 section 7.

use crate::source::Source;
use crate::syntax::Elements;
use crate::{DecodeError, DecodeLimits};

const UNDEFINED: u32 = u32::MAX;
const ITEM: u32 = 0xFFFE_E000;
const ITEM_END: u32 = 0xFFFE_E00D;
const SEQUENCE_END: u32 = 0xFFFE_E0DD;
const PIXEL_DATA: u32 = 0x7FE0_0010;
/// Longest value that is kept: a palette of 65,536 words.
const VALUE_BYTES_MAX: u32 = 2 * 65_536;

/// An element's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) tag: u32,
    pub(crate) length: u32,
    /// Byte position of its value.
    pub(crate) value_at: u64,
    vr: [u8; 2],
}

/// The attributes that describe pixels, as they stand, and where the pixels are.
#[derive(Debug, Default)]
pub(crate) struct Header {
    values: Vec<(u32, Vec<u8>)>,
    pub(crate) pixel_data: Option<Element>,
    /// (7FE0,0001), for encapsulated frames: byte positions as in the basic table, 8 bytes each.
    pub(crate) extended_offsets: Option<Element>,
}

impl Header {
    pub(crate) fn bytes(&self, tag: u32) -> Option<&[u8]> {
        self.values.iter().find(|(held, _)| *held == tag).map(|(_, value)| value.as_slice())
    }

    /// An unsigned short.
    pub(crate) fn short(&self, tag: u32) -> Option<u16> {
        self.shorts(tag).next()
    }

    pub(crate) fn shorts(&self, tag: u32) -> impl Iterator<Item = u16> {
        self.bytes(tag).unwrap_or_default().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }

    /// A text without its padding; none where it is no ASCII.
    pub(crate) fn text(&self, tag: u32) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?;
        Some(text.trim_matches([' ', '\0']))
    }
}

/// Attributes whose values are kept.
fn is_wanted(tag: u32) -> bool {
    matches!(
        tag,
        0x0028_0002 | 0x0028_0004 | 0x0028_0006 | 0x0028_0008 | 0x0028_0010 | 0x0028_0011 | 0x0028_0100..=0x0028_0103
        | 0x0028_1101..=0x0028_1103 | 0x0028_1201..=0x0028_1203 | 0x0028_1221..=0x0028_1223
    )
}

/// Reads the file meta information: the transfer syntax's text and where the data set begins.
pub(crate) fn file_meta(source: &Source) -> Result<(String, u64), DecodeError> {
    let not_a_file = DecodeError::NotAFile { expected: "DICOM Part 10" };
    match source.header::<4>(128, "the preamble") {
        Ok(magic) if &magic == b"DICM" => {}
        Ok(_) | Err(DecodeError::Truncated { .. }) => return Err(not_a_file),
        Err(error) => return Err(error),
    }
    let walk = Walk { source, explicit: true, depth_max: 0 };
    let (mut at, mut syntax) = (132, None);
    while source.length() >= at + 8 && source.header::<2>(at, "the file meta information")? == [2, 0] {
        let element = walk.element(at)?;
        if element.length == UNDEFINED {
            return Err(DecodeError::Structure { what: "an undefined length in the file meta information" });
        }
        if element.tag == 0x0002_0010 && element.length <= 66 {
            let mut value = Vec::new();
            source.append(element.value_at, element.length.into(), &mut value, "the transfer syntax")?;
            syntax = String::from_utf8(value).ok();
        }
        at = element.value_at + u64::from(element.length);
    }
    Ok((syntax.ok_or(DecodeError::Missing { attribute: "Transfer Syntax UID" })?, at))
}

/// Walks from `at` to Pixel Data.
pub(crate) fn read(source: &Source, at: u64, elements: Elements, limits: &DecodeLimits) -> Result<Header, DecodeError> {
    let walk = Walk { source, explicit: elements != Elements::ImplicitLittle, depth_max: limits.depth_max };
    let mut header = Header::default();
    let mut at = at;
    // Fewer bytes than an element's head are padding.
    while at + 8 <= source.length() {
        let element = walk.element(at)?;
        if element.tag == PIXEL_DATA {
            header.pixel_data = Some(element);
            break;
        }
        if element.tag == 0x7FE0_0001 && element.length != UNDEFINED {
            header.extended_offsets = Some(element);
        }
        if is_wanted(element.tag) && element.length != UNDEFINED {
            if element.length > VALUE_BYTES_MAX {
                return Err(DecodeError::Structure { what: "a description of pixels is far too long" });
            }
            let mut value = Vec::new();
            source.append(element.value_at, element.length.into(), &mut value, "the description of the pixels")?;
            // The first of a repeated attribute stands, and a repeated one cannot pile up.
            if header.bytes(element.tag).is_none() {
                header.values.push((element.tag, value));
            }
        }
        at = walk.end_of(&element, 0)?;
    }
    Ok(header)
}

struct Walk<'a> {
    source: &'a Source,
    explicit: bool,
    depth_max: u32,
}

impl Walk<'_> {
    /// The head of the element at `at`. Items and delimiters have no value representation in any syntax.
    fn element(&self, at: u64) -> Result<Element, DecodeError> {
        const WHAT: &str = "an element's head";
        let head: [u8; 8] = self.source.header(at, WHAT)?;
        let tag =
            u32::from(u16::from_le_bytes([head[0], head[1]])) << 16 | u32::from(u16::from_le_bytes([head[2], head[3]]));
        let vr = [head[4], head[5]];
        if !self.explicit || tag >> 16 == 0xFFFE {
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            return Ok(Element { tag, length, value_at: at + 8, vr: *b"  " });
        }
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(DecodeError::Structure { what: "an element without a value representation" });
        }
        let long = matches!(
            &vr,
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV"
        );
        if long {
            let length = u32::from_le_bytes(self.source.header(at + 8, WHAT)?);
            Ok(Element { tag, length, value_at: at + 12, vr })
        } else {
            Ok(Element { tag, length: u16::from_le_bytes([head[6], head[7]]).into(), value_at: at + 8, vr })
        }
    }

    /// Where the element behind this one begins.
    fn end_of(&self, element: &Element, depth: u32) -> Result<u64, DecodeError> {
        if element.length != UNDEFINED {
            let end = element.value_at + u64::from(element.length);
            return if end <= self.source.length() {
                Ok(end)
            } else {
                Err(DecodeError::Truncated { what: "an element's value" })
            };
        }
        if depth >= self.depth_max {
            let limit = self.depth_max.into();
            return Err(DecodeError::TooLarge { what: "nesting", value: u64::from(depth) + 1, limit });
        }
        // Elements inside a sequence of unknown representation are implicit (PS3.5 section 6.2.2, note 2).
        let explicit = self.explicit && &element.vr != b"UN";
        let inner = Walk { source: self.source, explicit, depth_max: self.depth_max };
        let mut at = element.value_at;
        loop {
            let item = inner.element(at)?;
            at = match (item.tag, item.length) {
                (SEQUENCE_END, _) => return Ok(item.value_at),
                (ITEM, UNDEFINED) => inner.end_of_item(item.value_at, depth + 1)?,
                (ITEM, _) => inner.end_of(&item, depth)?,
                _ => return Err(DecodeError::Structure { what: "a sequence with something else than items" }),
            };
        }
    }

    fn end_of_item(&self, mut at: u64, depth: u32) -> Result<u64, DecodeError> {
        loop {
            let element = self.element(at)?;
            if element.tag == ITEM_END {
                return Ok(element.value_at);
            }
            at = self.end_of(&element, depth)?;
        }
    }
}

/// Places of the fragments of encapsulated Pixel Data: the basic offset table first. Standard: PS3.5 section A.4.
pub(crate) fn fragments(
    source: &Source,
    pixel_data: &Element,
    fragments_max: usize,
) -> Result<Vec<Element>, DecodeError> {
    let walk = Walk { source, explicit: true, depth_max: 0 };
    let mut fragments = Vec::new();
    let mut at = pixel_data.value_at;
    loop {
        // Writers that were cut off between fragments leave no delimiter; what is there is still whole.
        if at + 8 > source.length() {
            break;
        }
        let item = walk.element(at)?;
        if item.tag == SEQUENCE_END {
            break;
        }
        if item.tag != ITEM || item.length == UNDEFINED {
            return Err(DecodeError::Structure { what: "pixel data with something else than fragments" });
        }
        if fragments.len() > fragments_max {
            let value = fragments.len() as u64;
            return Err(DecodeError::TooLarge { what: "number of fragments", value, limit: fragments_max as u64 });
        }
        at = walk.end_of(&item, 0)?;
        fragments.push(item);
    }
    Ok(fragments)
}
