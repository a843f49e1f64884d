//! The section `[[sync.destination]]`.
//! In: the raw tables and the box's own AE title. Out: [`Destination`]s that can be used without asking again.

use fovea_core::{AeTitle, What};
use fovea_dimse::{ScuTls, TlsClient, TlsError, TlsFiles};
use serde::Deserialize;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Longest name of a destination, bytes: it is kept with each parcel.
const NAME_BYTES_MAX: usize = 64;
/// A day: longer silence than that is an outage that nobody wanted.
const RETRY_MS_MAX: u64 = 24 * 3600 * 1000;
/// A month.
const REFUSE_AFTER_S_MAX: u64 = 31 * 24 * 3600;

/// `[sync]` as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `[[sync.destination]]`, none by default: the outbox then holds.
    pub destination: Vec<RawDestination>,
}

/// One `[[sync.destination]]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDestination {
    /// Names it in status and records; keep it, or everything is sent again.
    pub name: String,
    /// `dimse`.
    pub kind: String,
    /// `host:port`.
    pub address: String,
    /// The archive's AE title.
    pub ae_title: String,
    /// What it gets.
    pub what: Vec<What>,
    /// First pause after a failure, milliseconds; doubles each time.
    #[serde(default = "retry_min_ms")]
    pub retry_min_ms: u64,
    /// Longest pause, milliseconds.
    #[serde(default = "retry_max_ms")]
    pub retry_max_ms: u64,
    /// Times that the archive may refuse one object before it is set aside.
    #[serde(default = "refusals_max")]
    pub refusals_max: u32,
    /// And so long after the first refusal at the earliest, seconds: an archive that is ill refuses all it is sent.
    #[serde(default = "refuse_after_min_s")]
    pub refuse_after_min_s: u64,
    /// Longest silence of the archive while it is to answer, milliseconds.
    #[serde(default = "response_timeout_ms")]
    pub response_timeout_ms: u64,
    /// Encrypted; plain where absent.
    pub tls: Option<RawTls>,
}

/// `[sync.destination.tls]` as written: PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// Our certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// Our private key, mode 600.
    pub key: PathBuf,
    /// Authorities of archives that we believe.
    pub authorities: PathBuf,
    /// The name in the archive's certificate, where it is not the host of `address`.
    pub name: Option<String>,
}

fn retry_min_ms() -> u64 {
    1_000
}
fn retry_max_ms() -> u64 {
    300_000
}
fn refusals_max() -> u32 {
    5
}
fn refuse_after_min_s() -> u64 {
    24 * 3600
}
fn response_timeout_ms() -> u64 {
    30_000
}

/// A checked destination.
#[derive(Clone)]
pub struct Destination {
    /// Names it in status and records.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// The archive's AE title.
    pub called_ae: AeTitle,
    /// Ours.
    pub calling_ae: AeTitle,
    /// What it gets, at least one kind.
    pub what: Vec<What>,
    /// First pause after a failure.
    pub retry_min: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// Refusals of one object before it is set aside.
    pub refusals_max: NonZeroU32,
    /// From the first of them to that, at least.
    pub refuse_after_min: Duration,
    /// Longest silence of the archive.
    pub response_timeout: Duration,
    /// Encrypted; plain where none.
    pub tls: Option<ScuTls>,
}

/// Checked `[sync]`.
#[derive(Clone, Default)]
pub struct Config {
    /// Names differ.
    pub destinations: Vec<Destination>,
}

/// What is wrong with `[[sync.destination]]`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A kind that is planned.
    #[error("sync.destination.kind \"{kind}\" of \"{name}\" is not in this version; use \"dimse\"")]
    KindNotYet {
        /// Destination.
        name: String,
        /// Kind.
        kind: String,
    },
    /// Any other kind.
    #[error("sync.destination.kind of \"{name}\" must be \"dimse\"")]
    Kind {
        /// Destination.
        name: String,
    },
    /// A key with a value that cannot be used.
    #[error("sync.destination.{key} of \"{name}\" {problem}")]
    Value {
        /// Destination.
        name: String,
        /// Key.
        key: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The certificate, key or authorities cannot be used.
    #[error("sync.destination.tls of \"{name}\"")]
    Tls {
        /// Destination.
        name: String,
        /// Which file, and why.
        source: TlsError,
    },
    /// Two destinations with one name.
    #[error("sync.destination.name \"{name}\" is used twice")]
    SameName {
        /// Name.
        name: String,
    },
}

impl Config {
    /// Checks `[sync]`; `calling_ae` is the box's own title (`[receive] ae_title`).
    ///
    /// # Errors
    /// [`ConfigError`] names the destination and the key.
    pub fn new(raw: RawConfig, calling_ae: &AeTitle) -> Result<Self, ConfigError> {
        let checked = raw.destination.into_iter().map(|raw| Destination::new(raw, calling_ae));
        let destinations = checked.collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::new();
        for Destination { name, .. } in &destinations {
            if !names.insert(name) {
                return Err(ConfigError::SameName { name: name.clone() });
            }
        }
        Ok(Self { destinations })
    }
}

