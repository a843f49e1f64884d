//! The walk over a header, and the promise behind it: what it lets through, dicom-object can parse safely.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::sop_class;
use fovea_dimse::part10_prefix;
use fovea_receive::{Encoding, HeaderError, HeaderLimits, HeaderWalker, Walked, encoding_of};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use support::*;

/// Counts what is allocated, and the largest single request.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the same arguments; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn walk(encoding: Encoding, bytes: &[u8], piece: usize) -> Result<Walked, HeaderError> {
    let mut walker = HeaderWalker::new(encoding, HeaderLimits::default());
    for piece in bytes.chunks(piece) {
        walker.push(piece)?;
    }
    walker.finish()
}

/// A header with what real ones have: defined and undefined sequences, nested, private, empty, an icon with pixels.
fn rich(syntax: &str) -> Vec<u8> {
    let inner = maker(syntax).element(0x0008, 0x0100, b"SH", b"81745001").element(0x0008, 0x0102, b"SH", b"SCT").bytes;
    let item = maker(syntax).head(0xFFFE, 0xE000, b"UN", inner.len() as u32).raw(&inner).bytes;
    let icon =
        maker(syntax).element(0x0028, 0x0010, b"US", &[2, 0]).element(0x7FE0, 0x0010, b"OW", &[1, 2, 3, 4]).bytes;
    head("1.2.3", syntax)
        .element(0x0029, 0x0010, b"LO", b"PRIVATE")
        .element(0x0029, 0x1010, b"UN", &[9; 33])
        .head(0x0040, 0x0555, b"SQ", 0)
        .head(0x0040, 0xA043, b"SQ", item.len() as u32)
        .raw(&item)
        .head(0x0088, 0x0200, b"SQ", 0xFFFF_FFFF)
        .head(0xFFFE, 0xE000, b"UN", icon.len() as u32)
        .raw(&icon)
        .head(0xFFFE, 0xE0DD, b"UN", 0)
        .element(0x7FE0, 0x0010, b"OW", &[5; 64])
        .bytes
}

#[test]
fn any_pieces_give_the_same_walk() {
    for syntax in [IMPLICIT, EXPLICIT] {
        let bytes = rich(syntax);
        let whole = walk(encoding_of(&uid(syntax)).unwrap(), &bytes, usize::MAX).unwrap();
        assert_eq!(whole.plain_bytes, bytes.len() as u64);
        let at = whole.pixel_data_position.unwrap() as usize;
        assert_eq!(bytes[at..at + 4], [0xE0, 0x7F, 0x10, 0]);
        for piece in 1..40 {
            assert_eq!(walk(encoding_of(&uid(syntax)).unwrap(), &bytes, piece), Ok(whole.clone()), "{piece}");
        }
    }
}

#[test]
fn inv_08_a_data_set_cut_anywhere_but_between_elements_is_refused() {
    for syntax in [IMPLICIT, EXPLICIT] {
        let (bytes, encoding) = (rich(syntax), encoding_of(&uid(syntax)).unwrap());
        let whole = walk(encoding, &bytes, usize::MAX).unwrap();
        for length in 0..bytes.len() {
            match walk(encoding, &bytes[..length], usize::MAX) {
                Err(_) => {}
                // Cut right before the pixels or an element that nobody needs: a shorter, whole data set.
                Ok(walked) => assert!(walked.plain_bytes == length as u64 && walked.series_uid == whole.series_uid),
            }
        }
    }
}

#[test]
fn inv_08_each_limit_is_a_refusal() {
    let small = HeaderLimits {
        nesting_max: 2,
        elements_max: 40,
        value_bytes_max: 100,
        header_bytes_max: 1000,
        backslashes_max: 20,
    };
    let with = |more: &dyn Fn(Maker) -> Maker| {
        let mut walker = HeaderWalker::new(Encoding::Explicit, small);
        walker.push(&more(head("1.2.3", EXPLICIT)).bytes)
    };
    let limit = |what| Err(HeaderError::Limit { what });
    assert_eq!(with(&|maker| maker), Ok(()));
    assert_eq!(with(&|maker| maker.element(0x0040, 1, b"OB", &[0; 102])), limit("bytes of a value"));
    assert_eq!(with(&|maker| maker.element(0x0040, 1, b"LO", &[b'\\'; 22])), limit("values"));
    let deep = |mut maker: Maker| {
        for _ in 0..3 {
            maker = maker.head(0x0040, 0xA043, b"SQ", u32::MAX).head(0xFFFE, 0xE000, b"UN", u32::MAX);
        }
        maker
    };
    assert_eq!(with(&deep), limit("nesting"));
    let many = |mut maker: Maker| {
        for element in 0..40 {
            maker = maker.element(0x0040, element, b"LO", b"");
        }
        maker
    };
    assert_eq!(with(&many), limit("elements"));
    let long = |mut maker: Maker| {
        for element in 0..12 {
            maker = maker.element(0x0040, element, b"OB", &[0; 90]);
        }
        maker
    };
    assert_eq!(with(&long), limit("bytes before the pixel data"));
}

