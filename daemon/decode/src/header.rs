//! Walks a data set up to its pixels and keeps what describes them.
//!
//! In: bytes. Out: [`Header`]. Promise: no value is read but those few, of sequences only those that tell the geometry,
//! and how much is kept does not grow beyond a number for each frame. Standard: PS3.5 section 7.

use crate::geometry::{Spacings, UltrasoundRegion};
use crate::placed::Placed;
use crate::source::Source;
use crate::syntax::Elements;
use crate::walk::{Element, UNDEFINED, Walk};
use crate::{DecodeError, DecodeLimits};
use fovea_core::sop_class;
use std::cell::Cell;

const PIXEL_DATA: u32 = 0x7FE0_0010;
/// Longest value that is kept: a palette of 65,536 words.
const VALUE_BYTES_MAX: u32 = 2 * 65_536;

/// The attributes that describe pixels, as they stand, and where the pixels are.
#[derive(Debug, Default)]
pub(crate) struct Header {
    values: Vec<(u32, Vec<u8>)>,
    pub(crate) pixel_data: Option<Element>,
    /// (7FE0,0001), for encapsulated frames: byte positions as in the basic table, 8 bytes each.
    pub(crate) extended_offsets: Option<Element>,
    /// (0018,6011), none where it is not there.
    pub(crate) ultrasound: Option<Vec<UltrasoundRegion>>,
    /// (5200,9229) of the object, (0028,9110).
    pub(crate) pixel_measures: Spacings,
    /// (5200,9230) of a whole slide image, frame by frame; none where it is not there.
    pub(crate) placed: Option<Placed>,
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

    /// An unsigned long.
    pub(crate) fn long(&self, tag: u32) -> Option<u32> {
        self.bytes(tag)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// A text without its padding; none where it is no ASCII.
    pub(crate) fn text(&self, tag: u32) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?;
        Some(text.trim_matches([' ', '\0']))
    }

    /// VL Whole Slide Microscopy: tiles of one large picture.
    pub(crate) fn is_whole_slide(&self) -> bool {
        self.text(0x0008_0016) == Some(sop_class::VL_WHOLE_SLIDE)
    }
}

/// Attributes whose values are kept.
fn is_wanted(tag: u32) -> bool {
    matches!(
        tag,
        0x0028_0002 | 0x0028_0004 | 0x0028_0006 | 0x0028_0008 | 0x0028_0010 | 0x0028_0011 | 0x0028_0100..=0x0028_0103
        | 0x0028_1101..=0x0028_1103 | 0x0028_1201..=0x0028_1203 | 0x0028_1221..=0x0028_1223
        // Class; spacing and what it is of; a slide's size and the order of its tiles.
        | 0x0008_0016 | 0x0018_1164 | 0x0020_0037 | 0x0028_0030 | 0x0028_0A02
        | 0x0008_0008 | 0x0020_9311 | 0x0048_0006 | 0x0048_0007
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
    let elements = Cell::new(0);
    let walk = Walk::new(source, true, 0, &elements);
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
    let count = Cell::new(0);
    let walk = Walk::new(source, elements != Elements::ImplicitLittle, limits.depth_max, &count);
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
            header.keep(source, &element)?;
        }
        at = match header.sequence(&walk, &element, limits)? {
            Some(behind) => behind,
            None => walk.end_of(&element, 0)?,
        };
    }
    Ok(header)
}

impl Header {
    fn keep(&mut self, source: &Source, element: &Element) -> Result<(), DecodeError> {
        if element.length > VALUE_BYTES_MAX {
            return Err(DecodeError::Structure { what: "a description of pixels is far too long" });
        }
        let mut value = Vec::new();
        source.append(element.value_at, element.length.into(), &mut value, "the description of the pixels")?;
        // The first of a repeated attribute stands, and a repeated one cannot pile up.
        if self.bytes(element.tag).is_none() {
            self.values.push((element.tag, value));
        }
        Ok(())
    }

    /// Reads a sequence that tells the geometry; where it ends, none for any other element.
    fn sequence(
        &mut self,
        walk: &Walk<'_>,
        element: &Element,
        limits: &DecodeLimits,
    ) -> Result<Option<u64>, DecodeError> {
        match element.tag {
            0x0018_6011 if self.ultrasound.is_none() => {
                let (regions, behind) = UltrasoundRegion::read_all(walk, element)?;
                self.ultrasound = Some(regions);
                Ok(Some(behind))
            }
            0x5200_9229 => self.pixel_measures.read_shared(walk, element).map(Some),
            0x5200_9230 if self.placed.is_none() && self.is_whole_slide() => {
                let (placed, behind) = Placed::read(walk, element, limits.frames_max)?;
                self.placed = Some(placed);
                Ok(Some(behind))
            }
            _ => Ok(None),
        }
    }
}
