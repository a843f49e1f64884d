//! JPEG 2000 and its high-throughput form. Standard: ITU-T T.800 and T.814.

use super::{Buffer, Samples, check_samples, quarantined};
use crate::DecodeError;
use crate::pixels::PixelFormat;
use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use openjph_core::codestream::Codestream;
use openjph_core::file::MemInfile;

const CODEC: &str = "JPEG 2000";
/// Tiles of one frame beyond which the code means harm; each costs a decoder memory.
const TILES_MAX: u64 = 16_384;

/// Position of the first component's depth in a code stream.
const COMPONENTS_AT: usize = 42;

fn damaged(detail: &str) -> DecodeError {
    DecodeError::Code { codec: CODEC, detail: detail.into() }
}

/// Where the code stream begins: at once, or behind the boxes of a JP2 file.
fn stream_start(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51])
}

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
        let stream = stream_start(bytes).map(|start| &bytes[start..]).ok_or_else(|| damaged("no code stream"))?;
        let head = stream.get(..COMPONENTS_AT).ok_or_else(|| damaged("the size marker is cut short"))?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (right, bottom, left, top) = (number(8), number(12), number(16), number(20));
        let (tile_width, tile_height, tile_left, tile_top) = (number(24), number(28), number(32), number(36));
        if right <= left || bottom <= top || tile_width == 0 || tile_height == 0 || tile_left > left || tile_top > top {
            return Err(damaged("the size marker contradicts itself"));
        }
        let tiles_along = |end: u32, start: u32, length: u32| u64::from((end - start).div_ceil(length));
        let count = usize::from(u16::from_be_bytes([head[40], head[41]]));
        let parts = stream
            .get(COMPONENTS_AT..COMPONENTS_AT + 3 * count)
            .ok_or_else(|| damaged("the size marker is cut short"))?;
        if parts.chunks_exact(3).any(|part| part[1] == 0 || part[2] == 0) {
            return Err(damaged("a component without samples"));
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
    if signed && !format.signed {
        return Err(DecodeError::FormatMismatch { coded: "signed samples".into(), header: "unsigned ones".into() });
    }
    let decode = if size.is_high_throughput { high_throughput } else { classic };
    let words = quarantined(CODEC, || decode(bytes, format, bits, signed))?;
    // The header's photometric interpretation decides about what the code did not transform itself.
    Ok(Samples::coded(words, bits, format))
}

fn classic(bytes: &[u8], format: &PixelFormat, bits: u8, signed: bool) -> Result<Buffer, DecodeError> {
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
    let planes: Vec<&[f32]> = components.iter().map(|component| component.samples()).collect();
    // The decoder shifts signed samples up as if they were unsigned.
    let below = if signed { 1_i32 << (bits - 1) } else { 0 };
    let full_scale = ((1_u32 << bits) - 1) as f32;
    let sample = |value: f32| value.round().clamp(0.0, full_scale) as i32 - below;
    let all = (0..pixels).flat_map(|at| planes.iter().map(move |plane| sample(plane[at])));
    // Cut to the depth above; a negative sample keeps its lower bits, which the sign is found in.
    Ok(if bits <= 8 && !signed {
        Buffer::Bytes(all.map(|value| value as u8).collect())
    } else {
        Buffer::Words(all.map(|value| value as u16).collect())
    })
}

/// The decoder cuts components to their depth before it would undo the colour transform, and leaves that to us. So all
/// components are declared signed, which turns shift and cut off, and both are done here behind the transform.
fn high_throughput(bytes: &[u8], format: &PixelFormat, bits: u8, signed: bool) -> Result<Buffer, DecodeError> {
    let failed = |error: openjph_core::error::OjphError| DecodeError::Code { codec: CODEC, detail: error.to_string() };
    let channels = format.samples_per_pixel;
    let start = stream_start(bytes).ok_or_else(|| damaged("no code stream"))?;
    let mut declared_signed = bytes[start..].to_vec();
    // `Size::read` has found these bytes to be there.
    for depth in declared_signed[COMPONENTS_AT..].iter_mut().step_by(3).take(channels) {
        *depth |= 0x80;
    }
    let mut input = MemInfile::new(&declared_signed);
    let mut stream = Codestream::new();
    stream.read_headers(&mut input).map_err(failed)?;
    let is_transformed = channels == 3 && stream.access_cod().is_employing_color_transform();
    let is_reversible = stream.access_cod().is_reversible();
    stream.create(&mut input).map_err(failed)?;
    let (columns, rows) = (format.columns as usize, format.rows as usize);
    let shift = if signed { 0 } else { 1_i32 << (bits - 1) };
    let (least, most) = (shift - (1 << (bits - 1)), shift + (1 << (bits - 1)) - 1);
    let mut words = vec![0; format.samples()];
    for row in words.chunks_exact_mut(columns * channels).take(rows) {
        let mut pixels = vec![[0_i32; 3]; columns];
        for channel in 0..channels {
            let line = stream.pull(channel as u32).filter(|line| line.len() == columns);
            let line =
                line.ok_or_else(|| DecodeError::Code { codec: CODEC, detail: "the decoder gave another size".into() })?;
            pixels.iter_mut().zip(line).for_each(|(pixel, value)| pixel[channel] = value);
        }
        for (out, pixel) in row.chunks_exact_mut(channels).zip(pixels) {
            let pixel = match (is_transformed, is_reversible) {
                (false, _) => pixel,
                (true, true) => reversible_to_rgb(pixel),
                (true, false) => irreversible_to_rgb(pixel),
            };
            for (out, value) in out.iter_mut().zip(pixel) {
                // Cut to the depth; a negative sample keeps its lower bits, which the sign is found in.
                *out = value.saturating_add(shift).clamp(least, most) as u16;
            }
        }
    }
    Ok(Buffer::Words(words))
}

/// Standard: ITU-T T.800 section G.2.2. A damaged code may hold any number, hence the wrapping.
fn reversible_to_rgb([y, u, v]: [i32; 3]) -> [i32; 3] {
    let green = y.wrapping_sub(u.wrapping_add(v) >> 2);
    [v.wrapping_add(green), green, u.wrapping_add(green)]
}

/// Standard: ITU-T T.800 section G.3.2.
fn irreversible_to_rgb(pixel: [i32; 3]) -> [i32; 3] {
    let [y, cb, cr] = pixel.map(|value| value as f32);
    // A cast from f32 stops at the ends of i32.
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as i32)
}
