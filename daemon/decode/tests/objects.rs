//! Objects that are not coded, and objects that are wrong: built here, element by element.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod part10;

use fovea_core::{Frame, Pixels};
use fovea_decode::{DecodeError, DecodeLimits, open, picture_rgb8};
use part10::{DEFLATED, EXPLICIT, IMPLICIT, JPEG_BASELINE, Part10, file_of};
use std::io::Write;

fn frame_of(object: &Part10, index: u32) -> Result<Frame, DecodeError> {
    open(file_of(&object.bytes()), DecodeLimits::default())?.frame(index)
}

fn pixels(object: &Part10) -> Pixels {
    frame_of(object, 0).unwrap().pixels().clone()
}

fn gray(columns: u16, rows: u16, bytes: &[u8]) -> Part10 {
    Part10::image(columns, rows, 1, "MONOCHROME2", 8, 8).pixels(bytes)
}

fn le(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn every_native_syntax_gives_the_same_frame() {
    for syntax in [IMPLICIT, EXPLICIT, DEFLATED] {
        let object = gray(3, 1, &[1, 2, 3, 0]).syntax(syntax);
        assert_eq!(pixels(&object), Pixels::Gray8(vec![1, 2, 3]), "{syntax}");
    }
}

#[test]
fn frames_are_read_one_by_one_and_past_the_last_is_an_error() {
    let object = gray(2, 1, &[1, 2, 3, 4, 5, 6]).text(0x0028_0008, "3 ");
    for (index, expected) in [[1, 2], [3, 4], [5, 6]].into_iter().enumerate() {
        assert_eq!(*frame_of(&object, index as u32).unwrap().pixels(), Pixels::Gray8(expected.to_vec()));
    }
    assert!(matches!(frame_of(&object, 3), Err(DecodeError::NoSuchFrame { index: 3, frames: 3 })));
    let short = gray(2, 1, &[1, 2, 3, 4]).text(0x0028_0008, "3 ");
    assert!(frame_of(&short, 1).is_ok());
    assert!(matches!(frame_of(&short, 2), Err(DecodeError::Truncated { .. })));
}

#[test]
fn monochrome_1_is_inverted_at_every_depth() {
    let object = Part10::image(2, 1, 1, "MONOCHROME1", 8, 8).pixels(&[0, 200]);
    assert_eq!(pixels(&object), Pixels::Gray8(vec![255, 55]));
    let object = Part10::image(2, 1, 1, "MONOCHROME1", 16, 12).pixels(&le(&[0, 4000]));
    assert_eq!(pixels(&object), Pixels::Gray16 { samples: vec![4095, 95], bits: 12 });
    let object = Part10::image(2, 1, 1, "MONOCHROME1", 16, 12).signed().pixels(&le(&[0xF800, 5]));
    assert_eq!(pixels(&object), Pixels::GrayI16 { samples: vec![2047, -6], bits: 12 });
}

#[test]
fn stored_bits_are_cut_out_and_signed_ones_extended() {
    // Overlay bits above the stored ones, as old devices put there.
    let object = Part10::image(2, 1, 1, "MONOCHROME2", 16, 12).pixels(&le(&[0xF123, 0x0FFF]));
    assert_eq!(pixels(&object), Pixels::Gray16 { samples: vec![0x123, 0xFFF], bits: 12 });
    let object = Part10::image(2, 1, 1, "MONOCHROME2", 16, 12).signed().pixels(&le(&[0x0FFF, 0x07FF]));
    assert_eq!(pixels(&object), Pixels::GrayI16 { samples: vec![-1, 2047], bits: 12 });
    // Stored in the upper bits.
    let object = Part10::image(1, 1, 1, "MONOCHROME2", 16, 12).short(0x0028_0102, 15).pixels(&le(&[0xABC0]));
    assert_eq!(pixels(&object), Pixels::Gray16 { samples: vec![0xABC], bits: 12 });
    let object = Part10::image(3, 1, 1, "MONOCHROME2", 8, 4).pixels(&[0, 15, 5, 0]);
    assert_eq!(pixels(&object), Pixels::Gray8(vec![0, 255, 85]));
}

#[test]
fn colour_planes_and_shared_chrominance_become_rgb_pixels() {
    let object = Part10::image(2, 1, 3, "RGB", 8, 8).short(0x0028_0006, 1).pixels(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(pixels(&object), Pixels::Rgb8(vec![1, 3, 5, 2, 4, 6]));
    let object = Part10::image(1, 1, 3, "RGB", 16, 16).pixels(&le(&[1, 500, 65_535]));
    assert_eq!(pixels(&object), Pixels::Rgb16 { samples: vec![1, 500, 65_535], bits: 16 });
    // Pure red, by the standard's own equations.
    let object = Part10::image(1, 1, 3, "YBR_FULL", 8, 8).pixels(&[76, 85, 255, 0]);
    let Pixels::Rgb8(rgb) = pixels(&object) else { panic!() };
    assert!(rgb[0] >= 253 && rgb[1] <= 2 && rgb[2] <= 2, "{rgb:?}");
    // Three columns: the second pair's second pixel is padding.
    let object = Part10::image(3, 1, 3, "YBR_FULL_422", 8, 8).pixels(&[10, 20, 128, 128, 30, 99, 128, 128]);
    assert_eq!(pixels(&object), Pixels::Rgb8(vec![10, 10, 10, 20, 20, 20, 30, 30, 30]));
}

fn palette(first: u16, bits: u16, data: [&[u8]; 3]) -> Part10 {
    let count = data[0].len() as u16 / (bits / 8);
    let mut object = Part10::image(4, 1, 1, "PALETTE COLOR", 8, 8).pixels(&[0, 4, 5, 9]);
    for (channel, data) in (0..).zip(data) {
        object = object.raw(0x0028_1101 + channel, b"US", &le(&[count, first, bits]));
        object = object.raw(0x0028_1201 + channel, b"OW", data);
    }
    object
}

#[test]
fn palettes_colour_indices_and_hold_the_ends() {
    let object = palette(4, 8, [&[10, 20], &[30, 40], &[50, 60]]);
    assert_eq!(pixels(&object), Pixels::Rgb8(vec![10, 30, 50, 10, 30, 50, 20, 40, 60, 20, 40, 60]));
    let [red, green, blue] = [le(&[256, 512]), le(&[0, 1]), le(&[65_535, 7])];
    let Pixels::Rgb16 { samples, bits: 16 } = pixels(&palette(4, 16, [&red, &green, &blue])) else { panic!() };
    assert_eq!(samples[..6], [256, 0, 65_535, 256, 0, 65_535]);
    assert_eq!(samples[6..], [512, 1, 7, 512, 1, 7]);
}

#[test]
fn what_is_wrong_is_named_and_has_a_stable_reason() {
    let image = || Part10::image(2, 1, 1, "MONOCHROME2", 8, 8).pixels(&[1, 2]);
    let jpeg = |width: u16, height: u16| {
        let [w1, w0] = width.to_be_bytes();
        let [h1, h0] = height.to_be_bytes();
        vec![0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, h1, h0, w1, w0, 1, 1, 0x11, 0, 0xFF, 0xD9, 0]
    };
    let coded = |code: &[u8]| Part10::image(2, 1, 1, "MONOCHROME2", 8, 8).syntax(JPEG_BASELINE).fragments(&[&[], code]);
    let cases = [
        ("zero rows", image().short(0x0028_0010, 0), "pixel_description_invalid"),
        ("no rows", image().without(0x0028_0010), "pixel_description_invalid"),
        ("enormous", image().short(0x0028_0010, 65_535).short(0x0028_0011, 65_535), "image_too_large"),
        ("wrong photometric", image().text(0x0028_0004, "RGB "), "pixel_description_invalid"),
        ("unknown photometric", image().text(0x0028_0004, "CMYK"), "unsupported_pixel_format"),
        ("no palette", image().text(0x0028_0004, "PALETTE COLOR "), "pixel_description_invalid"),
        (
            "short palette",
            palette(0, 8, [&[1, 2], &[3, 4], &[5, 6]]).raw(0x0028_1202, b"OW", &[1]),
            "pixel_description_invalid",
        ),
        ("no frames", image().text(0x0028_0008, "0 "), "pixel_description_invalid"),
        ("many frames", image().text(0x0028_0008, "2000000000"), "image_too_large"),
        ("stored above allocated", image().short(0x0028_0101, 12), "pixel_description_invalid"),
        ("one bit", image().short(0x0028_0100, 1), "unsupported_pixel_format"),
        ("no pixels", image().without(0x7FE0_0010), "no_pixel_data"),
        ("video", image().syntax("1.2.840.10008.1.2.4.102"), "unsupported_transfer_syntax"),
        ("no uid", image().syntax("garbage"), "pixel_description_invalid"),
        ("short pixels", Part10::image(20, 20, 1, "MONOCHROME2", 8, 8).pixels(&[1, 2]), "pixel_data_damaged"),
        ("native in coded syntax", image().syntax(JPEG_BASELINE), "pixel_description_invalid"),
        ("no fragments", coded(&[]).fragments(&[]), "no_pixel_data"),
        ("empty fragment", coded(&[]), "pixel_data_damaged"),
        ("a JPEG that lies", coded(&jpeg(60_000, 60_000)), "pixel_data_contradicts_header"),
        ("a JPEG without a scan", coded(&jpeg(2, 1)), "pixel_data_damaged"),
        ("nested too deep", image().nested(1000), "image_too_large"),
    ];
    for (name, object, reason) in cases {
        let error = frame_of(&object, 0).expect_err(name);
        assert_eq!(error.reason().code, reason, "{name}: {error}");
    }
    for garbage in [&b""[..], b"hello", &[0; 4096]] {
        let error = open(file_of(garbage), DecodeLimits::default()).err().unwrap();
        assert_eq!(error.reason().code, "object_damaged");
        assert!(matches!(picture_rgb8(file_of(garbage), DecodeLimits::default()), Err(DecodeError::NotAFile { .. })));
    }
}

#[test]
fn nesting_within_the_limit_is_walked_over() {
    assert_eq!(pixels(&gray(2, 1, &[1, 2]).nested(50)), Pixels::Gray8(vec![1, 2]));
}

#[test]
fn a_deflated_bomb_is_refused() {
    let mut object = gray(2, 1, &[1, 2]).syntax(DEFLATED);
    object = object.raw(0x0029_0010, b"OB", &vec![0; 20 << 20]);
    let bytes = object.bytes();
    assert!(bytes.len() < 100_000);
    let limits = DecodeLimits { whole_bytes_max: 10 << 20, ..DecodeLimits::default() };
    assert!(matches!(open(file_of(&bytes), limits).err(), Some(DecodeError::TooLarge { .. })));
}

#[test]
fn a_length_that_lies_is_an_error_and_no_allocation() {
    for tag in [0x0028_1201_u32, 0x0029_0010, 0x7FE0_0010] {
        let mut bytes = gray(2, 1, &[1, 2]).without(0x7FE0_0010).bytes();
        let (group, element) = ((tag >> 16) as u16, tag as u16);
        bytes.extend(group.to_le_bytes());
        bytes.extend(element.to_le_bytes());
        bytes.extend(b"OW\0\0");
        bytes.extend(0xFFFF_FFF0_u32.to_le_bytes());
        let result = open(file_of(&bytes), DecodeLimits::default()).and_then(|mut object| object.frame(0));
        assert!(result.is_ok() || result.is_err_and(|error| !error.to_string().is_empty()), "{tag:08X}");
    }
}

#[test]
fn fragments_are_gathered_by_table_by_count_and_by_their_starts() {
    // Damaged JPEG streams of known size: which bytes came together shows in the error's text only, so RLE is used.
    let rle = |value: u8| {
        let mut code = vec![0; 64];
        code[0] = 1;
        code[4] = 64;
        code.extend([0xFF, value]); // two times `value`
        code
    };
    let (one, two) = (rle(7), rle(9));
    let object = || Part10::image(2, 1, 1, "MONOCHROME2", 8, 8).syntax("1.2.840.10008.1.2.5").text(0x0028_0008, "2 ");
    let whole = object().fragments(&[&[], &one, &two]);
    assert_eq!(*frame_of(&whole, 1).unwrap().pixels(), Pixels::Gray8(vec![9, 9]));
    // Two fragments for the first frame, one for the second, told by the table.
    let table: Vec<u8> = [0_u32, 8 + 40 + 8 + 26].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let split = object().fragments(&[&table, &one[..40], &one[40..], &two]);
    assert_eq!(*frame_of(&split, 0).unwrap().pixels(), Pixels::Gray8(vec![7, 7]));
    assert_eq!(*frame_of(&split, 1).unwrap().pixels(), Pixels::Gray8(vec![9, 9]));
    let lying: Vec<u8> = [0_u32, 5].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    assert!(frame_of(&object().fragments(&[&lying, &one[..40], &one[40..], &two]), 0).is_err());
    assert!(frame_of(&object().fragments(&[&[], &one[..40], &one[40..], &two]), 0).is_err(), "no way to tell");
}

#[test]
fn the_files_position_is_neither_used_nor_moved() {
    use std::io::{Seek, SeekFrom};
    let mut file = file_of(&gray(2, 1, &[1, 2]).bytes());
    file.seek(SeekFrom::Start(77)).unwrap();
    let mut twin = file.try_clone().unwrap();
    assert!(open(file, DecodeLimits::default()).unwrap().frame(0).is_ok());
    assert_eq!(twin.stream_position().unwrap(), 77);
    twin.flush().unwrap();
}
