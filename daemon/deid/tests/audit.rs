//! The audit against a sabotaged rewriter: it is shown files that were not or only partly cleaned.
#![allow(clippy::unwrap_used)] // helpers of a test binary may panic

mod common;

use common::*;
use fovea_deid::audit;

fn leaks(original: &Object, copy: &[u8]) -> usize {
    // A doubt is as good as a leak: both keep the copy here.
    audit(&original.file, &file_of(copy)).map_or(1, |leaks| leaks.len())
}

fn rich() -> Vec<El> {
    let mut all = base();
    all.extend([
        el(0x0010_0010, "PN", "Archer^Isabel"),
        el(0x0010_0020, "LO", "MRN-77421"),
        el(0x0010_0030, "DA", "19610412"),
        el(0x0008_0050, "SH", "ACC-9917"),
        el(0x0008_0080, "LO", "St. Example Clinic"),
    ]);
    all
}

/// The clean copy with one element more in its data set, before Pixel Data.
fn with_planted(clean: &[u8], planted: &El) -> Vec<u8> {
    let file = dicom_elements(clean);
    let mut elements = file.1;
    elements.retain(|(tag, _)| *tag != planted.tag());
    elements.push((planted.tag(), data_set(std::slice::from_ref(planted), true, false)));
    elements.sort_by_key(|(tag, _)| *tag);
    let data: Vec<u8> = elements.into_iter().flat_map(|(_, bytes)| bytes).collect();
    [clean[..file.0].to_vec(), data, native_pixels(true)].concat()
}

/// Where the data set begins, and its top-level elements (explicit lengths, as our rewriter writes).
fn dicom_elements(bytes: &[u8]) -> (usize, Vec<(u32, Vec<u8>)>) {
    let meta_length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    let begin = 144 + meta_length;
    let mut at = begin;
    let mut list = Vec::new();
    loop {
        let tag = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).rotate_left(16);
        if tag == 0x7FE0_0010 {
            return (begin, list);
        }
        let is_long = matches!(&bytes[at + 4..at + 6], b"SQ" | b"UT" | b"OB" | b"OW" | b"UN" | b"UC" | b"UR");
        let end = if is_long {
            at + 12 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize
        } else {
            at + 8 + u16::from_le_bytes(bytes[at + 6..at + 8].try_into().unwrap()) as usize
        };
        list.push((tag, bytes[at..end].to_vec()));
        at = end;
    }
}

#[test]
fn inv_05_the_original_itself_does_not_pass() {
    let original = simple(&rich());
    assert!(leaks(&original, &original.bytes) > 5);
}

#[test]
fn inv_05_each_single_leak_in_an_otherwise_clean_copy_is_found() {
    let original = simple(&rich());
    let (_, clean) = copy(&original).unwrap();
    assert_eq!(leaks(&original, &clean), 0);
    let planted = [
        el(0x0010_0010, "PN", "Archer^Isabel"),
        el(0x0010_0010, "PN", "ARCHER"),
        el(0x0010_0010, "PN", "Somebody^Else"),
        el(0x0010_0020, "LO", "MRN-77421"),
        el(0x0010_0030, "DA", "19610412"),
        el(0x0010_1010, "AS", "065Y"),
        el(0x0008_0018, "UI", "1.2.826.0.1.44.4"),
        el(0x0020_000D, "UI", "1.2.3.4.5"),
        el(0x0008_0070, "LO", "maker"),
        el(0x0018_0015, "CS", "ARCHER"),
        el(0x0020_4000, "LT", "comment"),
        el(0x0028_0008, "IS", "x1"),
        el(0x0009_0010, "LO", "creator"),
        el(0x6000_3000, "OW", "overlay!"),
        el(0x5000_3000, "OW", "curve"),
        el(0x0028_2000, "OB", "profile"),
        el(0x0020_0013, "IS", "19610412"),
        el(0x0018_0050, "DS", "19610412"),
        el(0x0040_0244, "DA", "20260101"),
        el(0x0012_0062, "CS", "NO"),
        el(0x0012_0063, "LO", "done by Archer"),
        El::Seq(0x0022_0015, vec![vec![el(0x0010_0010, "PN", "Archer")]]),
        El::Seq(0x0022_0015, vec![vec![el(0x0008_0104, "LO", "free meaning")]]),
        El::Seq(0x0008_1110, vec![vec![el(0x0008_1155, "UI", "2.25.123456789012345678901234567890")]]),
        El::Raw(0x0028_0106, "US", b"Archer".to_vec()),
    ];
    for one in planted {
        assert!(leaks(&original, &with_planted(&clean, &one)) > 0, "{one:?}");
    }
}

