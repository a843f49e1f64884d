//! What an object states of the size of its pixels, and what is no such statement.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod part10;

use fovea_core::{FrameGeometry, PixelBox, PixelSize};
use fovea_decode::{DecodeLimits, open};
use part10::{EXPLICIT, IMPLICIT, Item, Lengths, Part10, Value, ds, fd, file_of, ul, us};

const REGIONS: u32 = 0x0018_6011;
const PHOTOMICROGRAPH: &str = "1.2.840.10008.5.1.4.1.1.77.1.2\0";

fn image() -> Part10 {
    Part10::image(640, 480, 1, "MONOCHROME2", 8, 8).pixels(&[0; 2])
}

fn geometry(object: &Part10) -> FrameGeometry {
    open(file_of(&object.bytes()), DecodeLimits::default()).unwrap().geometry()
}

/// A 2D tissue region in centimetres.
fn region() -> Item {
    vec![
        (0x0018_6012, us(1)),
        (0x0018_6014, us(1)),
        (0x0018_6016, ul(0)),
        (0x0018_6018, ul(40)),
        (0x0018_601A, ul(30)),
        (0x0018_601C, ul(599)),
        (0x0018_601E, ul(449)),
        (0x0018_6024, us(3)),
        (0x0018_6026, us(3)),
        (0x0018_602C, fd(0.01)),
        (0x0018_602E, fd(0.02)),
    ]
}

fn with(mut item: Item, tag: u32, value: Option<Value>) -> Item {
    let at = item.iter().position(|(held, _)| *held == tag).unwrap();
    match value {
        Some(value) => item[at].1 = value,
        None => drop(item.remove(at)),
    }
    item
}

#[test]
fn one_tissue_region_gives_its_field_and_its_scale_in_every_form_of_writing() {
    let wanted = FrameGeometry {
        pixel_size: Some(PixelSize { width_mm: 0.1, height_mm: 0.2 }),
        ultrasound_field_px: Some(PixelBox { x: 40, y: 30, width: 560, height: 420 }),
    };
    for syntax in [EXPLICIT, IMPLICIT] {
        for lengths in [Lengths::Known, Lengths::Undefined] {
            let object = image().syntax(syntax).lengths(lengths).sequence(REGIONS, vec![region()]);
            assert_eq!(geometry(&object), wanted, "{syntax} {lengths:?}");
        }
    }
    // A region of a spectrum beside it is measured in seconds and does not disturb.
    let spectrum = with(with(region(), 0x0018_6012, Some(us(3))), 0x0018_6024, Some(us(4)));
    assert_eq!(geometry(&image().sequence(REGIONS, vec![spectrum, region()])), wanted);
    // Devices count the last column both ways.
    let wide = with(region(), 0x0018_601C, Some(ul(640)));
    assert_eq!(geometry(&image().sequence(REGIONS, vec![wide])).ultrasound_field_px.unwrap().width, 600);
}

