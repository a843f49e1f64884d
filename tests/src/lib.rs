//! Fakes and peers for what crosses crates: the tests, the demo and the benches share them.
//!
//! In: the built programs, the samples and the peers that `make test` sets up. Out: running boxes, archives and senders on free
//! loopback ports, and DICOM objects of any class and size.
//! Promise: whatever is started is stopped again, also on a panic; a missing program or file is an error that names its cure.

pub mod archive;
pub mod ctl;
pub mod dcmtk;
pub mod http;
pub mod metadata;
pub mod node;
pub mod object;
pub mod paths;
pub mod peer;
pub mod ports;
pub mod process;
pub mod random;
pub mod sample;
pub mod spdx;
pub mod wait;
pub mod wire;
