//! A generator of ophthalmic photographs that are full of planted words, in raw bytes and in any syntax.
//! Every planted word is unique and known, so "nothing leaked" can be counted.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part; helpers of tests may panic

use fovea_core::{ObjectHeader, Uid, sop_class};
use fovea_deid::{CleanCopy, Config, DeidError, Deidentifier, Key};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const JPEG: &str = "1.2.840.10008.1.2.4.50";
pub const OP8: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;

/// One element of a data set to be written.
#[derive(Clone, Debug)]
pub enum El {
    Raw(u32, &'static str, Vec<u8>),
    Seq(u32, Vec<Vec<El>>),
}

pub fn el(tag: u32, vr: &'static str, text: &str) -> El {
    El::Raw(tag, vr, text.as_bytes().to_vec())
}

pub fn us(tag: u32, value: u16) -> El {
    El::Raw(tag, "US", value.to_le_bytes().to_vec())
}

impl El {
    pub fn tag(&self) -> u32 {
        match self {
            El::Raw(tag, ..) | El::Seq(tag, _) => *tag,
        }
    }
}

/// Elements in tag order as bytes; `undefined` chooses the form of sequence lengths.
pub fn data_set(elements: &[El], explicit: bool, undefined: bool) -> Vec<u8> {
    let mut sorted: Vec<&El> = elements.iter().collect();
    sorted.sort_by_key(|e| e.tag());
    let mut out = Vec::new();
    for element in sorted {
        let (vr, value) = match element {
            El::Raw(_, vr, value) => (*vr, value.clone()),
            El::Seq(_, items) => ("SQ", item_bytes(items, explicit, undefined)),
        };
        out.extend(element.tag().rotate_left(16).to_le_bytes());
        let mut value = value;
        if value.len() % 2 == 1 {
            value.push(if matches!(vr, "UI" | "OB" | "UN") { 0 } else { b' ' });
        }
        let is_long =
            matches!(vr, "OB" | "OD" | "OF" | "OL" | "OV" | "OW" | "SQ" | "SV" | "UC" | "UN" | "UR" | "UT" | "UV");
        let length = if vr == "SQ" && undefined { u32::MAX } else { value.len() as u32 };
        if explicit {
            out.extend(vr.as_bytes());
        }
        if explicit && !is_long {
            out.extend((value.len() as u16).to_le_bytes());
        } else {
            if explicit {
                out.extend([0, 0]);
            }
            out.extend(length.to_le_bytes());
        }
        out.extend(value);
    }
    out
}

fn item_bytes(items: &[Vec<El>], explicit: bool, undefined: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let body = data_set(item, explicit, undefined);
        out.extend([0xFE, 0xFF, 0x00, 0xE0]);
        out.extend((if undefined { u32::MAX } else { body.len() as u32 }).to_le_bytes());
        out.extend(body);
        if undefined {
            out.extend([0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0]);
        }
    }
    if undefined {
        out.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    }
    out
}

/// Pixel Data for 4 x 4 RGB pixels.
pub fn native_pixels(explicit: bool) -> Vec<u8> {
    let mut out = vec![0xE0, 0x7F, 0x10, 0x00];
    if explicit {
        out.extend(b"OB\0\0");
    }
    out.extend(48u32.to_le_bytes());
    out.extend((0..48).map(|n| n * 5));
    out
}

pub fn segment(code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF, code];
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
    out
}

