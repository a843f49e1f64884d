//! Which parcels a destination wants, beyond their kind.
//!
//! In: `[sync.destination.only]`, the finding and the object that a parcel is about. Out: yes or no. Promise: pure; what is not
//! written asks nothing, and all that is written must hold.

use fovea_core::{Accepted, Band, Finding, Outcome, Priority, Sender};
use serde::Deserialize;

/// Most entries of one list.
const ENTRIES_MAX: usize = 64;
/// Longest entry, bytes: an AE title has 16, a modality too.
const ENTRY_BYTES_MAX: usize = 16;
/// How the capture folder is called among senders.
const CAPTURE: &str = "capture";
/// And what comes over STOW-RS.
const WEB: &str = "web";

/// `[sync.destination.only]` as written: each list that is there must hold the parcel's value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRules {
    /// `finding`, `ungradable`, `not_analysed`.
    pub outcomes: Vec<Outcome>,
    /// `clear`, `ambiguous`, `significant`; a result without a band is in none.
    pub bands: Vec<Band>,
    /// `routine`, `high`, `urgent`.
    pub priorities: Vec<Priority>,
    /// (0008,0060) of the object, for instance `OP`.
    pub modalities: Vec<String>,
    /// Calling AE title of the object's sender; `capture` for the capture folder, `web` for STOW-RS.
    pub senders: Vec<String>,
}

/// Checked rules.
#[derive(Clone, Debug, Default)]
pub struct Rules(RawRules);

impl Rules {
    pub(crate) fn new(raw: RawRules) -> Result<Self, &'static str> {
        let texts = || raw.modalities.iter().chain(&raw.senders);
        if raw.modalities.len() > ENTRIES_MAX || raw.senders.len() > ENTRIES_MAX {
            return Err("has a list of more than 64 entries");
        }
        if texts().any(|text| text.is_empty() || text.len() > ENTRY_BYTES_MAX) {
            return Err("has an entry that is empty or longer than 16 bytes");
        }
        Ok(Self(raw))
    }

    /// Nothing is asked: nobody needs to be looked up.
    pub(crate) fn is_empty(&self) -> bool {
        let RawRules { outcomes, bands, priorities, modalities, senders } = &self.0;
        outcomes.is_empty() && bands.is_empty() && priorities.is_empty() && modalities.is_empty() && senders.is_empty()
    }

    /// Whether what was found in this object, and what is made of it, is wanted.
    pub(crate) fn want(&self, finding: &Finding, object: &Accepted) -> bool {
        fn holds<T: PartialEq>(list: &[T], value: Option<&T>) -> bool {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        }
        let sender = match &object.sender {
            Sender::Dimse(ae_title) => ae_title.as_str().to_owned(),
            Sender::Capture => CAPTURE.to_owned(),
            Sender::Web => WEB.to_owned(),
        };
        holds(&self.0.outcomes, Some(&finding.outcome))
            && holds(&self.0.bands, finding.band.as_ref())
            && holds(&self.0.priorities, Some(&finding.priority))
            && holds(&self.0.modalities, object.header.modality.as_ref())
            && holds(&self.0.senders, Some(&sender))
    }
}
