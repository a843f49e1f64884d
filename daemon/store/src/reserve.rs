//! One caller at a time for each thing: the check whether it is held and the record that it is now are one step.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};

/// Names that are being worked on. As many as there are callers, which all wait.
#[derive(Debug)]
pub(crate) struct Reservations<K> {
    taken: Mutex<HashSet<K>>,
    released: Condvar,
}

/// Holds one name until dropped.
pub(crate) struct Reservation<'a, K: Eq + Hash> {
    all: &'a Reservations<K>,
    key: Option<K>,
}

impl<K> Default for Reservations<K> {
    fn default() -> Self {
        Self { taken: Mutex::default(), released: Condvar::new() }
    }
}

impl<K: Eq + Hash + Clone> Reservations<K> {
    /// Waits until nobody holds `key`, then holds it.
    pub(crate) fn take(&self, key: K) -> Reservation<'_, K> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(&key) {
            taken = self.released.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(key.clone());
        Reservation { all: self, key: Some(key) }
    }
}

impl<K: Eq + Hash> Drop for Reservation<'_, K> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.all.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            self.all.released.notify_all();
        }
    }
}