#[test]
fn inv_05_every_row_of_the_table_is_found_when_its_value_is_left() {
    let original = simple(&rich());
    let (_, clean) = copy(&original).unwrap();
    let rows = include_str!("../data/basic_profile.csv").lines().filter(|line| !line.starts_with('#'));
    let mut tried = 0;
    for row in rows {
        let fields: Vec<&str> = row.split(',').collect();
        let tag = u32::from_str_radix(fields[0], 16).unwrap();
        if !(0x0008_0000..0x7FE0_0000).contains(&tag) {
            continue;
        }
        tried += 1;
        // A value that the original does not hold: the rule for the attribute must find it, not the search.
        let planted = match fields[2] {
            "SQ" if fields[3].contains('U') => El::Seq(tag, vec![vec![el(0x0010_0010, "PN", "Nobody")]]),
            "SQ" => El::Seq(tag, vec![vec![us(0x0028_0010, 4)]]),
            "UI" => el(tag, "UI", "1.3.6.1.4.1.9.9"),
            vr => El::Raw(tag, known_vr(vr), b"Nobody12".to_vec()),
        };
        assert!(leaks(&original, &with_planted(&clean, &planted)) > 0, "{row}");
    }
    assert!(tried > 600, "{tried} rows tried");
}

fn known_vr(vr: &str) -> &'static str {
    let all = [
        "AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OV", "OW", "PN", "SH", "SL", "SS",
        "ST", "TM", "UC", "UL", "UN", "UR", "US", "UT",
    ];
    all.into_iter().find(|known| *known == vr).unwrap()
}

#[test]
fn inv_05_what_stands_outside_the_data_set_is_found() {
    let original = simple(&rich());
    let (_, clean) = copy(&original).unwrap();
    let mut preamble = clean.clone();
    preamble[5] = 1;
    assert!(leaks(&original, &preamble) > 0, "preamble");
    assert!(leaks(&original, &[&clean[..], b"tail"].concat()) > 0, "bytes behind pixel data");
    let meta_at = clean.windows(4).position(|w| w == b"DICM").unwrap();
    let mut meta = clean.clone();
    let name = meta[meta_at..].windows(5).position(|w| w == b"FOVEA").unwrap() + meta_at;
    meta[name..name + 5].copy_from_slice(b"ISABE");
    assert!(leaks(&original, &meta) > 0, "file meta");
}

#[test]
fn inv_05_words_in_compressed_frames_are_found() {
    let pixels = jpeg_pixels("Archer 1961", "Exif\0\0GPS");
    let original = object(&rich(), JPEG, "", false, &pixels, b"");
    let (_, clean) = copy(&original).unwrap();
    assert_eq!(leaks(&original, &clean), 0);
    let start = clean.len() - pixels.len();
    for (comment, exif) in [("Archer 1961", "\0\0\0\0\0\0\0\0\0"), ("\0\0\0\0\0\0\0\0\0\0\0", "Exif\0\0GPS")] {
        let dirty = [clean[..start].to_vec(), jpeg_pixels(comment, exif)].concat();
        assert!(leaks(&original, &dirty) > 0, "{comment} {exif}");
    }
    // An identifier in a table segment, which must otherwise stay as it is.
    let table = clean.windows(4).position(|w| w == [0xFF, 0xDB, 0, 67]).unwrap() + 4;
    let mut dirty = clean.clone();
    dirty[table..table + 6].copy_from_slice(b"archer");
    assert!(leaks(&original, &dirty) > 0, "table");
    // Bytes between the end of the frame and the end of its fragment.
    let end = clean.windows(2).rposition(|w| w == [0xFF, 0xD9]).unwrap() + 2;
    if clean[end] == 0 {
        let mut dirty = clean;
        dirty[end] = b'A';
        assert!(leaks(&original, &dirty) > 0, "between");
    }
}
