//! The bytes of an object: a file, or what a deflated data set unfolds to. Read at positions; nobody's file offset moves.

use crate::DecodeError;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that a walk over headers reads at once.
const WINDOW: usize = 4096;

/// Where the bytes are.
pub(crate) enum Source {
    File { file: File, length: u64, window: RefCell<Window> },
    Memory(Vec<u8>),
}

/// The part of the file that was read last.
#[derive(Default)]
pub(crate) struct Window {
    at: u64,
    bytes: Vec<u8>,
}

impl Source {
    pub(crate) fn file(file: File) -> Result<Self, DecodeError> {
        let length =
            file.metadata().map_err(|source| DecodeError::Read { doing: "the size of the file", source })?.len();
        Ok(Self::File { file, length, window: RefCell::default() })
    }

    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `N` bytes from `at`, for walks: read through a small window.
    pub(crate) fn header<const N: usize>(&self, at: u64, what: &'static str) -> Result<[u8; N], DecodeError> {
        const { assert!(N <= WINDOW) };
        let end =
            at.checked_add(N as u64).filter(|end| *end <= self.length()).ok_or(DecodeError::Truncated { what })?;
        let mut out = [0; N];
        match self {
            // Checked above to lie inside.
            Self::Memory(bytes) => out.copy_from_slice(&bytes[at as usize..end as usize]),
            Self::File { file, length, window } => {
                let mut window = window.borrow_mut();
                if at < window.at || end > window.at + window.bytes.len() as u64 {
                    let wanted = (*length - at).min(WINDOW as u64) as usize;
                    window.bytes.resize(wanted, 0);
                    window.at = at;
                    if let Err(source) = file.read_exact_at(&mut window.bytes, at) {
                        window.bytes.clear();
                        return Err(read_error(what, source));
                    }
                }
                let start = (at - window.at) as usize;
                out.copy_from_slice(&window.bytes[start..start + N]);
            }
        }
        Ok(out)
    }

    /// Appends `length` bytes from `at` to `out`. Allocates only after the bytes are known to be there.
    pub(crate) fn append(
        &self,
        at: u64,
        length: u64,
        out: &mut Vec<u8>,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        let end = at.checked_add(length).filter(|end| *end <= self.length()).ok_or(DecodeError::Truncated { what })?;
        match self {
            Self::Memory(bytes) => out.extend_from_slice(&bytes[at as usize..end as usize]),
            Self::File { file, .. } => {
                let start = out.len();
                // The length is at most that of the file.
                out.resize(start + length as usize, 0);
                file.read_exact_at(&mut out[start..], at).map_err(|source| read_error(what, source))?;
            }
        }
        Ok(())
    }
}

fn read_error(doing: &'static str, source: io::Error) -> DecodeError {
    // The file was longer a moment ago.
    if source.kind() == io::ErrorKind::UnexpectedEof {
        DecodeError::Truncated { what: doing }
    } else {
        DecodeError::Read { doing, source }
    }
}

/// Reads a [`Source`] from a position on, for stream decoders.
pub(crate) struct SourceReader<'a> {
    pub(crate) source: &'a Source,
    pub(crate) at: u64,
}

impl io::Read for SourceReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = match self.source {
            Source::File { file, .. } => file.read_at(out, self.at)?,
            Source::Memory(bytes) => {
                let rest = bytes.get(self.at as usize..).unwrap_or_default();
                let count = rest.len().min(out.len());
                out[..count].copy_from_slice(&rest[..count]);
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
