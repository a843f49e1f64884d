//! The header of an object as it streams in: the walk that lets an object in or keeps it out.
//!
//! In: bytes of a data set. Out: what was found. Promise asked: no panic, and the same is found however the network cuts the bytes.

use fovea_receive::{Encoding, HeaderLimits, HeaderWalker};

/// The encodings that are walked; the first byte of an input says which.
const ENCODINGS: [Encoding; 3] = [Encoding::Implicit, Encoding::Explicit, Encoding::Encapsulated];

/// The target.
pub fn run(input: &[u8]) {
    let whole = walk(input, usize::MAX);
    for piece in [1, 3, 17] {
        assert_eq!(walk(input, piece), whole, "cut into pieces of {piece}");
    }
}

/// What is found in `input`, which comes in pieces of `piece` bytes: routing facts or an error, in words.
pub fn walk(input: &[u8], piece: usize) -> Result<String, String> {
    let Some((first, data_set)) = input.split_first() else { return Err("empty".into()) };
    let encoding = ENCODINGS[usize::from(*first) % ENCODINGS.len()];
    let mut walker = HeaderWalker::new(encoding, HeaderLimits::default());
    for piece in data_set.chunks(piece.min(data_set.len()).max(1)) {
        walker.push(piece).map_err(|error| format!("{error:?}"))?;
    }
    walker.finish().map(|walked| format!("{walked:?}")).map_err(|error| format!("{error:?}"))
}
