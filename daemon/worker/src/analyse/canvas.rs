//! A large picture of which parts can be had: a frame in memory, or a slide whose tiles are decoded when they are needed.
//!
//! In: a box inside the picture. Out: it, as a frame. Promise: of a slide no more than [`CACHE_BYTES_MAX`] of decoded tiles
//! are held (and always one), however large it is; what no tile covers is as white as empty glass.

use fovea_core::{Frame, PixelBox, Pixels};
use fovea_decode::{DecodeError, Object, Slide, Tile};
use std::collections::{BTreeMap, HashMap};

/// Room for the tiles that a strip of fields shares with the row below it: 160 tiles of 256 x 256 pixels, 10 of 1024 x 1024.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// Where parts come from.
pub enum Canvas {
    /// Tiles of a slide.
    Slide(Box<Tiles>),
    /// One frame.
    Frame(Frame),
}

impl Canvas {
    /// Columns and rows.
    pub fn size_px(&self) -> (u32, u32) {
        match self {
            Self::Slide(tiles) => tiles.size_px(),
            Self::Frame(frame) => (frame.width_px(), frame.height_px()),
        }
    }

    /// A part; what lies beyond the picture is white.
    pub fn part(&mut self, part: PixelBox) -> Result<Frame, DecodeError> {
        match self {
            Self::Slide(tiles) => tiles.part(part),
            Self::Frame(frame) => {
                let mut board = Board::like(frame.pixels(), part);
                board.put(frame, 0, 0)?;
                board.into_frame()
            }
        }
    }
}

/// A slide's tiles, decoded when needed; the least recently used go first.
pub struct Tiles {
    object: Object,
    slide: Slide,
    cached: Cache,
}

impl Tiles {
    pub fn new(object: Object, slide: Slide) -> Self {
        Self { object, slide, cached: Cache::default() }
    }

    /// Columns and rows of the whole.
    pub fn size_px(&self) -> (u32, u32) {
        (self.slide.width_px(), self.slide.height_px())
    }

    fn part(&mut self, part: PixelBox) -> Result<Frame, DecodeError> {
        let mut board: Option<Board> = None;
        for Tile { frame, x, y } in self.slide.tiles(part)? {
            let tile = self.cached.get(frame, || self.object.frame(frame))?;
            board.get_or_insert_with(|| Board::like(tile.pixels(), part)).put(tile, x, y)?;
        }
        board.unwrap_or_else(|| Board::like(&Pixels::Rgb8(Vec::new()), part)).into_frame()
    }
}

#[derive(Default)]
struct Cache {
    /// By the moment of last use.
    tiles: BTreeMap<u64, (u32, Frame)>,
    used: HashMap<u32, u64>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, number: u32, decode: impl FnOnce() -> Result<Frame, DecodeError>) -> Result<&Frame, DecodeError> {
        self.clock += 1;
        let held = self.used.get(&number).and_then(|moment| self.tiles.remove(moment));
        let entry = match held {
            Some(entry) => entry,
            None => {
                let frame = decode()?;
                self.bytes += bytes(&frame);
                (number, frame)
            }
        };
        // The new one is not among those that may go.
        while self.bytes > CACHE_BYTES_MAX
            && let Some((_, (gone, frame))) = self.tiles.pop_first()
        {
            self.used.remove(&gone);
            self.bytes -= bytes(&frame);
        }
        self.used.insert(number, self.clock);
        Ok(&self.tiles.entry(self.clock).or_insert(entry).1)
    }
}

fn bytes(frame: &Frame) -> usize {
    match frame.pixels() {
        Pixels::Gray8(samples) | Pixels::Rgb8(samples) => samples.len(),
        Pixels::Gray16 { samples, .. } | Pixels::Rgb16 { samples, .. } => samples.len() * 2,
        Pixels::GrayI16 { samples, .. } => samples.len() * 2,
    }
}

/// A part in the making.
struct Board {
    part: PixelBox,
    pixels: Pixels,
}

impl Board {
    /// White, in the kind of pixels of the tiles that will come.
    fn like(pixels: &Pixels, part: PixelBox) -> Self {
        let count = part.width as usize * part.height as usize;
        // A frame's bits are 2 to 16.
        let white = |bits: u8| ((1_u32 << bits) - 1) as u16;
        let pixels = match pixels {
            Pixels::Gray8(_) => Pixels::Gray8(vec![u8::MAX; count]),
            Pixels::Rgb8(_) => Pixels::Rgb8(vec![u8::MAX; 3 * count]),
            Pixels::Gray16 { bits, .. } => Pixels::Gray16 { samples: vec![white(*bits); count], bits: *bits },
            Pixels::Rgb16 { bits, .. } => Pixels::Rgb16 { samples: vec![white(*bits); 3 * count], bits: *bits },
            Pixels::GrayI16 { bits, .. } => {
                Pixels::GrayI16 { samples: vec![(white(*bits) / 2).cast_signed(); count], bits: *bits }
            }
        };
        Self { part, pixels }
    }

