//! `bundle.toml`, schema 2, in the checked form that everybody uses; `raw.rs` is the form as it is written.
//! In: TOML bytes that are already known to be signed. Out: [`Manifest`].
//! Promise: every number, name and length in a [`Manifest`] is inside its bound.

use super::output::{Kind, Output};
use super::raw::Raw;
use fovea_core::{Code, InputSpec, QualityLimits, Sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most operations that any network may claim: compile time grows faster than their number and cannot be cancelled.
///
/// This bounds what a signed `limits.ops_max` may say, so that no maker can ask for an endless compile; `ops_max`
/// bounds the graph beside it, so that a graph that grew without its maker's notice is not run.
pub const OPS_MAX: u32 = 2000;
/// Most networks of a bundle.
pub const NETWORKS_MAX: usize = 4;
/// Most outputs of a network.
pub const OUTPUTS_MAX: usize = 8;
/// Longest side of an answered map, elements.
pub const MAP_SIDE_MAX: usize = 1024;

/// Why a `bundle.toml` is not one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, a key is missing, unknown or of the wrong type.
    #[error("bundle.toml: {message}")]
    Toml {
        /// What the parser says, one line.
        message: String,
    },
    /// A value is outside its bound.
    #[error("bundle.toml: {key} {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Which objects the model may answer for. An empty list takes any.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eligible {
    /// SOP class UIDs.
    pub sop_classes: Vec<String>,
    /// (0008,0060).
    pub modalities: Vec<String>,
    /// (0018,0015), asked of objects that name one; of all where `body_part_required`.
    pub body_parts: Vec<String>,
    /// Whether an object must name its body part.
    pub body_part_required: bool,
    /// (0020,0062), else (0020,0060): `L`, `R`, `B`; asked only of objects that state one.
    pub lateralities: Vec<String>,
    /// (0028,0004).
    pub photometrics: Vec<String>,
    /// Least rows, pixels.
    pub min_rows_px: u32,
    /// Least columns, pixels.
    pub min_columns_px: u32,
}

/// What a site's own labels mean, where it checks the bundle against its own pictures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Labels {
    /// For people, 1 to 300 characters.
    pub meaning: String,
}

/// Pictures whose answers were recorded in FP32 when the bundle was made.
#[derive(Clone, PartialEq, Debug)]
pub struct Golden {
    /// File of the bundle: u8, `count` x rows x columns x channels, in the channel order of the input.
    pub inputs: String,
    /// File of the bundle: u16 little endian, round(activated value x 65535); vector by vector, output by output.
    pub expected: String,
    /// How many vectors, 1 to 64.
    pub count: usize,
    /// Farthest a number here may be from the recorded one; there where the network answers numbers.
    pub tolerance_abs: Option<f64>,
    /// Greatest mean distance of a map here from the recorded one; there where the network answers maps.
    pub tolerance_map_mean: Option<f64>,
}

/// One graph of a bundle: what it wants to see and what it answers.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// Lower-case letters, digits and `-`, 1 to 32: its files are `<name>.xml` and `<name>.bin`.
    pub name: String,
    /// Name of the input tensor in the graph.
    pub input_tensor: String,
    /// Geometry and normalisation of the input.
    pub input: InputSpec,
    /// Of a network that sees windows: micrometres a pixel of a window has where the object states its pixel size.
    pub um_per_px: Option<f64>,
    /// The worst picture the network answers for.
    pub quality: QualityLimits,
    /// Proof that it runs as it was trained.
    pub golden: Golden,
    /// What it answers, 1 to [`OUTPUTS_MAX`].
    pub outputs: Vec<Output>,
}

impl Network {
    /// Elements of the input tensor, N = 1.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.input.width_px as usize * self.input.height_px as usize * self.input.channels.count()
    }

    /// The graph's file (OpenVINO IR, XML).
    #[must_use]
    pub fn xml(&self) -> String {
        format!("{}.xml", self.name)
    }

    /// The file of the graph's constants.
    #[must_use]
    pub fn bin(&self) -> String {
        format!("{}.bin", self.name)
    }
}

/// How slides are read: field by field.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tiles {
    /// Side of a field where the object states its pixel size, micrometres.
    pub field_um: f64,
    /// Side of a field elsewhere, pixels.
    pub field_px: u32,
    /// Most fields in which nuclei are counted.
    pub nuclei_fields_max: u32,
}

/// Who answers, for the report (PS3.16 TID 1500: algorithm identification).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Algorithm {
    /// Name, 1 to 64 characters.
    pub name: String,
    /// Family, coded.
    pub family: Code,
}

/// A checked `bundle.toml`.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Lower-case letters, digits and `-`, 1 to 64.
    pub id: String,
    /// Letters, digits, `.`, `+` and `-`, 1 to 32.
    pub version: String,
    /// What is asked, lower-case letters, digits and `_`.
    pub task: String,
    /// For people.
    pub description: String,
    /// SPDX expression.
    pub licence: String,
    /// What the model may be asked about.
    pub eligible: Eligible,
    /// What a site's labels mean.
    pub labels: Labels,
    /// Who answers.
    pub algorithm: Algorithm,
    /// Most operations in each graph, 1 to [`OPS_MAX`], which says why there are two bounds.
    pub ops_max: u32,
    /// In the order in which they run, 1 to [`NETWORKS_MAX`].
    pub networks: Vec<Network>,
    /// How slides are read; none where the bundle reads none.
    pub tiles: Option<Tiles>,
    /// SHA-256 of every other file but `bundle.sig`.
    pub files: BTreeMap<String, Sha256>,
}

impl Manifest {
    /// Reads and checks the bytes of `bundle.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] names the key and what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let not_toml = |message: String| ManifestError::Toml { message: message.replace('\n', " ") };
        let text = std::str::from_utf8(bytes).map_err(|_| not_toml("not UTF-8".to_owned()))?;
        let raw: Raw = toml::from_str(text).map_err(|error| not_toml(error.message().to_owned()))?;
        raw.check()
    }

    /// Every output with its network's and its own place, in the order of the file.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, usize, &Output)> {
        self.networks.iter().enumerate().flat_map(|(network, owner)| {
            owner.outputs.iter().enumerate().map(move |(output, one)| (network, output, one))
        })
    }

    /// What the main answer is of, in words. A checked manifest has exactly one.
    #[must_use]
    pub fn label(&self) -> &str {
        self.outputs()
            .find_map(|(_, _, output)| match &output.kind {
                Kind::Binary(binary) => Some(binary.label.as_str()),
                Kind::Classes(classes) => Some(classes.label.as_str()),
                _ => None,
            })
            .unwrap_or_default()
    }
}

/// A plain relative path: up to 3 parts of letters, digits, `.`, `_`, `-`, none of them starting with a dot.
pub fn safe_name(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    name.len() <= 100 && name.split('/').count() <= 3 && name.split('/').all(plain)
}
