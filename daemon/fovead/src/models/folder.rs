//! Installed bundles on disk: `<state>/models/installed/<id>/<version>/`, read-only files that are never rewritten.
//!
//! They lie apart from what else is in `<state>/models`: a bundle of the same id that somebody put there himself is not touched.
//!
//! In: tar files. Out: bundle folders. Promise: a version's folder appears whole and durable or not at all: it is written under a
//! name that nobody looks at, synced, and renamed. What a kill leaves under such a name is removed at the next start.

use super::active::plain;
use fovea_core::Sha256;
use fovea_review::{BUNDLE_BYTES_MAX, Kept};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Names below which a bundle is being written.
const NEW_PREFIX: &str = ".new-";
/// Below the store's folder: what was installed, and nothing else.
const INSTALLED: &str = "installed";
/// Most entries of a tar, folders included.
const ENTRIES_MAX: usize = 128;
/// What every bundle has, and what names all else.
pub const BUNDLE_TOML: &str = "bundle.toml";

/// Why a bundle cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the file is no tar of plain files: {problem}")]
    NotTar { problem: String },
    #[error("version {version} of {id} is installed with other content")]
    Taken { id: String, version: String },
    #[error("the bundle's id or version cannot name a folder")]
    Name,
}

impl FolderError {
    /// Whether the bundle is at fault, not the disk.
    pub fn is_of_the_bundle(&self) -> bool {
        matches!(self, Self::NotTar { .. } | Self::Name)
    }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { doing, path: path.to_owned(), source }
}

/// The folder of installed bundles.
pub struct Folder {
    root: PathBuf,
    installed: PathBuf,
    next: AtomicU64,
}

/// One installed version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    pub id: String,
    pub version: String,
    pub path: PathBuf,
}

/// A bundle that was unpacked and is not yet installed; gone when dropped.
pub struct Staged {
    pub path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What is left is removed at the next start.
        let _removed_at_next_start = fs::remove_dir_all(&self.path);
    }
}

impl Folder {
    /// Makes the folder where it is missing, and removes what an interrupted installation left.
    pub fn open(root: PathBuf) -> Result<Self, FolderError> {
        let installed = root.join(INSTALLED);
        make_folder(&installed)?;
        for entry in fs::read_dir(&root).map_err(io_error("list", &root))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(io_error("remove", &entry.path()))?;
            }
        }
        Ok(Self { root, installed, next: AtomicU64::new(0) })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What lies here is never a built-in bundle.
    pub fn installed_root(&self) -> &Path {
        &self.installed
    }

    /// Where a version lies or would lie.
    pub fn path(&self, id: &str, version: &str) -> PathBuf {
        self.installed.join(id).join(version)
    }

    /// Every installed version, by id and version. A folder that cannot be listed holds none.
    pub fn installed(&self) -> Vec<Installed> {
        let mut found = Vec::new();
        for id in names(&self.installed) {
            for version in names(&self.installed.join(&id)) {
                let path = self.path(&id, &version);
                if path.join(BUNDLE_TOML).is_file() {
                    found.push(Installed { id: id.clone(), version, path });
                }
            }
        }
        found.sort_by(|a, b| (&a.id, &a.version).cmp(&(&b.id, &b.version)));
        found
    }

    /// Unpacks a tar under a name that nobody looks at; its files are durable and read-only then.
    pub fn stage(&self, tar: &mut File) -> Result<Staged, FolderError> {
        let name = format!("{NEW_PREFIX}{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let staged = Staged { path: self.root.join(name) };
        make_folder(&staged.path)?;
        unpack(tar, &staged.path)?;
        sync_folders(&staged.path)?;
        Ok(staged)
    }

    /// Gives a staged bundle its place. `is_whole` tells whether the bundle that lies there already is sound; a damaged one is
    /// replaced, in one step.
    pub fn keep(
        &self,
        staged: Staged,
        id: &str,
        version: &str,
        is_whole: impl Fn(&Path) -> bool,
    ) -> Result<Kept, FolderError> {
        if !plain(id) || !plain(version) {
            return Err(FolderError::Name);
        }
        let (parent, place) = (self.installed.join(id), self.path(id, version));
        make_folder(&parent)?;
        let kept = if !place.exists() {
            fs::rename(&staged.path, &place).map_err(io_error("install", &place))?;
            Kept::New
        } else if contents(&place).ok() == Some(contents(&staged.path)?) {
            Kept::Already
        } else if !is_whole(&place) {
            renameat2(AT_FDCWD, &staged.path, AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE)
                .map_err(|errno| io_error("replace", &place)(errno.into()))?;
            Kept::Repaired
        } else {
            return Err(FolderError::Taken { id: id.to_owned(), version: version.to_owned() });
        };
        for folder in [&parent, &self.installed, &self.root] {
            sync(folder)?;
        }
        Ok(kept)
    }
}

