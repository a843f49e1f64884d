//! The content tree of one finding: TID 1500 with one image-level measurement group, and one for each outlined place.
//!
//! In: finding, source facts, algorithm, observer. Out: the root item.
//! Promise: each outcome has its own words; a clear band says "absent" in a code, never by leaving something out.
//! Standard: DICOM PS3.16 TID 1500, 1204, 1002, 1004, 1600, 1501, 1410, 4019.

use crate::codes;
use crate::content::{Item, Relation, Value};
use crate::encode::short;
use crate::source::SourceHeader;
use crate::{Algorithm, Observer, ReportError};
use Relation::{AcquisitionContext, ConceptModifier, Contains, ObservationContext};
use fovea_core::{Band, ClassScore, Code, Finding, Measurement, Outcome, Region, Uid, sop_class};

/// On every report, whatever it says.
const NOTICE: &str =
    "Research use only, not a medical device. Preliminary result of a program; no person has verified it.";

/// The whole tree.
pub fn tree(
    finding: &Finding,
    header: &SourceHeader,
    algorithm: Option<&Algorithm>,
    node: &Observer,
) -> Result<Item, ReportError> {
    let container = |template| Value::Container { template };
    let group = Item::new(Contains, codes::measurement_group(), container(Some("1501")))
        .with(measurement_group(finding, header, algorithm)?);
    let mut groups = vec![group];
    groups.extend(places(finding, header, algorithm)?);
    let measurements = Item::new(Contains, codes::measurements(), container(None)).with(groups);
    let mut children = vec![Item::new(ConceptModifier, codes::language(), Value::Code(codes::english()))];
    children.extend(observer(node));
    let procedure = Value::Code(codes::imaging_procedure());
    children.push(Item::new(ConceptModifier, codes::procedure_reported(), procedure));
    children.push(image_library(finding, header));
    children.push(measurements);
    Ok(Item::new(Contains, codes::measurement_report(), container(Some("1500"))).with(children))
}

/// TID 1002 with TID 1004: a device speaks.
fn observer(node: &Observer) -> Vec<Item> {
    let mut items = vec![
        Item::new(ObservationContext, codes::observer_type(), Value::Code(codes::device())),
        Item::new(ObservationContext, codes::device_uid(), Value::UidRef(node.device_uid.clone())),
    ];
    let texts = [
        (codes::device_name(), &node.name),
        (codes::device_manufacturer(), &node.manufacturer),
        (codes::device_model(), &node.model),
        (codes::device_serial(), &node.serial),
    ];
    let said = texts.into_iter().filter(|(_, text)| !short(text, 64).is_empty());
    items.extend(said.map(|(concept, text)| Item::new(ObservationContext, concept, Value::Text(short(text, 64)))));
    items
}

/// TID 1600: the image that was looked at.
fn image_library(finding: &Finding, header: &SourceHeader) -> Item {
    // The term's meaning is its own value: the box keeps no list of modality names.
    let modality = header.modality().map(|term| Code::new("DCM", &term, modality_name(&term)));
    let descriptors = modality.map(|code| Item::new(AcquisitionContext, codes::modality(), Value::Code(code)));
    let image = Item::new(Contains, codes::source(), image_of(finding, header));
    let image = image.with(descriptors.into_iter().collect());
    let group = Item::new(Contains, codes::image_library_group(), Value::Container { template: None });
    Item::new(Contains, codes::image_library(), Value::Container { template: Some("1600") })
        .with(vec![group.with(vec![image])])
}

fn modality_name(term: &str) -> &str {
    match term {
        "OP" => "Ophthalmic Photography",
        "US" => "Ultrasound",
        "SM" => "Slide Microscopy",
        "GM" => "General Microscopy",
        "XC" => "External-camera Photography",
        "ES" => "Endoscopy",
        "OT" => "Other",
        other => other,
    }
}

fn image_of(finding: &Finding, header: &SourceHeader) -> Value {
    Value::Image {
        class: finding.sop_class_uid.clone(),
        instance: finding.sop_instance_uid.clone(),
        frame: (header.frames() > 1).then_some(finding.frame),
    }
}

