//! The same sums as `scalar.rs`, 32 columns or 4 taps at a time. All integers; sums of integers do not depend on order.

use super::taps::Taps;
use super::{ROW_FRACTION_BITS, WEIGHT_BITS, scalar};
use std::arch::x86_64::*;

/// Columns that [`sum_rows`] takes at once.
const BLOCK: usize = 32;

/// As [`scalar::sum_rows`]. The sums of a block stay in registers while its rows are walked two by two, so each source
/// byte is read once from memory and nothing is written but the result.
#[target_feature(enable = "avx2")]
pub(super) fn sum_rows(sources: &[&[u8]], weights: &[i16], out: &mut [i16]) {
    let blocks = out.len() / BLOCK;
    for block in 0..blocks {
        let x = block * BLOCK;
        // Checked once a block: the loads below stay inside these slices.
        let sums = sum_block(sources, weights, x);
        store_block(sums, &mut out[x..x + BLOCK]);
    }
    for (x, out) in out.iter_mut().enumerate().skip(blocks * BLOCK) {
        *out = scalar::sum_rows_at(sources, weights, x);
    }
}

/// Sums of 32 columns from `x`, as four vectors in the order in which unpacking leaves them.
#[target_feature(enable = "avx2")]
#[inline]
fn sum_block(sources: &[&[u8]], weights: &[i16], x: usize) -> [__m256i; 4] {
    let zero = _mm256_setzero_si256();
    let mut sums = [zero; 4];
    for (pair, pair_weights) in sources.chunks(2).zip(weights.chunks(2)) {
        let upper = load(&pair[0][x..x + BLOCK]);
        // A last row without a partner is paired with itself at weight 0.
        let lower = load(&pair[pair.len() - 1][x..x + BLOCK]);
        let lower_weight = if pair.len() == 2 { pair_weights[1] } else { 0 };
        let packed = (i32::from(lower_weight) << 16) | i32::from(pair_weights[0]);
        let weight = _mm256_set1_epi32(packed);
        let (low, high) = (_mm256_unpacklo_epi8(upper, lower), _mm256_unpackhi_epi8(upper, lower));
        let parts = [
            _mm256_unpacklo_epi8(low, zero),
            _mm256_unpackhi_epi8(low, zero),
            _mm256_unpacklo_epi8(high, zero),
            _mm256_unpackhi_epi8(high, zero),
        ];
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(part, weight));
        }
    }
    sums
}

/// Rounds the four vectors of [`sum_block`] and writes them in the order of the columns.
#[target_feature(enable = "avx2")]
#[inline]
fn store_block(sums: [__m256i; 4], out: &mut [i16]) {
    const DROPPED_BITS: i32 = (WEIGHT_BITS - ROW_FRACTION_BITS) as i32;
    assert_eq!(out.len(), BLOCK);
    let half = _mm256_set1_epi32(1 << (DROPPED_BITS - 1));
    let mut rounded = sums;
    for sum in &mut rounded {
        *sum = _mm256_srai_epi32::<DROPPED_BITS>(_mm256_add_epi32(*sum, half));
    }
    let low = _mm256_packs_epi32(rounded[0], rounded[1]);
    let high = _mm256_packs_epi32(rounded[2], rounded[3]);
    let first = _mm256_permute2x128_si256::<0x20>(low, high);
    let second = _mm256_permute2x128_si256::<0x31>(low, high);
    // SAFETY: `out` is 32 samples of 2 bytes, asserted above: two unaligned stores of 32 bytes fill it.
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), first);
        _mm256_storeu_si256(out.as_mut_ptr().add(16).cast(), second);
    }
}

/// 32 bytes from a slice of 32.
#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8]) -> __m256i {
    assert_eq!(bytes.len(), BLOCK);
    // SAFETY: an unaligned load of the 32 bytes that the slice holds, asserted above.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// As [`scalar::sum_columns`]. `row` has `ROW_SLACK` readable samples behind its last pixel.
#[target_feature(enable = "avx2")]
pub(super) fn sum_columns(row: &[i16], row_start: usize, channels: usize, across: &Taps, out: &mut [i32]) {
    if channels == 3 {
        sum_columns_rgb(row, row_start, across, out);
    } else {
        sum_columns_gray(row, row_start, across, out);
    }
}

