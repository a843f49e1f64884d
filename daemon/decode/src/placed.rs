//! Where each frame of a whole slide image lies, as the per-frame functional groups say it.
//!
//! In: (5200,9230). Out: [`Placed`]. Promise: a few bytes a frame, and no more frames than the limits allow.
//! Standard: PS3.3 sections C.8.12.6.1 (Plane Position (Slide)) and C.8.12.5 (optical paths).

use crate::DecodeError;
use crate::walk::{Element, Walk};

/// Longest identifier or offset that is looked at.
const TEXT_BYTES_MAX: u32 = 64;
/// Focal planes that are nearer are the same, millimetres in the standard (micrometres in Z Offset): far below any focus step.
const SAME_PLANE: f64 = 1e-6;

/// One frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// (0048,021E): column of its first pixel in the total pixel matrix, from 1.
    pub(crate) column: Option<i32>,
    /// (0048,021F): row of its first pixel, from 1.
    pub(crate) row: Option<i32>,
    /// Of another optical path or focal plane than the first frame.
    pub(crate) is_other: bool,
}

/// All frames, in their order.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) frames: Vec<FramePlace>,
    first_path: Option<String>,
    first_plane: Option<f64>,
}

impl Placed {
    /// Reads the groups; and where they end.
    pub(crate) fn read(walk: &Walk<'_>, element: &Element, frames_max: u32) -> Result<(Self, u64), DecodeError> {
        let mut placed = Self::default();
        let behind = walk.sequence(element, 0, &mut |item, group, walk| {
            if item >= frames_max {
                let value = u64::from(item) + 1;
                return Err(DecodeError::TooLarge { what: "per-frame groups", value, limit: frames_max.into() });
            }
            let item = item as usize;
            if placed.frames.len() <= item {
                placed.frames.resize(item + 1, FramePlace::default());
            }
            match group.tag {
                // Plane Position (Slide), Optical Path Identification.
                0x0048_021A | 0x0048_0207 => {
                    let inside = walk.sequence(group, 1, &mut |_, element, walk| {
                        placed.note(item, walk, element)?;
                        Ok(None)
                    })?;
                    Ok(Some(inside))
                }
                _ => Ok(None),
            }
        })?;
        Ok((placed, behind))
    }

    fn note(&mut self, item: usize, walk: &Walk<'_>, element: &Element) -> Result<(), DecodeError> {
        let frame = &mut self.frames[item];
        match element.tag {
            0x0048_021E => frame.column = walk.fixed(element)?.map(i32::from_le_bytes),
            0x0048_021F => frame.row = walk.fixed(element)?.map(i32::from_le_bytes),
            // Z Offset in Slide Coordinate System.
            0x0040_074A => {
                let plane = walk.text(element, TEXT_BYTES_MAX)?.and_then(|text| text.parse::<f64>().ok());
                if item == 0 {
                    self.first_plane = plane;
                }
                frame.is_other |= match (plane, self.first_plane) {
                    (Some(plane), Some(first)) => (plane - first).abs() > SAME_PLANE,
                    (plane, first) => plane.is_some() != first.is_some(),
                };
            }
            // Optical Path Identifier.
            0x0048_0106 => {
                let path = walk.text(element, TEXT_BYTES_MAX)?;
                if item == 0 {
                    self.first_path.clone_from(&path);
                }
                frame.is_other |= path != self.first_path;
            }
            _ => {}
        }
        Ok(())
    }
}
