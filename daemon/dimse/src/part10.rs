//! The head of a Part 10 file: preamble and file meta information.
//!
//! In: a file, or what is known of an object. Out: where its data set begins and what it is; or the head's bytes.
//! Promise: reads at most 64 elements and no value longer than 64 bytes; whatever a file announces is skipped, not held.
//! Standard: PS3.10 section 7.1.

use crate::pdu::{implementation_class_uid, implementation_version_name};
use fovea_core::{AeTitle, Uid};
use std::io::{self, Read, Seek, SeekFrom};

/// No file meta information has more elements than these (PS3.10 table 7.1-1 has 17).
const ELEMENTS_MAX: usize = 64;
/// Values with a 32-bit length in Explicit VR (PS3.5 section 7.1.2).
pub(crate) const LONG_VRS: [&[u8; 2]; 13] =
    [b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// What the head of a Part 10 file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part10Head {
    /// (0002,0002).
    pub sop_class_uid: Uid,
    /// (0002,0003).
    pub sop_instance_uid: Uid,
    /// (0002,0010).
    pub transfer_syntax_uid: Uid,
    /// (0002,0016), who sent it; none where it is not there or no AE title.
    pub source_ae: Option<AeTitle>,
    /// Byte position of the data set.
    pub data_set_offset: u64,
}

/// Why a file has no usable head.
#[derive(Debug, thiserror::Error)]
pub enum Part10Error {
    /// Reading failed.
    #[error("reading the head of a Part 10 file")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// `DICM` is not at byte 128.
    #[error("not a DICOM Part 10 file")]
    NotPart10,
    /// The file meta information cannot be read.
    #[error("the file meta information is damaged")]
    Damaged,
    /// Class, instance or transfer syntax is not there or no UID.
    #[error("the file meta information lacks element (0002,{element:04X})")]
    Missing {
        /// The element.
        element: u16,
    },
}

/// Reads the head from the start of `file`, and leaves the position at the data set.
///
/// # Errors
/// [`Part10Error`].
pub fn part10_head<R: Read + Seek>(file: &mut R) -> Result<Part10Head, Part10Error> {
    let read = |source| Part10Error::Read { source };
    file.seek(SeekFrom::Start(128)).map_err(read)?;
    let mut magic = [0; 4];
    fill(file, &mut magic, Part10Error::NotPart10)?;
    if &magic != b"DICM" {
        return Err(Part10Error::NotPart10);
    }
    let mut position = 132u64;
    let (mut class, mut instance, mut syntax, mut source_ae) = (None, None, None, None);
    for _ in 0..ELEMENTS_MAX {
        let mut header = [0; 8];
        if read_up_to(file, &mut header).map_err(read)? < 8 || header[..2] != [2, 0] {
            break;
        }
        let mut length = u64::from(u16::from_le_bytes([header[6], header[7]]));
        position += 8;
        if LONG_VRS.iter().any(|vr| vr[..] == header[4..6]) {
            let mut long = [0; 4];
            fill(file, &mut long, Part10Error::Damaged)?;
            length = u64::from(u32::from_le_bytes(long));
            position += 4;
        } else if !header[4..6].iter().all(u8::is_ascii_uppercase) {
            return Err(Part10Error::Damaged);
        }
        position += length;
        match u16::from_le_bytes([header[2], header[3]]) {
            0x0002 => class = Some(uid(file, length)?),
            0x0003 => instance = Some(uid(file, length)?),
            0x0010 => syntax = Some(uid(file, length)?),
            0x0016 => source_ae = ae_title(file, length)?,
            _ => {}
        }
        file.seek(SeekFrom::Start(position)).map_err(read)?;
    }
    file.seek(SeekFrom::Start(position)).map_err(read)?;
    let missing = |element| Part10Error::Missing { element };
    Ok(Part10Head {
        sop_class_uid: class.ok_or(missing(0x0002))?,
        sop_instance_uid: instance.ok_or(missing(0x0003))?,
        transfer_syntax_uid: syntax.ok_or(missing(0x0010))?,
        source_ae,
        data_set_offset: position,
    })
}

fn uid<R: Read>(file: &mut R, length: u64) -> Result<Uid, Part10Error> {
    let mut value = [0; 66];
    let value = value.get_mut(..usize::try_from(length).unwrap_or(usize::MAX)).ok_or(Part10Error::Damaged)?;
    fill(file, value, Part10Error::Damaged)?;
    let text = std::str::from_utf8(value).map_err(|_| Part10Error::Damaged)?;
    Uid::new(text).map_err(|_| Part10Error::Damaged)
}

