//! Slides, field by field: one finding each, in bounded memory, and within a time that grows only with their fields.
//! Needs the OpenVINO runtime (`scripts/fetch-openvino.sh`, or `FOVEA_OPENVINO_DIR`).

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_core::{Analysis, Measurement, ObjectHeader, Uid, Verdict, sop_class};
use fovea_infer::TrustedKey;
use fovea_worker::{STOP_SEEN_MAX, Worker};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::bundle::{TestBundle, many};
use support::slide::{Order, Slide, peak_mib, slide_header};
use support::{
    code, config, faulty_program, header, object_of, photomicrograph, probability, program, replay, runs, start,
    timeless,
};

/// Side of the test bundle's fields where the object states no scale.
const FIELD_PX: u16 = 128;
/// Glass, three colours that the test bundle tells apart, one that its gate turns away.
const COLOURS: [(char, [u8; 3]); 5] = [
    ('.', [248, 246, 247]),
    ('0', [200, 120, 150]),
    ('1', [140, 150, 100]),
    ('2', [150, 90, 180]),
    ('?', [100, 200, 120]),
];

fn colours() -> TestBundle {
    many::bundle().edit("modalities = [\"OP\"]", "modalities = [\"SM\"]")
}

fn worker(folder: &Path) -> Worker {
    start(config(program(), "CPU", vec![colours().write(&folder.join("colours"))]))
}

/// A slide of one tile for each sign of a picture.
fn painted(picture: &[&str], slide: &Slide) -> File {
    let tiles: BTreeMap<char, Vec<u8>> = COLOURS
        .into_iter()
        .map(|(sign, pixel)| (sign, pixel.repeat(usize::from(slide.tile_px) * usize::from(slide.tile_px))))
        .collect();
    slide.write(|column, row| Some(&tiles[&char::from(picture[row as usize].as_bytes()[column as usize])]))
}

fn plain(picture: &[&str]) -> Slide<'static> {
    let side = u32::from(FIELD_PX);
    Slide::rgb(picture[0].len() as u32 * side, picture.len() as u32 * side, FIELD_PX)
}

fn measured<'a>(analysis: &'a Analysis, value: &str) -> Option<&'a Measurement> {
    analysis.measurements.iter().find(|measurement| measurement.code.value == value)
}

const PICTURE: [&str; 5] = ["........", "..0002..", ".0001?..", "..011...", "........"];

#[test]
fn a_slide_becomes_one_finding_with_a_map_and_full_and_sparse_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let whole = worker.analyse(&painted(&PICTURE, &plain(&PICTURE)), &slide_header(1, FIELD_PX));
    let Verdict::Scored(scores) = &whole.verdict else { panic!("{whole:?}") };
    let map = whole.tile_map.as_ref().unwrap();
    assert_eq!((map.columns, map.rows, map.field_px, map.cells.clone()), (8, 5, 128, PICTURE.concat()));
    assert_eq!(map.classes, ["red", "green", "blue"]);
    let share = |label: &str| scores.classes.iter().find(|class| class.label == label).unwrap().probability;
    // Eleven fields were answered: seven red, three green, one blue; red and blue are positive.
    for (label, count) in [("red", 7.0), ("green", 3.0), ("blue", 1.0)] {
        assert!((share(label) - count / 11.0).abs() < 1e-6, "{label} {}", share(label));
    }
    assert!((measured(&whole, "tissue-fraction").unwrap().value - 8.0 / 11.0).abs() < 1e-9);
    assert_eq!(measured(&whole, "fields-answered").unwrap().value, 11.0);
    assert!(scores.probability > 0.8 && scores.probability <= 1.0, "{}", scores.probability);
    // Red fields are one nucleus each to the second network, no matter how it is cut.
    assert!(measured(&whole, "nuclei-count").unwrap().value >= 1.0, "{:?}", whole.measurements);
    assert!(measured(&whole, "nuclei-density").is_none(), "no scale, no density");
    assert_eq!(whole.quality["fields_counted"].value, 4.0, "{:?}", whole.quality);
    assert!(whole.regions.is_empty() && whole.frame == 1 && whole.times.infer_us > 0);
    for shift in [0, 7, 33] {
        let sparse = Slide { order: Order::Sparse(shift), ..plain(&PICTURE) };
        let parts = worker.analyse(&painted(&PICTURE, &sparse), &slide_header(1, FIELD_PX));
        assert_eq!(timeless(parts), timeless(whole.clone()), "shift {shift}");
    }
}

