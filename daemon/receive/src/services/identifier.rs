//! Identifiers of queries and retrievals: what they ask of the holdings, and how rows are written as answers.
//!
//! In: a data set in the peer's character set. Out: [`Asked`]; for each row a data set with the keys that were asked for.
//! Promise: an answer holds no attribute that was not asked for, but level, character set and where it can be had.
//! Standard: PS3.4 sections C.2.2, C.4.1 and C.6, PS3.3 section C.12.1.1.2.

use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use fovea_core::{AeTitle, Query, QueryLevel, Row, Selection, TagNumber, Uid};
use fovea_dimse::DataSet;
use std::str::FromStr;

const CHARACTER_SET: TagNumber = 0x0008_0005;
const LEVEL: TagNumber = 0x0008_0052;
const RETRIEVE_AE: TagNumber = 0x0008_0054;
const AVAILABILITY: TagNumber = 0x0008_0056;
const PATIENT_ID: TagNumber = 0x0010_0020;
const STUDY: TagNumber = 0x0020_000D;
const SERIES: TagNumber = 0x0020_000E;
const INSTANCE: TagNumber = 0x0008_0018;
/// Keys that say how to ask, not what for (PS3.4 sections C.4.1.1.3 and C.4.1.3.2); the zone is not applied.
const NO_KEYS: [TagNumber; 6] = [CHARACTER_SET, LEVEL, 0x0008_0053, RETRIEVE_AE, AVAILABILITY, 0x0008_0201];
/// UIDs in one list of a retrieval.
const LISTED_MAX: usize = 4096;

/// Which information model is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Root {
    Patient,
    Study,
}

/// Why an identifier cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentifierError {
    #[error("no query level of this model")]
    Level,
    #[error("the key of the level is missing or no UID")]
    Key,
    #[error("too many keys in a list")]
    TooMany,
}

/// A question of a peer.
pub(crate) struct Asked {
    identifier: DataSet,
    level: QueryLevel,
    codec: SpecificCharacterSet,
    has_own_codec: bool,
}

impl Asked {
    /// Reads an identifier.
    pub(crate) fn new(identifier: DataSet, root: Root) -> Result<Self, IdentifierError> {
        let level = match (identifier.text(LEVEL), root) {
            (Some("PATIENT"), Root::Patient) => QueryLevel::Patient,
            (Some("STUDY"), _) => QueryLevel::Study,
            (Some("SERIES"), _) => QueryLevel::Series,
            (Some("IMAGE"), _) => QueryLevel::Instance,
            _ => return Err(IdentifierError::Level),
        };
        // Of several sets the first that is named: code extensions are not followed.
        let codes = identifier.text(CHARACTER_SET).unwrap_or_default();
        let own = codes.split('\\').find(|code| !code.trim().is_empty()).and_then(SpecificCharacterSet::from_code);
        Ok(Self { level, has_own_codec: own.is_some(), codec: own.unwrap_or_default(), identifier })
    }

    /// The value of a key as text; none for sequences and for binary values that are no numbers of ours.
    fn text(&self, tag: TagNumber) -> Option<String> {
        let bytes = self.identifier.bytes(tag)?;
        match self.identifier.vr(tag)? {
            b"US" if bytes.is_empty() => Some(String::new()),
            b"US" => self.identifier.u16(tag).map(|number| number.to_string()),
            vr if is_binary(*vr) => bytes.is_empty().then(String::new),
            _ => {
                let text = self.codec.decode(bytes).ok()?;
                Some(text.trim_matches([' ', '\0']).to_owned())
            }
        }
    }

    /// What is asked of the holdings, at most `limit` rows.
    pub(crate) fn query(&self, limit: usize) -> Query {
        let tags = self.identifier.tags().filter(|tag| !NO_KEYS.contains(tag));
        let keys = tags.filter_map(|tag| Some((tag, self.text(tag)?))).collect();
        Query { level: self.level, keys, offset: 0, limit }
    }

