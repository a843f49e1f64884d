//! Words planted everywhere in an object, and none of them in its copy (invariant 5).
#![allow(clippy::unwrap_used)] // helpers of a test binary may panic

mod common;

use common::*;
use proptest::prelude::*;

/// Representations that hold text, and so a word.
const TEXT_VRS: [&str; 16] =
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"];

/// Every row of the profile's table as an element with a planted word.
fn profile_rows() -> Vec<El> {
    let table = include_str!("../data/basic_profile.csv");
    let mut rows = Vec::new();
    for (n, line) in table.lines().filter(|line| !line.starts_with('#')).enumerate() {
        let mut fields = line.split(',');
        let tag = u32::from_str_radix(fields.next().unwrap(), 16).unwrap();
        let vr = fields.nth(1).unwrap();
        if tag >> 16 < 8 || tag >= 0x7FE0_0000 || base().iter().any(|e| e.tag() == tag) {
            continue;
        }
        let word = format!("TOK{n:05}");
        rows.push(match vr {
            "SQ" => El::Seq(tag, vec![vec![el(0x0010_0010, "PN", &word), el(0x0008_0070, "LO", "TOKX")]]),
            _ => {
                let known =
                    TEXT_VRS.into_iter().chain(["UI", "OB", "OW", "UN", "FD", "FL", "UL", "US", "SS", "SL", "OV"]);
                el(tag, known.into_iter().find(|known| *known == vr).expect("a representation of the table"), &word)
            }
        });
    }
    rows
}

/// Public attributes that the table does not name, one of each text representation, and numbers in disguise.
fn outside_the_table() -> Vec<El> {
    vec![
        el(0x0008_0070, "LO", "TOKLO Maker"),
        el(0x0008_1090, "LO", "TOKMODEL"),
        el(0x0018_1020, "LO", "TOKSOFTWARE"),
        el(0x0018_0015, "CS", "TOKBODYPART"),
        el(0x0020_0013, "IS", "TOKIS"),
        el(0x0018_0050, "DS", "TOKDS"),
        el(0x0020_1040, "LO", "TOKPOSITION"),
        el(0x0028_0009, "AT", "TOKA"),
        el(0x0018_9074, "FD", "TOKFLOAT"),
        el(0x0018_1310, "US", "TOKSHORT"),
        el(0x0018_0040, "IS", "1\\TOK2"),
        el(0x0028_2000, "OB", "TOKICCPROFILE"),
        el(0x0028_1050, "LO", "TOKWRONGVR"),
        el(0x0022_1007, "US", "TOKSEQUENCE?"),
        el(0x0008_0105, "CS", "TOKMAPPING"),
        el(0x0018_9004, "CS", "TOKCONTENTQUALITY"),
        El::Raw(0x0028_1054, "UN", b"TOKUN".to_vec()),
        el(0x0008_0000, "UL", "TOKG"),
    ]
}

fn nested(depth: usize) -> El {
    let mut item = vec![
        el(0x0008_0100, "SH", "TOKCODE"),
        el(0x0008_0102, "SH", "99TOK"),
        el(0x0008_0104, "LO", "TOK meaning"),
        el(0x0010_0010, "PN", "TOKNAME^NESTED"),
        el(0x0009_0010, "LO", "TOKCREATOR"),
        el(0x0009_1001, "UN", "TOKPRIVATE"),
        El::Raw(0x0008_1155, "UI", b"1.2.826.0.1.44.9".to_vec()),
    ];
    if depth > 0 {
        item.push(nested(depth - 1));
    }
    El::Seq(0x0022_0015, vec![item])
}

fn everything() -> Vec<El> {
    let mut elements = base();
    elements.extend(profile_rows());
    for extra in outside_the_table() {
        elements.retain(|e| e.tag() != extra.tag());
        elements.push(extra);
    }
    elements.push(nested(8));
    elements.push(el(0x0009_0010, "LO", "TOKCREATOR2"));
    elements.push(El::Seq(0x0009_1002, vec![vec![el(0x0010_0010, "PN", "TOKPRIVATESQ")]]));
    elements.push(el(0x5000_3000, "OW", "TOKCURVE"));
    elements.push(el(0x6000_3000, "OW", "TOKOVERLAY"));
    elements.push(el(0x6000_0022, "LO", "TOKOVERLAYTEXT"));
    elements.push(el(0x0011_0011, "LO", "TOKODD"));
    elements
}