/// Three channels: two pixels lie in one half of a register as r0 r1 g0 g1 b0 b1, so one multiply-add makes all channels.
#[target_feature(enable = "avx2")]
fn sum_columns_rgb(row: &[i16], row_start: usize, across: &Taps, out: &mut [i32]) {
    let width = out.len() / 3;
    let (red, rest) = out.split_at_mut(width);
    let (green, blue) = rest.split_at_mut(width);
    let whole = width / 4 * 4;
    for index in (0..whole).step_by(4) {
        // Written out: inside `array::map` the closure would be a call with its registers spilled.
        let pixels = [
            sum_pixel_rgb(row, row_start, across, index),
            sum_pixel_rgb(row, row_start, across, index + 1),
            sum_pixel_rgb(row, row_start, across, index + 2),
            sum_pixel_rgb(row, row_start, across, index + 3),
        ];
        // Four pixels of (red, green, blue, 0) become three vectors of four pixels.
        let (rg_01, rg_23) = (_mm_unpacklo_epi32(pixels[0], pixels[1]), _mm_unpacklo_epi32(pixels[2], pixels[3]));
        let (b_01, b_23) = (_mm_unpackhi_epi32(pixels[0], pixels[1]), _mm_unpackhi_epi32(pixels[2], pixels[3]));
        store_four(_mm_unpacklo_epi64(rg_01, rg_23), &mut red[index..index + 4]);
        store_four(_mm_unpackhi_epi64(rg_01, rg_23), &mut green[index..index + 4]);
        store_four(_mm_unpacklo_epi64(b_01, b_23), &mut blue[index..index + 4]);
    }
    for index in whole..width {
        red[index] = scalar::sum_columns_at(row, row_start, 3, across, index, 0);
        green[index] = scalar::sum_columns_at(row, row_start, 3, across, index, 1);
        blue[index] = scalar::sum_columns_at(row, row_start, 3, across, index, 2);
    }
}

/// Red, green and blue of one output pixel; the fourth element is 0.
#[target_feature(enable = "avx2")]
#[inline]
fn sum_pixel_rgb(row: &[i16], row_start: usize, across: &Taps, index: usize) -> __m128i {
    // r0 g0 b0 r1 g1 b1 .. ..  ->  r0 r1 g0 g1 b0 b1 0 0, in each half.
    const Z: i8 = -1;
    let order = _mm256_setr_epi8(
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, Z, Z, Z, Z, 0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, Z, Z, Z, Z,
    );
    let spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    let (first, weights) = across.groups_of(index);
    let mut sum = _mm256_setzero_si256();
    if weights.is_empty() {
        return _mm256_castsi256_si128(sum);
    }
    let samples = &row[(first - row_start) * 3..];
    // Each group of 4 taps is 12 samples and reads 14; `ROW_SLACK` covers the filled-up taps and the two more.
    assert!(samples.len() >= weights.len() * 3 + 2);
    for group in 0..weights.len() / 4 {
        // SAFETY: group * 12 + 14 <= samples.len() and group * 4 + 4 <= weights.len(), by the assertion and the loop's
        // bound; the loads are unaligned.
        let (pixels, weight) = unsafe {
            let at = samples.as_ptr().add(group * 12);
            let low = _mm_loadu_si128(at.cast());
            let high = _mm_loadu_si128(at.add(6).cast());
            let weight = _mm_loadl_epi64(weights.as_ptr().add(group * 4).cast());
            (_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high), weight)
        };
        let weight = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(weight), spread);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, order), weight));
    }
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}

/// One channel: four taps at once.
#[target_feature(enable = "avx2")]
fn sum_columns_gray(row: &[i16], row_start: usize, across: &Taps, out: &mut [i32]) {
    for (index, out) in out.iter_mut().enumerate() {
        let (first, weights) = across.groups_of(index);
        let mut sum = _mm_setzero_si128();
        if !weights.is_empty() {
            let samples = &row[first - row_start..];
            assert!(samples.len() >= weights.len());
            for group in 0..weights.len() / 4 {
                // SAFETY: group * 4 + 4 <= weights.len() <= samples.len(); the loads are of 8 bytes and unaligned.
                let (taps, weight) = unsafe {
                    let taps = _mm_loadl_epi64(samples.as_ptr().add(group * 4).cast());
                    (taps, _mm_loadl_epi64(weights.as_ptr().add(group * 4).cast()))
                };
                sum = _mm_add_epi32(sum, _mm_madd_epi16(taps, weight));
            }
        }
        // Two sums stand in the low half; the high half is 0.
        *out = _mm_extract_epi32::<0>(sum) + _mm_extract_epi32::<1>(sum);
    }
}

/// Four integers into a slice of four.
#[target_feature(enable = "avx2")]
#[inline]
fn store_four(value: __m128i, out: &mut [i32]) {
    assert_eq!(out.len(), 4);
    // SAFETY: an unaligned store of the 16 bytes that the slice holds, asserted above.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), value) }
}

/// As [`scalar::normalise`]: the same code, which the compiler makes into vectors here.
#[target_feature(enable = "avx2")]
pub(super) fn normalise(sums: &[i32], scale: f32, bias: f32, out: &mut [f32]) {
    scalar::normalise(sums, scale, bias, out);
}
