//! Changes to bytes, as a broken or hostile peer makes them.
//!
//! In: good bytes and a seed. Out: bytes that are wrong somewhere. Promise: the same seed gives the same bytes.

/// Longest that a mutation makes its input: what is longer finds nothing more.
const BYTES_MAX: usize = 64 * 1024;
/// Most changes at once: past these nothing of the input is left to be understood.
const CHANGES_MAX: u64 = 6;
/// Lengths that are wrong in interesting ways, in the byte order of a PDU.
const EXTREMES: [u32; 8] = [0, 1, 2, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff];

/// A xorshift generator. Not for secrets.
pub struct Choices(u64);

impl Choices {
    /// From any seed.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        if end == 0 { 0 } else { (number % end as u64) as usize }
    }
}

/// `input` with one to six changes.
pub fn mutated(input: &[u8], seed: u64) -> Vec<u8> {
    let mut choices = Choices::new(seed);
    let mut bytes = input.to_vec();
    for _ in 0..1 + choices.below(CHANGES_MAX as usize) {
        change(&mut bytes, &mut choices);
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, choices: &mut Choices) {
    let length = bytes.len();
    let at = choices.below(length);
    let count = 1 + choices.below((length - at).min(64));
    match choices.below(8) {
        0 | 1 if length > 0 => bytes[at] ^= 1 << choices.below(8),
        2 if length > 0 => bytes[at] = choices.below(256) as u8,
        3 if at + 4 <= length => {
            let extreme = EXTREMES[choices.below(EXTREMES.len())];
            let order = if choices.below(2) == 0 { extreme.to_be_bytes() } else { extreme.to_le_bytes() };
            bytes[at..at + 4].copy_from_slice(&order);
        }
        4 if at + count <= length => drop(bytes.drain(at..at + count)),
        5 if at + count <= length => {
            let piece = bytes[at..at + count].to_vec();
            let to = choices.below(length + 1);
            bytes.splice(to..to, piece);
        }
        6 => bytes.truncate(at),
        _ => {
            let noise: Vec<u8> = (0..count).map(|_| choices.below(256) as u8).collect();
            bytes.splice(at..at, noise);
        }
    }
}
