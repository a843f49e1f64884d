//! What becomes of each attribute: the Basic Profile by its table, and a stricter rule for what the table leaves out.
//!
//! In: the tree of an object. Out: the tree that may leave.
//! Promise: free text of any kind never passes. The table's actions hold at every level of nesting (X remove, Z empty,
//! D dummy, U replaced UID; combined actions: D where D is among them, else Z; X/Z/U* as U). An attribute that the table
//! does not name passes only if it cannot carry prose:
//!
//! - numbers, with the representation that the dictionary gives them, at most [`NUMBER_BYTES_MAX`] bytes that do not read
//!   as letters; tags (AT) of the dictionary;
//! - code strings (CS) whose every value is a word of `data/public_words.txt` (of Image Type, values after the second
//!   that are not are dropped);
//! - UIDs, replaced unless they are in the standard's registry;
//! - codes of standard schemes, their value checked by pattern, their meaning rewritten from `data/code_meanings.csv` or,
//!   where that has none, replaced by the value; other code items are dropped;
//! - sequences, cleaned inside; lookup tables of palettes.
//!
//! All else (names, text, dates, times, AE titles, unknown and private attributes, curves, overlays, bulk data) is removed,
//! or emptied where image modules need it as Type 2. What is left is ASCII, so Specific Character Set is removed too.
//! Standard: DICOM PS3.15 sections E.1, E.2, table E.1-1; PS3.3 sections 8.8, C.12.1.

use crate::uids;
use crate::wire::{DataSet, Element, Value, dictionary_vr};
use crate::{Key, profile::Action, profile::action_of};
use dicom_core::VR;
use dicom_core::dictionary::VirtualVr;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// The longest number attribute that passes, in bytes.
const NUMBER_BYTES_MAX: usize = 64;
/// The longest palette that passes, in bytes: 65,536 entries of 16 bits.
const PALETTE_BYTES_MAX: usize = 131_072;
/// What (0012,0063) says.
pub const METHOD: &str = "Fovea basic profile";
/// The code of the Basic Profile in CID 7050.
const BASIC_PROFILE: &str = "113100";

const PATIENT_ID: u32 = 0x0010_0020;
const CODE_VALUE: u32 = 0x0008_0100;
const CODE_SCHEME: u32 = 0x0008_0102;
const CODE_MEANING: u32 = 0x0008_0104;
const IMAGE_TYPE: u32 = 0x0008_0008;

/// Outside the table, text, and Type 2 in image modules: emptied, so that a valid object stays valid.
const EMPTIED: [u32; 3] = [
    0x0008_0070, // Manufacturer
    0x0020_1040, // PositionReferenceIndicator
    0x0018_1020, // SoftwareVersions
];

/// Cleans the top level and adds the record of what was done (PS3.15 section E.1.1 steps 7 and 8).
pub fn clean_object(key: &Key, source: &DataSet) -> DataSet {
    let mut data = clean(key, source);
    let mut done = earlier_codes(source);
    done.insert(BASIC_PROFILE);
    let mut done: Vec<_> = done.into_iter().collect();
    done.sort_unstable();
    let items = done.into_iter().map(|code| code_item("DCM", code, meaning("DCM", code).unwrap_or(code))).collect();
    data.put(0x0012_0062, b"CS", b"YES");
    data.put(0x0012_0063, b"LO", METHOD.as_bytes());
    data.put_items(0x0012_0064, items);
    data.put(0x0028_0303, b"CS", b"REMOVED");
    data
}

/// Codes of CID 7050 that an earlier pass left.
fn earlier_codes(source: &DataSet) -> HashSet<&str> {
    let Some(Element { value: Value::Items(items), .. }) = source.0.get(&0x0012_0064) else { return HashSet::new() };
    let code = |item: &'_ DataSet| -> Option<&'static str> {
        let value = item.ascii(CODE_VALUE).filter(|_| item.ascii(CODE_SCHEME) == Some("DCM"))?;
        (113_100..=113_112).map(known_option).find(|known| *known == value)
    };
    items.iter().filter_map(code).collect()
}

fn known_option(number: u32) -> &'static str {
    const OPTIONS: [&str; 13] = [
        "113100", "113101", "113102", "113103", "113104", "113105", "113106", "113107", "113108", "113109", "113110",
        "113111", "113112",
    ];
    OPTIONS[(number as usize).saturating_sub(113_100).min(12)]
}

/// Cleans one level and all below.
fn clean(key: &Key, source: &DataSet) -> DataSet {
    let mut out = DataSet::default();
    for (tag, element) in &source.0 {
        if let Some(element) = cleaned(key, *tag, element) {
            out.0.insert(*tag, element);
        }
    }
    out
}

