//! Lossless scans: each sample is a difference from a prediction by its neighbours. Standard: T.81 annex H.

use super::bits::Bits;
use super::{Frame, Scan, Tables, failed};
use crate::DecodeError;

/// Decodes one scan into the planes of its components.
pub(super) fn decode_scan(
    frame: &mut Frame,
    scan: &Scan,
    tables: &Tables,
    bits: &mut Bits<'_>,
) -> Result<(), DecodeError> {
    if !(1..=7).contains(&scan.start) || scan.low >= frame.bits {
        return Err(failed("a predictor or a point transform that is none"));
    }
    let (across, down, is_single) = scan.groups(frame, 1);
    // Restarts are at the ends of rows only (T.81 section H.1.1).
    let interval = tables.restart_interval;
    if !interval.is_multiple_of(across.max(1)) {
        return Err(failed("a restart within a row"));
    }
    let first = 1_i32 << (frame.bits - scan.low - 1);
    let (mut row_of_restart, mut tables_of) = (0, Vec::new());
    for part in &scan.parts {
        tables_of.push(tables.dc(part.dc)?);
    }
    for row in 0..down {
        if interval > 0 && row > 0 && (row * across).is_multiple_of(interval) {
            bits.restart()?;
            row_of_restart = row;
        }
        for column in 0..across {
            for (part, table) in scan.parts.iter().zip(&tables_of) {
                let component = &mut frame.components[part.component];
                let (wide, high) = if is_single { (1, 1) } else { (component.across, component.down) };
                for line in 0..high {
                    for step in 0..wide {
                        let (x, y) = (column * wide + step, row * high + line);
                        let above_known = y > row_of_restart * high;
                        let at = y * component.stride + x;
                        let prediction =
                            predict(&component.samples, at, x, above_known, component.stride, scan.start, first);
                        let length = bits.value(table)?;
                        let difference = match length {
                            0..=15 => bits.difference(length.into())?,
                            16 => 32_768,
                            _ => return Err(failed("a difference of more than 16 bits")),
                        };
                        // Modulo 65,536, as the standard says.
                        component.samples[at] = (prediction + difference) as u16;
                    }
                }
            }
        }
    }
    for part in &scan.parts {
        let component = &mut frame.components[part.component];
        let mask = ((1_u32 << frame.bits) - 1) as u16;
        component.samples.iter_mut().for_each(|sample| *sample = (*sample << scan.low) & mask);
        component.is_decoded = true;
    }
    Ok(())
}

/// The prediction for the sample at `at` in column `x`. Standard: T.81 table H.1.
#[inline]
fn predict(samples: &[u16], at: usize, x: usize, above_known: bool, stride: usize, predictor: u8, first: i32) -> i32 {
    let value = |at: usize| i32::from(samples[at]);
    match (x > 0, above_known) {
        (false, false) => first,
        (true, false) => value(at - 1),
        (false, true) => value(at - stride),
        (true, true) => {
            let (left, above, corner) = (value(at - 1), value(at - stride), value(at - stride - 1));
            match predictor {
                1 => left,
                2 => above,
                3 => corner,
                4 => left + above - corner,
                5 => left + ((above - corner) >> 1),
                6 => above + ((left - corner) >> 1),
                _ => (left + above) >> 1,
            }
        }
    }
}
