//! The modality worklist: what is planned for this box, asked for again and again, kept, and served when its source is gone.
//!
//! In: answers of a worklist provider (C-FIND on Modality Worklist). Out: [`ScheduledItem`](fovea_core::ScheduledItem)s, for
//! people and for pictures that come without a name. Promise: what was fetched is durable and survives a restart; a provider that
//! does not answer, or not to the end, takes nothing away; an accession number that means two patients means none.
//! Standard: PS3.4 annex K.

mod config;
mod fetch;
mod list;
mod task;

pub use config::{Config, ConfigError, RawConfig};
pub use fetch::FetchError;
pub use list::Worklist;
pub use task::{State, run};
