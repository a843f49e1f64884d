//! `bundle.toml`, schema 1, in the checked form that everybody uses; `raw.rs` is the form as it is written.
//! In: TOML bytes that are already known to be signed. Out: [`Manifest`].
//! Promise: every number, name and length in a [`Manifest`] is inside its bound.

use super::raw::Raw;
use fovea_core::{Code, InputSpec, QualityLimits, Sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most operations that any bundle may claim: compile time grows faster than their number and cannot be cancelled.
///
/// This bounds what a signed `limits.ops_max` may say, so that no maker can ask for an endless compile; `ops_max`
/// bounds the graph beside it, so that a graph that grew without its maker's notice is not run.
pub const OPS_MAX: u32 = 2000;
/// The graph (OpenVINO IR, XML).
pub const MODEL_XML: &str = "model.xml";
/// Its constants.
pub const MODEL_BIN: &str = "model.bin";

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

/// What the model answers, how its answer becomes a probability, and where the bands begin.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Name of the tensor in the graph; one element, a logit.
    pub tensor: String,
    /// What the probability is of, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// The logit is divided by it, greater than 0.
    pub temperature: f64,
    /// Below this the band is clear, 0 to 1.
    pub clear_below: f64,
    /// From this on the band is significant, `clear_below` to 1.
    pub significant_from: f64,
}

/// Which objects the model may answer for. An empty list takes any.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eligible {
    /// SOP class UIDs.
    pub sop_classes: Vec<String>,
    /// (0008,0060).
    pub modalities: Vec<String>,
    /// (0018,0015), asked only of objects that name one.
    pub body_parts: Vec<String>,
    /// (0028,0004).
    pub photometrics: Vec<String>,
    /// Least rows, pixels.
    pub min_rows_px: u32,
    /// Least columns, pixels.
    pub min_columns_px: u32,
}

/// Pictures whose answers were recorded in FP32 when the bundle was made.
#[derive(Clone, PartialEq, Debug)]
pub struct Golden {
    /// File of the bundle: u8, `count` x rows x columns x channels, in the channel order of the input.
    pub inputs: String,
    /// How many, 1 to 64.
    pub count: usize,
    /// Probability of each, 0 to 1.
    pub expected: Vec<f64>,
    /// Farthest a probability here may be from the recorded one.
    pub tolerance_abs: f64,
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
    /// Name of the input tensor in the graph.
    pub input_tensor: String,
    /// Geometry and normalisation of the input.
    pub input: InputSpec,
    /// The worst picture the model answers for.
    pub quality: QualityLimits,
    /// The answer.
    pub output: Output,
    /// What the model may be asked about.
    pub eligible: Eligible,
    /// Proof that it runs as it was trained.
    pub golden: Golden,
    /// Most operations in the graph, 1 to [`OPS_MAX`], which says why there are two bounds.
    pub ops_max: u32,
    /// Who answers.
    pub algorithm: Algorithm,
    /// SHA-256 of every other file but `bundle.sig`.
    pub files: BTreeMap<String, Sha256>,
}

