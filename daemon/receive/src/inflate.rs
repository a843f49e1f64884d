//! Deflated data sets, inflated piece by piece.
//!
//! In: raw deflate (RFC 1951) in pieces. Out: the plain bytes in pieces of at most 64 KiB, never all at once.
//! Promise: stops at a bound on the plain length, so that a small object cannot keep us busy for ever.
//! Standard: PS3.5 section A.5.

use flate2::{Decompress, FlushDecompress, Status};

/// Why a deflated data set cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not a deflate stream.
    #[error("the deflated data set is damaged")]
    Damaged,
    /// Longer than we unfold.
    #[error("the deflated data set unfolds to more than {plain_bytes_max} bytes")]
    TooLong {
        /// Our limit.
        plain_bytes_max: u64,
    },
}

/// An unfolding data set.
pub(crate) struct Inflater {
    state: Decompress,
    plain: Box<[u8]>,
    plain_bytes_max: u64,
    ended: bool,
}

impl Inflater {
    pub(crate) fn new(plain_bytes_max: u64) -> Self {
        let plain = vec![0; 64 * 1024].into_boxed_slice();
        Self { state: Decompress::new(false), plain, plain_bytes_max, ended: false }
    }

    /// Unfolds `bytes` and hands each plain piece to `sink`.
    pub(crate) fn push<E: From<InflateError>>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.ended {
                // One NUL may pad the stream to an even length.
                let padding_only = bytes.iter().all(|byte| *byte == 0) && bytes.len() <= 1;
                return if padding_only { Ok(()) } else { Err(InflateError::Damaged.into()) };
            }
            let (in_before, out_before) = (self.state.total_in(), self.state.total_out());
            let step = self.state.decompress(bytes, &mut self.plain, FlushDecompress::None);
            let step = step.map_err(|_| InflateError::Damaged)?;
            bytes = &bytes[(self.state.total_in() - in_before) as usize..];
            let produced = (self.state.total_out() - out_before) as usize;
            if self.state.total_out() > self.plain_bytes_max {
                return Err(InflateError::TooLong { plain_bytes_max: self.plain_bytes_max }.into());
            }
            sink(&self.plain[..produced])?;
            self.ended = step == Status::StreamEnd;
            // A full output buffer may hide more plain bytes even when no input is left.
            if !self.ended && bytes.is_empty() && produced < self.plain.len() {
                return Ok(());
            }
            if !self.ended && step == Status::BufError && produced == 0 {
                return Err(InflateError::Damaged.into());
            }
        }
    }

    /// The stream came to its end.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn any_split_of_the_stream_gives_the_plain_bytes() {
        let plain: Vec<u8> = (0..300_000u32).map(|i| (i / 7 % 251) as u8).collect();
        let packed = [deflate(&plain), vec![0]].concat();
        for piece in [1, 7, 1000, packed.len()] {
            let (mut inflater, mut out) = (Inflater::new(1 << 20), Vec::new());
            for bytes in packed.chunks(piece) {
                let pushed: Result<(), InflateError> = inflater.push(bytes, |plain| {
                    out.extend_from_slice(plain);
                    Ok(())
                });
                pushed.unwrap();
            }
            assert!(inflater.ended() && out == plain, "piece={piece}");
        }
    }

    #[test]
    fn inv_08_a_bomb_is_stopped_at_the_bound() {
        let bomb = deflate(&vec![0; 50 << 20]);
        let pushed: Result<(), InflateError> = Inflater::new(1 << 20).push(&bomb, |_| Ok(()));
        assert_eq!(pushed, Err(InflateError::TooLong { plain_bytes_max: 1 << 20 }));
    }

    #[test]
    fn garbage_and_trailing_bytes_are_refused() {
        let garbage: Result<(), InflateError> = Inflater::new(1 << 20).push(&[0xff; 64], |_| Ok(()));
        assert_eq!(garbage, Err(InflateError::Damaged));
        let trailing = [deflate(b"plain"), b"more".to_vec()].concat();
        let trailing: Result<(), InflateError> = Inflater::new(1 << 20).push(&trailing, |_| Ok(()));
        assert_eq!(trailing, Err(InflateError::Damaged));
    }
}
