//! Text of a data set as characters, for every stage that shows or compares it.
//!
//! In: bytes of a value and the Specific Character Set (0008,0005). Out: text without padding and control characters.
//! Promise: never fails; what no character set explains becomes a replacement character.
//! Standard: PS3.3 section C.12.1.1.2, PS3.5 sections 6.1.2.3 to 6.1.2.5 (code extensions) and 6.2.

use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

const ESCAPE: u8 = 0x1B;
/// Escape sequences without their first byte, and what they switch to (PS3.3 tables C.12-3 and C.12-4).
const SWITCHES: &[(&[u8], &str)] = &[
    (b"(B", "ISO_IR 6"),
    (b"(J", "ISO_IR 13"),
    (b")I", "ISO_IR 13"),
    (b"$B", "ISO_IR 87"),
    (b"$)C", "ISO_IR 149"),
    (b"$)A", "GBK"),
    (b"-A", "ISO_IR 100"),
    (b"-B", "ISO_IR 101"),
    (b"-C", "ISO_IR 109"),
    (b"-D", "ISO_IR 110"),
    (b"-F", "ISO_IR 126"),
    (b"-G", "ISO_IR 127"),
    (b"-H", "ISO_IR 138"),
    (b"-L", "ISO_IR 144"),
    (b"-T", "ISO_IR 166"),
];
/// Two bytes a character, and decoded only behind its own escape sequence.
const JIS_X_0208: &str = "ISO_IR 87";

/// The character sets of one data set.
#[derive(Clone, Debug)]
pub struct Repertoire {
    first: SpecificCharacterSet,
    /// (0008,0005) has a first value that is known: without one nothing non-ASCII has a stated meaning.
    is_stated: bool,
    is_extended: bool,
}

impl Repertoire {
    /// From the value of (0008,0005); none where there is none.
    #[must_use]
    pub fn of(value: Option<&[u8]>) -> Self {
        let text = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let mut codes = text.split('\\').map(|code| code.trim_matches([' ', '\0']));
        let first = codes.next().filter(|code| !code.is_empty()).and_then(SpecificCharacterSet::from_code);
        Self {
            is_stated: first.is_some(),
            first: first.unwrap_or(SpecificCharacterSet::ISO_IR_6),
            is_extended: codes.next().is_some(),
        }
    }

    /// Characters of a value as they are: padding, line ends and all.
    #[must_use]
    pub fn raw(&self, bytes: &[u8]) -> String {
        if self.is_extended && bytes.contains(&ESCAPE) { self.switched(bytes) } else { self.plain(bytes) }
    }

    /// Characters of a value on one line: each of its values trimmed, joined by backslashes.
    #[must_use]
    pub fn text(&self, bytes: &[u8]) -> String {
        let text = self.raw(bytes);
        let clean: String = text.chars().map(|c| if c.is_control() && c != '\0' { ' ' } else { c }).collect();
        clean.split('\\').map(|value| value.trim_matches([' ', '\0'])).collect::<Vec<_>>().join("\\")
    }

    fn plain(&self, bytes: &[u8]) -> String {
        if bytes.is_ascii() {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        // Without a statement: devices that do not state theirs write UTF-8 or Latin 1.
        match std::str::from_utf8(bytes) {
            Ok(text) if !self.is_stated => text.to_owned(),
            _ if !self.is_stated => decoded(&SpecificCharacterSet::ISO_IR_100, bytes),
            _ => decoded(&self.first, bytes),
        }
    }

    /// Runs between escape sequences, each by its own set; a delimiter goes back to the first one (PS3.5 section 6.1.2.5.3).
    fn switched(&self, bytes: &[u8]) -> String {
        let (mut text, mut run, mut set) = (String::new(), Vec::new(), None);
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let switch = (byte == ESCAPE)
                .then(|| SWITCHES.iter().find(|(sequence, _)| bytes[at + 1..].starts_with(sequence)))
                .flatten();
            if let Some((sequence, code)) = switch {
                self.flush(&mut run, set, &mut text);
                set = Some(*code);
                at += 1 + sequence.len();
                continue;
            }
            // In the second byte of a character of two these are no delimiters.
            let is_delimiter = matches!(byte, b'^' | b'=' | b'\\' | b'\r' | b'\n') && set != Some(JIS_X_0208);
            run.push(byte);
            at += 1;
            if is_delimiter {
                self.flush(&mut run, set, &mut text);
                set = None;
            }
        }
        self.flush(&mut run, set, &mut text);
        text
    }

