//! Reads the markers of a JPEG without decoding it, and leaves out what is not picture.
//!
//! In: a whole JPEG file. Out: its geometry and the same picture without APP1 to APP13, APP15 and comments (EXIF with
//! place and owner, XMP, maker notes, thumbnails) and without anything behind its end.
//! Promise: reads each byte at most once and never outside the file; what it lets through is one baseline picture
//! whose segments are whole.
//! Standard: ISO/IEC 10918-1 annex B; APP0 as in ISO/IEC 10918-5, APP14 as in ITU-T T.872.

/// A baseline JPEG, ready to be put into a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BaselineJpeg {
    /// Columns, at least 1.
    pub(super) width_px: u16,
    /// Rows, at least 1.
    pub(super) height_px: u16,
    pub(super) colour: Colour,
    /// The picture, from SOI to EOI.
    pub(super) bytes: Vec<u8>,
}

/// How samples are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colour {
    Gray,
    Rgb,
    Ybr,
}

/// What a file that begins as a JPEG is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Jpeg {
    /// Goes into the object as it is.
    Baseline(BaselineJpeg),
    /// Progressive, 12 bits, four components or the like: has to be decoded.
    Other,
}

/// Why a file is no whole JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// It ends too early.
    #[error("the JPEG is cut")]
    Truncated,
    /// A marker or segment that may not stand there.
    #[error("the JPEG is damaged")]
    Damaged,
}

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// What the segments so far said.
#[derive(Default)]
struct Seen {
    frame: Option<Frame>,
    has_jfif: bool,
    adobe_transform: Option<u8>,
    scans: u32,
}

struct Frame {
    width_px: u16,
    height_px: u16,
    /// Component id and sampling factors.
    components: Vec<(u8, u8)>,
}