/// None for what is no AE title: files that others wrote are read all the same.
fn ae_title<R: Read>(file: &mut R, length: u64) -> Result<Option<AeTitle>, Part10Error> {
    let mut value = [0; 16];
    let Some(value) = value.get_mut(..usize::try_from(length).unwrap_or(usize::MAX)) else { return Ok(None) };
    fill(file, value, Part10Error::Damaged)?;
    Ok(std::str::from_utf8(value).ok().and_then(|text| AeTitle::new(text).ok()))
}

fn read_up_to<R: Read>(file: &mut R, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn fill<R: Read>(file: &mut R, out: &mut [u8], short: Part10Error) -> Result<(), Part10Error> {
    let filled = read_up_to(file, out).map_err(|source| Part10Error::Read { source })?;
    if filled == out.len() { Ok(()) } else { Err(short) }
}

/// Preamble (zeros) and file meta information of an object that we write; its data set follows at once.
/// `source_ae` becomes (0002,0016), who sent it.
#[must_use]
pub fn part10_prefix(
    sop_class: &Uid,
    sop_instance: &Uid,
    transfer_syntax: &Uid,
    source_ae: Option<&AeTitle>,
) -> Vec<u8> {
    let mut meta = Vec::with_capacity(512);
    meta.extend_from_slice(&[2, 0, 1, 0, b'O', b'B', 0, 0, 2, 0, 0, 0, 0, 1]);
    short_element(&mut meta, 0x0002, b"UI", sop_class.as_str());
    short_element(&mut meta, 0x0003, b"UI", sop_instance.as_str());
    short_element(&mut meta, 0x0010, b"UI", transfer_syntax.as_str());
    short_element(&mut meta, 0x0012, b"UI", implementation_class_uid().as_str());
    short_element(&mut meta, 0x0013, b"SH", implementation_version_name());
    if let Some(ae) = source_ae {
        short_element(&mut meta, 0x0016, b"AE", ae.as_str());
    }
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    out.extend_from_slice(&[2, 0, 0, 0, b'U', b'L', 4, 0]);
    out.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    out.extend_from_slice(&meta);
    out
}

/// Every value here is at most 64 characters.
fn short_element(out: &mut Vec<u8>, element: u16, vr: &[u8; 2], value: &str) {
    let padded = value.len() + value.len() % 2;
    out.extend_from_slice(&[2, 0]);
    out.extend_from_slice(&element.to_le_bytes());
    out.extend_from_slice(vr);
    out.extend_from_slice(&(padded as u16).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
    if value.len() % 2 == 1 {
        out.push(if vr == b"UI" { 0 } else { b' ' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn prefix() -> Vec<u8> {
        let uid = |text| Uid::new(text).unwrap();
        let ae = AeTitle::new("SCOPE").unwrap();
        part10_prefix(&uid("1.2.840.10008.5.1.4.1.1.7"), &uid("1.2.3"), &uid("1.2.840.10008.1.2.1"), Some(&ae))
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = prefix();
        let offset = file.len() as u64;
        file.extend_from_slice(&[8, 0, 5, 0, b'C', b'S', 0, 0]);
        let mut file = Cursor::new(file);
        let head = part10_head(&mut file).unwrap();
        assert_eq!(head.sop_instance_uid.as_str(), "1.2.3");
        assert_eq!(head.transfer_syntax_uid.as_str(), "1.2.840.10008.1.2.1");
        assert_eq!(head.source_ae, AeTitle::new("SCOPE").ok());
        assert_eq!((head.data_set_offset, file.position()), (offset, offset));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(part10_head(&mut Cursor::new(b"no".to_vec())), Err(Part10Error::NotPart10)));
        assert!(matches!(part10_head(&mut Cursor::new(vec![7; 500])), Err(Part10Error::NotPart10)));
        let missing = part10_head(&mut Cursor::new([vec![0; 128], b"DICM".to_vec()].concat()));
        assert!(matches!(missing, Err(Part10Error::Missing { element: 2 })));
    }

    proptest! {
        #[test]
        fn inv_08_mutated_heads_never_panic(at in 0usize..300, value in any::<u8>(), cut in 0usize..400) {
            let mut file = prefix();
            let length = file.len();
            file[at % length] = value;
            file.truncate(cut);
            let _any = part10_head(&mut Cursor::new(file));
        }
    }
}
