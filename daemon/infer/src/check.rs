//! The whole check of one bundle, for `foveactl models check`: what admission would say, without serving anything.
//! In: a bundle, keys and a device. Out: a report. Promise: the same code as admission in the worker, but not shut in:
//! call it for bundles that you would install.

use crate::{Admission, Bundle, Device, Manifest, Model, Refusal, TrustedKey};
use fovea_core::{ModelRef, Reason};
use serde::Serialize;
use std::path::Path;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Whose results it would be; none when the bundle could not be read.
    pub model: Option<ModelRef>,
    /// What it answers.
    pub task: Option<String>,
    /// What admission measured; none when it was refused.
    pub admission: Option<Admission>,
    /// Why it would not serve.
    pub refused: Option<Reason>,
    /// Where it was tried.
    pub device: String,
}

/// Checks signature, hashes, bounds, graph and golden vectors of a bundle on `device`.
#[must_use]
pub fn check(path: &Path, trust: &[TrustedKey], device: &mut Device) -> CheckReport {
    let mut report =
        CheckReport { model: None, task: None, admission: None, refused: None, device: device.name().to_owned() };
    let outcome = Bundle::open(path, trust).map_err(Refusal::from).and_then(|bundle| {
        let Manifest { task, .. } = &bundle.manifest;
        report.task = Some(task.clone());
        report.model = Some(bundle.model_ref());
        Model::admit(bundle, device)
    });
    match outcome {
        Ok(model) => report.admission = Some(model.admission()),
        Err(refusal) => report.refused = Some(refusal.reason()),
    }
    report
}
