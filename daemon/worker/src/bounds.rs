//! How much one analysis may say: so much that the largest fits one packet (see `wire.rs`).

use fovea_core::{Analysis, Region};

/// Most regions of an analysis.
pub const REGIONS_MAX: usize = 24;
/// Most points of one outline.
pub const OUTLINE_POINTS_MAX: usize = 256;
/// Most points of all outlines together, some 20 bytes each.
const POINTS_MAX: usize = 3600;
/// Most measurements of an analysis, and of one region.
pub const MEASUREMENTS_MAX: usize = 32;
/// Most columns, and rows, of a tile map.
pub const CELLS_SIDE_MAX: u32 = 128;

/// Brings an analysis within its bounds: outlines are rounded to a hundredth of a pixel, and the last regions, which
/// are the smallest, go first.
pub fn bound(analysis: &mut Analysis) {
    analysis.measurements.truncate(MEASUREMENTS_MAX);
    let mut points = 0;
    let mut fits = |region: &Region| {
        points += region.outline_px.len();
        points <= POINTS_MAX
    };
    let kept = analysis.regions.iter().take(REGIONS_MAX).take_while(|region| fits(region)).count();
    analysis.regions.truncate(kept);
    for region in &mut analysis.regions {
        region.measurements.truncate(MEASUREMENTS_MAX);
        for coordinate in region.outline_px.iter_mut().flatten() {
            *coordinate = (*coordinate * 100.0).round() / 100.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Answer, Packet};
    use crate::wire::PACKET_BYTES_MAX;
    use fovea_core::{ClassScore, Code, Measure, Measurement, ModelRef, Reason, Scores, Sha256, TileMap, Verdict};

    /// As much as any bundle and any object can make it say.
    fn largest() -> Analysis {
        let long = |length: usize| "w".repeat(length);
        let code = Code::new(&long(16), &long(16), &long(64));
        let measurement = Measurement { code: code.clone(), value: -1_234.567_890_123, unit: code.clone() };
        let region = Region {
            label: long(64),
            code: Some(code.clone()),
            outline_px: vec![[16_383.123, 16_382.987]; OUTLINE_POINTS_MAX],
            measurements: vec![measurement.clone(); 4],
        };
        let class = ClassScore { label: long(64), code: code.clone(), probability: 0.123_456_789_012_345 };
        let scores = Scores {
            label: long(64),
            code,
            probability: 0.123_456_789_012_345,
            classes: vec![class; 10],
            clear_below: 0.1,
            significant_from: 0.9,
        };
        let measure = |index: usize| (format!("{index}{}", long(30)), Measure { value: 0.1 + 0.2, unit: long(16) });
        Analysis {
            verdict: Verdict::Scored(scores),
            task: long(64),
            quality: (0..20).map(measure).collect(),
            measurements: vec![measurement; 40],
            regions: vec![region; 40],
            tile_map: Some(TileMap {
                columns: CELLS_SIDE_MAX,
                rows: CELLS_SIDE_MAX,
                field_px: 4096,
                classes: vec![long(64); 10],
                cells: ".".repeat((CELLS_SIDE_MAX * CELLS_SIDE_MAX) as usize),
            }),
            model: Some(ModelRef { id: long(64), version: long(32), sha256: Sha256::of(b"") }),
            device: Some(long(32)),
            ..Analysis::not_analysed(Reason::new("", "", ""))
        }
    }

    #[test]
    fn inv_08_the_largest_analysis_fits_one_packet() {
        let mut analysis = largest();
        bound(&mut analysis);
        assert_eq!((analysis.regions.len(), analysis.measurements.len()), (14, MEASUREMENTS_MAX));
        assert!(crate::client::is_plausible(&analysis));
        let answer = Answer::Analysed(Box::new(analysis));
        let packet = serde_json::to_vec(&Packet { resident_bytes: u64::MAX, answer }).unwrap();
        assert!(packet.len() <= PACKET_BYTES_MAX, "{} bytes", packet.len());
        println!("{} of {PACKET_BYTES_MAX} bytes", packet.len());
    }
}
