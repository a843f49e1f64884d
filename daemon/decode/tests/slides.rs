//! Slides in tiles: which frames a window needs, and slides that lie about it.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod part10;

use fovea_core::{PixelBox, PixelSize, Pixels};
use fovea_decode::{DecodeError, DecodeLimits, Object, Slide, Tile, open};
use part10::{EXPLICIT, IMPLICIT, Item, Lengths, Part10, Value, ds, file_of, sl};
use std::time::Instant;

const WHOLE_SLIDE: &[u8] = b"1.2.840.10008.5.1.4.1.1.77.1.6";
const PER_FRAME: u32 = 0x5200_9230;
const TILE: (u16, u16) = (4, 3);
/// 3 x 4 tiles, the last of each row and column padded.
const MATRIX: (u32, u32) = (10, 11);

/// A gray slide; frame `i` is full of `i + 1`.
fn slide(frames: u32) -> Part10 {
    let tile = usize::from(TILE.0) * usize::from(TILE.1);
    let pixels: Vec<u8> = (1..=frames).flat_map(|frame| vec![frame as u8; tile]).collect();
    Part10::image(TILE.0, TILE.1, 1, "MONOCHROME2", 8, 8)
        .raw(0x0008_0016, b"UI", WHOLE_SLIDE)
        .raw(0x0048_0006, b"UL", &MATRIX.0.to_le_bytes())
        .raw(0x0048_0007, b"UL", &MATRIX.1.to_le_bytes())
        .raw(0x0028_0008, b"IS", format!("{frames:<6}").as_bytes())
        .pixels(&pixels)
}

fn full(frames: u32) -> Part10 {
    slide(frames).raw(0x0020_9311, b"CS", b"TILED_FULL")
}

/// Places from 1, as the standard counts; further attributes of a frame behind them.
fn sparse(places: &[(i32, i32)]) -> Part10 {
    let groups = places.iter().map(|place| frame(*place, None, None)).collect();
    slide(places.len() as u32).raw(0x0020_9311, b"CS", b"TILED_SPARSE").sequence(PER_FRAME, groups)
}

fn frame((column, row): (i32, i32), path: Option<&str>, plane: Option<&str>) -> Item {
    let mut position = vec![(0x0048_021E, sl(column)), (0x0048_021F, sl(row))];
    position.extend(plane.map(|plane| (0x0040_074A, ds(plane))));
    let mut groups = vec![(0x0048_021A, Value::Items(vec![position]))];
    if let Some(path) = path {
        let identifier = Value::Plain(*b"SH", format!("{path:<4}").into_bytes());
        groups.push((0x0048_0207, Value::Items(vec![vec![(0x0048_0106, identifier)]])));
    }
    groups
}

/// All places of the matrix, row by row.
fn grid() -> Vec<(i32, i32)> {
    let (width, height) = (i32::from(TILE.0), i32::from(TILE.1));
    (0..4).flat_map(|row| (0..3).map(move |column| (1 + column * width, 1 + row * height))).collect()
}

fn opened(object: &Part10) -> Result<Object, DecodeError> {
    open(file_of(&object.bytes()), DecodeLimits::default())
}

fn window(x: u32, y: u32, width: u32, height: u32) -> PixelBox {
    PixelBox { x, y, width, height }
}

/// The frame at each pixel of the matrix, 0 where there is none.
fn map(slide: &Slide) -> Vec<u32> {
    let (width, height) = (slide.width_px(), slide.height_px());
    let mut map = Vec::new();
    for y in 0..height {
        for x in 0..width {
            map.push(slide.tiles(window(x, y, 1, 1)).unwrap().last().map_or(0, |tile| tile.frame + 1));
        }
    }
    map
}

#[test]
fn full_and_sparse_tiling_of_the_same_tiles_are_equal() {
    let whole = opened(&full(12)).unwrap();
    let whole = whole.slide().unwrap();
    assert_eq!((whole.width_px(), whole.height_px()), MATRIX);
    for lengths in [Lengths::Known, Lengths::Undefined] {
        for syntax in [EXPLICIT, IMPLICIT] {
            let parts = opened(&sparse(&grid()).lengths(lengths).syntax(syntax)).unwrap();
            let parts = parts.slide().unwrap();
            for x in 0..MATRIX.0 + 2 {
                for y in 0..MATRIX.1 + 2 {
                    for (width, height) in [(1, 1), (4, 3), (5, 7), (100, 100)] {
                        let window = window(x, y, width, height);
                        assert_eq!(whole.tiles(window).unwrap(), parts.tiles(window).unwrap(), "{window:?}");
                    }
                }
            }
        }
    }
    assert_eq!(whole.tiles(window(3, 2, 2, 2)).unwrap().len(), 4);
    assert_eq!(whole.tiles(window(9, 10, 100, 100)).unwrap(), [Tile { frame: 11, x: 8, y: 9 }]);
    assert!(whole.tiles(window(u32::MAX, u32::MAX, u32::MAX, u32::MAX)).unwrap().is_empty());
}

