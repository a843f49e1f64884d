//! Model bundles, admission, the engines that run them, and the reading of their answers.
//!
//! In: bundle files that anybody may have written, and tensors from preprocess. Out: [`Model`]s that serve, or the
//! reason why one does not; [`Answers`] for a tensor, and what they mean: scores, regions, measurements.
//! Promise: a [`Model`] exists only after its bundle's signature, its hashes and its golden vectors checked out on
//! this very machine and device (invariant 3); a bundle that fails is refused with a reason, never a crash of ours.
//!
//! ```text
//! BundleFiles::open -> Bundle::read (trust) -> Device::compile -> Model::admit -> Model::run ----> read::*
//!  opens, reads nothing   signature, hashes,     an Engine          golden vectors  tensor ->        Scores, regions,
//!                         bounds, graphs         a network                          probabilities    measurements
//! ```
//! Only `Bundle::read` and what follows it look at bytes, so a sandboxed process can be handed open files.

mod admission;
mod answer;
mod bundle;
mod eligibility;
mod engine;
mod model;
pub mod read;
mod trust;

pub use admission::{Admission, NetworkAdmission, Refusal};
pub use answer::{Answer, Answers, RunError, Shape};
pub use bundle::files::{BundleFiles, OpenBundleError};
pub use bundle::graph::GraphError;
pub use bundle::manifest::{Algorithm, Eligible, Golden, Labels, Manifest, ManifestError, Network, Tiles};
pub use bundle::output::{
    Bands, Binary, Class, Classes, Gate, GateOutcome, GateReason, Heat, Kind, Mask, Nuclei, Ordinal, Output,
};
pub use bundle::{BUNDLE_BYTES_MAX, Bundle, BundleError, Graph};
pub use eligibility::{NO_ELIGIBLE_MODEL, NotSelected, select};
pub use engine::{Device, DeviceError, Engine, EngineError, GOLDEN_ONLY};
pub use model::Model;
pub use trust::{TrustError, TrustedKey};