    /// Lays a tile whose first pixel is at (x, y) of the whole picture over what is there.
    fn put(&mut self, tile: &Frame, x: u32, y: u32) -> Result<(), DecodeError> {
        let shared = Shared::of(self.part, PixelBox { x, y, width: tile.width_px(), height: tile.height_px() });
        match (&mut self.pixels, tile.pixels()) {
            (Pixels::Gray8(to), Pixels::Gray8(from)) => shared.copy(to, from, 1),
            (Pixels::Rgb8(to), Pixels::Rgb8(from)) => shared.copy(to, from, 3),
            (Pixels::Gray16 { samples: to, .. }, Pixels::Gray16 { samples: from, .. }) => shared.copy(to, from, 1),
            (Pixels::Rgb16 { samples: to, .. }, Pixels::Rgb16 { samples: from, .. }) => shared.copy(to, from, 3),
            (Pixels::GrayI16 { samples: to, .. }, Pixels::GrayI16 { samples: from, .. }) => shared.copy(to, from, 1),
            _ => return Err(DecodeError::UnsupportedPixels { what: "a slide with tiles of several kinds" }),
        }
        Ok(())
    }

    fn into_frame(self) -> Result<Frame, DecodeError> {
        Frame::new(self.part.width, self.part.height, self.pixels).map_err(DecodeError::Frame)
    }
}

/// What a part and a tile have in common.
struct Shared {
    part: PixelBox,
    tile: PixelBox,
    left: u32,
    right: u32,
    top: u32,
    bottom: u32,
}

impl Shared {
    fn of(part: PixelBox, tile: PixelBox) -> Self {
        let end = |from: u32, length: u32| from.saturating_add(length);
        Self {
            part,
            tile,
            left: part.x.max(tile.x),
            right: end(part.x, part.width).min(end(tile.x, tile.width)),
            top: part.y.max(tile.y),
            bottom: end(part.y, part.height).min(end(tile.y, tile.height)),
        }
    }

    fn copy<T: Copy>(&self, to: &mut [T], from: &[T], channels: usize) {
        if self.left >= self.right {
            return;
        }
        let length = (self.right - self.left) as usize * channels;
        let start =
            |of: PixelBox, y: u32| ((y - of.y) as usize * of.width as usize + (self.left - of.x) as usize) * channels;
        for y in self.top..self.bottom {
            let (to_at, from_at) = (start(self.part, y), start(self.tile, y));
            to[to_at..to_at + length].copy_from_slice(&from[from_at..from_at + length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: u32, height: u32) -> Frame {
        let samples = (0..height).flat_map(|y| (0..width).map(move |x| (10 * y + x) as u8)).collect();
        Frame::new(width, height, Pixels::Gray8(samples)).unwrap()
    }

    #[test]
    fn a_part_is_what_lies_there_and_white_beyond() {
        let mut canvas = Canvas::Frame(numbered(4, 3));
        let part = canvas.part(PixelBox { x: 2, y: 1, width: 3, height: 3 }).unwrap();
        assert_eq!(*part.pixels(), Pixels::Gray8(vec![12, 13, 255, 22, 23, 255, 255, 255, 255]));
        let beyond = canvas.part(PixelBox { x: 9, y: 9, width: 1, height: 2 }).unwrap();
        assert_eq!(*beyond.pixels(), Pixels::Gray8(vec![255, 255]));
        let deep = Frame::new(1, 1, Pixels::Gray16 { samples: vec![7], bits: 12 }).unwrap();
        let part = Canvas::Frame(deep).part(PixelBox { x: 0, y: 0, width: 2, height: 1 }).unwrap();
        assert_eq!(*part.pixels(), Pixels::Gray16 { samples: vec![7, 4095], bits: 12 });
    }

    #[test]
    fn the_cache_keeps_what_was_used_last_and_no_more_than_its_bound() {
        let tile = || Frame::new(1024, 1024, Pixels::Rgb8(vec![0; 3 << 20])).map_err(DecodeError::Frame);
        let mut cache = Cache::default();
        let mut decoded = 0;
        for number in 0..100 {
            // Number 0 is asked for each time, and so decoded once.
            for wanted in [0, number] {
                cache
                    .get(wanted, || {
                        decoded += 1;
                        tile()
                    })
                    .unwrap();
            }
            assert!(cache.bytes <= CACHE_BYTES_MAX && cache.tiles.len() == cache.used.len());
        }
        assert_eq!((decoded, cache.tiles.len()), (100, 10));
        // One that is larger than the cache is held alone.
        let huge = || Frame::new(4096, 4096, Pixels::Rgb8(vec![0; 48 << 20])).map_err(DecodeError::Frame);
        cache.get(1000, huge).unwrap();
        assert_eq!(cache.tiles.len(), 1);
        cache.get(1001, tile).unwrap();
        assert_eq!((cache.tiles.len(), cache.bytes), (1, 3 << 20));
    }
}
