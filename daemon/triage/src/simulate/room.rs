//! One reading room under one order: who waits how long.

use super::{Case, Policy, Truth};
use crate::assign::{Assignment, assign};
use crate::config::Config;
use crate::reader::Grade;
use crate::reading::{Call, Reading, Step, next_step};
use crate::worklist::{Item, Rank, due_from};
use fovea_core::UnixMicros;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What came of one case.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Seen {
    /// From arrival to the begin of its first reading.
    pub wait_us: i64,
    /// Whether the first reader was senior.
    pub by_senior: bool,
}

/// In the order in which events of one moment are handled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Read { reader: usize, case: usize },
    Arrived { case: usize },
    Due,
}

struct Room<'a> {
    config: &'a Config,
    policy: Policy,
    cases: &'a [Case],
    items: Vec<Item>,
    /// Cases in the list.
    waiting: Vec<usize>,
    /// Items in each reader's hands: 0 or 1.
    open: Vec<u32>,
    events: BinaryHeap<Reverse<(UnixMicros, Event)>>,
    seen: Vec<Seen>,
}

/// Reads all cases; what came of each, in their order.
pub(super) fn run(config: &Config, policy: Policy, cases: &[Case]) -> Vec<Seen> {
    let unlimited = unlimited(config);
    let arrivals = cases.iter().enumerate().map(|(case, one)| Reverse((one.item.arrived, Event::Arrived { case })));
    let mut room = Room {
        config: if policy == Policy::WithoutLimit { &unlimited } else { config },
        policy,
        cases,
        items: cases.iter().map(|case| case.item.clone()).collect(),
        waiting: Vec::new(),
        open: vec![0; config.readers().len()],
        events: arrivals.collect(),
        seen: vec![Seen::default(); cases.len()],
    };
    while let Some(Reverse((now, event))) = room.events.pop() {
        room.apply(now, event);
        room.hand_out(now);
    }
    room.seen
}

/// The same rules with no longest wait: nothing is ever due and nothing ages.
fn unlimited(config: &Config) -> Config {
    Config {
        urgent_wait_max_min: u32::MAX,
        high_wait_max_min: u32::MAX,
        routine_wait_max_min: u32::MAX,
        ageing_levels: 0.0,
        ..config.clone()
    }
}

impl Room<'_> {
    fn apply(&mut self, now: UnixMicros, event: Event) {
        match event {
            // The list is looked at again: what is due may go to those who could not have it before.
            Event::Due => (),
            Event::Arrived { case } => {
                self.waiting.push(case);
                let due = due_from(self.config, &self.items[case]);
                if self.policy == Policy::WithLimit && due > now {
                    self.events.push(Reverse((due, Event::Due)));
                }
            }
            Event::Read { reader, case } => {
                self.open[reader] = 0;
                if self.policy == Policy::FirstCome {
                    return;
                }
                let call = match self.cases[case].truth {
                    Truth::Significant => Call::Positive,
                    Truth::NotSignificant => Call::Negative,
                };
                let Some(by) = self.config.readers().get(reader) else { return };
                self.items[case].readings.push(Reading { reader: by.name.clone(), grade: by.grade, call });
                if matches!(next_step(self.config, &self.items[case]), Step::Read { .. }) {
                    self.waiting.push(case);
                }
            }
        }
    }

    /// Every free reader takes what stands first among what is for that reader.
    fn hand_out(&mut self, now: UnixMicros) {
        while self.open.contains(&0) {
            let mut best: Option<(Rank, usize, usize)> = None;
            for (slot, &case) in self.waiting.iter().enumerate() {
                let rank = self.rank(case, now);
                // Asking who may read is dear: only of what would stand before the best so far.
                let first = best.is_none_or(|(least, of, _)| {
                    (rank, &self.items[case].id) < (least, &self.items[self.waiting[of]].id)
                });
                if first && let Some(reader) = self.reader_of(case, now) {
                    best = Some((rank, slot, reader));
                }
            }
            let Some((_, slot, reader)) = best else { return };
            self.begin(slot, reader, now);
        }
    }

    fn begin(&mut self, slot: usize, reader: usize, now: UnixMicros) {
        let case = self.waiting.swap_remove(slot);
        let senior = self.config.readers().get(reader).is_some_and(|reader| reader.grade >= Grade::Senior);
        if self.items[case].readings.is_empty() {
            self.seen[case] = Seen { wait_us: now.0 - self.items[case].arrived.0, by_senior: senior };
        }
        self.open[reader] = 1;
        let end = UnixMicros(now.0 + self.cases[case].reading_us);
        self.events.push(Reverse((end, Event::Read { reader, case })));
    }

    fn rank(&self, case: usize, now: UnixMicros) -> Rank {
        match self.policy {
            Policy::FirstCome => Rank::of_arrival(&self.items[case]),
            Policy::WithoutLimit | Policy::WithLimit => Rank::of(self.config, &self.items[case], now),
        }
    }

    /// A free reader for `case`, if there is one who may have it now.
    fn reader_of(&self, case: usize, now: UnixMicros) -> Option<usize> {
        if self.policy == Policy::FirstCome {
            // Any free one, each as often as the others.
            let free: Vec<usize> = (0..self.open.len()).filter(|reader| self.open[*reader] == 0).collect();
            return free.get(case % free.len().max(1)).copied();
        }
        match assign(self.config, &self.items[case], &self.open, now) {
            Assignment::To { index, .. } if self.open[index] == 0 => Some(index),
            _ => None,
        }
    }
}
