//! SIMD image kernels: slices and numbers, never DICOM.
//!
//! In: 8-bit samples. Out: 8-bit samples or the tensor of a model.
//! Promise: no allocation that is not bounded by the sizes asked for, no I/O, no threads. Each kernel is a folder:
//! `scalar.rs` is the truth, the others equal it (integers bit for bit, floats within the bound beside the kernel).

pub mod area;
mod isa;

pub use isa::Isa;
