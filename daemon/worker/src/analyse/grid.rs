//! Fields over a large picture.
//!
//! In: sizes. Out: [`Grid`]: which fields are read, and in which order. Promise: at most [`FIELDS_MAX`] fields, however
//! large the picture; each lies inside it where it is large enough; neighbours come soon after each other, so that the
//! tiles that they share are still at hand.

use crate::bounds::CELLS_SIDE_MAX;
use fovea_core::{FrameGeometry, PixelBox, Reason};
use fovea_infer::Tiles;

/// Most fields of one object.
pub const FIELDS_MAX: u32 = 8192;
/// Fields that are read side by side before the next row: the tiles at their lower edge stay in the cache.
const STRIP: u32 = 4;
/// Longest side of a field, pixels: at 384 micrometres ten times finer than the finest scanner in use.
const SIDE_PX_MAX: f64 = 4096.0;

/// Which fields of a picture are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Cells in a row, 1 to 128.
    pub columns: u32,
    /// Rows of cells, 1 to 128.
    pub rows: u32,
    /// Side of a field, pixels.
    pub side_px: u32,
    /// Fields that a cell stands for, in each direction; the middle one is read.
    pub step: u32,
    size_px: (u32, u32),
}

impl Grid {
    /// Covers a picture of columns x rows pixels.
    pub fn over(size_px: (u32, u32), side_px: u32) -> Self {
        let cells = |length: u32, step: u32| length.div_ceil(side_px).div_ceil(step);
        let fits = |step: &u32| {
            let (columns, rows) = (cells(size_px.0, *step), cells(size_px.1, *step));
            columns <= CELLS_SIDE_MAX && rows <= CELLS_SIDE_MAX && columns * rows <= FIELDS_MAX
        };
        // Ends: twice as many fields in a step make a quarter of the cells.
        let least = cells(size_px.0.max(size_px.1), CELLS_SIDE_MAX);
        let step = (least.max(1)..).find(fits).unwrap_or(1);
        Self { columns: cells(size_px.0, step), rows: cells(size_px.1, step), side_px, step, size_px }
    }

    /// How many there are.
    pub fn fields(&self) -> u32 {
        self.columns * self.rows
    }

    /// Place of a cell in the map, row by row.
    pub fn index(&self, (column, row): (u32, u32)) -> usize {
        row as usize * self.columns as usize + column as usize
    }

    /// The field that is read for a cell; the last ones are moved inwards, so that they are whole.
    pub fn field(&self, (column, row): (u32, u32)) -> PixelBox {
        let from = |cell: u32, length: u32| {
            let last = length.div_ceil(self.side_px) - 1;
            let field = (cell * self.step + self.step / 2).min(last);
            (field * self.side_px).min(length.saturating_sub(self.side_px))
        };
        let (x, y) = (from(column, self.size_px.0), from(row, self.size_px.1));
        PixelBox { x, y, width: self.side_px, height: self.side_px }
    }

    /// The part of a cell's field that no other cell's shows: all of it but where the last ones were moved inwards. Those
    /// of all cells are the whole picture where every field is read.
    pub fn own(&self, cell: (u32, u32)) -> PixelBox {
        let field = self.field(cell);
        let from = |at: u32, length: u32| {
            // Below `length` wherever the field was moved: it was moved to its last pixel.
            let unmoved = at.div_ceil(self.side_px) * self.side_px;
            (unmoved, self.side_px.min(length.saturating_sub(unmoved)))
        };
        let ((x, width), (y, height)) = (from(field.x, self.size_px.0), from(field.y, self.size_px.1));
        PixelBox { x, y, width, height }
    }

    /// All cells, in strips from top to bottom.
    pub fn cells(self) -> impl Iterator<Item = (u32, u32)> {
        let strips = (0..self.columns).step_by(STRIP as usize);
        strips.flat_map(move |left| {
            let right = (left + STRIP).min(self.columns);
            (0..self.rows).flat_map(move |row| (left..right).map(move |column| (column, row)))
        })
    }
}

/// Micrometres that a pixel is wide and high; where they differ, of a square pixel of the same area.
pub fn um_per_px(geometry: &FrameGeometry) -> Option<f64> {
    geometry.pixel_size.map(|size| (size.width_mm * size.height_mm).sqrt() * 1000.0)
}