    /// The instances that are meant: the key of the level must be there (PS3.4 section C.4.2.2.1).
    pub(crate) fn selection(&self) -> Result<Selection, IdentifierError> {
        let selection = Selection {
            patient_id: self.text(PATIENT_ID).filter(|id| !id.is_empty()),
            study_uids: self.uids(STUDY)?,
            series_uids: self.uids(SERIES)?,
            sop_instance_uids: self.uids(INSTANCE)?,
        };
        let has_key = match self.level {
            QueryLevel::Patient => selection.patient_id.is_some(),
            QueryLevel::Study => !selection.study_uids.is_empty(),
            QueryLevel::Series => !selection.series_uids.is_empty(),
            QueryLevel::Instance => !selection.sop_instance_uids.is_empty(),
        };
        if has_key { Ok(selection) } else { Err(IdentifierError::Key) }
    }

    fn uids(&self, tag: TagNumber) -> Result<Vec<Uid>, IdentifierError> {
        let text = self.identifier.text(tag).unwrap_or_default();
        let listed = text.split('\\').filter(|uid| !uid.trim_matches([' ', '\0']).is_empty());
        let uids: Vec<Uid> =
            listed.map(|uid| Uid::new(uid.trim())).collect::<Result<_, _>>().map_err(|_| IdentifierError::Key)?;
        if uids.len() > LISTED_MAX { Err(IdentifierError::TooMany) } else { Ok(uids) }
    }

    /// The answer for one row, and whether every key that was asked for is in it.
    pub(crate) fn answer(&self, row: &Row, our_ae: &AeTitle) -> (DataSet, bool) {
        let level = match self.level {
            QueryLevel::Patient => "PATIENT",
            QueryLevel::Study => "STUDY",
            QueryLevel::Series => "SERIES",
            QueryLevel::Instance => "IMAGE",
        };
        let (codec, code) = self.codec_for(row);
        let mut answer = DataSet::default()
            .with_text(LEVEL, level)
            .with_text(RETRIEVE_AE, our_ae.as_str())
            .with_text(AVAILABILITY, "ONLINE");
        if let Some(code) = code {
            answer = answer.with_text(CHARACTER_SET, code);
        }
        let mut is_complete = true;
        for tag in self.identifier.tags().filter(|tag| !NO_KEYS.contains(tag)) {
            let value = row.get(&tag).and_then(|text| written(text, self.identifier.vr(tag).copied(), &codec));
            is_complete &= value.is_some();
            answer = match self.identifier.vr(tag) {
                Some(b"SQ") => answer.with_items(tag, Vec::new()),
                _ => answer.with_bytes(tag, &value.unwrap_or_default()),
            };
        }
        (answer, is_complete)
    }

    /// The peer's own character set where it can say all of the row, else UTF-8; with its code where one is needed.
    fn codec_for(&self, row: &Row) -> (SpecificCharacterSet, Option<&str>) {
        let asked = row.iter().filter(|(tag, _)| self.identifier.has(**tag));
        let foreign: Vec<&String> = asked.map(|(_, text)| text).filter(|text| !text.is_ascii()).collect();
        if foreign.is_empty() {
            return (SpecificCharacterSet::default(), None);
        }
        let says = |text: &&String| {
            let there = self.codec.encode(text).ok();
            there.and_then(|bytes| self.codec.decode(&bytes).ok()).is_some_and(|back| back == **text)
        };
        if self.has_own_codec && foreign.iter().all(says) {
            return (self.codec.clone(), self.identifier.text(CHARACTER_SET));
        }
        (SpecificCharacterSet::ISO_IR_192, Some("ISO_IR 192"))
    }
}

