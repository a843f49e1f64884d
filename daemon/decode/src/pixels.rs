//! What a header says of its pixels, checked: whoever holds a [`PixelFormat`] may allocate a frame of it.
//! Standard: PS3.3 section C.7.6.3.1.

use crate::header::Header;
use crate::{DecodeError, DecodeLimits};

/// The pixels' meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Photometric {
    /// Lowest is white.
    Monochrome1,
    /// Lowest is black.
    Monochrome2,
    Palette,
    Rgb,
    /// Full-range luminance and chrominance.
    YbrFull,
    /// The same; where the pixels are not coded, two neighbours share their chrominance.
    YbrFull422,
    /// Codes of JPEG 2000 that its decoder undoes itself.
    YbrByCode,
}

/// Colours that indices stand for.
#[derive(Debug)]
pub(crate) struct Palette {
    /// Index of the first entry; lower ones take it too.
    pub(crate) first: i32,
    /// Red, green, blue of each entry; at least one.
    pub(crate) entries: Vec<[u16; 3]>,
    /// 8 or 16.
    pub(crate) bits: u8,
}

/// Geometry and meaning of the samples.
#[derive(Debug)]
pub(crate) struct PixelFormat {
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    pub(crate) frames: u32,
    /// 1 or 3.
    pub(crate) samples_per_pixel: usize,
    pub(crate) photometric: Photometric,
    /// All red, then all green, then all blue, where the pixels are not coded.
    pub(crate) planar: bool,
    /// 8 or 16.
    pub(crate) bits_allocated: u8,
    /// 1 to `bits_allocated`.
    pub(crate) bits_stored: u8,
    /// Bits below the stored ones.
    pub(crate) shift: u8,
    pub(crate) signed: bool,
    pub(crate) palette: Option<Palette>,
}

impl PixelFormat {
    /// Samples of one frame: columns x rows x samples per pixel.
    pub(crate) fn samples(&self) -> usize {
        // Checked against the limits when it was made.
        self.columns as usize * self.rows as usize * self.samples_per_pixel
    }

    /// The size of the frame in columns and rows.
    pub(crate) fn check_size(&self, coded_columns: u32, coded_rows: u32) -> Result<(), DecodeError> {
        let (columns, rows) = (self.columns, self.rows);
        if (columns, rows) == (coded_columns, coded_rows) {
            Ok(())
        } else {
            Err(DecodeError::SizeMismatch { columns, rows, coded_columns, coded_rows })
        }
    }

    /// Reads and checks the description.
    pub(crate) fn of(header: &Header, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        if header.pixel_data.is_none() {
            return Err(DecodeError::NoPixelData);
        }
        let need = |tag, attribute| header.short(tag).ok_or(DecodeError::Missing { attribute });
        let columns = side(need(0x0028_0011, "Columns")?, "Columns", limits.width_px_max)?;
        let rows = side(need(0x0028_0010, "Rows")?, "Rows", limits.height_px_max)?;
        let samples_per_pixel = usize::from(header.short(0x0028_0002).unwrap_or(1));
        let photometric = photometric(header, samples_per_pixel)?;
        let bits_allocated = need(0x0028_0100, "Bits Allocated")?;
        if !matches!(bits_allocated, 8 | 16) {
            return Err(DecodeError::UnsupportedPixels { what: "a number of allocated bits that is not 8 or 16" });
        }
        let bits_stored = header.short(0x0028_0101).unwrap_or(bits_allocated);
        let high_bit = header.short(0x0028_0102).unwrap_or(bits_stored.wrapping_sub(1));
        if !(1..=bits_allocated).contains(&bits_stored) || high_bit >= bits_allocated || high_bit + 1 < bits_stored {
            return Err(DecodeError::Invalid {
                attribute: "Bits Stored",
                why: "the bits do not fit into the allocated",
            });
        }
        let format = Self {
            columns,
            rows,
            frames: frames(header, limits)?,
            samples_per_pixel,
            photometric,
            planar: header.short(0x0028_0006) == Some(1),
            // The three fit: all are at most 16 by now.
            bits_allocated: bits_allocated as u8,
            bits_stored: bits_stored as u8,
            shift: (high_bit + 1 - bits_stored) as u8,
            signed: header.short(0x0028_0103) == Some(1),
            palette: if photometric == Photometric::Palette { Some(palette(header)?) } else { None },
        };
        format.check_bytes(limits)?;
        Ok(format)
    }

