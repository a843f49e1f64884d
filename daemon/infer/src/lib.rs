//! Model bundles, admission and the engines that run them.
//!
//! In: bundle files that anybody may have written, and tensors from preprocess. Out: [`Model`]s that serve, or the
//! reason why one does not; [`fovea_core::Scores`] for a tensor.
//! Promise: a [`Model`] exists only after its bundle's signature, its hashes and its golden vectors checked out on
//! this very machine and device (invariant 3); a bundle that fails is refused with a reason, never a crash of ours.
//!
//! ```text
//! BundleFiles::open -> Bundle::read (trust) -> Device::compile -> Model::admit -> Model::scores
//!  opens, reads nothing   signature, hashes,     an Engine          golden vectors     tensor -> Scores
//!                         bounds, graph
//! ```
//! Only `Bundle::read` and what follows it look at bytes, so a sandboxed process can be handed open files.

mod admission;
mod bundle;
mod eligibility;
mod engine;
mod model;
mod trust;

pub use admission::{Admission, Refusal};
pub use bundle::files::{BundleFiles, OpenBundleError};
pub use bundle::graph::GraphError;
pub use bundle::manifest::{Algorithm, Eligible, Golden, Manifest, ManifestError, Output};
pub use bundle::{Bundle, BundleError};
pub use eligibility::{NO_ELIGIBLE_MODEL, NotSelected, select};
pub use engine::{Device, DeviceError, Engine, EngineError, GOLDEN_ONLY};
pub use model::{Model, ScoresError};
pub use trust::{TrustError, TrustedKey};
