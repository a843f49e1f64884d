//! What a worker may put into a finding: finite numbers, and not more than the ledger holds (128 KiB of JSON).
//!
//! The worker is the process that parses untrusted pixels, so its answer is bounded like anything from outside.
//! The bounds are far above what a model says (an outline of a lesion has some 30 points); a test fills every one of
//! them with the longest values there are and holds the sum against the ledger's limit.

use fovea_core::{ClassScore, Code, Measurement, Quality, Region, TileMap};

/// Points of all outlines of one finding together.
pub const OUTLINE_POINTS_MAX: usize = 1024;
/// Characters of one text (reason, advice, label).
pub const TEXT_CHARS_MAX: usize = 240;
/// Characters of a code's parts, units and names.
const WORD_CHARS_MAX: usize = 64;
/// Regions, measurements and qualities of one finding, each.
pub(crate) const ITEMS_MAX: usize = 12;
/// Measurements of one region.
const SIZES_MAX: usize = 4;
/// Fields in a row or a column of a map.
const MAP_SIDE_MAX: u32 = 128;
/// Least points of an outline.
const OUTLINE_POINTS_MIN: usize = 3;

/// The start of a long text.
pub(crate) fn short(text: String) -> String {
    cut(text, TEXT_CHARS_MAX)
}

fn word(text: String) -> String {
    cut(text, WORD_CHARS_MAX)
}

/// Control characters go: JSON writes them as six bytes, and they have no place in a reason.
fn cut(text: String, chars_max: usize) -> String {
    let printable = |text: &str| !text.chars().any(char::is_control);
    if text.len() <= chars_max && printable(&text) {
        return text;
    }
    text.chars().filter(|letter| !letter.is_control()).take(chars_max).collect()
}

pub(crate) fn short_code(code: Code) -> Code {
    // As in a code sequence item (PS3.5 table 6.2-1: SH 16, LO 64).
    Code { scheme: cut(code.scheme, 16), value: cut(code.value, 16), meaning: cut(code.meaning, 64) }
}

/// Measurements with a finite value, at most `count_max`.
pub(crate) fn finite_measurements(measurements: Vec<Measurement>, count_max: usize) -> Vec<Measurement> {
    let finite = measurements.into_iter().filter(|measurement| measurement.value.is_finite()).take(count_max);
    finite
        .map(|Measurement { code, value, unit }| Measurement { code: short_code(code), value, unit: short_code(unit) })
        .collect()
}

/// Outlines of finite points, whole or not at all, as long as [`OUTLINE_POINTS_MAX`] lasts.
pub(crate) fn finite_regions(regions: Vec<Region>) -> Vec<Region> {
    let mut left = OUTLINE_POINTS_MAX;
    let mut kept = Vec::new();
    for Region { label, code, outline_px, measurements } in regions {
        let points = outline_px.len();
        let finite = outline_px.iter().flatten().all(|coordinate| coordinate.is_finite());
        if finite && (OUTLINE_POINTS_MIN..=left).contains(&points) && kept.len() < ITEMS_MAX {
            left -= points;
            let measurements = finite_measurements(measurements, SIZES_MAX);
            kept.push(Region { label: word(label), code: code.map(short_code), outline_px, measurements });
        }
    }
    kept
}

/// Classes with a probability that is one, at most [`ITEMS_MAX`].
pub(crate) fn finite_classes(classes: Vec<ClassScore>) -> Vec<ClassScore> {
    let likely = classes.into_iter().filter(|class| (0.0..=1.0).contains(&class.probability)).take(ITEMS_MAX);
    likely
        .map(|ClassScore { label, code, probability }| ClassScore {
            label: word(label),
            code: short_code(code),
            probability,
        })
        .collect()
}

/// A map whose cells are as many as its size says, each with a meaning; else none.
pub(crate) fn whole_map(map: TileMap) -> Option<TileMap> {
    let side = 1..=MAP_SIDE_MAX;
    let sized = side.contains(&map.columns) && side.contains(&map.rows);
    let known = |cell: u8| {
        matches!(cell, b'.' | b'?') || (cell.is_ascii_digit() && usize::from(cell - b'0') < map.classes.len())
    };
    let whole = sized
        && map.classes.len() <= 10
        && map.cells.len() as u64 == u64::from(map.columns) * u64::from(map.rows)
        && map.cells.bytes().all(known);
    whole.then(|| TileMap { classes: map.classes.into_iter().map(word).collect(), ..map })
}

/// Finite measures, at most [`ITEMS_MAX`].
pub(crate) fn finite_quality(quality: Quality) -> Quality {
    let finite = quality.into_iter().filter(|(_, measure)| measure.value.is_finite()).take(ITEMS_MAX);
    finite
        .map(|(name, mut measure)| {
            measure.unit = word(measure.unit);
            (word(name), measure)
        })
        .collect()
}
