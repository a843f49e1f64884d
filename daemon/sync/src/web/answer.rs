//! What an archive says of a STOW-RS request, instance by instance, and of a QIDO-RS query.
//!
//! In: status and DICOM JSON. Out: a [`Stored`] for each instance that was sent. Promise: success is believed only where the status
//! or the instance's own row says so; what a body does not speak of is settled by the status alone.
//! Standard: PS3.18 sections 10.5.3, 10.6.3 and annex I.2 (store instances response module), annex F (DICOM JSON).

use fovea_core::Uid;
use serde_json::Value;
use std::collections::HashMap;

const REFERENCED_SEQUENCE: &str = "00081199";
const FAILED_SEQUENCE: &str = "00081198";
const FAILURE_REASON: &str = "00081197";
const WARNING_REASON: &str = "00081196";
const REFERENCED_INSTANCE: &str = "00081155";
const SOP_INSTANCE: &str = "00080018";

/// What became of one instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// It is there; with what it was coerced by, if anything (PS3.18 table I.2-2).
    Kept { warning: Option<u16> },
    /// It is not, and why; a status of PS3.4 annex B, or 0 where the archive gave none.
    Failed { reason: u16 },
    /// The archive did not speak of it.
    Unknown,
}

/// A store response.
pub(crate) struct StoreAnswer(HashMap<String, Stored>);

impl StoreAnswer {
    /// Reads the body; what cannot be read speaks of nothing.
    pub(crate) fn read(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        // Some servers answer a list of one.
        let answer = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
        let mut rows = HashMap::new();
        for row in items(answer, REFERENCED_SEQUENCE) {
            if let Some(uid) = text(row, REFERENCED_INSTANCE) {
                rows.insert(uid.to_owned(), Stored::Kept { warning: number(row, WARNING_REASON) });
            }
        }
        for row in items(answer, FAILED_SEQUENCE) {
            if let Some(uid) = text(row, REFERENCED_INSTANCE) {
                rows.insert(uid.to_owned(), Stored::Failed { reason: number(row, FAILURE_REASON).unwrap_or(0) });
            }
        }
        Self(rows)
    }

    /// What it says of an instance.
    pub(crate) fn of(&self, uid: &Uid) -> Stored {
        self.0.get(uid.as_str()).copied().unwrap_or(Stored::Unknown)
    }
}

/// SOP Instance UIDs of a QIDO-RS answer.
pub(crate) fn held_instances(body: &[u8]) -> Vec<String> {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter_map(|row| text(row, SOP_INSTANCE)).map(str::to_owned).collect()
}

fn items<'a>(data_set: &'a Value, tag: &str) -> &'a [Value] {
    data_set[tag]["Value"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(data_set: &'a Value, tag: &str) -> Option<&'a str> {
    items(data_set, tag).first().and_then(Value::as_str).map(|text| text.trim_end_matches(['\0', ' ']))
}

/// A number; some servers write it as text.
fn number(data_set: &Value, tag: &str) -> Option<u16> {
    let value = items(data_set, tag).first()?;
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_gets_its_own_answer() {
        let body = br#"[{"00081199":{"vr":"SQ","Value":[
            {"00081150":{"vr":"UI","Value":["1.2"]},"00081155":{"vr":"UI","Value":["1.2.3"]}},
            {"00081155":{"vr":"UI","Value":["1.2.4"]},"00081196":{"vr":"US","Value":[45056]}}]},
            "00081198":{"vr":"SQ","Value":[
            {"00081155":{"vr":"UI","Value":["1.2.5"]},"00081197":{"vr":"US","Value":[272]}},
            {"00081155":{"vr":"UI","Value":["1.2.6"]}}]}}]"#;
        let answer = StoreAnswer::read(body);
        let of = |uid: &str| answer.of(&Uid::new(uid).unwrap());
        assert_eq!(of("1.2.3"), Stored::Kept { warning: None });
        assert_eq!(of("1.2.4"), Stored::Kept { warning: Some(0xB000) });
        assert_eq!(of("1.2.5"), Stored::Failed { reason: 0x0110 });
        assert_eq!(of("1.2.6"), Stored::Failed { reason: 0 });
        assert_eq!(of("1.2.7"), Stored::Unknown);
    }

    #[test]
    fn inv_08_nonsense_speaks_of_nothing() {
        for body in [&b""[..], b"<xml/>", b"[]", b"[[]]", b"{\"00081199\":5}", b"{\"00081199\":{\"Value\":[7]}}"] {
            assert_eq!(StoreAnswer::read(body).of(&Uid::new("1.2").unwrap()), Stored::Unknown);
            assert!(held_instances(body).is_empty());
        }
        assert_eq!(held_instances(br#"[{"00080018":{"Value":["1.2.3"]}}]"#), ["1.2.3"]);
    }
}
