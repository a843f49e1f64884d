//! The section `[store]`.
//! In: the raw section and the daemon's `--state`. Out: a [`Config`] that can be used without asking again.

use crate::evict::Keep;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How far the low watermark lies below the high one where it is not set, percent.
const LOW_BELOW_HIGH: u8 = 10;
/// Longest time that a file may be asked to be kept, days: ten years.
const KEEP_DAYS_MAX: u32 = 3653;

/// `[store]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Folder of everything the box keeps; the daemon's `--state` goes before it.
    pub state_dir: Option<PathBuf>,
    /// Share of the file system, in percent, past which no new object is taken (50 to 99).
    pub high_watermark_percent: u8,
    /// Once the high watermark is passed, files that an archive has proved to keep go until the file system is this full,
    /// percent (1 to just below the high one); ten below the high one where it is not set.
    pub low_watermark_percent: Option<u8>,
    /// Most that is held of one sender, GiB; 0 for no limit.
    pub sender_quota_gib: u32,
    /// Take, record and send nothing; what is held can be read.
    pub read_only: bool,
    /// How long files stay after an archive has proved to keep them.
    pub keep_days: RawKeep,
}

/// `[store.keep_days]` as written: days that a file stays on the box after an archive has proved to keep it.
/// Without a proof every file stays; past the high watermark those with one may go earlier.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawKeep {
    /// Objects as received (0 to 3653).
    pub originals: u32,
    /// De-identified copies (0 to 3653).
    pub deidentified: u32,
    /// Reports (0 to 3653).
    pub findings: u32,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            state_dir: None,
            high_watermark_percent: 90,
            low_watermark_percent: None,
            sender_quota_gib: 0,
            read_only: false,
            keep_days: RawKeep::default(),
        }
    }
}

impl Default for RawKeep {
    fn default() -> Self {
        // A month for questions about a picture; a copy has done its work when it is there; reports are small.
        Self { originals: 30, deidentified: 7, findings: 365 }
    }
}

/// Checked `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of everything the box keeps.
    pub state_dir: PathBuf,
    /// Share of the file system in use past which no new object is taken, percent.
    pub high_watermark_percent: u8,
    /// Share of the file system in use down to which room is made, percent.
    pub low_watermark_percent: u8,
    /// Most that is held of one sender, bytes.
    pub sender_bytes_max: Option<u64>,
    /// Take, record and send nothing.
    pub read_only: bool,
    /// How long files stay after an archive has proved to keep them.
    pub keep: Keep,
    /// A journal file is closed and the next one begun when it is longer than this, bytes.
    pub segment_bytes_max: u64,
    /// How often files that may go are looked for and the journal is compacted; none for never.
    pub upkeep_every: Option<Duration>,
}

/// What is wrong with `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No place to keep anything.
    #[error("store.state_dir is not set, and no --state was given")]
    NoStateDir,
    /// Below 50 the box would refuse on healthy disks, at 100 the check could never fire.
    #[error("store.high_watermark_percent is {found}, it must be 50 to 99")]
    Watermark {
        /// What was written.
        found: u8,
    },
    /// Room would be made for ever, or never.
    #[error("store.low_watermark_percent is {found}, it must be 1 to {most}, below the high one")]
    LowWatermark {
        /// What was written.
        found: u8,
        /// The most that it may be.
        most: u8,
    },
    /// Longer than the box lives.
    #[error("store.keep_days.{kind} is {found}, it must be 0 to {KEEP_DAYS_MAX}")]
    KeepDays {
        /// The key.
        kind: &'static str,
        /// What was written.
        found: u32,
    },
}

