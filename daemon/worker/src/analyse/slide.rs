//! A large picture, field by field: which are tissue, what each shows, nuclei in some of them.
//!
//! In: a canvas. Out: the verdict; tile map, measurements and quality in the look.
//! Promise: memory does not grow with the picture: one field, the canvas's cache and some bytes for each field; every
//! field is announced, so that a long look is seen to go on; a field that cannot be decoded is left out, and when more
//! than one in twenty cannot, the object is not analysed.

use super::canvas::Canvas;
use super::frame::{networks, no_answer};
use super::grid::{Grid, field_side, um_per_px};
use super::look::{Look, Stop, finite};
use super::summary::{Cell, Seen, Summary};
use super::windows::{self, Counted};
use crate::protocol::Step;
use fovea_core::{Frame, FrameGeometry, Measure, Quality, Reason, RoiMethod, TileMap, Verdict};
use fovea_decode::DecodeError;
use fovea_infer::{Tiles, read};
use fovea_preprocess::Picture;
use std::collections::BTreeMap;

/// Share of stained pixels from which on a field is tissue: lung is mostly air.
const TISSUE_MIN: f64 = 0.10;
/// One field in so many may be unreadable.
const UNREADABLE_ONE_IN: usize = 20;
/// Fields that are measured and, where the bundle counts nuclei in none, looked at twice.
const MEASURED_MAX: u32 = 16;

/// Reads a large picture.
pub fn read(look: &mut Look<'_>, mut canvas: Canvas, geometry: &FrameGeometry, tiles: &Tiles) -> Result<Verdict, Stop> {
    let side = field_side(tiles, geometry, needed_px(look)).map_err(Stop::Failed)?;
    let grid = Grid::over(canvas.size_px(), side);
    let counting = tiles.nuclei_fields_max.max(MEASURED_MAX);
    look.fields = Some((0, grid.fields() + counting));
    let mut walk = Walk { canvas: &mut canvas, grid, geometry, first_error: None, unreadable: 0 };
    let mut cells = vec![Cell::Background; grid.fields() as usize];
    for cell in grid.cells() {
        cells[grid.index(cell)] = walk.look_at(look, cell)?;
        look.fields = look.fields.map(|(done, all)| (done + 1, all));
    }
    if let Some(error) = &walk.first_error
        && walk.unreadable * UNREADABLE_ONE_IN > cells.len()
    {
        return Err(Stop::Failed(error.reason()));
    }
    let summary = Summary::of(look.model().manifest(), cells)?;
    let chosen = summary.spread(counting as usize);
    let (counted, quality) = walk.second_look(look, &chosen, tiles.nuclei_fields_max as usize)?;
    look.answer.quality = quality;
    look.answer.tile_map = Some(TileMap {
        columns: grid.columns,
        rows: grid.rows,
        field_px: grid.side_px.saturating_mul(grid.step),
        classes: summary.labels(),
        cells: summary.cells(),
    });
    look.answer.measurements = summary.measurements();
    if let Some(counted) = counted {
        look.answer.measurements.extend(counted.measurements(look.model().manifest()));
    }
    Ok(Verdict::Scored(summary.scores()))
}

/// Side of the largest input that looks at whole fields, pixels.
fn needed_px(look: &Look<'_>) -> u32 {
    let networks = look.model().manifest().networks.iter();
    let whole = networks.filter(|network| network.input.roi != RoiMethod::Window);
    whole.map(|network| network.input.width_px.max(network.input.height_px)).max().unwrap_or(1)
}

struct Walk<'a> {
    canvas: &'a mut Canvas,
    grid: Grid,
    geometry: &'a FrameGeometry,
    first_error: Option<DecodeError>,
    unreadable: usize,
}

