//! A stored data set as JSON, and where its pixels lie.
//!
//! In: a Part 10 file. Out: the JSON form of everything before the pixels. Promise: values longer than [`INLINE_BYTES_MAX`] stay
//! in the file and are told by where they lie; nothing is read behind the start of the pixels; all is bounded by the limits that
//! receive has checked, which are checked again.
//! Standard: PS3.5 sections 7.1, 7.5 and A.4, PS3.10 section 7.1, PS3.18 annex F.

use super::json::{attribute, key, vr_of};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dicom_core::VR;
use flate2::bufread::DeflateDecoder;
use fovea_core::TagNumber;
use fovea_text::Repertoire;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

/// The most that is looked at before the pixels, inflated.
const HEADER_BYTES_MAX: u64 = 48 << 20;
/// Longest binary value that stands in the JSON itself, and longest text.
const INLINE_BYTES_MAX: u32 = 64 * 1024;
/// Longest binary value, so that tables and profiles stay out.
const BINARY_BYTES_MAX: u32 = 1024;
/// Sequences within sequences.
const DEPTH_MAX: u32 = 32;
/// Elements and items.
const ELEMENTS_MAX: u32 = 400_000;
const UNDEFINED: u32 = u32::MAX;
const ITEM: TagNumber = 0xFFFE_E000;
const ITEM_END: TagNumber = 0xFFFE_E00D;
const SEQUENCE_END: TagNumber = 0xFFFE_E0DD;
const CHARACTER_SET: TagNumber = 0x0008_0005;
pub(super) const PIXEL_DATA: TagNumber = 0x7FE0_0010;

/// Why a stored data set cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataSetError {
    #[error("read a stored object")]
    Read(#[from] io::Error),
    #[error("a stored object is not understood: {0}")]
    Malformed(&'static str),
}

use DataSetError::Malformed;

/// Where the pixels lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PixelData {
    /// Of the first byte of the value, in the file.
    pub offset: u64,
    /// Bytes; none where the value is fragments.
    pub length: Option<u32>,
}

/// A data set before its pixels.
#[derive(Debug)]
pub(super) struct DataSet {
    pub json: Map<String, Value>,
    pub transfer_syntax: String,
    /// None where there are none, or where the data set is deflated.
    pub pixels: Option<PixelData>,
}

/// Reads `file` from its start. `url`: the instance's own, for what stays in the file.
pub(super) fn read(file: File, url: &str) -> Result<DataSet, DataSetError> {
    let mut file = BufReader::new(file);
    file.rewind()?;
    let mut walk = Walk::new(Plain(file), url, true);
    let mut start = [0; 132];
    walk.fill(&mut start)?;
    if &start[128..] != b"DICM" {
        return Err(Malformed("no DICM prefix"));
    }
    let transfer_syntax = walk.meta()?;
    let is_deflated = transfer_syntax == "1.2.840.10008.1.2.1.99";
    let (json, pixels) = if is_deflated {
        let mut inflated = Walk::new(Inflated(DeflateDecoder::new(walk.source.0)), url, false);
        (inflated.elements(None, 0, &Repertoire::of(None))?, None)
    } else {
        walk.explicit = transfer_syntax != "1.2.840.10008.1.2";
        (walk.elements(None, 0, &Repertoire::of(None))?, walk.pixels)
    };
    Ok(DataSet { json, transfer_syntax, pixels })
}

/// Bytes that can be skipped.
trait Source: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

struct Plain(BufReader<File>);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Plain {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // A length has 32 bits.
        self.0.seek_relative(bytes as i64)
    }
}

struct Inflated<R>(DeflateDecoder<R>);

impl<R: BufRead> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: BufRead> Source for Inflated<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

struct Start {
    tag: TagNumber,
    vr: VR,
    length: u32,
}

struct Walk<'a, S> {
    source: S,
    url: &'a str,
    /// Positions are those of the file: long values can be told by them.
    is_file: bool,
    at: u64,
    explicit: bool,
    elements: u32,
    pixels: Option<PixelData>,
}

