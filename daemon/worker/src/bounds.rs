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
