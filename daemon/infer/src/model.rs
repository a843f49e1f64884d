//! A model that serves: a bundle that was admitted, with the engines that run its networks.
//! In: tensors that preprocess made for a network's [`fovea_core::InputSpec`]. Out: [`Answers`].
//! Promise: it was admitted on this machine; its answers are finite and calibrated.

use crate::admission::{Admission, Refusal, admit};
use crate::answer::{Answers, RunError, Shape, activate};
use crate::bundle::manifest::Manifest;
use crate::{Bundle, Device, Engine};
use fovea_core::ModelRef;

/// An admitted model.
pub struct Model {
    reference: ModelRef,
    admission: Admission,
    device: &'static str,
    networks: Networks,
}

impl Model {
    /// Compiles a bundle on `device` and runs its golden vectors there.
    ///
    /// # Errors
    /// [`Refusal`] says why the bundle does not serve.
    pub fn admit(bundle: Bundle, device: &mut Device) -> Result<Self, Refusal> {
        let engines = (0..bundle.graphs.len()).map(|network| device.compile(&bundle, network));
        let engines: Vec<_> = engines.collect::<Result<_, _>>()?;
        let shapes = bundle.graphs.iter().map(|graph| graph.shapes.clone()).collect();
        let reference = bundle.model_ref();
        let mut networks = Networks { manifest: bundle.manifest, shapes, engines };
        let admission = admit(&mut networks, &bundle.graphs)?;
        Ok(Self { reference, admission, device: device.name(), networks })
    }

    /// What the bundle says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.networks.manifest
    }

    /// How results name it.
    #[must_use]
    pub fn reference(&self) -> &ModelRef {
        &self.reference
    }

    /// What admission measured.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Where it runs, for instance `CPU`.
    #[must_use]
    pub fn device(&self) -> &'static str {
        self.device
    }

    /// Shapes of a network's outputs, in the order of the manifest; none where there is no such network.
    #[must_use]
    pub fn shapes(&self, network: usize) -> Option<&[Shape]> {
        self.networks.shapes.get(network).map(Vec::as_slice)
    }

    /// Runs one network on a tensor made for its input.
    ///
    /// - `network`: its place in the manifest, from 0.
    /// - `tensor`: float32, planar (N = 1, C, H, W), as long as the network's input.
    ///
    /// # Errors
    /// [`RunError`]; the model stays usable.
    pub fn run(&mut self, network: usize, tensor: &[f32]) -> Result<Answers, RunError> {
        self.networks.run(network, tensor)
    }
}

/// Compiled networks; admission runs them before there is a [`Model`].
pub(crate) struct Networks {
    pub manifest: Manifest,
    shapes: Vec<Vec<Shape>>,
    engines: Vec<Box<dyn Engine>>,
}

impl Networks {
    pub fn run(&mut self, network: usize, tensor: &[f32]) -> Result<Answers, RunError> {
        let none = RunError::NoNetwork { network };
        let (Some(engine), Some(shapes)) = (self.engines.get_mut(network), self.shapes.get(network)) else {
            return Err(none);
        };
        let raw = engine.infer(tensor)?;
        activate(&self.manifest.networks[network].outputs, shapes, raw)
    }
}