impl<'a, S: Source> Walk<'a, S> {
    fn new(source: S, url: &'a str, is_file: bool) -> Self {
        Self { source, url, is_file, at: 0, explicit: true, elements: 0, pixels: None }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), DataSetError> {
        self.at += bytes;
        if self.at > HEADER_BYTES_MAX { Err(Malformed("the header is too long")) } else { Ok(()) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DataSetError> {
        self.advance(buffer.len() as u64)?;
        Ok(self.source.read_exact(buffer)?)
    }

    fn value(&mut self, length: u32) -> Result<Vec<u8>, DataSetError> {
        let mut value = vec![0; length as usize];
        self.fill(&mut value)?;
        Ok(value)
    }

    /// The next element's start, none at the end of the file.
    fn start(&mut self) -> Result<Option<Start>, DataSetError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(Malformed("too many elements"));
        }
        let mut head = [0; 8];
        if self.source.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.at += 1;
        self.fill(&mut head[1..])?;
        let [g0, g1, e0, e1, rest @ ..] = head;
        let tag = u32::from(u16::from_le_bytes([g0, g1])) << 16 | u32::from(u16::from_le_bytes([e0, e1]));
        if tag >> 16 == 0xFFFE {
            return Ok(Some(Start { tag, vr: VR::UN, length: u32::from_le_bytes(rest) }));
        }
        if !self.explicit {
            return Ok(Some(Start { tag, vr: vr_of(tag), length: u32::from_le_bytes(rest) }));
        }
        let vr = VR::from_binary([rest[0], rest[1]]).unwrap_or(VR::UN);
        use VR::{AE, AS, AT, CS, DA, DS, DT, FD, FL, IS, LO, LT, PN, SH, SL, SS, ST, TM, UI, UL, US};
        let is_short = matches!(
            vr,
            AE | AS | AT | CS | DA | DS | DT | FD | FL | IS | LO | LT | PN | SH | SL | SS | ST | TM | UI | UL | US
        );
        let length = if is_short {
            u32::from(u16::from_le_bytes([rest[2], rest[3]]))
        } else {
            let mut long = [0; 4];
            self.fill(&mut long)?;
            u32::from_le_bytes(long)
        };
        Ok(Some(Start { tag, vr, length }))
    }

    fn meta(&mut self) -> Result<String, DataSetError> {
        let Some(Start { tag: 0x0002_0000, length: 4, .. }) = self.start()? else {
            return Err(Malformed("no file meta group"));
        };
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let end = self.at + u64::from(u32::from_le_bytes(length));
        let mut syntax = None;
        while self.at < end {
            let start = self.start()?.ok_or(Malformed("it ends in its meta group"))?;
            if start.length > INLINE_BYTES_MAX {
                return Err(Malformed("a long value in the meta group"));
            }
            let value = self.value(start.length)?;
            if start.tag == 0x0002_0010 {
                syntax = Some(String::from_utf8_lossy(&value).trim_matches([' ', '\0']).to_owned());
            }
        }
        syntax.ok_or(Malformed("no transfer syntax"))
    }

    /// Elements up to `end`, to the end of the item, or at the top to the pixels.
    fn elements(&mut self, end: Option<u64>, depth: u32, set: &Repertoire) -> Result<Map<String, Value>, DataSetError> {
        if depth > DEPTH_MAX {
            return Err(Malformed("nested too deep"));
        }
        let (mut json, mut set) = (Map::new(), set.clone());
        while end.is_none_or(|end| self.at < end) {
            let Some(start) = self.start()? else {
                if depth == 0 {
                    break;
                }
                return Err(Malformed("it ends in an item"));
            };
            match start.tag {
                ITEM_END if end.is_none() && depth > 0 => break,
                PIXEL_DATA if depth == 0 => {
                    let length = (start.length != UNDEFINED).then_some(start.length);
                    self.pixels = Some(PixelData { offset: self.at, length });
                    if self.is_file {
                        let pixels =
                            json!({ "vr": start.vr.to_string(), "BulkDataURI": format!("{}/frames", self.url) });
                        json.insert(key(PIXEL_DATA), pixels);
                    }
                    break;
                }
                tag => {
                    let told = self.element(&start, depth, &mut set)?;
                    // Group lengths say nothing.
                    if tag & 0xFFFF != 0 {
                        json.insert(key(tag), told);
                    }
                }
            }
        }
        Ok(json)
    }

