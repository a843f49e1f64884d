//! `bundle.toml`, schema 1, as it is written: unknown keys are refused, and every value is checked on its way to
//! [`Manifest`].

use super::manifest::{
    Algorithm, Eligible, Golden, MODEL_BIN, MODEL_XML, Manifest, ManifestError, OPS_MAX, Output, safe_name,
};
use fovea_core::{Channels, Code, InputSpec, QualityLimits, RoiMethod, Sha256};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most golden vectors.
const GOLDEN_MAX: u32 = 64;
/// Loosest tolerance a bundle may grant itself: past this the golden vectors would prove nothing.
const TOLERANCE_MAX: f64 = 0.1;
/// Most files beside `bundle.toml` and `bundle.sig`.
const FILES_MAX: usize = 30;

fn bad<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ManifestError> {
    Err(ManifestError::Value { key, problem: problem.into() })
}

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    schema: u32,
    id: String,
    version: String,
    task: String,
    description: String,
    licence: String,
    input: RawInput,
    #[serde(default)]
    quality: QualityLimits,
    outputs: Vec<RawOutput>,
    #[serde(default)]
    eligible: Eligible,
    golden: RawGolden,
    limits: RawLimits,
    algorithm: RawAlgorithm,
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    tensor: String,
    width_px: u32,
    height_px: u32,
    channels: Channels,
    mean: Vec<f32>,
    std: Vec<f32>,
    roi: RoiMethod,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputKind {
    BinaryLogit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCode {
    scheme: String,
    value: String,
    meaning: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    tensor: String,
    #[serde(rename = "kind")]
    _kind: OutputKind,
    label: String,
    code: RawCode,
    temperature: f64,
    clear_below: f64,
    significant_from: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGolden {
    inputs: String,
    count: u32,
    expected: Vec<f64>,
    tolerance_abs: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    ops_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlgorithm {
    name: String,
    family: RawCode,
}

impl Raw {
    /// The checked form.
    pub fn check(self) -> Result<Manifest, ManifestError> {
        if self.schema != 1 {
            return bad("schema", format!("is {}, this box reads schema 1", self.schema));
        }
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let [output] = <[RawOutput; 1]>::try_from(self.outputs)
            .or_else(|outputs| bad("outputs", format!("has {} entries, schema 1 has one", outputs.len())))?;
        let files = check_files(self.files)?;
        let golden = self.golden.check()?;
        if !files.contains_key(&golden.inputs) {
            return bad("golden.inputs", "is not one of [files]");
        }
        if !(1..=OPS_MAX).contains(&self.limits.ops_max) {
            return bad("limits.ops_max", format!("is {}, it must be 1 to {OPS_MAX}", self.limits.ops_max));
        }
        Ok(Manifest {
            id: word("id", self.id, 64, |b| lower(b) || b == b'-')?,
            version: word("version", self.version, 32, |b| b.is_ascii_alphanumeric() || b".+-".contains(&b))?,
            task: word("task", self.task, 64, |b| lower(b) || b == b'_')?,
            description: prose("description", self.description, 1000)?,
            licence: prose("licence", self.licence, 100)?,
            input_tensor: tensor("input.tensor", self.input.tensor.clone())?,
            input: self.input.check()?,
            quality: check_quality(self.quality)?,
            output: output.check()?,
            eligible: check_eligible(self.eligible)?,
            golden,
            ops_max: self.limits.ops_max,
            algorithm: Algorithm {
                name: prose("algorithm.name", self.algorithm.name, 64)?,
                family: code("algorithm.family", self.algorithm.family)?,
            },
            files,
        })
    }
}

impl RawInput {
    fn check(self) -> Result<InputSpec, ManifestError> {
        for (key, side) in [("input.width_px", self.width_px), ("input.height_px", self.height_px)] {
            if !(1..=4096).contains(&side) {
                return bad(key, format!("is {side}, it must be 1 to 4096"));
            }
        }
        let channels = self.channels.count();
        for (key, values) in [("input.mean", &self.mean), ("input.std", &self.std)] {
            if values.len() != channels || !values.iter().all(|value| value.abs() <= 1000.0) {
                return bad(key, format!("must be {channels} numbers of -1000 to 1000, one a channel"));
            }
        }
        if self.std.iter().any(|std| *std < 1e-6) {
            return bad("input.std", "must be at least 0.000001");
        }
        Ok(InputSpec {
            width_px: self.width_px,
            height_px: self.height_px,
            channels: self.channels,
            mean: self.mean,
            std: self.std,
            roi: self.roi,
        })
    }
}

impl RawOutput {
    fn check(self) -> Result<Output, ManifestError> {
        if !(0.01..=100.0).contains(&self.temperature) {
            return bad("outputs.temperature", "must be 0.01 to 100");
        }
        // Written so that a NaN fails too.
        let ordered =
            0.0 <= self.clear_below && self.clear_below <= self.significant_from && self.significant_from <= 1.0;
        if !ordered {
            return bad("outputs.clear_below", "and significant_from must be ordered and 0 to 1");
        }
        Ok(Output {
            tensor: tensor("outputs.tensor", self.tensor)?,
            label: prose("outputs.label", self.label, 64)?,
            code: code("outputs.code", self.code)?,
            temperature: self.temperature,
            clear_below: self.clear_below,
            significant_from: self.significant_from,
        })
    }
}

impl RawGolden {
    fn check(self) -> Result<Golden, ManifestError> {
        if !(1..=GOLDEN_MAX).contains(&self.count) {
            return bad("golden.count", format!("is {}, it must be 1 to {GOLDEN_MAX}", self.count));
        }
        if self.expected.len() != self.count as usize || self.expected.iter().any(|p| !(0.0..=1.0).contains(p)) {
            return bad("golden.expected", format!("must be {} probabilities, 0 to 1", self.count));
        }
        if !(self.tolerance_abs > 0.0 && self.tolerance_abs <= TOLERANCE_MAX) {
            return bad("golden.tolerance_abs", format!("must be above 0 and at most {TOLERANCE_MAX}"));
        }
        let count = self.count as usize;
        Ok(Golden { inputs: self.inputs, count, expected: self.expected, tolerance_abs: self.tolerance_abs })
    }
}

/// ASCII of one alphabet, not empty.
fn word(
    key: &'static str,
    text: String,
    length_max: usize,
    fits: impl Fn(u8) -> bool,
) -> Result<String, ManifestError> {
    if (1..=length_max).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text)
    } else {
        bad(key, format!("must be 1 to {length_max} characters of its alphabet"))
    }
}

/// Text for people: bounded, without control characters.
fn prose(key: &'static str, text: String, length_max: usize) -> Result<String, ManifestError> {
    let text = text.trim().to_owned();
    if (1..=length_max).contains(&text.chars().count()) && !text.chars().any(|c| c.is_control() && c != '\n') {
        Ok(text)
    } else {
        bad(key, format!("must be 1 to {length_max} characters, no control characters"))
    }
}

/// A tensor name reaches a C interface: no NUL, nothing odd.
fn tensor(key: &'static str, text: String) -> Result<String, ManifestError> {
    word(key, text, 128, |b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b))
}

