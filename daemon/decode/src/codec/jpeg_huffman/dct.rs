//! Sequential DCT scans of 8 to 12 bits. Standard: T.81 sections A.3, F.2.
//!
//! The inverse transform is done in f32, so a sample may differ by one from a decoder that works in integers, as the
//! standard allows.

use super::bits::Bits;
use super::{Frame, Scan, Tables, failed};
use crate::DecodeError;

/// Position in the block of each coefficient in the order in which they come.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Decodes one scan into the planes of its components.
pub(super) fn decode_scan(
    frame: &mut Frame,
    scan: &Scan,
    tables: &Tables,
    bits: &mut Bits<'_>,
) -> Result<(), DecodeError> {
    let (across, down, is_single) = scan.groups(frame, 8);
    let cosines = cosines();
    let mut predictions = vec![0_i32; scan.parts.len()];
    for group in 0..across * down {
        if tables.restart_interval > 0 && group > 0 && group.is_multiple_of(tables.restart_interval) {
            bits.restart()?;
            predictions.fill(0);
        }
        for (part, prediction) in scan.parts.iter().zip(&mut predictions) {
            let component = &mut frame.components[part.component];
            let table = tables.quantisation.get(component.quantisation).and_then(Option::as_ref);
            let table = table.ok_or_else(|| failed("a quantisation table is missing"))?;
            let (wide, high) = if is_single { (1, 1) } else { (component.across, component.down) };
            for step in 0..wide * high {
                let mut block = [0.0_f32; 64];
                read_block(bits, tables, (part.dc, part.ac), table, prediction, &mut block)?;
                let column = (group % across) * wide + step % wide;
                let row = (group / across) * high + step / wide;
                let corner = row * 8 * component.stride + column * 8;
                write_block(&block, &cosines, frame.bits, &mut component.samples[corner..], component.stride);
            }
        }
    }
    for part in &scan.parts {
        frame.components[part.component].is_decoded = true;
    }
    Ok(())
}

/// Reads one block's coefficients, already multiplied by their quantisation.
fn read_block(
    bits: &mut Bits<'_>,
    tables: &Tables,
    (dc, ac): (usize, usize),
    quantisation: &[u16; 64],
    prediction: &mut i32,
    block: &mut [f32; 64],
) -> Result<(), DecodeError> {
    let length = bits.value(tables.dc(dc)?)?;
    if length > 15 {
        return Err(failed("a difference of more than 15 bits"));
    }
    // A damaged stream may add up without end; the range of the format is far smaller.
    *prediction = (*prediction + bits.difference(length.into())?).clamp(-65_536, 65_535);
    block[0] = *prediction as f32 * f32::from(quantisation[0]);
    let table = tables.ac(ac)?;
    let mut index = 1;
    while index < 64 {
        let code = bits.value(table)?;
        let (zeros, length) = (usize::from(code >> 4), u32::from(code & 15));
        if length == 0 {
            if zeros != 15 {
                break;
            }
            index += 16;
            continue;
        }
        index += zeros;
        let place = *ZIGZAG.get(index).ok_or_else(|| failed("a coefficient beyond the block"))?;
        block[usize::from(place)] = bits.difference(length)? as f32 * f32::from(quantisation[index]);
        index += 1;
    }
    Ok(())
}

/// `cosines[x][u]` of the one-dimensional inverse transform, with its factors.
fn cosines() -> [[f32; 8]; 8] {
    let mut table = [[0.0; 8]; 8];
    for (x, row) in (0_u8..).zip(&mut table) {
        for (u, entry) in (0_u8..).zip(row) {
            let factor = if u == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
            let angle = f64::from(2 * x + 1) * f64::from(u) * std::f64::consts::PI / 16.0;
            *entry = (factor * angle.cos() / 2.0) as f32;
        }
    }
    table
}

/// Inverse transform, level shift, cut to the depth.
fn write_block(block: &[f32; 64], cosines: &[[f32; 8]; 8], bits: u8, out: &mut [u16], stride: usize) {
    let mut half = [0.0_f32; 64];
    for v in 0..8 {
        for x in 0..8 {
            half[v * 8 + x] = (0..8).map(|u| cosines[x][u] * block[v * 8 + u]).sum();
        }
    }
    let (centre, full_scale) = (f32::from(1_u16 << (bits - 1)), f32::from(((1_u32 << bits) - 1) as u16));
    for y in 0..8 {
        for x in 0..8 {
            let value: f32 = (0..8).map(|v| cosines[y][v] * half[v * 8 + x]).sum();
            // Cut to the depth, so it fits.
            out[y * stride + x] = (value + centre).round().clamp(0.0, full_scale) as u16;
        }
    }
}
