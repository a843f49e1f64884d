//! Fakes and peers for the tests that cross crates.
