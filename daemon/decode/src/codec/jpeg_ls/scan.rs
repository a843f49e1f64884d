//! One scan of JPEG-LS: contexts, Golomb codes, runs. Names follow the standard where it names things.

use super::{Preset, failed};
use crate::DecodeError;

/// Run lengths by run index. Standard: T.87 code segment A.15 (`J`).
const RUN_BITS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Contexts of regular samples; two more stand behind them for the ends of runs.
const CONTEXTS: usize = 365;

/// How the components of a scan take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Interleave {
    Line,
    Sample,
}

/// The constants of a scan. Standard: T.87 sections A.2.1 and C.2.4.1.1.
pub(super) struct Coding {
    max_value: i32,
    near: i32,
    range: i32,
    /// `qbpp`: bits of a mapped error that is sent plainly.
    plain_bits: u32,
    /// `LIMIT`: longest code.
    limit: u32,
    thresholds: [i32; 3],
    reset: i32,
}

impl Coding {
    pub(super) fn new(bits: u8, near: i32, preset: &Preset) -> Option<Self> {
        let full_scale = (1 << bits) - 1;
        let max_value = if preset.max_value == 0 { full_scale } else { preset.max_value };
        if max_value > full_scale || max_value < 1 || near > max_value.min(510) / 2 {
            return None;
        }
        let defaults = default_thresholds(max_value, near);
        let pick = |index: usize| match preset.thresholds[index] {
            0 => defaults[index],
            given => given,
        };
        let thresholds = [pick(0), pick(1), pick(2)];
        let reset = if preset.reset == 0 { 64 } else { preset.reset };
        let ordered = near < thresholds[0] && thresholds.is_sorted() && thresholds[2] <= max_value;
        if !ordered || reset < 3 {
            return None;
        }
        let range = (max_value + 2 * near) / (2 * near + 1) + 1;
        let plain_bits = ceil_log2(range);
        let sample_bits = ceil_log2(max_value + 1).max(2);
        let limit = 2 * (sample_bits + sample_bits.max(8));
        Some(Self { max_value, near, range, plain_bits, limit, thresholds, reset })
    }

    /// Region of a gradient. Standard: T.87 code segment A.4.
    #[inline]
    fn quantise(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = gradient.abs();
        let region = if size <= self.near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        region * gradient.signum()
    }

    /// The sample that a prediction and an error make. Standard: T.87 section A.4.4, the decoder's side.
    #[inline]
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut value = prediction + error * step;
        if value < -self.near {
            value += self.range * step;
        } else if value > self.max_value + self.near {
            value -= self.range * step;
        }
        value.clamp(0, self.max_value)
    }
}

/// Smallest number of bits that count to `value`.
fn ceil_log2(value: i32) -> u32 {
    // `value` is from 1 to 65,536.
    (value as u32).next_power_of_two().trailing_zeros()
}

/// Standard: T.87 section C.2.4.1.1.1.
fn default_thresholds(max_value: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, least: i32| if value > max_value || value < least { least } else { value };
    let (t1, t2, t3);
    if max_value >= 128 {
        let factor = (max_value.min(4095) + 128) / 256;
        t1 = clamp(factor + 2 + 3 * near, near + 1);
        t2 = clamp(factor * 4 + 3 + 5 * near, t1);
        t3 = clamp(factor * 17 + 4 + 7 * near, t2);
    } else {
        let factor = 256 / (max_value + 1);
        t1 = clamp((3 / factor + 3 * near).max(2), near + 1);
        t2 = clamp((7 / factor + 5 * near).max(3), t1);
        t3 = clamp((21 / factor + 7 * near).max(4), t2);
    }
    [t1, t2, t3]
}

/// The statistics of one context (`A`, `B`, `C`, `N`); for the ends of runs `B` is `Nn`.
#[derive(Clone, Copy)]
struct Context {
    a: i32,
    b: i32,
    c: i32,
    n: i32,
}

impl Context {
    /// The Golomb parameter of a sum over `n` errors. Standard: T.87 code segment A.10.
    fn golomb(&self, sum: i32) -> u32 {
        let mut k = 0;
        while k < 24 && (self.n << k) < sum {
            k += 1;
        }
        k
    }

    /// Standard: T.87 code segments A.12 and A.13.
    fn update(&mut self, error: i32, coding: &Coding) {
        self.b += error * (2 * coding.near + 1);
        // Cannot saturate in a stream that an encoder wrote: at most 64 errors of 16 bits are summed.
        self.a = self.a.saturating_add(error.abs());
        if self.n == coding.reset {
            self.a >>= 1;
            self.b >>= 1;
            self.n >>= 1;
        }
        self.n += 1;
        if self.b <= -self.n {
            self.b = (self.b + self.n).max(1 - self.n);
            self.c = (self.c - 1).max(-128);
        } else if self.b > 0 {
            self.b = (self.b - self.n).min(0);
            self.c = (self.c + 1).min(127);
        }
    }
}

