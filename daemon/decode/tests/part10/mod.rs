//! Writes Part 10 files element by element, so that tests can make them wrong in exactly one place.
#![allow(clippy::unwrap_used, dead_code, reason = "shared by test binaries that use different parts of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";

/// A file with these bytes that has no name.
pub fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// One item of a sequence: attributes by tag.
pub type Item = Vec<(u32, Value)>;

/// What an attribute of an item holds.
#[derive(Clone)]
pub enum Value {
    Plain([u8; 2], Vec<u8>),
    Items(Vec<Item>),
}

/// How sequences are written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Lengths {
    Known,
    Undefined,
}

pub fn us(value: u16) -> Value {
    Value::Plain(*b"US", value.to_le_bytes().to_vec())
}

pub fn ul(value: u32) -> Value {
    Value::Plain(*b"UL", value.to_le_bytes().to_vec())
}

pub fn sl(value: i32) -> Value {
    Value::Plain(*b"SL", value.to_le_bytes().to_vec())
}

pub fn fd(value: f64) -> Value {
    Value::Plain(*b"FD", value.to_le_bytes().to_vec())
}

pub fn ds(value: &str) -> Value {
    let mut text = value.as_bytes().to_vec();
    text.resize(text.len().next_multiple_of(2), b' ');
    Value::Plain(*b"DS", text)
}

#[derive(Clone)]
pub struct Part10 {
    syntax: String,
    elements: BTreeMap<u32, ([u8; 2], Vec<u8>)>,
    sequences: BTreeMap<u32, Vec<Item>>,
    lengths: Lengths,
    /// Pixel Data in fragments, the offset table first.
    fragments: Option<Vec<Vec<u8>>>,
    nested: usize,
}

impl Part10 {
    pub fn image(columns: u16, rows: u16, samples: u16, photometric: &str, allocated: u16, stored: u16) -> Self {
        let empty = Self {
            syntax: EXPLICIT.into(),
            elements: BTreeMap::new(),
            sequences: BTreeMap::new(),
            lengths: Lengths::Known,
            fragments: None,
            nested: 0,
        };
        let photometric = if photometric.len() % 2 == 1 { format!("{photometric} ") } else { photometric.into() };
        empty
            .short(0x0028_0002, samples)
            .text(0x0028_0004, &photometric)
            .short(0x0028_0010, rows)
            .short(0x0028_0011, columns)
            .short(0x0028_0100, allocated)
            .short(0x0028_0101, stored)
            .short(0x0028_0102, stored - 1)
            .short(0x0028_0103, 0)
    }

    pub fn raw(mut self, tag: u32, vr: &[u8; 2], value: &[u8]) -> Self {
        self.elements.insert(tag, (*vr, value.to_vec()));
        self
    }

    pub fn short(self, tag: u32, value: u16) -> Self {
        self.raw(tag, b"US", &value.to_le_bytes())
    }

    pub fn text(self, tag: u32, value: &str) -> Self {
        self.raw(tag, b"CS", value.as_bytes())
    }

    pub fn signed(self) -> Self {
        self.short(0x0028_0103, 1)
    }

    pub fn pixels(self, bytes: &[u8]) -> Self {
        self.raw(0x7FE0_0010, b"OW", bytes)
    }

    pub fn fragments(mut self, fragments: &[&[u8]]) -> Self {
        self.fragments = Some(fragments.iter().map(|fragment| fragment.to_vec()).collect());
        self
    }

    pub fn sequence(mut self, tag: u32, items: Vec<Item>) -> Self {
        self.sequences.insert(tag, items);
        self
    }

    pub fn lengths(mut self, lengths: Lengths) -> Self {
        self.lengths = lengths;
        self
    }

    pub fn without(mut self, tag: u32) -> Self {
        self.elements.remove(&tag);
        self
    }

    pub fn syntax(mut self, uid: &str) -> Self {
        self.syntax = uid.into();
        self
    }

    /// Puts sequences of undefined length, one within the other, before the image.
    pub fn nested(mut self, depth: usize) -> Self {
        self.nested = depth;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 128];
        out.extend(b"DICM");
        let mut uid = self.syntax.clone().into_bytes();
        if uid.len() % 2 == 1 {
            uid.push(0);
        }
        element(&mut out, true, 0x0002_0010, b"UI", &uid);
        let data_set = self.data_set(self.syntax != IMPLICIT);
        if self.syntax == DEFLATED {
            let mut encoder = flate2::read::DeflateEncoder::new(&data_set[..], flate2::Compression::best());
            encoder.read_to_end(&mut out).unwrap();
        } else {
            out.extend(data_set);
        }
        out
    }

    fn data_set(&self, explicit: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..self.nested {
            out.extend([0x08, 0x00, 0x40, 0x11]);
            out.extend(if explicit { &b"SQ\0\0\xFF\xFF\xFF\xFF"[..] } else { &b"\xFF\xFF\xFF\xFF"[..] });
            out.extend(b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF");
        }
        for _ in 0..self.nested {
            out.extend(b"\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0");
        }
        let mut sequences = self.sequences.iter().peekable();
        let mut sequences_below = |out: &mut Vec<u8>, below: u32| {
            while let Some((tag, items)) = sequences.next_if(|(tag, _)| **tag < below) {
                sequence(out, explicit, self.lengths, *tag, items);
            }
        };
        for (tag, (vr, value)) in &self.elements {
            sequences_below(&mut out, *tag);
            if *tag != 0x7FE0_0010 || self.fragments.is_none() {
                element(&mut out, explicit, *tag, vr, value);
            }
        }
        sequences_below(&mut out, 0x7FE0_0010);
        if let Some(fragments) = &self.fragments {
            out.extend(b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF");
            for fragment in fragments {
                out.extend(b"\xFE\xFF\x00\xE0");
                out.extend((fragment.len() as u32).to_le_bytes());
                out.extend(fragment);
            }
            out.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
        }
        out
    }
}

fn sequence(out: &mut Vec<u8>, explicit: bool, lengths: Lengths, tag: u32, items: &[Item]) {
    let mut content = Vec::new();
    for item in items {
        let mut inside = Vec::new();
        for (tag, value) in item {
            match value {
                Value::Plain(vr, bytes) => element(&mut inside, explicit, *tag, vr, bytes),
                Value::Items(items) => sequence(&mut inside, explicit, lengths, *tag, items),
            }
        }
        content.extend(b"\xFE\xFF\x00\xE0");
        if lengths == Lengths::Undefined {
            content.extend(u32::MAX.to_le_bytes());
            inside.extend(b"\xFE\xFF\x0D\xE0\0\0\0\0");
        } else {
            content.extend((inside.len() as u32).to_le_bytes());
        }
        content.extend(inside);
    }
    let mut length = content.len() as u32;
    if lengths == Lengths::Undefined {
        length = u32::MAX;
        content.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    }
    out.extend(((tag >> 16) as u16).to_le_bytes());
    out.extend((tag as u16).to_le_bytes());
    if explicit {
        out.extend(b"SQ\0\0");
    }
    out.extend(length.to_le_bytes());
    out.extend(content);
}

fn element(out: &mut Vec<u8>, explicit: bool, tag: u32, vr: &[u8; 2], value: &[u8]) {
    out.extend(((tag >> 16) as u16).to_le_bytes());
    out.extend((tag as u16).to_le_bytes());
    if explicit {
        out.extend(vr);
        if matches!(vr, b"OW" | b"OB" | b"OV") {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
    } else {
        out.extend((value.len() as u32).to_le_bytes());
    }
    out.extend(value);
}