#[test]
fn a_region_that_is_no_scale_gives_none() {
    let field = PixelBox { x: 40, y: 30, width: 560, height: 420 };
    let cases = [
        ("pixels, not centimetres", 0x0018_6024, Some(us(0))),
        ("no unit", 0x0018_6026, None),
        ("no step", 0x0018_602C, None),
        ("negative", 0x0018_602C, Some(fd(-0.01))),
        ("zero", 0x0018_602E, Some(fd(0.0))),
        ("no number", 0x0018_602C, Some(fd(f64::NAN))),
        ("infinite", 0x0018_602E, Some(fd(f64::INFINITY))),
        ("a metre", 0x0018_602E, Some(fd(100.0))),
        ("of another length", 0x0018_602E, Some(us(1))),
    ];
    for (name, tag, value) in cases {
        let object = image().sequence(REGIONS, vec![with(region(), tag, value)]);
        let wanted = FrameGeometry { pixel_size: None, ultrasound_field_px: Some(field) };
        assert_eq!(geometry(&object), wanted, "{name}");
    }
    let no_region = [
        ("flow", vec![with(region(), 0x0018_6014, Some(us(2)))]),
        ("M-mode", vec![with(region(), 0x0018_6012, Some(us(2)))]),
        ("no format", vec![with(region(), 0x0018_6012, None)]),
        ("outside", vec![with(region(), 0x0018_6018, Some(ul(640)))]),
        ("turned round", vec![with(region(), 0x0018_601E, Some(ul(10)))]),
        ("no corner", vec![with(region(), 0x0018_601A, None)]),
        ("enormous", vec![with(region(), 0x0018_6018, Some(ul(u32::MAX)))]),
        ("split screen", vec![region(), region()]),
        ("no item", vec![]),
        ("a thousand", vec![with(region(), 0x0018_6012, Some(us(3))); 1000].into_iter().chain([region()]).collect()),
    ];
    for (name, regions) in no_region {
        // Where regions are stated, nothing else counts.
        let object = image().sequence(REGIONS, regions).raw(0x0028_0030, b"DS", b"1\\1 ").text(0x0028_0A02, "FIDUCIAL");
        assert_eq!(geometry(&object), FrameGeometry::default(), "{name}");
    }
}

#[test]
fn pixel_spacing_counts_only_where_it_is_of_the_object() {
    let spaced = || image().raw(0x0028_0030, b"DS", b"0.2\\0.1 ");
    let size = Some(PixelSize { width_mm: 0.1, height_mm: 0.2 });
    let cases = [
        ("alone", spaced(), None),
        ("of the detector", image().raw(0x0018_1164, b"DS", b"0.2\\0.1 "), None),
        ("calibrated", spaced().text(0x0028_0A02, "GEOMETRY"), size),
        ("calibrated by nothing", spaced().text(0x0028_0A02, ""), None),
        ("of a slice", spaced().raw(0x0020_0037, b"DS", b"1\\0\\0\\0\\1\\0 "), size),
        ("through a microscope", spaced().raw(0x0008_0016, b"UI", PHOTOMICROGRAPH.as_bytes()), size),
        ("shared measures", image().sequence(0x5200_9229, measures("0.2\\0.1")), size),
        ("shared measures beside spacing", spaced().sequence(0x5200_9229, measures("7\\7")), Some(square(7.0))),
        ("negative", image().sequence(0x5200_9229, measures("-0.2\\0.1")), None),
        ("no number", image().sequence(0x5200_9229, measures("NaN\\0.1")), None),
        ("infinite", image().sequence(0x5200_9229, measures("inf\\inf")), None),
        ("one side", image().sequence(0x5200_9229, measures("0.2")), None),
        ("far too long", image().sequence(0x5200_9229, measures(&"1".repeat(300))), None),
    ];
    for (name, object, wanted) in cases {
        for lengths in [Lengths::Known, Lengths::Undefined] {
            let found = geometry(&object.clone().lengths(lengths));
            assert_eq!((found.pixel_size, found.ultrasound_field_px), (wanted, None), "{name}");
        }
    }
}

fn square(side: f64) -> PixelSize {
    PixelSize { width_mm: side, height_mm: side }
}

fn measures(spacing: &str) -> Vec<Item> {
    vec![vec![(0x0028_9110, Value::Items(vec![vec![(0x0018_0050, ds("1")), (0x0028_0030, ds(spacing))]]))]]
}

#[test]
fn inv_08_a_sequence_whose_lengths_lie_is_refused() {
    let bytes = image().sequence(REGIONS, vec![region()]).bytes();
    let at = bytes.windows(4).position(|tag| tag == [0x18, 0x00, 0x11, 0x60]).unwrap();
    for (offset, length) in [(8, u32::MAX - 1), (8, 0x7FFF_FFFF), (8, 3), (16, u32::MAX - 1), (16, 5000), (16, 9)] {
        let mut bytes = bytes.clone();
        bytes[at + offset..at + offset + 4].copy_from_slice(&length.to_le_bytes());
        assert!(open(file_of(&bytes), DecodeLimits::default()).is_err(), "{offset} {length}");
    }
}
