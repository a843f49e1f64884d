//! The section `[[sync.destination]]`.
//! In: the raw tables and the box's own AE title. Out: [`Destination`]s that can be used without asking again.

use crate::pace::{Budget, Hours, RawBudget, RawHours};
use crate::rules::{RawRules, Rules};
use crate::web::{Auth, RawAuth, WebAddress};
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
    /// `dimse`, or `dicomweb` for STOW-RS.
    pub kind: String,
    /// `host:port`; for `dimse`.
    pub address: Option<String>,
    /// The archive's AE title; for `dimse`.
    pub ae_title: Option<String>,
    /// Where its DICOMweb services are, for instance `https://archive.example/dicom-web`; for `dicomweb`.
    pub url: Option<String>,
    /// Who we prove to be; for `dicomweb`.
    pub auth: Option<RawAuth>,
    /// Most instances in one request; for `dicomweb`.
    #[serde(default = "batch_instances_max")]
    pub batch_instances_max: usize,
    /// Most bytes in one request of several instances; for `dicomweb`.
    #[serde(default = "batch_bytes_max")]
    pub batch_bytes_max: u64,
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
    /// Which of them it gets.
    #[serde(default)]
    pub only: RawRules,
    /// When.
    #[serde(default)]
    pub hours: RawHours,
    /// How much.
    #[serde(default)]
    pub budget: RawBudget,
    /// How it proves that it keeps what it took.
    #[serde(default)]
    pub custody: CustodyBy,
    /// So long after a delivery proof is asked for, seconds: an archive needs a moment, and several are asked for at once.
    #[serde(default = "custody_after_s")]
    pub custody_after_s: u64,
    /// So long the result of a request for commitment is waited for before it is asked again, seconds.
    #[serde(default = "custody_wait_s")]
    pub custody_wait_s: u64,
    /// So often an object that it took and does not keep is sent again before it is set aside.
    #[serde(default = "custody_resends_max")]
    pub custody_resends_max: u32,
}

/// How a destination proves that it keeps what it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustodyBy {
    /// Not at all: nothing is ever evicted on its word.
    #[default]
    None,
    /// Storage commitment (PS3.4 annex J).
    Commitment,
    /// A query afterwards: C-FIND, or QIDO-RS.
    Query,
}

/// `[sync.destination.tls]` as written: PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// Our certificate, then those between it and its authority. With `key`; only `dicomweb` may go without both.
    pub certificate: Option<PathBuf>,
    /// Our private key, mode 600.
    pub key: Option<PathBuf>,
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
fn batch_instances_max() -> usize {
    16
}
fn batch_bytes_max() -> u64 {
    8 << 20
}
fn custody_after_s() -> u64 {
    60
}
fn custody_wait_s() -> u64 {
    3600
}
fn custody_resends_max() -> u32 {
    3
}

/// A checked destination.
#[derive(Clone)]
pub struct Destination {
    /// Names it in status and records.
    pub name: String,
    /// How it is reached.
    pub line: Line,
    /// Our AE title.
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
    /// Which parcels it gets.
    pub only: Rules,
    /// When.
    pub hours: Hours,
    /// How much.
    pub budget: Budget,
    /// Proof of custody.
    pub custody: CustodyBy,
    /// From a delivery to the question for proof.
    pub custody_after: Duration,
    /// From a request for commitment to the next.
    pub custody_wait: Duration,
    /// Times that an object is sent again that is not kept.
    pub custody_resends_max: u32,
}

