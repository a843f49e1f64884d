//! Networks that see windows: a picture is brought to their scale, covered with overlapping windows, and their maps are
//! put together again.
//!
//! In: a picture. Out: its nuclei. Promise: memory is bounded by the picture at the network's scale, at most
//! [`WORKING_PX_MAX`] a side; where the picture is too coarse for single nuclei none are counted and nothing is said of them.

use super::frame::{stop, window_network};
use super::grid::um_per_px;
use super::look::{Look, Stop};
use crate::protocol::Step;
use fovea_core::{FrameGeometry, Measurement, Reason, Roi};
use fovea_infer::read::{self, LabelMap, Part, Stitched};
use fovea_infer::{Kind, Manifest, Nuclei};
use fovea_preprocess::Picture;

/// Longest side of a picture at the network's scale, pixels.
const WORKING_PX_MAX: f64 = 4096.0;
/// Most times that a picture is enlarged to the network's scale: beyond, a nucleus is a handful of pixels.
const ENLARGED_MAX: f64 = 2.5;

/// Nuclei of one or several pictures.
#[derive(Default)]
pub struct Counted {
    /// Elements of each nucleus.
    pub areas: Vec<u32>,
    /// Elements in which they were looked for.
    pub looked_at: u64,
    /// Square micrometres of an element, where the object states its scale.
    pub element_um2: Option<f64>,
    /// In the frame, where maps are wanted.
    pub labels: Option<LabelMap>,
}

impl Counted {
    pub fn measurements(&self, manifest: &Manifest) -> Vec<Measurement> {
        let spec = window_network(manifest).and_then(|network| nuclei_spec(manifest, network));
        spec.map_or_else(Vec::new, |(_, spec)| {
            read::nuclei_measurements(spec, &self.areas, self.looked_at, self.element_um2)
        })
    }

    /// Takes in the nuclei of another picture of the same scale.
    pub fn add(&mut self, other: Self) {
        self.areas.extend(other.areas);
        self.looked_at += other.looked_at;
        self.element_um2 = self.element_um2.or(other.element_um2);
    }
}

/// The output with the maps of nuclei, and its place among the network's.
fn nuclei_spec(manifest: &Manifest, network: usize) -> Option<(usize, &Nuclei)> {
    let outputs = manifest.networks.get(network)?.outputs.iter().enumerate();
    outputs.into_iter().find_map(|(output, told)| match &told.kind {
        Kind::Nuclei(nuclei) => Some((output, nuclei)),
        _ => None,
    })
}

/// Counts nuclei in a picture of columns x rows pixels; none where the bundle counts none or the picture is too coarse.
pub fn count(
    look: &mut Look<'_>,
    picture: &Picture<'_>,
    size_px: (u32, u32),
    geometry: &FrameGeometry,
) -> Result<Option<Counted>, Stop> {
    let manifest = look.model().manifest();
    let Some(network) = window_network(manifest) else { return Ok(None) };
    let Some((output, spec)) = nuclei_spec(manifest, network).map(|(output, spec)| (output, spec.clone())) else {
        return Ok(None);
    };
    let owner = &manifest.networks[network];
    let (input, wanted_um) = (owner.input.clone(), owner.um_per_px);
    let factor = match (um_per_px(geometry), wanted_um) {
        (Some(um), Some(wanted)) => um / wanted,
        _ => 1.0,
    };
    let Some(working_px) = working_size(size_px, factor) else { return Ok(None) };
    let window = (input.width_px, input.height_px);
    if window.0 != window.1 {
        return Err(Stop::Failed(Reason::new("model_input_invalid", "windows must be square", "")));
    }
    look.step(Step::Preprocess);
    let working = look.timed(|times| &mut times.preprocess_us, || picture.resized(working_px, window)).map_err(stop)?;
    let working = Picture::of(&working);
    let mut stitched = Stitched::new(working_px.0, working_px.1, 2);
    for row in read::parts(working_px.1, window.1) {
        for column in read::parts(working_px.0, window.0) {
            run_window(look, network, &working, (&column, &row), &input)?
                .get(output)
                .map(|answer| stitched.put(&column, &row, answer))
                .ok_or_else(super::frame::no_answer)?;
        }
    }
    let [interior, border] = &stitched.planes[..] else { return Ok(None) };
    let map = read::nuclei(interior, border, stitched.width, &spec);
    let labels = look.with_maps.then(|| map.in_frame(size_px.0, size_px.1));
    // As the picture was really resized, not as it was meant to be.
    let element_um2 = geometry.pixel_size.map(|size| {
        let across = size.width_mm * f64::from(size_px.0) / f64::from(working_px.0);
        let down = size.height_mm * f64::from(size_px.1) / f64::from(working_px.1);
        across * down * 1e6
    });
    Ok(Some(Counted { looked_at: map.labels.len() as u64, areas: map.areas, element_um2, labels }))
}

fn run_window(
    look: &mut Look<'_>,
    network: usize,
    working: &Picture<'_>,
    (column, row): (&Part, &Part),
    input: &fovea_core::InputSpec,
) -> Result<fovea_infer::Answers, Stop> {
    // Inside a picture of at most WORKING_PX_MAX a side.
    let square = Roi { x: column.start as i32, y: row.start as i32, side: input.width_px };
    let mut tensor = std::mem::take(look.tensor);
    let cut = look.timed(|times| &mut times.preprocess_us, || working.cut(square, input, &mut tensor));
    *look.tensor = tensor;
    cut.map_err(stop)?;
    look.run(network)
}

/// Sides at the network's scale; none where a picture would have to be enlarged too much or becomes too large.
fn working_size((width, height): (u32, u32), factor: f64) -> Option<(u32, u32)> {
    let side = |length: u32| (f64::from(length) * factor).round();
    let (across, down) = (side(width), side(height));
    let possible = factor.is_finite()
        && factor <= ENLARGED_MAX
        && (1.0..=WORKING_PX_MAX).contains(&across)
        && (1.0..=WORKING_PX_MAX).contains(&down);
    // 1 to WORKING_PX_MAX.
    possible.then_some((across as u32, down as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_to_the_networks_scale_where_that_makes_sense() {
        assert_eq!(working_size((1536, 1000), 0.5), Some((768, 500)));
        assert_eq!(working_size((768, 768), 1.0), Some((768, 768)));
        for (size, factor) in [((768, 768), 4.0), ((5000, 10), 1.0), ((10, 10), 0.01), ((9, 9), f64::NAN)] {
            assert_eq!(working_size(size, factor), None, "{size:?} {factor}");
        }
    }

    #[test]
    fn nuclei_of_several_pictures_are_counted_together() {
        let one =
            |areas: &[u32]| Counted { areas: areas.to_vec(), looked_at: 100, element_um2: Some(0.25), labels: None };
        let mut all = Counted::default();
        all.add(one(&[3, 4]));
        all.add(one(&[5]));
        assert_eq!((all.areas, all.looked_at, all.element_um2), (vec![3, 4, 5], 200, Some(0.25)));
    }
}
