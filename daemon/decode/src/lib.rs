//! Transfer syntax to frames, frame by frame, in bounded memory.
//!
//! In: a Part 10 file ([`open`]), or a PNG or JPEG from a capture device ([`picture_rgb8`]). Out: [`fovea_core::Frame`].
//! Promise: bytes from outside never panic, never loop and never allocate more than [`DecodeLimits`] allows: what a length
//! field says is believed only after the bytes are known to be there, what an image says of its size only after it was
//! held against the limits and, for coded frames, against the code's own header. One frame is in memory at a time.
//!
//! Syntaxes: implicit and explicit little endian, deflated, RLE, JPEG baseline, extended (8 and 12 bits) and lossless
//! (process 14, any predictor), JPEG-LS (lossless and near), JPEG 2000 and high-throughput JPEG 2000. No video.

mod codec;
mod colour;
mod error;
mod frames;
mod geometry;
mod header;
mod limits;
mod picture;
mod pixels;
mod placed;
mod render;
mod slide;
mod source;
mod syntax;
mod walk;

pub use error::DecodeError;
pub use limits::DecodeLimits;
pub use picture::picture_rgb8;
pub use slide::{Slide, Tile};

use fovea_core::{Frame, FrameGeometry, Uid};
use frames::Places;
use pixels::PixelFormat;
use source::{Source, SourceReader};
use std::fs::File;
use std::io::Read;
use syntax::{Code, Elements};

/// An opened object: its pixels are described and found, none is decoded yet.
pub struct Object {
    source: Source,
    code: Code,
    format: PixelFormat,
    places: Places,
    geometry: FrameGeometry,
    slide: Option<Slide>,
    limits: DecodeLimits,
}

/// Reads the header of a Part 10 file up to its pixels. The file's own position is neither used nor moved.
///
/// # Errors
/// [`DecodeError`]; see [`DecodeError::reason`] for the outcome.
pub fn open(file: File, limits: DecodeLimits) -> Result<Object, DecodeError> {
    open_source(Source::file(file)?, limits)
}

fn open_source(source: Source, limits: DecodeLimits) -> Result<Object, DecodeError> {
    let (syntax_text, data_set_at) = header::file_meta(&source)?;
    let uid = Uid::new(&syntax_text)
        .map_err(|_| DecodeError::Invalid { attribute: "Transfer Syntax UID", why: "it is no UID" })?;
    let Some((elements, code)) = syntax::of(&uid) else {
        return Err(DecodeError::Unsupported { transfer_syntax: uid });
    };
    let (source, data_set_at) = match elements {
        Elements::Deflated => (Source::Memory(inflate(&source, data_set_at, limits.whole_bytes_max)?), 0),
        _ => (source, data_set_at),
    };
    let header = header::read(&source, data_set_at, elements, &limits)?;
    let format = PixelFormat::of(&header, &limits)?;
    let places = Places::find(&source, &header, code, &format)?;
    let geometry = geometry::geometry(&header, format.columns, format.rows);
    let slide = Slide::of(&header, &format, &limits)?;
    Ok(Object { source, code, format, places, geometry, slide, limits })
}

impl Object {
    /// Number of frames, at least 1.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.format.frames
    }

    /// Columns of each frame, at least 1.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.format.columns
    }

    /// Rows of each frame, at least 1.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.format.rows
    }

    /// What the object states of the space that its frames show; `geometry.rs` says which attributes count.
    #[must_use]
    pub fn geometry(&self) -> FrameGeometry {
        self.geometry
    }

    /// How the frames make one large picture; none where the object is no VL Whole Slide Microscopy Image.
    #[must_use]
    pub fn slide(&self) -> Option<&Slide> {
        self.slide.as_ref()
    }

    /// Decodes frame `index`, counted from 0. Nothing is kept: the same call gives the same frame again.
    ///
    /// # Errors
    /// [`DecodeError`]; the object stays usable, and other frames may be whole.
    pub fn frame(&mut self, index: u32) -> Result<Frame, DecodeError> {
        if index >= self.format.frames {
            return Err(DecodeError::NoSuchFrame { index, frames: self.format.frames });
        }
        let bytes = self.places.read(&self.source, index, self.limits.frame_bytes_max)?;
        let samples = codec::decode(self.code, bytes, &self.format)?;
        render::frame(samples, &self.format)
    }
}

/// Unfolds a deflated data set, at most `bytes_max` bytes. Standard: PS3.5 section A.5.
fn inflate(source: &Source, at: u64, bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::new();
    let reader = flate2::read::DeflateDecoder::new(SourceReader { source, at });
    let read = reader.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|source| DecodeError::Read { doing: "the deflated data set", source })?;
    if bytes.len() as u64 > bytes_max {
        return Err(DecodeError::TooLarge {
            what: "bytes of the data set",
            value: bytes.len() as u64,
            limit: bytes_max,
        });
    }
    Ok(bytes)
}
