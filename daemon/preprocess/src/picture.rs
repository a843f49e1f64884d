//! A frame as it is looked at: in 8 bits, once, however many questions are asked of it.
//!
//! In: a [`Frame`]. Out: tensors, where they were cut from, what the picture is worth, how much of it is tissue.

use crate::disc::{self, Disc};
use crate::pixels::EightBit;
use crate::{Prepared, PreprocessError, check_spec, planes, quality};
use fovea_core::{Frame, FrameGeometry, InputSpec, PixelBox, Pixels, Roi, RoiMethod};
use fovea_kernels::Isa;
use fovea_kernels::area::{AreaError, Image, SIDE_PX_MAX, Window, resize_f32_planar, resize_u8};

/// Side of the copy on which tissue is told from glass, pixels: lumens and cracks of some 20 micrometres still count for
/// themselves, single noisy pixels do not.
const TISSUE_SIDE_PX: usize = 64;
/// From this difference of the strongest and the weakest channel on, levels of 255, a pixel is stained: glass is nearly
/// gray even under a yellow lamp, pale eosin is twice as far from it.
const STAINED_FROM: u8 = 22;
/// Below this strongest channel a pixel is black: the edge of the glass, a fold of the cover, no light.
const BLACK_BELOW: u8 = 30;

/// A frame in 8 bits, gray or RGB.
pub struct Picture<'a> {
    width_px: u32,
    height_px: u32,
    pixels: EightBit<'a>,
}

/// What is looked at: an image, and where in the frame its first pixel is.
struct Look<'a> {
    image: Image<'a>,
    size_px: (u32, u32),
    origin: (u32, u32),
    roi: Roi,
    disc: Option<Disc>,
}

impl<'a> Picture<'a> {
    /// Borrows frames of 8 bits. Deeper ones are brought to 8 bits by full scale (see [`fovea_core::Pixels`]):
    /// `0..=2^bits - 1` becomes `0..=255`, rounded; signed samples likewise from `-2^(bits-1)`. Values beyond full scale
    /// are cut to it.
    #[must_use]
    pub fn of(frame: &'a Frame) -> Self {
        Self { width_px: frame.width_px(), height_px: frame.height_px(), pixels: EightBit::of(frame) }
    }

    /// Finds the region of interest, measures it and writes the model's tensor.
    ///
    /// - `out`: becomes `channels x height_px x width_px` elements, planar (NCHW, N = 1), as [`InputSpec`] says. The region
    ///   is a square; where the input is not one, it is stretched. Averages are not rounded to whole levels on the way.
    /// - A gray frame gives three equal channels to a colour model; an RGB frame gives its BT.601 luminance to a gray one.
    ///
    /// # Errors
    /// [`PreprocessError`]; `out` then holds what it held. Windows are not found but given: see [`Self::cut`].
    pub fn prepare(
        &self,
        geometry: &FrameGeometry,
        spec: &InputSpec,
        out: &mut Vec<f32>,
    ) -> Result<Prepared, PreprocessError> {
        let mut store = Vec::new();
        let look = self.look(geometry, spec, &mut store)?;
        let quality = quality::measure(Isa::best(), &look.image, look.size_px, look.roi, look.disc.as_ref());
        let quality = quality.map_err(|source| self.too_large(source))?;
        self.write(&look.image, look.roi, spec, out)?;
        Ok(Prepared { roi: look.roi_in_frame(), quality })
    }

