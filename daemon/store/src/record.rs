//! One record of the journal, and how it lies on disk.
//!
//! In: what happened. Out: `"FvR" version u8 | length u32 | crc32 u32 | JSON`, numbers little endian.
//! Promise: a record that decodes is whole and stands where it was written: the checksum covers its place in the
//! journal, so old bytes that turn up elsewhere are not taken for a record.

use fovea_core::{Accepted, Custody, DocumentKind, Finding, Parcel, Quarantined, Sender, Sha256, Uid, UnixMicros};
use serde::{Deserialize, Serialize};

/// Longest JSON of one record. Eight times the longest finding; a dispatch of a hundred parcels is 50 KiB.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// Mark, length and checksum.
pub(crate) const FRAME_BYTES: usize = 12;
/// `FvR` and the version of what follows. Older versions have the same layout and fewer kinds of records, so they are read as
/// they are.
pub(crate) const MARK: [u8; 4] = *b"FvR\x03";

/// What happened. Replaying these in order gives the whole state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// An object is durable.
    Accepted(Accepted),
    /// An object came whose UID is held with other bytes.
    Conflict(Conflict),
    /// The one outcome of an object; `place` counts findings from 1.
    Finding { place: u64, finding: Box<Finding> },
    /// All that leaves the box, or is held back, for one object.
    Dispatched(Dispatched),
    /// A destination answered success.
    Delivered { seq: u64, destination: String, at: UnixMicros },
    /// A destination refused for good.
    SetAside { seq: u64, destination: String, reason: String, at: UnixMicros },
    /// What a destination answered for a parcel is forgotten: it waits there once more (since version 3).
    Again { seq: u64, destination: String },
    /// An archive proved that it keeps a parcel (since version 2).
    Custody { seq: u64, custody: Custody },
    /// A parcel's file is removed, and with it the object that it was a copy of (since version 2).
    Evicted(Evicted),
    /// All that is known of a parcel after its dispatch, in one record of a compacted file (since version 2).
    Settled(Settled),
    /// A document has this content from now on (since version 3).
    Remembered(Remembered),
    /// A document is no more (since version 3).
    Forgotten(Forgotten),
}

/// A newcomer under a UID that is held with other bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub sop_instance_uid: Uid,
    pub data_set_sha256: Sha256,
    pub sender: Sender,
    pub at: UnixMicros,
}

/// Files that were removed on purpose. Written before they go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Evicted {
    pub seq: u64,
    /// The object of which the parcel was the original.
    pub object: Option<Uid>,
    pub at: UnixMicros,
}

/// The answers for one parcel.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settled {
    pub seq: u64,
    pub delivered: Vec<(String, UnixMicros)>,
    pub set_aside: Vec<(String, String)>,
    pub custody: Vec<Custody>,
    /// Destinations whose earlier answers, from before the compacted files too, are forgotten.
    #[serde(default)]
    pub again: Vec<String>,
}

/// A document and its content. `number` counts what was remembered and forgotten from 1: of one key the highest counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub number: u64,
    pub kind: DocumentKind,
    pub key: String,
    pub content: Content,
}

/// A document that went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub number: u64,
    pub kind: DocumentKind,
    pub key: String,
}

/// Any bytes, in JSON as text where they are such, else as hexadecimal digits: never more than twice their length.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "Form", try_from = "Form")]
pub(crate) struct Content(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Text(String),
    Hex(String),
}

impl From<Content> for Form {
    fn from(Content(bytes): Content) -> Self {
        // JSON writes other control characters in six bytes, and nothing else in more than two for one.
        let plain = |byte: &u8| *byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t');
        if !bytes.iter().all(plain) {
            return Self::Hex(hex(&bytes));
        }
        String::from_utf8(bytes).map_or_else(|error| Self::Hex(hex(error.as_bytes())), Self::Text)
    }
}