/// TID 1501.
fn measurement_group(
    finding: &Finding,
    header: &SourceHeader,
    algorithm: Option<&Algorithm>,
) -> Result<Vec<Item>, ReportError> {
    let mut items = tracking(finding, None);
    let answer = answer(finding)?;
    // A viewer may show this one code alone, so it stands only where the answer is not "absent".
    if let Some(answer) = answer.as_ref().filter(|answer| answer.band != Band::Clear) {
        items.push(Item::new(Contains, codes::finding(), Value::Code(answer.code.clone())));
    }
    items.extend(site(finding, header));
    items.extend(computed_by(finding, algorithm)?);
    if let Some(answer) = &answer {
        items.extend(answer.items()?);
    }
    items.extend(classes(finding)?);
    items.extend(numbers(&finding.measurements)?);
    let outcome = Value::Code(codes::ended(finding.outcome));
    items.push(Item::new(Contains, codes::outcome(), outcome));
    items.push(Item::new(Contains, codes::priority(), Value::Code(codes::urgency(finding.priority))));
    for (concept, text) in [(codes::reason(), &finding.reason), (codes::advice(), &finding.advice)] {
        if let Some(text) = text.as_ref().filter(|text| !text.trim().is_empty()) {
            items.push(Item::new(Contains, concept, Value::Text(text.clone())));
        }
    }
    items.push(Item::new(Contains, codes::comment(), Value::Text(NOTICE.into())));
    items.push(Item::new(Contains, codes::source_of_measurement(), image_of(finding, header)));
    Ok(items)
}

/// The tracked thing is this question about this frame, or its n-th place, largest first: a later model that looks
/// again tracks the same thing.
fn tracking(finding: &Finding, place: Option<usize>) -> Vec<Item> {
    let task = if finding.task.is_empty() { "no task" } else { &finding.task };
    let frame = finding.frame.to_string();
    let sop_instance = finding.sop_instance_uid.as_str();
    let (uid, what) = match place {
        None => (Uid::derived("sr-tracking", &[sop_instance, &frame, task]), "whole image".to_owned()),
        Some(n) => (Uid::derived("sr-tracking", &[sop_instance, &frame, task, &n.to_string()]), format!("place {n}")),
    };
    let text = format!("{}, {what}, frame {frame}", short(task, 64));
    vec![
        Item::new(ObservationContext, codes::tracking_identifier(), Value::Text(text)),
        Item::new(ObservationContext, codes::tracking_uid(), Value::UidRef(uid)),
    ]
}

/// TID 1410: one group for each outlined place, numbered from 1, with its sizes.
fn places(finding: &Finding, header: &SourceHeader, algorithm: Option<&Algorithm>) -> Result<Vec<Item>, ReportError> {
    let place = |(index, region): (usize, &Region)| {
        let mut items = tracking(finding, Some(index + 1));
        if let Some(code) = &region.code {
            items.push(Item::new(Contains, codes::finding(), Value::Code(fits(code, "a region")?.clone())));
        }
        items.extend(site(finding, header));
        items.extend(computed_by(finding, algorithm)?);
        let source = Item::new(Relation::SelectedFrom, codes::source_image(), image_of(finding, header));
        let outline = Value::Outline { points: region.outline_px.clone() };
        items.push(Item::new(Contains, codes::image_region(), outline).with(vec![source]));
        items.extend(numbers(&region.measurements)?);
        if !region.label.trim().is_empty() {
            items.push(Item::new(Contains, codes::comment(), Value::Text(region.label.clone())));
        }
        Ok(Item::new(Contains, codes::measurement_group(), Value::Container { template: Some("1410") }).with(items))
    };
    finding.regions.iter().enumerate().map(place).collect()
}

/// What a model said, complete.
struct Answer<'a> {
    code: &'a Code,
    probability: f64,
    band: Band,
}

/// `None` for an outcome without an answer, which must then have a reason.
fn answer(finding: &Finding) -> Result<Option<Answer<'_>>, ReportError> {
    let missing = |what| ReportError::Incomplete { what };
    if finding.outcome != Outcome::Finding {
        let has_reason = finding.reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
        return if has_reason { Ok(None) } else { Err(missing("reason")) };
    }
    let code = fits(finding.code.as_ref().ok_or(missing("code"))?, "the finding")?;
    let probability = finding.probability.filter(|p| (0.0..=1.0).contains(p)).ok_or(missing("probability"))?;
    let band = finding.band.ok_or(missing("band"))?;
    Ok(Some(Answer { code, probability, band }))
}

impl Answer<'_> {
    fn items(&self) -> Result<Vec<Item>, ReportError> {
        let number = Value::Number { value: decimal(self.probability, "probability")?, unit: codes::no_units() };
        Ok(vec![
            // The label is the question, the presence the answer: "diabetic retinopathy: absent".
            Item::new(Contains, self.code.clone(), Value::Code(codes::presence(self.band))),
            Item::new(Contains, codes::probability(), number),
            Item::new(Contains, codes::triage_band(), Value::Code(codes::band(self.band))),
        ])
    }
}

