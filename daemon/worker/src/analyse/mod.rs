//! The join: object -> model -> frames -> tensors -> answers, inside the sandbox.
//!
//! In: an open object, its routing facts, the admitted models. Out: one [`Analysis`], whatever the object is; for a site's
//! evaluation also the maps behind it.
//! Promise: without an eligible model no byte of the object is read; each step is announced before it begins; evaluation
//! runs the same code as production.
//!
//! ```text
//! mod.rs      which model, which kind of object
//! frame.rs    one picture through all networks of a bundle      windows.rs  networks that see windows of it
//! slide.rs    many fields of a large one (grid.rs, canvas.rs)   summary.rs  from fields to one answer
//! ```

mod canvas;
mod frame;
mod grid;
mod look;
mod slide;
mod summary;
mod windows;

use crate::bounds::bound;
use crate::protocol::Step;
use canvas::{Canvas, Tiles};
use fovea_core::{Analysis, Frame, FrameGeometry, ObjectHeader, Reason, Verdict, sop_class};
use fovea_decode::{DecodeError, DecodeLimits};
use fovea_infer::read::LabelMap;
use fovea_infer::{Model, NotSelected, Tiles as TileSpec, select};
use grid::um_per_px;
use look::{Look, Stop};
use std::fs::File;

/// Longest side of a picture of unknown scale that is one field; longer ones are read field by field where a bundle does so.
const ONE_FIELD_PX_MAX: u32 = 1024;
/// How much wider than a field a picture of known scale may be and still be one: what a camera rounds.
const ONE_FIELD_SLACK: f64 = 1.02;

/// An admitted model under the daemon's number for its bundle.
pub struct Served {
    pub slot: usize,
    pub model: Model,
}

/// What comes next: the step, the chosen model's slot, and fields done and in all where there are many.
pub type Announce<'a> = &'a mut dyn FnMut(Step, usize, Option<(u32, u32)>);

/// What is asked of one object.
pub struct Question<'a> {
    /// A Part 10 file; with `with_maps` also a PNG or JPEG.
    pub object: File,
    pub header: &'a ObjectHeader,
    pub limits: DecodeLimits,
    /// Whether the maps behind the answer are wanted.
    pub with_maps: bool,
}

/// An analysis and what it rests on.
pub struct Evaluation {
    pub analysis: Analysis,
    /// Of the first gate that was asked.
    pub fit_probability: Option<f64>,
    /// Of the ordinal output.
    pub level: Option<u32>,
    /// The first mask output in the frame.
    pub mask: Option<LabelMap>,
    /// Nuclei in the frame.
    pub nuclei: Option<LabelMap>,
    /// Whether it was read field by field: then there are no maps.
    pub in_fields: bool,
}

impl Evaluation {
    pub fn without_maps(analysis: Analysis) -> Self {
        Self { analysis, fit_probability: None, level: None, mask: None, nuclei: None, in_fields: false }
    }
}

/// Analyses one object. `announce` is told each step.
///
/// `tensor` is scratch: kept by the caller, so that its memory is used again.
pub fn analyse(
    models: &mut [Served],
    question: Question<'_>,
    tensor: &mut Vec<f32>,
    announce: Announce<'_>,
) -> Evaluation {
    let index = match select(models.iter().map(|served| served.model.manifest()), question.header) {
        Ok(index) => index,
        Err(NotSelected::NoModel(reason)) => return Evaluation::without_maps(Analysis::not_analysed(reason)),
        // A slide's header tells the size of a tile; the whole is known when it is open.
        Err(NotSelected::TooSmall { index, .. })
            if models[index].model.manifest().tiles.is_some()
                && question.header.sop_class_uid.as_str() == sop_class::VL_WHOLE_SLIDE =>
        {
            index
        }
        Err(NotSelected::TooSmall { index, reason }) => {
            let look = Look::begin(&mut models[index], tensor, announce, false);
            return look.ended(Err(Stop::Ungradable(reason)));
        }
    };
    let mut look = Look::begin(&mut models[index], tensor, announce, question.with_maps);
    let done = look_at(&mut look, question);
    let mut evaluation = look.ended(done);
    bound(&mut evaluation.analysis);
    evaluation
}

