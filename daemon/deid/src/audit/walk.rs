//! The audit's own walk over bytes in memory: where each value lies, nothing is copied.
//! In: the bytes of a Part 10 file. Out: leaves (values) and sequences with their paths.
//! Promise: every byte before Pixel Data is in a known place, or the walk fails; at most [`DEPTH_MAX`] levels.
//! Standard: DICOM PS3.5 section 7, PS3.10 section 7.1.

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use std::ops::Range;

const DEPTH_MAX: usize = 70;
const LEAVES_MAX: usize = 250_000;

/// One value.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Tags from the top level down, its own last.
    pub path: Vec<u32>,
    /// Representation; the dictionary's in implicit syntax, `UN` where unknown.
    pub vr: [u8; 2],
    /// Where its bytes are.
    pub value: Range<usize>,
    /// Names the item that it stands in; leaves of one item share it.
    pub item: usize,
}

impl Leaf {
    /// Its own tag.
    pub fn tag(&self) -> u32 {
        self.path.last().copied().unwrap_or(0)
    }
}

/// A sequence and how many items it has.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Tags from the top level down, its own last.
    pub path: Vec<u32>,
    /// Items.
    pub items: usize,
}

/// All of a file before Pixel Data.
#[derive(Debug, Default)]
pub struct Walked {
    /// File meta.
    pub meta: Vec<Leaf>,
    /// Values of the data set at all levels.
    pub leaves: Vec<Leaf>,
    /// Sequences of the data set at all levels.
    pub sequences: Vec<Sequence>,
    /// Tags of the top level.
    pub top_level: Vec<u32>,
    /// Position of Pixel Data, the end where there is none.
    pub pixels_at: usize,
    items: usize,
}

/// Without padding at its ends.
pub fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !is_padding(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_padding(byte)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// File meta: its leaves, the transfer syntax, where the data set begins.
pub fn meta(bytes: &[u8]) -> Result<(Vec<Leaf>, String, usize), &'static str> {
    if bytes.get(128..132) != Some(b"DICM") {
        return Err("no DICM prefix");
    }
    let mut at = 132;
    let mut leaves = Vec::new();
    while bytes.get(at..at + 2) == Some(&[2, 0]) {
        let head = head(bytes, at, true)?;
        let end = head.value_at.checked_add(head.length.ok_or("undefined length in file meta")?).ok_or("length")?;
        if end > bytes.len() {
            return Err("file meta ends early");
        }
        leaves.push(Leaf { path: vec![head.tag], vr: head.vr, value: head.value_at..end, item: 0 });
        at = end;
    }
    let syntax = leaves.iter().find(|leaf| leaf.tag() == 0x0002_0010).ok_or("no transfer syntax")?;
    let syntax = String::from_utf8_lossy(trimmed(&bytes[syntax.value.clone()])).into_owned();
    Ok((leaves, syntax, at))
}

/// The data set from `at` to Pixel Data.
pub fn data_set(bytes: &[u8], at: usize, explicit: bool) -> Result<Walked, &'static str> {
    let mut walked = Walked::default();
    walked.pixels_at = walked.elements(bytes, at, bytes.len(), explicit, &mut Vec::new(), true)?;
    Ok(walked)
}

struct Head {
    tag: u32,
    vr: [u8; 2],
    length: Option<usize>,
    value_at: usize,
}

fn head(bytes: &[u8], at: usize, explicit: bool) -> Result<Head, &'static str> {
    let word = |at: usize| -> Result<u16, &'static str> {
        let pair = bytes.get(at..at + 2).ok_or("data set ends early")?;
        Ok(u16::from_le_bytes([pair[0], pair[1]]))
    };
    let long = |at: usize| Ok::<u32, &'static str>(u32::from(word(at + 2)?) << 16 | u32::from(word(at)?));
    let tag = u32::from(word(at)?) << 16 | u32::from(word(at + 2)?);
    let (vr, length, value_at) = if tag >> 16 == 0xFFFE {
        (*b"--", long(at + 4)?, at + 8)
    } else if !explicit {
        (dictionary(tag).unwrap_or(*b"UN"), long(at + 4)?, at + 8)
    } else {
        let [first, second] = word(at + 4)?.to_le_bytes();
        if !first.is_ascii_uppercase() || !second.is_ascii_uppercase() {
            return Err("no value representation");
        }
        let vr = [first, second];
        match &vr {
            b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT" | b"PN"
            | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => (vr, u32::from(word(at + 6)?), at + 8),
            _ => (vr, long(at + 8)?, at + 12),
        }
    };
    Ok(Head { tag, vr, length: (length != u32::MAX).then_some(length as usize), value_at })
}

/// The dictionary's representation of a public tag.
pub fn dictionary(tag: u32) -> Option<[u8; 2]> {
    let tag = Tag((tag >> 16) as u16, tag as u16);
    StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed().to_bytes())
}

impl Walked {
    /// Elements from `at` to `end` or, inside an item of undefined length, to its delimiter; gives the position behind.
    fn elements(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        end: usize,
        explicit: bool,
        path: &mut Vec<u32>,
        is_top: bool,
    ) -> Result<usize, &'static str> {
        let item = self.items;
        while at < end {
            let head = head(bytes, at, explicit)?;
            if is_top && head.tag >= super::PIXEL_DATA - 8 {
                return Ok(at);
            }
            if head.tag == 0xFFFE_E00D && !is_top {
                return Ok(head.value_at);
            }
            if self.leaves.len() + self.sequences.len() > LEAVES_MAX {
                return Err("too many elements");
            }
            if is_top {
                self.top_level.push(head.tag);
            }
            path.push(head.tag);
            let is_sequence = &head.vr == b"SQ" || (head.length.is_none() && &head.vr == b"UN");
            at = if is_sequence {
                self.items(bytes, &head, explicit && &head.vr != b"UN", path)?
            } else {
                let length = head.length.ok_or("undefined length of a plain value")?;
                let stop = head.value_at.checked_add(length).filter(|stop| *stop <= end).ok_or("a value ends early")?;
                self.leaves.push(Leaf { path: path.clone(), vr: head.vr, value: head.value_at..stop, item });
                stop
            };
            path.pop();
        }
        Ok(at)
    }

    fn items(&mut self, bytes: &[u8], head: &Head, explicit: bool, path: &mut Vec<u32>) -> Result<usize, &'static str> {
        if path.len() > DEPTH_MAX {
            return Err("nested too deep");
        }
        let end = match head.length {
            Some(length) => head.value_at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or("length")?,
            None => bytes.len(),
        };
        let mut at = head.value_at;
        let mut count = 0;
        while at < end {
            let item = self::head(bytes, at, explicit)?;
            match item.tag {
                0xFFFE_E0DD if head.length.is_none() => {
                    at = item.value_at;
                    break;
                }
                0xFFFE_E000 => {
                    count += 1;
                    self.items += 1;
                    let stop = item.length.map_or(Some(end), |length| item.value_at.checked_add(length));
                    let stop = stop.filter(|stop| *stop <= end).ok_or("an item ends early")?;
                    at = self.elements(bytes, item.value_at, stop, explicit, path, false)?;
                    if item.length.is_some() && at != stop {
                        return Err("an item's length");
                    }
                }
                _ => return Err("no item where one must be"),
            }
        }
        self.sequences.push(Sequence { path: path.clone(), items: count });
        Ok(at)
    }
}