/// SHA-256 of a bundle folder's `bundle.toml`; none for a tar or where it cannot be read.
pub fn manifest_sha256(bundle: &Path) -> Option<Sha256> {
    fs::read(bundle.join(BUNDLE_TOML)).ok().map(|bytes| Sha256::of(&bytes))
}

/// Plain names of the folders in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| plain(name)).collect()
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))
}

/// Writes the plain files of a tar below `to`. Links, devices and odd names are refused; folders are made as files need them.
fn unpack(tar: &mut File, to: &Path) -> Result<(), FolderError> {
    // What the tar reader says quotes the file.
    let broken = |_: io::Error| FolderError::NotTar { problem: "a header cannot be read".to_owned() };
    let odd = |problem: &str| FolderError::NotTar { problem: problem.to_owned() };
    tar.rewind().map_err(broken)?;
    let mut archive = tar::Archive::new(tar);
    let mut bytes_left = BUNDLE_BYTES_MAX;
    for (walked, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if walked == ENTRIES_MAX {
            return Err(odd("too many entries"));
        }
        if kind.is_dir() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let parts: Vec<&str> = name.split('/').collect();
        let fits = |part: &&str| plain_part(part);
        if !kind.is_file() || !(1..=3).contains(&parts.len()) || !parts.iter().all(fits) {
            return Err(odd("an entry is no plain file of a bundle"));
        }
        bytes_left = bytes_left.checked_sub(entry.size()).ok_or_else(|| odd("too large"))?;
        write_file(&mut entry, &to.join(&name))?;
    }
    Ok(())
}

fn plain_part(part: &str) -> bool {
    (1..=100).contains(&part.len())
        && !part.starts_with('.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn write_file(from: &mut impl Read, path: &Path) -> Result<(), FolderError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let mut write = || -> io::Result<()> {
        // A name that is there twice is an error, not an overwrite.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(from, &mut file)?;
        file.flush()?;
        file.set_permissions(Permissions::from_mode(0o400))?;
        file.sync_all()
    };
    write().map_err(io_error("write", path))
}

/// Syncs a folder and all below it, the deepest first.
fn sync_folders(folder: &Path) -> Result<(), FolderError> {
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_folders(&entry.path())?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), FolderError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}

