//! Small pictures of cases, with outlines: found in orange, as the site drew it in blue.
//!
//! In: a case. Out: a PNG. Promise: pixels come from the worker's sandbox; memory is bounded by the small picture and one row.

use super::cases::Case;
use super::look::Bench;
use super::result::Ruler;
use super::truth::{self, Map};
use fovea_core::Region;
use fovea_worker::{LabelMap, Picture};
use std::io::{BufReader, Read};

/// Longest side, pixels.
const SIDE_PX: u32 = 320;
const FOUND: [u8; 3] = [255, 140, 0];
const DRAWN: [u8; 3] = [60, 170, 255];

/// A picture that was made small.
struct Small {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

/// The case as a PNG; none where nothing can be shown.
pub fn of(bench: &Bench, case: &Case, ruler: &Ruler) -> Option<Vec<u8>> {
    let looked = bench.look(&case.path).ok()?;
    let found = looked.nuclei.as_ref().or(looked.mask.as_ref());
    let drawn = if ruler.counts { truth::instances(&case.instances) } else { truth::masks(&case.masks) }.ok().flatten();
    let picture = bench.picture(&case.path);
    let frame = match (&picture, found, &drawn) {
        (Some(picture), ..) => (picture.width_px, picture.height_px),
        (None, Some(map), _) => (map.width_px, map.height_px),
        (None, None, Some(map)) => (map.width_px, map.height_px),
        _ => return None,
    };
    let mut small = match picture {
        Some(picture) => shrunk(picture)?,
        None => grey(frame),
    };
    if let Some(drawn) = drawn {
        small.outline(&drawn, DRAWN);
    }
    match found {
        Some(found) => small.outline(&map_of(found), FOUND),
        None => looked.analysis.regions.iter().for_each(|region| small.polygon(region, frame, FOUND)),
    }
    small.png()
}

fn map_of(found: &LabelMap) -> Map {
    Map { width_px: found.width_px, height_px: found.height_px, labels: found.labels.clone() }
}

fn small_size((width, height): (u32, u32)) -> (u32, u32) {
    let longest = width.max(height).max(1);
    let side = |side: u32| (u64::from(side) * u64::from(SIDE_PX.min(longest)) / u64::from(longest)).max(1) as u32;
    (side(width), side(height))
}

/// In the place of a picture that only a DICOM viewer shows.
fn grey(frame: (u32, u32)) -> Small {
    let (width, height) = small_size(frame);
    Small { width, height, rgb: vec![96; width as usize * height as usize * 3] }
}

/// The mean of the pixels that fall onto each small one, row by row.
fn shrunk(picture: Picture) -> Option<Small> {
    let (width, height) = small_size((picture.width_px, picture.height_px));
    let mut sums = vec![[0u32; 3]; width as usize];
    let mut counts = vec![0u32; width as usize];
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    let mut row = vec![0; picture.width_px as usize * 3];
    let mut pixels = BufReader::new(picture.rgb);
    let onto = |at: u32, of: u32, small: u32| (u64::from(at) * u64::from(small) / u64::from(of)) as u32;
    for y in 0..picture.height_px {
        pixels.read_exact(&mut row).ok()?;
        for (x, pixel) in (0..).zip(row.chunks_exact(3)) {
            let at = onto(x, picture.width_px, width) as usize;
            counts[at] += 1;
            sums[at].iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
        }
        if y + 1 == picture.height_px || onto(y + 1, picture.height_px, height) > onto(y, picture.height_px, height) {
            for (sum, count) in sums.iter_mut().zip(&mut counts) {
                rgb.extend(sum.map(|sum| (sum / (*count).max(1)) as u8));
                (*sum, *count) = ([0; 3], 0);
            }
        }
    }
    (rgb.len() == width as usize * height as usize * 3).then_some(Small { width, height, rgb })
}

impl Small {
    /// Colours the pixels at which a map changes.
    fn outline(&mut self, map: &Map, colour: [u8; 3]) {
        let map = map.scaled(self.width, self.height);
        let at = |x: u32, y: u32| map.labels[(y * self.width + x) as usize];
        let mut edge = Vec::new();
        for y in 0..self.height {
            for x in 0..self.width {
                let label = at(x, y);
                let differs =
                    |dx: u32, dy: u32| x + dx < self.width && y + dy < self.height && at(x + dx, y + dy) != label;
                if differs(1, 0) || differs(0, 1) {
                    edge.push((x, y));
                }
            }
        }
        edge.into_iter().for_each(|(x, y)| self.dot(x, y, colour));
    }

    /// Draws a region's closed outline, given in pixels of the frame.
    fn polygon(&mut self, region: &Region, frame: (u32, u32), colour: [u8; 3]) {
        let scale = (self.width as f32 / frame.0 as f32, self.height as f32 / frame.1 as f32);
        let points: Vec<(f32, f32)> = region.outline_px.iter().map(|[x, y]| (x * scale.0, y * scale.1)).collect();
        for (index, from) in points.iter().enumerate() {
            let to = points[(index + 1) % points.len()];
            let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().clamp(1.0, 4.0 * SIDE_PX as f32);
            for step in 0..=steps as u32 {
                let part = step as f32 / steps;
                let (x, y) = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
                if x >= 0.0 && y >= 0.0 {
                    self.dot(x as u32, y as u32, colour);
                }
            }
        }
    }

    fn dot(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) as usize * 3;
            self.rgb[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn png(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().ok()?;
        writer.write_image_data(&self.rgb).ok()?;
        writer.finish().ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_large_picture_becomes_small_and_keeps_its_colours_in_their_places() {
        let mut rgb = tempfile::tempfile().unwrap();
        for y in 0..500u32 {
            let row: Vec<u8> =
                (0..1000u32).flat_map(|x| [if x < 500 { 200 } else { 10 }, (y / 250 * 100) as u8, 7]).collect();
            rgb.write_all(&row).unwrap();
        }
        rgb.rewind().unwrap();
        let small = shrunk(Picture { width_px: 1000, height_px: 500, rgb }).unwrap();
        assert_eq!((small.width, small.height), (320, 160));
        assert_eq!((&small.rgb[..3], &small.rgb[small.rgb.len() - 3..]), (&[200, 0, 7][..], &[10, 100, 7][..]));
        assert!(small.png().unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn outlines_are_drawn_where_a_map_changes_and_stay_inside() {
        let mut small = grey((4, 4));
        let map = Map { width_px: 2, height_px: 2, labels: vec![1, 0, 0, 0] };
        small.outline(&map, FOUND);
        let orange = |x: usize, y: usize| small.rgb[(y * 4 + x) * 3..][..3] == FOUND;
        assert!(orange(1, 0) && orange(1, 1) && orange(0, 1) && !orange(0, 0) && !orange(3, 3));
        let mut small = grey((4, 4));
        let outline_px = vec![[-5.0, 1.0], [9.0, 1.0], [9.0, 3.0]];
        let region = Region { label: String::new(), code: None, outline_px, measurements: Vec::new() };
        small.polygon(&region, (4, 4), FOUND);
        assert!(small.rgb[(4 + 2) * 3..][..3] == FOUND);
    }
}
