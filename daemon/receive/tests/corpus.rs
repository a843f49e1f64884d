//! The corpus of the fuzz target `header`, and mutations of it: in seconds, without a fuzzer.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "../../../fuzz/bodies/header.rs"]
mod header;
#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

const MUTATIONS: u64 = 20_000;

#[test]
fn inv_08_whatever_stands_in_a_header_the_same_is_found_however_it_is_cut() {
    replay::replay("header", MUTATIONS, header::run);
}

#[test]
fn the_corpus_reaches_what_it_is_for() {
    for (name, input) in replay::corpus("header") {
        header::walk(&input, 5).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
