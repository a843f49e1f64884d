//! Luminance and chrominance to red, green and blue. Standard: PS3.3 section C.7.6.3.1.2 (ITU-R BT.601, full range).

/// Converts one pixel of samples with the given full scale (`2^bits - 1`), rounded to nearest.
#[inline]
pub(crate) fn ybr_to_rgb(pixel: [u16; 3], full_scale: i64) -> [u16; 3] {
    // 16 fractional bits.
    const RED: i64 = 91_881; // 1.402
    const GREEN_FROM_BLUE: i64 = 22_554; // 0.344136
    const GREEN_FROM_RED: i64 = 46_802; // 0.714136
    const BLUE: i64 = 116_130; // 1.772
    let centre = (full_scale + 1) / 2;
    let y = (i64::from(pixel[0]) << 16) + (1 << 15);
    let (cb, cr) = (i64::from(pixel[1]) - centre, i64::from(pixel[2]) - centre);
    // Cut to full scale, so it fits.
    let cut = |value: i64| (value >> 16).clamp(0, full_scale) as u16;
    [cut(y + RED * cr), cut(y - GREEN_FROM_BLUE * cb - GREEN_FROM_RED * cr), cut(y + BLUE * cb)]
}
