//! The corpora of the fuzz targets `pdu` and `command`, and mutations of them: in seconds, without a fuzzer.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "../../../fuzz/bodies/command.rs"]
mod command;
#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/bodies/pdu.rs"]
mod pdu;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

const MUTATIONS: u64 = 100_000;
/// Memory that understanding one connection may take: the read buffer, one command, and what the test itself gathers.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// Counts what this thread has allocated, and the most of it at once.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` with the same arguments; only numbers are kept beside it, in cells without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().saturating_add(layout.size());
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `body` and looks at the memory that it took.
fn frugal(input: &[u8], body: impl Fn(&[u8])) {
    let before = NOW.get();
    PEAK.set(before);
    body(input);
    let took = PEAK.get().saturating_sub(before);
    assert!(took < MEMORY_BYTES_MAX + 8 * input.len(), "{took} bytes of memory for {} of input", input.len());
}

#[test]
fn inv_08_whatever_a_peer_says_is_understood_the_same_however_it_is_cut_and_in_bounds() {
    replay::replay("pdu", MUTATIONS / 4, |input| frugal(input, pdu::run));
}

#[test]
fn inv_08_whatever_stands_in_a_command_or_identifier_is_understood_or_refused_in_bounds() {
    replay::replay("command", MUTATIONS, |input| frugal(input, command::run));
}

#[test]
fn the_corpora_reach_what_they_are_for() {
    let heard: Vec<_> = replay::corpus("pdu").iter().map(|(name, input)| (name.clone(), pdu::hear(input, 7))).collect();
    assert!(heard.iter().all(|(_, heard)| heard.associated), "each opens an association");
    let of = |wanted: &str| &heard.iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!((of("store").commands.as_slice(), of("store").released), (&[1][..], true));
    assert_eq!(of("store").data, of("store-in-pieces").data);
    assert!(of("store").data.len() > 300 && !of("two-stores-and-abort").released);
    let understood = replay::corpus("command").into_iter().map(|(_, input)| command::understand(&input));
    let count = |is: &dyn Fn(&command::Understood) -> bool| understood.clone().filter(|found| is(found)).count();
    assert!(count(&|found| found.command) >= 7);
    assert!(count(&|found| found.data_set[0]) >= 2 && count(&|found| found.data_set[1]) >= 3);
}

#[test]
fn a_mutation_can_be_made_again_and_changes_something() {
    let input: Vec<u8> = (0..200).collect();
    let changed = (0..1000).filter(|seed| mutate::mutated(&input, *seed) != input).count();
    assert!(changed > 980, "{changed} of 1000");
    for seed in 0..1000 {
        assert_eq!(mutate::mutated(&input, seed), mutate::mutated(&input, seed));
        let _short = mutate::mutated(&input[..(seed % 5) as usize], seed);
    }
}
