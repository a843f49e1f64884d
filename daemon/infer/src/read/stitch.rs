//! Overlapping windows: where they lie, and how their maps become one.
//!
//! In: sides of a frame and of a window, then the windows' answers. Out: one map of the frame.
//! Promise: every pixel's value comes from one window alone, the one to whose middle it is nearest; the rule is the
//! recipe's (`image/models/lung-tissue/recipe/watershed.py`), pixel for pixel.

use crate::answer::Answer;

/// Least pixels that neighbouring windows share.
pub const OVERLAP_PX: u32 = 32;

/// One window along an axis, pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Where the window begins.
    pub start: u32,
    /// First pixel that it answers for.
    pub from: u32,
    /// One past the last pixel that it answers for.
    pub to: u32,
}

/// The windows that cover an axis of `length` pixels, first to last.
///
/// A shorter axis than a window has one window that begins at 0: the frame is widened by mirroring at its last pixel
/// (d c b a | b c d: the edge is not repeated). `window`: above [`OVERLAP_PX`], else there are no windows.
#[must_use]
pub fn parts(length: u32, window: u32) -> Vec<Part> {
    let step = window.saturating_sub(OVERLAP_PX);
    if step == 0 || length == 0 {
        return Vec::new();
    }
    if length <= window {
        return vec![Part { start: 0, from: 0, to: window }];
    }
    let count = u64::from((length - OVERLAP_PX).div_ceil(step));
    let start = |index: u64| (index * u64::from(length - window) / (count - 1)) as u32;
    // The line between a window and the one before it.
    let line = |index: u64| ((u64::from(start(index - 1)) + u64::from(window) + u64::from(start(index))) / 2) as u32;
    let part = |index: u64| Part {
        start: start(index),
        from: if index == 0 { 0 } else { line(index) },
        to: if index + 1 == count { length } else { line(index + 1) },
    };
    (0..count).map(part).collect()
}

/// Maps of a frame, put together window by window.
#[derive(Clone, PartialEq, Debug)]
pub struct Stitched {
    /// Columns, as the frame's.
    pub width: usize,
    /// Rows, as the frame's.
    pub height: usize,
    /// One map a plane, row by row; 0 where no window was put.
    pub planes: Vec<Vec<f32>>,
}

impl Stitched {
    /// Empty maps of a frame: `planes` of `width_px` x `height_px`.
    #[must_use]
    pub fn new(width_px: u32, height_px: u32, planes: usize) -> Self {
        let (width, height) = (width_px as usize, height_px as usize);
        Self { width, height, planes: vec![vec![0.0; width * height]; planes] }
    }

    /// Puts one window's answer in its place. What lies outside the frame or the window is left out.
    ///
    /// `answer`: maps of the window's size, one element a pixel.
    pub fn put(&mut self, column: &Part, row: &Part, answer: &Answer) {
        let clipped = |part: &Part, length: usize, window: usize| {
            let (start, end) = (part.start as usize, (part.to as usize).min(length));
            (start, part.from as usize..end.min(start + window))
        };
        let (left, columns) = clipped(column, self.width, answer.shape.width);
        let (top, rows) = clipped(row, self.height, answer.shape.height);
        if columns.start < left || rows.start < top || columns.is_empty() {
            return;
        }
        for (plane, out) in self.planes.iter_mut().enumerate() {
            let Some(map) = answer.plane(plane) else { return };
            for y in rows.clone() {
                let line = &map[(y - top) * answer.shape.width..][columns.start - left..columns.end - left];
                out[y * self.width..][columns.clone()].copy_from_slice(line);
            }
        }
    }
}
