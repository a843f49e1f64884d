//! Deliveries that are being noted in the outbox while the next object is on the line.
//!
//! In: what the archive took. Out: the same, durable. Promise: at most [`NOTES_MAX`] are on their way, so a crash sends at most so many
//! again, under the same UIDs; the outbox makes those that are on their way together durable with one sync.

use fovea_core::{Outbox, Parcel, PortError, UnixMicros, chain};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};

/// Deliveries on their way to the outbox.
const NOTES_MAX: usize = 16;

/// A note that came back.
type Noted = (u64, UnixMicros, Result<(), PortError>);

pub(crate) struct Notes {
    outbox: Arc<dyn Outbox>,
    destination: String,
    running: JoinSet<Noted>,
    /// Delivered, and not noted yet.
    open: HashMap<u64, Parcel>,
    /// Could not be noted: before anything else is sent.
    failed: Vec<(u64, UnixMicros)>,
}

impl Notes {
    pub(crate) fn new(outbox: Arc<dyn Outbox>, destination: &str) -> Self {
        let destination = destination.to_owned();
        Self { outbox, destination, running: JoinSet::new(), open: HashMap::new(), failed: Vec::new() }
    }

    /// The archive has it, whatever the outbox says yet.
    pub(crate) fn seqs(&self) -> HashSet<u64> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    fn begin(&mut self, seq: u64, at: UnixMicros) {
        let (outbox, name) = (Arc::clone(&self.outbox), self.destination.clone());
        self.running.spawn_blocking(move || (seq, at, outbox.delivered(seq, &name, at)));
    }

    /// Notes one more; the ones that came back meanwhile.
    pub(crate) async fn add(&mut self, parcel: Parcel, at: UnixMicros) -> Result<Vec<Parcel>, JoinError> {
        let seq = parcel.seq;
        self.open.insert(seq, parcel);
        self.begin(seq, at);
        let mut done = Vec::new();
        while self.running.len() >= NOTES_MAX {
            self.wait_for_one(&mut done).await?;
        }
        while let Some(noted) = self.running.try_join_next() {
            self.came_back(noted?, &mut done);
        }
        Ok(done)
    }

    /// Waits until all are noted, those too that failed before; what could not be noted stays.
    pub(crate) async fn settle(&mut self) -> Result<Vec<Parcel>, JoinError> {
        for (seq, at) in std::mem::take(&mut self.failed) {
            self.begin(seq, at);
        }
        let mut done = Vec::new();
        while !self.running.is_empty() {
            self.wait_for_one(&mut done).await?;
        }
        Ok(done)
    }

    async fn wait_for_one(&mut self, done: &mut Vec<Parcel>) -> Result<(), JoinError> {
        if let Some(noted) = self.running.join_next().await {
            self.came_back(noted?, done);
        }
        Ok(())
    }

    fn came_back(&mut self, (seq, at, result): Noted, done: &mut Vec<Parcel>) {
        match result {
            Ok(()) => done.extend(self.open.remove(&seq)),
            Err(error) => {
                log::error!("parcel {seq} was delivered, which cannot be recorded: {}", chain(&error));
                self.failed.push((seq, at));
            }
        }
    }
}
