//! One decoded picture, as decode hands it to preprocess.

/// Pixels in row-major order, rows without padding, channels interleaved.
#[derive(Clone, PartialEq, Debug)]
pub enum Pixels {
    /// One byte a pixel, 0 is black (MONOCHROME1 is already inverted).
    Gray8(Vec<u8>),
    /// One sample a pixel, 0 is black, full scale is `2^bits - 1`.
    Gray16 {
        /// Samples.
        samples: Vec<u16>,
        /// Bits stored, 9 to 16.
        bits: u8,
    },
    /// One signed sample a pixel.
    GrayI16 {
        /// Samples.
        samples: Vec<i16>,
        /// Bits stored, 2 to 16.
        bits: u8,
    },
    /// Three bytes a pixel: red, green, blue (palette and YBR are already converted).
    Rgb8(Vec<u8>),
    /// Three samples a pixel, full scale is `2^bits - 1`.
    Rgb16 {
        /// Samples.
        samples: Vec<u16>,
        /// Bits stored, 9 to 16.
        bits: u8,
    },
}

/// A frame whose pixel count fits its size.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    width_px: u32,
    height_px: u32,
    pixels: Pixels,
}

/// Why pixels and size do not make a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A side is zero.
    #[error("a frame of {width_px} x {height_px} px has no pixels")]
    Empty {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
    },
    /// The buffer is too short or too long.
    #[error("a frame of {width_px} x {height_px} px needs {expected} samples, {found} are there")]
    Length {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
        /// Samples needed.
        expected: u64,
        /// Samples given.
        found: u64,
    },
}

impl Frame {
    /// Joins size and pixels.
    ///
    /// # Errors
    /// [`FrameError`] when a side is zero or the number of samples is not width x height x channels.
    pub fn new(width_px: u32, height_px: u32, pixels: Pixels) -> Result<Self, FrameError> {
        if width_px == 0 || height_px == 0 {
            return Err(FrameError::Empty { width_px, height_px });
        }
        let (found, channels) = match &pixels {
            Pixels::Gray8(samples) => (samples.len(), 1),
            Pixels::Gray16 { samples, .. } => (samples.len(), 1),
            Pixels::GrayI16 { samples, .. } => (samples.len(), 1),
            Pixels::Rgb8(samples) => (samples.len(), 3),
            Pixels::Rgb16 { samples, .. } => (samples.len(), 3),
        };
        let expected = u64::from(width_px) * u64::from(height_px) * channels;
        let found = found as u64;
        if expected == found {
            Ok(Self { width_px, height_px, pixels })
        } else {
            Err(FrameError::Length { width_px, height_px, expected, found })
        }
    }

    /// Columns, at least 1.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// Rows, at least 1.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// The samples.
    #[must_use]
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}
