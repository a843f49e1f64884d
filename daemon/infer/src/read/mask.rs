//! Maps in the frame: where a structure lies, how large it is, and what an answer rests on.

use super::axes;
use super::outline::{self, Contour};
use super::watershed::for_each_component;
use crate::answer::Answer;
use crate::bundle::output::{Heat, Mask};
use fovea_core::{Code, FrameGeometry, Measurement, PixelBox, PixelSize, Reason, Region, Roi};
use std::ops::Range;

/// Most regions that a mask tells; the largest ones.
pub const REGIONS_MAX: usize = 8;

/// Where in a frame a network looked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Place {
    /// The square that became the tensor, pixels of the frame; it may reach beyond the frame.
    pub roi: Roi,
    /// What of the frame the square shows; the rest of it is padding, in which there is nothing to be found.
    pub shown: PixelBox,
    /// Columns of the frame, at least 1.
    pub width_px: u32,
    /// Rows of the frame, at least 1.
    pub height_px: u32,
    /// What the object states of its pixels.
    pub geometry: FrameGeometry,
}

/// A number for each pixel of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelMap {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// Row by row; 0 is background. Of a mask 0 or 1, of nuclei 1 to n.
    pub labels: Vec<u16>,
}

/// Regions of a structure, largest first, at most [`REGIONS_MAX`], each with its area and, where the bundle wants
/// them, its axes.
#[must_use]
pub fn mask(spec: &Mask, answer: &Answer, place: &Place) -> Vec<Region> {
    let contours = contours(answer, place, spec.threshold, spec.area_min_share, REGIONS_MAX);
    let region = |contour: Contour| {
        let dense = in_frame(&contour, answer, place);
        let outline_px = outline::simplified(&dense)?;
        let measurements = measurements(&dense, place.geometry.pixel_size, spec.axes);
        Some(Region { label: spec.label.clone(), code: Some(spec.code.clone()), outline_px, measurements })
    };
    contours.into_iter().filter_map(region).collect()
}

/// The reason why a picture without regions is ungradable; none where it has some, or need not.
#[must_use]
pub fn missing<'a>(spec: &'a Mask, regions: &[Region]) -> Option<&'a Reason> {
    if regions.is_empty() { spec.required.as_ref() } else { None }
}

/// Outlines of what an answer rests on, largest first, at most `spec.regions_max`. To be told only where the band is
/// not clear.
#[must_use]
pub fn heat(spec: &Heat, answer: &Answer, place: &Place) -> Vec<Region> {
    let contours = contours(answer, place, spec.threshold, 0.0, spec.regions_max as usize);
    let region = |contour: Contour| {
        let outline_px = outline::simplified(&in_frame(&contour, answer, place))?;
        Some(Region { label: spec.label.clone(), code: None, outline_px, measurements: Vec::new() })
    };
    contours.into_iter().filter_map(region).collect()
}

/// Which pixels of the frame belong to a structure: 1 where the map's surface is at `threshold` or above.
///
/// - `map`: plane 0 is read; it is carried to the frame with bilinear weights, as logits, which is how networks are
///   taught to be enlarged. Regions' outlines are the level line of the same surface.
/// - A pixel outside the region of interest, or of the part of the frame that it shows, is 0. Small regions and holes are kept: see [`mask_as_told`].
#[must_use]
pub fn mask_labels(map: &Answer, place: &Place, threshold: f64) -> LabelMap {
    let (columns, rows) = (place.width_px as usize, place.height_px as usize);
    let mut labels = vec![0; columns * rows];
    let (width, height) = (map.shape.width, map.shape.height);
    let [(left, right), (top, bottom)] = seen(place);
    let across = weights(place.roi.x, place.roi.side, left..right, width);
    let down = weights(place.roi.y, place.roi.side, top..bottom, height);
    let threshold = logit(threshold as f32);
    if let Some(surface) = surface(map) {
        for row in &down {
            let (above, below) = (&surface[row.first * width..][..width], &surface[row.second * width..][..width]);
            let out = &mut labels[row.pixel * columns..][..columns];
            for column in &across {
                let mix = |line: &[f32]| line[column.first] * (1.0 - column.share) + line[column.second] * column.share;
                let value = mix(above) * (1.0 - row.share) + mix(below) * row.share;
                out[column.pixel] = u16::from(value >= threshold);
            }
        }
    }
    LabelMap { width_px: place.width_px, height_px: place.height_px, labels }
}

/// [`mask_labels`] without the regions that are too small to be told: what a finding's outlines stand for.
#[must_use]
pub fn mask_as_told(spec: &Mask, map: &Answer, place: &Place) -> LabelMap {
    let mut told = mask_labels(map, place, spec.threshold);
    let side = f64::from(place.roi.side);
    let area_min = (spec.area_min_share * side * side).ceil() as usize;
    for_each_component(told.labels.iter().map(|label| *label > 0).collect(), told.width_px as usize, |members| {
        if members.len() < area_min {
            members.iter().for_each(|member| told.labels[*member] = 0);
        }
    });
    told
}

