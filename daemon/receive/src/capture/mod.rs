//! The capture folder (to come).

use std::fs::File;
/// A decoded picture.
#[derive(Debug)]
pub struct RawPicture {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// Red, green, blue, row by row.
    pub rgb: File,
}
