//! How long a row that fails is tried again before it gets its final word.
//!
//! In: failures of rows. Out: whether the time has come to give one up.
//! Promise: a passing fault (no worker yet, too many open files) costs no object its finding, and a lasting one keeps
//! neither that object without an outcome (invariant 2) nor the rows behind it waiting for ever.

use fovea_core::Uid;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Longer than a restart, a late mount or a short run on file descriptors; short enough that a clinic still sees the answer
/// on the day. Each row is tried about once a second meanwhile.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// First failure of each row that is failing now: as many as are pulled at once.
#[derive(Default)]
pub struct Patience {
    failing_since: HashMap<Uid, Instant>,
}

impl Patience {
    /// Notes a failure at `now`; true when the row has failed long enough.
    pub fn is_at_its_end(&mut self, row: &Uid, now: Instant) -> bool {
        let since = *self.failing_since.entry(row.clone()).or_insert(now);
        now.saturating_duration_since(since) >= GIVE_UP_AFTER
    }

    /// Notes that the row is done.
    pub fn done(&mut self, row: &Uid) {
        self.failing_since.remove(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_fault_costs_nothing_and_a_lasting_one_ends() {
        let (row, start) = (Uid::new("1.2.3").unwrap(), Instant::now());
        let mut patience = Patience::default();
        assert!(!patience.is_at_its_end(&row, start));
        assert!(!patience.is_at_its_end(&row, start + GIVE_UP_AFTER / 2));
        assert!(patience.is_at_its_end(&row, start + GIVE_UP_AFTER));
        patience.done(&row);
        assert!(!patience.is_at_its_end(&row, start + GIVE_UP_AFTER), "a new failure starts a new wait");
    }
}
