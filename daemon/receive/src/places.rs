//! Who may stay when more want in than there is room for.
//!
//! In: connections that shake hands, associations that idle or bring something. Out: room for a newcomer, or none.
//! Promise: whoever brings objects at any decent speed is never disturbed; neither a thousand silent connections, nor idle
//! associations, nor ones that drip a byte now and then, nor one peer that opens all that there is, keep another peer out.
//!
//! When all places are taken, one gives way to the newcomer, the first that is found of:
//! 1. the one that has been idle longest, if it was idle for long enough;
//! 2. the slowest of those that bring an object and have kept us waiting for long enough, if it is slower than [`SLOW_BYTES_PER_S`];
//! 3. the longest idle one of the peer that has most places, if that is more than the newcomer would have then.
//!
//! A peer is an address with a title: neither alone tells two devices apart.

use crate::counters::{Counters, add};
use fovea_core::AeTitle;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Less than the worst wireless link of a ward: whoever brings less than this while others wait may come again.
const SLOW_BYTES_PER_S: u64 = 64 * 1024;
/// A handshake takes a peer milliseconds; one that has taken longer may be given up for a newcomer.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// One device, as far as can be told.
pub(crate) type Who = (IpAddr, AeTitle);

/// The places for associations.
pub(crate) struct Places {
    taken: Mutex<Vec<Arc<State>>>,
    places_max: usize,
    give_way_after: Duration,
    counters: Arc<Counters>,
    started: Instant,
}

struct State {
    who: Who,
    /// Milliseconds after `started`; [`BUSY`] while a message is in hand.
    idle_since_ms: AtomicU64,
    /// Since when we wait for the peer within an object; [`BUSY`] while we do not.
    waits_since_ms: AtomicU64,
    /// How long we have waited for the peer before that, within the object in hand, milliseconds.
    waited_ms: AtomicU64,
    /// Bytes of the object in hand.
    bytes: AtomicU64,
    give_way: CancellationToken,
    too_slow: CancellationToken,
}

const BUSY: u64 = u64::MAX;

/// A taken place; dropped, it is free.
pub(crate) struct Place {
    places: Arc<Places>,
    state: Arc<State>,
}

impl Places {
    pub(crate) fn new(places_max: usize, give_way_after: Duration, counters: Arc<Counters>) -> Arc<Self> {
        let (taken, started) = (Mutex::default(), Instant::now());
        Arc::new(Self { taken, places_max, give_way_after, counters, started })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<State>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A place for `who`, if there is one or another gives way.
    pub(crate) fn take(self: &Arc<Self>, who: Who) -> Option<Place> {
        let mut taken = self.taken();
        if taken.len() >= self.places_max {
            let at = self.victim(&taken, &who)?;
            let gone = taken.swap_remove(at);
            let token = if gone.idle_since_ms.load(Relaxed) == BUSY { &gone.too_slow } else { &gone.give_way };
            token.cancel();
            add(&self.counters.associations_gave_way);
        }
        let state = Arc::new(State {
            who,
            idle_since_ms: self.now_ms().into(),
            waits_since_ms: BUSY.into(),
            waited_ms: 0.into(),
            bytes: 0.into(),
            give_way: CancellationToken::new(),
            too_slow: CancellationToken::new(),
        });
        taken.push(Arc::clone(&state));
        self.counters.associations_now.store(taken.len() as u64, Relaxed);
        Some(Place { places: Arc::clone(self), state })
    }

    /// Which one gives way to `newcomer`.
    fn victim(&self, taken: &[Arc<State>], newcomer: &Who) -> Option<usize> {
        let (now_ms, patience_ms) = (self.now_ms(), self.give_way_after.as_millis() as u64);
        let idle_longest = |of: &dyn Fn(&State) -> bool| {
            let idle = taken.iter().enumerate().filter(|(_, state)| of(state));
            let idle = idle.map(|(at, state)| (state.idle_since_ms.load(Relaxed), at));
            idle.filter(|(since_ms, _)| *since_ms != BUSY).min()
        };
        if let Some((since_ms, at)) = idle_longest(&|_| true)
            && now_ms - since_ms >= patience_ms
        {
            return Some(at);
        }
        let slow = |(at, state): (usize, &Arc<State>)| Some((state.slow_rate(now_ms, patience_ms)?, at));
        if let Some((_, at)) = taken.iter().enumerate().filter_map(slow).min() {
            return Some(at);
        }
        let mut places: HashMap<&Who, usize> = HashMap::new();
        taken.iter().for_each(|state| *places.entry(&state.who).or_default() += 1);
        let own = places.get(newcomer).copied().unwrap_or(0);
        let (most, count) = places.into_iter().max_by_key(|(_, count)| *count)?;
        (count > own + 1).then(|| idle_longest(&|state| state.who == *most)).flatten().map(|(_, at)| at)
    }
}

impl State {
    /// Bytes a second of an object that has kept us waiting for `patience_ms` and is slow; none for any other.
    fn slow_rate(&self, now_ms: u64, patience_ms: u64) -> Option<u64> {
        let since_ms = self.waits_since_ms.load(Relaxed);
        let waited_ms = self.waited_ms.load(Relaxed) + now_ms.saturating_sub(since_ms);
        let waits = self.idle_since_ms.load(Relaxed) == BUSY && since_ms != BUSY;
        let rate = self.bytes.load(Relaxed).saturating_mul(1000) / waited_ms.max(1);
        (waits && waited_ms >= patience_ms.max(1) && rate < SLOW_BYTES_PER_S).then_some(rate)
    }
}

impl Place {
    /// No message is in hand from now on.
    pub(crate) fn idle(&self) {
        self.state.idle_since_ms.store(self.places.now_ms(), Relaxed);
    }

