//! How much of an object this box is willing to unfold.

/// Bounds on what comes from outside; past one the object is refused with a clear reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// Most columns.
    pub width_px_max: u32,
    /// Most rows.
    pub height_px_max: u32,
    /// Most bytes of one decoded frame, and of the coded bytes of one frame. A codec may need about six times as much.
    pub frame_bytes_max: u64,
    /// Most frames in one object.
    pub frames_max: u32,
    /// Most bytes that a deflated data set, or a picture file, may be.
    pub whole_bytes_max: u64,
    /// Most columns, and most rows, of the picture that a slide's tiles make together.
    pub slide_side_px_max: u32,
    /// Deepest nesting of sequences.
    pub depth_max: u32,
}

impl Default for DecodeLimits {
    /// Room for a 32-megapixel fundus photograph at 16 bits and for a 10-minute clip, and for little more; a slide of
    /// 512-pixel tiles may have a hundred thousand pixels a side.
    fn default() -> Self {
        Self {
            width_px_max: 16_384,
            height_px_max: 16_384,
            frame_bytes_max: 256 << 20,
            frames_max: 40_000,
            whole_bytes_max: 512 << 20,
            slide_side_px_max: 262_144,
            depth_max: 64,
        }
    }
}
