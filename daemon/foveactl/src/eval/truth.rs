//! Masks as a site drew them: PNG files become maps of labels.
//!
//! In: `<stem>_mask.png` (what is not black is covered) and `<stem>_label.png` (each value, index of a palette or colour but 0 and black is
//! one thing); what is wholly transparent is background. Out:
//! [`Map`]s. Promise: bounded memory; a file that is no such map is an error that names it.

use png::{ColorType, Transformations};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Most pixels of a mask.
const PIXELS_MAX: u64 = 100_000_000;

/// Why a mask cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// It cannot be read as PNG.
    #[error("the mask {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: png::DecodingError,
    },
    /// A mask of another picture, by its shape.
    #[error(
        "the mask {path} has {} x {} pixels and {of} {} x {}: it is not of the same shape",
        .mask_px.0, .mask_px.1, .of_px.0, .of_px.1
    )]
    Shape {
        /// Which.
        path: PathBuf,
        /// Its columns and rows.
        mask_px: (u32, u32),
        /// The picture, or its other mask.
        of: String,
        /// Columns and rows of that.
        of_px: (u32, u32),
    },
    /// Too large, or more things than 16 bits can number.
    #[error("the mask {path} {problem}")]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A label for each pixel, row by row; 0 is background.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// As many as columns x rows.
    pub labels: Vec<u16>,
}

impl Map {
    /// The same map in another size, each pixel the nearest of before.
    pub fn scaled(&self, width_px: u32, height_px: u32) -> Self {
        let from = |at: u32, now: u32, then: u32| (u64::from(at) * 2 + 1) * u64::from(then) / (u64::from(now) * 2);
        let mut labels = Vec::with_capacity(width_px as usize * height_px as usize);
        for y in 0..height_px {
            let row = from(y, height_px, self.height_px) * u64::from(self.width_px);
            labels.extend((0..width_px).map(|x| self.labels[(row + from(x, width_px, self.width_px)) as usize]));
        }
        Self { width_px, height_px, labels }
    }

    /// The map in the size of `of`, where its own is that of a map that was made smaller or larger, each side to a whole pixel.
    ///
    /// # Errors
    /// [`TruthError::Shape`] names `path`, which the map is from, and `of`.
    pub fn fitted(self, path: &Path, of: &str, (width_px, height_px): (u32, u32)) -> Result<Self, TruthError> {
        let (across, down) =
            (u64::from(self.width_px) * u64::from(height_px), u64::from(self.height_px) * u64::from(width_px));
        let pixel = self.width_px.max(self.height_px).max(width_px).max(height_px);
        if (self.width_px, self.height_px) == (width_px, height_px) {
            Ok(self)
        } else if across.abs_diff(down) <= u64::from(pixel) {
            Ok(self.scaled(width_px, height_px))
        } else {
            let mask_px = (self.width_px, self.height_px);
            Err(TruthError::Shape { path: path.to_owned(), mask_px, of: of.to_owned(), of_px: (width_px, height_px) })
        }
    }

    /// Adds what another map has where this one has nothing. `apart` gives its things numbers of their own.
    fn unite(&mut self, other: &Self, apart: bool) {
        let offset = if apart { self.labels.iter().copied().max().unwrap_or(0) } else { 0 };
        for (label, other) in
            self.labels.iter_mut().zip(&other.labels).filter(|(label, other)| **label == 0 && **other != 0)
        {
            *label = other.saturating_add(offset);
        }
    }
}

/// The union of binary masks, 0 and 1; none of no masks. The first one's size counts.
///
/// # Errors
/// [`TruthError`].
pub fn masks(paths: &[PathBuf]) -> Result<Option<Map>, TruthError> {
    united(paths, Things::One, |_, samples| Ok(u16::from(samples.iter().any(|sample| *sample != 0))))
}

/// The union of instance maps; none of no maps. The first one's size counts.
///
/// # Errors
/// [`TruthError`].
pub fn instances(paths: &[PathBuf]) -> Result<Option<Map>, TruthError> {
    united(paths, Things::Each, |colours, samples| match samples {
        [value] => Ok(*value),
        [0, 0, 0] => Ok(0),
        colour => {
            let next = u16::try_from(colours.len() + 1).map_err(|_| "has more than 65,535 colours".to_owned())?;
            Ok(*colours.entry(colour.to_vec()).or_insert(next))
        }
    })
}