    /// A message is in hand.
    pub(crate) fn busy(&self) {
        self.state.bytes.store(0, Relaxed);
        self.state.waited_ms.store(0, Relaxed);
        self.state.waits_since_ms.store(BUSY, Relaxed);
        self.state.idle_since_ms.store(BUSY, Relaxed);
    }

    /// We wait for the peer to bring more of the message in hand.
    pub(crate) fn waits(&self) {
        self.state.waits_since_ms.store(self.places.now_ms(), Relaxed);
    }

    /// So many bytes of it came.
    pub(crate) fn came(&self, bytes: u64) {
        let since_ms = self.state.waits_since_ms.swap(BUSY, Relaxed);
        if since_ms != BUSY {
            self.state.waited_ms.fetch_add(self.places.now_ms().saturating_sub(since_ms), Relaxed);
        }
        self.state.bytes.fetch_add(bytes, Relaxed);
    }

    /// Returns when the place is wanted for another; heard while no message is in hand.
    pub(crate) async fn wanted(&self) {
        tokio::select! { // cancel-safe: a token stays cancelled
            () = self.state.give_way.cancelled() => {}
            // It was slow, and its last byte came in the same moment.
            () = self.state.too_slow.cancelled() => {}
        }
    }

    /// Returns when the place is wanted for another, and the message in hand comes too slowly to wait for its end.
    pub(crate) async fn too_slow(&self) {
        self.state.too_slow.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.retain(|state| !Arc::ptr_eq(state, &self.state));
        self.places.counters.associations_now.store(taken.len() as u64, Relaxed);
    }
}

/// Connections whose association does not stand yet, oldest first.
#[derive(Default)]
pub(crate) struct Handshakes {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    all: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One handshake; dropped, it is over.
pub(crate) struct Handshake {
    all: Arc<Handshakes>,
    number: u64,
    give_way: CancellationToken,
}

impl Handshakes {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Handshake {
        let mut waiting = self.waiting();
        waiting.last += 1;
        let (number, give_way) = (waiting.last, CancellationToken::new());
        waiting.all.insert(number, (Instant::now(), give_way.clone()));
        Handshake { all: Arc::clone(self), number, give_way }
    }

