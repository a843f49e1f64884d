//! The `[deid]` section and the key.
//! In: TOML, a key file. Out: a checked profile, 32 secret bytes.
//! Promise: a key file that exists is never overwritten; a new one is readable by its owner only.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `[deid]` as written.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `basic`, the only profile so far.
    pub profile: Option<String>,
    /// Where the key is; the daemon keeps its own where none is named.
    pub key_file: Option<PathBuf>,
}

/// `[deid]`, checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// What is done.
    pub profile: Profile,
    /// Where the key is.
    pub key_file: Option<PathBuf>,
}

/// A de-identification profile of PS3.15 Annex E.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// Basic Application Level Confidentiality Profile, no options.
    #[default]
    Basic,
}

/// What is wrong with `[deid]` or its key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such profile.
    #[error("deid.profile: there is only \"basic\"")]
    Profile,
    /// The key file could not be read or written.
    #[error("deid.key_file: {doing} {path}", path = path.display())]
    KeyFile {
        /// What we were doing.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error("deid.key_file: {path} does not hold exactly 32 bytes", path = path.display())]
    KeyLength {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("deid.key_file: {path} is open to others (mode {mode:o}); it must be 600 or 400", path = path.display())]
    KeyOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gave no random bytes.
    #[error("draw a random key")]
    Random(#[source] getrandom::Error),
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;
    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        match raw.profile.as_deref() {
            None | Some("basic") => Ok(Self { profile: Profile::Basic, key_file: raw.key_file }),
            Some(_) => Err(ConfigError::Profile),
        }
    }
}

/// The secret behind replaced UIDs and pseudonyms. Whoever has it can link copies to originals.
#[derive(Clone)]
pub struct Key(pub(crate) [u8; 32]);

impl Key {
    /// Wraps 32 secret random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Reads the key at `path`; makes one (mode 600, durable) where there is no file.
///
/// # Errors
/// [`ConfigError`]; an existing file is never changed.
pub fn load_or_create_key(path: &Path) -> Result<Key, ConfigError> {
    let failed = |doing| move |source| ConfigError::KeyFile { doing, path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => create_key(file, path).inspect_err(|_| {
            // A half-written key must not be taken for a damaged one at the next start.
            let _left_for_the_operator = std::fs::remove_file(path);
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = File::open(path).map_err(failed("open"))?;
            let mode = file.metadata().map_err(failed("look at"))?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(ConfigError::KeyOpen { path: path.to_owned(), mode });
            }
            let mut bytes = Vec::new();
            file.take(33).read_to_end(&mut bytes).map_err(failed("read"))?;
            let bytes = bytes.try_into().map_err(|_| ConfigError::KeyLength { path: path.to_owned() })?;
            Ok(Key(bytes))
        }
        Err(error) => Err(failed("create")(error)),
    }
}

fn create_key(mut file: File, path: &Path) -> Result<Key, ConfigError> {
    let failed = |doing| move |source| ConfigError::KeyFile { doing, path: path.to_owned(), source };
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(ConfigError::Random)?;
    file.write_all(&bytes).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))?;
    }
    Ok(Key(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deid.key");
        let made = load_or_create_key(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create_key(&path).unwrap().0, made.0);
        assert_ne!(load_or_create_key(&folder.path().join("other")).unwrap().0, made.0);
        assert_eq!(format!("{made:?}"), "Key(secret)");
    }

    #[test]
    fn a_key_that_is_open_or_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deid.key");
        for (bytes, mode) in [(vec![1; 31], 0o600), (vec![1; 33], 0o600), (vec![], 0o600), (vec![1; 32], 0o640)] {
            std::fs::write(&path, &bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create_key(&path).unwrap_err();
            assert!(error.to_string().starts_with("deid.key_file"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn the_section_is_checked() {
        let checked = |text: &str| Config::try_from(toml::from_str::<RawConfig>(text).unwrap());
        assert_eq!(checked("").unwrap(), Config::default());
        assert_eq!(checked("profile = \"basic\"\nkey_file = \"k\"").unwrap().key_file, Some("k".into()));
        assert!(checked("profile = \"none\"").unwrap_err().to_string().contains("deid.profile"));
        assert!(toml::from_str::<RawConfig>("profil = \"basic\"").is_err());
    }
}
