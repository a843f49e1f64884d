#![no_main]

#[path = "../bodies/command.rs"]
#[allow(dead_code)] // the tests use more of it
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