#[test]
fn with_a_scale_fields_have_their_size_on_the_glass_and_nuclei_a_density() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let analyse = |worker: &mut Worker, um: f64| {
        let slide = Slide { pixel_um: Some(um), ..plain(&PICTURE) };
        worker.analyse(&painted(&PICTURE, &slide), &slide_header(1, FIELD_PX))
    };
    // 64 micrometres are 128 pixels of half a micrometre: the same fields as without.
    let half = analyse(&mut worker, 0.5);
    assert_eq!(half.tile_map.as_ref().unwrap().cells, PICTURE.concat());
    let count = measured(&half, "nuclei-count").unwrap().value;
    let density = measured(&half, "nuclei-density").unwrap();
    assert!((density.value - count / (4.0 * 0.064 * 0.064)).abs() < 1e-6, "{density:?} of {count}");
    assert_eq!(measured(&half, "nucleus-area-p50").unwrap().unit.value, "um2");
    // Twice as fine: fields of two by two tiles.
    let fine = analyse(&mut worker, 0.25);
    assert_eq!((fine.tile_map.as_ref().unwrap().columns, fine.tile_map.as_ref().unwrap().field_px), (4, 256));
    for (um, wanted) in [(20.0, "resolution_too_low"), (0.01, "scale_not_possible")] {
        let refused = analyse(&mut worker, um);
        assert_eq!(code(&refused), wanted);
        assert!(refused.model.is_none() && refused.tile_map.is_none());
    }
}

#[test]
fn a_slide_without_an_answer_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let glass = ["....", "...."];
    let empty = worker.analyse(&painted(&glass, &plain(&glass)), &slide_header(1, FIELD_PX));
    assert_eq!(code(&empty), "no_tissue");
    assert!(matches!(&empty.verdict, Verdict::Ungradable(reason) if !reason.advice.is_empty()));
    let strange = ["????", "???0"];
    let turned_away = worker.analyse(&painted(&strange, &plain(&strange)), &slide_header(1, FIELD_PX));
    assert_eq!(code(&turned_away), "too_green");
    let Verdict::Ungradable(reason) = &turned_away.verdict else { panic!("{turned_away:?}") };
    assert!(reason.text.contains("7 of 8 fields of tissue"), "{}", reason.text);
    assert!(turned_away.measurements.is_empty() && turned_away.model.is_some());
    let label = Slide { image_type: "ORIGINAL\\PRIMARY\\LABEL\\NONE", ..plain(&PICTURE) };
    assert_eq!(code(&worker.analyse(&painted(&PICTURE, &label), &slide_header(1, FIELD_PX))), "no_specimen");
    assert_eq!(worker.status().restarts, 0);
}

#[test]
fn a_slide_is_as_large_as_its_whole_and_not_as_its_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let large = colours().edit("[labels]", "min_rows_px = 500\nmin_columns_px = 500\n[labels]");
    let mut worker = start(config(program(), "CPU", vec![large.write(&folder.path().join("a"))]));
    assert!(probability(&worker.analyse(&painted(&PICTURE, &plain(&PICTURE)), &slide_header(1, FIELD_PX))) > 0.5);
    let small = ["000", "000"];
    assert_eq!(code(&worker.analyse(&painted(&small, &plain(&small)), &slide_header(1, FIELD_PX))), "too_small");
}

#[test]
fn a_sparse_slide_shows_glass_where_it_has_no_tile() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let side = usize::from(FIELD_PX);
    let red = COLOURS[1].1.repeat(side * side);
    let slide = Slide { order: Order::Sparse(0), ..plain(&PICTURE) };
    let file = slide.write(|column, row| ((3..5).contains(&column) && row == 2).then_some(&red[..]));
    let analysis = worker.analyse(&file, &slide_header(1, FIELD_PX));
    let wanted = ["........", "........", "...00...", "........", "........"].concat();
    assert_eq!(analysis.tile_map.unwrap().cells, wanted);
}