impl Manifest {
    /// Elements of the input tensor, N = 1.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.input.width_px as usize * self.input.height_px as usize * self.input.channels.count()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let digest = Sha256::of(b"");
        format!(
            r#"
schema = 1
id = "eye-test"
version = "1.0.0"
task = "some_task"
description = "Says something."
licence = "Apache-2.0"
[input]
tensor = "image"
width_px = 8
height_px = 8
channels = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
roi = "full_frame"
[quality]
focus_min = 0.1
[[outputs]]
tensor = "logit"
kind = "binary_logit"
label = "something"
code = {{ scheme = "SCT", value = "4855003", meaning = "Diabetic retinopathy" }}
temperature = 1.0
clear_below = 0.2
significant_from = 0.6
[eligible]
modalities = ["OP"]
[golden]
inputs = "golden/inputs.bin"
count = 1
expected = [0.5]
tolerance_abs = 0.03
[limits]
ops_max = 1500
[algorithm]
name = "Eye test"
family = {{ scheme = "DCM", value = "123109", meaning = "Artificial Intelligence" }}
[files]
"model.xml" = "{digest}"
"model.bin" = "{digest}"
"golden/inputs.bin" = "{digest}"
"#
        )
    }

    #[test]
    fn a_whole_manifest_is_read() {
        let manifest = Manifest::parse(text().as_bytes()).unwrap();
        assert_eq!(manifest.input_len(), 192);
        assert_eq!(manifest.eligible.modalities, ["OP"]);
        assert_eq!(manifest.quality.focus_min, Some(0.1));
    }

    #[test]
    fn every_value_outside_its_bound_is_refused_by_name() {
        let cases = [
            ("schema = 1", "schema = 2", "schema"),
            ("id = \"eye-test\"", "id = \"../eye\"", "id"),
            ("version = \"1.0.0\"", "version = \"\"", "version"),
            ("task = \"some_task\"", "task = \"Some task\"", "task"),
            ("width_px = 8", "width_px = 5000", "input.width_px"),
            ("height_px = 8", "height_px = 0", "input.height_px"),
            ("mean = [0.5, 0.5, 0.5]", "mean = [0.5]", "input.mean"),
            ("mean = [0.5, 0.5, 0.5]", "mean = [nan, 0.5, 0.5]", "input.mean"),
            ("std = [0.25, 0.25, 0.25]", "std = [0.25, 0.0, 0.25]", "input.std"),
            ("tensor = \"image\"", "tensor = \"im\\u0000age\"", "input.tensor"),
            ("temperature = 1.0", "temperature = 0.0", "outputs.temperature"),
            ("temperature = 1.0", "temperature = nan", "outputs.temperature"),
            ("clear_below = 0.2", "clear_below = 0.7", "outputs.clear_below"),
            ("clear_below = 0.2", "clear_below = nan", "outputs.clear_below"),
            ("significant_from = 0.6", "significant_from = 1.5", "outputs.clear_below"),
            ("value = \"4855003\"", "value = \"48550034855003485\"", "outputs.code"),
            ("count = 1", "count = 65", "golden.count"),
            ("count = 1", "count = 2", "golden.expected"),
            ("expected = [0.5]", "expected = [1.5]", "golden.expected"),
            ("tolerance_abs = 0.03", "tolerance_abs = 0.5", "golden.tolerance_abs"),
            ("inputs = \"golden/inputs.bin\"", "inputs = \"other.bin\"", "golden.inputs"),
            ("ops_max = 1500", "ops_max = 2001", "limits.ops_max"),
            ("focus_min = 0.1", "focus_min = inf", "quality"),
            ("modalities = [\"OP\"]", "modalities = [\"\"]", "eligible"),
            ("\"golden/inputs.bin\" =", "\"../inputs.bin\" =", "files"),
            ("\"model.bin\" =", "\"weights.bin\" =", "files"),
        ];
        for (from, to, wanted) in cases {
            let changed = text().replace(from, to);
            assert_ne!(changed, text(), "{from} is not in the text");
            match Manifest::parse(changed.as_bytes()) {
                Err(ManifestError::Value { key, .. }) => assert_eq!(key, wanted, "{to}"),
                other => panic!("{to}: {other:?}"),
            }
        }
    }

    #[test]
    fn unknown_and_missing_keys_are_refused() {
        for (from, to) in [
            ("ops_max = 1500", "ops_max = 1500\nops_mix = 1"),
            ("roi = \"full_frame\"", ""),
            ("kind = \"binary_logit\"", "kind = \"oracle\""),
            ("schema = 1", "schema = \"1\""),
            ("schema = 1", "schema ="),
        ] {
            let refused = Manifest::parse(text().replace(from, to).as_bytes());
            assert!(matches!(refused, Err(ManifestError::Toml { .. })), "{to}: {refused:?}");
        }
        assert!(matches!(Manifest::parse(b"\xff\xfe"), Err(ManifestError::Toml { .. })));
    }

    #[test]
    fn names_stay_inside_the_bundle() {
        for good in ["model.xml", "golden/inputs.bin", "a/b/c.d", "card.md"] {
            assert!(safe_name(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/b/c/d", "a\\b", "a b", "a\0b", "ü"] {
            assert!(!safe_name(bad), "{bad:?}");
        }
    }
}
