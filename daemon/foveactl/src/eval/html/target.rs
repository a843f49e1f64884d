//! Where the page goes.
//!
//! In: a path. Out: a page there, whole or not at all, which only its owner reads, for it holds pictures of patients.
//! Promise: that it can be written is known before the first picture; no file but an earlier page is replaced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// By what a page of ours is known.
pub const MARK: &str = "<meta name=\"generator\" content=\"foveactl models eval\">";
/// The mark is in so many first bytes.
const HEAD_BYTES: u64 = 4096;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Something else is there.
    #[error("--html: {path} is there and is no earlier page of an evaluation; name another file")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// No file can be made there.
    #[error("--html: {path} cannot be written")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A place that a page can be written to.
pub struct Target {
    path: PathBuf,
}

impl Target {
    /// Proves it by a file that is gone again.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(path: PathBuf) -> Result<Self, TargetError> {
        let target = Self { path };
        target.refuse_others()?;
        target.beside().map(drop)?;
        Ok(target)
    }

    /// Writes the page and says where.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn write(&self, page: &str) -> Result<&Path, TargetError> {
        // Hours may have passed.
        self.refuse_others()?;
        let mut file = self.beside()?;
        file.write_all(page.as_bytes()).map_err(|source| self.failed(source))?;
        file.persist(&self.path).map_err(|error| self.failed(error.error))?;
        Ok(&self.path)
    }

    /// A file in the same folder, of mode 0600.
    fn beside(&self) -> Result<NamedTempFile, TargetError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        NamedTempFile::new_in(folder).map_err(|source| self.failed(source))
    }

    fn refuse_others(&self) -> Result<(), TargetError> {
        let taken = || TargetError::Taken { path: self.path.clone() };
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(self.failed(source)),
            Ok(there) if there.is_file() => {
                let file = File::open(&self.path).map_err(|source| self.failed(source))?;
                let mut head = Vec::new();
                file.take(HEAD_BYTES).read_to_end(&mut head).map_err(|source| self.failed(source))?;
                let is_page = head.windows(MARK.len()).any(|part| part == MARK.as_bytes());
                if is_page { Ok(()) } else { Err(taken()) }
            }
            Ok(_) => Err(taken()),
        }
    }

    fn failed(&self, source: io::Error) -> TargetError {
        TargetError::Write { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_an_earlier_page_is_replaced_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eval.html");
        let target = Target::new(path.clone()).unwrap();
        assert!(!path.exists(), "the proof leaves nothing");
        for page in [format!("{MARK}one"), format!("{MARK}two")] {
            target.write(&page).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), page);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "a letter").unwrap();
        assert!(matches!(target.write(MARK), Err(TargetError::Taken { .. })));
        assert!(matches!(Target::new(path.clone()), Err(TargetError::Taken { .. })));
        assert!(matches!(Target::new(folder.path().to_owned()), Err(TargetError::Taken { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
        assert!(matches!(Target::new(folder.path().join("none/eval.html")), Err(TargetError::Write { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