type Colours = HashMap<Vec<u16>, u16>;
type Read = fn(&mut Colours, &[u16]) -> Result<u16, String>;

/// Whether a map shows one area, or things that are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Things {
    One,
    Each,
}

/// Looks at the heads of masks and instance maps, before hours are spent on pictures.
///
/// # Errors
/// [`TruthError`] when one is no PNG or too large.
pub fn check(paths: &[PathBuf]) -> Result<(), TruthError> {
    paths.iter().try_for_each(|path| reader(path, Things::One).map(drop))
}

fn united(paths: &[PathBuf], things: Things, read: Read) -> Result<Option<Map>, TruthError> {
    let mut united: Option<Map> = None;
    for path in paths {
        let map = open(path, things, read)?;
        match &mut united {
            None => united = Some(map),
            Some(united) => {
                let map = map.fitted(path, "the other mask", (united.width_px, united.height_px))?;
                united.unite(&map, things == Things::Each);
            }
        }
    }
    Ok(united)
}

fn reader(path: &Path, things: Things) -> Result<png::Reader<BufReader<File>>, TruthError> {
    let failed = |source| TruthError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let mut decoder =
        png::Decoder::new_with_limits(BufReader::new(file), png::Limits { bytes: PIXELS_MAX as usize * 8 });
    let has_palette = decoder.read_header_info().map_err(failed)?.color_type == ColorType::Indexed;
    // Palettes become colours, less than 8 bits become 8, and a transparent colour an alpha. But things have their index for a
    // number, and a palette may show two of them in one colour.
    let by_index = has_palette && things == Things::Each;
    decoder.set_transformations(if by_index { Transformations::IDENTITY } else { Transformations::EXPAND });
    let reader = decoder.read_info().map_err(failed)?;
    let (width_px, height_px) = reader.info().size();
    let pixels = u64::from(width_px) * u64::from(height_px);
    if pixels == 0 || pixels > PIXELS_MAX {
        let problem = format!("has {pixels} pixels, the limit is {PIXELS_MAX}");
        return Err(TruthError::Form { path: path.to_owned(), problem });
    }
    Ok(reader)
}

/// Reads a PNG; `label` makes a label of the samples of one pixel, without alpha.
fn open(path: &Path, things: Things, label: Read) -> Result<Map, TruthError> {
    let failed = |source| TruthError::Read { path: path.to_owned(), source };
    let form = |problem: String| TruthError::Form { path: path.to_owned(), problem };
    let mut reader = reader(path, things)?;
    let (width_px, height_px) = reader.info().size();
    let pixels = u64::from(width_px) * u64::from(height_px);
    let (colour, depth) = reader.output_color_type();
    let (all, kept) = match colour {
        ColorType::Grayscale | ColorType::Indexed => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
    };
    let mut labels = Vec::with_capacity(pixels as usize);
    let mut colours = Colours::new();
    while let Some(row) = reader.next_row().map_err(failed)? {
        let samples = samples(row.data(), depth, width_px as usize * all);
        for pixel in samples.chunks_exact(all) {
            let (shown, alpha) = pixel.split_at(kept);
            let is_clear = alpha == [0];
            labels.push(if is_clear { 0 } else { label(&mut colours, shown).map_err(form)? });
        }
    }
    if labels.len() as u64 != pixels {
        return Err(form("is cut".to_owned()));
    }
    Ok(Map { width_px, height_px, labels })
}

