//! `<state>/models/active.json`: which version of each model should serve, and which served before.
//!
//! In: the folder. Out: [`Active`], read and written whole.
//! Promise: after a power cut at any moment the file is the old one or the new one; a damaged file is told, never guessed at.

use fovea_core::chain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "active.json";
const TEMP_NAME: &str = ".active.json.new";
/// What a damaged file is called from then on, with a number from 1.
const DAMAGED_PREFIX: &str = "active.json.damaged-";
/// Most damaged files that are kept.
const DAMAGED_MAX: u32 = 1000;
const SCHEMA: u32 = 1;
/// Longest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActiveError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("rename the damaged {path}")]
    SetAside { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {problem}")]
    Damaged { path: PathBuf, problem: String },
}

/// What should serve under one id. None is the built-in bundle of that id, or nothing where there is none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Installed version that should serve.
    pub active: Option<String>,
    /// Version that served before, for a rollback and for when the active one is refused.
    pub previous: Option<String>,
}

/// By id; an id that is not there was never changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Active {
    pub models: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u32,
    models: BTreeMap<String, Entry>,
}

impl Active {
    /// Reads the file in `folder`; without one nothing was ever changed.
    ///
    /// # Errors
    /// [`ActiveError`].
    pub fn read(folder: &Path) -> Result<Self, ActiveError> {
        let path = folder.join(FILE_NAME);
        let damaged = |problem: String| ActiveError::Damaged { path: path.clone(), problem };
        let bytes = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > BYTES_MAX => return Err(damaged("too long".to_owned())),
            Ok(_) => fs::read(&path),
            Err(error) => Err(error),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ActiveError::Read { path, source }),
        };
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| damaged(chain(&error)))?;
        if written.schema != SCHEMA {
            return Err(damaged(format!("schema {} where {SCHEMA} is known", written.schema)));
        }
        let versions =
            |entry: &Entry| [entry.active.clone(), entry.previous.clone()].into_iter().flatten().all(|v| plain(&v));
        match written.models.iter().find(|(id, entry)| !plain(id) || !versions(entry)) {
            Some(_) => Err(damaged("a name in it is none of a bundle".to_owned())),
            None => Ok(Self { models: written.models }),
        }
    }

    /// Gives a file that cannot be used another name, so that the next write does not take it away. Gives that name.
    ///
    /// # Errors
    /// [`ActiveError::SetAside`]; the file stands where it was.
    pub fn set_aside(folder: &Path) -> Result<String, ActiveError> {
        let path = folder.join(FILE_NAME);
        let rename = || -> io::Result<String> {
            let free = |name: &String| !folder.join(name).exists();
            let mut names = (1..=DAMAGED_MAX).map(|number| format!("{DAMAGED_PREFIX}{number}"));
            let name = names.find(free).ok_or(io::ErrorKind::AlreadyExists)?;
            fs::rename(&path, folder.join(&name))?;
            File::open(folder)?.sync_all()?;
            Ok(name)
        };
        rename().map_err(|source| ActiveError::SetAside { path: path.clone(), source })
    }

    /// The names of damaged files that were set aside and nobody has removed since.
    pub fn damaged(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut damaged: Vec<String> = names.filter(|name| name.starts_with(DAMAGED_PREFIX)).collect();
        damaged.sort();
        damaged
    }

    /// Puts the file in the place of the one before, durably.
    ///
    /// # Errors
    /// [`ActiveError::Write`]; the file before stands then.
    pub fn write(&self, folder: &Path) -> Result<(), ActiveError> {
        let (path, temp) = (folder.join(FILE_NAME), folder.join(TEMP_NAME));
        let write = || -> io::Result<()> {
            let written = Written { schema: SCHEMA, models: self.models.clone() };
            let mut bytes = serde_json::to_vec_pretty(&written)?;
            bytes.push(b'\n');
            let mut file = File::create(&temp)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temp, &path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| ActiveError::Write { path: path.clone(), source })
    }
}

/// A name that may become part of a path: the letters of ids and versions, and no leading dot.
pub fn plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(version: &str) -> Active {
        let entry = Entry { active: Some(version.to_owned()), previous: None };
        Active { models: BTreeMap::from([("eye".to_owned(), entry)]) }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Active::read(folder.path()).unwrap(), Active::default());
        active("1.0.0").write(folder.path()).unwrap();
        assert_eq!(Active::read(folder.path()).unwrap(), active("1.0.0"));
    }

    #[test]
    fn a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            r#"{"schema":2,"models":{}}"#,
            r#"{"schema":1,"models":{"eye":{"active":"../../etc","previous":null}}}"#,
            r#"{"schema":1,"models":{"..":{"active":null,"previous":null}}}"#,
            r#"{"schema":1,"models":{},"more":1}"#,
        ] {
            fs::write(folder.path().join(FILE_NAME), text).unwrap();
            assert!(matches!(Active::read(folder.path()), Err(ActiveError::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn a_damaged_file_is_kept_under_another_name_and_so_is_the_next() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{", "["] {
            fs::write(folder.path().join(FILE_NAME), text).unwrap();
            Active::set_aside(folder.path()).unwrap();
            active("1.0.0").write(folder.path()).unwrap();
        }
        let names = ["active.json.damaged-1", "active.json.damaged-2"];
        assert_eq!(Active::damaged(folder.path()), names);
        assert_eq!(names.map(|name| fs::read_to_string(folder.path().join(name)).unwrap()), ["{", "["]);
        assert_eq!(Active::read(folder.path()).unwrap(), active("1.0.0"));
    }

    #[test]
    fn a_write_that_was_cut_leaves_the_file_before() {
        let folder = tempfile::tempdir().unwrap();
        active("1.0.0").write(folder.path()).unwrap();
        let whole = fs::read(folder.path().join(FILE_NAME)).unwrap();
        for cut in 0..whole.len() {
            fs::write(folder.path().join(TEMP_NAME), &whole[..cut]).unwrap();
            assert_eq!(Active::read(folder.path()).unwrap(), active("1.0.0"), "cut={cut}");
        }
        active("1.1.0").write(folder.path()).unwrap();
        assert_eq!(Active::read(folder.path()).unwrap(), active("1.1.0"));
    }
}
