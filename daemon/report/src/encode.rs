//! Data sets to bytes: Explicit VR Little Endian, Part 10.
//! In: attributes, in any order. Out: bytes in tag order, values padded to even length.
//! Promise: what is put as raw bytes is written as it was given.
//! Standard: DICOM PS3.5 section 7.1.2, PS3.10 section 7.1.

use fovea_core::Uid;
use std::collections::BTreeMap;

/// The value representations that reports use.
pub mod vr {
    pub const AS: [u8; 2] = *b"AS";
    pub const CS: [u8; 2] = *b"CS";
    pub const DA: [u8; 2] = *b"DA";
    pub const DS: [u8; 2] = *b"DS";
    pub const FL: [u8; 2] = *b"FL";
    pub const IS: [u8; 2] = *b"IS";
    pub const LO: [u8; 2] = *b"LO";
    pub const LT: [u8; 2] = *b"LT";
    pub const PN: [u8; 2] = *b"PN";
    pub const SH: [u8; 2] = *b"SH";
    pub const SQ: [u8; 2] = *b"SQ";
    pub const ST: [u8; 2] = *b"ST";
    pub const TM: [u8; 2] = *b"TM";
    pub const UI: [u8; 2] = *b"UI";
    pub const UT: [u8; 2] = *b"UT";
}

/// One data set or sequence item: tag (group in the high half) to representation and value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataSet(BTreeMap<u32, ([u8; 2], Vec<u8>)>);

impl DataSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value as it is; a later one of the same tag replaces it.
    pub fn put_raw(&mut self, tag: u32, vr: [u8; 2], value: Vec<u8>) {
        self.0.insert(tag, (vr, value));
    }

    /// Puts text of ours.
    pub fn put_text(&mut self, tag: u32, vr: [u8; 2], text: &str) {
        self.put_raw(tag, vr, text.as_bytes().to_vec());
    }

    pub fn put_uid(&mut self, tag: u32, uid: &Uid) {
        self.put_raw(tag, vr::UI, uid.as_str().as_bytes().to_vec());
    }

    /// Puts a sequence, items of explicit length.
    pub fn put_sequence(&mut self, tag: u32, items: &[DataSet]) {
        let mut value = Vec::new();
        for item in items {
            let body = item.to_bytes();
            value.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
            value.extend_from_slice(&length(body.len()).to_le_bytes());
            value.extend_from_slice(&body);
        }
        self.put_raw(tag, vr::SQ, value);
    }

    /// The attributes in tag order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, (vr, value)) in &self.0 {
            put_element(&mut out, *tag, *vr, value);
        }
        out
    }
}

fn put_element(out: &mut Vec<u8>, tag: u32, vr: [u8; 2], value: &[u8]) {
    let [group_low, group_high] = ((tag >> 16) as u16).to_le_bytes();
    let [element_low, element_high] = (tag as u16).to_le_bytes();
    out.extend_from_slice(&[group_low, group_high, element_low, element_high, vr[0], vr[1]]);
    let padded = value.len() + value.len() % 2;
    let is_long = matches!(&vr, b"OB" | b"SQ" | b"UT" | b"UN");
    if is_long {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length(padded).to_le_bytes());
    } else {
        // Short values come from bounded fields: source.rs takes none above the limit, `short` cuts ours.
        out.extend_from_slice(&u16::try_from(padded).unwrap_or(0).to_le_bytes());
        if padded > usize::from(u16::MAX) {
            return;
        }
    }
    out.extend_from_slice(value);
    if padded > value.len() {
        out.push(if matches!(&vr, b"UI" | b"OB") { 0 } else { b' ' });
    }
}

/// Reports are some kilobytes: the source's attributes are bounded at 64 KiB each, ours far below.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Text of ours, made fit for a one-line attribute: printable ASCII without backslash, at most `chars_max`.
pub fn short(text: &str, chars_max: usize) -> String {
    let clean = |c: char| if (' '..='~').contains(&c) && c != '\\' { c } else { '?' };
    text.chars().map(clean).take(chars_max).collect::<String>().trim().to_owned()
}

/// A whole Part 10 file.
pub fn part10(sop_class: &Uid, sop_instance: &Uid, transfer_syntax: &str, data: &DataSet) -> Vec<u8> {
    let mut meta = DataSet::new();
    meta.put_raw(0x0002_0001, *b"OB", vec![0, 1]);
    meta.put_uid(0x0002_0002, sop_class);
    meta.put_uid(0x0002_0003, sop_instance);
    meta.put_text(0x0002_0010, vr::UI, transfer_syntax);
    // The implementation's name is a constant derived once, so that a new build writes the same bytes.
    meta.put_uid(0x0002_0012, &Uid::derived("implementation", &["fovea"]));
    meta.put_text(0x0002_0013, vr::SH, "FOVEA");
    let meta = meta.to_bytes();
    let mut out = vec![0u8; 128];
    out.extend_from_slice(b"DICM");
    put_element(&mut out, 0x0002_0000, *b"UL", &length(meta.len()).to_le_bytes());
    out.extend_from_slice(&meta);
    out.extend_from_slice(&data.to_bytes());
    out
}
