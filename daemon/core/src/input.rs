//! What a model wants to see, and what the picture was worth: agreed by bundle (infer) and preprocess.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Order and number of a tensor's channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of luminance (ITU-R BT.601 weights).
    Gray,
}

impl Channels {
    /// 1 or 3.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }
}

/// Which part of the frame the model looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoiMethod {
    /// Find the bright disc of the retina on its dark surround, crop to its bounding square, pad with black.
    RetinaDisc,
    /// The whole frame, padded with black to a square.
    FullFrame,
    /// The largest square around the middle of the frame.
    InnerSquare,
    /// The box of the scan that the object states ([`crate::FrameGeometry::ultrasound_field_px`]), else the whole frame;
    /// padded with black to a square.
    UltrasoundField,
    /// Overlapping windows that cover the frame; the model runs on each.
    Window,
}

/// The square that was cut from a frame, in pixels of the frame. What lies outside the frame is black.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Roi {
    /// Left edge; negative is left of the frame.
    pub x: i32,
    /// Top edge; negative is above the frame.
    pub y: i32,
    /// Columns and rows, at least 1.
    pub side: u32,
}

/// Geometry and normalisation of a model's input: float32, planar (NCHW, N = 1).
///
/// Element = (value / full scale - `mean[c]`) / `std[c]`, channels in the order of `channels`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Columns of the tensor, 1 to 4096.
    pub width_px: u32,
    /// Rows of the tensor, 1 to 4096.
    pub height_px: u32,
    /// Channel order.
    pub channels: Channels,
    /// Subtracted, in units of full scale; as many as there are channels.
    pub mean: Vec<f32>,
    /// Divided by, in units of full scale, greater than 0; as many as there are channels.
    pub std: Vec<f32>,
    /// Part of the frame.
    pub roi: RoiMethod,
}

/// The worst picture that a model still answers for. A missing limit is not checked.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Least `focus` (see preprocess for its definition).
    pub focus_min: Option<f32>,
    /// Least `exposure`, a share of full scale.
    pub exposure_min: Option<f32>,
    /// Greatest `exposure`, a share of full scale.
    pub exposure_max: Option<f32>,
    /// Greatest share of clipped pixels inside the region.
    pub clipped_max: Option<f32>,
    /// Least share of the region's disc that lies inside the frame.
    pub field_min: Option<f32>,
}

/// One number with its unit (UCUM; `1` for a pure number).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// The number, finite.
    pub value: f64,
    /// UCUM unit.
    pub unit: String,
}

/// What preprocess measured, by name: `focus`, `exposure`, `clipped`, `field` and more.
pub type Quality = BTreeMap<String, Measure>;