#[test]
fn a_large_photomicrograph_is_read_in_fields_and_a_small_one_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let mut look = |columns: u16, rows: u16| {
        let pixels = COLOURS[1].1.repeat(usize::from(columns) * usize::from(rows));
        let mut photograph = header(1);
        (photograph.modality, photograph.columns_px) = (Some("SM".to_owned()), Some(columns.into()));
        photograph.rows_px = Some(rows.into());
        let object = object_of(columns, rows, &pixels);
        let evaluated = worker.evaluate(&object, &photograph).unwrap();
        assert_eq!((evaluated.in_fields, evaluated.nuclei.is_none()), (columns > 1024, columns > 1024));
        worker.analyse(&object, &photograph)
    };
    let small = look(1024, 96);
    assert!(probability(&small) > 0.5 && small.tile_map.is_none());
    assert!(small.regions.iter().any(|region| region.label == "red place"), "{:?}", small.regions);
    assert!(measured(&small, "nuclei-count").is_some());
    let large = look(1025, 96);
    let map = large.tile_map.as_ref().unwrap();
    assert_eq!((map.columns, map.rows, &*map.cells), (9, 1, "000000000"));
}

/// A photomicrograph of equal upright stripes of colours, 128 pixels high.
fn stripes(signs: &str, columns: u16, pixel_um: Option<f64>) -> (File, ObjectHeader) {
    let colour = |x: u16| {
        let sign = signs.as_bytes()[usize::from(x) * signs.len() / usize::from(columns)];
        COLOURS.iter().find(|(of, _)| *of == char::from(sign)).unwrap().1
    };
    let row: Vec<u8> = (0..columns).flat_map(colour).collect();
    let object = photomicrograph(columns, FIELD_PX, &row.repeat(usize::from(FIELD_PX)), pixel_um);
    let (modality, class) = (Some("SM".to_owned()), Uid::new(sop_class::VL_MICROSCOPIC).unwrap());
    let size = (Some(FIELD_PX.into()), Some(columns.into()));
    let header = ObjectHeader { sop_class_uid: class, modality, rows_px: size.0, columns_px: size.1, ..header(1) };
    (object, header)
}

#[test]
fn a_photomicrograph_that_states_its_scale_and_is_wider_than_a_field_is_read_field_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let mut look = |signs: &str, columns: u16, um: Option<f64>| {
        let (object, header) = stripes(signs, columns, um);
        let evaluated = worker.evaluate(&object, &header).unwrap();
        let analysis = worker.analyse(&object, &header);
        assert_eq!(evaluated.in_fields, analysis.tile_map.is_some(), "{analysis:?}");
        analysis
    };
    let cells = |analysis: &Analysis| analysis.tile_map.as_ref().map(|map| (map.columns, map.rows, map.cells.clone()));
    // A field is 64 micrometres.
    let calibrated = look("02", 256, Some(0.5));
    assert_eq!(cells(&calibrated), Some((2, 1, "02".to_owned())));
    assert!((measured(&calibrated, "tissue-fraction").unwrap().value - 1.0).abs() < 1e-9);
    assert_eq!(cells(&look("0022", 256, Some(1.0))), Some((4, 2, "00220022".to_owned())));
    // As wide as a field, narrower than one, and of unknown scale: one picture.
    for (columns, um) in [(256, Some(0.25)), (128, Some(0.5)), (256, Some(0.1)), (256, None)] {
        let single = look("00", columns, um);
        assert!(single.tile_map.is_none() && probability(&single) > 0.5, "{columns} px of {um:?} um");
        assert!(measured(&single, "nuclei-count").is_some());
    }
    // Too coarse for cells: no answer, where the whole as one field would have been one.
    assert_eq!(code(&look("02", 256, Some(20.0))), "resolution_too_low");
}

#[test]
fn where_fields_overlap_at_the_edge_nuclei_are_looked_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    // Columns 0 to 127, and 64 to 191.
    let (object, header) = stripes("000", 192, Some(0.5));
    let analysis = worker.analyse(&object, &header);
    assert_eq!(analysis.tile_map.as_ref().map(|map| &*map.cells), Some("00"));
    let (count, density) =
        (measured(&analysis, "nuclei-count").unwrap(), measured(&analysis, "nuclei-density").unwrap());
    assert_eq!(count.value, 2.0);
    assert!((density.value - 2.0 / (0.096 * 0.064)).abs() < 1e-6, "{density:?}");
}

