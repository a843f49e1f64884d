//! Whole slide images of any size, written tile by tile.

use super::{element, header, text};
use fovea_core::{ObjectHeader, Uid, sop_class};
use std::fs::File;
use std::io::{BufWriter, Write};

const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";

/// How the tiles are found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Order {
    /// Left to right, then down.
    Full,
    /// Each says where it is; they come in some other order, which depends on the number.
    Sparse(usize),
}

/// A slide to be written.
#[derive(Clone)]
pub struct Slide<'a> {
    pub width_px: u32,
    pub height_px: u32,
    pub tile_px: u16,
    pub order: Order,
    /// Micrometres.
    pub pixel_um: Option<f64>,
    pub image_type: &'a str,
    /// Whether tiles are JPEG streams; else RGB samples.
    pub is_jpeg: bool,
    /// Whether a basic offset table tells where JPEG tiles begin.
    pub has_table: bool,
}

impl Slide<'_> {
    pub fn rgb(width_px: u32, height_px: u32, tile_px: u16) -> Self {
        Self {
            width_px,
            height_px,
            tile_px,
            order: Order::Full,
            pixel_um: None,
            image_type: "ORIGINAL\\PRIMARY\\VOLUME\\NONE",
            is_jpeg: false,
            has_table: true,
        }
    }

    /// Columns and rows of tiles.
    pub fn tiles(&self) -> (u32, u32) {
        (self.width_px.div_ceil(self.tile_px.into()), self.height_px.div_ceil(self.tile_px.into()))
    }

    /// Places of all tiles, in the order of the frames.
    fn places(&self) -> Vec<(u32, u32)> {
        let (across, down) = self.tiles();
        let mut places: Vec<(u32, u32)> =
            (0..down).flat_map(|row| (0..across).map(move |column| (column, row))).collect();
        if let Order::Sparse(shift) = self.order {
            places.reverse();
            let length = places.len();
            places.rotate_left(shift % length);
        }
        places
    }

    /// Writes the file; `tile` gives the bytes of each tile by its column and row, none where there is glass without a
    /// tile, which only a sparse slide may have.
    pub fn write<'t>(&self, tile: impl Fn(u32, u32) -> Option<&'t [u8]>) -> File {
        let places: Vec<(u32, u32)> =
            self.places().into_iter().filter(|(column, row)| tile(*column, *row).is_some()).collect();
        let file = tempfile::tempfile().unwrap();
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&self.head(&places)).unwrap();
        let bytes = |place: &(u32, u32)| tile(place.0, place.1).unwrap();
        if self.is_jpeg {
            out.write_all(b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF").unwrap();
            let mut table = Vec::new();
            let mut at = 0_u64;
            for place in places.iter().filter(|_| self.has_table) {
                table.extend(u32::try_from(at).unwrap().to_le_bytes());
                at += 8 + bytes(place).len().next_multiple_of(2) as u64;
            }
            fragment(&mut out, &table);
            places.iter().for_each(|place| fragment(&mut out, bytes(place)));
            out.write_all(b"\xFE\xFF\xDD\xE0\0\0\0\0").unwrap();
        } else {
            let length: usize = places.iter().map(|place| bytes(place).len()).sum();
            out.write_all(b"\xE0\x7F\x10\x00OB\0\0").unwrap();
            out.write_all(&u32::try_from(length).unwrap().to_le_bytes()).unwrap();
            places.iter().for_each(|place| out.write_all(bytes(place)).unwrap());
        }
        out.into_inner().unwrap()
    }

    fn head(&self, places: &[(u32, u32)]) -> Vec<u8> {
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        element(&mut file, (2, 0x10), b"UI", &text(if self.is_jpeg { JPEG_BASELINE } else { EXPLICIT_LE }));
        element(&mut file, (8, 8), b"CS", &spaced(self.image_type));
        element(&mut file, (8, 0x16), b"UI", &text(sop_class::VL_WHOLE_SLIDE));
        element(&mut file, (8, 0x60), b"CS", b"SM");
        let order = if self.order == Order::Full { "TILED_FULL" } else { "TILED_SPARSE" };
        element(&mut file, (0x20, 0x9311), b"CS", &spaced(order));
        element(&mut file, (0x28, 2), b"US", &3u16.to_le_bytes());
        element(&mut file, (0x28, 4), b"CS", if self.is_jpeg { b"YBR_FULL_422" } else { b"RGB " });
        element(&mut file, (0x28, 6), b"US", &0u16.to_le_bytes());
        element(&mut file, (0x28, 8), b"IS", &spaced(&places.len().to_string()));
        element(&mut file, (0x28, 0x10), b"US", &self.tile_px.to_le_bytes());
        element(&mut file, (0x28, 0x11), b"US", &self.tile_px.to_le_bytes());
        for (tag, value) in [(0x100, 8u16), (0x101, 8), (0x102, 7), (0x103, 0)] {
            element(&mut file, (0x28, tag), b"US", &value.to_le_bytes());
        }
        element(&mut file, (0x48, 6), b"UL", &self.width_px.to_le_bytes());
        element(&mut file, (0x48, 7), b"UL", &self.height_px.to_le_bytes());
        if let Some(um) = self.pixel_um {
            let mut spacing = Vec::new();
            let mm = um / 1000.0;
            element(&mut spacing, (0x28, 0x30), b"DS", &spaced(&format!("{mm:.8}\\{mm:.8}")));
            let mut group = Vec::new();
            sequence(&mut group, (0x28, 0x9110), &[spacing]);
            sequence(&mut file, (0x5200, 0x9229), &[group]);
        }
        if self.order != Order::Full {
            let groups: Vec<Vec<u8>> = places.iter().map(|place| self.place(*place)).collect();
            sequence(&mut file, (0x5200, 0x9230), &groups);
        }
        file
    }

    fn place(&self, (column, row): (u32, u32)) -> Vec<u8> {
        let from_one = |tile: u32| i32::try_from(tile * u32::from(self.tile_px) + 1).unwrap().to_le_bytes();
        let mut position = Vec::new();
        element(&mut position, (0x48, 0x021E), b"SL", &from_one(column));
        element(&mut position, (0x48, 0x021F), b"SL", &from_one(row));
        let mut group = Vec::new();
        sequence(&mut group, (0x48, 0x021A), &[position]);
        group
    }
}