/// Walks `file`, which must begin with SOI.
///
/// # Errors
/// [`JpegError`].
pub(super) fn walk(file: &[u8]) -> Result<Jpeg, JpegError> {
    if file.get(..2) != Some(&[0xFF, SOI]) {
        return Err(JpegError::Damaged);
    }
    let mut bytes = Vec::with_capacity(file.len());
    bytes.extend_from_slice(&file[..2]);
    let (mut seen, mut position) = (Seen::default(), 2);
    loop {
        let (marker, body_at) = next_marker(file, position)?;
        if marker == EOI {
            bytes.extend_from_slice(&[0xFF, EOI]);
            return finish(seen, bytes);
        }
        let length = file.get(body_at..body_at + 2).ok_or(JpegError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = file.get(body_at..body_at + length).ok_or(JpegError::Truncated)?;
        let body = segment.get(2..).ok_or(JpegError::Damaged)?;
        match marker {
            0xC0 if seen.frame.is_none() => match frame(body)? {
                Some(frame) => seen.frame = Some(frame),
                None => return Ok(Jpeg::Other),
            },
            0xC0 => return Err(JpegError::Damaged),
            // Other frame types, arithmetic coding, hierarchical pictures, a height that comes after the first scan.
            0xC1..=0xC3 | 0xC5..=0xC7 | 0xC8..=0xCF | 0xDC | 0xDE | 0xDF => return Ok(Jpeg::Other),
            0xE0 => seen.has_jfif |= body.starts_with(b"JFIF\0"),
            0xEE if body.starts_with(b"Adobe") && body.len() >= 12 => seen.adobe_transform = Some(body[11]),
            0xC4 | 0xDB | 0xDD | SOS | 0xE1..=0xEF | 0xFE => {}
            _ => return Err(JpegError::Damaged),
        }
        position = body_at + length;
        if !matches!(marker, 0xE1..=0xED | 0xEF | 0xFE) {
            bytes.extend_from_slice(&[0xFF, marker]);
            bytes.extend_from_slice(segment);
        }
        if marker == SOS {
            if seen.frame.is_none() {
                return Err(JpegError::Damaged);
            }
            seen.scans += 1;
            let end = scan_end(file, position)?;
            bytes.extend_from_slice(&file[position..end]);
            position = end;
        }
    }
}

/// The marker at `position`, behind any fill bytes, and where its segment begins.
fn next_marker(file: &[u8], mut position: usize) -> Result<(u8, usize), JpegError> {
    if *file.get(position).ok_or(JpegError::Truncated)? != 0xFF {
        return Err(JpegError::Damaged);
    }
    loop {
        position += 1;
        match *file.get(position).ok_or(JpegError::Truncated)? {
            0xFF => {}
            0x00 | 0x01 | 0xD0..=SOI => return Err(JpegError::Damaged),
            marker => return Ok((marker, position + 1)),
        }
    }
}

/// Where the entropy-coded bytes from `position` end: at the next marker that is no restart.
fn scan_end(file: &[u8], mut position: usize) -> Result<usize, JpegError> {
    loop {
        let rest = file.get(position..).ok_or(JpegError::Truncated)?;
        position += rest.iter().position(|byte| *byte == 0xFF).ok_or(JpegError::Truncated)?;
        match *file.get(position + 1).ok_or(JpegError::Truncated)? {
            0x00 | 0xD0..=0xD7 => position += 2,
            0xFF => position += 1,
            _ => return Ok(position),
        }
    }
}

/// Reads a baseline frame header (table B.2); none where the picture has to be decoded by others.
fn frame(body: &[u8]) -> Result<Option<Frame>, JpegError> {
    let (head, rest) = body.split_first_chunk::<6>().ok_or(JpegError::Damaged)?;
    let components: Vec<(u8, u8)> = rest.as_chunks::<3>().0.iter().map(|c| (c[0], c[1])).collect();
    if components.len() != usize::from(head[5]) || rest.len() != components.len() * 3 {
        return Err(JpegError::Damaged);
    }
    let (height_px, width_px) = (u16::from_be_bytes([head[1], head[2]]), u16::from_be_bytes([head[3], head[4]]));
    let common = match components.as_slice() {
        [_gray] => true,
        [(_, luma), (_, 0x11), (_, 0x11)] => matches!(luma, 0x11 | 0x21 | 0x12 | 0x22),
        _ => false,
    };
    let fits = head[0] == 8 && common && width_px > 0 && height_px > 0;
    Ok(fits.then_some(Frame { width_px, height_px, components }))
}

fn finish(seen: Seen, bytes: Vec<u8>) -> Result<Jpeg, JpegError> {
    let frame = seen.frame.filter(|_| seen.scans > 0).ok_or(JpegError::Truncated)?;
    let ids: Vec<u8> = frame.components.iter().map(|(id, _)| *id).collect();
    let is_rgb = match seen.adobe_transform {
        Some(transform) => transform == 0,
        None => !seen.has_jfif && ids == *b"RGB",
    };
    let colour = match ids.len() {
        1 => Colour::Gray,
        _ if is_rgb => Colour::Rgb,
        _ => Colour::Ybr,
    };
    let Frame { width_px, height_px, .. } = frame;
    Ok(Jpeg::Baseline(BaselineJpeg { width_px, height_px, colour, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
        [&[0xFF, marker][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat()
    }

    fn jpeg(extra: &[Vec<u8>], sof: u8, frame: &[u8]) -> Vec<u8> {
        let mut file = vec![0xFF, SOI];
        file.extend(extra.concat());
        file.extend(segment(0xDB, &[0; 65]));
        file.extend(segment(sof, frame));
        file.extend(segment(0xC4, &[0; 20]));
        file.extend(segment(SOS, &[1, 1, 0, 0, 63, 0]));
        file.extend([0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD0, 0x56]);
        file.extend([0xFF, EOI]);
        file
    }

    const YBR_420: [u8; 15] = [8, 0, 48, 0, 64, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];

    fn baseline(file: &[u8]) -> BaselineJpeg {
        match walk(file) {
            Ok(Jpeg::Baseline(jpeg)) => jpeg,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn inv_09_exif_comments_and_what_follows_the_end_are_left_out() {
        let secrets = [
            segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            segment(0xE1, b"Exif\0\0SECRET"),
            segment(0xE2, b"ICC SECRET"),
            segment(0xED, b"Photoshop SECRET"),
            segment(0xFE, b"SECRET comment"),
        ];
        let mut file = jpeg(&secrets, 0xC0, &YBR_420);
        let end = file.len();
        file.extend_from_slice(b"SECRET thumbnail");
        let read = baseline(&file);
        assert_eq!((read.width_px, read.height_px, read.colour), (64, 48, Colour::Ybr));
        assert!(!read.bytes.windows(6).any(|window| window == b"SECRET"));
        assert!(read.bytes.windows(4).any(|window| window == b"JFIF"));
        assert_eq!(read.bytes, baseline(&read.bytes).bytes, "walking again changes nothing");
        assert!(read.bytes.len() < end);
    }

    #[test]
    fn colour_is_read_from_marks_not_guessed() {
        let adobe = |transform| segment(0xEE, &[b"Adobe".as_slice(), &[0, 100, 0, 0, 0, 0, transform]].concat());
        let rgb_ids = [8, 0, 48, 0, 64, 3, b'R', 0x11, 0, b'G', 0x11, 0, b'B', 0x11, 0];
        assert_eq!(baseline(&jpeg(&[adobe(0)], 0xC0, &YBR_420)).colour, Colour::Rgb);
        assert_eq!(baseline(&jpeg(&[adobe(1)], 0xC0, &rgb_ids)).colour, Colour::Ybr);
        assert_eq!(baseline(&jpeg(&[], 0xC0, &rgb_ids)).colour, Colour::Rgb);
        assert_eq!(baseline(&jpeg(&[], 0xC0, &[8, 0, 48, 0, 64, 1, 1, 0x11, 0])).colour, Colour::Gray);
    }

    #[test]
    fn what_is_not_baseline_is_left_to_the_decoder() {
        for (sof, frame) in [
            (0xC2, YBR_420.to_vec()),                                 // progressive
            (0xC1, YBR_420.to_vec()),                                 // extended
            (0xC0, [&[12], &YBR_420[1..]].concat()),                  // 12 bits
            (0xC0, [&[8, 0, 0], &YBR_420[3..]].concat()),             // height comes later
            (0xC0, vec![8, 0, 48, 0, 64, 2, 1, 0x11, 0, 2, 0x11, 0]), // two components
        ] {
            assert_eq!(walk(&jpeg(&[], sof, &frame)), Ok(Jpeg::Other), "{sof:02X}");
        }
    }

    #[test]
    fn a_cut_anywhere_is_seen() {
        let file = jpeg(&[], 0xC0, &YBR_420);
        for length in 2..file.len() {
            assert!(walk(&file[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn inv_08_mutations_never_panic(at in 0usize..500, value in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = jpeg(&[], 0xC0, &YBR_420);
            let length = file.len();
            file[at % length] = value;
            let _any = walk(&file);
            let _any = walk(&[&[0xFF, SOI], bytes.as_slice()].concat());
        }
    }
}
