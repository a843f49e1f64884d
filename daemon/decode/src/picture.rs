//! Pictures of capture devices: PNG and JPEG files.

use crate::codec::{jpeg8, quarantined};
use crate::source::Source;
use crate::{DecodeError, DecodeLimits};
use fovea_core::{Frame, Pixels};
use std::fs::File;
use std::io::Cursor;

/// Decodes a PNG or JPEG file (baseline or progressive, 8 bits) to RGB, in the orientation in which it is stored.
///
/// Gray becomes three equal channels; 16-bit PNG samples keep their upper 8 bits; transparency is dropped, the colour
/// beneath stays. An orientation mark (Exif) is not followed: scopes write upright pictures.
///
/// # Errors
/// [`DecodeError`]; [`DecodeError::NotAFile`] for any other kind of file.
pub fn picture_rgb8(file: File, limits: DecodeLimits) -> Result<Frame, DecodeError> {
    let source = Source::file(file)?;
    let length = source.length();
    if length > limits.whole_bytes_max {
        return Err(DecodeError::TooLarge { what: "bytes of the file", value: length, limit: limits.whole_bytes_max });
    }
    let mut bytes = Vec::new();
    source.append(0, length, &mut bytes, "the picture")?;
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        quarantined("PNG", || png(&bytes, &limits))
    } else if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        jpeg8::picture(&bytes, &limits)
    } else {
        Err(DecodeError::NotAFile { expected: "PNG or JPEG" })
    }
}

/// Holds a picture's size against the limits: three bytes a pixel.
pub(crate) fn check_picture(width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DecodeError> {
    let bounds = [
        ("columns", u64::from(width), u64::from(limits.width_px_max)),
        ("rows", u64::from(height), u64::from(limits.height_px_max)),
        ("bytes of a frame", u64::from(width) * u64::from(height) * 3, limits.frame_bytes_max),
    ];
    for (what, value, limit) in bounds {
        if value > limit {
            return Err(DecodeError::TooLarge { what, value, limit });
        }
    }
    Ok(())
}

fn png(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    let failed = |error: png::DecodingError| DecodeError::Code { codec: "PNG", detail: error.to_string() };
    let bytes_max = usize::try_from(limits.frame_bytes_max).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: bytes_max });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    // Texts and profiles are not read: they could only cost.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = (reader.info().width, reader.info().height);
    check_picture(width, height, limits)?;
    let size = reader.output_buffer_size().ok_or(DecodeError::UnsupportedPixels { what: "a PNG of this size" })?;
    let mut samples = vec![0; size];
    let info = reader.next_frame(&mut samples).map_err(failed)?;
    samples.truncate(info.buffer_size());
    let rgb: Vec<u8> = match info.color_type {
        png::ColorType::Rgb => samples,
        png::ColorType::Rgba => samples.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        png::ColorType::Grayscale => samples.iter().flat_map(|value| [*value; 3]).collect(),
        png::ColorType::GrayscaleAlpha => samples.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return Err(DecodeError::UnsupportedPixels { what: "a PNG that stayed indexed" }),
    };
    Frame::new(width, height, Pixels::Rgb8(rgb)).map_err(DecodeError::Frame)
}
