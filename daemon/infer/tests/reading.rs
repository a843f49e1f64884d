//! Maps become outlines, sizes and nuclei: on drawn shapes whose answer is known, on the recipe's own cases, and on
//! noise.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use fovea_core::{Code, FrameGeometry, Measurement, PixelBox, PixelSize, Reason, Region, Roi};
use fovea_infer::read::{self, Place};
use fovea_infer::{Answer, Heat, Mask, Nuclei, Shape};
use proptest::prelude::*;
use serde_json::Value;

fn spec() -> Mask {
    Mask {
        label: "thing".to_owned(),
        code: Code::new("99FOVEA", "thing", "Thing"),
        threshold: 0.5,
        area_min_share: 0.0,
        required: Some(Reason::new("no_thing", "no thing was found", "")),
        axes: true,
    }
}

fn map(width: usize, height: usize, value: impl Fn(f64, f64) -> f64) -> Answer {
    let values = (0..width * height).map(|at| value((at % width) as f64, (at / width) as f64) as f32).collect();
    Answer { shape: Shape { planes: 1, height, width }, values }
}

/// A frame that is all region of interest, `scale` pixels an element.
fn frame(side: u32, scale: u32) -> Place {
    square(Roi { x: 0, y: 0, side: side * scale }, side * scale, side * scale)
}

/// A square of a frame that is shown as far as the frame goes.
fn square(roi: Roi, width_px: u32, height_px: u32) -> Place {
    let shown = PixelBox { x: 0, y: 0, width: width_px, height: height_px };
    Place { roi, shown, width_px, height_px, geometry: FrameGeometry::default() }
}

/// The surface of a network that is sure away from the rim: one half on an ellipse.
fn ellipse(centre: [f64; 2], half_axes: [f64; 2], angle: f64) -> impl Fn(f64, f64) -> f64 {
    move |x, y| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        let (along, across) = (dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin());
        let away = (1.0 - (along / half_axes[0]).hypot(across / half_axes[1])) * half_axes[1];
        1.0 / (1.0 + (-away).exp())
    }
}

fn value(measurements: &[Measurement], meaning: &str) -> f64 {
    measurements.iter().find(|one| one.code.meaning == meaning).unwrap_or_else(|| panic!("no {meaning}")).value
}

fn polygon_area(points: &[[f32; 2]]) -> f64 {
    let next = points.iter().cycle().skip(1);
    let twice: f64 = points
        .iter()
        .zip(next)
        .map(|(a, b)| f64::from(a[0]) * f64::from(b[1]) - f64::from(b[0]) * f64::from(a[1]))
        .sum();
    twice.abs() / 2.0
}

