//! Region of interest, picture quality and the model's tensor.
//!
//! In: one decoded [`Frame`] and what the model wants to see ([`InputSpec`]). Out: the tensor, where it was cut from, and
//! what the picture is worth ([`Prepared`]); [`check`] turns worth into a reason to take the picture again.
//! Promise: no I/O, no randomness: the same frame gives the same bits; every number is finite, whatever the pixels;
//! memory is bounded by one 8-bit copy of a frame (of a deep one, or of the part that shows an ultrasound scan), 4 MiB of
//! work space and the tensor.

mod check;
mod disc;
mod mask;
mod picture;
mod pixels;
mod quality;

pub use check::check;
pub use picture::{Picture, shown};

use fovea_core::{Channels, Frame, FrameGeometry, InputSpec, Quality, Reason, Roi};
use fovea_kernels::area::{AreaError, Plane, PlaneSource};

/// Longest side of a model's input in pixels.
const INPUT_SIDE_PX_MAX: u32 = 4096;

/// What came with the tensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Prepared {
    /// Where the tensor was cut from: a point (u, v) of it, 0 to 1, is the frame's (x + u * side, y + v * side).
    pub roi: Roi,
    /// What the picture is worth: `focus`, `exposure`, `clipped` and `field`, and for a retina `disc_diameter`;
    /// defined beside [`check`]'s reasons in [`measures`].
    pub quality: Quality,
}

/// The names and definitions of the measures in [`Prepared::quality`].
///
/// All are taken from the square region of interest after area-averaging it to 512 x 512 pixels of 8-bit RGB (a gray
/// frame counts as three equal channels; deeper frames are first brought to 8 bits by full scale). *Disc* pixels are
/// those whose centre lies inside the fitted circle, inside the frame and inside the bright region that was found
/// (between its first and last pixel in its row and in its column). Where no disc is looked for it is the frame, and for
/// an ultrasound scan the box that the object states.
pub mod measures {
    /// Sharpness: the variance of the 4-neighbour Laplacian (up + down + left + right - 4 x centre) of the green channel
    /// (0 to 255) over the disc pixels that have only disc pixels within 8 pixels in each direction (a 17 x 17 square),
    /// divided by (mean green over all disc pixels + 1) squared, times 1000. Unit 1, from 0; 0 where no pixel qualifies.
    pub const FOCUS: &str = "focus";
    /// Brightness: the mean over the disc of the luminance 0.299 R + 0.587 G + 0.114 B, divided by 255. Unit 1, 0 to 1.
    pub const EXPOSURE: &str = "exposure";
    /// The share of disc pixels with any channel at 250 or above. Unit 1, 0 to 1.
    pub const CLIPPED: &str = "clipped";
    /// How much of the retina's disc is shown: the area of the bright region inside the fitted circle and the frame,
    /// divided by the area of the whole circle. Unit 1, 0 to 1; 1 for a whole frame.
    pub const FIELD: &str = "field";
    /// Diameter of the fitted circle in pixels of the frame. Unit `{px}`; only where a disc was looked for.
    pub const DISC_DIAMETER: &str = "disc_diameter";
}

/// Why there is no tensor. The output was not written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    /// No bright disc on a dark surround.
    #[error("look for the retina's disc: {why}")]
    NoRetinaFound {
        /// What was missing.
        why: &'static str,
    },
    /// The bundle asks for an input that cannot be made.
    #[error("model input: {what}")]
    Spec {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The frame is larger than the kernels take.
    #[error("resize a frame of {width_px} x {height_px} px")]
    Resize {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
        /// Why not.
        source: AreaError,
    },
}

impl PreprocessError {
    /// True where taking the picture again can help: the outcome is *ungradable*, else *not analysed*.
    #[must_use]
    pub fn is_ungradable(&self) -> bool {
        matches!(self, Self::NoRetinaFound { .. })
    }

    /// The same for records and people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoRetinaFound { .. } => Reason::new(
                "no_retina_found",
                "no retina found in the picture",
                "Centre the eye in the scope, hold still and take it again",
            ),
            Self::Spec { .. } => Reason::new("model_input_invalid", self.to_string(), ""),
            Self::Resize { .. } => Reason::new("frame_too_large", self.to_string(), ""),
        }
    }
}

/// Finds the region of interest, measures it and writes the model's tensor: [`Picture::prepare`] for a single question.
///
/// # Errors
/// [`PreprocessError`]; `out` then holds what it held.
pub fn prepare(
    frame: &Frame,
    geometry: &FrameGeometry,
    spec: &InputSpec,
    out: &mut Vec<f32>,
) -> Result<Prepared, PreprocessError> {
    Picture::of(frame).prepare(geometry, spec, out)
}

/// One plane for each channel of the tensor.
fn planes(spec: &InputSpec, frame_channels: usize) -> Vec<Plane> {
    let sources: &[PlaneSource] = match (spec.channels, frame_channels) {
        (Channels::Gray, _) => &[PlaneSource::Luma],
        (_, 1) => &[PlaneSource::Channel(0); 3],
        (Channels::Rgb, _) => &[PlaneSource::Channel(0), PlaneSource::Channel(1), PlaneSource::Channel(2)],
        (Channels::Bgr, _) => &[PlaneSource::Channel(2), PlaneSource::Channel(1), PlaneSource::Channel(0)],
    };
    let norms = spec.mean.iter().zip(&spec.std);
    sources.iter().zip(norms).map(|(source, (mean, std))| Plane { source: *source, mean: *mean, std: *std }).collect()
}

/// Refuses what a bundle must not ask for; infer checks bundles too, but this crate also stands alone.
fn check_spec(spec: &InputSpec) -> Result<(), PreprocessError> {
    let side = 1..=INPUT_SIDE_PX_MAX;
    let what = if !side.contains(&spec.width_px) || !side.contains(&spec.height_px) {
        "a side is not 1 to 4096 px"
    } else if spec.mean.len() != spec.channels.count() || spec.std.len() != spec.channels.count() {
        "mean and std must have one number for each channel"
    } else if !spec.mean.iter().all(|mean| mean.is_finite() && mean.abs() <= 1e3) {
        "a mean is not a share of full scale"
    } else if !spec.std.iter().all(|std| std.is_finite() && (1e-6..=1e6).contains(std)) {
        "a std is not 0.000001 to 1000000"
    } else {
        return Ok(());
    };
    Err(PreprocessError::Spec { what })
}