#[test]
fn what_two_parsers_might_read_differently_is_refused() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("instance twice", head("1.2.3", EXPLICIT).element(8, 0x0018, b"UI", b"1.2.4").bytes),
        ("instance behind NULs", maker(EXPLICIT).raw(&head("\0\0\0\x003", EXPLICIT).bytes).bytes),
        ("odd number of bytes in shorts", head("1.2.3", EXPLICIT).head(0x28, 0x1050, b"US", 3).raw(&[1, 2, 3]).bytes),
        ("UN without length", head("1.2.3", EXPLICIT).head(0x29, 0x1010, b"UN", u32::MAX).bytes),
        ("delimiter without item", head("1.2.3", EXPLICIT).head(0xFFFE, 0xE00D, b"UN", 0).bytes),
        ("fragments in a native syntax", head("1.2.3", EXPLICIT).head(0x7FE0, 0x10, b"OB", u32::MAX).bytes),
        (
            "pixels twice",
            maker(EXPLICIT).raw(&native("1.2.3", EXPLICIT, 4)).element(0x7FE0, 0x10, b"OW", &[1, 2]).bytes,
        ),
        ("file meta inside", maker(EXPLICIT).element(2, 0x10, b"UI", b"1.2").bytes),
        (
            "item beyond its sequence",
            head("1.2.3", EXPLICIT).head(8, 0x1140, b"SQ", 10).head(0xFFFE, 0xE000, b"UN", 100).bytes,
        ),
    ];
    for (name, bytes) in cases {
        assert!(walk(Encoding::Explicit, &bytes, usize::MAX).is_err(), "{name}");
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Length(usize, u32),
    Remove(usize, usize),
    Copy(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let lengths = prop_oneof![Just(0), Just(u32::MAX), Just(u32::MAX - 1), 0..200u32, any::<u32>()];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Mutation::Set(at, value)),
        (any::<usize>(), lengths).prop_map(|(at, length)| Mutation::Length(at, length)),
        (any::<usize>(), 1..30usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<usize>(), any::<usize>(), 1..60usize).prop_map(|(from, to, count)| Mutation::Copy(from, to, count)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len().max(1);
    match *mutation {
        Mutation::Set(at, value) => bytes[at % length] = value,
        Mutation::Length(at, value) => {
            let at = at % length;
            for (target, byte) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                *target = byte;
            }
        }
        Mutation::Remove(at, count) => {
            let at = at % length;
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Mutation::Copy(from, to, count) => {
            let piece: Vec<u8> = bytes[from % length..].iter().take(count).copied().collect();
            let to = to % length;
            bytes.splice(to..to, piece);
        }
    }
}

/// 20,000, or what `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    let said = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if said { default.cases } else { 20_000 }, ..default }
}

proptest! {
    #![proptest_config(cases())]

    /// Also run with 2,000,000 cases (PROPTEST_CASES) when this file or the walk changes.
    #[test]
    fn inv_08_what_the_walk_lets_through_dicom_object_parses_in_bounded_memory(
        implicit in any::<bool>(), mutations in proptest::collection::vec(mutation(), 0..4), piece in 1usize..300,
    ) {
        let syntax = if implicit { IMPLICIT } else { EXPLICIT };
        let mut bytes = rich(syntax);
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        if let Ok(walked) = walk(encoding_of(&uid(syntax)).unwrap(), &bytes, piece) {
            let mut file = part10_prefix(&uid(sop_class::SECONDARY_CAPTURE), &uid("1.2.3"), &uid(syntax), None);
            file.extend_from_slice(&bytes);
            let before = NOW.load(Relaxed);
            PEAK.store(before, Relaxed);
            let parsed = dicom_object::OpenFileOptions::new()
                .read_until(dicom_dictionary_std::tags::PIXEL_DATA)
                .from_reader(Cursor::new(&file));
            let peak = PEAK.load(Relaxed).saturating_sub(before);
            prop_assert!(peak < 100 * file.len() + (1 << 20), "{peak} bytes for a file of {}", file.len());
            if let Ok(object) = parsed {
                let instance = object.element(dicom_dictionary_std::tags::SOP_INSTANCE_UID).unwrap();
                let instance = instance.to_str().unwrap();
                prop_assert_eq!(instance.trim_end_matches(['\0', ' ']), walked.sop_instance_uid.as_str());
            }
        }
    }
}
