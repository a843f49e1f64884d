//! Whose signature makes a bundle ours to run.
//! In: public key files. Out: [`TrustedKey`]s. Promise: a key that exists is a point that signatures can be checked with.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest key file that is read, bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why a text or file is no public key.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file could not be read.
    #[error("read the public key {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// More than one line, or no line, that is neither empty nor a comment.
    #[error("a public key file has one line of 64 hexadecimal digits beside its `#` comments, this one has {lines}")]
    Lines {
        /// Lines found.
        lines: usize,
    },
    /// Not hexadecimal, or not a usable key.
    #[error("not a usable ed25519 public key of 64 hexadecimal digits")]
    Key,
}

/// The key that the bundles of this release are signed with.
const RELEASE_KEY: &str = include_str!("../../../image/models/trust/fovea-models.pub");

/// An ed25519 public key whose bundles may run here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustedKey(VerifyingKey);

impl TrustedKey {
    /// Checks 32 raw bytes.
    ///
    /// # Errors
    /// [`TrustError::Key`] when they are no point of the curve, or one of small order that would fit any message.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, TrustError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| TrustError::Key)?;
        if key.is_weak() { Err(TrustError::Key) } else { Ok(Self(key)) }
    }

    /// The key that the bundles of this release are signed with.
    ///
    /// # Errors
    /// [`TrustError`] when this build was made with a damaged key file.
    pub fn release() -> Result<Self, TrustError> {
        Self::from_text(RELEASE_KEY)
    }

    /// Reads the text of a public key file: 64 hexadecimal digits on one line, `#` starts a comment line.
    ///
    /// # Errors
    /// [`TrustError::Lines`] or [`TrustError::Key`].
    pub fn from_text(text: &str) -> Result<Self, TrustError> {
        let mut keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines = keys.clone().count();
        match keys.next() {
            Some(key) if lines == 1 => {
                let digest = fovea_core::Sha256::from_hex(key).map_err(|_| TrustError::Key)?;
                Self::from_bytes(&digest.0)
            }
            _ => Err(TrustError::Lines { lines }),
        }
    }

    /// Reads a public key file.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        use std::io::Read;
        let failed = |source| TrustError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        Self::from_text(&text)
    }

    /// True when `signature` over `message` was made with this key's secret half (strict, RFC 8032 section 5.1.7).
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fovea_core::Sha256(self.0.to_bytes()).fmt(f)
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for TrustedKey {
    type Error = TrustError;
    fn try_from(text: String) -> Result<Self, TrustError> {
        Self::from_text(&text)
    }
}

impl From<TrustedKey> for String {
    fn from(key: TrustedKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn a_key_file_has_one_key_and_any_comments() {
        let secret = SigningKey::from_bytes(&[9; 32]);
        let key = TrustedKey::from_bytes(secret.verifying_key().as_bytes()).unwrap();
        assert_eq!(TrustedKey::from_text(&format!("# who\n\n  {key}\n")).unwrap(), key);
        assert!(matches!(TrustedKey::from_text("# nothing\n"), Err(TrustError::Lines { lines: 0 })));
        assert!(matches!(TrustedKey::from_text(&format!("{key}\n{key}\n")), Err(TrustError::Lines { lines: 2 })));
        assert!(matches!(TrustedKey::from_text("abc"), Err(TrustError::Key)));
    }

    #[test]
    fn a_weak_key_that_signs_everything_is_refused() {
        // The neutral element: with it a signature exists that fits every message.
        let mut neutral = [0u8; 32];
        neutral[0] = 1;
        assert!(matches!(TrustedKey::from_bytes(&neutral), Err(TrustError::Key)));
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let secret = SigningKey::from_bytes(&[9; 32]);
        let key = TrustedKey::from_bytes(secret.verifying_key().as_bytes()).unwrap();
        let other = TrustedKey::from_bytes(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes()).unwrap();
        let signature = secret.sign(b"manifest").to_bytes();
        assert!(key.signed(b"manifest", &signature));
        assert!(!key.signed(b"manifesT", &signature));
        assert!(!other.signed(b"manifest", &signature));
    }
}
