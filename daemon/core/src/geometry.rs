//! What an object states of the space its pixels show: agreed by decode, which reads it, and by who measures.

use serde::{Deserialize, Serialize};

/// A box of whole pixels inside a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PixelBox {
    /// Left column.
    pub x: u32,
    /// Top row.
    pub y: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// Size of one pixel in the body or on the slide, millimetres, finite and greater than 0.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct PixelSize {
    /// Distance of neighbours in a row.
    pub width_mm: f64,
    /// Distance of neighbours in a column.
    pub height_mm: f64,
}

/// Geometry of the frames of one object; nothing is guessed, what is not stated is none.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FrameGeometry {
    /// From Sequence of Ultrasound Regions (PS3.3 section C.8.5.5) for ultrasound, Pixel Measures (C.7.6.16.2.1) or
    /// Pixel Spacing where it is of the object itself; none where the picture is not calibrated.
    pub pixel_size: Option<PixelSize>,
    /// The 2D tissue region of an ultrasound frame.
    pub ultrasound_field_px: Option<PixelBox>,
}