#[test]
fn fields_that_cannot_be_read_are_left_out_until_they_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path());
    let red = std::fs::read(data("tumour-3.jpg")).unwrap();
    let slide = Slide { is_jpeg: true, ..Slide::rgb(256 * 7, 256 * 6, 256) };
    let mut damaged_at = |count: u32| {
        let file = slide.write(|column, row| Some(if row * 7 + column < count { b"\xFF\xD8 gone" } else { &red[..] }));
        worker.analyse(&file, &slide_header(1, 256))
    };
    // Each tile is four fields of 128 pixels: 168 in all, 8 of them are the last that may go.
    let two = damaged_at(2);
    assert!(probability(&two) > 0.0);
    assert_eq!(two.tile_map.unwrap().cells.matches('?').count(), 8);
    assert_eq!(code(&damaged_at(3)), "pixel_data_damaged");
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The brightness bundle, for slides.
fn brightness() -> TestBundle {
    TestBundle::new()
        .edit("modalities = [\"OP\"]", "modalities = [\"SM\"]")
        .edit("[limits]", "[tiles]\nfield_um = 64.0\nfield_px = 128\nnuclei_fields_max = 4\n[limits]")
}

fn faulty(folder: &Path, object_deadline: Duration) -> Worker {
    let device = replay(folder, 0.0);
    let mut config = config(faulty_program(), &device, vec![brightness().write(&folder.join("a"))]);
    config.object_deadline = object_deadline;
    start(config)
}

fn slide_of(fields: u32) -> (File, impl Fn(u32) -> ObjectHeader) {
    let slide =
        Slide { order: Order::Sparse(0), ..Slide::rgb(fields * u32::from(FIELD_PX), FIELD_PX.into(), FIELD_PX) };
    let red = COLOURS[1].1.repeat(usize::from(FIELD_PX) * usize::from(FIELD_PX));
    (slide.write(|column, _| (column < 2).then_some(&red[..])), |fault| slide_header(fault, FIELD_PX))
}

#[test]
fn inv_07_a_slow_slide_goes_on_past_the_limit_of_one_object_and_one_that_stands_still_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = faulty(folder.path(), Duration::from_secs(1));
    let (slide, header) = slide_of(100);
    let begin = Instant::now();
    assert_eq!(probability(&worker.analyse(&slide, &header(110))), 0.5);
    assert!(begin.elapsed() > Duration::from_millis(1900), "{:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(code(&worker.analyse(&slide, &header(112))), "worker_overran");
    assert!(begin.elapsed() < Duration::from_secs(10), "one try is enough: {:?}", begin.elapsed());
    assert_eq!(probability(&worker.analyse(&slide, &header(1))), 0.5);
}

#[test]
fn inv_07_death_in_the_midst_of_a_slide_is_one_outcome_and_the_next_object_is_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = faulty(folder.path(), Duration::from_secs(10));
    let (slide, header) = slide_of(40);
    assert_eq!(code(&worker.analyse(&slide, &header(111))), "worker_died");
    assert_eq!(probability(&worker.analyse(&slide, &header(1))), 0.5);
}

