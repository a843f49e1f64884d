//! What goes next: the head of the outbox's queue, after rules, hours, budget and earlier tries.
//!
//! In: what waits in the outbox. Out: the next parcels of one lane. Promise: lanes strictly in their order; what may not go now holds up
//! nothing that may; a parcel that the rules do not want is settled once, durably.

use crate::backoff::{HELD_MAX, Tries};
use crate::config::Destination;
use crate::custodian::Clock;
use crate::pace::Purse;
use fovea_core::{Inbox, Lane, Ledger, Outbox, Parcel, PortError, RULED_OUT};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Parcels looked at together, to choose the next and to know which classes to propose.
const WINDOW: usize = 64;
const LANES: [Lane; 4] = [Lane::UrgentFindings, Lane::Findings, Lane::KeyImages, Lane::Pixels];

/// The places that a destination works on.
#[derive(Clone)]
pub struct Ports {
    /// For the rules: what the object is and who sent it.
    pub inbox: Arc<dyn Inbox>,
    /// For the rules: what was found.
    pub ledger: Arc<dyn Ledger>,
    /// What waits.
    pub outbox: Arc<dyn Outbox>,
    /// Tells the time.
    pub clock: Clock,
}

/// A look at the outbox.
pub(crate) struct Look {
    pub parcels: Vec<Parcel>,
    pub ruled_out: u64,
}

/// Reads the head of the queue and settles what the rules do not want. Blocks on disk.
pub(crate) fn look(ports: &Ports, destination: &Destination, limit: usize) -> Result<Look, PortError> {
    let waiting = ports.outbox.waiting(&destination.name, &destination.what, limit)?;
    if destination.only.is_empty() {
        return Ok(Look { parcels: waiting, ruled_out: 0 });
    }
    let (mut parcels, mut ruled_out) = (Vec::new(), 0);
    for parcel in waiting {
        let finding = ports.ledger.finding_of(&parcel.source_sop_instance_uid)?;
        let object = ports.inbox.accepted(&parcel.source_sop_instance_uid)?;
        let wanted = finding.zip(object).is_some_and(|(finding, object)| destination.only.want(&finding, &object));
        if wanted {
            parcels.push(parcel);
        } else {
            ports.outbox.set_aside(parcel.seq, &destination.name, RULED_OUT)?;
            ruled_out += 1;
        }
    }
    Ok(Look { parcels, ruled_out })
}

/// The next, or when to look again.
pub(crate) enum Next {
    Send(Vec<Parcel>),
    /// What waits may not go for so long; none when nothing waits.
    Wait(Option<Duration>),
}

/// The head of the queue as it was read last.
#[derive(Default)]
pub(crate) struct Queue {
    parcels: VecDeque<Parcel>,
    /// Something happened that may have changed the order.
    stale: bool,
    /// A lane is closed before one that is open: more must be read to see behind it.
    sees_far: bool,
}

impl Queue {
    pub(crate) fn is_stale(&self) -> bool {
        self.stale || self.parcels.is_empty()
    }

    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// How many rows to read.
    pub(crate) fn limit(&mut self, purse: &mut Purse, tries: &Tries, noting: usize, clock: &Clock) -> usize {
        let now = clock();
        let open = LANES.map(|lane| purse.opens_in(lane, now).is_none());
        // Open lanes behind a closed one.
        self.sees_far = open.iter().skip_while(|open| **open).any(|open| *open);
        WINDOW + tries.len() + noting + if self.sees_far { HELD_MAX } else { 0 }
    }

    pub(crate) fn fill(&mut self, parcels: Vec<Parcel>, noting: &HashSet<u64>) {
        self.parcels = parcels.into_iter().filter(|parcel| !noting.contains(&parcel.seq)).collect();
        self.stale = false;
    }

    /// All that is known to wait, the next first.
    pub(crate) fn head(&self) -> impl Iterator<Item = &Parcel> {
        self.parcels.iter().take(WINDOW)
    }

    /// Takes the next parcel, and more of its lane up to the bounds of a request.
    pub(crate) fn next(
        &mut self,
        tries: &Tries,
        purse: &mut Purse,
        clock: &Clock,
        (instances_max, bytes_max): (usize, u64),
    ) -> Next {
        let (now, wall) = (Instant::now(), clock());
        let closed = LANES.map(|lane| purse.opens_in(lane, wall));
        let may_go =
            |parcel: &Parcel| closed[parcel.lane as usize].is_none() && tries.ready(parcel.seq, parcel.lane, now);
        let Some(first) = self.parcels.iter().position(may_go) else {
            let opens = self.parcels.iter().filter_map(|parcel| closed[parcel.lane as usize]).min();
            let retried = tries.next().map(|at| at.saturating_duration_since(now));
            let wait = opens.into_iter().chain(retried).min().filter(|_| !self.parcels.is_empty());
            self.stale = true;
            return Next::Wait(wait);
        };
        let lane = self.parcels[first].lane;
        let (mut batch, mut bytes, mut at) = (Vec::new(), 0, first);
        while batch.len() < instances_max {
            let Some(parcel) = self.parcels.get(at) else { break };
            if parcel.lane != lane || !batch.is_empty() && bytes + parcel.file_bytes > bytes_max {
                break;
            }
            if !may_go(parcel) {
                at += 1;
                continue;
            }
            bytes += parcel.file_bytes;
            batch.extend(self.parcels.remove(at));
        }
        Next::Send(batch)
    }
}
