//! Whether an analysis can be true. The worker has parsed hostile bytes: what it says is checked before it is believed.
//!
//! In: an analysis. Out: whether every number is in its range and every list within its bound.

use crate::bounds::{CELLS_SIDE_MAX, MEASUREMENTS_MAX, OUTLINE_POINTS_MAX, REGIONS_MAX};
use fovea_core::{Analysis, Measurement, Region, Scores, TileMap, Verdict};

pub fn is_plausible(analysis: &Analysis) -> bool {
    let verdict = match &analysis.verdict {
        Verdict::Scored(scores) => is_scored(scores) && analysis.model.is_some(),
        Verdict::Ungradable(_) | Verdict::NotAnalysed(_) => true,
    };
    verdict
        && analysis.frame > 0
        && analysis.quality.values().all(|measure| measure.value.is_finite())
        && are_finite(&analysis.measurements)
        && analysis.regions.len() <= REGIONS_MAX
        && analysis.regions.iter().all(is_outlined)
        && analysis.tile_map.as_ref().is_none_or(is_mapped)
}

fn is_scored(scores: &Scores) -> bool {
    let share = |value: f64| (0.0..=1.0).contains(&value);
    share(scores.probability)
        && share(scores.significant_from)
        && (0.0..=scores.significant_from).contains(&scores.clear_below)
        && scores.classes.iter().all(|class| share(class.probability))
}

fn are_finite(measurements: &[Measurement]) -> bool {
    measurements.len() <= MEASUREMENTS_MAX && measurements.iter().all(|measurement| measurement.value.is_finite())
}

fn is_outlined(region: &Region) -> bool {
    (3..=OUTLINE_POINTS_MAX).contains(&region.outline_px.len())
        && region.outline_px.iter().flatten().all(|coordinate| coordinate.is_finite())
        && are_finite(&region.measurements)
}

fn is_mapped(map: &TileMap) -> bool {
    let side = 1..=CELLS_SIDE_MAX;
    let class = |cell: u8| usize::from(cell.wrapping_sub(b'0')) < map.classes.len().min(10);
    side.contains(&map.columns)
        && side.contains(&map.rows)
        && map.cells.len() == map.columns as usize * map.rows as usize
        && map.cells.bytes().all(|cell| matches!(cell, b'.' | b'?') || class(cell))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::{Code, Reason};

    fn analysis() -> Analysis {
        let unit = Code::new("UCUM", "mm", "millimetre");
        let size = Measurement { code: unit.clone(), value: 1.0, unit };
        Analysis {
            measurements: vec![size.clone()],
            regions: vec![Region {
                label: "here".to_owned(),
                code: None,
                outline_px: vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
                measurements: vec![size],
            }],
            tile_map: Some(TileMap {
                columns: 2,
                rows: 2,
                field_px: 768,
                classes: vec!["a".to_owned(), "b".to_owned()],
                cells: "01.?".to_owned(),
            }),
            ..Analysis::not_analysed(Reason::new("x", "x", ""))
        }
    }

    #[test]
    fn what_can_be_true_is_believed_and_everything_past_a_bound_is_not() {
        assert!(is_plausible(&analysis()));
        type Lie = fn(&mut Analysis);
        let lies: [(&str, Lie); 12] = [
            ("frame", |a| a.frame = 0),
            ("measurement", |a| a.measurements[0].value = f64::NAN),
            ("size of a place", |a| a.regions[0].measurements[0].value = f64::INFINITY),
            ("many measurements", |a| a.measurements = vec![a.measurements[0].clone(); MEASUREMENTS_MAX + 1]),
            ("many regions", |a| a.regions = vec![a.regions[0].clone(); REGIONS_MAX + 1]),
            ("line", |a| a.regions[0].outline_px.truncate(2)),
            ("long outline", |a| a.regions[0].outline_px = vec![[0.0; 2]; OUTLINE_POINTS_MAX + 1]),
            ("point", |a| a.regions[0].outline_px[1][0] = f32::NAN),
            ("cells", |a| a.tile_map.as_mut().unwrap().cells.push('.')),
            ("class", |a| a.tile_map.as_mut().unwrap().cells = "02.?".to_owned()),
            ("sign", |a| a.tile_map.as_mut().unwrap().cells = "0x.?".to_owned()),
            ("no rows", |a| a.tile_map.as_mut().unwrap().rows = 0),
        ];
        for (name, lie) in lies {
            let mut analysis = analysis();
            lie(&mut analysis);
            assert!(!is_plausible(&analysis), "{name}");
        }
    }
}
