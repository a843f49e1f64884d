//! The audit's reading of the profile: what may be left of each attribute.
//! In: the walked copy. Out: leaks. The table and word lists are the standard's data; the judgement here is the audit's own.
//! Standard: DICOM PS3.15 table E.1-1.

use super::identifiers::Identifiers;
use super::walk::{Leaf, Walked, dictionary, trimmed};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

static TABLE: &str = include_str!("../../data/basic_profile.csv");
static WORDS: &str = include_str!("../../data/public_words.txt");
static MEANINGS: &str = include_str!("../../data/code_meanings.csv");
static UIDS: &str = include_str!("../../data/well_known_uids.txt");

fn lines(data: &'static str) -> impl Iterator<Item = &'static str> {
    data.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// The table's action word, for instance `X/Z/D`.
fn action(tag: u32) -> Option<&'static str> {
    static MAP: OnceLock<HashMap<String, &'static str>> = OnceLock::new();
    let map = MAP.get_or_init(|| {
        lines(TABLE).filter_map(|line| Some((line.split(',').next()?.to_owned(), line.rsplit(',').next()?))).collect()
    });
    map.get(&format!("{tag:08X}")).copied()
}

/// Words, dummies and meanings that a copy may hold because the standard or we wrote them, not the sender.
pub fn is_public(value: &str) -> bool {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let set = SET.get_or_init(|| {
        let ours =
            ["REMOVED", "19000101", "000000", "19000101000000", "000Y", "0", "Fovea basic profile", "DCM", "SCT"];
        let schemes = ["SRT", "LN", "UCUM"];
        let meanings = lines(MEANINGS).filter_map(|line| line.splitn(3, ',').nth(2));
        lines(WORDS).chain(meanings).chain(ours).chain(schemes).collect()
    });
    set.contains(value)
}

/// Whether the value is a code that the standard's own lists hold.
pub fn is_public_code(value: &str) -> bool {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| lines(MEANINGS).filter_map(|line| line.split(',').nth(1)).collect()).contains(value)
}

/// Whether the UID is in the standard's registry.
pub fn is_registered(uid: &str) -> bool {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| lines(UIDS).collect()).contains(uid)
}

/// Whether a UID could have come from a keyed hash.
pub fn is_hashed(uid: &str) -> bool {
    uid.strip_prefix("2.25.").is_some_and(|number| {
        (20..=39).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0')
    })
}

/// Checks each attribute of the copy.
pub fn check(copy: &Walked, bytes: &[u8], identifiers: &Identifiers, leak: &mut impl FnMut(&[u32], &'static str)) {
    for sequence in &copy.sequences {
        let tag = sequence.path.last().copied().unwrap_or(0);
        if let Some(what) = forbidden(tag) {
            leak(&sequence.path, what);
        } else if action(tag).is_some_and(|action| !action.contains('U') && sequence.items > 0) {
            leak(&sequence.path, "a sequence that must be empty has items");
        }
    }
    for leaf in &copy.leaves {
        let value = trimmed(&bytes[leaf.value.clone()]);
        if let Some(what) = forbidden(leaf.tag()).or_else(|| wrong(copy, bytes, leaf, value, identifiers)) {
            leak(&leaf.path, what);
        }
    }
    let says = |tag: u32, word: &[u8]| {
        copy.leaves.iter().any(|leaf| leaf.path == [tag] && trimmed(&bytes[leaf.value.clone()]) == word)
    };
    let has_code = copy
        .leaves
        .iter()
        .any(|leaf| leaf.path == [0x0012_0064, 0x0008_0100] && trimmed(&bytes[leaf.value.clone()]) == b"113100");
    if !says(0x0012_0062, b"YES") || !says(0x0028_0303, b"REMOVED") || !has_code {
        leak(&[0x0012_0062], "the record of what was done is missing");
    }
}

/// Attributes that may not be there at all.
fn forbidden(tag: u32) -> Option<&'static str> {
    let group = tag >> 16;
    if group % 2 == 1 {
        return Some("a private attribute");
    }
    if matches!(group >> 8, 0x50 | 0x60) {
        return Some("a curve or overlay");
    }
    if tag & 0xFFFF == 0 || group < 8 {
        return Some("a group length, command or meta element");
    }
    if dictionary(tag).is_none() {
        return Some("an attribute that no dictionary knows");
    }
    (action(tag) == Some("X")).then_some("an attribute that the profile removes")
}

