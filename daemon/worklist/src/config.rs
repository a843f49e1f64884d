//! `[worklist]`: off unless it says whom to ask.

use fovea_core::AeTitle;
use serde::Deserialize;
use std::time::Duration;

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    address: Option<String>,
    ae_title: Option<String>,
    station_ae_title: Option<String>,
    modality: Option<String>,
    interval_s: u64,
    days_before: u32,
    days_after: u32,
    keep_days: u32,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            address: None,
            ae_title: None,
            station_ae_title: None,
            modality: None,
            interval_s: 300,
            days_before: 1,
            days_after: 1,
            keep_days: 3,
        }
    }
}

/// Checked: whom to ask for what, and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`.
    pub address: String,
    /// The provider's title.
    pub called_ae: AeTitle,
    /// Ours.
    pub calling_ae: AeTitle,
    /// (0040,0001): only items for this station, or for all.
    pub station_ae: Option<AeTitle>,
    /// (0008,0060): only items of this modality, or of all.
    pub modality: Option<String>,
    /// Between two questions.
    pub interval: Duration,
    /// Items that start so many days before today are asked for.
    pub days_before: u32,
    /// The same after today.
    pub days_after: u32,
    /// How long an item stays that the provider no longer tells: a picture may come later than its step was ticked off.
    pub keep: Duration,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {what}")]
pub struct ConfigError {
    key: &'static str,
    what: String,
}

impl Config {
    /// Checks; none where no provider is named.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn new(raw: RawConfig, calling_ae: &AeTitle) -> Result<Option<Self>, ConfigError> {
        let refused = |key, what: &str| ConfigError { key, what: what.to_owned() };
        let title =
            |key, text: String| AeTitle::new(&text).map_err(|error| ConfigError { key, what: error.to_string() });
        let (address, called) = match (raw.address, raw.ae_title) {
            (None, None) => return Ok(None),
            (Some(address), Some(called)) => (address, called),
            (None, _) => return Err(refused("worklist.address", "is missing: host:port of the provider")),
            (_, None) => return Err(refused("worklist.ae_title", "is missing: the provider's title")),
        };
        if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(refused("worklist.address", "must be host:port"));
        }
        let is_code = |text: &String| {
            let is_code_char = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            (1..=16).contains(&text.len()) && text.bytes().all(is_code_char)
        };
        if raw.modality.as_ref().is_some_and(|text| !is_code(text)) {
            return Err(refused("worklist.modality", "must be a modality's code, for instance OP"));
        }
        let days = [("worklist.days_before", raw.days_before), ("worklist.days_after", raw.days_after)];
        if let Some((key, _)) = days.into_iter().find(|(_, days)| *days > 31) {
            return Err(refused(key, "must be 0 to 31"));
        }
        if !(10..=86_400).contains(&raw.interval_s) {
            return Err(refused("worklist.interval_s", "must be 10 to 86400"));
        }
        if raw.keep_days > 365 {
            return Err(refused("worklist.keep_days", "must be 0 to 365"));
        }
        Ok(Some(Self {
            address,
            called_ae: title("worklist.ae_title", called)?,
            calling_ae: calling_ae.clone(),
            station_ae: raw.station_ae_title.map(|text| title("worklist.station_ae_title", text)).transpose()?,
            modality: raw.modality,
            interval: Duration::from_secs(raw.interval_s),
            days_before: raw.days_before,
            days_after: raw.days_after,
            keep: Duration::from_secs(u64::from(raw.keep_days) * 86_400),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<Config>, String> {
        let raw: RawConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Config::new(raw, &AeTitle::new("FOVEA").unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_without_a_provider_and_errors_name_the_key() {
        assert!(check("{}").unwrap().is_none());
        assert!(check(r#"{"address":"ris:104","ae_title":"RIS","modality":"OP"}"#).unwrap().is_some());
        for (text, key) in [
            (r#"{"ae_title":"RIS"}"#, "worklist.address"),
            (r#"{"address":"ris:104"}"#, "worklist.ae_title"),
            (r#"{"address":"ris","ae_title":"RIS"}"#, "worklist.address"),
            (r#"{"address":"ris:104","ae_title":"A TITLE THAT IS TOO LONG"}"#, "worklist.ae_title"),
            (r#"{"address":"ris:104","ae_title":"RIS","modality":"o"}"#, "worklist.modality"),
            (r#"{"address":"ris:104","ae_title":"RIS","interval_s":1}"#, "worklist.interval_s"),
            (r#"{"address":"ris:104","ae_title":"RIS","port":1}"#, "port"),
        ] {
            let error = check(text).err().unwrap();
            assert!(error.contains(key), "{error}");
        }
    }
}
