//! The store's slow thread: now and then it makes room and compacts the journal, beside everything else.
//!
//! In: time. Out: fewer files. Promise: nobody waits for it but whoever closes the store; a failure is logged and tried again.

use crate::error::StoreError;
use crate::store::Parts;
use fovea_core::chain;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Upkeep {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Looks after `parts` once in each `every`, the first time after one.
    pub(crate) fn start(parts: Arc<Parts>, every: Duration) -> Result<Self, StoreError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let run = move || {
            loop {
                let (flag, changed) = &*stopped;
                let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = changed.wait_timeout_while(guard, every, |stop| !*stop);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                look_after(&parts);
            }
        };
        let thread = std::thread::Builder::new().name("fovea-upkeep".into()).spawn(run);
        Ok(Self { stop, thread: Some(thread.map_err(|source| StoreError::Thread { source })?) })
    }
}

fn look_after(parts: &Parts) {
    match parts.evict() {
        Ok(0) => (),
        Ok(gone) => log::info!("made room: the files of {gone} parcels went, an archive has proved to keep them"),
        Err(error) => log::error!("make room: {}", chain(&error)),
    }
    match parts.compact() {
        Ok(None) => (),
        Ok(Some(compacted)) => log::info!(
            "journal compacted: {} files of {} bytes are one of {}",
            compacted.files,
            compacted.bytes_before,
            compacted.bytes_after
        ),
        Err(error) => log::error!("compact the journal: {error}"),
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the store's upkeep ended in a panic");
        }
    }
}
