//! An answer in the making, and how it ends.

use super::{Announce, Evaluation, Served};
use crate::protocol::Step;
use fovea_core::{Analysis, Quality, Reason, StageTimes, Verdict};
use fovea_infer::read::{Gated, LabelMap};
use fovea_infer::{Answers, GateOutcome, Model};
use std::time::Instant;

/// Why there are no scores.
pub enum Stop {
    /// A gate turned the picture away.
    Gated(Gated),
    /// The picture can be taken again.
    Ungradable(Reason),
    /// No model could answer, so none is named.
    Failed(Reason),
}

/// One object under one model.
pub struct Look<'a> {
    served: &'a mut Served,
    announce: Announce<'a>,
    /// Scratch for tensors.
    pub tensor: &'a mut Vec<f32>,
    /// The answer so far.
    pub answer: Analysis,
    /// Done and in all, of an object that is read field by field.
    pub fields: Option<(u32, u32)>,
    /// Whether the maps are wanted.
    pub with_maps: bool,
    pub fit_probability: Option<f64>,
    pub level: Option<u32>,
    pub mask: Option<LabelMap>,
    pub nuclei: Option<LabelMap>,
}

impl<'a> Look<'a> {
    pub fn begin(served: &'a mut Served, tensor: &'a mut Vec<f32>, announce: Announce<'a>, with_maps: bool) -> Self {
        let unfinished = Reason::new("not_finished", "the analysis did not finish", "");
        let answer = Analysis {
            task: served.model.manifest().task.clone(),
            model: Some(served.model.reference().clone()),
            device: Some(served.model.device().to_owned()),
            ..Analysis::not_analysed(unfinished)
        };
        Self {
            served,
            announce,
            tensor,
            answer,
            fields: None,
            with_maps,
            fit_probability: None,
            level: None,
            mask: None,
            nuclei: None,
        }
    }

    pub fn model(&self) -> &Model {
        &self.served.model
    }

    /// Says what comes next.
    pub fn step(&mut self, step: Step) {
        (self.announce)(step, self.served.slot, self.fields);
    }

    /// Does some work and adds its time to a stage's.
    pub fn timed<T>(&mut self, time: fn(&mut StageTimes) -> &mut u64, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(time, start);
        done
    }

    fn add(&mut self, time: fn(&mut StageTimes) -> &mut u64, start: Instant) {
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let sum = time(&mut self.answer.times);
        *sum = sum.saturating_add(took);
    }

    /// Runs a network on the tensor.
    pub fn run(&mut self, network: usize) -> Result<Answers, Stop> {
        self.step(Step::Infer);
        let start = Instant::now();
        let answers = self.served.model.run(network, self.tensor);
        self.add(|times| &mut times.infer_us, start);
        answers.map_err(|error| Stop::Failed(Reason::new("model_failed", error.to_string(), "")))
    }

    /// The end of the look.
    pub fn ended(mut self, done: Result<Verdict, Stop>) -> Evaluation {
        self.answer.verdict = match done {
            Ok(verdict) => verdict,
            Err(Stop::Gated(Gated { reason, outcome })) => {
                // The model itself said so: it stays named.
                self.answer.regions.clear();
                self.answer.measurements.clear();
                match outcome {
                    GateOutcome::Ungradable => Verdict::Ungradable(reason),
                    GateOutcome::NotAnalysed => Verdict::NotAnalysed(reason),
                }
            }
            Err(Stop::Ungradable(reason)) => {
                self.answer.regions.clear();
                self.answer.measurements.clear();
                Verdict::Ungradable(reason)
            }
            Err(Stop::Failed(reason)) => {
                self.answer.regions.clear();
                self.answer.measurements.clear();
                self.answer.model = None;
                self.answer.device = None;
                Verdict::NotAnalysed(reason)
            }
        };
        Evaluation {
            analysis: self.answer,
            fit_probability: self.fit_probability,
            level: self.level,
            mask: self.mask,
            nuclei: self.nuclei,
            in_fields: self.fields.is_some(),
        }
    }
}

/// JSON has no word for what is not finite; preprocess promises that nothing is.
pub fn finite(quality: Quality) -> Quality {
    quality.into_iter().filter(|(_, measure)| measure.value.is_finite()).collect()
}