/// Retina for eye photographs, with the side where the source tells it.
///
/// "Both" is not told: a photograph shows one eye, and B is what Image Laterality (type 1) holds when nobody said which.
fn site(finding: &Finding, header: &SourceHeader) -> Option<Item> {
    let is_eye = [sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, sop_class::OPHTHALMIC_PHOTOGRAPHY_16_BIT]
        .contains(&finding.sop_class_uid.as_str());
    let side = header.laterality().and_then(codes::side);
    let side = side.map(|side| Item::new(ConceptModifier, codes::laterality(), Value::Code(side)));
    let retina = Item::new(ConceptModifier, codes::finding_site(), Value::Code(codes::retina()));
    is_eye.then(|| retina.with(side.into_iter().collect()))
}

/// TID 4019. Nothing where no model ran; an error where a model answered and is not named.
fn computed_by(finding: &Finding, algorithm: Option<&Algorithm>) -> Result<Vec<Item>, ReportError> {
    let Some(algorithm) = algorithm else {
        let is_answer = finding.outcome == Outcome::Finding;
        return if is_answer { Err(ReportError::Incomplete { what: "algorithm" }) } else { Ok(Vec::new()) };
    };
    if algorithm.name.trim().is_empty() || algorithm.version.trim().is_empty() {
        return Err(ReportError::Incomplete { what: "algorithm name or version" });
    }
    let family = fits(&algorithm.family, "the algorithm family")?.clone();
    let mut items = vec![
        Item::new(ConceptModifier, codes::algorithm_name(), Value::Text(algorithm.name.clone())),
        Item::new(ConceptModifier, codes::algorithm_version(), Value::Text(algorithm.version.clone())),
        Item::new(ConceptModifier, codes::algorithm_family(), Value::Code(family)),
    ];
    let mut text = |concept, text: String| items.push(Item::new(ConceptModifier, concept, Value::Text(text)));
    if let Some(model) = &finding.model {
        text(codes::algorithm_parameters(), format!("bundle {} {} sha256={}", model.id, model.version, model.sha256));
    }
    if let Some(device) = &finding.device {
        text(codes::algorithm_parameters(), format!("computed on {device}"));
    }
    if !algorithm.manufacturer.trim().is_empty() {
        text(codes::algorithm_manufacturer(), algorithm.manufacturer.clone());
    }
    Ok(items)
}

/// The probability of each of the answers that exclude each other.
fn classes(finding: &Finding) -> Result<Vec<Item>, ReportError> {
    let number = |class: &ClassScore| {
        let value = Value::Number { value: decimal(class.probability, "class")?, unit: codes::no_units() };
        Ok(Item::new(Contains, fits(&class.code, "a class")?.clone(), value))
    };
    finding.classes.iter().map(number).collect()
}

fn numbers(measurements: &[Measurement]) -> Result<Vec<Item>, ReportError> {
    let number = |m: &Measurement| {
        let unit = fits(&m.unit, "a measurement's unit")?.clone();
        let value = Value::Number { value: decimal(m.value, "measurement value")?, unit };
        Ok(Item::new(Contains, fits(&m.code, "a measurement")?.clone(), value))
    };
    measurements.iter().map(number).collect()
}

/// PS3.3 section 8.8: SH and LO lengths; ASCII so that it reads the same in every character set.
fn fits<'a>(code: &'a Code, what: &'static str) -> Result<&'a Code, ReportError> {
    let field = |text: &str, max: usize| !text.is_empty() && short(text, max) == text;
    if field(&code.scheme, 16) && field(&code.value, 16) && field(&code.meaning, 64) {
        Ok(code)
    } else {
        Err(ReportError::Code { what })
    }
}

/// A finite number as DS: at most 16 characters, trailing zeros off, the most digits that fit.
fn decimal(value: f64, what: &'static str) -> Result<String, ReportError> {
    if !value.is_finite() {
        return Err(ReportError::Incomplete { what });
    }
    // Six decimals are finer than any calibration; -0.0 becomes 0.
    let plain = format!("{:.6}", value + 0.0);
    let plain = plain.trim_end_matches('0').trim_end_matches('.').to_owned();
    let is_lost = value != 0.0 && matches!(plain.as_str(), "0" | "-0");
    Ok(if plain.len() <= 16 && !is_lost { plain } else { format!("{value:.7e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_decimal_strings_of_at_most_16_characters() {
        let written = |value| decimal(value, "x").unwrap();
        assert_eq!(written(0.8312), "0.8312");
        assert_eq!(written(1.0), "1");
        assert_eq!(written(-0.0), "0");
        assert_eq!(written(120.0), "120");
        for value in [1e-9, -1e-300, 1e300, f64::MIN_POSITIVE, -123_456_789_012.5, 0.1 + 0.2] {
            let text = written(value);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            assert!((back - value).abs() <= value.abs() * 1e-6, "{value} {text}");
        }
        assert!(decimal(f64::NAN, "x").is_err());
        assert!(decimal(f64::INFINITY, "x").is_err());
    }
}
