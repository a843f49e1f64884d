//! The original's identifiers, and the search for them in the copy.
//!
//! In: the walked original; then the copy. Out: leaks.
//! An identifier is every value of an attribute that the profile touches or no dictionary knows, every name, text, date
//! and AE title, each also by its parts (at `^`, `=`, backslash, spaces and punctuation); every UID that is not
//! registered; and what the preamble and the sender's file meta say.
//!
//! What is searched, and why a short value does not hold every copy back:
//! - identifiers of [`LONG_BYTES`] bytes and more: anywhere in the raw bytes before Pixel Data, upper and lower case alike;
//! - of 3 to 5 bytes: as a whole word of a text value (a number of 3 to 5 digits not in number strings, where rows,
//!   frames and series count);
//! - shorter ones say too little;
//! - not searched: values that the audit has found to be public words, standard codes, registered or replaced UIDs, since
//!   the sender did not write them (a patient called "Eye" does not hold back every copy).
//!
//! Values are compared as bytes: the copy's text is ASCII throughout (profile.rs), so another character set cannot hide one.

use super::profile::{is_hashed, is_public, is_public_code, is_registered};
use super::walk::{Leaf, Walked, dictionary, trimmed};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// From this length on an identifier is searched everywhere.
pub const LONG_BYTES: usize = 6;
/// The shortest identifier that is searched.
const SHORT_BYTES: usize = 3;
/// The longest value of which parts are taken; of longer ones the first bytes are.
const VALUE_BYTES_MAX: usize = 4096;

/// What must not be found.
#[derive(Debug, Default)]
pub struct Identifiers {
    /// By their first bytes, lower case.
    long: HashMap<[u8; LONG_BYTES], Vec<Vec<u8>>>,
    short: HashSet<Vec<u8>>,
    uids: HashSet<String>,
}

impl Identifiers {
    /// Collects from the original.
    pub fn of(original: &Walked, bytes: &[u8]) -> Self {
        let mut found = Self::default();
        found.add_text(&bytes[..128]);
        for leaf in &original.meta {
            // Our own receiver wrote the implementation elements; the AE titles and private parts are the sender's.
            if matches!(leaf.tag(), 0x0002_0003 | 0x0002_0016..=0x0002_0018 | 0x0002_0026..=0x0002_0028 | 0x0002_0100..)
            {
                found.add(leaf, &bytes[leaf.value.clone()]);
            }
        }
        for leaf in &original.leaves {
            found.add(leaf, &bytes[leaf.value.clone()]);
        }
        found
    }

    /// Whether `uid` is one of the original's own.
    pub fn is_original_uid(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    fn add(&mut self, leaf: &Leaf, value: &[u8]) {
        let is_code = leaf.path.len() > 1 && matches!(leaf.tag(), 0x0008_0100..=0x0008_0105);
        let is_foreign = leaf.tag() >> 16 & 1 == 1 || dictionary(leaf.tag()).is_none() || &leaf.vr == b"UN";
        match &leaf.vr {
            b"UI" => self.add_uids(value),
            b"PN" | b"SH" | b"LO" | b"ST" | b"LT" | b"UT" | b"UC" | b"UR" | b"AE" | b"DA" | b"DT" if !is_code => {
                self.add_text(value);
            }
            // Codes and number strings are identifying where the profile touches them (a sex, an age), but too common
            // to search; profile.rs checks those attributes themselves.
            _ if is_foreign => self.add_text(value),
            _ => {}
        }
    }

    fn add_uids(&mut self, value: &[u8]) {
        for uid in String::from_utf8_lossy(value).split('\\').map(|uid| uid.trim_matches([' ', '\0'])) {
            if !uid.is_empty() && !is_registered(uid) {
                self.uids.insert(uid.to_owned());
                self.add_one(uid.as_bytes());
            }
        }
    }

    /// The whole, the parts of a name or list, and the words.
    fn add_text(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(VALUE_BYTES_MAX)];
        self.add_one(trimmed(value));
        for part in value.split(|b| matches!(b, b'\\' | b'^' | b'=' | 0 | b'\r' | b'\n')) {
            self.add_one(trimmed(part));
        }
        for word in value.split(|b| !b.is_ascii_alphanumeric() && *b < 0x80) {
            self.add_one(word);
        }
    }