/// VRs whose values are no text (PS3.5 table 6.2-1), but for US.
fn is_binary(vr: [u8; 2]) -> bool {
    [b"AT", b"FD", b"FL", b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SL", b"SQ", b"SS", b"SV", b"UL", b"UN", b"UV"]
        .contains(&&vr)
}

/// A value of a row in the bytes of its VR; none where it has none there.
fn written(text: &str, vr: Option<[u8; 2]>, codec: &SpecificCharacterSet) -> Option<Vec<u8>> {
    match vr? {
        _ if text.is_empty() => Some(Vec::new()),
        vr if &vr == b"US" => u16::from_str(text.trim()).ok().map(|number| number.to_le_bytes().to_vec()),
        vr if is_binary(vr) => None,
        _ => codec.encode(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: TagNumber = 0x0010_0010;
    const ROWS: TagNumber = 0x0028_0010;

    fn asked(identifier: DataSet) -> Asked {
        Asked::new(identifier, Root::Study).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn keys_are_read_in_the_character_set_of_the_peer() {
        let latin = DataSet::default()
            .with_text(CHARACTER_SET, "ISO_IR 100")
            .with_text(LEVEL, "STUDY")
            .with_bytes(NAME, b"J\xfcrgen*")
            .with_u16(ROWS, 512);
        let query = asked(latin).query(7);
        assert_eq!((query.level, query.limit), (QueryLevel::Study, 7));
        assert_eq!(query.keys, [(NAME, "Jürgen*".to_owned()), (ROWS, "512".to_owned())]);
    }

    #[test]
    fn answers_are_in_the_peers_character_set_where_it_has_the_letters_and_in_utf_8_where_not() {
        let us = AeTitle::new("FOVEA").unwrap();
        let ask = |set: Option<&str>| {
            let identifier = DataSet::default().with_text(LEVEL, "STUDY").with_text(NAME, "");
            asked(set.into_iter().fold(identifier, |identifier, set| identifier.with_text(CHARACTER_SET, set)))
        };
        let row = |name: &str| Row::from([(NAME, name.to_owned()), (STUDY, "1.2".to_owned())]);
        let answer = |set, name| ask(set).answer(&row(name), &us).0;
        let latin = answer(Some("ISO_IR 100"), "Jürgen^A");
        assert_eq!((latin.text(CHARACTER_SET), latin.bytes(NAME)), (Some("ISO_IR 100"), Some(&b"J\xfcrgen^A"[..])));
        for (set, name) in [(Some("ISO_IR 100"), "山田^太郎"), (None, "Jürgen")] {
            let unicode = answer(set, name);
            assert_eq!((unicode.text(CHARACTER_SET), unicode.text(NAME)), (Some("ISO_IR 192"), Some(name)));
        }
        let plain = answer(Some("ISO_IR 100"), "Miller");
        assert_eq!((plain.text(CHARACTER_SET), plain.text(NAME)), (None, Some("Miller")));
        assert!(!plain.has(STUDY), "only what was asked for is told");
        assert_eq!(plain.text(RETRIEVE_AE), Some("FOVEA"));
    }

    #[test]
    fn a_key_that_is_not_held_comes_back_empty_and_is_said_to_be_missing() {
        let us = AeTitle::new("FOVEA").unwrap();
        let identifier = DataSet::default().with_text(LEVEL, "IMAGE").with_u16(ROWS, 0).with_text(0x0010_4000, "x");
        let row = Row::from([(ROWS, "512".to_owned())]);
        let (answer, is_complete) = asked(identifier).answer(&row, &us);
        assert_eq!((answer.u16(ROWS), answer.bytes(0x0010_4000), is_complete), (Some(512), Some(&[][..]), false));
    }

    #[test]
    fn a_retrieval_needs_the_key_of_its_level() {
        let study = || DataSet::default().with_text(LEVEL, "STUDY");
        assert_eq!(asked(study()).selection(), Err(IdentifierError::Key));
        let listed = asked(study().with_text(STUDY, "1.2\\1.3")).selection().unwrap();
        assert_eq!(listed.study_uids.len(), 2);
        assert_eq!(asked(study().with_text(STUDY, "1.2\\*")).selection(), Err(IdentifierError::Key));
        let patient = DataSet::default().with_text(LEVEL, "PATIENT");
        assert!(matches!(Asked::new(patient.clone(), Root::Study), Err(IdentifierError::Level)));
        assert!(Asked::new(patient, Root::Patient).is_ok());
    }
}