fn in_bounds(region: &Region, place: &Place) {
    assert!((3..=read::OUTLINE_POINTS_MAX).contains(&region.outline_px.len()), "{} points", region.outline_px.len());
    for [x, y] in &region.outline_px {
        let (left, top) = (place.shown.x as f32, place.shown.y as f32);
        let (right, bottom) = (left + place.shown.width as f32, top + place.shown.height as f32);
        assert!((left..=right).contains(x) && (top..=bottom).contains(y), "{x} {y} of {:?}", place.shown);
        assert!((0.0..=place.width_px as f32).contains(x) && (0.0..=place.height_px as f32).contains(y), "{x} {y}");
    }
    for measurement in &region.measurements {
        assert!(measurement.value.is_finite() && measurement.value >= 0.0, "{measurement:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_drawn_ellipse_has_its_area_and_its_axes(
        long in 12.0f64..55.0, ratio in 0.35f64..1.0, angle in 0.0f64..3.2, dx in -6.0f64..6.0, dy in -6.0f64..6.0,
        scale in 1u32..5,
    ) {
        let short = long * ratio;
        let place = frame(128, scale);
        let answer = map(128, 128, ellipse([64.0 + dx, 64.0 + dy], [long, short], angle));
        let regions = read::mask(&spec(), &answer, &place);
        prop_assert_eq!(regions.len(), 1);
        let region = &regions[0];
        in_bounds(region, &place);
        let scale = f64::from(scale);
        let area = std::f64::consts::PI * long * short * scale * scale;
        let told = value(&region.measurements, "Area");
        prop_assert!((told / area - 1.0).abs() < 0.02, "area {} for {}", told, area);
        prop_assert!((polygon_area(&region.outline_px) / told - 1.0).abs() < 0.03, "fewer points, the same shape");
        prop_assert!((value(&region.measurements, "Long Axis") - 2.0 * long * scale).abs() < scale);
        prop_assert!((value(&region.measurements, "Short Axis") - 2.0 * short * scale).abs() < scale);
        let labels = read::mask_labels(&answer, &place, 0.5);
        let covered = labels.labels.iter().filter(|label| **label == 1).count() as f64;
        prop_assert!((covered / told - 1.0).abs() < 0.02, "{} pixels for {}", covered, told);
    }

    #[test]
    fn noise_never_panics_and_stays_inside_the_frame(
        width in 1usize..40, height in 1usize..40, seed in any::<u64>(), steps in 2u64..6, threshold in 0.05f64..0.95,
        x in -30i32..30, y in -30i32..30, side in 1u32..200, width_px in 1u32..120, height_px in 1u32..120,
        (left, top, columns, rows) in (0u32..130, 0u32..130, 1u32..130, 1u32..130),
    ) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % steps
        };
        let values: Vec<f32> = (0..width * height).map(|_| next() as f32 / (steps - 1) as f32).collect();
        let answer = Answer { shape: Shape { planes: 1, height, width }, values };
        let shown = PixelBox { x: left, y: top, width: columns, height: rows };
        let place = Place { shown, ..square(Roi { x, y, side }, width_px, height_px) };
        let regions = read::mask(&Mask { threshold, ..spec() }, &answer, &place);
        prop_assert!(regions.len() <= read::REGIONS_MAX);
        regions.iter().for_each(|region| in_bounds(region, &place));
        let heat = Heat { label: "why".to_owned(), threshold, regions_max: 3 };
        let heat = read::heat(&heat, &answer, &place);
        prop_assert!(heat.len() <= 3);
        heat.iter().for_each(|region| in_bounds(region, &place));
        let labels = read::mask_labels(&answer, &place, threshold);
        prop_assert_eq!(labels.labels.len(), (width_px * height_px) as usize);
        for (at, label) in labels.labels.iter().enumerate() {
            let (column, row) = ((at as u32 % width_px) as i32, (at as u32 / width_px) as i32);
            let inside = |at: i32, from: i32| at >= from && at < from + side as i32;
            let is_shown = (left..left + columns).contains(&(column as u32)) && (top..top + rows).contains(&(row as u32));
            prop_assert!(*label == 0 || (inside(column, x) && inside(row, y) && is_shown));
        }
    }
}

/// As a network's own enlargement has it: logits are mixed, not probabilities, so a sure inside beside an unsure outside
/// does not push the rim out.
#[test]
fn the_rim_lies_where_the_logits_cross() {
    let logits = [-1.0f64, 3.0];
    let answer = map(2, 1, |x, _| 1.0 / (1.0 + (-logits[x as usize]).exp()));
    let place = square(Roi { x: 0, y: 0, side: 80 }, 80, 80);
    let outline = &read::mask(&spec(), &answer, &place)[0].outline_px;
    // The middles lie at 20 and 60; a quarter of the way between them the logit is 0.
    let left = outline.iter().map(|point| point[0]).fold(f32::MAX, f32::min);
    assert!((left - 30.0).abs() < 1e-3, "{left}");
    let labels = read::mask_labels(&answer, &place, 0.5).labels;
    assert_eq!(labels[..80].iter().position(|label| *label == 1), Some(30));
}

#[test]
fn a_whole_map_is_outlined_where_the_tensor_and_the_frame_end() {
    let answer = map(7, 5, |_, _| 0.9);
    let place = square(Roi { x: -10, y: 20, side: 70 }, 50, 80);
    let regions = read::mask(&spec(), &answer, &place);
    assert_eq!(regions.len(), 1);
    let mut corners: Vec<[i32; 2]> = regions[0].outline_px.iter().map(|[x, y]| [*x as i32, *y as i32]).collect();
    corners.sort_unstable();
    corners.dedup();
    for corner in [[0, 20], [0, 80], [50, 20], [50, 80]] {
        assert!(corners.contains(&corner), "{corners:?}");
    }
    assert!((polygon_area(&regions[0].outline_px) - 50.0 * 60.0).abs() < 1.0);
    let labels = read::mask_labels(&answer, &place, 0.5);
    assert_eq!(labels.labels.iter().filter(|label| **label == 1).count(), 50 * 60);
    assert!(read::mask(&spec(), &map(7, 5, |_, _| 0.1), &place).is_empty());
}

