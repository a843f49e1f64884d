//! One picture through all networks of a bundle, in the order of its file.
//!
//! In: a frame. Out: its verdict, with regions and measurements in the look. Promise: a gate that turns the picture away
//! ends it before anything else is told, and so does a picture that is not good enough.

use super::look::{Look, Stop, finite};
use super::windows::{self, Counted};
use crate::protocol::Step;
use fovea_core::{Frame, FrameGeometry, Reason, Region, Roi, RoiMethod, Verdict};
use fovea_infer::read::{self, Place};
use fovea_infer::{Answers, Kind, Manifest};
use fovea_preprocess::{Picture, PreprocessError};

/// Answers of all networks, in their order; empty for those that see windows.
pub struct Answered {
    pub networks: Vec<Answers>,
    /// Where each looked.
    rois: Vec<Roi>,
}

/// Reads a whole frame.
pub fn read(look: &mut Look<'_>, frame: &Frame, geometry: &FrameGeometry) -> Result<Verdict, Stop> {
    let picture = Picture::of(frame);
    let size_px = (frame.width_px(), frame.height_px());
    let answered = networks(look, &picture, geometry, true)?;
    let counted = windows::count(look, &picture, size_px, geometry)?;
    tell(look, &answered, counted, size_px, geometry)
}

/// Runs the networks that look at the whole picture. `measured`: whether the picture's worth is taken down and judged.
pub fn networks(
    look: &mut Look<'_>,
    picture: &Picture<'_>,
    geometry: &FrameGeometry,
    measured: bool,
) -> Result<Answered, Stop> {
    let count = look.model().manifest().networks.len();
    let mut answered = Answered { networks: Vec::with_capacity(count), rois: Vec::with_capacity(count) };
    for network in 0..count {
        let (mut answers, mut roi) = (Answers::new(), Roi { x: 0, y: 0, side: 1 });
        if look.model().manifest().networks[network].input.roi != RoiMethod::Window {
            look.step(Step::Preprocess);
            roi = prepare(look, network, picture, geometry, measured)?;
            answers = look.run(network)?;
            let owner = &look.model().manifest().networks[network];
            let (fit, gated) = (read::fit_probability(owner, &answers), read::gate(owner, &answers));
            look.fit_probability = look.fit_probability.or(fit);
            if let Some(gated) = gated {
                return Err(Stop::Gated(gated));
            }
        }
        answered.networks.push(answers);
        answered.rois.push(roi);
    }
    Ok(answered)
}

/// Makes the tensor of one network; the square that it shows.
fn prepare(
    look: &mut Look<'_>,
    network: usize,
    picture: &Picture<'_>,
    geometry: &FrameGeometry,
    measured: bool,
) -> Result<Roi, Stop> {
    let owner = look.model().manifest().networks[network].clone();
    let mut tensor = std::mem::take(look.tensor);
    let prepared = look.timed(
        |times| &mut times.preprocess_us,
        || match measured {
            true => {
                picture.prepare(geometry, &owner.input, &mut tensor).map(|prepared| (prepared.roi, prepared.quality))
            }
            false => picture.tensor(geometry, &owner.input, &mut tensor).map(|roi| (roi, Default::default())),
        },
    );
    *look.tensor = tensor;
    let (roi, quality) = prepared.map_err(stop)?;
    if measured {
        let quality = finite(quality);
        let reason = fovea_preprocess::check(&quality, &owner.quality);
        // The first network's view of the picture is what is told of it.
        if look.answer.quality.is_empty() {
            look.answer.quality = quality;
        }
        if let Some(reason) = reason {
            return Err(Stop::Ungradable(reason));
        }
    }
    Ok(roi)
}

/// What a picture that cannot be prepared ends in.
pub fn stop(error: PreprocessError) -> Stop {
    if error.is_ungradable() { Stop::Ungradable(error.reason()) } else { Stop::Failed(error.reason()) }
}

/// Turns answers into the verdict, regions and measurements.
fn tell(
    look: &mut Look<'_>,
    answered: &Answered,
    counted: Option<Counted>,
    (width_px, height_px): (u32, u32),
    geometry: &FrameGeometry,
) -> Result<Verdict, Stop> {
    let manifest = look.model().manifest().clone();
    let scores = read::scores(&manifest, &answered.networks).ok_or_else(no_answer)?;
    look.level = read::level(&manifest, &answered.networks);
    look.answer.measurements.extend(read::level_measurement(&manifest, &answered.networks));
    let is_clear = scores.probability < scores.clear_below;
    for (network, output, told) in manifest.outputs() {
        let Some(answer) = answered.networks[network].get(output) else { continue };
        let method = manifest.networks[network].input.roi;
        let shown = fovea_preprocess::shown(method, geometry, (width_px, height_px));
        let place = Place { roi: answered.rois[network], shown, width_px, height_px, geometry: *geometry };
        match &told.kind {
            Kind::Mask(mask) => {
                if look.with_maps && look.mask.is_none() {
                    look.mask = Some(read::mask_as_told(mask, answer, &place));
                }
                let regions = read::mask(mask, answer, &place);
                if let Some(reason) = read::missing(mask, &regions) {
                    return Err(Stop::Ungradable(reason.clone()));
                }
                look.answer.regions.extend(regions);
            }
            Kind::Heat(heat) if !is_clear => {
                let regions: Vec<Region> = read::heat(heat, answer, &place);
                look.answer.regions.extend(regions);
            }
            _ => {}
        }
    }
    if let Some(counted) = counted {
        look.answer.measurements.extend(counted.measurements(&manifest));
        look.nuclei = counted.labels;
    }
    Ok(Verdict::Scored(scores))
}

/// Of a checked manifest one output is the main one; its network ran.
pub fn no_answer() -> Stop {
    Stop::Failed(Reason::new("model_failed", "the model gave no main answer", ""))
}

/// The place of the network that sees windows, none where a bundle has none.
pub fn window_network(manifest: &Manifest) -> Option<usize> {
    manifest.networks.iter().position(|network| network.input.roi == RoiMethod::Window)
}
