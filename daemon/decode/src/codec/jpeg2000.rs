//! JPEG 2000 and its high-throughput form. Standard: ITU-T T.800 and T.814.

use super::{Buffer, Samples, check_samples, quarantined};
use crate::DecodeError;
use crate::pixels::PixelFormat;
use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

const CODEC: &str = "JPEG 2000";
/// Tiles of one frame beyond which the code means harm; each costs a decoder memory.
const TILES_MAX: u64 = 16_384;

/// What the SIZ marker says. Standard: ITU-T T.800 section A.5.1.
struct Size {
    width: u32,
    height: u32,
    tiles: u64,
    /// Depth and sign of each component.
    components: Vec<(u8, bool)>,
    is_high_throughput: bool,
}

impl Size {
    /// Reads the first marker of a bare code stream; within a JP2 file the stream is looked for.
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let failed = |detail: &str| DecodeError::Code { codec: CODEC, detail: detail.into() };
        let start = bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51]);
        let stream = start.map(|start| &bytes[start..]).ok_or_else(|| failed("no code stream"))?;
        let head = stream.get(..42).ok_or_else(|| failed("the size marker is cut short"))?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (right, bottom, left, top) = (number(8), number(12), number(16), number(20));
        let (tile_width, tile_height, tile_left, tile_top) = (number(24), number(28), number(32), number(36));
        if right <= left || bottom <= top || tile_width == 0 || tile_height == 0 || tile_left > left || tile_top > top {
            return Err(failed("the size marker contradicts itself"));
        }
        let tiles_along = |end: u32, start: u32, length: u32| u64::from((end - start).div_ceil(length));
        let count = usize::from(u16::from_be_bytes([head[40], head[41]]));
        let parts = stream.get(42..42 + 3 * count).ok_or_else(|| failed("the size marker is cut short"))?;
        if parts.chunks_exact(3).any(|part| part[1] == 0 || part[2] == 0) {
            return Err(failed("a component without samples"));
        }
        Ok(Self {
            width: right - left,
            height: bottom - top,
            tiles: tiles_along(right, tile_left, tile_width) * tiles_along(bottom, tile_top, tile_height),
            components: parts.chunks_exact(3).map(|part| ((part[0] & 0x7F) + 1, part[0] & 0x80 != 0)).collect(),
            // Bit 14 of the capabilities: part 15 is needed.
            is_high_throughput: head[6] & 0x40 != 0,
        })
    }
}

/// Decodes a frame; the code's own colour transform is undone.
pub(super) fn decode(bytes: &[u8], format: &PixelFormat) -> Result<Samples, DecodeError> {
    let size = Size::read(bytes)?;
    format.check_size(size.width, size.height)?;
    let &[(bits, signed), ref others @ ..] = &size.components[..] else {
        return Err(DecodeError::Code { codec: CODEC, detail: "no components".into() });
    };
    check_samples(format, size.components.len(), bits)?;
    if others.iter().any(|other| *other != (bits, signed)) {
        return Err(DecodeError::UnsupportedPixels { what: "a JPEG 2000 code with components of different depth" });
    }
    if size.tiles > TILES_MAX {
        return Err(DecodeError::TooLarge { what: "number of tiles", value: size.tiles, limit: TILES_MAX });
    }
    if size.is_high_throughput {
        return Err(DecodeError::UnsupportedPixels { what: "high-throughput JPEG 2000" });
    }
    let buffer = quarantined(CODEC, || classic(bytes, format, bits))?;
    // The header's photometric interpretation decides about what the code did not transform itself.
    Ok(Samples { buffer, bits, shift: 0, is_rgb: false })
}

fn classic(bytes: &[u8], format: &PixelFormat, bits: u8) -> Result<Buffer, DecodeError> {
    let failed = |detail: String| DecodeError::Code { codec: CODEC, detail };
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let image = Image::new(bytes, &settings).map_err(|error| failed(error.to_string()))?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|error| failed(error.to_string()))?;
    let components = decoded.components();
    let pixels = format.columns as usize * format.rows as usize;
    if components.len() != format.samples_per_pixel
        || components.iter().any(|component| component.samples().len() != pixels)
    {
        return Err(failed("the decoder gave another size".into()));
    }
    let full_scale = f32::from(((1_u32 << bits) - 1) as u16);
    // Rounded and cut, so it fits.
    let sample = |at: usize, channel: usize| components[channel].samples()[at].round().clamp(0.0, full_scale) as u16;
    let all = (0..pixels).flat_map(|at| (0..components.len()).map(move |channel| (at, channel)));
    Ok(if bits <= 8 {
        Buffer::Bytes(all.map(|(at, channel)| sample(at, channel) as u8).collect())
    } else {
        Buffer::Words(all.map(|(at, channel)| sample(at, channel)).collect())
    })
}
