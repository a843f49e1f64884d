//! Joins the sections of `fovea.toml` into one checked [`Config`].
//!
//! In: TOML, `--state`, two environment variables. Out: a value that cannot be wrong, or an error that names the key.
//! Promise: every key has a default that works on one box without a network; unknown keys are refused.
//! A stage's section is defined beside the stage; here are only `[node]`, `[infer]` and `[log]`.

use fovea_core::{AeTitle, chain};
use fovea_infer::TrustedKey;
use fovea_worker::WorkerConfig;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the box keeps its state when neither `--state` nor `[store] state_dir` says so.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/fovea";

/// Why a configuration cannot be used. Exit status 78 (`EX_CONFIG`).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a Fovea configuration")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{key}: {what}")]
    Value { key: &'static str, what: String },
    #[error(transparent)]
    Receive(#[from] fovea_receive::ConfigError),
    #[error(transparent)]
    Triage(#[from] fovea_triage::ConfigError),
    #[error(transparent)]
    Store(#[from] fovea_store::ConfigError),
    #[error(transparent)]
    Deid(#[from] fovea_deid::ConfigError),
    #[error(transparent)]
    Sync(#[from] fovea_sync::ConfigError),
    #[error(transparent)]
    Web(#[from] fovea_review::WebConfigError),
    #[error(transparent)]
    Worklist(#[from] fovea_worklist::ConfigError),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    node: RawNode,
    receive: fovea_receive::RawConfig,
    infer: RawInfer,
    triage: fovea_triage::RawConfig,
    store: fovea_store::RawConfig,
    deid: fovea_deid::RawConfig,
    sync: fovea_sync::RawConfig,
    dicomweb: fovea_review::RawWebConfig,
    worklist: fovea_worklist::RawConfig,
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNode {
    name: String,
    site: String,
}

impl Default for RawNode {
    fn default() -> Self {
        Self { name: "fovea".to_owned(), site: String::new() }
    }
}

/// Keys that are not written keep what [`WorkerConfig::installed`] says.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawInfer {
    device: Option<String>,
    bundles: Option<Vec<PathBuf>>,
    trusted_keys: Vec<String>,
    runtime_dir: Option<PathBuf>,
    worker: Option<PathBuf>,
    memory_max_mib: Option<u64>,
    object_deadline_ms: Option<u64>,
    load_deadline_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// `[node]`: how the box calls itself in reports.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub site: String,
}

/// Checked: whoever holds it may use it without asking again.
pub struct Config {
    pub node: Node,
    pub receive: fovea_receive::Config,
    pub worker: WorkerConfig,
    pub triage: fovea_triage::Config,
    pub store: fovea_store::Config,
    pub deid: fovea_deid::Config,
    pub destinations: Vec<fovea_sync::Destination>,
    pub dicomweb: Option<fovea_review::WebConfig>,
    pub scheduled: Option<fovea_worklist::Config>,
    pub log_level: log::LevelFilter,
}

impl Config {
    /// Reads and checks `path`; without one, the defaults. `state` wins over `[store] state_dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn load(path: Option<&Path>, state: Option<&Path>) -> Result<Self, ConfigError> {
        let raw = match path {
            None => RawConfig::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                toml::from_str(&text)
                    .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?
            }
        };
        Self::check(raw, state)
    }

    fn check(raw: RawConfig, state: Option<&Path>) -> Result<Self, ConfigError> {
        let state = state.map(Path::to_owned).or_else(|| raw.store.state_dir.clone());
        let state = state.unwrap_or_else(|| PathBuf::from(STATE_DIR_DEFAULT));
        let receive = fovea_receive::Config::try_from(raw.receive)?;
        let calling_ae: AeTitle = receive.ae_title.clone();
        Ok(Self {
            node: node(raw.node)?,
            worker: worker(raw.infer, &state)?,
            triage: fovea_triage::Config::try_from(raw.triage)?,
            store: fovea_store::Config::new(raw.store, Some(&state))?,
            deid: deid(raw.deid)?,
            dicomweb: fovea_review::WebConfig::new(raw.dicomweb)?,
            scheduled: fovea_worklist::Config::new(raw.worklist, &calling_ae)?,
            destinations: fovea_sync::Config::new(raw.sync, &calling_ae)?.destinations,
            log_level: raw.log.level.parse().map_err(|_| ConfigError::Value {
                key: "log.level",
                what: "must be off, error, warn, info, debug or trace".to_owned(),
            })?,
            receive,
        })
    }
}

/// A key file that is there is read now: a bad one is a matter of configuration, not of the first start.
fn deid(raw: fovea_deid::RawConfig) -> Result<fovea_deid::Config, ConfigError> {
    let config = fovea_deid::Config::try_from(raw)?;
    if let Some(path) = config.key_file.as_deref().filter(|path| path.exists()) {
        fovea_deid::load_or_create_key(path)?;
    }
    Ok(config)
}

/// The name goes into reports as a device's observer name (VR LO, 64 characters).
fn node(raw: RawNode) -> Result<Node, ConfigError> {
    for (key, text) in [("node.name", &raw.name), ("node.site", &raw.site)] {
        if text.chars().count() > 64 || text.contains('\\') || text.chars().any(char::is_control) {
            return Err(ConfigError::Value { key, what: "at most 64 characters, no backslash".to_owned() });
        }
    }
    if raw.name.trim().is_empty() {
        return Err(ConfigError::Value { key: "node.name", what: "must not be empty".to_owned() });
    }
    Ok(Node { name: raw.name, site: raw.site })
}

fn worker(raw: RawInfer, state: &Path) -> Result<WorkerConfig, ConfigError> {
    let mut config = WorkerConfig::installed().map_err(|error| ConfigError::Value {
        key: "infer.trusted_keys",
        what: format!("this build's release key is damaged: {}", chain(&error)),
    })?;
    if let Some(mib) = raw.memory_max_mib {
        config.memory_max_bytes = bounded("infer.memory_max_mib", mib, 256, 65_536)? << 20;
    }
    if let Some(ms) = raw.object_deadline_ms {
        config.object_deadline = Duration::from_millis(bounded("infer.object_deadline_ms", ms, 100, 600_000)?);
    }
    if let Some(ms) = raw.load_deadline_ms {
        config.load_deadline = Duration::from_millis(bounded("infer.load_deadline_ms", ms, 1_000, 600_000)?);
    }
    for text in &raw.trusted_keys {
        config.trusted_keys.push(trusted_key(text)?);
    }
    Ok(WorkerConfig {
        program: raw.worker.unwrap_or(config.program),
        runtime_dir: raw.runtime_dir.unwrap_or(config.runtime_dir),
        bundles: raw.bundles.unwrap_or_else(|| bundles_in(&state.join("models"))),
        device: raw.device.unwrap_or(config.device),
        ..config
    })
}

fn bounded(key: &'static str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    let what = format!("is {value}, must be {least} to {most}");
    if (least..=most).contains(&value) { Ok(value) } else { Err(ConfigError::Value { key, what }) }
}

/// A key in hexadecimal, or the path of a file that holds one.
fn trusted_key(text: &str) -> Result<TrustedKey, ConfigError> {
    let key = if text.contains('/') { TrustedKey::read(Path::new(text)) } else { TrustedKey::from_text(text) };
    key.map_err(|error| ConfigError::Value { key: "infer.trusted_keys", what: chain(&error) })
}

/// Every bundle that lies in `folder` itself, by name: folders with a `bundle.toml`, and `*.fovea` files. What the model store keeps
/// there lies below `installed`.
fn bundles_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let is_bundle = |path: &PathBuf| {
        !is_hidden(path)
            && (path.join("bundle.toml").is_file() || path.extension().is_some_and(|extension| extension == "fovea"))
    };
    let mut bundles: Vec<PathBuf> = entries.filter(is_bundle).collect();
    bundles.sort();
    bundles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let raw = toml::from_str(text).map_err(|error| error.to_string())?;
        Config::check(raw, Some(Path::new("/nowhere"))).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_works() {
        let config = parse("").unwrap();
        assert_eq!(config.node.name, "fovea");
        assert!(config.destinations.is_empty());
    }

    #[test]
    fn errors_name_the_key() {
        for (text, key) in [
            ("[node]\nname = ' '", "node.name"),
            ("[infer]\nmemory_max_mib = 1", "infer.memory_max_mib"),
            ("[infer]\ntrusted_keys = ['zz']", "infer.trusted_keys"),
            ("[log]\nlevel = 'loud'", "log.level"),
            ("[receive]\nlisten = '0.0.0.0:11112'", "receive.peers"),
            ("[store]\nhigh_watermark_percent = 100", "store.high_watermark_percent"),
            ("[dicomweb]\nlisten = '0.0.0.0:8080'", "dicomweb.tls"),
            ("[worklist]\naddress = 'ris:104'", "worklist.ae_title"),
            ("[nodes]", "nodes"),
            ("[triage]\nurgent = 1", "urgent"),
            ("[triage]\nurgent_wait_max_min = 0", "triage.urgent_wait_max_min"),
            ("[triage]\nhigh_wait_max_min = 30", "triage.high_wait_max_min"),
            (
                "[[triage.readers]]\nname = 'a'\ngrade = 'senior'\nduty = ['mon-fri 08:00-17:00']",
                "triage.readers[0].utc_offset",
            ),
        ] {
            let error = parse(text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert!(error.contains(key), "{text:?} gave {error:?}");
        }
    }
}