    /// The same without measuring: only the tensor, and where it was cut from.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn tensor(
        &self,
        geometry: &FrameGeometry,
        spec: &InputSpec,
        out: &mut Vec<f32>,
    ) -> Result<Roi, PreprocessError> {
        let mut store = Vec::new();
        let look = self.look(geometry, spec, &mut store)?;
        self.write(&look.image, look.roi, spec, out)?;
        Ok(look.roi_in_frame())
    }

    /// Writes the tensor of a square of the frame; what lies outside the frame is black. The scale follows from the
    /// square's side and the input's; `spec.roi` is not asked.
    ///
    /// # Errors
    /// [`PreprocessError::Spec`] and [`PreprocessError::Resize`]; `out` then holds what it held.
    pub fn cut(&self, square: Roi, spec: &InputSpec, out: &mut Vec<f32>) -> Result<(), PreprocessError> {
        check_spec(spec)?;
        let image = self.image()?;
        self.write(&image, square, spec, out)
    }

    /// The frame in another size, as a frame of 8 bits: each pixel the mean of what it covers, rounded to a whole level.
    /// Where a side is shorter than `least_px` asks, the picture goes on mirrored at its last pixel (d c b a | b c d),
    /// to the right and below.
    ///
    /// # Errors
    /// [`PreprocessError::Resize`] for sides that the kernels do not take.
    pub fn resized(&self, size_px: (u32, u32), least_px: (u32, u32)) -> Result<Frame, PreprocessError> {
        let image = self.image()?;
        let channels = image.channels();
        let too_large = |source| self.too_large(source);
        let (width, height) = size_px;
        let sides = 1..=SIDE_PX_MAX;
        if let Some(side_px) = [width, height].into_iter().find(|side| !sides.contains(side)) {
            return Err(too_large(AreaError::Side { side_px }));
        }
        let mut samples = vec![0; width as usize * height as usize * channels];
        let whole = Window { x_px: 0, y_px: 0, width_px: self.width_px, height_px: self.height_px };
        if size_px == (self.width_px, self.height_px) {
            samples.copy_from_slice(&self.pixels.samples);
        } else {
            resize_u8(Isa::best(), &image, whole, width, height, &mut samples).map_err(too_large)?;
        }
        let (full_width, full_height) = (width.max(least_px.0), height.max(least_px.1));
        if (full_width, full_height) != size_px {
            let mirrored = |y: u32| {
                let row = &samples[mirror(y, height) * width as usize * channels..];
                (0..full_width).flat_map(move |x| &row[mirror(x, width) * channels..][..channels])
            };
            samples = (0..full_height).flat_map(mirrored).copied().collect();
        }
        let pixels = if channels == 3 { Pixels::Rgb8(samples) } else { Pixels::Gray8(samples) };
        Frame::new(full_width, full_height, pixels).map_err(|_| too_large(AreaError::Side { side_px: full_width }))
    }

    /// The share of the frame that is stained tissue, 0 to 1: neither glass, which is nearly gray, nor black. A gray frame
    /// has none. Made for hematoxylin and eosin under white light.
    ///
    /// # Errors
    /// [`PreprocessError::Resize`] for a frame larger than the kernels take.
    pub fn tissue_share(&self) -> Result<f64, PreprocessError> {
        let image = self.image()?;
        let channels = image.channels();
        let mut pixels = vec![0; TISSUE_SIDE_PX * TISSUE_SIDE_PX * channels];
        let whole = Window { x_px: 0, y_px: 0, width_px: self.width_px, height_px: self.height_px };
        let side = TISSUE_SIDE_PX as u32;
        resize_u8(Isa::best(), &image, whole, side, side, &mut pixels).map_err(|source| self.too_large(source))?;
        let stained = pixels.chunks_exact(channels).filter(|pixel| {
            let (low, high) = pixel.iter().fold((u8::MAX, 0), |(low, high), value| (low.min(*value), high.max(*value)));
            high - low >= STAINED_FROM && high >= BLACK_BELOW
        });
        Ok(stained.count() as f64 / (TISSUE_SIDE_PX * TISSUE_SIDE_PX) as f64)
    }

    fn look<'s>(
        &'s self,
        geometry: &FrameGeometry,
        spec: &InputSpec,
        store: &'s mut Vec<u8>,
    ) -> Result<Look<'s>, PreprocessError> {
        check_spec(spec)?;
        let size_px = (self.width_px, self.height_px);
        let image = self.image()?;
        let plain = |roi| Look { image, size_px, origin: (0, 0), roi, disc: None };
        Ok(match (spec.roi, geometry.ultrasound_field_px) {
            (RoiMethod::RetinaDisc, _) => {
                let disc = disc::find(Isa::best(), &image, self.width_px, self.height_px)?;
                let roi = square_around(&disc);
                Look { disc: Some(disc), ..plain(roi) }
            }
            (RoiMethod::InnerSquare, _) => plain(square_inside(size_px)),
            (RoiMethod::UltrasoundField, Some(_)) => {
                let field = shown(spec.roi, geometry, size_px);
                let samples = self.pixels.part(self.width_px, field);
                *store = samples;
                let size_px = (field.width, field.height);
                let image = Image::new(store, field.width, field.height, self.pixels.channels);
                let image = image.map_err(|source| self.too_large(source))?;
                Look { image, size_px, origin: (field.x, field.y), roi: square_of(size_px), disc: None }
            }
            (RoiMethod::FullFrame | RoiMethod::UltrasoundField, _) => plain(square_of(size_px)),
            (RoiMethod::Window, _) => {
                return Err(PreprocessError::Spec { what: "windows are cut one by one, not looked for" });
            }
        })
    }

    fn write(&self, image: &Image<'_>, roi: Roi, spec: &InputSpec, out: &mut Vec<f32>) -> Result<(), PreprocessError> {
        // Before `out` is touched.
        if !(1..=SIDE_PX_MAX).contains(&roi.side) {
            return Err(self.too_large(AreaError::Side { side_px: roi.side }));
        }
        let planes = planes(spec, self.pixels.channels);
        let (width, height) = (spec.width_px, spec.height_px);
        out.resize(planes.len() * width as usize * height as usize, 0.0);
        resize_f32_planar(Isa::best(), image, window(roi), width, height, &planes, out)
            .map_err(|source| self.too_large(source))
    }

    fn image(&self) -> Result<Image<'_>, PreprocessError> {
        Image::new(&self.pixels.samples, self.width_px, self.height_px, self.pixels.channels)
            .map_err(|source| self.too_large(source))
    }

    fn too_large(&self, source: AreaError) -> PreprocessError {
        PreprocessError::Resize { width_px: self.width_px, height_px: self.height_px, source }
    }
}

