//! Masks as a site drew them: PNG files become maps of labels.
//!
//! In: `<stem>_mask.png` (what is not black is covered) and `<stem>_label.png` (each value or colour but black is one thing). Out:
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
    united(paths, false, |_, samples| Ok(u16::from(samples.iter().any(|sample| *sample != 0))))
}

/// The union of instance maps; none of no maps. The first one's size counts.
///
/// # Errors
/// [`TruthError`].
pub fn instances(paths: &[PathBuf]) -> Result<Option<Map>, TruthError> {
    united(paths, true, |colours, samples| match samples {
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

fn united(paths: &[PathBuf], apart: bool, read: Read) -> Result<Option<Map>, TruthError> {
    let mut united: Option<Map> = None;
    for path in paths {
        let map = open(path, read)?;
        match &mut united {
            None => united = Some(map),
            Some(united) => united.unite(&map.scaled(united.width_px, united.height_px), apart),
        }
    }
    Ok(united)
}

/// Reads a PNG; `label` makes a label of the samples of one pixel, without alpha.
fn open(path: &Path, label: Read) -> Result<Map, TruthError> {
    let failed = |source| TruthError::Read { path: path.to_owned(), source };
    let form = |problem: String| TruthError::Form { path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let mut decoder =
        png::Decoder::new_with_limits(BufReader::new(file), png::Limits { bytes: PIXELS_MAX as usize * 8 });
    // Palettes become colours, and less than 8 bits become 8.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width_px, height_px) = reader.info().size();
    let pixels = u64::from(width_px) * u64::from(height_px);
    if pixels == 0 || pixels > PIXELS_MAX {
        return Err(form(format!("has {pixels} pixels, the limit is {PIXELS_MAX}")));
    }
    let (colour, depth) = reader.output_color_type();
    let (all, kept) = match colour {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
        ColorType::Indexed => return Err(form("has a palette that cannot be read".to_owned())),
    };
    let wide = depth == png::BitDepth::Sixteen;
    let mut labels = Vec::with_capacity(pixels as usize);
    let mut colours = Colours::new();
    while let Some(row) = reader.next_row().map_err(failed)? {
        let samples: Vec<u16> = if wide {
            row.data().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
        } else {
            row.data().iter().copied().map(u16::from).collect()
        };
        for pixel in samples.chunks_exact(all) {
            labels.push(label(&mut colours, &pixel[..kept]).map_err(form)?);
        }
    }
    if labels.len() as u64 != pixels {
        return Err(form("is cut".to_owned()));
    }
    Ok(Map { width_px, height_px, labels })
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
            (ColorType::GrayscaleAlpha, BitDepth::Eight, None, vec![0, 255, 7, 255, 7, 0, 0, 255]),
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
    }

    #[test]
    fn what_is_no_png_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken_mask.png");
        std::fs::write(&path, "no picture").unwrap();
        assert!(masks(&[path]).unwrap_err().to_string().contains("broken_mask.png"));
    }

    #[test]
    fn a_map_in_another_size_keeps_its_places() {
        let map = Map { width_px: 2, height_px: 1, labels: vec![3, 4] };
        assert_eq!(map.scaled(4, 2).labels, [3, 3, 4, 4, 3, 3, 4, 4]);
        assert_eq!(map.scaled(4, 2).scaled(2, 1), map);
    }
}
