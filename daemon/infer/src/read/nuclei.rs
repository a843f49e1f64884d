//! Nuclei in numbers: how many, how large, how dense.

use crate::bundle::output::Nuclei;
use fovea_core::{Code, Measurement};

/// Count, sizes and density of the nuclei of one or several maps.
///
/// - `areas`: elements of each nucleus, of all maps together, in any order.
/// - `looked_at`: elements of those maps, tissue or not.
/// - `element_um2`: area of an element on the slide, where the object states its pixel size. Without it sizes are in
///   pixels and no density is told.
/// - Sizes are the median and the 10th and 90th percentile (nearest rank); none where there is no nucleus.
#[must_use]
pub fn nuclei_measurements(spec: &Nuclei, areas: &[u32], looked_at: u64, element_um2: Option<f64>) -> Vec<Measurement> {
    let element_um2 = element_um2.filter(|um2| um2.is_finite() && *um2 > 0.0);
    let count = areas.len() as f64;
    let mut told = vec![Measurement { code: spec.code.clone(), value: count, unit: ucum("1", "no units") }];
    if let (Some(um2), true) = (element_um2, looked_at > 0) {
        let value = count / (looked_at as f64 * um2 / 1e6);
        let code = own("nuclei-density", "Density of nuclei");
        told.push(Measurement { code, value, unit: ucum("/mm2", "per square millimeter") });
    }
    let mut sorted = areas.to_vec();
    sorted.sort_unstable();
    let (scale, unit) = match element_um2 {
        Some(um2) => (um2, ucum("um2", "square micrometer")),
        None => (1.0, ucum("{px}", "pixels")),
    };
    for (percent, value, meaning) in [
        (50, "nucleus-area-p50", "Median area of a nucleus"),
        (10, "nucleus-area-p10", "Area of a nucleus, 10th percentile"),
        (90, "nucleus-area-p90", "Area of a nucleus, 90th percentile"),
    ] {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        if let Some(area) = sorted.get(rank - 1) {
            told.push(Measurement { code: own(value, meaning), value: f64::from(*area) * scale, unit: unit.clone() });
        }
    }
    told
}

fn ucum(value: &str, meaning: &str) -> Code {
    Code::new("UCUM", value, meaning)
}

fn own(value: &str, meaning: &str) -> Code {
    Code::new("99FOVEA", value, meaning)
}
