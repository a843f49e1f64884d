//! JPEG with 8 bits and DCT: baseline, extended, progressive. Other processes are told by the frame's own marker.

use super::{Buffer, Samples, check_samples, jpeg_huffman, quarantined};
use crate::pixels::{Photometric, PixelFormat};
use crate::{DecodeError, DecodeLimits};
use fovea_core::{Frame, Pixels};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

const CODEC: &str = "JPEG";

/// What the markers before the first scan say. Standard: ITU-T T.81 annex B.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    /// The low byte of the start-of-frame marker: 0xC0 baseline, 0xC3 lossless, 0xF7 JPEG-LS, and so on.
    pub(crate) process: u8,
    pub(crate) bits: u8,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) component_ids: Vec<u8>,
    /// The colour transform that an Adobe marker names: 0 none, 1 luminance and chrominance.
    pub(crate) adobe_transform: Option<u8>,
    pub(crate) is_jfif: bool,
}

impl Head {
    /// Reads markers up to the start of the frame.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let failed = |detail: &str| DecodeError::Code { codec: CODEC, detail: detail.into() };
        let cut = || failed("the markers are cut short");
        let (mut adobe_transform, mut is_jfif) = (None, false);
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8]).ok_or_else(|| failed("no start of image"))?;
        loop {
            let marker = *rest.get(1).ok_or_else(cut)?;
            if rest[0] != 0xFF {
                return Err(failed("something else where a marker should be"));
            }
            // Any number of fill bytes may stand before a marker.
            if marker == 0xFF {
                rest = &rest[1..];
                continue;
            }
            let length =
                usize::from(u16::from_be_bytes([*rest.get(2).ok_or_else(cut)?, *rest.get(3).ok_or_else(cut)?]));
            let segment = rest.get(4..2 + length).ok_or_else(cut)?;
            match marker {
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7 => {
                    let &[bits, h1, h0, w1, w0, count, ref components @ ..] = segment else { return Err(cut()) };
                    if components.len() < 3 * usize::from(count) || count == 0 {
                        return Err(cut());
                    }
                    return Ok(Self {
                        process: marker,
                        bits,
                        width: u16::from_be_bytes([w1, w0]).into(),
                        height: u16::from_be_bytes([h1, h0]).into(),
                        component_ids: components.chunks_exact(3).take(count.into()).map(|part| part[0]).collect(),
                        adobe_transform,
                        is_jfif,
                    });
                }
                0xDA | 0xD9 => return Err(failed("a scan without a frame")),
                0xE0 if segment.starts_with(b"JFIF\0") => is_jfif = true,
                0xEE if segment.starts_with(b"Adobe") => adobe_transform = segment.get(11).copied(),
                _ => {}
            }
            rest = &rest[2 + length..];
        }
    }

    /// True where three components are red, green and blue. What the stream says goes before what the header says: many
    /// devices write `RGB` above a stream of luminance and chrominance.
    fn is_rgb(&self, photometric: Photometric) -> bool {
        match self.adobe_transform {
            Some(transform) => transform == 0,
            None if self.is_jfif => false,
            None if self.component_ids == *b"RGB" => true,
            None => photometric == Photometric::Rgb,
        }
    }
}

/// Decodes a frame of a DICOM object by the process that its marker names.
pub(super) fn decode(bytes: &[u8], format: &PixelFormat) -> Result<Samples, DecodeError> {
    let head = Head::read(bytes)?;
    format.check_size(head.width, head.height)?;
    check_samples(format, head.component_ids.len(), head.bits)?;
    match (head.process, head.bits) {
        (0xC0..=0xC2, 8) => {
            let is_rgb = head.component_ids.len() == 1 || head.is_rgb(format.photometric);
            let samples = quarantined(CODEC, || zune(bytes, &head, is_rgb))?;
            // Gray streams may hold palette indices; the flag is of no use to them.
            Ok(Samples { is_rgb: true, ..Samples::coded(Buffer::Bytes(samples), 8, format) })
        }
        (0xC1 | 0xC3, bits) => {
            let words = jpeg_huffman::decode(bytes, format)?;
            let is_rgb = head.is_rgb(format.photometric);
            Ok(Samples { is_rgb, ..Samples::coded(Buffer::Words(words), bits, format) })
        }
        _ => Err(DecodeError::UnsupportedPixels { what: "this JPEG process" }),
    }
}

/// Decodes a picture file to RGB.
pub(crate) fn picture(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    let head = Head::read(bytes)?;
    crate::picture::check_picture(head.width, head.height, limits)?;
    let channels = head.component_ids.len();
    if !matches!((head.process, head.bits, channels), (0xC0..=0xC2, 8, 1 | 3)) {
        return Err(DecodeError::UnsupportedPixels {
            what: "a JPEG file of this process, depth or number of channels",
        });
    }
    let is_rgb = channels == 1 || head.is_rgb(Photometric::YbrFull);
    let samples = quarantined(CODEC, || zune(bytes, &head, is_rgb))?;
    let rgb = if channels == 1 { samples.iter().flat_map(|value| [*value; 3]).collect() } else { samples };
    Frame::new(head.width, head.height, Pixels::Rgb8(rgb)).map_err(DecodeError::Frame)
}

/// Runs the decoder; its output is gray or red, green, blue.
fn zune(bytes: &[u8], head: &Head, is_rgb: bool) -> Result<Vec<u8>, DecodeError> {
    let failed = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Code { codec: CODEC, detail: error.to_string() };
    // Strict: a stream that ends early is an error, not a picture with a gray lower half.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(head.width as usize)
        .set_max_height(head.height as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let out = match (head.component_ids.len(), decoder.input_colorspace()) {
        (1, _) => ColorSpace::Luma,
        // It takes components without a mark as luminance and chrominance; where they are not, ask for no transform.
        (_, Some(ColorSpace::YCbCr)) if is_rgb => ColorSpace::YCbCr,
        (_, Some(ColorSpace::RGB)) if !is_rgb => {
            return Err(DecodeError::UnsupportedPixels { what: "a JPEG of unclear colours" });
        }
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let samples = decoder.decode().map_err(failed)?;
    let expected = head.width as usize * head.height as usize * head.component_ids.len();
    if samples.len() != expected {
        return Err(DecodeError::Code { codec: CODEC, detail: "the decoder gave another size".into() });
    }
    Ok(samples)
}
