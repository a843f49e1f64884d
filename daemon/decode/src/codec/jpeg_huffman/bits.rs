//! The bits of a scan and their Huffman codes. Standard: T.81 annexes C and F.2.2.

use super::failed;
use crate::DecodeError;

/// Codes up to this length are looked up at once.
const LOOKUP_BITS: u32 = 9;

/// A table that turns codes of up to 16 bits into values.
pub(super) struct Huffman {
    /// For each beginning of [`LOOKUP_BITS`] bits: length and value; length 0 where the code is longer.
    lookup: Vec<(u8, u8)>,
    /// For each length: one more than its greatest code, or 0.
    end: [u32; 17],
    /// For each length: what to add to a code to find its value.
    offset: [i32; 17],
    values: Vec<u8>,
}

impl Huffman {
    /// From the number of codes of each length, 1 to 16, and their values in order; none where they are no prefix code.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table =
            Self { lookup: vec![(0, 0); 1 << LOOKUP_BITS], end: [0; 17], offset: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(counts) {
            // At most 256 values and 17 bits, so both fit.
            table.offset[length as usize] = index as i32 - code as i32;
            for _ in 0..*count {
                if code >= 1 << length {
                    return None;
                }
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    let last = first + (1 << (LOOKUP_BITS - length));
                    table.lookup[first..last].fill((length as u8, *values.get(index)?));
                }
                code += 1;
                index += 1;
            }
            table.end[length as usize] = if *count > 0 { code } else { 0 };
            code <<= 1;
        }
        Some(table)
    }
}

/// Reads bits from entropy-coded bytes; stuffed zeros are taken out, a marker ends them.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    /// Bits that were not there and read as 0.
    borrowed: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0, borrowed: 0 }
    }

    /// Bytes before the marker at which the scan stopped, or before the one to look for.
    pub(super) fn consumed(&self) -> usize {
        self.at
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0x00)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    self.borrowed += 8;
                    0
                }
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    fn peek(&mut self, length: u32) -> u32 {
        if self.count < length {
            self.fill();
        }
        // At most 16 bits are asked for, so they fit.
        (self.held >> (self.count - length)) as u32 & ((1 << length) - 1)
    }

    fn skip(&mut self, length: u32) -> Result<(), DecodeError> {
        self.count -= length;
        if self.count < self.borrowed {
            return Err(failed("the scan ends too soon"));
        }
        Ok(())
    }

    /// The next `length` bits, at most 16.
    pub(super) fn take(&mut self, length: u32) -> Result<u32, DecodeError> {
        let value = self.peek(length);
        self.skip(length)?;
        Ok(value)
    }

    /// The value of the next code.
    pub(super) fn value(&mut self, table: &Huffman) -> Result<u8, DecodeError> {
        let (length, value) = table.lookup[self.peek(LOOKUP_BITS) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Ok(value);
        }
        for length in LOOKUP_BITS + 1..=16 {
            let code = self.peek(length);
            if code < table.end[length as usize] {
                // Codes of this length begin where the offset says, so the sum is from 0.
                let index = (code as i32 + table.offset[length as usize]) as usize;
                self.skip(length)?;
                return table.values.get(index).copied().ok_or_else(|| failed("a code that stands for nothing"));
            }
        }
        Err(failed("a code that stands for nothing"))
    }

    /// A signed difference of `length` bits, at most 16. Standard: T.81 section F.2.2.1.
    pub(super) fn difference(&mut self, length: u32) -> Result<i32, DecodeError> {
        if length == 0 {
            return Ok(0);
        }
        let value = self.take(length)? as i32;
        Ok(if value < 1 << (length - 1) { value - (1 << length) + 1 } else { value })
    }

    /// Goes behind the next restart marker, which must come now.
    pub(super) fn restart(&mut self) -> Result<(), DecodeError> {
        (self.held, self.count, self.borrowed) = (0, 0, 0);
        match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
            (Some(0xFF), Some(0xD0..=0xD7)) => {
                self.at += 2;
                Ok(())
            }
            _ => Err(failed("a restart marker is missing")),
        }
    }
}
