//! The truth: what every other variant must give, bit for bit.

use super::taps::Taps;
use super::{ROW_FRACTION_BITS, SUM_FRACTION_BITS, WEIGHT_BITS};

/// Weighted sum of source rows: `out[x] = sum(weights[k] * sources[k][x])`, with `ROW_FRACTION_BITS` behind the point.
///
/// All sources are as long as `out`; no sources give black.
pub(super) fn sum_rows(sources: &[&[u8]], weights: &[i16], out: &mut [i16]) {
    for (x, out) in out.iter_mut().enumerate() {
        *out = sum_rows_at(sources, weights, x);
    }
}

/// One element of [`sum_rows`].
#[inline(always)]
pub(super) fn sum_rows_at(sources: &[&[u8]], weights: &[i16], x: usize) -> i16 {
    const DROPPED_BITS: u32 = WEIGHT_BITS - ROW_FRACTION_BITS;
    let sum: i32 = sources.iter().zip(weights).map(|(source, weight)| i32::from(source[x]) * i32::from(*weight)).sum();
    // At most 255 << 7, so it fits.
    ((sum + (1 << (DROPPED_BITS - 1))) >> DROPPED_BITS) as i16
}

/// Weighted sums along a row, planar: `out[c * width + i]` is channel `c` of output pixel `i`.
///
/// `row` is interleaved and starts at source column `row_start`.
pub(super) fn sum_columns(row: &[i16], row_start: usize, channels: usize, across: &Taps, out: &mut [i32]) {
    let width = out.len() / channels;
    for index in 0..width {
        for channel in 0..channels {
            out[channel * width + index] = sum_columns_at(row, row_start, channels, across, index, channel);
        }
    }
}

/// One element of [`sum_columns`].
#[inline(always)]
pub(super) fn sum_columns_at(
    row: &[i16],
    row_start: usize,
    channels: usize,
    across: &Taps,
    index: usize,
    channel: usize,
) -> i32 {
    let (first, weights) = across.of(index);
    if weights.is_empty() {
        return 0;
    }
    let samples = row[(first - row_start) * channels + channel..].iter().step_by(channels);
    samples.zip(weights).map(|(sample, weight)| i32::from(*sample) * i32::from(*weight)).sum()
}

/// `out[i] = sums[i] * scale + bias`: a product and a sum, each rounded once; never fused, so that all variants agree.
#[inline(always)]
pub(super) fn normalise(sums: &[i32], scale: f32, bias: f32, out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = *sum as f32 * scale + bias;
    }
}

/// As [`normalise`], of the luminance by ITU-R BT.601.
pub(super) fn normalise_luma(red: &[i32], green: &[i32], blue: &[i32], scale: f32, bias: f32, out: &mut [f32]) {
    for (index, out) in out.iter_mut().enumerate() {
        let luma = red[index] as f32 * 0.299 + green[index] as f32 * 0.587 + blue[index] as f32 * 0.114;
        *out = luma * scale + bias;
    }
}

/// Planar sums to interleaved bytes, rounded to nearest, halves up.
#[inline(always)]
pub(super) fn round_to_u8(sums: &[i32], channels: usize, out: &mut [u8]) {
    // At most 255, so it fits.
    let round = |sum: i32| ((sum + (1 << (SUM_FRACTION_BITS - 1))) >> SUM_FRACTION_BITS) as u8;
    if channels == 3 {
        let (red, rest) = sums.split_at(sums.len() / 3);
        let (green, blue) = rest.split_at(sums.len() / 3);
        for (out, ((red, green), blue)) in out.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
            out.copy_from_slice(&[round(*red), round(*green), round(*blue)]);
        }
    } else {
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = round(*sum));
    }
}
