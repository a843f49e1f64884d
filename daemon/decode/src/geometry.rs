//! What an object states of the size of its pixels. Nothing is guessed: what is not stated of the object itself is none.
//!
//! In: a read header. Out: [`FrameGeometry`]. What counts, the first that is there:
//! - Sequence of Ultrasound Regions (0018,6011): exactly one region of 2D tissue, both axes in centimetres, both steps
//!   positive. Two tissue regions (a split screen) have no common scale that could be told from here, and a region of
//!   flow, M-mode or spectrum is no tissue. An object with this sequence is measured by it or not at all.
//! - Pixel Measures (0028,9110) of the Shared Functional Groups: by definition of the plane that is shown.
//! - Pixel Spacing (0028,0030), where it is of the object: with Pixel Spacing Calibration Type (0028,0A02), which says
//!   that somebody measured it; with Image Orientation (Patient) (0020,0037), which only slices through a body have; or
//!   in pictures through a microscope, where nothing else could be meant. Elsewhere it may be of a detector or nominal
//!   (PS3.3 section 10.7.1.3; a photograph of a retina states the spacing of a nominal eye), so it is not used.
//! - Imager Pixel Spacing (0018,1164) never: it is of the detector, and nobody knows the magnification.
//!
//! Standard: PS3.3 sections C.8.5.5, C.7.6.16.2.1 and 10.7.

use crate::DecodeError;
use crate::header::Header;
use crate::walk::{Element, Walk};
use fovea_core::{FrameGeometry, PixelBox, PixelSize, sop_class};

/// More regions than any screen shows: the rest is walked over, and with a rest there is no geometry.
const REGIONS_MAX: usize = 32;
/// Sizes of a pixel that can be, millimetres: a tenth of what light resolves to more than any picture of a body needs.
const PIXEL_MM: std::ops::RangeInclusive<f64> = 1e-5..=20.0;
/// Longest text of a spacing: two decimal strings of 16 characters, some writers use more.
const SPACING_BYTES_MAX: u32 = 80;

/// One item of the Sequence of Ultrasound Regions, as it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UltrasoundRegion {
    /// (0018,6012): 1 is 2D.
    format: Option<u16>,
    /// (0018,6014): 1 is tissue.
    kind: Option<u16>,
    /// (0018,6018), (0018,601A), (0018,601C), (0018,601E): left, top, right, bottom, pixels, all inside.
    corners: [Option<u32>; 4],
    /// (0018,6024), (0018,6026): 3 is centimetres.
    units: [Option<u16>; 2],
    /// (0018,602C), (0018,602E): units for each pixel to the right, and down.
    steps: [Option<f64>; 2],
}

impl UltrasoundRegion {
    /// Reads the regions, at most one more than can be used; and where the sequence ends.
    pub(crate) fn read_all(walk: &Walk<'_>, element: &Element) -> Result<(Vec<Self>, u64), DecodeError> {
        let mut regions: Vec<Self> = Vec::new();
        let behind = walk.sequence(element, 0, &mut |item, element, walk| {
            let item = item as usize;
            if item <= REGIONS_MAX {
                if regions.len() <= item {
                    regions.resize(item + 1, Self::default());
                }
                regions[item].read(walk, element)?;
            }
            Ok(None)
        })?;
        Ok((regions, behind))
    }

    fn read(&mut self, walk: &Walk<'_>, element: &Element) -> Result<(), DecodeError> {
        let short = || Ok::<_, DecodeError>(walk.fixed(element)?.map(u16::from_le_bytes));
        let long = || Ok::<_, DecodeError>(walk.fixed(element)?.map(u32::from_le_bytes));
        let double = || Ok::<_, DecodeError>(walk.fixed(element)?.map(f64::from_le_bytes));
        match element.tag {
            0x0018_6012 => self.format = short()?,
            0x0018_6014 => self.kind = short()?,
            0x0018_6018 => self.corners[0] = long()?,
            0x0018_601A => self.corners[1] = long()?,
            0x0018_601C => self.corners[2] = long()?,
            0x0018_601E => self.corners[3] = long()?,
            0x0018_6024 => self.units[0] = short()?,
            0x0018_6026 => self.units[1] = short()?,
            0x0018_602C => self.steps[0] = double()?,
            0x0018_602E => self.steps[1] = double()?,
            _ => {}
        }
        Ok(())
    }

