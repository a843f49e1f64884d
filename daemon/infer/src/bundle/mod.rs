//! A model bundle: what it must hold, and the proof that it is what a trusted key signed.
//! In: open files ([`BundleFiles`]) and the trusted keys. Out: [`Bundle`], all that is needed to run it, in memory.
//! Promise: the signature is checked before anything but the tar's headers is looked at, every file is read once and
//! hashed as read, and the graph is inside its bounds before an engine sees it.

pub(crate) mod files;
pub(crate) mod graph;
pub(crate) mod manifest;
pub(crate) mod output;
mod raw;
mod raw_output;
#[cfg(test)]
pub(crate) mod tests;

use crate::TrustedKey;
use crate::answer::Shape;
use files::{BundleFiles, Located, printable, unlisted_by_rule};
use fovea_core::{ModelRef, Sha256};
use graph::GraphError;
use manifest::{Manifest, ManifestError, Network};
use std::collections::BTreeMap;
use std::path::Path;

/// What everything hangs on: ids, bounds and the hash of every other file.
pub(crate) const BUNDLE_TOML: &str = "bundle.toml";
/// 64 raw bytes, ed25519 over the bytes of `bundle.toml` (RFC 8032).
pub(crate) const BUNDLE_SIG: &str = "bundle.sig";
/// Most files of a bundle, those two included.
pub(crate) const FILE_COUNT_MAX: usize = 32;

const TOML_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of all files together.
///
/// A bundle reaches a clinic over whatever line the clinic has and is read whole at every start: what INT8 networks
/// for one question need fits well into it, and what does not fit is no bundle for this box.
pub const BUNDLE_BYTES_MAX: u64 = 8 << 20;

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
    #[error("{name} has {found} B, {expected} B are needed")]
    GoldenLength {
        /// Which file.
        name: String,
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// A graph is outside its bounds or does not fit the manifest.
    #[error("{network}.xml: {source}")]
    Graph {
        /// Which network.
        network: String,
        /// What is wrong.
        source: GraphError,
    },
}

/// All that is needed to run and to prove one network, in memory.
#[derive(Debug)]
pub struct Graph {
    /// UTF-8 XML.
    pub xml: Vec<u8>,
    /// Its constants.
    pub bin: Vec<u8>,
    /// Shape of each output, in the order of the manifest, as the graph states it.
    pub shapes: Vec<Shape>,
    /// Golden pictures: u8, count x rows x columns x channels.
    pub golden_inputs: Vec<u8>,
    /// Their answers, 0 to 1 times 65535: vector by vector, output by output, element by element.
    pub golden_expected: Vec<u16>,
}

impl Graph {
    /// Numbers that the network answers to one tensor.
    #[must_use]
    pub fn answer_len(&self) -> usize {
        self.shapes.iter().map(|shape| shape.len()).sum()
    }
}

/// A signed, whole and bounded bundle; nothing is known yet of how it runs.
#[derive(Debug)]
pub struct Bundle {
    /// What it says of itself.
    pub manifest: Manifest,
    /// SHA-256 of `bundle.toml`.
    pub sha256: Sha256,
    /// One for each network of the manifest, in its order.
    pub graphs: Vec<Graph>,
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
        bounded(&located)?;
        let toml = signed_toml(&located, trust)?;
        let manifest = Manifest::parse(&toml)?;
        if let Some(name) = located.keys().find(|name| !unlisted_by_rule(name) && !manifest.files.contains_key(*name)) {
            return Err(BundleError::Unlisted { name: printable(name) });
        }
        let mut contents = BTreeMap::new();
        for (name, digest) in &manifest.files {
            let bytes = read(&located, name, BUNDLE_BYTES_MAX)?;
            if Sha256::of(&bytes) != *digest {
                return Err(BundleError::Hash { name: name.clone() });
            }
            contents.insert(name.as_str(), bytes);
        }
        let graphs = manifest
            .networks
            .iter()
            .map(|network| read_graph(network, manifest.ops_max, &contents))
            .collect::<Result<_, _>>()?;
        Ok(Self { sha256: Sha256::of(&toml), manifest, graphs })
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

/// Files one by one and all together: nothing is read of a bundle that is too large.
fn bounded(located: &BTreeMap<String, Located>) -> Result<(), BundleError> {
    if located.len() > FILE_COUNT_MAX {
        return Err(BundleError::TooManyFiles { found: located.len() });
    }
    let mut all: u64 = 0;
    for (name, file) in located {
        file.bounded(name, BUNDLE_BYTES_MAX)?;
        all += file.bytes();
    }
    if all > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { name: "the bundle".to_owned(), bytes: all, bytes_max: BUNDLE_BYTES_MAX });
    }
    Ok(())
}

/// Gathers one network's files, which are whole, and looks at its graph.
fn read_graph(network: &Network, ops_max: u32, contents: &BTreeMap<&str, Vec<u8>>) -> Result<Graph, BundleError> {
    let file = |name: &str| match contents.get(name) {
        Some(bytes) => Ok(bytes.clone()),
        None => Err(BundleError::Missing { name: name.to_owned() }),
    };
    let (xml, bin) = (file(&network.xml())?, file(&network.bin())?);
    let shapes = graph::check(&xml, bin.len(), network, ops_max)
        .map_err(|source| BundleError::Graph { network: network.name.clone(), source })?;
    let answer_len: usize = shapes.iter().map(|shape| shape.len()).sum();
    let golden = &network.golden;
    let of_length = |name: &str, expected: usize| {
        let bytes = file(name)?;
        if bytes.len() == expected {
            Ok(bytes)
        } else {
            Err(BundleError::GoldenLength { name: name.to_owned(), expected, found: bytes.len() })
        }
    };
    let golden_inputs = of_length(&golden.inputs, network.input_len() * golden.count)?;
    let expected = of_length(&golden.expected, answer_len * golden.count * 2)?;
    let golden_expected = expected.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok(Graph { xml, bin, shapes, golden_inputs, golden_expected })
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