/// Lengths as in a code sequence item (PS3.5 table 6.2-1: SH 16, LO 64).
fn code(key: &'static str, raw: RawCode) -> Result<Code, ManifestError> {
    Ok(Code {
        scheme: prose(key, raw.scheme, 16)?,
        value: prose(key, raw.value, 16)?,
        meaning: prose(key, raw.meaning, 64)?,
    })
}

fn check_quality(limits: QualityLimits) -> Result<QualityLimits, ManifestError> {
    let all = [limits.focus_min, limits.exposure_min, limits.exposure_max, limits.clipped_max, limits.field_min];
    if all.into_iter().flatten().all(f32::is_finite) { Ok(limits) } else { bad("quality", "must be finite numbers") }
}

fn check_eligible(eligible: Eligible) -> Result<Eligible, ManifestError> {
    let lists = [&eligible.sop_classes, &eligible.modalities, &eligible.body_parts, &eligible.photometrics];
    if lists.iter().any(|list| list.len() > 64 || list.iter().any(|entry| entry.is_empty() || entry.len() > 64)) {
        return bad("eligible", "has a list of more than 64 entries, or an entry that is empty or longer than 64");
    }
    Ok(eligible)
}

fn check_files(raw: BTreeMap<String, String>) -> Result<BTreeMap<String, Sha256>, ManifestError> {
    if raw.len() > FILES_MAX {
        return bad("files", format!("lists {} files, the limit is {FILES_MAX}", raw.len()));
    }
    for needed in [MODEL_XML, MODEL_BIN] {
        if !raw.contains_key(needed) {
            return bad("files", format!("does not list {needed}"));
        }
    }
    let mut files = BTreeMap::new();
    for (name, digest) in raw {
        if !safe_name(&name) || name == super::BUNDLE_TOML || name == super::BUNDLE_SIG {
            return bad("files", "lists a name that is no plain relative path of letters, digits, `.`, `_` and `-`");
        }
        let digest = Sha256::from_hex(&digest).or_else(|_| bad("files", format!("has no SHA-256 for {name}")))?;
        files.insert(name, digest);
    }
    Ok(files)
}
