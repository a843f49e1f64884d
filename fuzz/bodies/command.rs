//! Command sets, and the small data sets that follow some of them.
//!
//! In: bytes. Out: what was understood. Promise asked: no panic; what is understood, encodes to what is understood as the same.

use fovea_core::Uid;
use fovea_dimse::{Coding, CommandSet, DataSet, Element, transfer_syntax};

/// Elements of every kind of value.
const ELEMENTS: [Element; 8] = [
    Element::AffectedSopClass,
    Element::CommandField,
    Element::MessageId,
    Element::MoveDestination,
    Element::DataSetType,
    Element::Status,
    Element::AffectedSopInstance,
    Element::ErrorComment,
];

/// What was understood of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Understood {
    /// As a command set.
    pub command: bool,
    /// As a data set in implicit, then in explicit encoding.
    pub data_set: [bool; 2],
}

/// The target.
pub fn run(input: &[u8]) {
    understand(input);
}

/// Reads `input` as each of them.
pub fn understand(input: &[u8]) -> Understood {
    let syntaxes = [transfer_syntax::IMPLICIT_VR_LE, transfer_syntax::EXPLICIT_VR_LE];
    Understood { command: command(input), data_set: syntaxes.map(|syntax| data_set(input, syntax)) }
}

fn command(input: &[u8]) -> bool {
    let Ok(set) = CommandSet::decode(input) else { return false };
    let _any = (set.field(), set.message_id(), set.status(), set.has_data_set());
    for element in ELEMENTS {
        let _any = (set.u16(element), set.uid(element), set.ae(element));
    }
    let encoded = encode(&set);
    let again = CommandSet::decode(&encoded).expect("what we encode is understood");
    assert_eq!(encode(&again), encoded, "a command set changes on its way");
    for element in ELEMENTS {
        assert_eq!(again.uid(element), set.uid(element), "{element:?}");
        // A value of odd length gains its padding, so that one byte, which is no number, comes back as two.
        if set.u16(element).is_ok() {
            assert_eq!(again.u16(element), set.u16(element), "{element:?}");
        }
    }
    true
}

fn encode(set: &CommandSet) -> Vec<u8> {
    let mut encoded = Vec::new();
    set.encode(&mut encoded);
    encoded
}

fn data_set(input: &[u8], syntax: &str) -> bool {
    let coding = Uid::new(syntax).ok().as_ref().and_then(Coding::of).expect("a coding for each of the two");
    let Ok(set) = DataSet::decode(input, coding) else { return false };
    for tag in set.tags() {
        let _any = (set.bytes(tag), set.text(tag), set.uid(tag), set.u16(tag), set.items(tag));
    }
    let encoded = set.encode(coding);
    let again = DataSet::decode(&encoded, coding).expect("what we encode is understood");
    assert_eq!(again.encode(coding), encoded, "a data set changes on its way");
    true
}
