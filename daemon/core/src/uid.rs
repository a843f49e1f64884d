//! DICOM unique identifiers: checked when made, safe as a file name, derived repeatably where we make them.
//! Standard: DICOM PS3.5 chapter 9 and annex B.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Hasher};
use std::fmt;

/// A DICOM UID: 1 to 64 characters, digits and single dots only, so it is safe as one path component.
///
/// Components with leading zeros are accepted (devices send them); everything else that PS3.5 section 9.1 forbids is not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(Box<str>);

/// Why a text is not a UID. The text itself is not carried: it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// Nothing is left after the padding.
    #[error("a UID is empty")]
    Empty,
    /// Longer than 64 characters.
    #[error("a UID has {length} characters, the limit is 64")]
    TooLong {
        /// Characters found.
        length: usize,
    },
    /// Something other than digits and single dots between them.
    #[error("a UID has a character or a dot where none may be, at position {position}")]
    Malformed {
        /// Byte position, from 0.
        position: usize,
    },
}

impl Uid {
    /// Checks `text`; trailing NUL and space padding (PS3.5 section 9.4) is taken off first.
    ///
    /// # Errors
    /// [`UidError`] says what is wrong and where.
    pub fn new(text: &str) -> Result<Self, UidError> {
        let text = text.trim_end_matches(['\0', ' ']);
        if text.is_empty() {
            return Err(UidError::Empty);
        }
        if text.len() > 64 {
            return Err(UidError::TooLong { length: text.len() });
        }
        let mut after_dot = true;
        for (position, byte) in text.bytes().enumerate() {
            match byte {
                b'0'..=b'9' => after_dot = false,
                b'.' if !after_dot => after_dot = true,
                _ => return Err(UidError::Malformed { position }),
            }
        }
        if after_dot { Err(UidError::Malformed { position: text.len() - 1 }) } else { Ok(Self(text.into())) }
    }

    /// A UID under `2.25` made from `purpose` and `parts`: the same input gives the same UID on every box, for ever.
    ///
    /// The 122 free bits of a version 8 UUID hold the start of a SHA-256 over the length-prefixed input
    /// (PS3.5 section B.2, RFC 9562 section 5.8). Not a secret: whoever knows the parts can derive it.
    #[must_use]
    pub fn derived(purpose: &str, parts: &[&str]) -> Self {
        let mut hasher = Hasher::new();
        for part in std::iter::once(&purpose).chain(parts) {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self::from_uuid_bytes(bytes)
    }

    /// The `2.25` form of 16 bytes, after version 8 and the variant are written into them (PS3.5 section B.2).
    #[must_use]
    pub fn from_uuid_bytes(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(format!("2.25.{}", u128::from_be_bytes(bytes)).into())
    }

    /// The text, without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Uid {
    type Error = UidError;
    fn try_from(text: String) -> Result<Self, UidError> {
        Self::new(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> String {
        uid.0.into()
    }
}

/// Storage SOP classes that the box treats by name. Standard: PS3.4 table B.5-1.
pub mod sop_class {
    /// Ophthalmic Photography 8 Bit Image Storage.
    pub const OPHTHALMIC_PHOTOGRAPHY_8_BIT: &str = "1.2.840.10008.5.1.4.1.1.77.1.5.1";
    /// Ophthalmic Photography 16 Bit Image Storage.
    pub const OPHTHALMIC_PHOTOGRAPHY_16_BIT: &str = "1.2.840.10008.5.1.4.1.1.77.1.5.2";
    /// Ultrasound Image Storage.
    pub const ULTRASOUND: &str = "1.2.840.10008.5.1.4.1.1.6.1";
    /// Ultrasound Multi-frame Image Storage.
    pub const ULTRASOUND_MULTI_FRAME: &str = "1.2.840.10008.5.1.4.1.1.3.1";
    /// Ultrasound Image Storage (retired), still sent by old carts.
    pub const ULTRASOUND_RETIRED: &str = "1.2.840.10008.5.1.4.1.1.6";
    /// Ultrasound Multi-frame Image Storage (retired).
    pub const ULTRASOUND_MULTI_FRAME_RETIRED: &str = "1.2.840.10008.5.1.4.1.1.3";
    /// Secondary Capture Image Storage.
    pub const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
    /// Multi-frame Single Bit Secondary Capture.
    pub const SECONDARY_CAPTURE_MULTI_BIT: &str = "1.2.840.10008.5.1.4.1.1.7.1";
    /// Multi-frame Grayscale Byte Secondary Capture.
    pub const SECONDARY_CAPTURE_MULTI_BYTE: &str = "1.2.840.10008.5.1.4.1.1.7.2";
    /// Multi-frame Grayscale Word Secondary Capture.
    pub const SECONDARY_CAPTURE_MULTI_WORD: &str = "1.2.840.10008.5.1.4.1.1.7.3";
    /// Multi-frame True Color Secondary Capture.
    pub const SECONDARY_CAPTURE_MULTI_COLOR: &str = "1.2.840.10008.5.1.4.1.1.7.4";
    /// VL Endoscopic Image Storage.
    pub const VL_ENDOSCOPIC: &str = "1.2.840.10008.5.1.4.1.1.77.1.1";
    /// VL Microscopic Image Storage.
    pub const VL_MICROSCOPIC: &str = "1.2.840.10008.5.1.4.1.1.77.1.2";
    /// VL Slide-Coordinates Microscopic Image Storage.
    pub const VL_SLIDE_MICROSCOPIC: &str = "1.2.840.10008.5.1.4.1.1.77.1.3";
    /// VL Photographic Image Storage.
    pub const VL_PHOTOGRAPHIC: &str = "1.2.840.10008.5.1.4.1.1.77.1.4";
    /// VL Whole Slide Microscopy Image Storage.
    pub const VL_WHOLE_SLIDE: &str = "1.2.840.10008.5.1.4.1.1.77.1.6";
    /// Comprehensive SR Storage.
    pub const COMPREHENSIVE_SR: &str = "1.2.840.10008.5.1.4.1.1.88.33";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_devices_send_and_takes_padding_off() {
        assert_eq!(Uid::new("1.2.840.10008.1.1\0").unwrap().as_str(), "1.2.840.10008.1.1");
        assert_eq!(Uid::new("1.2.03").unwrap().as_str(), "1.2.03");
    }

    #[test]
    fn refuses_what_is_no_path_component() {
        for bad in ["", "\0", "..", ".", "1..2", "1.2.", ".1", "1/2", "../../etc", "1.2a", "1 2", &"1".repeat(65)] {
            assert!(Uid::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn inv_04_derived_uids_repeat_and_do_not_run_together() {
        let a = Uid::derived("sr", &["1.2", "3"]);
        assert_eq!(a, Uid::derived("sr", &["1.2", "3"]));
        assert_ne!(a, Uid::derived("sr", &["1.", "23"]));
        assert_ne!(a, Uid::derived("sr", &["1.2", "3", ""]));
        // A golden value: a change here would give every stored result a second identity.
        assert_eq!(Uid::derived("golden", &["1"]).as_str(), "2.25.33730453068563562613876462740688666575");
    }

    proptest! {
        #[test]
        fn derived_uids_are_valid(purpose in ".{0,20}", part in ".{0,80}") {
            let uid = Uid::derived(&purpose, &[&part]);
            prop_assert_eq!(Uid::new(uid.as_str()).unwrap(), uid);
        }
    }
}
