//! The audit's look into compressed frames, and at where the file ends.
//!
//! In: the copy. Out: leaks: a comment or application segment with anything in it, an identifier in any other segment,
//! bytes between or behind frames, bytes behind Pixel Data.
//! Reads the file again in small pieces; entropy-coded data is only scanned for markers.
//! Standard: DICOM PS3.5 section A.4; ITU-T T.81 annex B, T.800 annex A.

use super::identifiers::Identifiers;
use super::{AuditError, Opened, PIXEL_DATA};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

type Report<'a> = &'a mut dyn FnMut(&'static str);

fn io_error(source: io::Error) -> AuditError {
    // An end inside the element is the copy's fault; trying again would not help.
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return AuditError::Malformed { which: "copy", detail: "pixel data ends early" };
    }
    AuditError::Io { doing: "read the copy's pixel data", source }
}

fn malformed<T>(detail: &'static str) -> Result<T, AuditError> {
    Err(AuditError::Malformed { which: "copy", detail })
}

/// Checks the element Pixel Data and that nothing follows it.
pub fn check(
    mut copy: &File,
    opened: &Opened,
    identifiers: &Identifiers,
    leak: &mut impl FnMut(&[u32], &'static str),
) -> Result<(), AuditError> {
    let mut report = |what| leak(&[PIXEL_DATA], what);
    let at = opened.walked.pixels_at as u64;
    copy.seek(SeekFrom::Start(at)).map_err(io_error)?;
    let mut reader = BufReader::new(copy);
    let mut head = [0u8; 8];
    reader.read_exact(&mut head).map_err(io_error)?;
    if head[..4] != [0xE0, 0x7F, 0x10, 0x00] {
        return malformed("no pixel data");
    }
    let (length, value_at) = if opened.syntax == "1.2.840.10008.1.2" {
        (u32::from_le_bytes([head[4], head[5], head[6], head[7]]), at + 8)
    } else {
        let mut long = [0u8; 4];
        reader.read_exact(&mut long).map_err(io_error)?;
        (u32::from_le_bytes(long), at + 12)
    };
    if length != u32::MAX {
        if value_at + u64::from(length) != opened.file_bytes {
            report("bytes behind pixel data");
        }
        return Ok(());
    }
    let fragments = fragments(&mut reader, value_at, opened.file_bytes, &mut report)?;
    let mut stream = Stream { file: reader, fragments, left: 0 };
    match opened.syntax.as_str() {
        "1.2.840.10008.1.2.4.50"
        | "1.2.840.10008.1.2.4.51"
        | "1.2.840.10008.1.2.4.57"
        | "1.2.840.10008.1.2.4.70"
        | "1.2.840.10008.1.2.4.80"
        | "1.2.840.10008.1.2.4.81" => frames(&mut stream, 0xD8, identifiers, &mut report),
        syntax if syntax.starts_with("1.2.840.10008.1.2.4.9") || syntax.starts_with("1.2.840.10008.1.2.4.20") => {
            frames(&mut stream, 0x4F, identifiers, &mut report)
        }
        "1.2.840.10008.1.2.5" => Ok(()),
        _ => malformed("a compressed syntax that the audit cannot look into"),
    }
}

/// Where the fragments lie, without the offset table; checks that table and the end.
fn fragments(
    reader: &mut BufReader<&File>,
    mut at: u64,
    file_bytes: u64,
    report: Report<'_>,
) -> Result<VecDeque<(u64, u32)>, AuditError> {
    let mut list = VecDeque::new();
    let mut is_table = true;
    loop {
        let mut head = [0u8; 8];
        reader.read_exact(&mut head).map_err(io_error)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        at += 8;
        match head[..4] {
            [0xFE, 0xFF, 0xDD, 0xE0] => break,
            [0xFE, 0xFF, 0x00, 0xE0] if at + u64::from(length) <= file_bytes => {
                if is_table {
                    let mut table = vec![0u8; length as usize];
                    reader.read_exact(&mut table).map_err(io_error)?;
                    let offsets: Vec<u32> =
                        table.as_chunks::<4>().0.iter().map(|offset| u32::from_le_bytes(*offset)).collect();
                    let is_sound =
                        table.len().is_multiple_of(4) && offsets.is_sorted() && offsets.first().is_none_or(|o| *o == 0);
                    if !is_sound || offsets.last().is_some_and(|last| u64::from(*last) >= file_bytes) {
                        report("an offset table that holds something else");
                    }
                } else {
                    list.push_back((at, length));
                    reader.seek_relative(i64::from(length)).map_err(io_error)?;
                }
                at += u64::from(length);
                is_table = false;
            }
            _ => return malformed("fragments"),
        }
    }
    if at != file_bytes {
        report("bytes behind pixel data");
    }
    Ok(list)
}

/// The fragments' bytes as one stream.
struct Stream<'a> {
    file: BufReader<&'a File>,
    fragments: VecDeque<(u64, u32)>,
    left: u32,
}