#[test]
fn inv_05_no_planted_word_is_left_in_any_syntax() {
    let behind = data_set(&[el(0xFFFC_FFFC, "OB", "TOKPADDING")], true, false);
    for (syntax, explicit) in [(EXPLICIT, true), (IMPLICIT, false), (DEFLATED, true), (JPEG, true)] {
        for undefined in [false, true] {
            let pixels =
                if syntax == JPEG { jpeg_pixels("TOKCOM", "Exif\0\0TOKEXIF") } else { native_pixels(explicit) };
            let mut elements = everything();
            // In implicit syntax a tag is what the dictionary says: text under a sequence's tag is then no data set at all.
            elements.retain(|e| explicit || e.tag() != 0x0022_1007);
            let object = object(&elements, syntax, "II*\0TOKPREAMBLE", undefined, &pixels, &behind);
            if syntax != DEFLATED {
                assert!(tokens_in(&object.bytes).len() > 500, "words were planted");
            }
            let (_, bytes) = copy(&object).unwrap_or_else(|e| panic!("{syntax} undefined={undefined}: {e}"));
            assert_eq!(tokens_in(&bytes), Vec::<String>::new(), "{syntax} undefined={undefined}");
            assert!(!contains(&bytes, b"1.2.826.0.1.44"), "{syntax}: no original UID is left");
        }
    }
}

#[test]
fn inv_05_the_pixels_themselves_are_not_touched() {
    let (_, bytes) = copy(&simple(&everything())).unwrap();
    assert!(bytes.ends_with(&native_pixels(true)));
    let object = object(&everything(), JPEG, "", false, &jpeg_pixels("TOKCOM", "TOKEXIF"), b"");
    let (_, bytes) = copy(&object).unwrap();
    assert!(bytes.ends_with(&jpeg_pixels("\0\0\0\0\0\0", "\0\0\0\0\0\0\0")), "same length, same scan, empty comments");
}

/// A random data set: public and private tags, any representation, words or noise, nested.
fn elements(depth: u32) -> BoxedStrategy<Vec<El>> {
    let tag = prop_oneof![8u32..0x60, Just(0x6000u32), Just(0x5002u32), Just(0x4000u32), Just(0x2200u32),];
    let vr = proptest::sample::select(
        TEXT_VRS.iter().copied().chain(["UI", "UN", "OB", "OW", "US", "FD"]).collect::<Vec<_>>(),
    );
    let known = proptest::sample::select(
        include_str!("../data/basic_profile.csv")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| u32::from_str_radix(&line[..8], 16).unwrap())
            .filter(|tag| tag >> 16 >= 8 && *tag < 0x7FE0_0000)
            .collect::<Vec<_>>(),
    );
    let any_tag = prop_oneof![(tag, 1u32..0xFFFF).prop_map(|(group, element)| group << 16 | element), known];
    let leaf = (any_tag.clone(), vr, "TOK[A-Z0-9 ^=.]{3,12}").prop_map(|(tag, vr, word)| el(tag, vr, &word));
    let element = if depth == 0 {
        leaf.boxed()
    } else {
        let items = proptest::collection::vec(elements(depth - 1), 0..3);
        prop_oneof![4 => leaf, 1 => (any_tag, items).prop_map(|(tag, items)| El::Seq(tag, items))].boxed()
    };
    proptest::collection::vec(element, 0..12)
        .prop_map(|mut list| {
            list.sort_by_key(El::tag);
            list.dedup_by_key(|e| e.tag());
            list
        })
        .boxed()
}

proptest! {
    // A failure prints its shrunk input, which is the seed of a plain test; no file is kept.
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn inv_05_random_headers_leak_no_word_or_stay(extra in elements(3), undefined in any::<bool>()) {
        let own = base();
        let mut all: Vec<El> = extra.into_iter().filter(|e| own.iter().all(|b| b.tag() != e.tag())).collect();
        all.extend(own);
        let object = object(&all, EXPLICIT, "TOKPREAMBLE", undefined, &native_pixels(true), b"");
        match copy(&object) {
            Ok((_, bytes)) => prop_assert_eq!(tokens_in(&bytes), Vec::<String>::new()),
            Err(fovea_deid::DeidError::Quarantine { reason }) => prop_assert!(!reason.contains("TOK"), "{}", reason),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn inv_08_damaged_objects_end_in_a_copy_or_quarantine(at in 0usize..100_000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut object = object(&everything(), JPEG, "", true, &jpeg_pixels("TOKCOM", "TOKEXIF"), b"");
        let at = at % object.bytes.len();
        if cut { object.bytes.truncate(at) } else { object.bytes[at] = byte }
        object.file = file_of(&object.bytes);
        match copy(&object) {
            Ok((_, bytes)) => prop_assert_eq!(tokens_in(&bytes), Vec::<String>::new()),
            Err(fovea_deid::DeidError::Quarantine { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
