//! Where a stored file's data set begins, and the digest of it: what tells held bytes from damaged ones.
//!
//! In: a Part 10 file. Out: the SHA-256 of its data set, as receive took it from the wire.
//! Promise: memory does not grow with the file. Standard: PS3.10 section 7.1: 128 bytes, `DICM`, then group 2 in explicit little endian,
//! whose first element says how long the rest of the group is.

use fovea_core::Sha256;
use sha2::Digest;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Preamble, prefix, and the element (0002,0000) UL with its four bytes.
const FIRST_BYTES: usize = 128 + 4 + 12;
const PIECE_BYTES: usize = 1 << 20;

/// Place of the data set's first byte; 0 for a file without the Part 10 prefix, which is a data set alone.
fn data_set_offset(file: &File) -> io::Result<u64> {
    let mut head = [0; FIRST_BYTES];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    if head[128..140] != *b"DICM\x02\x00\x00\x00UL\x04\x00" {
        return Ok(0);
    }
    let group = u32::from_le_bytes([head[140], head[141], head[142], head[143]]);
    Ok(FIRST_BYTES as u64 + u64::from(group))
}

/// SHA-256 of the data set in `file`; its position is then at the end.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn data_set_sha256(file: &mut File) -> io::Result<Sha256> {
    let offset = data_set_offset(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut hasher = sha2::Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Sha256(hasher.finalize().into())),
            read => hasher.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_data_set_and_not_of_what_stands_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM\x02\x00\x00\x00UL\x04\x00\x09\x00\x00\x00some meta");
        bytes.extend(b"the data set");
        for (bytes, expected) in [(bytes.as_slice(), &b"the data set"[..]), (b"no prefix", b"no prefix"), (b"", b"")] {
            std::fs::write(&path, bytes).unwrap();
            let mut file = File::open(&path).unwrap();
            assert_eq!(data_set_sha256(&mut file).unwrap(), Sha256::of(expected));
        }
    }
}
