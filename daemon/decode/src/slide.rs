//! One large picture in tiles: which frames a window of it needs.
//!
//! In: a read header. Out: [`Slide`]. Promise: every tile lies inside the total pixel matrix (its right and lower part may
//! reach beyond, as writers pad), every frame it names is one of the object's, a question costs no more than its answer.
//!
//! Of several optical paths and focal planes the first frame's are shown.
//! Standard: PS3.3 sections C.8.12.4.1 (total pixel matrix), C.7.6.17.3 (dimension organization type).

use crate::header::Header;
use crate::pixels::PixelFormat;
use crate::{DecodeError, DecodeLimits};
use fovea_core::PixelBox;

/// How many times over tiles may cover a window before the slide is refused: scanners overlap by a few pixels.
const COVERED_MAX: u64 = 4;

/// A frame's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Which frame, from 0.
    pub frame: u32,
    /// Column of its first pixel in the total pixel matrix, from 0.
    pub x: u32,
    /// Row of its first pixel, from 0.
    pub y: u32,
}

/// The total pixel matrix of a whole slide image, and where its tiles are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slide {
    width_px: u32,
    height_px: u32,
    tile_width_px: u32,
    tile_height_px: u32,
    shows_volume: bool,
    order: Order,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Order {
    /// From left to right, then down: so many in a row.
    Full { across: u32 },
    /// By row, then by column.
    Sparse(Vec<Tile>),
}

impl Slide {
    /// Columns of the total pixel matrix, at least 1.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// Rows of the total pixel matrix, at least 1.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// False for the pictures of the label and of the whole glass that scanners store beside the specimen
    /// (PS3.3 section C.8.12.4.1.1, value 3 of Image Type).
    #[must_use]
    pub fn shows_volume(&self) -> bool {
        self.shows_volume
    }

    /// Tiles that show something of `window` (in pixels of the total pixel matrix), in the order in which they lie over
    /// each other: a later one covers an earlier one. Parts of the window without a tile are empty glass.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] where the tiles cover the window many times over.
    pub fn tiles(&self, window: PixelBox) -> Result<Vec<Tile>, DecodeError> {
        let (width, height) = (u64::from(self.tile_width_px), u64::from(self.tile_height_px));
        let (left, top) = (u64::from(window.x), u64::from(window.y));
        let right = (left + u64::from(window.width)).min(self.width_px.into());
        let bottom = (top + u64::from(window.height)).min(self.height_px.into());
        if left >= right || top >= bottom {
            return Ok(Vec::new());
        }
        match &self.order {
            Order::Full { across } => {
                let rows = top / height..=(bottom - 1) / height;
                let columns = left / width..=(right - 1) / width;
                let tile = |row: u64, column: u64| Tile {
                    // Held against the number of frames and the sides, both u32, when the slide was made.
                    frame: (row * u64::from(*across) + column) as u32,
                    x: (column * width) as u32,
                    y: (row * height) as u32,
                };
                Ok(rows.flat_map(|row| columns.clone().map(move |column| tile(row, column))).collect())
            }
            Order::Sparse(tiles) => {
                let above = tiles.partition_point(|tile| u64::from(tile.y) + height <= top);
                let within = tiles[above..].iter().take_while(|tile| u64::from(tile.y) < bottom);
                let shown = |tile: &&Tile| u64::from(tile.x) + width > left && u64::from(tile.x) < right;
                let found: Vec<Tile> = within.filter(shown).copied().collect();
                let grid = ((right - left).div_ceil(width) + 1) * ((bottom - top).div_ceil(height) + 1);
                let (value, limit) = (found.len() as u64, COVERED_MAX * grid);
                if value > limit {
                    return Err(DecodeError::TooLarge { what: "number of tiles that cover each other", value, limit });
                }
                Ok(found)
            }
        }
    }