/// Two fragments of one JPEG frame (of the grammar only; no decoder looks at it), words in COM and APP1.
pub fn jpeg_pixels(comment: &str, exif: &str) -> Vec<u8> {
    let mut frame = vec![0xFF, 0xD8];
    frame.extend(segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"));
    frame.extend(segment(0xE1, exif.as_bytes()));
    frame.extend(segment(0xFE, comment.as_bytes()));
    frame.extend(segment(0xDB, &[0; 65]));
    frame.extend(segment(0xDA, &[0; 10]));
    frame.extend([0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD9]);
    frame.resize(frame.len().next_multiple_of(4), 0);
    let (first, second) = frame.split_at(frame.len() / 4 * 2);
    let mut out = vec![0xE0, 0x7F, 0x10, 0x00];
    out.extend(b"OB\0\0\xFF\xFF\xFF\xFF");
    out.extend([0xFE, 0xFF, 0x00, 0xE0, 4, 0, 0, 0, 0, 0, 0, 0]);
    for fragment in [first, second] {
        out.extend([0xFE, 0xFF, 0x00, 0xE0]);
        out.extend((fragment.len() as u32).to_le_bytes());
        out.extend(fragment);
    }
    out.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    out
}

/// What every object here has.
pub fn base() -> Vec<El> {
    vec![
        el(0x0008_0008, "CS", "ORIGINAL\\PRIMARY\\\\COLOR"),
        el(0x0008_0016, "UI", OP8),
        el(0x0008_0018, "UI", "1.2.826.0.1.44.4"),
        el(0x0008_0060, "CS", "OP"),
        el(0x0020_000D, "UI", "1.2.826.0.1.44.1"),
        el(0x0020_000E, "UI", "1.2.826.0.1.44.2"),
        el(0x0020_0062, "CS", "L"),
        us(0x0028_0002, 3),
        el(0x0028_0004, "CS", "RGB"),
        us(0x0028_0006, 0),
        us(0x0028_0010, 4),
        us(0x0028_0011, 4),
        us(0x0028_0100, 8),
        us(0x0028_0101, 8),
        us(0x0028_0102, 7),
        us(0x0028_0103, 0),
        el(0x0028_0301, "CS", "NO"),
    ]
}

/// A Part 10 file with file meta of a chatty sender, and the facts intake would take from it.
pub struct Object {
    pub file: File,
    pub bytes: Vec<u8>,
    pub header: ObjectHeader,
}

pub fn object(elements: &[El], syntax: &str, preamble: &str, undefined: bool, pixels: &[u8], behind: &[u8]) -> Object {
    let explicit = syntax != IMPLICIT;
    let meta = data_set(
        &[
            El::Raw(0x0002_0001, "OB", vec![0, 1]),
            el(0x0002_0002, "UI", OP8),
            el(0x0002_0003, "UI", "1.2.826.0.1.44.4"),
            el(0x0002_0010, "UI", syntax),
            el(0x0002_0012, "UI", "1.2.826.0.1.55"),
            el(0x0002_0016, "AE", "TOKMETAAE"),
            el(0x0002_0100, "UI", "1.2.826.0.1.66"),
            el(0x0002_0102, "OB", "TOKMETAPRIVATE"),
        ],
        true,
        false,
    );
    let mut bytes = preamble.as_bytes().to_vec();
    bytes.resize(128, 0);
    bytes.extend(b"DICM");
    bytes.extend(data_set(&[El::Raw(0x0002_0000, "UL", (meta.len() as u32).to_le_bytes().to_vec())], true, false));
    bytes.extend(meta);
    let data = data_set(elements, explicit, undefined);
    let mut pixels_at = Some((bytes.len() + data.len()) as u64);
    let body = [data, pixels.to_vec(), behind.to_vec()].concat();
    if syntax == DEFLATED {
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&body).unwrap();
        bytes.extend(packed.finish().unwrap());
        pixels_at = None;
    } else {
        bytes.extend(body);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let uid = |text| Uid::new(text).unwrap();
    let text = |tag| {
        elements.iter().find_map(|e| match e {
            El::Raw(t, _, v) if *t == tag => Some(String::from_utf8_lossy(v).into_owned()),
            _ => None,
        })
    };
    let header = ObjectHeader {
        sop_class_uid: uid(&text(0x0008_0016).unwrap()),
        sop_instance_uid: uid(&text(0x0008_0018).unwrap()),
        study_uid: uid(&text(0x0020_000D).unwrap()),
        series_uid: uid(&text(0x0020_000E).unwrap()),
        transfer_syntax_uid: uid(syntax),
        modality: None,
        body_part: None,
        laterality: None,
        rows_px: Some(4),
        columns_px: Some(4),
        frames: 1,
        photometric: None,
        burned_in_annotation: text(0x0028_0301).map(|value| value == "YES"),
        pixel_data_offset: pixels_at,
    };
    Object { file, bytes, header }
}

pub fn simple(elements: &[El]) -> Object {
    object(elements, EXPLICIT, "", false, &native_pixels(true), b"")
}

pub fn deidentifier(key: u8) -> Deidentifier {
    Deidentifier::new(&Config::default(), Key::new([key; 32]))
}

pub fn copy_with(key: u8, object: &Object) -> Result<(CleanCopy, Vec<u8>), DeidError> {
    let mut out = tempfile::tempfile().unwrap();
    let done = deidentifier(key).copy(object.file.try_clone().unwrap(), &object.header, &mut out);
    let bytes = read(&mut out);
    if done.is_err() {
        assert!(bytes.is_empty(), "a refused copy leaves nothing behind");
    }
    done.map(|copy| (copy, bytes))
}

pub fn copy(object: &Object) -> Result<(CleanCopy, Vec<u8>), DeidError> {
    copy_with(7, object)
}

pub fn read(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// All planted words still in `bytes`: every run that begins with `TOK`, and every given one.
pub fn tokens_in(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, window) in bytes.windows(3).enumerate() {
        if window.eq_ignore_ascii_case(b"TOK") {
            found.push(String::from_utf8_lossy(&bytes[at..(at + 24).min(bytes.len())]).into_owned());
        }
    }
    found
}

pub fn quarantine(object: &Object) -> String {
    match copy(object) {
        Err(DeidError::Quarantine { reason }) => reason,
        other => panic!("expected quarantine, got {:?}", other.map(|(copy, _)| copy)),
    }
}
