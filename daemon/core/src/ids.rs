//! Small identifiers and the one unit of time.

use crate::Uid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Hasher};
use std::fmt;

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An AE title is 1 to 16 printable ASCII characters without backslash (PS3.5 table 6.2-1).
    #[error("an AE title has 1 to 16 printable ASCII characters, no backslash")]
    AeTitle,
    /// A finding id is `f-` and 32 hexadecimal digits.
    #[error("a finding id is `f-` followed by 32 hexadecimal digits")]
    FindingId,
    /// A SHA-256 is 64 hexadecimal digits.
    #[error("a SHA-256 is 64 hexadecimal digits")]
    Sha256,
}

/// An application entity title, without leading and trailing spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub struct AeTitle(String);

impl AeTitle {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`IdError::AeTitle`].
    pub fn new(text: &str) -> Result<Self, IdError> {
        let text = text.trim_matches([' ', '\0']);
        let fits = (1..=16).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\');
        if fits { Ok(Self(text.to_owned())) } else { Err(IdError::AeTitle) }
    }

    /// The text, without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AeTitle {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<AeTitle> for String {
    fn from(ae: AeTitle) -> String {
        ae.0
    }
}

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Hashes `bytes` in one go.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Hasher::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`IdError::Sha256`].
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        let digits = text.as_bytes();
        let mut out = [0u8; 32];
        if digits.len() != 64 {
            return Err(IdError::Sha256);
        }
        for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
            let nibble = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
            *byte = nibble(pair[0]).zip(nibble(pair[1])).map(|(high, low)| high << 4 | low).ok_or(IdError::Sha256)?;
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::from_hex(&text)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}

/// Names one finding: `f-` and 32 hexadecimal digits.
///
/// It follows from the object and the model alone, so a replay gives the same id (invariant 4).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub struct FindingId(String);

impl FindingId {
    /// The id of what `model` (its bundle's SHA-256, or `None` where no model ran) says of one object.
    #[must_use]
    pub fn of(sop_instance_uid: &Uid, object: &Sha256, model: Option<&Sha256>) -> Self {
        let model = model.map(ToString::to_string).unwrap_or_default();
        let digest = Sha256::of(format!("finding\n{sop_instance_uid}\n{object}\n{model}").as_bytes());
        Self(format!("f-{}", &digest.to_string()[..32]))
    }

    /// Checks `text`.
    ///
    /// # Errors
    /// [`IdError::FindingId`].
    pub fn new(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix("f-").ok_or(IdError::FindingId)?;
        let fits = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(Self(text.to_owned())) } else { Err(IdError::FindingId) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FindingId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<FindingId> for String {
    fn from(id: FindingId) -> String {
        id.0
    }
}

/// A moment: microseconds since 1970-01-01 00:00 UTC. Whoever needs "now" is handed it: stages have no clock of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default)]
#[serde(transparent)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// Microseconds from `earlier` to `self`, 0 when the clock stepped back.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl From<std::time::SystemTime> for UnixMicros {
    fn from(time: std::time::SystemTime) -> Self {
        let micros = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ae_titles_are_trimmed_and_bounded() {
        assert_eq!(AeTitle::new("  SCOPE  ").unwrap().as_str(), "SCOPE");
        for bad in ["", "   ", "A\\B", "SEVENTEEN_LETTERS", "TÜV", "A\nB"] {
            assert!(AeTitle::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sha256_reads_what_it_writes() {
        let digest = Sha256::of(b"fovea");
        assert_eq!(Sha256::from_hex(&digest.to_string()), Ok(digest));
        assert_eq!(Sha256::from_hex(&"é".repeat(32)), Err(IdError::Sha256));
    }

    #[test]
    fn inv_04_finding_ids_follow_from_object_and_model() {
        let uid = Uid::new("1.2.3").unwrap();
        let (object, model) = (Sha256::of(b"object"), Sha256::of(b"model"));
        let id = FindingId::of(&uid, &object, Some(&model));
        assert_eq!(id, FindingId::of(&uid, &object, Some(&model)));
        assert_ne!(id, FindingId::of(&uid, &object, None));
        assert_eq!(FindingId::new(id.as_str()), Ok(id));
    }
}
