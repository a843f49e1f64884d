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
/// Ultrasound: no model is eligible.
pub const ULTRASOUND: [Picture; 4] = [
    Picture { name: "us-rgb.dcm", shows: "ultrasound, RGB", way: Way::Store, expected: Outcome::NotAnalysed },
    Picture { name: "us-palette.dcm", shows: "ultrasound, palette", way: Way::Store, expected: Outcome::NotAnalysed },
    Picture {
        name: "us-jpeg2000.dcm",
        shows: "ultrasound, JPEG 2000",
        way: Way::Store,
        expected: Outcome::NotAnalysed,
    },
    Picture { name: "us-cine.dcm", shows: "ultrasound, 30 frames", way: Way::Store, expected: Outcome::NotAnalysed },
];

/// From last byte to recorded outcome, at most: while the patient is still in the chair.
const RECORDED_US_MAX: u64 = 1_000_000;

/// What is not as it must be with one picture, in words; empty when all is well.
pub fn complaints(picture: &Picture, detail: &Detail) -> Vec<String> {
    let finding = &detail.finding;
    let mut wrong = Vec::new();
    if finding.outcome != picture.expected {
        let reason = finding.reason.as_deref().unwrap_or("no reason given");
        wrong.push(format!("ended as {} ({reason}), expected {}", word(finding.outcome), word(picture.expected)));
    }
    if finding.timing_us.recorded > RECORDED_US_MAX {
        wrong.push(format!("took {} ms, more than {} ms", finding.timing_us.recorded / 1000, RECORDED_US_MAX / 1000));
    }
    match finding.outcome {
        Outcome::Finding => wrong.extend(complaints_about_finding(finding)),
        Outcome::Ungradable if finding.advice.as_deref().unwrap_or_default().is_empty() => {
            wrong.push("says nothing of what to do now".into());
        }
        Outcome::NotAnalysed if finding.reason.as_deref() != Some("no eligible model") => {
            wrong.push(format!("was not analysed because of {:?}, expected \"no eligible model\"", finding.reason));
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