#[test]
fn any_order_of_frames_shows_the_same_picture() {
    // Every rotation of the order; the frames' numbers rotate with it.
    for shift in 0..12 {
        let mut places = grid();
        places.rotate_left(shift);
        let mut object = opened(&sparse(&places)).unwrap();
        let wanted: Vec<u32> = map(opened(&full(12)).unwrap().slide().unwrap());
        let found = map(object.slide().unwrap());
        let back = |frame: &u32| (frame - 1 + shift as u32) % 12 + 1;
        assert_eq!(found.iter().map(back).collect::<Vec<_>>(), wanted, "shift {shift}");
        assert_eq!(*object.frame(3).unwrap().pixels(), Pixels::Gray8(vec![4; 12]));
    }
}

#[test]
fn empty_glass_has_no_tile_and_only_the_first_path_and_plane_are_shown() {
    let object = opened(&sparse(&[(1, 1), (9, 10)])).unwrap();
    let parts = object.slide().unwrap();
    assert!(parts.tiles(window(4, 0, 4, 9)).unwrap().is_empty());
    assert_eq!(map(parts).iter().filter(|frame| **frame == 0).count(), 110 - 12 - 4);
    let frames = vec![
        frame((1, 1), Some("1"), Some("0.0")),
        frame((1, 1), Some("2"), Some("0.0")),
        frame((5, 1), Some("2"), Some("0")),
        frame((5, 1), Some("1"), Some("0")),
        frame((9, 1), Some("1"), Some("1.5")),
        frame((9, 4), None, None),
    ];
    let object = slide(6).raw(0x0020_9311, b"CS", b"TILED_SPARSE").sequence(PER_FRAME, frames);
    let object = opened(&object).unwrap();
    let shown = object.slide().unwrap().tiles(window(0, 0, 10, 11)).unwrap();
    // A frame that states neither is of the shared ones: here nobody can tell, and it is at a place of its own.
    assert_eq!(shown.iter().map(|tile| tile.frame).collect::<Vec<_>>(), [0, 3, 5]);
    // In full tiling the further paths come behind.
    let object = opened(&full(24)).unwrap();
    assert_eq!(map(object.slide().unwrap()), map(opened(&full(12)).unwrap().slide().unwrap()));
}

#[test]
fn a_label_is_no_specimen_and_other_objects_are_no_slides() {
    for (kind, shows) in [("ORIGINAL\\PRIMARY\\VOLUME\\NONE ", true), ("ORIGINAL\\PRIMARY\\LABEL\\NONE", false)] {
        let object = opened(&full(12).raw(0x0008_0008, b"CS", kind.as_bytes())).unwrap();
        assert_eq!(object.slide().unwrap().shows_volume(), shows);
    }
    assert!(opened(&full(12).without(0x0008_0016)).unwrap().slide().is_none());
    let spacing = vec![(0x0028_0030, ds("0.0005\\0.0005"))];
    let shared = vec![vec![(0x0028_9110, Value::Items(vec![spacing]))]];
    let object = opened(&full(12).sequence(0x5200_9229, shared)).unwrap();
    assert_eq!(object.geometry().pixel_size, Some(PixelSize { width_mm: 0.0005, height_mm: 0.0005 }));
}

