//! The indexed attributes of one stored object.
//!
//! In: a Part 10 file. Out: their values as text. Promise: nothing behind the last indexed attribute is read, so never a pixel;
//! at most [`HEADER_BYTES_MAX`] are looked at, what is skipped in a plain file is not even read; a value longer than
//! [`VALUE_BYTES_MAX`] counts as empty.
//! Standard: PS3.10 section 7.1, PS3.5 sections 7.1 and 7.5.

use crate::attributes::{ATTRIBUTES, Attribute, Kind, LAST_TAG, REQUEST_ATTRIBUTES, attribute};
use flate2::bufread::DeflateDecoder;
use fovea_core::TagNumber;
use fovea_text::Repertoire;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// The most that is looked at, inflated: what receive takes before the pixels.
const HEADER_BYTES_MAX: u64 = 48 << 20;
/// Longest value that is indexed.
const VALUE_BYTES_MAX: u32 = 4096;
/// Deepest nesting that is skipped through: what receive takes.
const DEPTH_MAX: u32 = 32;
const UNDEFINED: u32 = u32::MAX;
const CHARACTER_SET: TagNumber = 0x0008_0005;
const ITEM: TagNumber = 0xFFFE_E000;
const ITEM_END: TagNumber = 0xFFFE_E00D;
const SEQUENCE_END: TagNumber = 0xFFFE_E0DD;

/// Values by tag; every attribute that is in the header and indexed.
pub(crate) type Values = BTreeMap<TagNumber, String>;

/// Why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Not the object's fault.
    #[error("read a stored object")]
    Read(#[source] io::Error),
    /// Not what the box stores.
    #[error("a stored object is not understood at byte {at}: {detail}")]
    Malformed { at: u64, detail: &'static str },
}

/// Reads the indexed attributes of a Part 10 file from its start.
pub(crate) fn read(file: &mut File) -> Result<Values, HeaderError> {
    file.rewind().map_err(HeaderError::Read)?;
    let mut walk = Walk { source: Plain(BufReader::new(file)), at: 0, explicit: true };
    let mut start = [0; 132];
    walk.fill(&mut start)?;
    if &start[128..] != b"DICM" {
        return Err(walk.malformed("no DICM prefix"));
    }
    match walk.meta()?.trim_end_matches(['\0', ' ']) {
        "1.2.840.10008.1.2" => walk.explicit = false,
        "1.2.840.10008.1.2.2" => return Err(walk.malformed("big endian")),
        "1.2.840.10008.1.2.1.99" => {
            let inflated = Inflated(DeflateDecoder::new(walk.source.0));
            return Walk { source: inflated, at: walk.at, explicit: true }.values();
        }
        _ => {}
    }
    walk.values()
}

/// Bytes that can be skipped.
trait Source: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

struct Plain<'a>(BufReader<&'a mut File>);

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Plain<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // Below 2^33: a length has 32 bits.
        self.0.seek_relative(bytes as i64)
    }
}

struct Inflated<R>(DeflateDecoder<R>);

impl<R: io::BufRead> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: io::BufRead> Source for Inflated<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Start of an element.
struct Start {
    tag: TagNumber,
    vr: [u8; 2],
    length: u32,
}

/// Walks elements; `at` counts bytes and bounds the walk.
struct Walk<S> {
    source: S,
    at: u64,
    explicit: bool,
}

impl<S: Source> Walk<S> {
    fn malformed(&self, detail: &'static str) -> HeaderError {
        HeaderError::Malformed { at: self.at, detail }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), HeaderError> {
        self.at += bytes;
        if self.at > HEADER_BYTES_MAX { Err(self.malformed("the header is too long")) } else { Ok(()) }
    }

    fn failed(&self, error: io::Error) -> HeaderError {
        // A deflated stream that is broken is no failure of the disk.
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed("it ends within an element"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => self.malformed("it does not unfold"),
            _ => HeaderError::Read(error),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), HeaderError> {
        self.advance(buffer.len() as u64)?;
        self.source.read_exact(buffer).map_err(|error| self.failed(error))
    }

    fn skip(&mut self, length: u32) -> Result<(), HeaderError> {
        self.advance(length.into())?;
        self.source.skip(length.into()).map_err(|error| self.failed(error))
    }

    /// The next element's start, none at the end.
    fn start(&mut self) -> Result<Option<Start>, HeaderError> {
        let mut head = [0; 8];
        if self.source.read(&mut head[..1]).map_err(|error| self.failed(error))? == 0 {
            return Ok(None);
        }
        self.at += 1;
        self.fill(&mut head[1..])?;
        let [g0, g1, e0, e1, rest @ ..] = head;
        let tag = u32::from(u16::from_le_bytes([g0, g1])) << 16 | u32::from(u16::from_le_bytes([e0, e1]));
        // Items and delimiters have no representation in any syntax.
        if !self.explicit || tag >> 16 == 0xFFFE {
            return Ok(Some(Start { tag, vr: *b"  ", length: u32::from_le_bytes(rest) }));
        }
        let vr = [rest[0], rest[1]];
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(self.malformed("no value representation"));
        }
        let is_long = matches!(
            &vr,
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV"
        );
        let length = if is_long {
            let mut long = [0; 4];
            self.fill(&mut long)?;
            u32::from_le_bytes(long)
        } else {
            u32::from(u16::from_le_bytes([rest[2], rest[3]]))
        };
        Ok(Some(Start { tag, vr, length }))
    }