    fn check_bytes(&self, limits: &DecodeLimits) -> Result<(), DecodeError> {
        // What the frame becomes, not only what it comes from: a palette makes three samples of one.
        let channels = if self.palette.is_some() { 3 } else { self.samples_per_pixel as u64 };
        let sample_bytes = u64::from(self.bits_allocated / 8);
        let value = u64::from(self.columns) * u64::from(self.rows) * channels * sample_bytes;
        if value > limits.frame_bytes_max {
            return Err(DecodeError::TooLarge { what: "bytes of a frame", value, limit: limits.frame_bytes_max });
        }
        Ok(())
    }
}

fn side(value: u16, attribute: &'static str, max: u32) -> Result<u32, DecodeError> {
    match u32::from(value) {
        0 => Err(DecodeError::Invalid { attribute, why: "it is 0" }),
        value if value > max => Err(DecodeError::TooLarge { what: attribute, value: value.into(), limit: max.into() }),
        value => Ok(value),
    }
}

fn frames(header: &Header, limits: &DecodeLimits) -> Result<u32, DecodeError> {
    let attribute = "Number of Frames";
    match header.text(0x0028_0008) {
        None | Some("") => Ok(1),
        Some(text) => match text.parse::<u32>() {
            Ok(frames) if frames > limits.frames_max => {
                Err(DecodeError::TooLarge { what: attribute, value: frames.into(), limit: limits.frames_max.into() })
            }
            Ok(frames) if frames >= 1 => Ok(frames),
            _ => Err(DecodeError::Invalid { attribute, why: "it is no number from 1" }),
        },
    }
}

fn photometric(header: &Header, samples_per_pixel: usize) -> Result<Photometric, DecodeError> {
    let attribute = "Photometric Interpretation";
    let (photometric, samples) = match header.text(0x0028_0004).ok_or(DecodeError::Missing { attribute })? {
        "MONOCHROME1" => (Photometric::Monochrome1, 1),
        "MONOCHROME2" => (Photometric::Monochrome2, 1),
        "PALETTE COLOR" => (Photometric::Palette, 1),
        "RGB" => (Photometric::Rgb, 3),
        "YBR_FULL" => (Photometric::YbrFull, 3),
        "YBR_FULL_422" => (Photometric::YbrFull422, 3),
        "YBR_RCT" | "YBR_ICT" => (Photometric::YbrByCode, 3),
        _ => return Err(DecodeError::UnsupportedPixels { what: "this photometric interpretation" }),
    };
    if samples != samples_per_pixel {
        return Err(DecodeError::Invalid { attribute, why: "it does not fit the samples per pixel" });
    }
    Ok(photometric)
}

/// Standard: PS3.3 sections C.7.6.3.1.5 and C.7.6.3.1.6.
fn palette(header: &Header) -> Result<Palette, DecodeError> {
    let attribute = "Palette Color Lookup Table";
    if header.bytes(0x0028_1221).is_some() {
        return Err(DecodeError::UnsupportedPixels { what: "a segmented palette" });
    }
    let signed = header.short(0x0028_0103) == Some(1);
    let mut shape = None;
    let mut channels = [const { Vec::new() }; 3];
    for (channel, values) in (0_u32..).zip(&mut channels) {
        let descriptor: Vec<u16> = header.shorts(0x0028_1101 + channel).take(3).collect();
        let [count, first, bits] = descriptor[..] else { return Err(DecodeError::Missing { attribute }) };
        let data = header.bytes(0x0028_1201 + channel).ok_or(DecodeError::Missing { attribute })?;
        // 0 stands for 65,536, which has no room in 16 bits.
        let count = if count == 0 { 65_536 } else { usize::from(count) };
        if *shape.get_or_insert((count, first, bits)) != (count, first, bits) {
            return Err(DecodeError::Invalid { attribute, why: "the three differ in shape" });
        }
        *values = match bits {
            // Some writers give each 8-bit entry a word of its own.
            8 if data.len() < 2 * count => data.iter().map(|entry| u16::from(*entry)).collect::<Vec<_>>(),
            8 => data.chunks_exact(2).map(|pair| u16::from(pair[0])).collect(),
            16 => data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(),
            _ => return Err(DecodeError::UnsupportedPixels { what: "a palette of neither 8 nor 16 bits" }),
        };
        if values.len() < count {
            return Err(DecodeError::Invalid { attribute, why: "it has fewer entries than it says" });
        }
        values.truncate(count);
    }
    let (_, first, bits) = shape.ok_or(DecodeError::Missing { attribute })?;
    let [red, green, blue] = channels;
    let entries = red.into_iter().zip(green).zip(blue).map(|((red, green), blue)| [red, green, blue]).collect();
    let first = if signed { i32::from(first.cast_signed()) } else { i32::from(first) };
    // 8 or 16 by now.
    Ok(Palette { first, entries, bits: bits as u8 })
}
