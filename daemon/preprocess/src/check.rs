//! From a picture's worth to a reason to take it again.

use crate::measures;
use fovea_core::{Quality, QualityLimits, Reason};

/// The first limit that the picture breaks, none where it is good enough.
///
/// Light comes before focus and focus before field, because a dark picture measures as blurred: the advice names what to
/// mend first. A limit whose measure is missing counts as broken (`quality_unknown`): nothing passes unmeasured.
#[must_use]
pub fn check(quality: &Quality, limits: &QualityLimits) -> Option<Reason> {
    let below = |name: &str, limit: Option<f32>| broken(quality, name, limit, |value, limit| value < limit);
    let above = |name: &str, limit: Option<f32>| broken(quality, name, limit, |value, limit| value > limit);
    let verdicts = [
        below(measures::EXPOSURE, limits.exposure_min).map(|broken| {
            broken.reason("too_dark", "the picture is too dark", "Raise the flash or the gain and take it again")
        }),
        above(measures::EXPOSURE, limits.exposure_max).map(|broken| {
            broken.reason("too_bright", "the picture is too bright", "Lower the flash or the gain and take it again")
        }),
        above(measures::CLIPPED, limits.clipped_max).map(|broken| {
            let advice = "Lower the flash, turn away from glare and take it again";
            broken.reason("clipped", "too much of the picture is burnt out to white", advice)
        }),
        below(measures::FOCUS, limits.focus_min).map(|broken| {
            broken.reason("out_of_focus", "the picture is out of focus", "Hold still, refocus and take it again")
        }),
        below(measures::FIELD, limits.field_min).map(|broken| {
            let advice = "Centre the pupil, open the eye wide and take it again";
            broken.reason("field_cut", "too much of the retina is cut off or in shadow", advice)
        }),
    ];
    verdicts.into_iter().flatten().next()
}

/// A limit that does not hold; `value` is none where it was not measured.
struct Broken {
    value: Option<f64>,
    limit: f64,
}

impl Broken {
    fn reason(&self, code: &str, text: &str, advice: &str) -> Reason {
        match self.value {
            Some(value) => Reason::new(code, format!("{text} ({value:.3}, limit {:.3})", self.limit), advice),
            None => Reason::new("quality_unknown", "the picture's quality could not be measured", "Take it again"),
        }
    }
}

fn broken(quality: &Quality, name: &str, limit: Option<f32>, breaks: fn(f64, f64) -> bool) -> Option<Broken> {
    let limit = f64::from(limit?);
    let value = quality.get(name).map(|measure| measure.value).filter(|value| value.is_finite());
    value.is_none_or(|value| breaks(value, limit)).then_some(Broken { value, limit })
}
