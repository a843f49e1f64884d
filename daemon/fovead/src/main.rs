//! The daemon: config, wiring, supervision, journal.
fn main() {}
