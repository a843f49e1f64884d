//! The section `[triage]`: known, and empty. Thresholds belong to the bundle that was calibrated with them, and who reads
//! what follows from the band; there is nothing here that a site could set without making results less safe.

use serde::Deserialize;

/// `[triage]` as written: no keys yet, so any key is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {}

/// Checked `[triage]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {}

impl From<RawConfig> for Config {
    fn from(RawConfig {}: RawConfig) -> Self {
        Self {}
    }
}