#[test]
fn what_lies_in_the_padding_alone_is_no_region() {
    // The upper half of the square is above the frame.
    let answer = map(20, 20, |_, y| if y < 8.0 { 0.9 } else { 0.1 });
    let place = square(Roi { x: 0, y: -100, side: 200 }, 200, 100);
    assert_eq!(read::mask(&spec(), &answer, &place), []);
}

/// A frame of 200 x 160 with a scan in its middle, wider than high: the square above and below it is black, and so is
/// nothing that the frame itself shows there.
fn wide_scan() -> Place {
    let shown = PixelBox { x: 40, y: 50, width: 100, height: 60 };
    Place { shown, ..square(Roi { x: 40, y: 30, side: 100 }, 200, 160) }
}

#[test]
fn outlines_axes_and_masks_end_where_the_scan_does() {
    let place = wide_scan();
    // A disc whose middle lies on the upper edge of the scan (element 20 of 100): half of it is there.
    let half_disc = map(100, 100, ellipse([49.5, 19.5], [18.0, 18.0], 0.0));
    let regions = read::mask(&spec(), &half_disc, &place);
    assert_eq!(regions.len(), 1);
    in_bounds(&regions[0], &place);
    let told = |meaning: &str| value(&regions[0].measurements, meaning);
    assert!((told("Area") / (std::f64::consts::PI * 18.0 * 18.0 / 2.0) - 1.0).abs() < 0.02, "{regions:?}");
    assert!((told("Long Axis") - 36.0).abs() < 1.0 && (told("Short Axis") - 18.0).abs() < 1.0, "{regions:?}");
    let covered = read::mask_labels(&half_disc, &place, 0.5).labels.iter().filter(|label| **label == 1).count() as f64;
    assert!((covered / told("Area") - 1.0).abs() < 0.02, "{covered}");
    // One whose middle lies in the padding: its axis is that of the cap that is seen, not of the disc.
    let cap = map(100, 100, ellipse([49.5, 9.5], [18.0, 18.0], 0.0));
    let regions = read::mask(&spec(), &cap, &place);
    let chord = 2.0 * (18.0f64 * 18.0 - 10.0 * 10.0).sqrt();
    let long = value(&regions[0].measurements, "Long Axis");
    assert!((long - chord).abs() < 1.0, "{long}, not {chord}");
    // An arch of which the scan shows both ends is two regions; what lies in the padding is none, and explains nothing.
    let arch = map(100, 100, |x, y| {
        ellipse([49.5, 19.5], [30.0, 30.0], 0.0)(x, y).min(1.0 - ellipse([49.5, 39.5], [15.0, 45.0], 0.0)(x, y))
    });
    assert_eq!(read::mask(&spec(), &arch, &place).len(), 2);
    let above = map(100, 100, |_, y| if y < 15.0 { 0.9 } else { 0.01 });
    assert_eq!(read::mask(&spec(), &above, &place), []);
    assert_eq!(read::heat(&Heat { label: "why".to_owned(), threshold: 0.5, regions_max: 3 }, &above, &place), []);
}

#[test]
fn regions_come_largest_first_and_small_ones_are_dropped() {
    let place = frame(100, 2);
    let shapes = [([20.0, 20.0], 4.0), ([60.0, 30.0], 15.0), ([30.0, 70.0], 9.0)];
    let discs = |x: f64, y: f64| shapes.iter().map(|(c, r)| ellipse(*c, [*r, *r], 0.0)(x, y)).fold(0.0, f64::max);
    let answer = map(100, 100, discs);
    let areas = |spec: &Mask| -> Vec<f64> {
        read::mask(spec, &answer, &place).iter().map(|region| value(&region.measurements, "Area")).collect()
    };
    let all = areas(&spec());
    assert_eq!(all.len(), 3);
    assert!(all[0] > all[1] && all[1] > all[2], "{all:?}");
    // A hundredth of the tensor is 100 elements: the smallest has 50.
    assert_eq!(areas(&Mask { area_min_share: 0.01, ..spec() }), all[..2]);
    let none = areas(&Mask { area_min_share: 0.5, ..spec() });
    assert!(none.is_empty());
    assert_eq!(read::missing(&spec(), &[]).unwrap().code, "no_thing");
    assert_eq!(read::missing(&Mask { required: None, ..spec() }, &[]), None);
    assert_eq!(read::missing(&spec(), &read::mask(&spec(), &answer, &place)), None);
    let covered = |map: read::LabelMap| map.labels.iter().filter(|label| **label == 1).count() as f64;
    let told = covered(read::mask_as_told(&Mask { area_min_share: 0.01, ..spec() }, &answer, &place));
    assert!((told / (all[0] + all[1]) - 1.0).abs() < 0.01, "{told} pixels for {all:?}");
    assert!(covered(read::mask_labels(&answer, &place, 0.5)) > told, "the smallest is there");
    let bare = read::mask(&Mask { axes: false, ..spec() }, &answer, &place);
    assert_eq!(bare[0].measurements.len(), 1, "no axes where the bundle wants none");
    assert_eq!((&*bare[0].label, &bare[0].code), ("thing", &Some(spec().code)));
    let heat = Heat { label: "why".to_owned(), threshold: 0.5, regions_max: 2 };
    assert_eq!(read::heat(&heat, &answer, &place).len(), 2);
}