#[test]
fn inv_08_slides_that_lie_are_refused_at_once() {
    let side = |tag, value: u32| full(12).raw(tag, b"UL", &value.to_le_bytes());
    let moved = |place| {
        let mut places = grid();
        places[5] = place;
        sparse(&places)
    };
    let unplaced = vec![vec![(0x0020_9111, Value::Items(vec![]))]; 12];
    let sparse_with = |groups| slide(12).raw(0x0020_9311, b"CS", b"TILED_SPARSE").sequence(PER_FRAME, groups);
    let cases = [
        ("no columns", side(0x0048_0006, 0), "pixel_description_invalid"),
        ("2^31 columns", side(0x0048_0006, 1 << 31), "image_too_large"),
        ("2^32 - 1 rows", side(0x0048_0007, u32::MAX), "image_too_large"),
        ("no matrix", full(12).without(0x0048_0007), "pixel_description_invalid"),
        ("more places than frames", side(0x0048_0006, 200_000), "pixel_description_invalid"),
        ("too few frames", full(11), "pixel_description_invalid"),
        ("too many frames", full(12).raw(0x0028_0008, b"IS", b"1000000 "), "image_too_large"),
        ("unknown order", full(12).raw(0x0020_9311, b"CS", b"3D"), "unsupported_pixel_format"),
        ("left of it", moved((0, 1)), "pixel_description_invalid"),
        ("above it", moved((1, -5)), "pixel_description_invalid"),
        ("right of it", moved((11, 1)), "pixel_description_invalid"),
        ("far below it", moved((1, i32::MAX)), "pixel_description_invalid"),
        ("far above it", moved((i32::MIN, i32::MIN)), "pixel_description_invalid"),
        ("places without a column", sparse_with(unplaced.clone()), "pixel_description_invalid"),
        ("fewer places", sparse_with(vec![frame((1, 1), None, None); 3]), "pixel_description_invalid"),
        ("no places", sparse_with(vec![]), "pixel_description_invalid"),
        ("more places than any slide", sparse_with(vec![vec![]; 50_000]), "pixel_description_invalid"),
        ("as many groups", sparse_with(vec![frame((1, 1), None, None); 40_001]), "image_too_large"),
        (
            "no order and no places",
            full(13).without(0x0020_9311).raw(0x0028_0008, b"IS", b"9 "),
            "pixel_description_invalid",
        ),
    ];
    for (name, object, reason) in cases {
        let file = file_of(&object.bytes());
        let begin = Instant::now();
        let error = open(file, DecodeLimits::default()).err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(error.reason().code, reason, "{name}: {error}");
        assert!(begin.elapsed().as_millis() < 2000, "{name}: {:?}", begin.elapsed());
    }
}

#[test]
fn inv_08_tiles_piled_upon_each_other_are_refused_where_they_are_asked_for() {
    // One pixel apart: a small window would need them all.
    let places: Vec<(i32, i32)> = (0..100).map(|index| (1 + index % 10, 1 + index / 10)).collect();
    let object = opened(&sparse(&places)).unwrap();
    let refused = object.slide().unwrap().tiles(window(0, 0, 10, 11));
    assert!(matches!(refused, Err(DecodeError::TooLarge { .. })), "{refused:?}");
}

/// RLE of one value for a tile of 12 pixels.
fn rle(value: u8) -> Vec<u8> {
    let mut code = vec![0; 64];
    (code[0], code[4]) = (1, 64);
    code.extend([0xF5, value]);
    code
}

#[test]
fn frames_are_found_by_either_table_or_none_and_a_wrong_table_does_no_harm() {
    let codes: Vec<Vec<u8>> = (1..=12).map(rle).collect();
    let offsets: Vec<u64> = (0..12).map(|frame| frame * 74).collect();
    let basic: Vec<u8> = offsets.iter().flat_map(|offset| (*offset as u32).to_le_bytes()).collect();
    let extended: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let wrong: Vec<u8> = (0..12_u32).flat_map(|frame| (frame * 70).to_le_bytes()).collect();
    let backwards: Vec<u8> = offsets.iter().rev().flat_map(|offset| (*offset as u32).to_le_bytes()).collect();
    let beyond: Vec<u8> = (0..12_u32).flat_map(|frame| (frame * 0x1000_0000).to_le_bytes()).collect();
    let zeros = vec![0; 48];
    let object = |table: &[u8]| {
        let mut fragments: Vec<&[u8]> = vec![table];
        fragments.extend(codes.iter().map(Vec::as_slice));
        full(12).syntax("1.2.840.10008.1.2.5").fragments(&fragments)
    };
    let cases = [
        ("none", object(&[])),
        ("basic", object(&basic)),
        ("extended", object(&[]).raw(0x7FE0_0001, b"OV", &extended)),
        ("wrong", object(&wrong)),
        ("backwards", object(&backwards)),
        ("beyond the file", object(&beyond)),
        ("zeros", object(&zeros)),
    ];
    for (name, object) in cases {
        let mut object = opened(&object).unwrap();
        for index in [11, 0, 7, 3, 11] {
            let frame = object.frame(index).unwrap_or_else(|error| panic!("{name} {index}: {error}"));
            assert_eq!(*frame.pixels(), Pixels::Gray8(vec![index as u8 + 1; 12]), "{name} {index}");
        }
    }
}