/// The bits of a scan: after a byte 0xFF one stuffed zero bit. Standard: T.87 section A.1.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    after_ff: bool,
}

impl Bits<'_> {
    /// Makes sure that 32 bits are there, as far as the scan has them.
    fn fill(&mut self) {
        while self.count <= 48 {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            if self.after_ff {
                if byte & 0x80 != 0 {
                    return; // a marker: the 0xFF before it was its first byte
                }
                self.held = self.held << 7 | u64::from(byte);
                self.count += 7;
            } else {
                if byte == 0xFF && self.bytes.get(self.at + 1).is_none_or(|next| next & 0x80 != 0) {
                    return;
                }
                self.held = self.held << 8 | u64::from(byte);
                self.count += 8;
            }
            self.after_ff = byte == 0xFF;
            self.at += 1;
        }
    }

    /// The next `length` bits, at most 32.
    fn take(&mut self, length: u32) -> Result<u32, DecodeError> {
        if self.count < length {
            self.fill();
            if self.count < length {
                return Err(failed("the scan ends too soon"));
            }
        }
        self.count -= length;
        // Masked to at most 32 bits, so it fits.
        Ok((self.held >> self.count & ((1 << length) - 1)) as u32)
    }

    /// Zeros before the next one, which is taken too; none above `most`.
    fn zeros(&mut self, most: u32) -> Result<u32, DecodeError> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > most {
                return Err(failed("a code that is too long"));
            }
        }
        Ok(zeros)
    }

    /// A mapped error. Standard: T.87 code segment A.11 and section A.5.3.
    fn golomb(&mut self, k: u32, limit: u32, plain_bits: u32) -> Result<i32, DecodeError> {
        let longest = limit.checked_sub(plain_bits + 1).ok_or_else(|| failed("parameters that contradict"))?;
        let zeros = self.zeros(longest)?;
        // Both are below 2^26, so they fit.
        if zeros < longest {
            Ok(((zeros << k.min(20)) + self.take(k)?) as i32)
        } else {
            Ok(self.take(plain_bits)? as i32 + 1)
        }
    }
}

/// A scan in work.
struct Scan<'a> {
    bits: Bits<'a>,
    coding: Coding,
    contexts: Vec<Context>,
}

/// Decodes the components `first..first + count` of `channels`; the number of bytes that were read.
pub(super) fn decode(
    bytes: &[u8],
    coding: Coding,
    interleave: Interleave,
    (width, height): (usize, usize),
    (first, count, channels): (usize, usize, usize),
    out: &mut [u16],
) -> Result<usize, DecodeError> {
    let start = Context { a: ((coding.range + 32) / 64).max(2), b: 0, c: 0, n: 1 };
    let bits = Bits { bytes, at: 0, held: 0, count: 0, after_ff: false };
    let mut scan = Scan { bits, coding, contexts: vec![start; CONTEXTS + 2] };
    // Each line has one sample before its first and one behind its last.
    let mut above = vec![vec![0_i32; width + 2]; count];
    let mut line = above.clone();
    let mut run_index = vec![0_usize; count];
    for y in 0..height {
        for (above, line) in above.iter_mut().zip(&mut line) {
            // Neighbours outside the picture. Standard: T.87 section A.2.1.
            line[0] = above[1];
            above[width + 1] = above[width];
        }
        match interleave {
            Interleave::Line => {
                for component in 0..count {
                    scan.line(
                        std::slice::from_ref(&above[component]),
                        std::slice::from_mut(&mut line[component]),
                        width,
                        &mut run_index[component],
                    )?;
                }
            }
            Interleave::Sample => scan.line(&above, &mut line, width, &mut run_index[0])?,
        }
        for (component, line) in line.iter().enumerate() {
            let row = &mut out[y * width * channels..(y + 1) * width * channels];
            for (out, sample) in row[first + component..].iter_mut().step_by(channels).zip(&line[1..=width]) {
                // Cut to the greatest value, at most 16 bits.
                *out = *sample as u16;
            }
        }
        std::mem::swap(&mut above, &mut line);
        // What was left of the first sample is the corner of the next line's first.
    }
    Ok(scan.bits.at)
}