/// Plane 0 as logits.
fn surface(map: &Answer) -> Option<Vec<f32>> {
    Some(map.plane(0)?.iter().map(|value| logit(*value)).collect())
}

/// Kept off 0 and 1, where it would be infinite.
fn logit(probability: f32) -> f32 {
    let probability = probability.clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability)).ln()
}

/// One pixel of a frame's axis and the two elements of a map's that it lies between.
struct Weight {
    pixel: usize,
    first: usize,
    second: usize,
    /// Of the second element.
    share: f32,
}

/// For every pixel of an axis whose middle lies in the region: where it falls among `elements`.
fn weights(start: i32, side: u32, pixels: Range<u32>, elements: usize) -> Vec<Weight> {
    let scale = elements as f64 / f64::from(side.max(1));
    let weight = |pixel: u32| {
        let at = (f64::from(pixel) + 0.5 - f64::from(start)) * scale;
        if !(0.0..=elements as f64).contains(&at) {
            return None;
        }
        let at = (at - 0.5).clamp(0.0, (elements - 1) as f64);
        let first = at as usize;
        Some(Weight {
            pixel: pixel as usize,
            first,
            second: (first + 1).min(elements - 1),
            share: (at - first as f64) as f32,
        })
    };
    pixels.filter_map(weight).collect()
}

/// First pixel and the one behind the last, of columns and of rows, that lie in the frame and are shown.
fn seen(place: &Place) -> [(u32, u32); 2] {
    let axis = |from: u32, length: u32, frame: u32| (from.min(frame), from.saturating_add(length).min(frame));
    let shown = place.shown;
    [axis(shown.x, shown.width, place.width_px), axis(shown.y, shown.height, place.height_px)]
}

/// The largest contours of plane 0 that are large enough, each within what is shown.
fn contours(answer: &Answer, place: &Place, threshold: f64, area_min_share: f64, most: usize) -> Vec<Contour> {
    let Some(surface) = surface(answer) else { return Vec::new() };
    let (width, height) = (answer.shape.width, answer.shape.height);
    let area_min = area_min_share * (width * height) as f64;
    let [columns, rows] = seen(place);
    let inside = |start: i32, (from, to): (u32, u32), elements: usize| {
        let scale = elements as f64 / f64::from(place.roi.side.max(1));
        let at = |pixel: u32| ((f64::from(pixel) - f64::from(start)) * scale - 0.5).clamp(-0.5, elements as f64 - 0.5);
        (at(from) as f32, at(to) as f32)
    };
    let map = outline::Map {
        values: &surface,
        across: outline::Axis::new(width, inside(place.roi.x, columns, width)),
        down: outline::Axis::new(height, inside(place.roi.y, rows, height)),
    };
    outline::largest(&map, logit(threshold as f32), area_min, most)
}

/// From elements of the map to pixels of the frame; rounding does not carry a point out of what is shown.
fn in_frame(contour: &Contour, answer: &Answer, place: &Place) -> Vec<[f64; 2]> {
    let (roi, shape) = (place.roi, answer.shape);
    let (across, down) = (f64::from(roi.side) / shape.width as f64, f64::from(roi.side) / shape.height as f64);
    let [(left, right), (top, bottom)] = seen(place).map(|(from, to)| (f64::from(from), f64::from(to)));
    let to_frame = |[x, y]: &[f32; 2]| {
        let x = f64::from(roi.x) + (f64::from(*x) + 0.5) * across;
        let y = f64::from(roi.y) + (f64::from(*y) + 0.5) * down;
        [x.clamp(left, right), y.clamp(top, bottom)]
    };
    contour.points.iter().map(to_frame).collect()
}

/// Area, and where wanted long and short axis: millimetres where the object is calibrated, else pixels.
fn measurements(dense: &[[f64; 2]], pixel_size: Option<PixelSize>, with_axes: bool) -> Vec<Measurement> {
    let (across, down, length, area) = match pixel_size {
        Some(size) => (
            size.width_mm,
            size.height_mm,
            Code::new("UCUM", "mm", "millimeter"),
            Code::new("UCUM", "mm2", "square millimeter"),
        ),
        // UCUM has no pixel: a curly bracket is its word for "one, namely a ...".
        None => (1.0, 1.0, Code::new("UCUM", "{px}", "pixels"), Code::new("UCUM", "{px}", "pixels")),
    };
    let scaled: Vec<[f64; 2]> = dense.iter().map(|[x, y]| [x * across, y * down]).collect();
    let number = |code: Code, value: f64, unit: &Code| Measurement { code, value, unit: unit.clone() };
    let mut told = vec![number(Code::new("SCT", "42798000", "Area"), outline::area(&scaled).abs(), &area)];
    if let (true, Some((long, short))) = (with_axes, axes::axes(&scaled)) {
        told.push(number(Code::new("SCT", "103339001", "Long Axis"), long, &length));
        told.push(number(Code::new("SCT", "103340004", "Short Axis"), short, &length));
    }
    told.retain(|measurement| measurement.value.is_finite());
    told
}