#[test]
fn a_hole_belongs_to_the_region_around_it() {
    let ring = |x: f64, y: f64| {
        let away = ((x - 50.0).hypot(y - 50.0) - 30.0).abs();
        1.0 / (1.0 + (away - 5.0).exp())
    };
    let regions = read::mask(&spec(), &map(100, 100, ring), &frame(100, 1));
    assert_eq!(regions.len(), 1);
    let area = value(&regions[0].measurements, "Area");
    assert!((area / (std::f64::consts::PI * 35.0 * 35.0) - 1.0).abs() < 0.02, "{area}");
}

#[test]
fn corners_that_touch_are_joined_where_the_surface_between_them_is_high() {
    let diagonal = map(2, 2, |x, y| if x == y { 1.0 } else { 0.0 });
    let regions = |threshold: f64| read::mask(&Mask { threshold, ..spec() }, &diagonal, &frame(2, 50)).len();
    assert_eq!((regions(0.4), regions(0.6)), (1, 2));
}

#[test]
fn sizes_are_millimetres_where_the_object_is_calibrated_and_pixels_elsewhere() {
    // Pixels twice as wide as high: 40 x 20 elements are 8 mm x 2 mm, and a tall ellipse of pixels may be a wide one.
    let pixel_size = Some(PixelSize { width_mm: 0.2, height_mm: 0.1 });
    let calibrated = Place { geometry: FrameGeometry { pixel_size, ..FrameGeometry::default() }, ..frame(100, 1) };
    for (half_axes, long, short) in [([20.0, 10.0], 8.0, 2.0), ([10.0, 18.0], 4.0, 3.6)] {
        let answer = map(100, 100, ellipse([50.0, 50.0], half_axes, 0.0));
        let told = read::mask(&spec(), &answer, &calibrated).remove(0).measurements;
        assert!((value(&told, "Long Axis") - long).abs() < 0.1, "{told:?}");
        assert!((value(&told, "Short Axis") - short).abs() < 0.1, "{told:?}");
        let area = std::f64::consts::PI * half_axes[0] * half_axes[1] * 0.02;
        assert!((value(&told, "Area") / area - 1.0).abs() < 0.02, "{told:?}");
        assert_eq!(told.iter().map(|one| &*one.unit.value).collect::<Vec<_>>(), ["mm2", "mm", "mm"]);
        let told = read::mask(&spec(), &answer, &frame(100, 1)).remove(0).measurements;
        assert!(told.iter().all(|one| one.unit.value == "{px}"), "{told:?}");
    }
}

#[test]
fn a_nasty_outline_still_has_few_points() {
    // A comb: 128 teeth, each a corner that no simplification may skip, more than an outline may have.
    let comb =
        map(512, 512, |x, y| if y < 200.0 || (y < 400.0 && (x as usize / 2).is_multiple_of(2)) { 0.99 } else { 0.01 });
    let place = frame(512, 4);
    let regions = read::mask(&spec(), &comb, &place);
    assert_eq!(regions.len(), 1);
    in_bounds(&regions[0], &place);
    assert_eq!(regions[0].outline_px.len(), read::OUTLINE_POINTS_MAX);
}

// Nuclei

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../image/models/lung-tissue/recipe/watershed_cases.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn nuclei_spec(interior_threshold: f64, seed_threshold: f64, area_min_px: u32, mean_min: f64) -> Nuclei {
    let code = Code::new("99FOVEA", "nuclei-count", "Number of nuclei");
    Nuclei { label: "nuclei".to_owned(), code, interior_threshold, seed_threshold, area_min_px, mean_min }
}

