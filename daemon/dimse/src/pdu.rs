//! The PDUs that open and close an association, by dicom-ul's coder over a buffer that we have bounded.
//! Standard: PS3.8 section 9.3.

use crate::ProtocolError;
use dicom_ul::pdu::{self, AssociationRJ, Pdu, UserVariableItem};
use fovea_core::Uid;
use std::sync::LazyLock;

/// A-ASSOCIATE-RQ.
pub(crate) const ASSOCIATE_RQ: u8 = 0x01;
/// A-ASSOCIATE-AC.
pub(crate) const ASSOCIATE_AC: u8 = 0x02;
/// A-ASSOCIATE-RJ.
pub(crate) const ASSOCIATE_RJ: u8 = 0x03;
/// P-DATA-TF.
pub(crate) const P_DATA: u8 = 0x04;
/// A-RELEASE-RQ.
pub(crate) const RELEASE_RQ: u8 = 0x05;
/// A-RELEASE-RP.
pub(crate) const RELEASE_RP: u8 = 0x06;
/// A-ABORT.
pub(crate) const ABORT: u8 = 0x07;

/// Longest A-ASSOCIATE PDU that is read: 128 contexts with 20 transfer syntaxes of 24 bytes each take 80 KiB.
pub(crate) const ASSOCIATE_BYTES_MAX: u32 = 256 * 1024;
/// Length of the release, reject and abort PDUs behind their header.
pub(crate) const SHORT_BYTES: u32 = 4;
/// The only application context there is (PS3.7 annex A).
pub(crate) const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// Who we are towards peers (PS3.7 section D.3.3.2). The same on every box and in every version.
#[must_use]
pub fn implementation_class_uid() -> &'static Uid {
    static UID: LazyLock<Uid> = LazyLock::new(|| Uid::derived("implementation class", &["fovea"]));
    &UID
}

/// Our version towards peers: at most 16 characters.
#[must_use]
pub fn implementation_version_name() -> &'static str {
    const NAME: &str = concat!("FOVEA_", env!("CARGO_PKG_VERSION"));
    const { assert!(NAME.len() <= 16, "PS3.7 table D.3-3 gives the name 16 characters") };
    NAME
}

/// Our half of the user information: what we take and who we are.
pub(crate) fn user_variables(max_pdu_bytes: u32) -> Vec<UserVariableItem> {
    vec![
        UserVariableItem::MaxLength(max_pdu_bytes),
        UserVariableItem::ImplementationClassUID(implementation_class_uid().as_str().to_owned()),
        UserVariableItem::ImplementationVersionName(implementation_version_name().to_owned()),
    ]
}

/// The peer's limit as told in its user information, none where it did not say (no limit then, as with 0).
pub(crate) fn max_length(items: &[UserVariableItem]) -> Option<u32> {
    items.iter().find_map(|item| match item {
        UserVariableItem::MaxLength(bytes) => Some(*bytes),
        _ => None,
    })
}

/// Reads one whole association PDU, header included.
pub(crate) fn decode(bytes: &[u8]) -> Result<Pdu, ProtocolError> {
    let malformed = ProtocolError::Malformed { pdu_type: bytes.first().copied().unwrap_or(0) };
    match pdu::read_pdu(bytes, ASSOCIATE_BYTES_MAX, true) {
        Ok(Some(read)) => Ok(read),
        Ok(None) | Err(_) => Err(malformed),
    }
}

/// Encodes an A-ASSOCIATE PDU, none where a text does not fit its field.
pub(crate) fn encode(value: &Pdu) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    pdu::write_pdu(&mut bytes, value).ok().map(|()| bytes)
}

/// A-ASSOCIATE-RJ (PS3.8 table 9-21).
pub(crate) fn reject(result: u8, source: u8, reason: u8) -> [u8; 10] {
    [ASSOCIATE_RJ, 0, 0, 0, 0, 4, 0, result, source, reason]
}

/// A-ABORT (PS3.8 table 9-26).
pub(crate) fn abort(source: u8, reason: u8) -> [u8; 10] {
    [ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason]
}

/// A-RELEASE-RQ or -RP.
pub(crate) fn release(pdu_type: u8) -> [u8; 10] {
    [pdu_type, 0, 0, 0, 0, 4, 0, 0, 0, 0]
}

/// Headers of a P-DATA PDU with one value of `data_bytes` (PS3.8 tables 9-22 and 9-23, annex E).
pub(crate) fn p_data_header(context_id: u8, is_command: bool, is_last: bool, data_bytes: u32) -> [u8; 12] {
    let pdu = (data_bytes + 6).to_be_bytes();
    let pdv = (data_bytes + 2).to_be_bytes();
    let control = u8::from(is_command) | u8::from(is_last) << 1;
    [P_DATA, 0, pdu[0], pdu[1], pdu[2], pdu[3], pdv[0], pdv[1], pdv[2], pdv[3], context_id, control]
}

/// A rejection in words.
pub(crate) fn rejection_words(rejection: &AssociationRJ) -> String {
    rejection.source.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_ul::pdu::{PDataValue, PDataValueType};

    #[test]
    fn our_headers_are_those_of_dicom_ul() {
        let data = vec![7u8; 40];
        for (is_command, is_last) in [(true, true), (true, false), (false, true), (false, false)] {
            let value_type = if is_command { PDataValueType::Command } else { PDataValueType::Data };
            let value = PDataValue { presentation_context_id: 3, value_type, is_last, data: data.clone() };
            let theirs = encode(&Pdu::PData { data: vec![value] }).unwrap();
            let ours = [p_data_header(3, is_command, is_last, 40).as_slice(), &data].concat();
            assert_eq!(ours, theirs);
        }
        assert_eq!(release(RELEASE_RQ).as_slice(), encode(&Pdu::ReleaseRQ).unwrap());
        assert_eq!(release(RELEASE_RP).as_slice(), encode(&Pdu::ReleaseRP).unwrap());
    }

    #[test]
    fn our_name_is_a_uid_and_fits() {
        assert!(implementation_class_uid().as_str().starts_with("2.25."));
        assert!(implementation_version_name().starts_with("FOVEA_"));
    }
}
