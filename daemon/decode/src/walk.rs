//! Walks elements, items and sequences. Standard: PS3.5 section 7.
//!
//! In: bytes. Out: [`Element`]s in their order. Promise: no value is read before its length is known to fit the bytes that
//! are there, nesting and the number of elements are bounded, so a length field can neither allocate nor loop.

use crate::DecodeError;
use crate::source::Source;
use std::cell::Cell;

pub(crate) const UNDEFINED: u32 = u32::MAX;
pub(crate) const ITEM: u32 = 0xFFFE_E000;
pub(crate) const ITEM_END: u32 = 0xFFFE_E00D;
pub(crate) const SEQUENCE_END: u32 = 0xFFFE_E0DD;
/// Most elements that are looked at one by one: 40,000 frames, each with a hundred and more about it.
const ELEMENTS_MAX: u64 = 6_000_000;

const WHAT: &str = "the description of the pixels";

/// An element's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) tag: u32,
    pub(crate) length: u32,
    /// Byte position of its value.
    pub(crate) value_at: u64,
    vr: [u8; 2],
}

/// How the elements of one level are written.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'a> {
    source: &'a Source,
    explicit: bool,
    depth_max: u32,
    elements: &'a Cell<u64>,
}

/// What becomes of an element that was shown to a visitor: its end where the visitor walked it, else none.
pub(crate) type Seen = Result<Option<u64>, DecodeError>;

type Visit<'v, 'a> = Option<&'v mut dyn FnMut(u32, &Element, &Walk<'a>) -> Seen>;

impl<'a> Walk<'a> {
    /// `elements`: counts across all levels of a walk.
    pub(crate) fn new(source: &'a Source, explicit: bool, depth_max: u32, elements: &'a Cell<u64>) -> Self {
        Self { source, explicit, depth_max, elements }
    }

    /// The head of the element at `at`. Items and delimiters have no value representation in any syntax.
    pub(crate) fn element(&self, at: u64) -> Result<Element, DecodeError> {
        const WHAT: &str = "an element's head";
        let count = self.elements.get() + 1;
        self.elements.set(count);
        if count > ELEMENTS_MAX {
            return Err(DecodeError::TooLarge { what: "number of elements", value: count, limit: ELEMENTS_MAX });
        }
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
    pub(crate) fn end_of(&self, element: &Element, depth: u32) -> Result<u64, DecodeError> {
        if element.length == UNDEFINED {
            return self.items(element, depth, None);
        }
        let end = element.value_at + u64::from(element.length);
        if end <= self.source.length() { Ok(end) } else { Err(DecodeError::Truncated { what: "an element's value" }) }
    }

    /// Shows each element of each item, with the number of the item from 0 and how to walk on from there; the position
    /// behind the sequence. `depth`: of the sequence's own element, 0 in the data set.
    pub(crate) fn sequence(
        &self,
        element: &Element,
        depth: u32,
        visit: &mut dyn FnMut(u32, &Element, &Self) -> Seen,
    ) -> Result<u64, DecodeError> {
        self.items(element, depth, Some(visit))
    }

    /// Without a visitor, items of known length are stepped over.
    fn items(&self, element: &Element, depth: u32, mut visit: Visit<'_, 'a>) -> Result<u64, DecodeError> {
        if depth >= self.depth_max {
            let limit = self.depth_max.into();
            return Err(DecodeError::TooLarge { what: "nesting", value: u64::from(depth) + 1, limit });
        }
        // Elements inside a sequence of unknown representation are implicit (PS3.5 section 6.2.2, note 2).
        let inner = Self { explicit: self.explicit && &element.vr != b"UN", ..*self };
        let end = if element.length == UNDEFINED { None } else { Some(inner.end_of(element, depth)?) };
        let (mut at, mut number) = (element.value_at, 0);
        while end != Some(at) {
            let item = inner.element(at)?;
            at = match (item.tag, item.length) {
                (SEQUENCE_END, _) if end.is_none() => return Ok(item.value_at),
                (ITEM, UNDEFINED) => inner.item(number, item.value_at, None, depth + 1, &mut visit)?,
                (ITEM, _) => {
                    let behind = inner.end_of(&item, depth)?;
                    if visit.is_some() {
                        inner.item(number, item.value_at, Some(behind), depth + 1, &mut visit)?;
                    }
                    behind
                }
                _ => return Err(DecodeError::Structure { what: "a sequence with something else than items" }),
            };
            if end.is_some_and(|end| at > end) {
                return Err(DecodeError::Structure { what: "an item that is longer than its sequence" });
            }
            number += 1;
        }
        Ok(at)
    }

    /// One item, up to `end` or its delimiter; the position behind it.
    fn item(
        &self,
        number: u32,
        mut at: u64,
        end: Option<u64>,
        depth: u32,
        visit: &mut Visit<'_, 'a>,
    ) -> Result<u64, DecodeError> {
        while end != Some(at) {
            let element = self.element(at)?;
            if element.tag == ITEM_END && end.is_none() {
                return Ok(element.value_at);
            }
            let seen = visit.as_mut().map_or(Ok(None), |visit| visit(number, &element, self))?;
            at = match seen {
                Some(behind) => behind,
                None => self.end_of(&element, depth)?,
            };
            if end.is_some_and(|end| at > end) {
                return Err(DecodeError::Structure { what: "an element that is longer than its item" });
            }
        }
        Ok(at)
    }

    /// A value of exactly `N` bytes; none where it has another length.
    pub(crate) fn fixed<const N: usize>(&self, element: &Element) -> Result<Option<[u8; N]>, DecodeError> {
        if element.length as usize != N { Ok(None) } else { self.source.header(element.value_at, WHAT).map(Some) }
    }

    /// A short text without its padding; none where it is longer than `bytes_max` or no UTF-8.
    pub(crate) fn text(&self, element: &Element, bytes_max: u32) -> Result<Option<String>, DecodeError> {
        if element.length > bytes_max {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.source.append(element.value_at, element.length.into(), &mut bytes, WHAT)?;
        Ok(String::from_utf8(bytes).ok().map(|text| text.trim_matches([' ', '\0']).to_owned()))
    }
}