/// What is wrong with one value.
fn wrong(copy: &Walked, bytes: &[u8], leaf: &Leaf, value: &[u8], identifiers: &Identifiers) -> Option<&'static str> {
    if value.is_empty() {
        return None;
    }
    let expected = dictionary(leaf.tag())?;
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| (0x20..0x7F).contains(&b)));
    match action(leaf.tag()) {
        Some(action) if action.contains('U') => return uid(text, identifiers),
        Some(action) if action.contains('D') => {
            let is_dummy = match &leaf.vr {
                b"UI" => return uid(text, identifiers),
                b"OB" | b"US" | b"SS" => value.iter().all(|byte| *byte == 0),
                b"LO" if leaf.tag() == 0x0010_0020 => text.is_some_and(is_pseudonym),
                _ => text.is_some_and(|text| {
                    ["REMOVED", "19000101", "000000", "19000101000000", "000Y", "0"].contains(&text)
                }),
            };
            return (!is_dummy).then_some("an attribute that the profile replaces has a value of its own");
        }
        Some(_) => return Some("an attribute that the profile empties has a value"),
        None => {}
    }
    match &leaf.vr {
        b"UI" => uid(text, identifiers),
        b"CS" => text
            .is_none_or(|text| !text.split('\\').all(|word| word.trim().is_empty() || is_public(word.trim())))
            .then_some("a code string that is no public word"),
        b"IS" | b"DS" => value
            .iter()
            .any(|b| !b.is_ascii_digit() && !b"+-.eE \\".contains(b))
            .then_some("a number string that is no number"),
        b"AT" | b"FD" | b"FL" | b"SL" | b"SS" | b"SV" | b"UL" | b"US" | b"UV" | b"OW" | b"OB" => {
            let value_bytes = &bytes[leaf.value.clone()];
            let is_palette = matches!(leaf.tag(), 0x0028_1201..=0x0028_1223);
            let is_number = !matches!(&leaf.vr, b"OW" | b"OB") && leaf.value.len() <= 64;
            let is_of_kind =
                !matches!(&expected, b"LO" | b"SH" | b"ST" | b"LT" | b"UT" | b"UC" | b"PN" | b"CS" | b"UI" | b"AE");
            let is_tags = &leaf.vr != b"AT" || are_known_tags(value_bytes);
            let is_fine = is_palette || (is_number && is_of_kind && is_tags && !reads_as_text(value_bytes));
            (!is_fine).then_some("bulk data or words in a number")
        }
        b"SH" | b"LO" => coded(copy, bytes, leaf, text),
        _ => Some("text, a date or a name outside the table"),
    }
}

/// Six or more bytes that are all printable: no numbers look like that, words do.
fn reads_as_text(value: &[u8]) -> bool {
    value.len() >= 6 && value.iter().all(|byte| (0x20..0x7F).contains(byte))
}

fn are_known_tags(value: &[u8]) -> bool {
    let (tags, rest) = value.as_chunks::<4>();
    let tag =
        |b: &[u8; 4]| u32::from(u16::from_le_bytes([b[0], b[1]])) << 16 | u32::from(u16::from_le_bytes([b[2], b[3]]));
    rest.is_empty() && tags.iter().all(|bytes| dictionary(tag(bytes)).is_some())
}

fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix("FV-").is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn uid(text: Option<&str>, identifiers: &Identifiers) -> Option<&'static str> {
    let Some(text) = text else { return Some("a UID that is no text") };
    for uid in text.split('\\').map(|uid| uid.trim_matches([' ', '\0'])).filter(|uid| !uid.is_empty()) {
        if identifiers.is_original_uid(uid) {
            return Some("a UID of the original");
        }
        if !is_registered(uid) && !is_hashed(uid) {
            return Some("a UID that is neither registered nor replaced");
        }
    }
    None
}

/// Short text passes only as part of a standard code, or as our own note.
fn coded(copy: &Walked, bytes: &[u8], leaf: &Leaf, text: Option<&str>) -> Option<&'static str> {
    let text = match text {
        Some(text) => text.trim(),
        None => return Some("text that is not ASCII"),
    };
    let sibling = |tag: u32| {
        let found = copy.leaves.iter().find(|other| other.item == leaf.item && other.tag() == tag)?;
        std::str::from_utf8(trimmed(&bytes[found.value.clone()])).ok()
    };
    let scheme = sibling(0x0008_0102).unwrap_or_default();
    let is_fine = match leaf.tag() {
        0x0012_0063 => leaf.path.len() == 1 && is_public(text),
        0x0008_0102 => leaf.path.len() > 1 && ["DCM", "SCT", "SRT", "LN", "UCUM"].contains(&text),
        0x0008_0100 => {
            let digits = text.bytes().all(|b| b.is_ascii_digit()) && text.len() >= 5;
            leaf.path.len() > 1 && (is_public_code(text) || (["DCM", "SCT"].contains(&scheme) && digits))
        }
        0x0008_0104 => leaf.path.len() > 1 && (is_public(text) || sibling(0x0008_0100) == Some(text)),
        _ => false,
    };
    (!is_fine).then_some("free text outside the table")
}