impl Walk<'_> {
    fn field(&mut self, look: &mut Look<'_>, cell: (u32, u32)) -> Option<Frame> {
        look.step(Step::Decode);
        let part = self.grid.field(cell);
        match look.timed(|times| &mut times.decode_us, || self.canvas.part(part)) {
            Ok(field) => Some(field),
            Err(error) => {
                self.unreadable += 1;
                self.first_error.get_or_insert(error);
                None
            }
        }
    }

    /// What one field shows.
    fn look_at(&mut self, look: &mut Look<'_>, cell: (u32, u32)) -> Result<Cell, Stop> {
        let Some(field) = self.field(look, cell) else { return Ok(Cell::Unreadable) };
        let picture = Picture::of(&field);
        let tissue = look.timed(|times| &mut times.preprocess_us, || picture.tissue_share());
        let tissue = tissue.map_err(super::frame::stop)?;
        if tissue < TISSUE_MIN {
            return Ok(Cell::Background);
        }
        // What the object states of a whole screen does not hold in a field.
        let answered = match networks(look, &picture, &FrameGeometry::default(), false) {
            Ok(answered) => answered,
            Err(Stop::Gated(gated)) => return Ok(Cell::TurnedAway(Box::new(gated))),
            Err(stop) => return Err(stop),
        };
        let scores = read::scores(look.model().manifest(), &answered.networks).ok_or_else(no_answer)?;
        Ok(Cell::Seen(Seen::of(look.model().manifest(), &scores, tissue)))
    }

    /// Nuclei and the worth of the picture in some fields, each first in its part of the slide.
    fn second_look(
        &mut self,
        look: &mut Look<'_>,
        chosen: &[usize],
        count_max: usize,
    ) -> Result<(Option<Counted>, Quality), Stop> {
        let mut counted: Option<Counted> = None;
        let mut measures: BTreeMap<String, (String, Vec<f64>)> = BTreeMap::new();
        let mut fields_counted = 0;
        for index in chosen {
            let columns = self.grid.columns as usize;
            // Both below the sides of the grid.
            let cell = ((index % columns) as u32, (index / columns) as u32);
            if let Some(field) = self.field(look, cell) {
                let picture = Picture::of(&field);
                if fields_counted < count_max
                    && let Some(nuclei) = self.count(look, cell, &field)?
                {
                    counted.get_or_insert_default().add(Counted { labels: None, ..nuclei });
                    fields_counted += 1;
                }
                for (name, measure) in worth(look, &picture)? {
                    measures.entry(name).or_insert_with(|| (measure.unit, Vec::new())).1.push(measure.value);
                }
            }
            look.fields = look.fields.map(|(done, all)| (done + 1, all));
        }
        let median = |(name, (unit, mut values)): (String, (String, Vec<f64>))| {
            values.sort_by(f64::total_cmp);
            (name, Measure { value: values[values.len() / 2], unit })
        };
        let mut quality: Quality = measures.into_iter().map(median).collect();
        let mut put = |name: &str, value: f64, unit: &str| {
            quality.insert(name.to_owned(), Measure { value, unit: unit.to_owned() });
        };
        if let Some(um) = um_per_px(self.geometry) {
            put("pixel_size", um, "um");
        }
        put("fields_measured", chosen.len() as f64, "1");
        if counted.is_some() {
            put("fields_counted", f64::from(u32::try_from(fields_counted).unwrap_or(u32::MAX)), "1");
        }
        Ok((counted, quality))
    }

    /// Nuclei of a field; of one that overlaps its neighbour only those that the neighbour does not show.
    fn count(&mut self, look: &mut Look<'_>, cell: (u32, u32), field: &Frame) -> Result<Option<Counted>, Stop> {
        let (whole, own) = (self.grid.field(cell), self.grid.own(cell));
        let size_px = (own.width, own.height);
        if own == whole {
            return windows::count(look, &Picture::of(field), size_px, self.geometry);
        }
        // Its tiles are still at hand from the whole field.
        match look.timed(|times| &mut times.decode_us, || self.canvas.part(own)) {
            Ok(part) => windows::count(look, &Picture::of(&part), size_px, self.geometry),
            Err(_) => Ok(None),
        }
    }
}

/// What a field is worth, by the first network that looks at whole fields; the medians are told and not judged.
fn worth(look: &mut Look<'_>, picture: &Picture<'_>) -> Result<Quality, Stop> {
    let networks = look.model().manifest().networks.iter();
    let Some(owner) = networks.into_iter().find(|network| network.input.roi != RoiMethod::Window).cloned() else {
        return Err(Stop::Failed(Reason::new("model_input_invalid", "no network looks at whole fields", "")));
    };
    let mut tensor = std::mem::take(look.tensor);
    let prepared = look.timed(
        |times| &mut times.preprocess_us,
        || picture.prepare(&FrameGeometry::default(), &owner.input, &mut tensor),
    );
    *look.tensor = tensor;
    prepared.map(|prepared| finite(prepared.quality)).map_err(super::frame::stop)
}