impl Look<'_> {
    fn roi_in_frame(&self) -> Roi {
        // Both lie inside a frame whose sides the kernels take: far inside an i32.
        Roi { x: self.roi.x + self.origin.0 as i32, y: self.roi.y + self.origin.1 as i32, side: self.roi.side }
    }
}

impl EightBit<'_> {
    /// A copy of the pixels inside a box, which lies in the frame of `width` columns.
    fn part(&self, width: u32, part: PixelBox) -> Vec<u8> {
        let row = |y: u32| {
            let start = (y as usize * width as usize + part.x as usize) * self.channels;
            &self.samples[start..start + part.width as usize * self.channels]
        };
        (part.y..part.y + part.height).flat_map(row).copied().collect()
    }
}

/// The part of a frame of columns x rows pixels that a network sees: of what its square holds beside it, all is black. The box
/// of an ultrasound scan that the object states, cut to the frame, where that is asked for; else, and where it is
/// empty, the whole frame.
#[must_use]
pub fn shown(roi: RoiMethod, geometry: &FrameGeometry, (width, height): (u32, u32)) -> PixelBox {
    let whole = PixelBox { x: 0, y: 0, width, height };
    let (RoiMethod::UltrasoundField, Some(field)) = (roi, geometry.ultrasound_field_px) else { return whole };
    let right = field.x.saturating_add(field.width).min(width);
    let bottom = field.y.saturating_add(field.height).min(height);
    if field.x >= right || field.y >= bottom {
        return whole;
    }
    PixelBox { width: right - field.x, height: bottom - field.y, ..field }
}

/// The pixel that is seen at `at` of a row of `length` pixels that goes on mirrored at both ends.
fn mirror(at: u32, length: u32) -> usize {
    let (at, last) = (u64::from(at), u64::from(length - 1));
    let place = if last == 0 { 0 } else { at % (2 * last) };
    place.min(2 * last - place) as usize
}

/// A region as the kernels name it.
pub(crate) fn window(roi: Roi) -> Window {
    Window { x_px: roi.x.into(), y_px: roi.y.into(), width_px: roi.side, height_px: roi.side }
}

/// The bounding square of the fitted circle, on whole pixels.
fn square_around(disc: &Disc) -> Roi {
    let side = (2.0 * disc.circle.radius).round().max(1.0);
    // The finder keeps centre and radius within a few sides of the frame: far inside an i32.
    let corner = |centre: f64| (centre - side / 2.0).round() as i32;
    Roi { x: corner(disc.circle.x), y: corner(disc.circle.y), side: side as u32 }
}

/// The picture and, above and below or left and right of it, as much black as makes it a square.
fn square_of((width_px, height_px): (u32, u32)) -> Roi {
    let side = width_px.max(height_px);
    // Sides beyond the kernels' bound are refused there; below it the halves fit.
    let before = |length: u32| -(((side - length) / 2) as i32);
    Roi { x: before(width_px), y: before(height_px), side }
}

/// The largest square around the middle; of an odd rest the smaller half is left of it and above it.
fn square_inside((width_px, height_px): (u32, u32)) -> Roi {
    let side = width_px.min(height_px);
    let before = |length: u32| ((length - side) / 2) as i32;
    Roi { x: before(width_px), y: before(height_px), side }
}