    fn element(&mut self, start: &Start, depth: u32, set: &mut Repertoire) -> Result<Value, DataSetError> {
        let &Start { tag, vr, length } = start;
        if vr == VR::SQ || length == UNDEFINED {
            // UN of undefined length holds implicit VR items (PS3.5 section 6.2.2).
            let explicit = self.explicit;
            self.explicit = explicit && vr == VR::SQ;
            let items = self.items(length, depth, set)?;
            self.explicit = explicit;
            return Ok(if items.is_empty() { json!({ "vr": "SQ" }) } else { json!({ "vr": "SQ", "Value": items }) });
        }
        let is_binary = matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN);
        if length > if is_binary { BINARY_BYTES_MAX } else { INLINE_BYTES_MAX } {
            let url = format!("{}/bulkdata/{}-{length}", self.url, self.at);
            self.advance(length.into())?;
            self.source.skip(length.into())?;
            let mut told = json!({ "vr": vr.to_string() });
            if self.is_file {
                told["BulkDataURI"] = Value::from(url);
            }
            return Ok(told);
        }
        let bytes = self.value(length)?;
        if is_binary {
            let mut told = json!({ "vr": vr.to_string() });
            if !bytes.is_empty() {
                told["InlineBinary"] = Value::from(BASE64_STANDARD.encode(&bytes));
            }
            return Ok(told);
        }
        if tag == CHARACTER_SET {
            *set = Repertoire::of(Some(&bytes));
            return Ok(attribute(VR::CS, "ISO_IR 192"));
        }
        Ok(value(vr, &bytes, set))
    }

    fn items(&mut self, length: u32, depth: u32, set: &Repertoire) -> Result<Vec<Value>, DataSetError> {
        let end = (length != UNDEFINED).then(|| self.at + u64::from(length));
        let mut items = Vec::new();
        while end.is_none_or(|end| self.at < end) {
            let item = self.start()?.ok_or(Malformed("it ends in a sequence"))?;
            match item.tag {
                SEQUENCE_END if end.is_none() => break,
                ITEM => {
                    let end = (item.length != UNDEFINED).then(|| self.at + u64::from(item.length));
                    items.push(Value::from(self.elements(end, depth + 1, set)?));
                }
                _ => return Err(Malformed("no item where one must be")),
            }
        }
        Ok(items)
    }
}

fn value(vr: VR, bytes: &[u8], set: &Repertoire) -> Value {
    fn numbers<const N: usize>(vr: VR, bytes: &[u8], read: impl Fn([u8; N]) -> Value) -> Value {
        let values: Vec<Value> = bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect();
        if values.is_empty() {
            json!({ "vr": vr.to_string() })
        } else {
            json!({ "vr": vr.to_string(), "Value": values })
        }
    }
    match vr {
        VR::US => numbers(vr, bytes, |b| Value::from(u16::from_le_bytes(b))),
        VR::SS => numbers(vr, bytes, |b| Value::from(i16::from_le_bytes(b))),
        VR::UL => numbers(vr, bytes, |b| Value::from(u32::from_le_bytes(b))),
        VR::SL => numbers(vr, bytes, |b| Value::from(i32::from_le_bytes(b))),
        VR::UV => numbers(vr, bytes, |b| Value::from(u64::from_le_bytes(b))),
        VR::SV => numbers(vr, bytes, |b| Value::from(i64::from_le_bytes(b))),
        VR::FL => numbers(vr, bytes, |b| Value::from(f32::from_le_bytes(b))),
        VR::FD => numbers(vr, bytes, |b| Value::from(f64::from_le_bytes(b))),
        VR::AT => numbers(vr, bytes, |[g0, g1, e0, e1]| Value::from(format!("{g1:02X}{g0:02X}{e1:02X}{e0:02X}"))),
        VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT => {
            attribute(vr, set.raw(bytes).trim_end_matches([' ', '\0']))
        }
        _ => attribute(vr, String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0'])),
    }
}