impl TryFrom<Form> for Content {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        let digits = match form {
            Form::Text(text) => return Ok(Self(text.into_bytes())),
            Form::Hex(digits) => digits,
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or("no hexadecimal digit");
        let pair = |pair: &[u8]| match pair {
            // Two digits of four bits each fit into a byte.
            [high, low] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => Err("half a byte"),
        };
        digits.as_bytes().chunks(2).map(pair).collect::<Result<_, _>>().map(Self)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
    bytes.iter().flat_map(digits).collect()
}

/// What came of one object on its way out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Dispatched {
    pub source_sop_instance_uid: Uid,
    pub parcels: Vec<Parcel>,
    pub quarantined: Vec<Quarantined>,
    pub at: UnixMicros,
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("a record of {found} bytes, the limit is {RECORD_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("a record that has no JSON form")]
    Json { source: serde_json::Error },
}

/// Appends the frame of `record`, which will stand at place `position` of the journal, to `out`.
/// On an error `out` is as it was.
pub(crate) fn encode(record: &Record, position: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    if let Err(source) = serde_json::to_writer(&mut *out, record) {
        out.truncate(start);
        return Err(EncodeError::Json { source });
    }
    let found = out.len() - start - FRAME_BYTES;
    if found > RECORD_BYTES_MAX {
        out.truncate(start);
        return Err(EncodeError::TooLong { found });
    }
    let checksum = checksum(position, &out[start + FRAME_BYTES..]);
    out[start..start + 4].copy_from_slice(&MARK);
    out[start + 4..start + 8].copy_from_slice(&(found as u32).to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// Length of the JSON and its checksum, or none when this is no frame.
pub(crate) fn frame(head: &[u8; FRAME_BYTES]) -> Option<(usize, u32)> {
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = word(4) as usize;
    (head[..3] == MARK[..3] && (1..=MARK[3]).contains(&head[3]) && length <= RECORD_BYTES_MAX)
        .then(|| (length, word(8)))
}

/// CRC-32 over the place and the JSON.
pub(crate) fn checksum(position: u64, json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.to_le_bytes());
    hasher.update(&(json.len() as u32).to_le_bytes());
    hasher.update(json);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_only_valid_at_its_own_place() {
        let record = Record::Delivered { seq: 7, destination: "vna".into(), at: UnixMicros(1) };
        let mut bytes = Vec::new();
        encode(&record, 32, &mut bytes).unwrap();
        let head: [u8; FRAME_BYTES] = bytes[..FRAME_BYTES].try_into().unwrap();
        let (length, sum) = frame(&head).unwrap();
        assert_eq!(length, bytes.len() - FRAME_BYTES);
        assert_eq!(checksum(32, &bytes[FRAME_BYTES..]), sum);
        assert_ne!(checksum(33, &bytes[FRAME_BYTES..]), sum);
        assert_eq!(serde_json::from_slice::<Record>(&bytes[FRAME_BYTES..]).unwrap(), record);
    }

    #[test]
    fn a_document_of_any_bytes_comes_back_as_it_was_and_the_longest_fits() {
        let mut out = Vec::new();
        let mut back = |content: Vec<u8>| {
            out.clear();
            let (number, kind, key) = (1, DocumentKind::Message, "\"".repeat(fovea_core::DOCUMENT_KEY_BYTES_MAX));
            let record = Record::Remembered(Remembered { number, kind, key, content: Content(content) });
            encode(&record, 0, &mut out).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&out[FRAME_BYTES..]).unwrap(), record);
            out.len()
        };
        back(vec![]);
        back("of words \u{e4}\u{f6} \n and \"quotes\"".into());
        back((0..=255).collect());
        for byte in [0, 1, b'\n', b'"', b'\\', b'a', 0x7f, 0x80, 0xff] {
            let length = back(vec![byte; fovea_core::DOCUMENT_BYTES_MAX]);
            assert!(length < 2 * fovea_core::DOCUMENT_BYTES_MAX + 1024, "{byte}: {length}");
        }
        for form in [r#"{"hex":"0g"}"#, r#"{"hex":"012"}"#, r#"{"hex":"\u00e4"}"#, r#"{"other":""}"#] {
            assert!(serde_json::from_str::<Content>(form).is_err(), "{form}");
        }
    }

    #[test]
    fn a_record_past_the_limit_is_refused_and_leaves_nothing() {
        let record = Record::SetAside {
            seq: 1,
            destination: "vna".into(),
            reason: "x".repeat(RECORD_BYTES_MAX),
            at: UnixMicros(0),
        };
        let mut bytes = vec![1, 2, 3];
        assert!(matches!(encode(&record, 0, &mut bytes), Err(EncodeError::TooLong { .. })));
        assert_eq!(bytes, [1, 2, 3]);
    }
}
