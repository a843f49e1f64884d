//! A model bundle: what it must hold, and the proof that it is what a trusted key signed.
//! In: open files ([`BundleFiles`]) and the trusted keys. Out: [`Bundle`], all that is needed to run it, in memory.
//! Promise: the signature is checked before anything but the tar's headers is looked at, every file is read once and
//! hashed as read, and the graph is inside its bounds before an engine sees it.

pub(crate) mod files;
pub(crate) mod graph;
pub(crate) mod manifest;
mod raw;

use crate::TrustedKey;
use files::{BundleFiles, Located, printable, unlisted_by_rule};
use fovea_core::{ModelRef, Sha256};
use graph::GraphError;
use manifest::{MODEL_BIN, MODEL_XML, Manifest, ManifestError};
use std::collections::BTreeMap;
use std::path::Path;

/// What everything hangs on: ids, bounds and the hash of every other file.
pub(crate) const BUNDLE_TOML: &str = "bundle.toml";
/// 64 raw bytes, ed25519 over the bytes of `bundle.toml` (RFC 8032).
pub(crate) const BUNDLE_SIG: &str = "bundle.sig";
/// Most files of a bundle, those two included.
pub(crate) const FILE_COUNT_MAX: usize = 32;

const TOML_BYTES_MAX: u64 = 64 << 10;
const XML_BYTES_MAX: u64 = 16 << 20;
const BIN_BYTES_MAX: u64 = 256 << 20;
const GOLDEN_BYTES_MAX: u64 = 64 << 20;
/// The card, licences, training notes.
const OTHER_BYTES_MAX: u64 = 4 << 20;

/// Why a bundle is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Its files could not be opened.
    #[error(transparent)]
    Open(#[from] files::OpenBundleError),
    /// A byte that should be there could not be read.
    #[error("read {name}")]
    Read {
        /// Which file.
        name: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Not a tar, or a damaged one.
    #[error("the tar cannot be walked")]
    Tar {
        /// Why it failed.
        source: std::io::Error,
    },
    /// A link, an odd or repeated name, or a path that leads out of the bundle.
    #[error("entry {name} is no plain file of a bundle, or is there twice")]
    Entry {
        /// The name, odd characters replaced.
        name: String,
    },
    /// More files than a bundle may have.
    #[error("{found} files or more, the limit is {FILE_COUNT_MAX}")]
    TooManyFiles {
        /// How many were seen.
        found: usize,
    },
    /// A file that must be there is not.
    #[error("{name} is missing")]
    Missing {
        /// Which.
        name: String,
    },
    /// A file that no hash vouches for.
    #[error("{name} is not listed in bundle.toml")]
    Unlisted {
        /// Which.
        name: String,
    },
    /// A file past its bound.
    #[error("{name} has {bytes} B, the limit is {bytes_max} B")]
    TooLarge {
        /// Which.
        name: String,
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// No trusted key signed `bundle.toml`.
    #[error("bundle.toml is signed by none of the {keys} trusted keys")]
    Untrusted {
        /// How many keys are trusted.
        keys: usize,
    },
    /// `bundle.toml` is signed, but not what it should be.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file is not the one that was signed.
    #[error("{name} does not have the SHA-256 that bundle.toml lists")]
    Hash {
        /// Which.
        name: String,
    },
    /// The golden vectors are not as many or not as large as `bundle.toml` says.
    #[error("the golden inputs have {found} B, {expected} B are needed")]
    GoldenLength {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The graph is outside its bounds or does not fit the manifest.
    #[error("model.xml: {0}")]
    Graph(#[from] GraphError),
}

/// A signed, whole and bounded bundle; nothing is known yet of how it runs.
#[derive(Debug)]
pub struct Bundle {
    /// What it says of itself.
    pub manifest: Manifest,
    /// SHA-256 of `bundle.toml`.
    pub sha256: Sha256,
    /// The graph, UTF-8 XML.
    pub model_xml: Vec<u8>,
    /// Its constants.
    pub model_bin: Vec<u8>,
    /// Golden pictures: u8, count x rows x columns x channels.
    pub golden_inputs: Vec<u8>,
}

impl Bundle {
    /// Opens and reads a bundle.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(path: &Path, trust: &[TrustedKey]) -> Result<Self, BundleError> {
        Self::read(&BundleFiles::open(path)?, trust)
    }

    /// Reads a bundle whose files are open.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(files: &BundleFiles, trust: &[TrustedKey]) -> Result<Self, BundleError> {
        let located = files.locate()?;
        if located.len() > FILE_COUNT_MAX {
            return Err(BundleError::TooManyFiles { found: located.len() });
        }
        let toml = signed_toml(&located, trust)?;
        let manifest = Manifest::parse(&toml)?;
        if let Some(name) = located.keys().find(|name| !unlisted_by_rule(name) && !manifest.files.contains_key(*name)) {
            return Err(BundleError::Unlisted { name: printable(name) });
        }
        let (mut model_xml, mut model_bin, mut golden_inputs) = (Vec::new(), Vec::new(), Vec::new());
        for (name, digest) in &manifest.files {
            let (kept, bytes_max) = match name.as_str() {
                MODEL_XML => (Some(&mut model_xml), XML_BYTES_MAX),
                MODEL_BIN => (Some(&mut model_bin), BIN_BYTES_MAX),
                name if name == manifest.golden.inputs => (Some(&mut golden_inputs), GOLDEN_BYTES_MAX),
                _ => (None, OTHER_BYTES_MAX),
            };
            let bytes = read(&located, name, bytes_max)?;
            if Sha256::of(&bytes) != *digest {
                return Err(BundleError::Hash { name: name.clone() });
            }
            if let Some(kept) = kept {
                *kept = bytes;
            }
        }
        let expected = manifest.input_len() * manifest.golden.count;
        if golden_inputs.len() != expected {
            return Err(BundleError::GoldenLength { expected, found: golden_inputs.len() });
        }
        graph::check(&model_xml, model_bin.len(), &manifest)?;
        Ok(Self { sha256: Sha256::of(&toml), manifest, model_xml, model_bin, golden_inputs })
    }

    /// What a bundle says of itself, where a trusted key signed that much: its other files are not looked at, so it
    /// may still be refused.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read_manifest(files: &BundleFiles, trust: &[TrustedKey]) -> Result<Manifest, BundleError> {
        Ok(Manifest::parse(&signed_toml(&files.locate()?, trust)?)?)
    }

    /// How results name this bundle.
    #[must_use]
    pub fn model_ref(&self) -> ModelRef {
        ModelRef { id: self.manifest.id.clone(), version: self.manifest.version.clone(), sha256: self.sha256 }
    }
}

fn read(located: &BTreeMap<String, Located>, name: &str, bytes_max: u64) -> Result<Vec<u8>, BundleError> {
    match located.get(name) {
        Some(file) => file.read(name, bytes_max),
        None => Err(BundleError::Missing { name: name.to_owned() }),
    }
}

/// The bytes of `bundle.toml`, once a trusted key's signature of them was checked.
fn signed_toml(located: &BTreeMap<String, Located>, trust: &[TrustedKey]) -> Result<Vec<u8>, BundleError> {
    let toml = read(located, BUNDLE_TOML, TOML_BYTES_MAX)?;
    let signature = read(located, BUNDLE_SIG, 64)?;
    let signed = |signature: [u8; 64]| trust.iter().any(|key| key.signed(&toml, &signature));
    match <[u8; 64]>::try_from(signature) {
        Ok(signature) if signed(signature) => Ok(toml),
        _ => Err(BundleError::Untrusted { keys: trust.len() }),
    }
}