    /// The slide that a header describes; none for an object of another class.
    pub(crate) fn of(
        header: &Header,
        format: &PixelFormat,
        limits: &DecodeLimits,
    ) -> Result<Option<Self>, DecodeError> {
        if !header.is_whole_slide() {
            return Ok(None);
        }
        let side = |tag, attribute, of_frame| match header.long(tag) {
            // A single frame without a matrix is the whole matrix.
            None if format.frames == 1 => Ok(of_frame),
            None => Err(DecodeError::Missing { attribute }),
            Some(0) => Err(DecodeError::Invalid { attribute, why: "it is 0" }),
            Some(value) if value > limits.slide_side_px_max => {
                let limit = limits.slide_side_px_max.into();
                Err(DecodeError::TooLarge { what: attribute, value: value.into(), limit })
            }
            Some(value) => Ok(value),
        };
        let width_px = side(0x0048_0006, "Total Pixel Matrix Columns", format.columns)?;
        let height_px = side(0x0048_0007, "Total Pixel Matrix Rows", format.rows)?;
        let image_type = header.text(0x0008_0008).and_then(|text| text.split('\\').nth(2));
        let mut slide = Self {
            width_px,
            height_px,
            tile_width_px: format.columns,
            tile_height_px: format.rows,
            shows_volume: image_type.is_none_or(|kind| kind.trim() == "VOLUME"),
            order: Order::Full { across: width_px.div_ceil(format.columns) },
        };
        let is_full = match header.text(0x0020_9311) {
            Some("TILED_FULL") => true,
            Some("TILED_SPARSE") => false,
            // Written before the attribute was: places where they are stated, else the order that a single row leaves no doubt of.
            Some("") | None => header.placed.is_none(),
            Some(_) => {
                return Err(DecodeError::UnsupportedPixels { what: "a slide with this dimension organization type" });
            }
        };
        if is_full {
            slide.check_full(format)?;
        } else {
            slide.order = Order::Sparse(slide.sparse(header, format)?);
        }
        Ok(Some(slide))
    }

    /// Enough frames for the first optical path's first focal plane, which come first.
    fn check_full(&self, format: &PixelFormat) -> Result<(), DecodeError> {
        let across = u64::from(self.width_px.div_ceil(self.tile_width_px));
        let down = u64::from(self.height_px.div_ceil(self.tile_height_px));
        if across * down > format.frames.into() {
            let attribute = "Number of Frames";
            return Err(DecodeError::Invalid { attribute, why: "they do not fill the total pixel matrix" });
        }
        Ok(())
    }

    fn sparse(&self, header: &Header, format: &PixelFormat) -> Result<Vec<Tile>, DecodeError> {
        let attribute = "Plane Position (Slide)";
        let places = header.placed.as_ref().map(|placed| placed.frames.as_slice()).unwrap_or_default();
        if places.len() != format.frames as usize {
            return Err(DecodeError::Missing { attribute });
        }
        let inside = |place: i32, side: u32| {
            u32::try_from(place).ok().and_then(|place| place.checked_sub(1)).filter(|place| *place < side)
        };
        let mut tiles = Vec::with_capacity(places.len());
        for (frame, place) in (0..).zip(places) {
            let (Some(column), Some(row)) = (place.column, place.row) else {
                return Err(DecodeError::Missing { attribute });
            };
            match (inside(column, self.width_px), inside(row, self.height_px)) {
                (Some(x), Some(y)) if !place.is_other => tiles.push(Tile { frame, x, y }),
                (Some(_), Some(_)) => {}
                _ => return Err(DecodeError::Invalid { attribute, why: "a tile lies outside the total pixel matrix" }),
            }
        }
        tiles.sort_unstable_by_key(|tile| (tile.y, tile.x, tile.frame));
        // A second frame at the same place is another path or plane that nobody named: the first is shown.
        tiles.dedup_by_key(|tile| (tile.y, tile.x));
        Ok(tiles)
    }
}