fn spaced(value: &str) -> Vec<u8> {
    let mut padded = value.as_bytes().to_vec();
    padded.resize(padded.len().next_multiple_of(2), b' ');
    padded
}

fn sequence(out: &mut Vec<u8>, (group, number): (u16, u16), items: &[Vec<u8>]) {
    let length: usize = items.iter().map(|item| item.len() + 8).sum();
    out.extend(group.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend(b"SQ\0\0");
    out.extend(u32::try_from(length).unwrap().to_le_bytes());
    for item in items {
        out.extend(b"\xFE\xFF\x00\xE0");
        out.extend(u32::try_from(item.len()).unwrap().to_le_bytes());
        out.extend(item);
    }
}

fn fragment(out: &mut impl Write, bytes: &[u8]) {
    let length = bytes.len().next_multiple_of(2);
    out.write_all(b"\xFE\xFF\x00\xE0").unwrap();
    out.write_all(&u32::try_from(length).unwrap().to_le_bytes()).unwrap();
    out.write_all(bytes).unwrap();
    out.write_all(&[0][..length - bytes.len()]).unwrap();
}

/// Routing facts of a slide.
pub fn slide_header(last: u32, tile_px: u16) -> ObjectHeader {
    ObjectHeader {
        sop_class_uid: Uid::new(sop_class::VL_WHOLE_SLIDE).unwrap(),
        modality: Some("SM".to_owned()),
        rows_px: Some(tile_px.into()),
        columns_px: Some(tile_px.into()),
        ..header(last)
    }
}

/// Peak resident memory of a process, MiB.
pub fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