    /// Reads the file meta group and gives the transfer syntax.
    fn meta(&mut self) -> Result<String, HeaderError> {
        let Some(Start { tag: 0x0002_0000, length: 4, .. }) = self.start()? else {
            return Err(self.malformed("no file meta group"));
        };
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let end = self.at + u64::from(u32::from_le_bytes(length));
        let mut syntax = None;
        while self.at < end {
            let Some(start) = self.start()? else { return Err(self.malformed("it ends in its meta group")) };
            if start.tag == 0x0002_0010 && start.length <= 64 {
                syntax = String::from_utf8(self.value(start.length)?).ok();
            } else {
                self.skip(start.length)?;
            }
        }
        syntax.ok_or_else(|| self.malformed("no transfer syntax"))
    }

    fn value(&mut self, length: u32) -> Result<Vec<u8>, HeaderError> {
        let mut value = vec![0; length as usize];
        self.fill(&mut value)?;
        Ok(value)
    }

    /// Reads top-level elements up to the last one that is indexed.
    fn values(mut self) -> Result<Values, HeaderError> {
        let mut raw: BTreeMap<TagNumber, Vec<u8>> = BTreeMap::new();
        while let Some(start) = self.start()? {
            if start.tag > LAST_TAG {
                break;
            }
            let is_wanted = start.tag == CHARACTER_SET || attribute(start.tag).is_some();
            if start.tag == REQUEST_ATTRIBUTES {
                self.request_attributes(&start, &mut raw)?;
            } else if start.length == UNDEFINED {
                self.skip_undefined(start.vr, 0)?;
            } else if is_wanted && start.length <= VALUE_BYTES_MAX {
                let value = self.value(start.length)?;
                raw.insert(start.tag, value);
            } else {
                self.skip(start.length)?;
            }
        }
        let repertoire = Repertoire::of(raw.get(&CHARACTER_SET).map(Vec::as_slice));
        let wanted = ATTRIBUTES.iter().filter_map(|attribute| Some((*attribute, raw.get(&attribute.tag)?)));
        Ok(wanted.map(|(attribute, bytes)| (attribute.tag, text(attribute, bytes, &repertoire))).collect())
    }

    /// Takes what is indexed out of the first item, and skips the others.
    fn request_attributes(&mut self, start: &Start, raw: &mut BTreeMap<TagNumber, Vec<u8>>) -> Result<(), HeaderError> {
        let end = (start.length != UNDEFINED).then(|| self.at + u64::from(start.length));
        let mut is_first = true;
        while end.is_none_or(|end| self.at < end) {
            let Some(item) = self.start()? else { return Err(self.malformed("it ends in a sequence")) };
            match (item.tag, item.length) {
                (SEQUENCE_END, _) if end.is_none() => break,
                (ITEM, length) if is_first => self.first_item(length, raw)?,
                (ITEM, UNDEFINED) => self.skip_item(0)?,
                (ITEM, length) => self.skip(length)?,
                _ => return Err(self.malformed("no item where one must be")),
            }
            is_first = false;
        }
        Ok(())
    }

    fn first_item(&mut self, length: u32, raw: &mut BTreeMap<TagNumber, Vec<u8>>) -> Result<(), HeaderError> {
        let end = (length != UNDEFINED).then(|| self.at + u64::from(length));
        while end.is_none_or(|end| self.at < end) {
            let Some(start) = self.start()? else { return Err(self.malformed("it ends in an item")) };
            match (start.tag, start.length) {
                (ITEM_END, _) if end.is_none() => break,
                (_, UNDEFINED) => self.skip_undefined(start.vr, 1)?,
                (0x0040_0009 | 0x0040_1001, length) if length <= VALUE_BYTES_MAX => {
                    let value = self.value(length)?;
                    raw.insert(start.tag, value);
                }
                (_, length) => self.skip(length)?,
            }
        }
        Ok(())
    }

    /// Skips the items of a sequence of undefined length, through its delimiter.
    fn skip_undefined(&mut self, vr: [u8; 2], depth: u32) -> Result<(), HeaderError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("nested too deep"));
        }
        // PS3.5 section 6.2.2 note 2: UN of undefined length holds implicit VR items.
        let explicit = self.explicit;
        self.explicit = explicit && &vr != b"UN";
        loop {
            let Some(item) = self.start()? else { return Err(self.malformed("it ends in a sequence")) };
            match (item.tag, item.length) {
                (SEQUENCE_END, _) => break,
                (ITEM, UNDEFINED) => self.skip_item(depth)?,
                (ITEM, length) => self.skip(length)?,
                _ => return Err(self.malformed("no item where one must be")),
            }
        }
        self.explicit = explicit;
        Ok(())
    }

    /// Skips the elements of an item of undefined length, through its delimiter.
    fn skip_item(&mut self, depth: u32) -> Result<(), HeaderError> {
        loop {
            let Some(element) = self.start()? else { return Err(self.malformed("it ends in an item")) };
            match (element.tag, element.length) {
                (ITEM_END, _) => return Ok(()),
                (_, UNDEFINED) => self.skip_undefined(element.vr, depth + 1)?,
                (_, length) => self.skip(length)?,
            }
        }
    }
}

fn text(attribute: Attribute, bytes: &[u8], repertoire: &Repertoire) -> String {
    let text = match attribute.kind {
        Kind::Short => {
            return bytes.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes).to_string()).unwrap_or_default();
        }
        Kind::Name | Kind::Text => return repertoire.text(bytes),
        Kind::Uid | Kind::Date | Kind::Time | Kind::Number => String::from_utf8_lossy(bytes).into_owned(),
    };
    let text = text.trim_matches([' ', '\0']);
    match attribute.kind {
        // The forms of ACR-NEMA: 1993.08.22, 10:11:12 (PS3.5 section 6.2).
        Kind::Date => text.replace('.', ""),
        Kind::Time => text.replace(':', ""),
        _ => text.to_owned(),
    }
}