/// How an archive is reached.
#[derive(Clone, Debug)]
pub enum Line {
    /// C-STORE.
    Dimse {
        /// `host:port`.
        address: String,
        /// The archive's AE title.
        called_ae: AeTitle,
    },
    /// STOW-RS.
    Web {
        /// Where its services are.
        address: WebAddress,
        /// Who we prove to be.
        auth: Option<Auth>,
        /// Most instances in one request.
        batch_instances_max: usize,
        /// Most bytes in one request of several.
        batch_bytes_max: u64,
    },
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
    #[error("sync.destination.kind \"{kind}\" of \"{name}\" is not in this version; use \"dimse\" or \"dicomweb\"")]
    KindNotYet {
        /// Destination.
        name: String,
        /// Kind.
        kind: String,
    },
    /// Any other kind.
    #[error("sync.destination.kind of \"{name}\" must be \"dimse\" or \"dicomweb\"")]
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
        let name = raw.name.clone();
        let wrong = |key, problem| ConfigError::Value { name: name.clone(), key, problem };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(wrong("name", "must be 1 to 64 bytes without control characters"));
        }
        let is_web = match raw.kind.as_str() {
            "dimse" => false,
            "dicomweb" | "stow" => true,
            "fhir" | "hl7" => return Err(ConfigError::KindNotYet { name, kind: raw.kind }),
            _ => return Err(ConfigError::Kind { name }),
        };
        let line = if is_web { web_line(&raw) } else { dimse_line(&raw) };
        let line = line.map_err(|(key, problem)| wrong(key, problem))?;
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
        if is_web && raw.custody == CustodyBy::Commitment {
            return Err(wrong("custody", "by commitment needs kind \"dimse\"; use \"query\""));
        }
        if raw.custody_after_s > REFUSE_AFTER_S_MAX || !(1..=REFUSE_AFTER_S_MAX).contains(&raw.custody_wait_s) {
            return Err(wrong("custody_wait_s", "and custody_after_s must be at most a month, and the first not 0"));
        }
        let only = Rules::new(raw.only).map_err(|problem| wrong("only", problem))?;
        let hours = Hours::new(raw.hours).map_err(|(key, problem)| wrong(key, problem))?;
        let budget = Budget::new(raw.budget).map_err(|(key, problem)| wrong(key, problem))?;
        let tls = match raw.tls {
            None if matches!(&line, Line::Web { address, .. } if address.is_secure) => {
                return Err(wrong("tls", "is needed for https: its authorities are the ones that are believed"));
            }
            None => None,
            Some(tls) if !is_web && (tls.certificate.is_none() || tls.key.is_none()) => {
                return Err(wrong("tls", "needs certificate and key for \"dimse\""));
            }
            Some(tls) => Some(tls.load().map_err(|source| ConfigError::Tls { name: name.clone(), source })?),
        };
        let mut what = raw.what;
        what.sort_unstable();
        what.dedup();
        Ok(Self {
            name,
            line,
            calling_ae: calling_ae.clone(),
            what,
            retry_min: Duration::from_millis(raw.retry_min_ms),
            retry_max: Duration::from_millis(raw.retry_max_ms),
            refusals_max,
            refuse_after_min: Duration::from_secs(raw.refuse_after_min_s),
            response_timeout: Duration::from_millis(raw.response_timeout_ms),
            tls,
            only,
            hours,
            budget,
            custody: raw.custody,
            custody_after: Duration::from_secs(raw.custody_after_s),
            custody_wait: Duration::from_secs(raw.custody_wait_s),
            custody_resends_max: raw.custody_resends_max,
        })
    }
}

type Wrong = (&'static str, &'static str);

fn dimse_line(raw: &RawDestination) -> Result<Line, Wrong> {
    let address = raw.address.clone().unwrap_or_default();
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(("address", "must be host:port"));
    }
    if raw.url.is_some() || raw.auth.is_some() {
        return Err(("url", "and auth are for kind \"dicomweb\""));
    }
    let title = raw.ae_title.as_deref().ok_or(("ae_title", "is needed"))?;
    let called_ae = AeTitle::new(title).map_err(|_| ("ae_title", "is no AE title"))?;
    Ok(Line::Dimse { address, called_ae })
}

