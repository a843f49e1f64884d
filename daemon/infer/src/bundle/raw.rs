//! `bundle.toml`, schema 2, as it is written: unknown keys are refused, and every value is checked on its way to
//! [`Manifest`]. `raw_output` holds the outputs.

use super::manifest::{
    Algorithm, Eligible, Golden, Labels, Manifest, ManifestError, NETWORKS_MAX, Network, OPS_MAX, OUTPUTS_MAX, Tiles,
    safe_name,
};
use super::output::{Kind, Output};
use super::raw_output::RawOutput;
use fovea_core::{Channels, Code, InputSpec, QualityLimits, RoiMethod, Sha256};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most golden vectors.
const GOLDEN_MAX: u32 = 64;
/// Loosest tolerances a bundle may grant itself: past them the golden vectors would prove nothing.
const TOLERANCE_MAX: f64 = 0.1;
const TOLERANCE_MAP_MAX: f64 = 0.05;
/// Least side of a window, pixels: neighbours share 32.
const WINDOW_SIDE_MIN: u32 = 64;
/// Most files beside `bundle.toml` and `bundle.sig`.
const FILES_MAX: usize = 30;

pub(super) fn bad<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ManifestError> {
    Err(ManifestError::Value { key, problem: problem.into() })
}

pub(super) fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
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
    #[serde(default)]
    eligible: Eligible,
    labels: RawLabels,
    algorithm: RawAlgorithm,
    limits: RawLimits,
    networks: Vec<RawNetwork>,
    tiles: Option<RawTiles>,
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabels {
    meaning: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: String,
    input: RawInput,
    #[serde(default)]
    quality: QualityLimits,
    golden: RawGolden,
    outputs: Vec<RawOutput>,
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
    um_per_px: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCode {
    scheme: String,
    value: String,
    meaning: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGolden {
    inputs: String,
    expected: String,
    count: u32,
    tolerance_abs: Option<f64>,
    tolerance_map_mean: Option<f64>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTiles {
    field_um: f64,
    field_px: u32,
    nuclei_fields_max: u32,
}

impl Raw {
    /// The checked form.
    pub fn check(self) -> Result<Manifest, ManifestError> {
        if self.schema != 2 {
            return bad("schema", format!("is {}, this box reads schema 2", self.schema));
        }
        let files = check_files(self.files)?;
        if !(1..=OPS_MAX).contains(&self.limits.ops_max) {
            return bad("limits.ops_max", format!("is {}, it must be 1 to {OPS_MAX}", self.limits.ops_max));
        }
        let networks = check_networks(self.networks, &files)?;
        Ok(Manifest {
            id: word("id", self.id, 64, |b| lower(b) || b == b'-')?,
            version: word("version", self.version, 32, |b| b.is_ascii_alphanumeric() || b".+-".contains(&b))?,
            task: word("task", self.task, 64, |b| lower(b) || b == b'_')?,
            description: prose("description", self.description, 1000)?,
            licence: prose("licence", self.licence, 100)?,
            eligible: check_eligible(self.eligible)?,
            labels: Labels { meaning: prose("labels.meaning", self.labels.meaning, 300)? },
            algorithm: Algorithm {
                name: prose("algorithm.name", self.algorithm.name, 64)?,
                family: code("algorithm.family", self.algorithm.family)?,
            },
            ops_max: self.limits.ops_max,
            networks,
            tiles: self.tiles.map(RawTiles::check).transpose()?,
            files,
        })
    }
}

/// All networks, and what may be there only once in a bundle.
fn check_networks(raw: Vec<RawNetwork>, files: &BTreeMap<String, Sha256>) -> Result<Vec<Network>, ManifestError> {
    if !(1..=NETWORKS_MAX).contains(&raw.len()) {
        return bad("networks", format!("has {} entries, it must have 1 to {NETWORKS_MAX}", raw.len()));
    }
    let mut networks: Vec<Network> = Vec::new();
    for raw in raw {
        let network = raw.check()?;
        if networks.iter().any(|other| other.name == network.name) {
            return bad("networks.name", "must differ from network to network");
        }
        for (key, name) in [("networks.name", network.xml()), ("networks.name", network.bin())] {
            if !files.contains_key(&name) {
                return bad(key, format!("asks for {name}, which is not one of [files]"));
            }
        }
        for (key, name) in
            [("networks.golden.inputs", &network.golden.inputs), ("networks.golden.expected", &network.golden.expected)]
        {
            if !files.contains_key(name) {
                return bad(key, "is not one of [files]");
            }
        }
        networks.push(network);
    }
    let count = |is: fn(&Kind) -> bool| networks.iter().flat_map(|n| &n.outputs).filter(|o| is(&o.kind)).count();
    let main = count(|kind| matches!(kind, Kind::Binary(_) | Kind::Classes(_)));
    if main != 1 {
        return bad("networks.outputs", format!("has {main} main answers (binary_logit, class_logits), one is needed"));
    }
    // Their readings carry no name of their own: two could not be told apart.
    for (is, what) in [
        ((|kind| matches!(kind, Kind::Ordinal(_))) as fn(&Kind) -> bool, "ordinal_logits"),
        (|kind| matches!(kind, Kind::Mask(_)), "mask_logits"),
        (|kind| matches!(kind, Kind::Nuclei(_)), "nuclei_logits"),
    ] {
        if count(is) > 1 {
            return bad("networks.outputs", format!("has more than one of kind {what}"));
        }
    }
    Ok(networks)
}

impl RawNetwork {
    fn check(self) -> Result<Network, ManifestError> {
        if !(1..=OUTPUTS_MAX).contains(&self.outputs.len()) {
            return bad("networks.outputs", format!("must be 1 to {OUTPUTS_MAX} a network"));
        }
        let outputs = self.outputs.into_iter().map(RawOutput::check).collect::<Result<Vec<Output>, _>>()?;
        for (place, output) in outputs.iter().enumerate() {
            if outputs[..place].iter().any(|other| other.tensor == output.tensor) {
                return bad("networks.outputs.tensor", "must differ from output to output");
            }
        }
        if outputs.iter().filter(|output| matches!(output.kind, Kind::Gate(_))).count() > 1 {
            return bad("networks.outputs", "has more than one gate_logits in a network");
        }
        // Maps of nuclei are stitched from windows; no other answer is.
        let windows = self.input.roi == RoiMethod::Window;
        if outputs.iter().any(|output| matches!(output.kind, Kind::Nuclei(_)) != windows) {
            return bad("networks.input.roi", "is window for networks of nuclei_logits, and only for them");
        }
        if windows && self.input.width_px.min(self.input.height_px) < WINDOW_SIDE_MIN {
            return bad(
                "networks.input.width_px",
                format!("and height_px must be at least {WINDOW_SIDE_MIN} of a window"),
            );
        }
        let um_per_px = self.input.um_per_px;
        if um_per_px.is_some_and(|um| !windows || !(0.05..=20.0).contains(&um)) {
            return bad("networks.input.um_per_px", "must be 0.05 to 20, and stands only beside roi = \"window\"");
        }
        Ok(Network {
            name: word("networks.name", self.name, 32, |b| lower(b) || b == b'-')?,
            input_tensor: tensor("networks.input.tensor", self.input.tensor.clone())?,
            input: self.input.check()?,
            um_per_px,
            quality: check_quality(self.quality)?,
            golden: self.golden.check(&outputs)?,
            outputs,
        })
    }
}

impl RawInput {
    fn check(self) -> Result<InputSpec, ManifestError> {
        for (key, side) in [("networks.input.width_px", self.width_px), ("networks.input.height_px", self.height_px)] {
            if !(1..=4096).contains(&side) {
                return bad(key, format!("is {side}, it must be 1 to 4096"));
            }
        }
        let channels = self.channels.count();
        for (key, values) in [("networks.input.mean", &self.mean), ("networks.input.std", &self.std)] {
            if values.len() != channels || !values.iter().all(|value| value.abs() <= 1000.0) {
                return bad(key, format!("must be {channels} numbers of -1000 to 1000, one a channel"));
            }
        }
        if self.std.iter().any(|std| *std < 1e-6) {
            return bad("networks.input.std", "must be at least 0.000001");
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

impl RawGolden {
    fn check(self, outputs: &[Output]) -> Result<Golden, ManifestError> {
        if !(1..=GOLDEN_MAX).contains(&self.count) {
            return bad("networks.golden.count", format!("is {}, it must be 1 to {GOLDEN_MAX}", self.count));
        }
        let maps = outputs.iter().any(|output| output.kind.is_map());
        let numbers = outputs.iter().any(|output| !output.kind.is_map());
        let fits = |tolerance: Option<f64>, needed: bool, max: f64| match tolerance {
            Some(tolerance) => tolerance > 0.0 && tolerance <= max,
            None => !needed,
        };
        if !fits(self.tolerance_abs, numbers, TOLERANCE_MAX) {
            return bad("networks.golden.tolerance_abs", format!("must be above 0 and at most {TOLERANCE_MAX}"));
        }
        if !fits(self.tolerance_map_mean, maps, TOLERANCE_MAP_MAX) {
            let problem = format!("must be above 0 and at most {TOLERANCE_MAP_MAX}");
            return bad("networks.golden.tolerance_map_mean", problem);
        }
        Ok(Golden {
            inputs: self.inputs,
            expected: self.expected,
            count: self.count as usize,
            tolerance_abs: self.tolerance_abs,
            tolerance_map_mean: self.tolerance_map_mean,
        })
    }
}

impl RawTiles {
    fn check(self) -> Result<Tiles, ManifestError> {
        if !(16.0..=4096.0).contains(&self.field_um) {
            return bad("tiles.field_um", "must be 16 to 4096");
        }
        if !(64..=4096).contains(&self.field_px) {
            return bad("tiles.field_px", "must be 64 to 4096");
        }
        if !(1..=1024).contains(&self.nuclei_fields_max) {
            return bad("tiles.nuclei_fields_max", "must be 1 to 1024");
        }
        Ok(Tiles { field_um: self.field_um, field_px: self.field_px, nuclei_fields_max: self.nuclei_fields_max })
    }
}

/// ASCII of one alphabet, not empty.
pub(super) fn word(
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
pub(super) fn prose(key: &'static str, text: String, length_max: usize) -> Result<String, ManifestError> {
    let text = text.trim().to_owned();
    if (1..=length_max).contains(&text.chars().count()) && !text.chars().any(|c| c.is_control() && c != '\n') {
        Ok(text)
    } else {
        bad(key, format!("must be 1 to {length_max} characters, no control characters"))
    }
}

/// A tensor name reaches a C interface: no NUL, nothing odd.
pub(super) fn tensor(key: &'static str, text: String) -> Result<String, ManifestError> {
    word(key, text, 128, |b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b))
}

/// Lengths as in a code sequence item (PS3.5 table 6.2-1: SH 16, LO 64).
pub(super) fn code(key: &'static str, raw: RawCode) -> Result<Code, ManifestError> {
    Ok(Code {
        scheme: prose(key, raw.scheme, 16)?,
        value: prose(key, raw.value, 16)?,
        meaning: prose(key, raw.meaning, 64)?,
    })
}

fn check_quality(limits: QualityLimits) -> Result<QualityLimits, ManifestError> {
    let all = [limits.focus_min, limits.exposure_min, limits.exposure_max, limits.clipped_max, limits.field_min];
    if all.into_iter().flatten().all(f32::is_finite) {
        Ok(limits)
    } else {
        bad("networks.quality", "must be finite numbers")
    }
}

fn check_eligible(eligible: Eligible) -> Result<Eligible, ManifestError> {
    let lists = [&eligible.sop_classes, &eligible.modalities, &eligible.body_parts, &eligible.photometrics];
    if lists.iter().any(|list| list.len() > 64 || list.iter().any(|entry| entry.is_empty() || entry.len() > 64)) {
        return bad("eligible", "has a list of more than 64 entries, or an entry that is empty or longer than 64");
    }
    if eligible.lateralities.len() > 3 || eligible.lateralities.iter().any(|l| !["L", "R", "B"].contains(&l.as_str())) {
        return bad("eligible.lateralities", "may hold L, R and B");
    }
    if eligible.body_part_required && eligible.body_parts.is_empty() {
        return bad("eligible.body_part_required", "needs a list of body parts");
    }
    Ok(eligible)
}

fn check_files(raw: BTreeMap<String, String>) -> Result<BTreeMap<String, Sha256>, ManifestError> {
    if raw.len() > FILES_MAX {
        return bad("files", format!("lists {} files, the limit is {FILES_MAX}", raw.len()));
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