    fn add_one(&mut self, value: &[u8]) {
        // Zeros and runs of one character identify nobody and are everywhere in binary values.
        let is_run = value.windows(2).all(|pair| pair[0] == pair[1]);
        if value.len() < SHORT_BYTES || is_run {
            return;
        }
        let value = value.to_ascii_lowercase();
        match value.first_chunk::<LONG_BYTES>() {
            Some(start) => {
                let list = self.long.entry(*start).or_default();
                if !list.contains(&value) {
                    list.push(value);
                }
            }
            None => _ = self.short.insert(value),
        }
    }

    /// Whether a long identifier is in `bytes` (of any case), and where it begins.
    pub fn find_long(&self, bytes: &[u8]) -> Option<usize> {
        let lower = bytes.to_ascii_lowercase();
        lower.windows(LONG_BYTES).enumerate().find_map(|(at, window)| {
            let start: &[u8; LONG_BYTES] = window.try_into().ok()?;
            self.long.get(start)?.iter().any(|value| lower[at..].starts_with(value)).then_some(at)
        })
    }

    fn has_short_word(&self, text: &[u8], is_number: bool) -> bool {
        text.split(|b| !b.is_ascii_alphanumeric() && *b < 0x80).any(|word| {
            let is_count = is_number && word.iter().all(u8::is_ascii_digit);
            !is_count && self.short.contains(&word.to_ascii_lowercase())
        })
    }

    /// Searches the copy: each value that the sender may have written, then the raw bytes as a whole.
    pub fn search(&self, copy: &Walked, bytes: &[u8], leak: &mut impl FnMut(&[u32], &'static str)) {
        let mut raw = bytes[..copy.pixels_at].to_vec();
        for leaf in copy.meta.iter().chain(&copy.leaves) {
            let value = &bytes[leaf.value.clone()];
            for range in public_parts(leaf, value) {
                raw[leaf.value.start + range.start..leaf.value.start + range.end].fill(0);
            }
            let rest = raw[leaf.value.clone()].to_vec();
            let is_number = matches!(&leaf.vr, b"IS" | b"DS");
            let is_text = !matches!(&leaf.vr, b"OB" | b"OW" | b"US" | b"SS" | b"UL" | b"SL" | b"FL" | b"FD" | b"AT");
            if self.find_long(&rest).is_some() || (is_text && self.has_short_word(&rest, is_number)) {
                leak(&leaf.path, "an identifier of the original");
                raw[leaf.value.clone()].fill(0);
            }
        }
        if self.find_long(&raw).is_some() {
            leak(&[], "an identifier of the original stands between the attributes");
        }
    }
}

/// The parts of a value that the sender did not write.
fn public_parts(leaf: &Leaf, value: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut at = 0;
    let is_code = leaf.path.len() > 1 && leaf.tag() == 0x0008_0100;
    let is_record = leaf.path.first() == Some(&0x0012_0064);
    for part in value.split(|byte| *byte == b'\\') {
        let word = std::str::from_utf8(trimmed(part)).unwrap_or_default();
        let is_ours = match &leaf.vr {
            b"UI" => is_registered(word) || is_hashed(word),
            // A digit string of a standard code is public only if the standard lists it.
            b"SH" | b"LO" | b"CS" | b"AE" | b"PN" | b"ST" | b"LT" | b"UT" | b"DA" | b"DT" | b"TM" | b"AS" => {
                is_public(word) || ((is_code || is_record) && is_public_code(word)) || is_meta_name(leaf, word)
            }
            b"IS" | b"DS" => word == "0",
            _ => false,
        };
        if is_ours {
            parts.push(at..at + part.len());
        }
        at += part.len() + 1;
    }
    parts
}

fn is_meta_name(leaf: &Leaf, word: &str) -> bool {
    leaf.tag() == 0x0002_0013 && word == "FOVEA"
}