#[test]
fn a_stop_does_not_wait_for_a_slide_and_progress_is_seen_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = faulty(folder.path(), Duration::from_secs(10));
    let (slide, header) = slide_of(100);
    let control = worker.control();
    assert!(control.progress().is_none());
    let pid = worker.status().pid.unwrap();
    let watcher = std::thread::spawn(move || {
        let begin = Instant::now();
        let far = loop {
            assert!(begin.elapsed() < Duration::from_secs(30), "no progress");
            match control.progress() {
                Some(progress) if progress.fields_done >= 5 => break progress,
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        control.stop();
        (far, Instant::now())
    });
    let analysis = worker.analyse(&slide, &header(110));
    let ended = Instant::now();
    let (far, stopped) = watcher.join().unwrap();
    assert_eq!(far.fields, 116, "a hundred fields and a second look at sixteen");
    assert_eq!(code(&analysis), "worker_unavailable");
    assert!(ended - stopped < STOP_SEEN_MAX + Duration::from_secs(1), "{:?}", ended - stopped);
    assert!(!runs(pid) && worker.status().progress.is_none());
    // For good: nothing is begun any more.
    assert_eq!(code(&worker.analyse(&slide, &header(1))), "worker_unavailable");
}

/// The shipped bundle that reads slides, else the brightness bundle: its graph is small, the rest is the same.
fn slide_bundle(folder: &Path) -> (Vec<PathBuf>, Vec<TrustedKey>, bool) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image/models");
    let shipped = models.join("lung-tissue/bundle");
    if shipped.join("bundle.toml").is_file() {
        let key = TrustedKey::read(&models.join("trust/fovea-models.pub")).unwrap();
        return (vec![shipped.canonicalize().unwrap()], vec![key], true);
    }
    let wide = brightness().edit("field_px = 128", "field_px = 768").edit("field_um = 64.0", "field_um = 384.0");
    (vec![wide.write(&folder.join("a"))], support::bundle::trusted(), false)
}

/// A section of lung: a round piece with a tumour at its right, glass around it.
fn section(side_px: u32, pixel_um: Option<f64>) -> File {
    let tiles: Vec<Vec<u8>> = ["glass-0", "normal-1", "normal-2", "tumour-3", "tumour-4"]
        .iter()
        .map(|name| std::fs::read(data(&format!("{name}.jpg"))).unwrap())
        .collect();
    let slide = Slide { is_jpeg: true, pixel_um, ..Slide::rgb(side_px, side_px, 256) };
    let across = f64::from(slide.tiles().0);
    slide.write(|column, row| {
        let place = |tile: u32| (f64::from(tile) + 0.5) / across - 0.5;
        let (x, y) = (place(column), place(row));
        let kind = match (x.hypot(y) < 0.45, (x - 0.25).hypot(y) < 0.12) {
            (_, true) => 3 + (column + row) % 2,
            (true, false) => 1 + (column * 7 + row * 3) % 2,
            _ => 0,
        };
        Some(&tiles[kind as usize])
    })
}

/// Analyses a section; the worker's and this process's peaks together, MiB.
fn peak_over(side_px: u32) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let (bundles, trusted_keys, is_shipped) = slide_bundle(folder.path());
    let mut config = config(program(), "CPU", bundles);
    config.trusted_keys = trusted_keys;
    let slide = section(side_px, Some(0.5));
    let mut worker = start(config);
    let pid = worker.status().pid.unwrap();
    let before = peak_mib(pid);
    let mut header = slide_header(1, 256);
    header.photometric = Some("YBR_FULL_422".to_owned());
    let begin = Instant::now();
    let analysis = worker.analyse(&slide, &header);
    let took = begin.elapsed();
    let (theirs, ours) = (peak_mib(pid), peak_mib(std::process::id()));
    let cells = analysis.tile_map.as_ref().map_or(0, |map| map.cells.len());
    println!(
        "{side_px} px a side, shipped bundle: {is_shipped}; {took:?} for {cells} fields, {:.1} ms each; times {:?}",
        took.as_secs_f64() * 1e3 / cells.max(1) as f64,
        analysis.times
    );
    println!("worker {before} MiB with its models, {theirs} MiB at its peak; daemon's side {ours} MiB");
    println!("{:?}\n{:?}", analysis.verdict, analysis.measurements);
    assert_eq!(worker.status().restarts, 0);
    if is_shipped {
        // Drawn tiles: whatever it says of them, it says it as one outcome.
        assert!(!matches!(&analysis.verdict, Verdict::NotAnalysed(reason) if reason.code.starts_with("worker_")));
    } else {
        assert!(probability(&analysis) > 0.0);
    }
    theirs + ours
}

#[test]
fn inv_08_a_slide_is_read_in_memory_that_does_not_grow_with_it() {
    let peak = peak_over(6_000);
    assert!(peak < 300, "{peak} MiB");
}

/// About a minute, and 400 MB of disk.
#[test]
#[ignore = "takes minutes; make test-long runs it"]
fn inv_08_a_slide_of_40_000_pixels_a_side_is_read_in_less_than_300_mib() {
    let peak = peak_over(40_000);
    assert!(peak < 300, "{peak} MiB");
}