fn web_line(raw: &RawDestination) -> Result<Line, Wrong> {
    if raw.address.is_some() || raw.ae_title.is_some() {
        return Err(("address", "and ae_title are for kind \"dimse\""));
    }
    let url = raw.url.as_deref().ok_or(("url", "is needed, for instance \"https://archive.example/dicom-web\""))?;
    let address = WebAddress::new(url).ok_or(("url", "must be http(s)://host[:port][/path] in plain characters"))?;
    let auth = raw.auth.clone().map(Auth::new).transpose().map_err(|problem| ("auth", problem))?;
    if auth.is_some() && !address.is_secure && !address.is_loopback() {
        return Err(("auth", "would go over the network in the clear: use https"));
    }
    if !(1..=256).contains(&raw.batch_instances_max) || !(1..=1 << 30).contains(&raw.batch_bytes_max) {
        return Err(("batch_instances_max", "must be 1 to 256, and batch_bytes_max 1 byte to 1 GiB"));
    }
    let (batch_instances_max, batch_bytes_max) = (raw.batch_instances_max, raw.batch_bytes_max);
    Ok(Line::Web { address, auth, batch_instances_max, batch_bytes_max })
}

impl RawTls {
    fn load(self) -> Result<ScuTls, TlsError> {
        let Self { certificate, key, authorities, name } = self;
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => TlsClient::new(&TlsFiles { certificate, key, authorities })?,
            _ => TlsClient::nameless(&authorities)?,
        };
        Ok(ScuTls { client, name })
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
        let Line::Dimse { called_ae, .. } = &vna.line else { panic!("{:?}", vna.line) };
        assert_eq!((called_ae.as_str(), vna.calling_ae.as_str()), ("ARCHIVE", "FOVEA"));
        assert_eq!((vna.custody, vna.only.is_empty()), (CustodyBy::None, true));
        assert_eq!((vna.retry_min, vna.retry_max), (Duration::from_secs(1), Duration::from_secs(300)));
        assert_eq!((vna.refusals_max.get(), vna.what.len()), (5, 2));
        assert_eq!(vna.refuse_after_min, Duration::from_secs(24 * 3600), "an ill archive is given a day");
        assert!(vna.tls.is_none());
        assert!(check("").unwrap().destinations.is_empty());
    }

    #[test]
    fn each_error_names_the_key() {
        for (good, bad, key) in [
            ("\"dimse\"", "\"dicomweb\"", "sync.destination.address"),
            ("kind =", "url = \"http://a/b\"\nkind =", "sync.destination.url"),
            ("kind =", "custody = \"hope\"\nkind =", "hope"),
            ("kind =", "hours.pixels = [\"20:00-06:00\"]\nkind =", "sync.destination.hours.utc_offset"),
            ("kind =", "budget.bytes_per_second = 5\nkind =", "sync.destination.budget.bytes_per_second"),
            ("kind =", "only.bands = [\"grave\"]\nkind =", "grave"),
            ("kind =", "only.senders = [\"SEVENTEEN_LETTERS\"]\nkind =", "sync.destination.only"),
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
        let web = "[[destination]]\nname = 'web'\nkind = 'dicomweb'\nurl = 'http://archive.example/dicom-web'\nwhat = ['findings']\n";
        assert!(check(web).is_ok());
        for (more, key) in [
            ("custody = 'commitment'", "sync.destination.custody"),
            ("auth.bearer_file = '/nowhere/token'", "sync.destination.auth"),
            ("batch_instances_max = 0", "sync.destination.batch_instances_max"),
        ] {
            let error = check(&format!("{web}{more}")).err().unwrap();
            assert!(error.contains(key), "{more}: {error}");
        }
        let error = check(&web.replace("http://", "https://")).err().unwrap();
        assert!(error.contains("sync.destination.tls"), "{error}");
        assert!(check(&GOOD.repeat(2)).err().unwrap().contains("used twice"));
        let tls =
            "[destination.tls]\ncertificate = \"/nowhere/box.pem\"\nkey = \"k\"\nauthorities = \"/nowhere/ca.pem\"";
        let error = check(&format!("{GOOD}\n{tls}")).err().unwrap();
        assert!(error.contains("tls of \"vna\"") && error.contains("/nowhere/"), "{error}");
    }
}