/// The first `count` samples of a row, the leftmost in the highest bits of a byte (PNG specification, section 7.2).
fn samples(row: &[u8], depth: png::BitDepth, count: usize) -> Vec<u16> {
    let bits = depth as usize;
    match bits {
        16 => row.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect(),
        8 => row.iter().copied().map(u16::from).collect(),
        _ => {
            let of_byte = |byte: &u8| {
                let byte = u16::from(*byte);
                (1..=8 / bits).map(move |place| (byte >> (8 - place * bits)) & ((1 << bits) - 1))
            };
            row.iter().flat_map(of_byte).take(count).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::BitDepth;

    fn write(path: &Path, colour: ColorType, depth: BitDepth, palette: Option<&[u8]>, bytes: &[u8]) -> PathBuf {
        let mut encoder = png::Encoder::new(File::create(path).unwrap(), 2, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
        }
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        path.to_owned()
    }

    #[test]
    fn every_usual_form_of_mask_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        let palette: &[u8] = &[0, 0, 0, 200, 0, 0];
        for (colour, depth, palette, bytes) in [
            (ColorType::Grayscale, BitDepth::Eight, None, vec![0, 1, 255, 0]),
            (ColorType::Grayscale, BitDepth::One, None, vec![0b0100_0000, 0b1000_0000]),
            (ColorType::Indexed, BitDepth::Eight, Some(palette), vec![0, 1, 1, 0]),
            (ColorType::Rgb, BitDepth::Eight, None, vec![0, 0, 0, 0, 9, 0, 1, 1, 1, 0, 0, 0]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, None, vec![0, 255, 7, 255, 7, 1, 9, 0]),
            (ColorType::Rgba, BitDepth::Eight, None, [[255, 255, 255, 0], [9; 4], [9; 4], [1, 1, 1, 0]].concat()),
        ] {
            let mask = write(&path, colour, depth, palette, &bytes);
            assert_eq!(masks(&[mask]).unwrap().unwrap().labels, [0, 1, 1, 0], "{colour:?} {depth:?}");
        }
    }

    #[test]
    fn instances_are_values_of_8_or_16_bits_or_colours_and_maps_unite() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let wide = write(&at("a.png"), ColorType::Grayscale, BitDepth::Sixteen, None, &[0, 0, 1, 44, 0, 7, 0, 0]);
        assert_eq!(instances(std::slice::from_ref(&wide)).unwrap().unwrap().labels, [0, 300, 7, 0]);
        let colours = write(&at("b.png"), ColorType::Rgb, BitDepth::Eight, None, &[5, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0]);
        assert_eq!(instances(std::slice::from_ref(&colours)).unwrap().unwrap().labels, [1, 1, 2, 0]);
        assert_eq!(instances(&[wide, colours]).unwrap().unwrap().labels, [301, 300, 7, 0]);
        assert_eq!(instances(&[]).unwrap(), None);
        // Indices 1 and 2 have the same colour, and are two things all the same.
        let palette: &[u8] = &[0, 0, 0, 200, 0, 0, 200, 0, 0, 0, 0, 0];
        for (depth, bytes) in [(BitDepth::Eight, vec![0, 1, 2, 3]), (BitDepth::Two, vec![0b0001_0000, 0b1011_0000])] {
            let indexed = write(&at("c.png"), ColorType::Indexed, depth, Some(palette), &bytes);
            assert_eq!(instances(&[indexed]).unwrap().unwrap().labels, [0, 1, 2, 3], "{depth:?}");
        }
    }

    #[test]
    fn a_mask_may_be_smaller_than_its_picture_but_not_of_another_shape() {
        let fits = |mask: (u32, u32), picture| {
            let labels = vec![1; (mask.0 * mask.1) as usize];
            let map = Map { width_px: mask.0, height_px: mask.1, labels };
            map.fitted(Path::new("a_mask.png"), "a.png", picture).map_err(|error| error.to_string())
        };
        for (mask, picture) in [((30, 20), (30, 20)), ((250, 167), (1000, 667)), ((1000, 667), (250, 166))] {
            let map = fits(mask, picture).unwrap();
            assert_eq!((map.width_px, map.height_px), picture);
        }
        for (mask, picture) in [((20, 30), (30, 20)), ((250, 160), (1000, 667)), ((100, 98), (100, 100))] {
            let error = fits(mask, picture).unwrap_err();
            assert!(error.contains("a_mask.png has") && error.contains("and a.png "), "{error}");
        }
    }

    #[test]
    fn what_is_no_png_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken_mask.png");
        std::fs::write(&path, "no picture").unwrap();
        for failed in [masks(std::slice::from_ref(&path)).map(drop), check(&[path])] {
            assert!(failed.unwrap_err().to_string().contains("broken_mask.png"));
        }
    }

    #[test]
    fn a_map_in_another_size_keeps_its_places() {
        let map = Map { width_px: 2, height_px: 1, labels: vec![3, 4] };
        assert_eq!(map.scaled(4, 2).labels, [3, 3, 4, 4, 3, 3, 4, 4]);
        assert_eq!(map.scaled(4, 2).scaled(2, 1), map);
    }
}
