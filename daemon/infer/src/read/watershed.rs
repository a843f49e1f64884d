//! From interior and border maps to single nuclei.
//!
//! In: two maps of one size. Out: [`NucleusMap`]. Promise: everything is decided on whole numbers, in a fixed order, so
//! that every machine and the recipe that trained the network (`image/models/lung-tissue/recipe/watershed.py`) get the
//! same labels.

use super::mask::LabelMap;
use crate::bundle::output::Nuclei;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most nuclei of one map: as many as labels can name. Later seeds are dropped.
pub const NUCLEI_MAX: usize = 65_535;
/// What 1 is among whole numbers.
const FULL_SCALE: f64 = 65_535.0;

/// Single nuclei of one map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NucleusMap {
    /// Row by row: 0 is no nucleus, 1 to n are nuclei in the order of their first seed element.
    pub labels: Vec<u16>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Elements of nucleus 1, 2 and so on.
    pub areas: Vec<u32>,
}

/// Tells nuclei apart: seeds are where interior exceeds border, and grow inside along falling interior.
///
/// - `interior`, `border`: probabilities, row by row, `width` columns; as long as each other. Where they are not, or
///   `width` does not divide their length, no nucleus is found.
/// - Seeds of fewer than `spec.area_min_px` elements are dropped.
/// - Nuclei whose interior is below `spec.mean_min` in the mean are dropped: what the network half believes in.
#[must_use]
pub fn nuclei(interior: &[f32], border: &[f32], width: usize, spec: &Nuclei) -> NucleusMap {
    let height = interior.len().checked_div(width).unwrap_or(0);
    if interior.len() != border.len() || interior.len() != width * height || u32::try_from(interior.len()).is_err() {
        return NucleusMap { labels: Vec::new(), width: 0, height: 0, areas: Vec::new() };
    }
    let ground: Vec<u16> = interior.iter().map(|value| whole(f64::from(*value)) as u16).collect();
    let (inside_from, seed_from) = (whole(spec.interior_threshold), whole(spec.seed_threshold));
    let inside: Vec<bool> = ground.iter().map(|level| i32::from(*level) >= inside_from).collect();
    let is_seed = |at: usize| inside[at] && i32::from(ground[at]) - whole(f64::from(border[at])) >= seed_from;
    let seed: Vec<bool> = (0..ground.len()).map(is_seed).collect();
    let (mut labels, count) = numbered(seed, width, spec.area_min_px as usize);
    flood(&ground, &inside, &mut labels, width);
    let areas = keep_sure(&ground, &mut labels, count, whole(spec.mean_min));
    NucleusMap { labels, width, height, areas }
}

/// Drops the nuclei whose mean ground is below `mean_from`, numbers the others anew in their order, and tells their areas.
fn keep_sure(ground: &[u16], labels: &mut [u16], count: usize, mean_from: i32) -> Vec<u32> {
    let mut sums = vec![(0_u32, 0_i64); count + 1];
    for (label, level) in labels.iter().zip(ground) {
        let (area, sum) = &mut sums[usize::from(*label)];
        *area += 1;
        *sum += i64::from(*level);
    }
    let mut new_labels = vec![0; count + 1];
    let mut areas = Vec::with_capacity(count);
    for (old, (area, sum)) in sums.into_iter().enumerate().skip(1) {
        if sum >= i64::from(mean_from) * i64::from(area) {
            areas.push(area);
            new_labels[old] = areas.len() as u16; // at most NUCLEI_MAX, as the labels before
        }
    }
    labels.iter_mut().for_each(|label| *label = new_labels[usize::from(*label)]);
    areas
}

/// A probability or a difference of two as a whole number, up to 65535.
fn whole(value: f64) -> i32 {
    (value.clamp(-1.0, 1.0) * FULL_SCALE + 0.5).floor() as i32
}

/// Components of eight neighbours, numbered by their first element, small ones dropped; and how many there are.
fn numbered(seed: Vec<bool>, width: usize, area_min: usize) -> (Vec<u16>, usize) {
    let mut labels = vec![0; seed.len()];
    let mut count = 0;
    for_each_component(seed, width, |members| {
        if members.len() >= area_min && count < NUCLEI_MAX {
            count += 1;
            members.iter().for_each(|member| labels[*member] = count as u16);
        }
    });
    (labels, count)
}

/// Tells `of` the elements of every component of eight neighbours, in the order of their first element.
pub(super) fn for_each_component(mut open: Vec<bool>, width: usize, mut of: impl FnMut(&[usize])) {
    let mut members = Vec::new();
    for first in 0..open.len() {
        if !std::mem::take(&mut open[first]) {
            continue;
        }
        members.clear();
        members.push(first);
        let mut at = 0;
        while let Some(member) = members.get(at).copied() {
            at += 1;
            let (row, column) = (member / width, member % width);
            for y in row.saturating_sub(1)..(row + 2).min(open.len() / width) {
                for x in column.saturating_sub(1)..(column + 2).min(width) {
                    if std::mem::take(&mut open[y * width + x]) {
                        members.push(y * width + x);
                    }
                }
            }
        }
        of(&members);
    }
}

/// Grows the labels over `inside`: highest ground first, and who entered first where it is level.
///
/// An element whose neighbours are all taken can give its label to none, so it need not wait its turn: the order of the
/// others is the same without it.
fn flood(ground: &[u16], inside: &[bool], labels: &mut [u16], width: usize) {
    let mut entered: u32 = 0;
    let mut queue = BinaryHeap::new();
    let mut enter = |queue: &mut BinaryHeap<_>, labels: &[u16], at: usize| {
        if neighbours(at, width, labels.len()).any(|next| inside[next] && labels[next] == 0) {
            queue.push((ground[at], Reverse(entered), at as u32));
        }
        entered += 1;
    };
    for at in (0..labels.len()).filter(|at| labels[*at] > 0) {
        enter(&mut queue, labels, at);
    }
    while let Some((_, _, at)) = queue.pop() {
        let at = at as usize;
        for next in neighbours(at, width, labels.len()) {
            if inside[next] && labels[next] == 0 {
                labels[next] = labels[at];
                enter(&mut queue, labels, next);
            }
        }
    }
}

/// Up, left, right, down, where there is such an element.
fn neighbours(at: usize, width: usize, len: usize) -> impl Iterator<Item = usize> {
    let column = at % width;
    let up = at.checked_sub(width);
    let left = if column > 0 { Some(at - 1) } else { None };
    let right = if column + 1 < width { Some(at + 1) } else { None };
    let down = Some(at + width).filter(|down| *down < len);
    [up, left, right, down].into_iter().flatten()
}

impl NucleusMap {
    /// The labels in a frame of another size: each pixel has the label of the element that its middle lies in.
    #[must_use]
    pub fn in_frame(&self, width_px: u32, height_px: u32) -> LabelMap {
        let (columns, rows) = (width_px as usize, height_px as usize);
        let mut labels = vec![0; columns * rows];
        if self.width > 0 && self.height > 0 && columns > 0 {
            let element = |pixel: usize, pixels: usize, elements: usize| (2 * pixel + 1) * elements / (2 * pixels);
            for (row, out) in labels.chunks_exact_mut(columns).enumerate() {
                let line = &self.labels[element(row, rows, self.height) * self.width..][..self.width];
                for (column, out) in out.iter_mut().enumerate() {
                    *out = line[element(column, columns, self.width)];
                }
            }
        }
        LabelMap { width_px, height_px, labels }
    }
}