/// Every file below a folder, with its hash.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Sha256>, FolderError> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Sha256>) -> Result<(), FolderError> {
        for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
            let entry = entry.map_err(io_error("list", folder))?;
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(root, &path, found)?;
            } else {
                let bytes = fs::read(&path).map_err(io_error("read", &path))?;
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), Sha256::of(&bytes));
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Set by hand: the crate itself refuses names that lead out.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const BUNDLE: &[(&str, &[u8])] = &[("bundle.toml", b"one"), ("golden/a.bin", b"1234"), ("card.md", b"# card")];

    fn folder() -> (tempfile::TempDir, Folder) {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path().join("models")).unwrap();
        (state, folder)
    }

    fn left(folder: &Folder) -> Vec<String> {
        let all = fs::read_dir(folder.root()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        all.filter(|name| name.starts_with(NEW_PREFIX)).collect()
    }

    #[test]
    fn a_version_is_kept_once_read_only_and_the_same_again_changes_nothing() {
        let (_state, folder) = folder();
        let keep = |whole: bool, files| folder.keep(folder.stage(&mut tar(files)).unwrap(), "eye", "1.0.0", |_| whole);
        assert_eq!(keep(true, BUNDLE).unwrap(), Kept::New);
        let path = folder.path("eye", "1.0.0");
        assert_eq!(fs::read(path.join("golden/a.bin")).unwrap(), b"1234");
        assert_eq!(fs::metadata(path.join("card.md")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(folder.installed(), [Installed { id: "eye".into(), version: "1.0.0".into(), path: path.clone() }]);
        assert_eq!(keep(true, BUNDLE).unwrap(), Kept::Already);
        let other: &[(&str, &[u8])] = &[("bundle.toml", b"two")];
        assert!(matches!(keep(true, other), Err(FolderError::Taken { .. })));
        assert_eq!(fs::read(path.join("bundle.toml")).unwrap(), b"one");
        assert_eq!(left(&folder), [""; 0]);
    }

    #[test]
    fn a_bundle_of_the_same_id_beside_the_installed_ones_is_left_as_it_is() {
        let (_state, folder) = folder();
        let own = folder.root().join("eye");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("bundle.toml"), "own").unwrap();
        let before = contents(&own).unwrap();
        folder.keep(folder.stage(&mut tar(BUNDLE)).unwrap(), "eye", "1.0.0", |_| true).unwrap();
        assert_eq!(contents(&own).unwrap(), before);
        assert_eq!(folder.installed().len(), 1);
    }

    #[test]
    fn a_damaged_version_is_made_whole_in_one_step() {
        let (_state, folder) = folder();
        folder.keep(folder.stage(&mut tar(BUNDLE)).unwrap(), "eye", "1.0.0", |_| true).unwrap();
        let damaged = folder.path("eye", "1.0.0").join("golden/a.bin");
        fs::remove_file(&damaged).unwrap();
        fs::write(&damaged, b"12X4").unwrap();
        let staged = folder.stage(&mut tar(BUNDLE)).unwrap();
        assert_eq!(folder.keep(staged, "eye", "1.0.0", |_| false).unwrap(), Kept::Repaired);
        assert_eq!(fs::read(&damaged).unwrap(), b"1234");
        assert_eq!(left(&folder), [""; 0]);
    }

    #[test]
    fn inv_08_a_tar_that_leads_out_or_holds_no_plain_files_leaves_nothing_behind() {
        let (_state, folder) = folder();
        for name in ["../escape", "/etc/passwd", "a/../../b", ".hidden", "a/b/c/d", "with space", "a//b"] {
            assert!(matches!(folder.stage(&mut tar(&[(name, b"x")])), Err(FolderError::NotTar { .. })), "{name}");
        }
        let twice: &[(&str, &[u8])] = &[("a", b"1"), ("a", b"2")];
        assert!(folder.stage(&mut tar(twice)).is_err());
        let mut garbage = tempfile::tempfile().unwrap();
        garbage.write_all(&[7; 5000]).unwrap();
        assert!(matches!(folder.stage(&mut garbage), Err(FolderError::NotTar { .. })));
        assert_eq!((left(&folder), folder.installed()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_ids_and_versions() {
        let (_state, folder) = folder();
        for (id, version) in [("eye", ".."), ("..", "1"), ("eye", ""), ("a/b", "1"), ("eye", ".new-1")] {
            let staged = folder.stage(&mut tar(BUNDLE)).unwrap();
            assert!(matches!(folder.keep(staged, id, version, |_| true), Err(FolderError::Name)), "{id} {version}");
        }
    }

    #[test]
    fn what_an_interrupted_installation_left_is_removed_at_the_next_start() {
        let (state, folder) = folder();
        std::mem::forget(folder.stage(&mut tar(BUNDLE)).unwrap());
        assert_eq!((left(&folder).len(), folder.installed().len()), (1, 0));
        let folder = Folder::open(state.path().join("models")).unwrap();
        assert_eq!(left(&folder), [""; 0]);
    }
}