/// Side of a field in pixels, by the object's scale where it states one.
///
/// `needed_px`: side of the input of the network that looks at whole fields; half of it is the least that a field may have.
pub fn field_side(tiles: &Tiles, geometry: &FrameGeometry, needed_px: u32) -> Result<u32, Reason> {
    let Some(um) = um_per_px(geometry) else { return Ok(tiles.field_px.max(1)) };
    let side = (tiles.field_um / um).round();
    if side < f64::from(needed_px) / 2.0 {
        let text = format!("{um:.2} micrometres a pixel are too coarse to see cells");
        return Err(Reason::new("resolution_too_low", text, "Take it again at a higher magnification."));
    }
    if side > SIDE_PX_MAX {
        let text = format!("{um:.4} micrometres a pixel are finer than any slide scanner");
        return Err(Reason::new("scale_not_possible", text, ""));
    }
    // Within 1 and SIDE_PX_MAX.
    Ok((side as u32).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::PixelSize;

    #[test]
    fn every_pixel_of_any_picture_lies_in_a_field_and_every_field_in_the_picture() {
        for (width, height, side) in [(100, 70, 30), (30, 30, 30), (31, 29, 10), (5, 7, 9), (1, 300, 7)] {
            let grid = Grid::over((width, height), side);
            assert_eq!(grid.step, 1);
            let mut covered = vec![false; (width * height) as usize];
            let mut seen = vec![false; grid.fields() as usize];
            for cell in grid.cells() {
                assert!(!std::mem::replace(&mut seen[grid.index(cell)], true), "{cell:?} twice");
                let field = grid.field(cell);
                assert!(width < side || field.x + side <= width, "{field:?}");
                assert!(height < side || field.y + side <= height, "{field:?}");
                let own = grid.own(cell);
                assert!(
                    own.x >= field.x && own.y >= field.y && own.width > 0 && own.height > 0,
                    "{own:?} of {field:?}"
                );
                assert!(own.x + own.width <= field.x + side && own.y + own.height <= field.y + side, "{own:?}");
                for y in own.y..own.y + own.height {
                    for x in own.x..own.x + own.width {
                        assert!(!std::mem::replace(&mut covered[(y * width + x) as usize], true), "{own:?} twice");
                    }
                }
            }
            assert!(covered.iter().all(|covered| *covered) && seen.iter().all(|seen| *seen), "{width} x {height}");
        }
    }

    #[test]
    fn inv_08_the_number_of_fields_is_bounded_for_any_size() {
        for size in [(1, 1), (40_000, 40_000), (262_144, 262_144), (262_144, 1), (u32::MAX, u32::MAX)] {
            for side in [1, 100, 768, 4096] {
                let grid = Grid::over(size, side);
                assert!((1..=FIELDS_MAX).contains(&grid.fields()), "{size:?} {side}: {grid:?}");
                assert!(grid.columns <= CELLS_SIDE_MAX && grid.rows <= CELLS_SIDE_MAX, "{grid:?}");
                let last = grid.field((grid.columns - 1, grid.rows - 1));
                assert!(last.x < size.0 && last.y < size.1);
            }
        }
        assert_eq!(Grid::over((40_000, 40_000), 768).fields(), 53 * 53);
    }

    #[test]
    fn the_scale_decides_the_side_of_a_field_where_there_is_one() {
        let tiles = Tiles { field_um: 384.0, field_px: 768, nuclei_fields_max: 48 };
        let scale = |mm| FrameGeometry {
            pixel_size: Some(PixelSize { width_mm: mm, height_mm: mm }),
            ..FrameGeometry::default()
        };
        assert_eq!(field_side(&tiles, &FrameGeometry::default(), 224), Ok(768));
        assert_eq!(field_side(&tiles, &scale(0.0005), 224), Ok(768));
        assert_eq!(field_side(&tiles, &scale(0.00025), 224), Ok(1536));
        assert_eq!(field_side(&tiles, &scale(0.008), 224).unwrap_err().code, "resolution_too_low");
        assert_eq!(field_side(&tiles, &scale(0.00001), 224).unwrap_err().code, "scale_not_possible");
    }
}
