//! What the demo sends, by which way, and what must come of it.

use fovea_core::{Finding, Outcome};
use fovea_tests::ctl::Detail;

/// How a picture comes to the box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// A JPEG in the capture folder.
    Capture,
    /// A DICOM object over C-STORE.
    Store,
}

/// One picture of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// File below runtime/samples, or the name that the row shows.
    pub name: &'static str,
    /// What it shows, for the table.
    pub shows: &'static str,
    /// How it comes.
    pub way: Way,
    /// How it must end.
    pub expected: Outcome,
}

/// The photograph, through the capture folder.
pub const PHOTOGRAPH: Picture =
    Picture { name: "retina.jpg", shows: "healthy eye", way: Way::Capture, expected: Outcome::Finding };
/// The same, out of focus and dark.
pub const DEGRADED: Picture = Picture {
    name: "retina-blurred-dark.jpg",
    shows: "same, blurred and dark",
    way: Way::Capture,
    expected: Outcome::Ungradable,
};
/// The photograph as the DICOM object that the capture folder made of it, sent by a scope.
pub const SENT_PHOTOGRAPH: Picture =
    Picture { name: "retina.dcm", shows: "healthy eye", way: Way::Store, expected: Outcome::Finding };
/// What the models are for besides eyes. The frame is drawn and the tissue is skin: they show the way, not a disease.
pub const OTHERS: [Picture; 3] = [
    sent("thyroid-synthetic.dcm", "drawn thyroid frame", Outcome::Finding),
    sent("tissue.dcm", "stained tissue, skin", Outcome::Finding),
    sent("slide.dcm", "whole slide, skin", Outcome::Finding),
];
/// Ultrasound of something else: no model answers.
pub const ULTRASOUND: [Picture; 4] = [
    sent("us-rgb.dcm", "ultrasound, RGB", Outcome::NotAnalysed),
    sent("us-palette.dcm", "ultrasound, palette", Outcome::NotAnalysed),
    sent("us-jpeg2000.dcm", "ultrasound, JPEG 2000", Outcome::NotAnalysed),
    sent("us-cine.dcm", "ultrasound, 30 frames", Outcome::NotAnalysed),
];

const fn sent(name: &'static str, shows: &'static str, expected: Outcome) -> Picture {
    Picture { name, shows, way: Way::Store, expected }
}

/// From last byte to recorded outcome, at most: while the patient is still in the chair.
const RECORDED_US_MAX: u64 = 1_000_000;
/// The same for a slide, which is read field by field.
const SLIDE_RECORDED_US_MAX: u64 = 30_000_000;

/// What is not as it must be with one picture, in words; empty when all is well.
pub fn complaints(picture: &Picture, detail: &Detail) -> Vec<String> {
    let finding = &detail.finding;
    let mut wrong = Vec::new();
    if finding.outcome != picture.expected {
        let reason = finding.reason.as_deref().unwrap_or("no reason given");
        wrong.push(format!("ended as {} ({reason}), expected {}", word(finding.outcome), word(picture.expected)));
    }
    let recorded_us_max = if finding.tile_map.is_some() { SLIDE_RECORDED_US_MAX } else { RECORDED_US_MAX };
    if finding.timing_us.recorded > recorded_us_max {
        wrong.push(format!("took {} ms, more than {} ms", finding.timing_us.recorded / 1000, recorded_us_max / 1000));
    }
    match finding.outcome {
        Outcome::Finding => wrong.extend(complaints_about_finding(finding)),
        Outcome::Ungradable if finding.advice.as_deref().unwrap_or_default().is_empty() => {
            wrong.push("says nothing of what to do now".into());
        }
        Outcome::NotAnalysed if finding.reason.as_deref().unwrap_or_default().is_empty() => {
            wrong.push("was not analysed and does not say why".into());
        }
        Outcome::Ungradable | Outcome::NotAnalysed => {}
    }
    wrong
}

fn complaints_about_finding(finding: &Finding) -> Vec<String> {
    let mut wrong = Vec::new();
    match finding.probability {
        Some(probability) if (0.0..=1.0).contains(&probability) => {}
        other => wrong.push(format!("has the probability {other:?}")),
    }
    if finding.band.is_none() {
        wrong.push("has no band".into());
    }
    if finding.model.is_none() || finding.device.is_none() {
        wrong.push("does not say which model and device answered".into());
    }
    wrong
}

/// The outcome as the JSON has it.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finding => "finding",
        Outcome::Ungradable => "ungradable",
        Outcome::NotAnalysed => "not_analysed",
    }
}