impl Stream<'_> {
    fn next(&mut self) -> Result<Option<u8>, AuditError> {
        while self.left == 0 {
            let Some((at, length)) = self.fragments.pop_front() else { return Ok(None) };
            self.file.seek(SeekFrom::Start(at)).map_err(io_error)?;
            self.left = length;
        }
        let mut byte = [0u8];
        self.file.read_exact(&mut byte).map_err(io_error)?;
        self.left -= 1;
        Ok(Some(byte[0]))
    }

    fn must(&mut self) -> Result<u8, AuditError> {
        self.next()?.map_or_else(|| malformed("a frame ends early"), Ok)
    }
}

/// Walks all frames; `begin` is the code of the marker that a frame begins with (SOI or SOC).
fn frames(stream: &mut Stream<'_>, begin: u8, identifiers: &Identifiers, report: Report<'_>) -> Result<(), AuditError> {
    let mut last = 0u8;
    while let Some(byte) = stream.next()? {
        if last == 0xFF && byte == begin {
            frame(stream, begin == 0xD8, identifiers, report)?;
            last = 0;
            continue;
        }
        if !matches!(byte, 0 | 0xFF) {
            report("bytes between compressed frames");
            return Ok(());
        }
        last = byte;
    }
    Ok(())
}

/// From behind SOI or SOC through EOI or EOC (both are FFD9).
fn frame(
    stream: &mut Stream<'_>,
    is_jpeg: bool,
    identifiers: &Identifiers,
    report: Report<'_>,
) -> Result<(), AuditError> {
    let (mut tile_left, mut code) = (None::<i64>, marker(stream)?);
    loop {
        if code == 0xD9 {
            return Ok(());
        }
        if !is_jpeg && code == 0x93 {
            // Tile data of known length has bytes that look like markers: it is passed over by its length.
            let left = tile_left.take().unwrap_or(0);
            for _ in 0..left {
                stream.must()?;
            }
            code = if left > 0 { marker(stream)? } else { scan(stream, |code| code == 0xD9)? };
            continue;
        }
        let segment = segment(stream)?;
        let total = segment.len() as i64 + 4;
        if !is_jpeg && code == 0x90 {
            let length: [u8; 4] = segment.get(2..6).and_then(|b| b.try_into().ok()).unwrap_or_default();
            let length = i64::from(u32::from_be_bytes(length));
            // Less this segment and, when SOD comes, its own marker.
            tile_left = (length > 0).then_some(length - total - 2);
        } else if let Some(left) = &mut tile_left {
            *left -= total;
        }
        let is_comment = if is_jpeg { matches!(code, 0xE0..=0xEF | 0xFE) } else { code == 0x64 };
        if is_comment && !is_harmless(code, &segment) {
            report("a comment or application segment in a compressed frame");
        } else if !is_comment && identifiers.find_long(&segment).is_some() {
            report("an identifier of the original in a compressed frame");
        }
        code = if is_jpeg && code == 0xDA {
            // Behind FF: stuffing (up to 7F in JPEG-LS) and restarts are data.
            scan(stream, |code| code >= 0x80 && !(0xD0..=0xD7).contains(&code))?
        } else {
            marker(stream)?
        };
    }
}

fn marker(stream: &mut Stream<'_>) -> Result<u8, AuditError> {
    if stream.must()? != 0xFF {
        return malformed("no marker in a compressed frame");
    }
    loop {
        match stream.must()? {
            0xFF => {}
            code => return Ok(code),
        }
    }
}

fn segment(stream: &mut Stream<'_>) -> Result<Vec<u8>, AuditError> {
    let length = usize::from(u16::from_be_bytes([stream.must()?, stream.must()?]));
    let Some(length) = length.checked_sub(2) else { return malformed("a marker segment's length") };
    (0..length).map(|_| stream.must()).collect()
}

/// Passes over data up to a marker that `ends` it.
fn scan(stream: &mut Stream<'_>, ends: impl Fn(u8) -> bool) -> Result<u8, AuditError> {
    let mut last = 0u8;
    loop {
        let byte = stream.must()?;
        if last == 0xFF && byte != 0xFF && ends(byte) {
            return Ok(byte);
        }
        last = byte;
    }
}

/// Zeros, or one of the three constant forms that colour decoding needs.
fn is_harmless(code: u8, segment: &[u8]) -> bool {
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let behind = |form: &[u8], free: usize| {
        segment.strip_prefix(form).is_some_and(|rest| {
            let (free, rest) = rest.split_at(free.min(rest.len()));
            free.iter().all(|byte| *byte <= 5) && zeros(rest)
        })
    };
    // A form that broke off leaves the start of its constant name.
    let is_stub = |name: &[u8]| {
        let kept = segment.iter().zip(name).take_while(|(a, b)| a == b).count();
        kept < name.len() && zeros(&segment[kept..])
    };
    zeros(segment)
        || match code {
            0xE0 => behind(b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0", 0) || is_stub(b"JFIF\0"),
            0xE8 => behind(b"mrfx", 1) || is_stub(b"mrfx"),
            0xEE => behind(b"Adobe\0\x64\0\0\0\0", 1) || is_stub(b"Adobe"),
            _ => false,
        }
}
