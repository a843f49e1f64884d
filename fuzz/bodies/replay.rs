//! Every input of a corpus, and mutations of it, through one body.
//!
//! In: the folder of a corpus, a count, a body. Out: nothing, or a panic that names the input. Promise: a failure can be made again
//! from what is printed.

use super::mutate::mutated;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// The inputs of the corpus `name`, by file name.
///
/// # Panics
/// When there is no such corpus.
pub fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("fuzz/corpus").join(name))
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| panic!("there is no corpus '{name}'"));
    let mut inputs: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("the corpus can be listed")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(path).expect("an input can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs `body` on the corpus as it is, then on `mutations` mutations of it.
///
/// # Panics
/// With the body, after the seed and the input's name are printed.
pub fn replay(name: &str, mutations: u64, body: impl Fn(&[u8])) {
    let first = std::env::var("FOVEA_SEED").ok().and_then(|text| text.parse().ok());
    let first: u64 = first.unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish() >> 1);
    println!("{name}: repeat with FOVEA_SEED={first}");
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "the corpus '{name}' is empty");
    let run = |what: &dyn Fn() -> String, input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
            eprintln!("{}: {input:02x?}", what());
            resume_unwind(panic);
        }
    };
    for (file, input) in &inputs {
        run(&|| file.clone(), input);
    }
    for number in 0..mutations {
        let (file, input) = &inputs[(number % inputs.len() as u64) as usize];
        let seed = first.wrapping_add(number);
        run(&|| format!("{file}, mutation {number} of FOVEA_SEED={first}"), &mutated(input, seed));
    }
}
