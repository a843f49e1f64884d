//! The sandboxed process that joins decode, preprocess and infer, and the client that restarts it.
//!
//! In: objects as open files, with the routing facts that receive took from them. Out: one
//! [`fovea_core::Analysis`] for each, and pictures as plain RGB for the review page.
//! Promise: no untrusted pixel and no model is parsed in the daemon's own process; the worker can die at any moment
//! and the object in hand still gets its analysis; a model that kills it twice is put aside (invariant 7).
//!
//! ```text
//! daemon                                   | fovea-worker (no network, no files, no exec, bounded memory)
//! Worker::start -- Start ----------------> | loads the runtime, shuts itself in, proves that the doors are shut
//!               -- Load + open files ----> | fovea-infer: signature, hashes, golden vectors
//! Worker::analyse -- Analyse + open file > | fovea-decode -> fovea-preprocess -> fovea-infer
//!               <- Working ... Analysed -- | (each step is announced, so that a death has a culprit, and each field
//!                                          | of a slide, so that a long look is seen to go on)
//! Worker::evaluate                         | the same, with the maps behind the answer in sealed files
//! ```

mod analyse;
mod bounds;
mod client;
mod protocol;
mod sandbox;
pub mod serve;
mod wire;

pub use client::{
    Control, Evaluated, ModelState, ModelStatus, Picture, Progress, STOP_SEEN_MAX, StartError, Worker, WorkerConfig,
    WorkerError, WorkerStatus,
};
pub use fovea_infer::read::LabelMap;
pub use protocol::ServingModel;
pub use sandbox::SandboxReport;