    fn is_tissue(&self) -> bool {
        (self.format, self.kind) == (Some(1), Some(1))
    }

    /// Its part of the frame; none where it begins outside or is turned round. Some devices count one pixel too many.
    fn field(&self, columns: u32, rows: u32) -> Option<PixelBox> {
        let [left, top, right, bottom] = self.corners;
        let (x, y) = (left?, top?);
        let (right, bottom) = (right?.min(columns - 1), bottom?.min(rows - 1));
        (x < right && y < bottom).then(|| PixelBox { x, y, width: right - x + 1, height: bottom - y + 1 })
    }

    fn pixel_size(&self) -> Option<PixelSize> {
        let [Some(right), Some(down)] = self.steps else { return None };
        if self.units == [Some(3); 2] { size(right * 10.0, down * 10.0) } else { None }
    }
}

/// A spacing as it stands: between rows, then between columns.
#[derive(Debug, Default)]
pub(crate) struct Spacings {
    text: Option<String>,
}

impl Spacings {
    /// Reads Pixel Spacing of Pixel Measures out of the shared groups; where they end.
    pub(crate) fn read_shared(&mut self, walk: &Walk<'_>, element: &Element) -> Result<u64, DecodeError> {
        walk.sequence(element, 0, &mut |_, group, walk| {
            if group.tag != 0x0028_9110 {
                return Ok(None);
            }
            let behind = walk.sequence(group, 1, &mut |_, element, walk| {
                if element.tag == 0x0028_0030 && self.text.is_none() {
                    self.text = walk.text(element, SPACING_BYTES_MAX)?;
                }
                Ok(None)
            })?;
            Ok(Some(behind))
        })
    }
}

/// The geometry of an object with frames of `columns` x `rows` pixels.
pub(crate) fn geometry(header: &Header, columns: u32, rows: u32) -> FrameGeometry {
    if let Some(regions) = &header.ultrasound {
        let mut tissue = regions.iter().filter(|region| region.is_tissue());
        return match (tissue.next(), tissue.next()) {
            (Some(region), None) if regions.len() <= REGIONS_MAX => {
                let field = region.field(columns, rows);
                // A region without a place cannot say where its scale holds.
                let pixel_size = field.and(region.pixel_size());
                FrameGeometry { pixel_size, ultrasound_field_px: field }
            }
            _ => FrameGeometry::default(),
        };
    }
    let spacing = match &header.pixel_measures.text {
        Some(text) => Some(text.as_str()),
        None if is_of_the_object(header) => header.text(0x0028_0030),
        None => None,
    };
    FrameGeometry { pixel_size: spacing.and_then(spacing_of), ultrasound_field_px: None }
}

/// Whether Pixel Spacing is of what the picture shows.
fn is_of_the_object(header: &Header) -> bool {
    let class = header.text(0x0008_0016);
    header.text(0x0028_0A02).is_some_and(|kind| !kind.is_empty())
        || header.text(0x0020_0037).is_some_and(|orientation| !orientation.is_empty())
        || [sop_class::VL_MICROSCOPIC, sop_class::VL_SLIDE_MICROSCOPIC].map(Some).contains(&class)
}

/// `rows\columns`, millimetres.
fn spacing_of(text: &str) -> Option<PixelSize> {
    let (rows, columns) = text.split_once('\\')?;
    size(columns.trim().parse().ok()?, rows.trim().parse().ok()?)
}

/// None where a side is no size that a pixel can have; negative, zero, infinite and no number among them.
fn size(width_mm: f64, height_mm: f64) -> Option<PixelSize> {
    let possible = PIXEL_MM.contains(&width_mm) && PIXEL_MM.contains(&height_mm);
    possible.then_some(PixelSize { width_mm, height_mm })
}