/// What stays of one attribute.
fn cleaned(key: &Key, tag: u32, element: &Element) -> Option<Element> {
    let group = tag >> 16;
    let is_overlay_or_curve = matches!(group & 0xFF00, 0x5000 | 0x6000);
    // Group lengths (element 0000) are retired and would be wrong; groups below 8 are commands and file meta.
    if group % 2 == 1 || is_overlay_or_curve || tag & 0xFFFF == 0 || !(8..0x7FE0).contains(&group) {
        return None;
    }
    let expected = dictionary_vr(tag)?;
    // A receiver that did not know a tag may have written UN: the bytes are those of the real representation.
    let vr = if &element.vr == b"UN" { expected.relaxed().to_bytes() } else { element.vr };
    match action_of(tag) {
        Some(Action::Remove) => None,
        Some(Action::Empty) => Some(empty(vr)),
        Some(Action::Dummy) => dummy(key, tag, vr, &element.value),
        Some(Action::Uid) => uid_or_items(key, vr, &element.value),
        None if !agrees(expected, vr) => None,
        None => outside_the_table(key, tag, vr, &element.value),
    }
}

fn empty(vr: [u8; 2]) -> Element {
    let value = if &vr == b"SQ" { Value::Items(Vec::new()) } else { Value::Bytes(Vec::new()) };
    Element { vr, value }
}

/// A value that says nothing, of the right representation; what was empty stays empty.
fn dummy(key: &Key, tag: u32, vr: [u8; 2], value: &Value) -> Option<Element> {
    let Value::Bytes(bytes) = value else {
        // No dummy item of ours could satisfy the many kinds of sequences; empty is the nearest that says nothing.
        return Some(empty(vr));
    };
    if bytes.iter().all(|byte| matches!(byte, b' ' | 0)) {
        return Some(empty(vr));
    }
    if tag == PATIENT_ID {
        // The same patient keeps one pseudonym under one key; without the key it leads nowhere.
        let digits: String =
            uids::keyed(key, "patient", &padding_off(bytes)).iter().map(|b| format!("{b:02X}")).collect();
        return Some(Element { vr, value: Value::Bytes(format!("FV-{}", &digits[..16]).into_bytes()) });
    }
    if &vr == b"UI" {
        return uid_or_items(key, vr, value);
    }
    let value = crate::profile::dummy_value(vr)?;
    Some(Element { vr, value: Value::Bytes(value.to_vec()) })
}

fn padding_off(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned()
}

fn uid_or_items(key: &Key, vr: [u8; 2], value: &Value) -> Option<Element> {
    match value {
        Value::Items(items) => Some(Element { vr, value: Value::Items(clean_items(key, items)) }),
        Value::Bytes(bytes) if &vr == b"UI" => {
            let text = String::from_utf8_lossy(bytes);
            let replace = |uid: &str| {
                let uid = uid.trim_matches([' ', '\0']);
                if uid.is_empty() { String::new() } else { uids::replaced(key, uid) }
            };
            let replaced: Vec<_> = text.split('\\').map(replace).collect();
            Some(Element { vr, value: Value::Bytes(replaced.join("\\").into_bytes()) })
        }
        Value::Bytes(_) => None,
    }
}

/// Whether `vr` is one that the dictionary allows: text under a number's representation would slip through otherwise.
fn agrees(expected: VirtualVr, vr: [u8; 2]) -> bool {
    let Some(found) = VR::from_binary(vr) else { return false };
    match expected {
        VirtualVr::Exact(exact) => exact == found,
        VirtualVr::Xs => matches!(found, VR::US | VR::SS),
        VirtualVr::Ox | VirtualVr::Px => matches!(found, VR::OB | VR::OW),
        VirtualVr::Lt => matches!(found, VR::OW | VR::US | VR::SS),
        _ => false,
    }
}

fn outside_the_table(key: &Key, tag: u32, vr: [u8; 2], value: &Value) -> Option<Element> {
    if EMPTIED.contains(&tag) {
        return Some(empty(vr));
    }
    let bytes = match value {
        Value::Items(items) => return Some(Element { vr, value: Value::Items(clean_items(key, items)) }),
        Value::Bytes(bytes) => bytes,
    };
    let keep = |bytes: &[u8]| Some(Element { vr, value: Value::Bytes(bytes.to_vec()) });
    match &vr {
        b"UI" => uid_or_items(key, vr, value),
        b"CS" => public_words(tag, bytes).and_then(|text| keep(text.as_bytes())),
        b"DS" | b"IS" => is_number_text(bytes).then(|| keep(bytes)).flatten(),
        b"AT" => are_known_tags(bytes).then(|| keep(bytes)).flatten(),
        b"FD" | b"FL" | b"SL" | b"SS" | b"SV" | b"UL" | b"US" | b"UV"
            if bytes.len() <= NUMBER_BYTES_MAX && !are_letters(bytes) =>
        {
            keep(bytes)
        }
        b"OW" | b"OB" | b"US" | b"SS" if is_palette(tag) && bytes.len() <= PALETTE_BYTES_MAX => keep(bytes),
        _ => None,
    }
}

