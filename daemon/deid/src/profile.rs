//! The Basic Profile's table as data.
//! In: `data/basic_profile.csv`. Out: one plain action for a tag.
//! Standard: DICOM PS3.15 table E.1-1; combined actions resolved by the safe rule that rules.rs states.

use std::collections::HashMap;
use std::sync::OnceLock;

/// The table, with its edition and source in its first lines.
pub const TABLE: &str = include_str!("../data/basic_profile.csv");

/// What the rewriter does with an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// X
    Remove,
    /// Z, X/Z
    Empty,
    /// D, Z/D, X/D, X/Z/D
    Dummy,
    /// U, X/Z/U*
    Uid,
}

/// The table's action for a public tag, `None` where the table does not name it.
pub fn action_of(tag: u32) -> Option<Action> {
    static MAP: OnceLock<HashMap<u32, Action>> = OnceLock::new();
    MAP.get_or_init(|| rows().collect()).get(&tag).copied()
}

fn rows() -> impl Iterator<Item = (u32, Action)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split(',');
        let tag = fields.next().and_then(|tag| u32::from_str_radix(tag, 16).ok()).unwrap_or(0);
        let action = match fields.nth(2) {
            Some("Z" | "X/Z") => Action::Empty,
            Some("D" | "Z/D" | "X/D" | "X/Z/D") => Action::Dummy,
            Some("U" | "X/Z/U*") => Action::Uid,
            // An action that a later edition invents is removal until someone has read it.
            _ => Action::Remove,
        };
        (tag, action)
    })
}

/// The dummy of a representation; `None` where there is none and the attribute is removed.
pub fn dummy_value(vr: [u8; 2]) -> Option<&'static [u8]> {
    Some(match &vr {
        b"DA" => b"19000101",
        b"TM" => b"000000",
        b"DT" => b"19000101000000",
        b"AS" => b"000Y",
        b"IS" | b"DS" => b"0",
        b"PN" | b"LO" | b"SH" | b"LT" | b"ST" | b"UT" | b"UC" | b"AE" | b"CS" => b"REMOVED",
        b"OB" | b"US" | b"SS" => &[0, 0],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_read_as_the_standard_has_it() {
        assert_eq!(rows().count(), 653);
        assert!(rows().all(|(tag, _)| tag != 0));
        for (tag, action) in [
            (0x0010_0010, Action::Empty),  // PatientName Z
            (0x0010_0020, Action::Dummy),  // PatientID Z/D
            (0x0010_1010, Action::Remove), // PatientAge X
            (0x0020_000D, Action::Uid),    // StudyInstanceUID U
            (0x0008_0020, Action::Empty),  // StudyDate Z
            (0x0008_0080, Action::Dummy),  // InstitutionName X/Z/D
            (0x0018_1030, Action::Dummy),  // ProtocolName X/D
            (0x0008_1140, Action::Uid),    // ReferencedImageSequence X/Z/U*
            (0x0008_1110, Action::Empty),  // ReferencedStudySequence X/Z
        ] {
            assert_eq!(action_of(tag), Some(action), "{tag:08X}");
        }
        assert_eq!(action_of(0x0028_0010), None);
    }
}
