//! Which of several bundles of one model serves.
//!
//! In: the admitted bundles, each with its path. Out: those that must not serve, each with the reason.
//! Promise: of one bundle id exactly one stays, the highest version; the order in which they come does not matter.
//! Only admitted bundles count: an update that is refused does not take the version before it away.

use fovea_core::{ModelRef, Reason};
use std::cmp::Reverse;
use std::path::Path;

/// Refusal of a bundle because a higher version of it serves.
pub const SUPERSEDED: &str = "superseded";
/// Refusal of a bundle because the same version of it serves from another path.
pub const DUPLICATE: &str = "duplicate";

/// The bundles that give way, by their number. Of equal versions the first path serves.
pub fn give_way(mut admitted: Vec<(usize, &Path, &ModelRef)>) -> Vec<(usize, Reason)> {
    admitted.sort_by_key(|(_, path, model)| (model.id.clone(), Reverse(Version::parse(&model.version)), *path));
    let mut out = Vec::new();
    let mut serving: Option<(&Path, &ModelRef)> = None;
    for (number, path, model) in admitted {
        match serving {
            Some((first, best)) if best.id == model.id => {
                out.push((number, reason(first, best, model)));
            }
            _ => serving = Some((path, model)),
        }
    }
    out
}

fn reason(first: &Path, best: &ModelRef, model: &ModelRef) -> Reason {
    let advice = "Remove the bundle that does not serve.";
    if best.version == model.version {
        let text = format!("version {} of {} already serves from {}", best.version, best.id, first.display());
        return Reason::new(DUPLICATE, text, advice);
    }
    Reason::new(SUPERSEDED, format!("superseded by {}", best.version), advice)
}

/// A version in its order (semver.org, 2.0.0, section 11). What is no such version comes before all that are; what
/// the order calls equal is told apart by its text.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version {
    /// Major, minor, patch.
    numbers: Option<[u64; 3]>,
    /// A release comes after what was tried before it.
    is_release: bool,
    before_release: Vec<Part>,
    text: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    fn parse(text: &str) -> Self {
        let (precedence, _build) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, before) = match precedence.split_once('-') {
            Some((numbers, before)) => (numbers, Some(before)),
            None => (precedence, None),
        };
        let numbers: Option<Vec<u64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
        let part = |part: &str| part.parse().map_or_else(|_| Part::Word(part.to_owned()), Part::Number);
        Self {
            numbers: numbers.and_then(|numbers| numbers.try_into().ok()),
            is_release: before.is_none(),
            before_release: before.into_iter().flat_map(|before| before.split('.')).map(part).collect(),
            text: text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::Sha256;

    #[test]
    fn versions_are_ordered_by_number_and_not_by_letter() {
        let ascending =
            ["", "x", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc.9", "1.0.0-rc.10", "1.0.0", "1.9.0", "1.10.0", "2.0.0"];
        for pair in ascending.windows(2) {
            assert!(Version::parse(pair[0]) < Version::parse(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn the_order_given_does_not_matter() {
        let model = |id: &str, version: &str| ModelRef {
            id: id.to_owned(),
            version: version.to_owned(),
            sha256: Sha256::of(version.as_bytes()),
        };
        let models = [model("a", "0.9.0"), model("a", "0.10.0"), model("a", "0.10.0"), model("b", "0.1.0")];
        let paths = ["1", "2", "3", "0"].map(Path::new);
        for first in 0..4 {
            for step in [1, 3] {
                let order = (0..4).map(|index| (first + index * step) % 4);
                let mut out = give_way(order.map(|index| (index, paths[index], &models[index])).collect());
                out.sort_by_key(|(number, _)| *number);
                let codes: Vec<(usize, &str)> = out.iter().map(|(number, reason)| (*number, &*reason.code)).collect();
                assert_eq!(codes, [(0, SUPERSEDED), (2, DUPLICATE)]);
                assert_eq!(out[0].1.text, "superseded by 0.10.0");
            }
        }
    }
}
