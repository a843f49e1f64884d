//! The modality worklist: fetched, kept, shown, and asked by the capture folder for names.
//!
//! In: `[worklist]`, the store. Out: the list, and what is told of it. Promise: without a provider what was fetched before is served
//! all the same; a list that cannot be read at start is told in the log, and the box works on without names.

use crate::config::Config;
use fovea_core::{Documents, chain};
use fovea_review::{Scheduled, ScheduledOf};
use fovea_worklist::{State, Worklist};
use std::sync::{Arc, Mutex, PoisonError};

/// The list and how its fetching goes.
pub struct Planned {
    /// What is planned; none where it cannot be read.
    pub list: Option<Arc<Worklist>>,
    /// How it goes.
    pub state: Arc<Mutex<State>>,
    is_configured: bool,
}

impl Planned {
    /// Reads what was kept. Blocks for as long as that takes.
    pub fn open(config: &Config, documents: Arc<dyn Documents>) -> Self {
        let list = match Worklist::open(documents) {
            Ok(list) => Some(Arc::new(list)),
            Err(error) => {
                log::error!("the worklist that was kept cannot be read: {}", chain(&error));
                None
            }
        };
        Self { list, state: Arc::default(), is_configured: config.scheduled.is_some() }
    }

    /// For the JSON API.
    pub fn told(&self) -> ScheduledOf {
        let (list, state, is_configured) = (self.list.clone(), Arc::clone(&self.state), self.is_configured);
        Arc::new(move || {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let items = list.as_ref().map(|list| list.items()).unwrap_or_default();
            Scheduled { is_configured, fetched_at_unix_us: state.fetched_at_unix_us, error: state.error, items }
        })
    }
}