impl Config {
    /// Checks the raw section; `state` is the daemon's `--state`, which wins over `state_dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn new(raw: RawConfig, state: Option<&Path>) -> Result<Self, ConfigError> {
        let state_dir = state.map(Path::to_owned).or(raw.state_dir).ok_or(ConfigError::NoStateDir)?;
        let high = raw.high_watermark_percent;
        let low = raw.low_watermark_percent.unwrap_or(high.saturating_sub(LOW_BELOW_HIGH));
        if !(50..=99).contains(&high) {
            return Err(ConfigError::Watermark { found: high });
        }
        if !(1..high).contains(&low) {
            return Err(ConfigError::LowWatermark { found: low, most: high - 1 });
        }
        Ok(Self {
            high_watermark_percent: high,
            low_watermark_percent: low,
            sender_bytes_max: (raw.sender_quota_gib > 0).then_some(u64::from(raw.sender_quota_gib) << 30),
            read_only: raw.read_only,
            keep: raw.keep_days.check()?,
            ..Self::at(&state_dir)
        })
    }

    /// The defaults, with state in `state_dir`.
    #[must_use]
    pub fn at(state_dir: &Path) -> Self {
        let raw = RawConfig::default();
        Self {
            state_dir: state_dir.to_owned(),
            high_watermark_percent: raw.high_watermark_percent,
            low_watermark_percent: raw.high_watermark_percent - LOW_BELOW_HIGH,
            sender_bytes_max: None,
            read_only: raw.read_only,
            keep: raw.keep_days.keep(),
            // Small enough to read in a blink when its tail is checked, large enough that rotation costs nothing.
            segment_bytes_max: 64 << 20,
            // A disk that fills at 100 MB/s gains 6 GB in between: well within a tenth of any disk that this runs on.
            upkeep_every: Some(Duration::from_secs(60)),
        }
    }
}

impl RawKeep {
    fn check(self) -> Result<Keep, ConfigError> {
        let all = [("originals", self.originals), ("deidentified", self.deidentified), ("findings", self.findings)];
        match all.into_iter().find(|(_, days)| *days > KEEP_DAYS_MAX) {
            Some((kind, found)) => Err(ConfigError::KeepDays { kind, found }),
            None => Ok(self.keep()),
        }
    }

    fn keep(self) -> Keep {
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        Keep { originals: days(self.originals), deidentified: days(self.deidentified), findings: days(self.findings) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key_and_the_flag_wins() {
        assert_eq!(Config::new(RawConfig::default(), None), Err(ConfigError::NoStateDir));
        let raw = RawConfig { state_dir: Some("/a".into()), high_watermark_percent: 100, ..RawConfig::default() };
        let error = Config::new(raw.clone(), None).unwrap_err();
        assert!(error.to_string().contains("store.high_watermark_percent"), "{error}");
        let raw = RawConfig { high_watermark_percent: 95, ..raw };
        assert_eq!(Config::new(raw.clone(), None).unwrap().state_dir, Path::new("/a"));
        assert_eq!(Config::new(raw.clone(), Some(Path::new("/b"))).unwrap().state_dir, Path::new("/b"));
        for low in [0, 95, 96] {
            let error = Config::new(RawConfig { low_watermark_percent: Some(low), ..raw.clone() }, None).unwrap_err();
            assert!(error.to_string().contains("store.low_watermark_percent"), "{error}");
        }
        let keep_days = RawKeep { deidentified: 3654, ..RawKeep::default() };
        let error = Config::new(RawConfig { keep_days, ..raw }, None).unwrap_err();
        assert!(error.to_string().contains("store.keep_days.deidentified"), "{error}");
    }

    #[test]
    fn unknown_keys_are_refused_and_units_are_what_the_names_say() {
        let read = |text: &str| serde_json::from_str::<RawConfig>(text);
        assert!(read(r#"{"high_watermark_percent": 80}"#).is_ok());
        assert!(read(r#"{"watermark": 80}"#).is_err());
        assert!(read(r#"{"keep_days": {"objects": 3}}"#).is_err());
        let raw = read(r#"{"sender_quota_gib": 2, "keep_days": {"originals": 3}}"#).unwrap();
        let config = Config::new(raw, Some(Path::new("/a"))).unwrap();
        assert_eq!(config.sender_bytes_max, Some(2_147_483_648));
        assert_eq!((config.high_watermark_percent, config.low_watermark_percent), (90, 80));
        let raw = read(r#"{"high_watermark_percent": 50}"#).unwrap();
        assert_eq!(Config::new(raw, Some(Path::new("/a"))).unwrap().low_watermark_percent, 40);
        assert_eq!(config.keep.originals, Duration::from_secs(259_200));
        assert_eq!(config.keep.findings, Duration::from_secs(365 * 86_400));
    }
}