    fn flush(&self, run: &mut Vec<u8>, set: Option<&str>, text: &mut String) {
        let bytes = std::mem::take(run);
        match set {
            None => text.push_str(&self.plain(&bytes)),
            Some(JIS_X_0208) => {
                let with_escape = [&[ESCAPE, b'$', b'B'], bytes.as_slice()].concat();
                text.push_str(&named(JIS_X_0208, &with_escape));
            }
            Some(code) => text.push_str(&named(code, &bytes)),
        }
    }
}

fn named(code: &str, bytes: &[u8]) -> String {
    match SpecificCharacterSet::from_code(code) {
        Some(set) => decoded(&set, bytes),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn decoded(set: &SpecificCharacterSet, bytes: &[u8]) -> String {
    match set.decode(bytes) {
        // The decoder writes a byte that means nothing as a backslash and three octal digits, and a backslash parts values.
        Ok(text) if text.matches('\\').count() > bytes.iter().filter(|byte| **byte == b'\\').count() => replaced(&text),
        Ok(text) => text,
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// With a replacement character for each byte that the decoder could only number.
fn replaced(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('\\') {
        let digits = after.get(..3).filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')));
        out.push_str(before);
        out.push(if digits.is_some() { char::REPLACEMENT_CHARACTER } else { '\\' });
        rest = if digits.is_some() { &after[3..] } else { after };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(set: &str, bytes: &[u8]) -> String {
        Repertoire::of(Some(set.as_bytes())).text(bytes)
    }

    #[test]
    fn a_byte_that_means_nothing_becomes_one_replacement_character_and_parts_no_value() {
        assert_eq!(text("ISO_IR 192", b"M\xfcller^Hans"), "M\u{FFFD}ller^Hans");
        assert_eq!(text("ISO_IR 192", b"A\\7\xe417"), "A\\7\u{FFFD}17");
        assert_eq!(text("ISO_IR 100", b"M\xfcller\\B"), "Müller\\B");
    }

    #[test]
    fn names_of_the_standards_own_examples_are_read() {
        // PS3.5 annexes H and I.
        let japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        assert_eq!(text("\\ISO 2022 IR 87", japanese), "Yamada^Tarou=山田^太郎=やまだ^たろう");
        let korean = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf";
        assert_eq!(text("\\ISO 2022 IR 149", korean), "Hong^Gildong=洪^吉洞=홍^길동");
        assert_eq!(text("ISO_IR 192", "Wang^XiaoDong=王^小東".as_bytes()), "Wang^XiaoDong=王^小東");
        assert_eq!(text("ISO_IR 100", b"Buc^J\xe9r\xf4me"), "Buc^Jérôme");
        assert_eq!(text("ISO_IR 144", b"\xbb\xee\xda"), "Люк");
    }

    #[test]
    fn padding_and_controls_go_and_unstated_bytes_are_still_text() {
        assert_eq!(text("ISO_IR 100", b" A \\ B\0"), "A\\B");
        assert_eq!(text("ISO_IR 100", b"a\nb\x07c "), "a b c");
        assert_eq!(Repertoire::of(None).text("Jérôme".as_bytes()), "Jérôme");
        assert_eq!(Repertoire::of(None).text(b"J\xe9r"), "Jér");
        assert_eq!(text("NONSENSE", b"J\xe9r"), "Jér");
    }
}
