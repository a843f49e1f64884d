//! Values in the JSON form of DICOM.
//!
//! In: text of an attribute and its representation. Out: JSON. Promise: a value that is not of its representation is told as text or
//! left out, never guessed.
//! Standard: PS3.18 annex F.2.

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use fovea_core::{QueryLevel, Row, TagNumber};
use serde_json::{Map, Value, json};

/// The representation of a tag by the dictionary, UN for what it does not know.
pub(super) fn vr_of(tag: TagNumber) -> VR {
    let tag = dicom_core::Tag((tag >> 16) as u16, tag as u16);
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// The tag of a keyword or of eight hexadecimal digits.
pub(super) fn tag_of(name: &str) -> Option<TagNumber> {
    if name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return TagNumber::from_str_radix(name, 16).ok();
    }
    let tag = StandardDataDictionary.by_name(name)?.tag.inner();
    Some(u32::from(tag.0) << 16 | u32::from(tag.1))
}

/// A tag as a key.
pub(super) fn key(tag: TagNumber) -> String {
    format!("{tag:08X}")
}

/// An attribute with its values; without any where the text is empty.
pub(super) fn attribute(vr: VR, text: &str) -> Value {
    let mut attribute = Map::new();
    attribute.insert("vr".to_owned(), Value::from(vr.to_string()));
    if !text.is_empty() {
        let values: Vec<Value> = match vr {
            VR::ST | VR::LT | VR::UT | VR::UR => vec![Value::from(text)],
            _ => text.split('\\').map(|value| one(vr, value)).collect(),
        };
        attribute.insert("Value".to_owned(), Value::from(values));
    }
    Value::from(attribute)
}

fn one(vr: VR, text: &str) -> Value {
    let text = text.trim_matches([' ', '\0']);
    match vr {
        _ if text.is_empty() => Value::Null,
        VR::PN => name(text),
        VR::IS | VR::US | VR::UL | VR::SS | VR::SL | VR::SV | VR::UV => {
            text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
        }
        // Infinity and NaN have no JSON number.
        VR::DS | VR::FL | VR::FD => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => Value::from(text),
        },
        _ => Value::from(text),
    }
}

fn name(text: &str) -> Value {
    let groups = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.split('='));
    let named = groups.filter(|(_, group)| !group.is_empty());
    Value::from(named.map(|(kind, group)| (kind.to_owned(), Value::from(group))).collect::<Map<_, _>>())
}

/// Attributes of the first item of Request Attributes Sequence, which a row has at its top.
const REQUESTED: [TagNumber; 2] = [0x0040_0009, 0x0040_1001];

/// A row of an answer, with where it can be fetched.
pub(super) fn row(row: &Row, level: QueryLevel, root: &str) -> Value {
    let mut json = Map::new();
    let mut requested = Map::new();
    for (tag, text) in row {
        let into = if REQUESTED.contains(tag) { &mut requested } else { &mut json };
        into.insert(key(*tag), attribute(vr_of(*tag), text));
    }
    if requested.values().any(|attribute| attribute.get("Value").is_some()) {
        json.insert("00400275".to_owned(), json!({ "vr": "SQ", "Value": [requested] }));
    }
    // Texts are UTF-8 here, whatever they were.
    json.insert("00080005".to_owned(), attribute(VR::CS, "ISO_IR 192"));
    let uid = |tag| row.get(&tag).map(String::as_str).unwrap_or_default();
    let mut url = format!("{root}/studies/{}", uid(0x0020_000D));
    if level >= QueryLevel::Series {
        url.push_str(&format!("/series/{}", uid(0x0020_000E)));
    }
    if level >= QueryLevel::Instance {
        url.push_str(&format!("/instances/{}", uid(0x0008_0018)));
    }
    json.insert("00081190".to_owned(), attribute(VR::UR, &url));
    Value::from(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_forms_of_the_standard() {
        assert_eq!(attribute(VR::CS, "OP\\US"), json!({ "vr": "CS", "Value": ["OP", "US"] }));
        assert_eq!(attribute(VR::LO, ""), json!({ "vr": "LO" }));
        assert_eq!(attribute(VR::IS, "07\\x"), json!({ "vr": "IS", "Value": [7, "x"] }));
        assert_eq!(attribute(VR::DS, "1.5\\\\inf"), json!({ "vr": "DS", "Value": [1.5, null, "inf"] }));
        assert_eq!(attribute(VR::LT, "a\\b"), json!({ "vr": "LT", "Value": ["a\\b"] }));
        let name = json!({ "vr": "PN", "Value": [{ "Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎" }] });
        assert_eq!(attribute(VR::PN, "Yamada^Tarou=山田^太郎"), name);
    }

    #[test]
    fn attributes_are_named_by_keyword_or_tag() {
        assert_eq!(tag_of("PatientName"), Some(0x0010_0010));
        assert_eq!(tag_of("0020000d"), Some(0x0020_000D));
        assert_eq!((tag_of("patientname"), tag_of(""), tag_of("0020000z")), (None, None, None));
    }
}