#[test]
fn the_watershed_equals_the_recipe_pixel_for_pixel() {
    let cases = cases();
    let cases = cases["watershed"].as_array().unwrap();
    assert!(cases.len() >= 11);
    for case in cases {
        let numbers = |key: &str| case[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect::<Vec<_>>();
        let map = |key: &str| numbers(key).into_iter().map(|n| (n as f64 / 65535.0) as f32).collect::<Vec<f32>>();
        let spec = nuclei_spec(
            case["interior_threshold"].as_f64().unwrap(),
            case["seed_threshold"].as_f64().unwrap(),
            case["area_min_px"].as_u64().unwrap() as u32,
            case["mean_min"].as_f64().unwrap(),
        );
        let columns = case["columns"].as_u64().unwrap() as usize;
        let found = read::nuclei(&map("interior"), &map("border"), columns, &spec);
        let labels: Vec<u64> = found.labels.iter().map(|label| u64::from(*label)).collect();
        assert_eq!(labels, numbers("labels"), "{}", case["name"]);
        assert_eq!((found.width, found.height), (columns, case["rows"].as_u64().unwrap() as usize));
        let of = |nucleus: u64| labels.iter().filter(|label| **label == nucleus).count() as u32;
        let areas: Vec<u32> = (1..=labels.iter().max().copied().unwrap_or(0)).map(of).collect();
        assert_eq!(found.areas, areas, "{}", case["name"]);
    }
}

#[test]
fn windows_lie_where_the_recipe_puts_them() {
    for case in cases()["windows"].as_array().unwrap() {
        let length = case["length"].as_u64().unwrap() as u32;
        let parts: Vec<[u32; 3]> = read::parts(length, 256).iter().map(|p| [p.start, p.from, p.to]).collect();
        let wanted: Vec<[u32; 3]> = serde_json::from_value(case["parts"].clone()).unwrap();
        assert_eq!(parts, wanted, "length {length}");
    }
    assert!(read::parts(100, 32).is_empty() && read::parts(0, 256).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn stitched_windows_are_the_map_that_they_were_cut_from(width in 1u32..300, height in 1u32..300, window in 40u32..100) {
        let value = |x: u32, y: u32, plane: u32| (x * 7 + y * 1000 + plane * 500_000) as f32;
        let (columns, rows) = (read::parts(width, window), read::parts(height, window));
        let mut stitched = read::Stitched::new(width, height, 2);
        for row in &rows {
            for column in &columns {
                let at = |at: u32| {
                    let (plane, at) = (at / (window * window), at % (window * window));
                    value(column.start + at % window, row.start + at / window, plane)
                };
                let shape = Shape { planes: 2, height: window as usize, width: window as usize };
                stitched.put(column, row, &Answer { shape, values: (0..2 * window * window).map(at).collect() });
            }
        }
        for (plane, map) in stitched.planes.iter().enumerate() {
            let wanted: Vec<f32> = (0..width * height).map(|at| value(at % width, at / width, plane as u32)).collect();
            prop_assert!(map == &wanted);
        }
    }

    #[test]
    fn discs_that_touch_are_counted_one_by_one(
        columns in 1usize..5, rows in 1usize..5, radius in 5.0f64..12.0, jitter in prop::collection::vec(-1.0f64..1.0, 50),
    ) {
        // Neighbours overlap by a little: the border between them is what tells them apart.
        let pitch = radius * 1.9;
        let centres: Vec<[f64; 2]> = (0..columns * rows)
            .map(|n| [radius + 2.0 + (n % columns) as f64 * pitch + jitter[2 * n] * 0.3, radius + 2.0 + (n / columns) as f64 * pitch + jitter[2 * n + 1] * 0.3])
            .collect();
        let side = ((columns.max(rows) - 1) as f64 * pitch + 2.0 * radius + 5.0) as usize;
        let depths = |x: f64, y: f64| {
            let mut depths: Vec<f64> = centres.iter().map(|c| radius - (x - c[0]).hypot(y - c[1])).collect();
            depths.sort_by(|a, b| b.total_cmp(a));
            depths
        };
        let interior = map(side, side, |x, y| 1.0 / (1.0 + (-2.0 * depths(x, y)[0]).exp()));
        let border = map(side, side, |x, y| (-(depths(x, y)[0] - 0.5).powi(2) / 4.0).exp());
        let found = read::nuclei(&interior.values, &border.values, side, &nuclei_spec(0.5, 0.3, 4, 0.0));
        prop_assert_eq!(found.areas.len(), centres.len());
        for (n, centre) in centres.iter().enumerate() {
            let label = found.labels[centre[1].round() as usize * side + centre[0].round() as usize];
            prop_assert!(label > 0, "nucleus {} has no label", n);
            let area = f64::from(found.areas[usize::from(label) - 1]);
            let disc = std::f64::consts::PI * radius * radius;
            prop_assert!(area > 0.8 * disc && area < 1.15 * disc, "{} elements for {}", area, disc);
        }
    }

    #[test]
    fn nuclei_of_noise_are_inside_and_counted(
        width in 1usize..50, height in 1usize..50, seed in any::<u64>(), interior_threshold in 0.05f64..0.95,
        seed_threshold in -1.0f64..1.0, area_min in 1u32..5, mean_min in 0.0f64..0.9,
    ) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32, ())
        };
        let interior: Vec<f32> = (0..width * height).map(|_| next().0).collect();
        let border: Vec<f32> = (0..width * height).map(|_| next().0).collect();
        let found = read::nuclei(&interior, &border, width, &nuclei_spec(interior_threshold, seed_threshold, area_min, mean_min));
        prop_assert_eq!(found.labels.len(), width * height);
        let mut areas = vec![0u32; found.areas.len()];
        let mut sums = vec![0.0f64; found.areas.len()];
        for (label, value) in found.labels.iter().zip(&interior) {
            if *label > 0 {
                prop_assert!(f64::from(*value) > interior_threshold - 1e-4);
                areas[usize::from(*label) - 1] += 1;
                sums[usize::from(*label) - 1] += f64::from(*value);
            }
        }
        prop_assert!(sums.iter().zip(&areas).all(|(sum, area)| *sum > (mean_min - 1e-4) * f64::from(*area)));
        prop_assert_eq!(&areas, &found.areas);
        prop_assert!(areas.iter().all(|area| *area >= area_min));
    }
}

