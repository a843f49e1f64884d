//! The files of a bundle, opened but not yet read: a folder, or one tar file `<name>-<version>.fovea`.
//! In: a path. Out: open, read-only files with checked names, and later their bytes, each read once.
//! Promise: opening looks at names and types only, so that the process that opens need not be the one that parses.

use super::manifest::safe_name;
use super::{BUNDLE_BYTES_MAX, BUNDLE_SIG, BUNDLE_TOML, BundleError, FILE_COUNT_MAX};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Deepest folder below the bundle's own.
const DEPTH_MAX: usize = 2;
/// Largest tar, bytes: what it may hold, with room for headers and padding.
const TAR_BYTES_MAX: u64 = BUNDLE_BYTES_MAX + (1 << 20);
/// Most entries of a tar that are walked, folders included.
const TAR_ENTRIES_MAX: usize = 64;

/// Why a bundle's files could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBundleError {
    /// The path or something below it cannot be opened or listed.
    #[error("open {path}")]
    Open {
        /// What was opened.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A link, a device or a socket, or a name that no bundle has.
    #[error("{path} is no plain file of a bundle")]
    NotPlain {
        /// What it is.
        path: PathBuf,
    },
    /// Too many files or folders too deep.
    #[error("{path} has more than {FILE_COUNT_MAX} files or folders too deep")]
    TooMany {
        /// The bundle.
        path: PathBuf,
    },
}

/// The open files of one bundle.
#[derive(Debug)]
pub enum BundleFiles {
    /// Name inside the bundle, and the file.
    Folder(Vec<(String, File)>),
    /// One tar file.
    Tar(File),
}

impl BundleFiles {
    /// Opens a bundle: every file of a folder, or the tar. Reads no byte of them.
    ///
    /// # Errors
    /// [`OpenBundleError`]; links, hidden files and odd names are refused, because nothing could vouch for them.
    pub fn open(path: &Path) -> Result<Self, OpenBundleError> {
        let failed = |source| OpenBundleError::Open { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_file() {
            return Ok(Self::Tar(File::open(path).map_err(failed)?));
        }
        if !metadata.is_dir() {
            return Err(OpenBundleError::NotPlain { path: path.to_owned() });
        }
        let mut files = Vec::new();
        open_folder(path, path, "", 0, &mut files)?;
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self::Folder(files))
    }

    /// Finds where each file's bytes lie.
    pub(super) fn locate(&self) -> Result<BTreeMap<String, Located<'_>>, BundleError> {
        match self {
            Self::Folder(files) => locate_folder(files),
            Self::Tar(file) => locate_tar(file),
        }
    }
}

fn open_folder(
    root: &Path,
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, File)>,
) -> Result<(), OpenBundleError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenBundleError::Open { path, source }
    };
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(|name| format!("{prefix}{name}"));
        let kind = std::fs::symlink_metadata(&path).map_err(failed(&path))?.file_type();
        match name {
            Some(name) if safe_name(&name) && kind.is_file() => {
                if files.len() == FILE_COUNT_MAX {
                    return Err(OpenBundleError::TooMany { path: root.to_owned() });
                }
                files.push((name, File::open(&path).map_err(failed(&path))?));
            }
            Some(name) if safe_name(&name) && kind.is_dir() => {
                if depth == DEPTH_MAX {
                    return Err(OpenBundleError::TooMany { path: root.to_owned() });
                }
                open_folder(root, &path, &format!("{name}/"), depth + 1, files)?;
            }
            _ => return Err(OpenBundleError::NotPlain { path }),
        }
    }
    Ok(())
}

/// Where one file of a bundle lies.
#[derive(Debug)]
pub(super) struct Located<'a> {
    file: &'a File,
    offset: u64,
    bytes: u64,
}

impl Located<'_> {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Refuses a file that is too large.
    pub(super) fn bounded(&self, name: &str, bytes_max: u64) -> Result<(), BundleError> {
        if self.bytes <= bytes_max {
            return Ok(());
        }
        Err(BundleError::TooLarge { name: printable(name), bytes: self.bytes, bytes_max })
    }

    /// Reads it whole, once: what is hashed and what is used are the same bytes.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, BundleError> {
        self.bounded(name, bytes_max)?;
        let mut buffer = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut buffer, self.offset)
            .map_err(|source| BundleError::Read { name: name.to_owned(), source })?;
        Ok(buffer)
    }
}

fn locate_folder(files: &[(String, File)]) -> Result<BTreeMap<String, Located<'_>>, BundleError> {
    let mut found = BTreeMap::new();
    for (name, file) in files {
        let metadata = file.metadata().map_err(|source| BundleError::Read { name: printable(name), source })?;
        let located = Located { file, offset: 0, bytes: metadata.len() };
        // The names may have come over the worker's socket: they are checked again here.
        if !safe_name(name) || !metadata.is_file() || found.insert(name.clone(), located).is_some() {
            return Err(BundleError::Entry { name: printable(name) });
        }
    }
    Ok(found)
}

/// Walks the headers only. Plain files and folders pass; links, devices, sparse files and long names do not.
///
/// Extended attributes (pax) are passed over: what they could change are names and sizes, and a file that then has
/// the wrong name or bytes has no hash that fits.
fn locate_tar(file: &File) -> Result<BTreeMap<String, Located<'_>>, BundleError> {
    let broken = |source| BundleError::Tar { source };
    let bytes = file.metadata().map_err(broken)?.len();
    if bytes > TAR_BYTES_MAX {
        return Err(BundleError::TooLarge { name: "the tar".to_owned(), bytes, bytes_max: TAR_BYTES_MAX });
    }
    let mut position = file;
    std::io::Seek::rewind(&mut position).map_err(broken)?;
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(position);
    for (walked, entry) in archive.entries_with_seek().map_err(broken)?.raw(true).enumerate() {
        let entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if walked == TAR_ENTRIES_MAX {
            return Err(BundleError::TooManyFiles { found: walked + 1 });
        }
        if kind.is_dir() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            continue;
        }
        let located = Located { file, offset: entry.raw_file_position(), bytes: entry.size() };
        if !kind.is_file() || !safe_name(&name) || found.insert(name.clone(), located).is_some() {
            return Err(BundleError::Entry { name: printable(&name) });
        }
    }
    Ok(found)
}

/// A name that anybody may have written, fit for a log line.
pub(super) fn printable(name: &str) -> String {
    name.chars().take(60).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Names that `bundle.toml` need not list.
pub(super) fn unlisted_by_rule(name: &str) -> bool {
    name == BUNDLE_TOML || name == BUNDLE_SIG
}
