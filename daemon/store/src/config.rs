//! The section `[store]`.
//! In: the raw section and the daemon's `--state`. Out: a [`Config`] that can be used without asking again.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `[store]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Folder of everything the box keeps; the daemon's `--state` goes before it.
    pub state_dir: Option<PathBuf>,
    /// Share of the file system, in percent, past which no new object is taken (50 to 99).
    pub high_watermark_percent: u8,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self { state_dir: None, high_watermark_percent: 90 }
    }
}

/// Checked `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of everything the box keeps.
    pub state_dir: PathBuf,
    /// Share of the file system in use past which no new object is taken, percent.
    pub high_watermark_percent: u8,
    /// A journal file is closed and the next one begun when it is longer than this, bytes.
    pub segment_bytes_max: u64,
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
}

impl Config {
    /// Checks the raw section; `state` is the daemon's `--state`, which wins over `state_dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn new(raw: RawConfig, state: Option<&Path>) -> Result<Self, ConfigError> {
        let state_dir = state.map(Path::to_owned).or(raw.state_dir).ok_or(ConfigError::NoStateDir)?;
        if !(50..=99).contains(&raw.high_watermark_percent) {
            return Err(ConfigError::Watermark { found: raw.high_watermark_percent });
        }
        Ok(Self { high_watermark_percent: raw.high_watermark_percent, ..Self::at(&state_dir) })
    }

    /// The defaults, with state in `state_dir`.
    #[must_use]
    pub fn at(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            high_watermark_percent: RawConfig::default().high_watermark_percent,
            // Small enough to read in a blink when its tail is checked, large enough that rotation costs nothing.
            segment_bytes_max: 64 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key_and_the_flag_wins() {
        assert_eq!(Config::new(RawConfig::default(), None), Err(ConfigError::NoStateDir));
        let raw = RawConfig { state_dir: Some("/a".into()), high_watermark_percent: 100 };
        let error = Config::new(raw.clone(), None).unwrap_err();
        assert!(error.to_string().contains("store.high_watermark_percent"), "{error}");
        let raw = RawConfig { high_watermark_percent: 95, ..raw };
        assert_eq!(Config::new(raw.clone(), None).unwrap().state_dir, Path::new("/a"));
        assert_eq!(Config::new(raw, Some(Path::new("/b"))).unwrap().state_dir, Path::new("/b"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<RawConfig>(r#"{"high_watermark_percent": 80}"#).is_ok());
        assert!(serde_json::from_str::<RawConfig>(r#"{"watermark": 80}"#).is_err());
    }
}