    /// Gives up the oldest handshake, if it has had its time. True when its room will be free at once.
    pub(crate) fn oldest_gives_way(&self) -> bool {
        let mut waiting = self.waiting();
        let Some(oldest) = waiting.all.first_entry() else { return false };
        if oldest.get().0.elapsed() < HANDSHAKE_GRACE {
            return false;
        }
        oldest.remove().1.cancel();
        true
    }
}

impl Handshake {
    /// Returns when its room is wanted for another.
    pub(crate) async fn wanted(&self) {
        self.give_way.cancelled().await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.waiting().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(number: u8) -> Who {
        ([127, 0, 0, number].into(), AeTitle::new("SCOPE").unwrap())
    }

    fn places(places_max: usize, give_way_after_ms: u64) -> (Arc<Places>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Places::new(places_max, Duration::from_millis(give_way_after_ms), Arc::clone(&counters)), counters)
    }

    #[test]
    fn a_full_house_gives_the_place_of_the_longest_idle_and_never_of_a_busy_one() {
        let (places, counters) = places(2, 20);
        let (first, second) = (places.take(who(1)).unwrap(), places.take(who(1)).unwrap());
        assert!(places.take(who(1)).is_none(), "both are fresh");
        std::thread::sleep(Duration::from_millis(30));
        first.busy();
        let third = places.take(who(1)).expect("the second gives way");
        assert!(second.state.give_way.is_cancelled() && !first.state.give_way.is_cancelled());
        drop(second);
        assert_eq!(counters.counts().associations_now, 2);
        std::thread::sleep(Duration::from_millis(30));
        third.busy();
        assert!(places.take(who(1)).is_none(), "all are busy");
        drop((first, third));
        assert_eq!((counters.counts().associations_now, counters.counts().associations_gave_way), (0, 1));
    }

    #[test]
    fn the_slowest_of_those_that_drip_gives_way_and_neither_a_fast_one_nor_one_that_waits_for_us() {
        let (places, _) = places(4, 20);
        let all: Vec<Place> = (1..=4).map(|number| places.take(who(number)).unwrap()).collect();
        all.iter().for_each(Place::busy);
        let [fast, drips, silent, ours] = all.as_slice() else { panic!() };
        [fast, drips, silent].into_iter().for_each(Place::waits);
        std::thread::sleep(Duration::from_millis(30));
        fast.came(1 << 20);
        drips.came(100);
        [fast, drips].into_iter().for_each(Place::waits);
        // `ours` has brought nothing for as long, because we have not waited for it.
        let newcomer = places.take(who(9)).expect("a place");
        assert!(silent.state.too_slow.is_cancelled() && !silent.state.give_way.is_cancelled());
        newcomer.busy();
        let next = places.take(who(9)).expect("another place");
        next.busy();
        assert!(drips.state.too_slow.is_cancelled());
        assert!(places.take(who(9)).is_none());
        assert!(!fast.state.too_slow.is_cancelled() && !ours.state.too_slow.is_cancelled());
    }

    #[test]
    fn a_peer_that_keeps_all_places_fresh_gives_of_them_to_another_until_both_have_as_many() {
        let (places, _) = places(4, 60_000);
        let greedy: Vec<Place> = (0..4).map(|_| places.take(who(1)).unwrap()).collect();
        assert!(places.take(who(1)).is_none(), "not to itself");
        let others: Vec<Option<Place>> = (0..3).map(|_| places.take(who(2))).collect();
        assert_eq!(others.iter().flatten().count(), 2);
        assert_eq!(greedy.iter().filter(|place| place.state.give_way.is_cancelled()).count(), 2);
        assert!(places.take(who(3)).is_some(), "a third peer gets one, too");
    }

    #[test]
    fn the_oldest_handshake_gives_way_once_it_has_had_its_time() {
        let handshakes = Arc::new(Handshakes::default());
        let (first, second) = (handshakes.begin(), handshakes.begin());
        assert!(!handshakes.oldest_gives_way(), "both are young");
        std::thread::sleep(HANDSHAKE_GRACE + Duration::from_millis(50));
        assert!(handshakes.oldest_gives_way());
        assert!(first.give_way.is_cancelled() && !second.give_way.is_cancelled());
        drop(second);
        assert!(!handshakes.oldest_gives_way(), "none is left");
        drop(first);
        assert!(handshakes.waiting().all.is_empty());
    }
}