#[test]
fn maps_that_do_not_fit_each_other_have_no_nuclei() {
    let spec = nuclei_spec(0.5, 0.0, 1, 0.0);
    for (interior, border, width) in [(6, 5, 3), (6, 6, 0), (7, 7, 3), (0, 0, 4)] {
        let found = read::nuclei(&vec![0.9; interior], &vec![0.0; border], width, &spec);
        assert!(found.areas.is_empty(), "{interior} {border} {width}");
    }
}

#[test]
fn nuclei_are_told_by_number_size_and_density() {
    let spec = nuclei_spec(0.5, 0.0, 1, 0.0);
    let areas: Vec<u32> = (1..=100).rev().collect();
    let told = read::nuclei_measurements(&spec, &areas, 4_000_000, Some(0.25));
    assert_eq!((told[0].value, &told[0].code), (100.0, &spec.code));
    assert_eq!(value(&told, "Density of nuclei"), 100.0, "a million square micrometres are one square millimetre");
    assert_eq!(value(&told, "Median area of a nucleus"), 12.5);
    assert_eq!(value(&told, "Area of a nucleus, 10th percentile"), 2.5);
    assert_eq!(value(&told, "Area of a nucleus, 90th percentile"), 22.5);
    let told = read::nuclei_measurements(&spec, &areas, 4_000_000, None);
    assert!(told.iter().all(|one| one.code.meaning != "Density of nuclei"), "no density without a size of pixels");
    assert_eq!((value(&told, "Median area of a nucleus"), &*told[1].unit.value), (50.0, "{px}"));
    let none = read::nuclei_measurements(&spec, &[], 4_000_000, Some(0.25));
    assert_eq!(none.iter().map(|one| one.value).collect::<Vec<_>>(), [0.0, 0.0]);
    for code in told.iter().chain(&none).flat_map(|one| [&one.code, &one.unit]) {
        assert!(code.value.len() <= 16 && code.meaning.len() <= 64, "{code:?} does not fit a code sequence item");
    }
}

#[test]
fn nuclei_in_a_frame_of_another_size_keep_their_labels() {
    let spec = nuclei_spec(0.5, 0.0, 1, 0.0);
    let interior = [0.9, 0.0, 0.9, 0.9, 0.0, 0.9];
    let found = read::nuclei(&interior, &[0.0; 6], 3, &spec);
    let frame = found.in_frame(6, 4);
    assert_eq!(frame.labels[..6], [1, 1, 0, 0, 2, 2]);
    assert_eq!(frame.labels[18..], [1, 1, 0, 0, 2, 2]);
    assert_eq!(found.in_frame(3, 2).labels, found.labels);
}