/// Red, green, blue palettes, plain and segmented.
fn is_palette(tag: u32) -> bool {
    matches!(tag, 0x0028_1201..=0x0028_1203 | 0x0028_1221..=0x0028_1223)
}

/// The value if each part is a public word.
fn public_words(tag: u32, bytes: &[u8]) -> Option<String> {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let set = SET.get_or_init(|| {
        include_str!("../data/public_words.txt").lines().filter(|line| !line.starts_with('#')).collect()
    });
    let text = std::str::from_utf8(bytes).ok()?;
    let words: Vec<&str> = text.split('\\').map(|word| word.trim_matches([' ', '\0'])).collect();
    let is_public = |word: &&str| word.is_empty() || set.contains(word);
    if tag == IMAGE_TYPE && words.len() > 2 && words[..2].iter().all(is_public) {
        let known = words.iter().enumerate().filter(|(at, word)| *at < 2 || is_public(word));
        return Some(known.map(|(_, word)| *word).collect::<Vec<_>>().join("\\"));
    }
    words.iter().all(is_public).then(|| words.join("\\"))
}

/// Whether binary numbers are words in disguise: six bytes or more, all printable.
fn are_letters(bytes: &[u8]) -> bool {
    bytes.len() >= 6 && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a value of tags names public attributes only.
fn are_known_tags(bytes: &[u8]) -> bool {
    let (tags, rest) = bytes.as_chunks::<4>();
    let is_known = |bytes: &[u8; 4]| dictionary_vr(u32::from_le_bytes(*bytes).rotate_left(16)).is_some();
    rest.is_empty() && bytes.len() <= NUMBER_BYTES_MAX && tags.iter().all(is_known)
}

fn is_number_text(bytes: &[u8]) -> bool {
    bytes.len() <= 16 * NUMBER_BYTES_MAX
        && bytes.split(|byte| *byte == b'\\').all(|part| {
            part.len() <= 16
                && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' | b' ' | 0))
        })
}

/// Items cleaned; those of which nothing is left are dropped.
fn clean_items(key: &Key, items: &[DataSet]) -> Vec<DataSet> {
    let clean_item = |item: &DataSet| {
        let mut out = clean(key, item);
        if let Some(code) = standard_code(item) {
            out.0.extend(code.0);
        }
        (!out.0.is_empty()).then_some(out)
    };
    items.iter().filter_map(clean_item).collect()
}

/// The code of an item, rebuilt, if its scheme is a standard one and its value looks like that scheme's.
fn standard_code(item: &DataSet) -> Option<DataSet> {
    let (scheme, value) = (item.ascii(CODE_SCHEME)?, item.ascii(CODE_VALUE)?);
    is_code_of(scheme, value).then(|| code_item(scheme, value, meaning(scheme, value).unwrap_or(value)))
}

/// Whether `value` has the form of codes of `scheme`; other schemes, private ones too, have none here.
fn is_code_of(scheme: &str, value: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match scheme {
        "DCM" => (5..=6).contains(&value.len()) && digits(value),
        "SCT" => (6..=16).contains(&value.len()) && digits(value),
        // SNOMED RT and LOINC ids are free enough to spell a name or a number, so only those we know pass.
        "SRT" | "LN" | "UCUM" => meaning(scheme, value).is_some(),
        _ => false,
    }
}

fn code_item(scheme: &str, value: &str, meaning: &str) -> DataSet {
    let mut item = DataSet::default();
    item.put(CODE_VALUE, b"SH", value.as_bytes());
    item.put(CODE_SCHEME, b"SH", scheme.as_bytes());
    item.put(CODE_MEANING, b"LO", meaning.as_bytes());
    item
}

fn meaning(scheme: &str, value: &str) -> Option<&'static str> {
    static MAP: OnceLock<HashMap<(&'static str, &'static str), &'static str>> = OnceLock::new();
    let map = MAP.get_or_init(|| {
        let lines = include_str!("../data/code_meanings.csv").lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_once(','))
            .filter_map(|(s, rest)| rest.split_once(',').map(|(v, m)| ((s, v), m)))
            .collect()
    });
    map.get(&(scheme, value)).copied()
}