impl Scan<'_> {
    /// One line of one component, or of all of them sample by sample.
    fn line(
        &mut self,
        above: &[Vec<i32>],
        line: &mut [Vec<i32>],
        width: usize,
        run_index: &mut usize,
    ) -> Result<(), DecodeError> {
        let mut x = 1;
        while x <= width {
            let is_run = above.iter().zip(line.iter()).all(|(above, line)| self.is_flat(above, line, x));
            if is_run {
                x = self.run(above, line, x, width, run_index)?;
            } else {
                for (above, line) in above.iter().zip(line.iter_mut()) {
                    line[x] = self.regular(line[x - 1], above[x], above[x - 1], above[x + 1])?;
                }
                x += 1;
            }
        }
        Ok(())
    }

    /// True where all three gradients vanish.
    #[inline]
    fn is_flat(&self, above: &[i32], line: &[i32], x: usize) -> bool {
        let (a, b, c, d) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
        [d - b, b - c, c - a].iter().all(|gradient| gradient.abs() <= self.coding.near)
    }

    /// A sample by its context. Standard: T.87 sections A.3 to A.6.
    fn regular(&mut self, a: i32, b: i32, c: i32, d: i32) -> Result<i32, DecodeError> {
        let coding = &self.coding;
        let regions = [d - b, b - c, c - a].map(|gradient| coding.quantise(gradient));
        let signed = (regions[0] * 9 + regions[1]) * 9 + regions[2];
        let sign = if signed < 0 { -1 } else { 1 };
        // From 0 to 364.
        let context = &mut self.contexts[signed.unsigned_abs() as usize];
        let edge = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let prediction = (edge + sign * context.c).clamp(0, coding.max_value);
        let k = context.golomb(context.a);
        let mapped = self.bits.golomb(k, coding.limit, coding.plain_bits)?;
        let mut error = if mapped & 1 == 0 { mapped / 2 } else { -(mapped + 1) / 2 };
        // Standard: T.87 code segment A.11, the inverted mapping.
        if k == 0 && coding.near == 0 && 2 * context.b <= -context.n {
            error = -(error + 1);
        }
        // A damaged code may give any error; the sums stay far inside an i32.
        if error.abs() > coding.range {
            return Err(failed("an error beyond the range"));
        }
        context.update(error, coding);
        Ok(coding.reconstruct(prediction, sign * error))
    }

    /// A run of equal samples and the sample that ends it. Standard: T.87 section A.7.
    fn run(
        &mut self,
        above: &[Vec<i32>],
        line: &mut [Vec<i32>],
        start: usize,
        width: usize,
        run_index: &mut usize,
    ) -> Result<usize, DecodeError> {
        let mut x = start;
        let mut is_cut = true;
        while self.bits.take(1)? == 1 {
            let whole = 1 << RUN_BITS[*run_index];
            let length = whole.min(width + 1 - x);
            x += length;
            if length == whole {
                *run_index = (*run_index + 1).min(31);
            }
            if x > width {
                is_cut = false;
                break;
            }
        }
        if is_cut {
            x += self.bits.take(RUN_BITS[*run_index])? as usize;
            if x > width {
                return Err(failed("a run beyond the line"));
            }
        }
        for line in line.iter_mut() {
            let value = line[start - 1];
            line[start..x].fill(value);
        }
        if !is_cut {
            return Ok(x);
        }
        let components = above.len();
        for (above, line) in above.iter().zip(line.iter_mut()) {
            // With several components the end of a run is always coded as of differing neighbours.
            let is_single = components == 1;
            line[x] = self.run_end(line[x - 1], above[x], RUN_BITS[*run_index], is_single)?;
        }
        *run_index = run_index.saturating_sub(1);
        Ok(x + 1)
    }

    /// The sample behind a run. Standard: T.87 section A.7.2.
    fn run_end(&mut self, a: i32, b: i32, run_bits: u32, is_single: bool) -> Result<i32, DecodeError> {
        let coding = &self.coding;
        let is_near = is_single && (a - b).abs() <= coding.near;
        let kind = i32::from(is_near);
        let context = &mut self.contexts[CONTEXTS + usize::from(is_near)];
        let sum = if is_near { context.a + (context.n >> 1) } else { context.a };
        let k = context.golomb(sum);
        let mapped = self.bits.golomb(k, coding.limit - run_bits - 1, coding.plain_bits)?;
        // Standard: T.87 code segments A.21 and A.22: the sign follows from the parity and the statistics.
        let doubled = mapped + kind;
        let map = doubled & 1;
        let size = (doubled + map) / 2;
        let is_negative = (k != 0 || 2 * context.b >= context.n) == (map == 1);
        let error = if is_negative { -size } else { size };
        if size > coding.range {
            return Err(failed("an error beyond the range"));
        }
        // Standard: T.87 code segment A.23.
        context.b += i32::from(error < 0);
        context.a = context.a.saturating_add((mapped + 1 - kind) >> 1);
        if context.n == coding.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        let (prediction, sign) = if is_near { (a, 1) } else { (b, if a > b { -1 } else { 1 }) };
        Ok(coding.reconstruct(prediction, sign * error))
    }
}