impl Destination {
    fn new(raw: RawDestination, calling_ae: &AeTitle) -> Result<Self, ConfigError> {
        let name = raw.name;
        let wrong = |key, problem| ConfigError::Value { name: name.clone(), key, problem };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(wrong("name", "must be 1 to 64 bytes without control characters"));
        }
        match raw.kind.as_str() {
            "dimse" => (),
            "stow" | "fhir" | "hl7" => return Err(ConfigError::KindNotYet { name, kind: raw.kind }),
            _ => return Err(ConfigError::Kind { name }),
        }
        let port = raw.address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(wrong("address", "must be host:port"));
        }
        let called_ae = AeTitle::new(&raw.ae_title).map_err(|_| wrong("ae_title", "is no AE title"))?;
        if raw.what.is_empty() {
            return Err(wrong("what", "is empty"));
        }
        if raw.retry_min_ms < 10 || raw.retry_min_ms > raw.retry_max_ms {
            return Err(wrong("retry_min_ms", "must be 10 or more, and not above retry_max_ms"));
        }
        if raw.retry_max_ms > RETRY_MS_MAX {
            return Err(wrong("retry_max_ms", "must be at most a day"));
        }
        if !(100..=600_000).contains(&raw.response_timeout_ms) {
            return Err(wrong("response_timeout_ms", "must be 100 to 600000"));
        }
        if raw.refuse_after_min_s > REFUSE_AFTER_S_MAX {
            return Err(wrong("refuse_after_min_s", "must be at most a month"));
        }
        let refusals_max = NonZeroU32::new(raw.refusals_max).ok_or_else(|| wrong("refusals_max", "must not be 0"))?;
        let tls =
            raw.tls.map(RawTls::load).transpose().map_err(|source| ConfigError::Tls { name: name.clone(), source })?;
        let mut what = raw.what;
        what.sort_unstable();
        what.dedup();
        Ok(Self {
            name,
            address: raw.address,
            called_ae,
            calling_ae: calling_ae.clone(),
            what,
            retry_min: Duration::from_millis(raw.retry_min_ms),
            retry_max: Duration::from_millis(raw.retry_max_ms),
            refusals_max,
            refuse_after_min: Duration::from_secs(raw.refuse_after_min_s),
            response_timeout: Duration::from_millis(raw.response_timeout_ms),
            tls,
        })
    }
}

impl RawTls {
    fn load(self) -> Result<ScuTls, TlsError> {
        let Self { certificate, key, authorities, name } = self;
        Ok(ScuTls { client: TlsClient::new(&TlsFiles { certificate, key, authorities })?, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        Config::new(raw, &AeTitle::new("FOVEA").unwrap()).map_err(|error| fovea_core::chain(&error))
    }

    const GOOD: &str = r#"
        [[destination]]
        name = "vna"
        kind = "dimse"
        address = "archive.example:104"
        ae_title = "ARCHIVE"
        what = ["findings", "deidentified"]
    "#;

    #[test]
    fn the_defaults_are_good_for_a_clinic() {
        let config = check(GOOD).unwrap();
        let vna = &config.destinations[0];
        assert_eq!((vna.called_ae.as_str(), vna.calling_ae.as_str()), ("ARCHIVE", "FOVEA"));
        assert_eq!((vna.retry_min, vna.retry_max), (Duration::from_secs(1), Duration::from_secs(300)));
        assert_eq!((vna.refusals_max.get(), vna.what.len()), (5, 2));
        assert_eq!(vna.refuse_after_min, Duration::from_secs(24 * 3600), "an ill archive is given a day");
        assert!(vna.tls.is_none());
        assert!(check("").unwrap().destinations.is_empty());
    }

    #[test]
    fn each_error_names_the_key() {
        for (good, bad, key) in [
            ("\"dimse\"", "\"stow\"", "not in this version"),
            ("\"dimse\"", "\"fhir\"", "not in this version"),
            ("\"dimse\"", "\"ftp\"", "sync.destination.kind"),
            ("archive.example:104", "archive.example", "sync.destination.address"),
            ("archive.example:104", ":104", "sync.destination.address"),
            ("archive.example:104", "archive.example:0", "sync.destination.address"),
            ("\"ARCHIVE\"", "\"SEVENTEEN_LETTERS\"", "sync.destination.ae_title"),
            ("[\"findings\", \"deidentified\"]", "[]", "sync.destination.what"),
            ("\"deidentified\"", "\"everything\"", "everything"),
            ("name = \"vna\"", "name = \"\"", "sync.destination.name"),
            ("kind =", "color = \"red\"\nkind =", "color"),
            ("kind =", "retry_min_ms = 5\nkind =", "sync.destination.retry_min_ms"),
            ("kind =", "retry_max_ms = 500\nkind =", "retry_max_ms"),
            ("kind =", "refusals_max = 0\nkind =", "sync.destination.refusals_max"),
            ("kind =", "refuse_after_min_s = 99999999\nkind =", "sync.destination.refuse_after_min_s"),
        ] {
            let error = check(&GOOD.replace(good, bad)).err().unwrap();
            assert!(error.contains(key), "{bad}: {error}");
        }
        assert!(check(&GOOD.repeat(2)).err().unwrap().contains("used twice"));
        let tls =
            "[destination.tls]\ncertificate = \"/nowhere/box.pem\"\nkey = \"k\"\nauthorities = \"/nowhere/ca.pem\"";
        let error = check(&format!("{GOOD}\n{tls}")).err().unwrap();
        assert!(error.contains("tls of \"vna\"") && error.contains("/nowhere/"), "{error}");
    }
}