/// What kind of object it is decides how it is read.
fn look_at(look: &mut Look<'_>, question: Question<'_>) -> Result<Verdict, Stop> {
    let header = question.header;
    look.step(Step::Decode);
    let subject = look.timed(|times| &mut times.decode_us, || open(question))?;
    let tiles = look.model().manifest().tiles;
    match (subject, tiles) {
        (Subject::Slide(slide, geometry), Some(tiles)) => {
            let (width_px, height_px) = slide.size_px();
            let whole = ObjectHeader { rows_px: Some(height_px), columns_px: Some(width_px), ..header.clone() };
            look.model().manifest().eligible.large_enough(&whole).map_err(Stop::Ungradable)?;
            slide::read(look, Canvas::Slide(slide), &geometry, &tiles)
        }
        (Subject::Slide(..), None) => {
            let text = "the model looks at single pictures, not at whole slides";
            Err(Stop::Failed(Reason::new("slide_not_supported", text, "")))
        }
        (Subject::NoSpecimen, _) => {
            let text = "the picture shows the slide's label or the whole glass, not the specimen";
            Err(Stop::Failed(Reason::new("no_specimen", text, "")))
        }
        (Subject::Frame { frame, number, geometry }, tiles) => {
            look.answer.frame = number;
            match tiles {
                Some(tiles) if is_many_fields(&frame, &geometry, &tiles) => {
                    slide::read(look, Canvas::Frame(frame), &geometry, &tiles)
                }
                _ => frame::read(look, &frame, &geometry),
            }
        }
    }
}

/// Whether a single picture holds more than the one field that the tile's class was taught on: by its size on the glass
/// where it states a scale, and in any case by its pixels.
fn is_many_fields(frame: &Frame, geometry: &FrameGeometry, tiles: &TileSpec) -> bool {
    let longest_px = frame.width_px().max(frame.height_px());
    let is_wide = |um: f64| f64::from(longest_px) * um > tiles.field_um * ONE_FIELD_SLACK;
    longest_px > ONE_FIELD_PX_MAX || um_per_px(geometry).is_some_and(is_wide)
}

/// What is looked at.
enum Subject {
    /// A slide's specimen.
    Slide(Box<Tiles>, FrameGeometry),
    /// A slide's label or overview.
    NoSpecimen,
    /// One frame, with its number from 1.
    Frame { frame: Frame, number: u32, geometry: FrameGeometry },
}

/// Of a clip the middle frame, on which its operator has settled.
fn open(question: Question<'_>) -> Result<Subject, Stop> {
    let failed = |error: DecodeError| Stop::Failed(error.reason());
    let Question { object, limits, with_maps, .. } = question;
    let twin = if with_maps { object.try_clone().ok() } else { None };
    let mut object = match (fovea_decode::open(object, limits), twin) {
        (Err(DecodeError::NotAFile { .. }), Some(picture)) => {
            let frame = fovea_decode::picture_rgb8(picture, limits).map_err(failed)?;
            return Ok(Subject::Frame { frame, number: 1, geometry: FrameGeometry::default() });
        }
        (opened, _) => opened.map_err(failed)?,
    };
    let geometry = object.geometry();
    match object.slide().cloned() {
        Some(slide) if slide.shows_volume() => Ok(Subject::Slide(Box::new(Tiles::new(object, slide)), geometry)),
        Some(_) => Ok(Subject::NoSpecimen),
        None => {
            let index = object.frames() / 2;
            let frame = object.frame(index).map_err(failed)?;
            Ok(Subject::Frame { frame, number: index + 1, geometry })
        }
    }
}
