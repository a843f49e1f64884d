//! Lists of probabilities: the main answer, levels, and gates.

use crate::answer::{Answer, Answers};
use crate::bundle::manifest::{Manifest, Network};
use crate::bundle::output::{Bands, Classes, GateOutcome, Kind, Ordinal, Output};
use fovea_core::{ClassScore, Code, Measurement, Reason, Scores};

/// A gate's word against an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gated {
    /// For programs and people.
    pub reason: Reason,
    /// How the object ends.
    pub outcome: GateOutcome,
}

/// What the network's gate says of a picture: none where it passes, or where the network has no gate.
///
/// `answers`: of this network. When a gate turns a picture away, nothing else of the bundle is told.
#[must_use]
pub fn gate(network: &Network, answers: &Answers) -> Option<Gated> {
    let (gate, answer) = network.outputs.iter().zip(answers).find_map(|(output, answer)| match &output.kind {
        Kind::Gate(gate) => Some((gate, answer)),
        _ => None,
    })?;
    let (fit, against) = answer.values.split_first()?;
    if f64::from(*fit) >= gate.threshold {
        return None;
    }
    let (_, reason) = against.iter().zip(&gate.reasons).max_by(|a, b| a.0.total_cmp(b.0))?;
    Some(Gated { reason: reason.reason.clone(), outcome: reason.outcome })
}

/// Probability that the picture is fit to be answered for, 0 to 1; none where the network has no gate.
#[must_use]
pub fn fit_probability(network: &Network, answers: &Answers) -> Option<f64> {
    let mut gates = network.outputs.iter().zip(answers).filter(|(output, _)| matches!(output.kind, Kind::Gate(_)));
    gates.next().and_then(|(_, answer)| answer.values.first()).map(|fit| f64::from(*fit))
}

/// The bundle's main answer.
///
/// - `answers`: one for each network of the manifest, in its order; empty for one that did not run.
/// - None where the network with the main answer did not run.
#[must_use]
pub fn scores(manifest: &Manifest, answers: &[Answers]) -> Option<Scores> {
    told(manifest, answers).find_map(|(output, answer)| match &output.kind {
        Kind::Binary(binary) => {
            let probability = f64::from(*answer.values.first()?);
            Some(main(&binary.label, &binary.code, binary.bands, probability, Vec::new()))
        }
        Kind::Classes(of) => {
            let values = &answer.values;
            let positive = of.classes.iter().zip(values).filter(|(class, _)| class.positive);
            let probability: f64 = positive.map(|(_, value)| f64::from(*value)).sum();
            Some(main(&of.label, &of.code, of.bands, probability.min(1.0), classes(of, values)))
        }
        _ => None,
    })
}

/// Classes with their probabilities, most probable first; equal ones in the bundle's order.
///
/// `values`: as many as there are classes, 0 to 1: one answer, or shares of a slide's tissue.
#[must_use]
pub fn classes(of: &Classes, values: &[f32]) -> Vec<ClassScore> {
    let scored = of.classes.iter().zip(values).map(|(class, value)| ClassScore {
        label: class.label.clone(),
        code: class.code.clone(),
        probability: f64::from(*value),
    });
    let mut scored: Vec<ClassScore> = scored.collect();
    scored.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    scored
}

/// The level of the bundle's ordinal output: how many leading steps reach their threshold, 0 to K.
///
/// `answers` as for [`scores`]. None where there is no such output or it did not run.
#[must_use]
pub fn level(manifest: &Manifest, answers: &[Answers]) -> Option<u32> {
    ordinal(manifest, answers).map(|(ordinal, answer)| steps(ordinal, answer))
}

/// The same as a measurement: the level as a number without unit.
#[must_use]
pub fn level_measurement(manifest: &Manifest, answers: &[Answers]) -> Option<Measurement> {
    let (ordinal, answer) = ordinal(manifest, answers)?;
    let unit = Code::new("UCUM", "1", "no units");
    Some(Measurement { code: ordinal.code.clone(), value: f64::from(steps(ordinal, answer)), unit })
}

fn steps(ordinal: &Ordinal, answer: &Answer) -> u32 {
    let reached = answer.values.iter().zip(&ordinal.thresholds);
    let leading = reached.take_while(|(value, threshold)| f64::from(**value) >= **threshold).count();
    u32::try_from(leading).unwrap_or(u32::MAX)
}

fn ordinal<'a>(manifest: &'a Manifest, answers: &'a [Answers]) -> Option<(&'a Ordinal, &'a Answer)> {
    told(manifest, answers).find_map(|(output, answer)| match &output.kind {
        Kind::Ordinal(ordinal) => Some((ordinal, answer)),
        _ => None,
    })
}

/// Every output with its answer, where its network ran.
fn told<'a>(manifest: &'a Manifest, answers: &'a [Answers]) -> impl Iterator<Item = (&'a Output, &'a Answer)> {
    manifest.networks.iter().zip(answers).flat_map(|(network, answers)| network.outputs.iter().zip(answers))
}

fn main(label: &str, code: &Code, bands: Bands, probability: f64, classes: Vec<ClassScore>) -> Scores {
    Scores {
        label: label.to_owned(),
        code: code.clone(),
        probability,
        classes,
        clear_below: bands.clear_below,
        significant_from: bands.significant_from,
    }
}
