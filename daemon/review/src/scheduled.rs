//! What is planned, as the daemon answers it.
//!
//! In: nothing. Out: the form of the answer. Promise: it says how old it is; patients are named, as on any worklist, to who may open
//! the control socket.

use fovea_core::{ScheduledItem, UnixMicros};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Gives the planned steps. From memory.
pub type ScheduledOf = Arc<dyn Fn() -> Scheduled + Send + Sync>;

/// The modality worklist at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Scheduled {
    /// A provider is configured.
    pub is_configured: bool,
    /// When the provider last told all of it.
    pub fetched_at_unix_us: Option<UnixMicros>,
    /// Why it did not since, in words.
    pub error: Option<String>,
    /// In the order of their start.
    pub items: Vec<ScheduledItem>,
}
