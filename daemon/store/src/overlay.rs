//! What the index knows and sled does not have yet.
//!
//! In: keys that changed, in journal order. Out: the tree as if it had them; now and then one batch for it.
//! Promise: a question asked after [`Overlay::take`] sees its keys, before and after they went to the tree.
//!
//! Every batch makes sled seal and write its buffer twice, so a batch for each group of records costs more than its
//! keys do. What lies here when the power goes is read from the journal again: the batch that carries the keys carries
//! the place up to which they go.

use crate::index::Fault;
use sled::IVec;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// Past so many keys they go to the tree: a hundred objects or so, a millisecond of sled's work.
const KEYS_MAX: usize = 512;
/// The same for their bytes: findings can be long.
const BYTES_MAX: usize = 1 << 20;

/// Keys and their values; none where the key has gone.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<IVec>>;

/// Changed keys before a tree. Any number of readers; whoever writes holds the index's writer lock.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    fresh: RwLock<Fresh>,
}

#[derive(Debug, Default)]
struct Fresh {
    writes: Writes,
    bytes: usize,
}

impl Overlay {
    /// Takes the keys in, all at once for every reader.
    pub(crate) fn take(&self, writes: Writes) {
        let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
        // What a key had before is counted on: the bound is for memory, and too early is harmless.
        fresh.bytes +=
            writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |v| v.len())).sum::<usize>();
        fresh.writes.extend(writes);
    }

    /// It holds as much as it may.
    pub(crate) fn is_full(&self) -> bool {
        let fresh = self.fresh.read().unwrap_or_else(PoisonError::into_inner);
        fresh.writes.len() >= KEYS_MAX || fresh.bytes >= BYTES_MAX
    }

    /// Moves everything to `tree` in one batch. Readers are not held up: until the end they find the keys here, with the
    /// values that the tree is being given.
    pub(crate) fn settle(&self, tree: &sled::Tree) -> Result<(), Fault> {
        let mut batch = sled::Batch::default();
        for (key, value) in &self.fresh.read().unwrap_or_else(PoisonError::into_inner).writes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value),
                None => batch.remove(key.as_slice()),
            }
        }
        tree.apply_batch(batch)?;
        *self.fresh.write().unwrap_or_else(PoisonError::into_inner) = Fresh::default();
        Ok(())
    }

    /// The value of `key`. Here first: a key leaves only after the tree has it.
    pub(crate) fn get(&self, tree: &sled::Tree, key: &[u8]) -> Result<Option<IVec>, Fault> {
        let here = self.fresh.read().unwrap_or_else(PoisonError::into_inner).writes.get(key).cloned();
        match here {
            Some(value) => Ok(value),
            None => Ok(tree.get(key)?),
        }
    }

    /// The keys of a range and their values, in order.
    pub(crate) fn range(&self, tree: &sled::Tree, range: (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Merged {
        let fresh = self.fresh.read().unwrap_or_else(PoisonError::into_inner);
        let here = fresh.writes.range(range.clone()).map(|(key, value)| (key.clone(), value.clone())).collect();
        drop(fresh);
        Merged { here, tree: tree.range(range), ahead: None, tree_ended: false }
    }
}

/// Keys of the overlay as it was when the walk began, and of the tree; where both have a key, the overlay's counts.
pub(crate) struct Merged {
    here: VecDeque<(Vec<u8>, Option<IVec>)>,
    tree: sled::Iter,
    ahead: Option<(IVec, IVec)>,
    /// Not asked again after its end: a key of `here` that has settled meanwhile would come a second time.
    tree_ended: bool,
}

impl Iterator for Merged {
    type Item = Result<(IVec, IVec), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ahead.is_none() && !self.tree_ended {
                match self.tree.next().transpose() {
                    Ok(entry) => {
                        self.tree_ended = entry.is_none();
                        self.ahead = entry;
                    }
                    Err(error) => return Some(Err(error.into())),
                }
            }
            let from_tree = match (self.here.front(), &self.ahead) {
                (Some((here, _)), Some((there, _))) => there.as_ref() < here.as_slice(),
                (None, _) => true,
                (Some(_), None) => false,
            };
            if from_tree {
                return self.ahead.take().map(Ok);
            }
            let (key, value) = self.here.pop_front()?;
            if self.ahead.as_ref().is_some_and(|(there, _)| there.as_ref() == key.as_slice()) {
                self.ahead = None;
            }
            if let Some(value) = value {
                return Some(Ok((key.into(), value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    fn tree() -> sled::Db {
        sled::Config::new().temporary(true).open().unwrap()
    }

    #[test]
    fn keys_here_and_in_the_tree_read_as_one_map_whenever_they_settle() {
        let mut random = RandomState::new().build_hasher().finish() | 1;
        println!("seed {random}");
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (tree, overlay, mut model) = (tree(), Overlay::default(), BTreeMap::new());
        let mut settled = 0;
        for step in 0..3000 {
            let key = vec![next(40) as u8];
            let value = (next(3) > 0).then(|| vec![step as u8; next(9) as usize]);
            match &value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(&key),
            };
            overlay.take(Writes::from([(key, value.map(IVec::from))]));
            if next(20) == 0 {
                overlay.settle(&tree).unwrap();
                settled += 1;
                assert_eq!(tree.len(), model.len(), "step {step}");
            }
            let asked = vec![next(40) as u8];
            let found = overlay.get(&tree, &asked).unwrap().map(|value| value.to_vec());
            assert_eq!(found.as_ref(), model.get(&asked), "step {step}");
            let (low, high) = (next(40) as u8, next(40) as u8);
            let bounds = (Bound::Included(vec![low.min(high)]), Bound::Excluded(vec![low.max(high) + 1]));
            let found = overlay.range(&tree, bounds.clone()).map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())));
            let expected = model.range(bounds).map(|(key, value)| (key.clone(), value.clone()));
            assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), expected.collect::<Vec<_>>(), "step {step}");
        }
        assert!(settled > 50);
    }

    #[test]
    fn a_reader_never_misses_or_goes_behind_a_key_while_it_settles() {
        let (tree, overlay) = (tree(), Overlay::default());
        let (told, begun, done) = (AtomicU8::new(0), AtomicBool::new(false), AtomicBool::new(false));
        overlay.take(Writes::from([(vec![1], Some(IVec::from(&[0])))]));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !done.load(Ordering::Acquire) {
                    let least = told.load(Ordering::Acquire);
                    let one = overlay.get(&tree, &[1]).unwrap().unwrap()[0];
                    let all = overlay.range(&tree, (Bound::Included(vec![0]), Bound::Excluded(vec![9])));
                    let all: Vec<_> = all.map(|entry| entry.unwrap().1[0]).collect();
                    assert!(one >= least && all.len() == 1 && all[0] >= one, "told {least}, read {one} and {all:?}");
                    reads += 1;
                    begun.store(true, Ordering::Release);
                }
                reads
            });
            // On a busy machine the writer would be done before the reader is there.
            while !begun.load(Ordering::Acquire) && !reader.is_finished() {
                std::thread::yield_now();
            }
            for value in 1..=250 {
                overlay.take(Writes::from([(vec![1], Some(IVec::from(&[value])))]));
                told.store(value, Ordering::Release);
                overlay.settle(&tree).unwrap();
            }
            done.store(true, Ordering::Release);
            assert!(reader.join().unwrap() > 0);
        });
    }

    #[test]
    fn a_key_that_settles_during_a_walk_comes_once() {
        let (tree, overlay) = (tree(), Overlay::default());
        overlay.take(Writes::from([(vec![1], Some(IVec::from(&[7])))]));
        let mut walk = overlay.range(&tree, (Bound::Included(vec![0]), Bound::Excluded(vec![9])));
        assert_eq!(walk.next().unwrap().unwrap().1, [7]);
        overlay.settle(&tree).unwrap();
        assert!(walk.next().is_none());
    }

    #[test]
    fn it_is_full_after_many_keys_or_a_few_long_ones_and_empty_once_settled() {
        let (tree, overlay) = (tree(), Overlay::default());
        for number in 0..KEYS_MAX {
            assert!(!overlay.is_full());
            overlay.take(Writes::from([(number.to_be_bytes().to_vec(), Some(IVec::from(&[1])))]));
        }
        assert!(overlay.is_full());
        overlay.settle(&tree).unwrap();
        assert!(!overlay.is_full());
        overlay.take(Writes::from([(vec![1], Some(vec![0; BYTES_MAX].into()))]));
        assert!(overlay.is_full());
    }
}
