//! The join: object -> model -> frame -> tensor -> scores, inside the sandbox.
//! In: an open object, its routing facts, the admitted models. Out: one [`Analysis`], whatever the object is.
//! Promise: without an eligible model no byte of the object is read; each step is announced before it begins.

use crate::protocol::Step;
use fovea_core::{Analysis, Frame, ObjectHeader, Quality, Reason, StageTimes, Verdict};
use fovea_decode::{DecodeError, DecodeLimits};
use fovea_infer::{Model, NotSelected, select};
use std::fs::File;
use std::time::Instant;

/// An admitted model under the daemon's number for its bundle.
pub struct Served {
    pub slot: usize,
    pub model: Model,
}

/// Analyses one object. `announce` is told each step and the chosen model's slot.
///
/// `tensor` is scratch: kept by the caller, so that its memory is used again.
pub fn analyse(
    models: &mut [Served],
    object: File,
    header: &ObjectHeader,
    limits: DecodeLimits,
    tensor: &mut Vec<f32>,
    announce: &mut dyn FnMut(Step, usize),
) -> Analysis {
    let index = match select(models.iter().map(|served| served.model.manifest()), header) {
        Ok(index) => index,
        Err(NotSelected::NoModel(reason)) => return Analysis::not_analysed(reason),
        Err(NotSelected::TooSmall { index, reason }) => {
            let mut look = Look::begin(&models[index]);
            look.answer.verdict = Verdict::Ungradable(reason);
            return look.answer;
        }
    };
    let mut look = Look::begin(&models[index]);
    let served = &mut models[index];
    announce(Step::Decode, served.slot);
    let frame = match look.timed(|times| &mut times.decode_us, || decode(object, limits)) {
        Ok((frame, number)) => {
            look.answer.frame = number;
            frame
        }
        Err(error) => return look.not_analysed(error.reason()),
    };
    announce(Step::Preprocess, served.slot);
    let manifest = served.model.manifest();
    let prepared =
        look.timed(|times| &mut times.preprocess_us, || fovea_preprocess::prepare(&frame, &manifest.input, tensor));
    let reason = match prepared {
        Ok(prepared) => {
            look.answer.quality = finite(prepared.quality);
            fovea_preprocess::check(&look.answer.quality, &manifest.quality)
        }
        Err(error) if error.is_ungradable() => Some(error.reason()),
        Err(error) => return look.not_analysed(error.reason()),
    };
    if let Some(reason) = reason {
        look.answer.verdict = Verdict::Ungradable(reason);
        return look.answer;
    }
    // Dropped before the model runs: the frame may be the largest thing in memory.
    drop(frame);
    announce(Step::Infer, served.slot);
    match look.timed(|times| &mut times.infer_us, || served.model.scores(tensor)) {
        Ok(scores) => {
            look.answer.verdict = Verdict::Scored(scores);
            look.answer
        }
        Err(error) => look.not_analysed(Reason::new("model_failed", error.to_string(), "")),
    }
}

/// The frame that is looked at, and its number from 1: the middle one, which a clip's operator has settled on.
fn decode(object: File, limits: DecodeLimits) -> Result<(Frame, u32), DecodeError> {
    let mut object = fovea_decode::open(object, limits)?;
    let index = object.frames() / 2;
    Ok((object.frame(index)?, index + 1))
}

/// JSON has no word for what is not finite; preprocess promises that nothing is.
fn finite(quality: Quality) -> Quality {
    quality.into_iter().filter(|(_, measure)| measure.value.is_finite()).collect()
}

/// An answer in the making.
struct Look {
    answer: Analysis,
}

impl Look {
    fn begin(served: &Served) -> Self {
        let unfinished = Reason::new("not_finished", "the analysis did not finish", "");
        let answer = Analysis {
            task: served.model.manifest().task.clone(),
            model: Some(served.model.reference().clone()),
            device: Some(served.model.device().to_owned()),
            ..Analysis::not_analysed(unfinished)
        };
        Self { answer }
    }

    fn timed<T>(&mut self, time: fn(&mut StageTimes) -> &mut u64, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        *time(&mut self.answer.times) = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        done
    }

    /// No model answered, so none is named.
    fn not_analysed(mut self, reason: Reason) -> Analysis {
        self.answer.verdict = Verdict::NotAnalysed(reason);
        self.answer.model = None;
        self.answer.device = None;
        self.answer
    }
}
