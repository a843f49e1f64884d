//! `[[networks.outputs]]` as it is written, checked on its way to [`Output`].

use super::manifest::ManifestError;
use super::output::{
    Bands, Binary, Class, Classes, Gate, GateOutcome, GateReason, Heat, Kind, Mask, Nuclei, Ordinal, Output,
};
use super::raw::{RawCode, bad, code, lower, prose, tensor, word};
use fovea_core::Reason;
use serde::Deserialize;

/// Most classes, and a tile map's digits name as many.
const CLASSES_MAX: usize = 10;
/// Most levels above 0, most reasons of a gate.
const STEPS_MAX: usize = 15;
/// Most outlines of a heat map.
const REGIONS_MAX: u32 = 16;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RawOutput {
    BinaryLogit(RawBinary),
    OrdinalLogits(RawOrdinal),
    ClassLogits(RawClasses),
    GateLogits(RawGate),
    MaskLogits(RawMask),
    HeatLogits(RawHeat),
    NucleiLogits(RawNuclei),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBinary {
    tensor: String,
    label: String,
    code: RawCode,
    temperature: f64,
    clear_below: f64,
    significant_from: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOrdinal {
    tensor: String,
    label: String,
    code: RawCode,
    temperature: f64,
    levels: Vec<String>,
    thresholds: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawClass {
    value: String,
    label: String,
    code: RawCode,
    positive: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawClasses {
    tensor: String,
    label: String,
    code: RawCode,
    temperature: f64,
    clear_below: f64,
    significant_from: f64,
    classes: Vec<RawClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGateReason {
    code: String,
    text: String,
    #[serde(default)]
    advice: String,
    outcome: GateOutcome,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGate {
    tensor: String,
    temperature: f64,
    threshold: f64,
    reasons: Vec<RawGateReason>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReason {
    code: String,
    text: String,
    #[serde(default)]
    advice: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMask {
    tensor: String,
    label: String,
    code: RawCode,
    threshold: f64,
    area_min_share: f64,
    required: Option<RawReason>,
    axes: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHeat {
    tensor: String,
    label: String,
    threshold: f64,
    regions_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNuclei {
    tensor: String,
    label: String,
    code: RawCode,
    interior_threshold: f64,
    seed_threshold: f64,
    area_min_px: u32,
    #[serde(default)]
    mean_min: f64,
}

impl RawOutput {
    /// The checked form.
    pub fn check(self) -> Result<Output, ManifestError> {
        let (name, kind) = match self {
            Self::BinaryLogit(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Binary(raw.check()?)),
            Self::OrdinalLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Ordinal(raw.check()?)),
            Self::ClassLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Classes(raw.check()?)),
            Self::GateLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Gate(raw.check()?)),
            Self::MaskLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Mask(raw.check()?)),
            Self::HeatLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Heat(raw.check()?)),
            Self::NucleiLogits(mut raw) => (std::mem::take(&mut raw.tensor), Kind::Nuclei(raw.check()?)),
        };
        Ok(Output { tensor: tensor("networks.outputs.tensor", name)?, kind })
    }
}

impl RawBinary {
    fn check(self) -> Result<Binary, ManifestError> {
        Ok(Binary {
            label: label(self.label)?,
            code: code("networks.outputs.code", self.code)?,
            temperature: temperature(self.temperature)?,
            bands: bands(self.clear_below, self.significant_from)?,
        })
    }
}

impl RawOrdinal {
    fn check(self) -> Result<Ordinal, ManifestError> {
        let steps = self.thresholds.len();
        if !(1..=STEPS_MAX).contains(&steps) || !self.thresholds.iter().all(|threshold| inside(*threshold)) {
            return bad("networks.outputs.thresholds", format!("must be 1 to {STEPS_MAX} numbers above 0 and below 1"));
        }
        if self.levels.len() != steps + 1 {
            return bad("networks.outputs.levels", "must be one word more than there are thresholds");
        }
        let levels = self.levels.into_iter().map(|level| prose("networks.outputs.levels", level, 64));
        Ok(Ordinal {
            levels: levels.collect::<Result<_, _>>()?,
            label: label(self.label)?,
            code: code("networks.outputs.code", self.code)?,
            temperature: temperature(self.temperature)?,
            thresholds: self.thresholds,
        })
    }
}

impl RawClasses {
    fn check(self) -> Result<Classes, ManifestError> {
        if !(2..=CLASSES_MAX).contains(&self.classes.len()) {
            return bad("networks.outputs.classes", format!("must be 2 to {CLASSES_MAX}"));
        }
        if self.classes.iter().all(|class| class.positive) || !self.classes.iter().any(|class| class.positive) {
            return bad("networks.outputs.classes", "must hold a positive and a negative one");
        }
        let mut classes: Vec<Class> = Vec::new();
        for raw in self.classes {
            let value = word("networks.outputs.classes.value", raw.value, 64, |b| lower(b) || b == b'_' || b == b'-')?;
            if classes.iter().any(|class| class.value == value) {
                return bad("networks.outputs.classes.value", "must differ from class to class");
            }
            let label = prose("networks.outputs.classes.label", raw.label, 64)?;
            let code = code("networks.outputs.classes.code", raw.code)?;
            classes.push(Class { value, label, code, positive: raw.positive });
        }
        Ok(Classes {
            label: label(self.label)?,
            code: code("networks.outputs.code", self.code)?,
            temperature: temperature(self.temperature)?,
            bands: bands(self.clear_below, self.significant_from)?,
            classes,
        })
    }
}

impl RawGate {
    fn check(self) -> Result<Gate, ManifestError> {
        if !(1..=STEPS_MAX).contains(&self.reasons.len()) {
            return bad("networks.outputs.reasons", format!("must be 1 to {STEPS_MAX}"));
        }
        let checked = self.reasons.into_iter().map(|raw| {
            let reason = reason("networks.outputs.reasons", raw.code, raw.text, raw.advice)?;
            Ok(GateReason { reason, outcome: raw.outcome })
        });
        Ok(Gate {
            temperature: temperature(self.temperature)?,
            threshold: between("networks.outputs.threshold", self.threshold)?,
            reasons: checked.collect::<Result<_, ManifestError>>()?,
        })
    }
}

impl RawMask {
    fn check(self) -> Result<Mask, ManifestError> {
        if !(0.0..=1.0).contains(&self.area_min_share) {
            return bad("networks.outputs.area_min_share", "must be 0 to 1");
        }
        let required =
            self.required.map(|raw| reason("networks.outputs.required", raw.code, raw.text, raw.advice)).transpose()?;
        Ok(Mask {
            label: label(self.label)?,
            code: code("networks.outputs.code", self.code)?,
            threshold: between("networks.outputs.threshold", self.threshold)?,
            area_min_share: self.area_min_share,
            required,
            axes: self.axes,
        })
    }
}

impl RawHeat {
    fn check(self) -> Result<Heat, ManifestError> {
        if !(1..=REGIONS_MAX).contains(&self.regions_max) {
            return bad("networks.outputs.regions_max", format!("must be 1 to {REGIONS_MAX}"));
        }
        Ok(Heat {
            label: label(self.label)?,
            threshold: between("networks.outputs.threshold", self.threshold)?,
            regions_max: self.regions_max,
        })
    }
}

impl RawNuclei {
    fn check(self) -> Result<Nuclei, ManifestError> {
        if !(-1.0..=1.0).contains(&self.seed_threshold) {
            return bad("networks.outputs.seed_threshold", "must be -1 to 1");
        }
        if !(1..=1_000_000).contains(&self.area_min_px) {
            return bad("networks.outputs.area_min_px", "must be 1 to 1000000");
        }
        if !(0.0..1.0).contains(&self.mean_min) {
            return bad("networks.outputs.mean_min", "must be 0 up to below 1");
        }
        Ok(Nuclei {
            label: label(self.label)?,
            code: code("networks.outputs.code", self.code)?,
            interior_threshold: between("networks.outputs.interior_threshold", self.interior_threshold)?,
            seed_threshold: self.seed_threshold,
            area_min_px: self.area_min_px,
            mean_min: self.mean_min,
        })
    }
}

fn label(text: String) -> Result<String, ManifestError> {
    prose("networks.outputs.label", text, 64)
}

fn temperature(value: f64) -> Result<f64, ManifestError> {
    if (0.01..=100.0).contains(&value) { Ok(value) } else { bad("networks.outputs.temperature", "must be 0.01 to 100") }
}

/// A threshold that something can be on either side of. A NaN is not.
fn inside(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

fn between(key: &'static str, value: f64) -> Result<f64, ManifestError> {
    if inside(value) { Ok(value) } else { bad(key, "must be above 0 and below 1") }
}

fn bands(clear_below: f64, significant_from: f64) -> Result<Bands, ManifestError> {
    // Written so that a NaN fails too.
    if 0.0 <= clear_below && clear_below <= significant_from && significant_from <= 1.0 {
        Ok(Bands { clear_below, significant_from })
    } else {
        bad("networks.outputs.clear_below", "and significant_from must be ordered and 0 to 1")
    }
}

/// Advice may be empty: sometimes nothing can be done.
fn reason(key: &'static str, code: String, text: String, advice: String) -> Result<Reason, ManifestError> {
    let advice = if advice.is_empty() { advice } else { prose(key, advice, 300)? };
    Ok(Reason { code: word(key, code, 64, |b| lower(b) || b == b'_')?, text: prose(key, text, 200)?, advice })
}
