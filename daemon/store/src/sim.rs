//! A disk in memory that loses its power: what the kernel would hold in its caches, and what is on the platter.
//!
//! In: the operations of [`Disk`](crate::disk::Disk). Out: at every moment at which a power cut could tell a difference, an [`Image`] of
//! what the disk may then hold, with the number of promises that had been made before.
//!
//! The model is as unkind as POSIX allows:
//! - Of a file's bytes, those of the last sync are kept; of what was written since, any 512-byte sectors may be there
//!   and any may not, and the length may be the old or the new one.
//! - A name is durable after an fsync of its folder, not before; of the changes since, any may be there. The two halves of a
//!   rename are two names. A folder's own name is its parent's to sync.
//! - Nothing that was synced is lost.
//!
//! Files are memfds, so that whoever holds one writes to it as to any file.

use crate::disk::Room;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Folder,
    File(usize),
}

type Names = BTreeMap<OsString, Entry>;

/// One folder: its names as processes see them, and as they were when it was last synced.
#[derive(Clone, Default, Debug)]
struct Folder {
    live: Names,
    durable: Names,
}

#[derive(Debug)]
struct Node {
    /// What processes see.
    live: File,
    /// What the last sync left.
    durable: Arc<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    folders: BTreeMap<PathBuf, Folder>,
    images: BTreeMap<Image, usize>,
    cuts: u64,
    random: u64,
    watched: bool,
    lies: Option<Lie>,
}

/// A sync that does nothing and says that it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    Files,
    Folders,
}

/// The files of a disk after a power cut, by path. Folders have no bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Image(BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>);

/// The disk.
#[derive(Debug)]
pub(crate) struct SimDisk {
    root: PathBuf,
    state: Mutex<State>,
    /// Promises made so far: whoever gets an answer says so here, after it.
    promised: AtomicU64,
}

impl Image {
    /// The text of a file.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ENOENT)
}

fn memfd(bytes: &[u8]) -> File {
    let file = File::from(memfd_create(c"fovea-sim", MFdFlags::MFD_CLOEXEC).expect("a memory file"));
    file.write_all_at(bytes, 0).expect("room in memory");
    file
}

/// A look at the same bytes with a position of its own.
fn reopen(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path)
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().map_or(0, |metadata| metadata.len() as usize)];
    file.read_exact_at(&mut bytes, 0).expect("a memory file reads");
    bytes
}

impl SimDisk {
    /// An empty disk below `root`, which exists.
    pub(crate) fn new(root: &Path, seed: u64) -> Arc<Self> {
        Self::from_image(root, &Image::default(), seed)
    }

    /// The disk as a power cut left it.
    pub(crate) fn from_image(root: &Path, image: &Image, seed: u64) -> Arc<Self> {
        let mut state = State { random: seed | 1, ..State::default() };
        state.folders.insert(root.to_owned(), Folder::default());
        for (path, bytes) in &image.0 {
            let entry = match bytes {
                None => {
                    state.folders.insert(path.clone(), Folder::default());
                    Entry::Folder
                }
                Some(bytes) => Entry::File(state.node(bytes)),
            };
            let folder = state.folders.get_mut(path.parent().expect("below the root")).expect("before what is in it");
            let name = path.file_name().expect("a name").to_owned();
            folder.live.insert(name.clone(), entry);
            folder.durable.insert(name, entry);
        }
        let state = Mutex::new(state);
        Arc::new(Self { root: root.into(), state, promised: AtomicU64::new(0) })
    }

    /// From now on every moment is recorded.
    pub(crate) fn watch(&self) {
        self.state().watched = true;
    }

    /// From now on such syncs do nothing.
    pub(crate) fn lie(&self, lie: Lie) {
        self.state().lies = Some(lie);
    }

    /// Says that one more promise has been made; call it when its answer is there.
    pub(crate) fn promise(&self) -> u64 {
        self.promised.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Every different image, with the number of promises that hold in it, and how many moments were looked at.
    pub(crate) fn images(&self) -> (Vec<(Image, usize)>, u64) {
        let mut state = self.state();
        let cuts = state.cuts;
        (std::mem::take(&mut state.images).into_iter().collect(), cuts)
    }

    /// What a cut right now leaves when nothing unsynced survives.
    pub(crate) fn cut_now(&self) -> Image {
        self.state().image(&self.root, &mut |_| false, None)
    }

    /// Always a tenth full.
    pub(crate) fn room(&self) -> io::Result<Room> {
        Ok(Room { total: 100 << 30, used: 10 << 30 })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, after a look at what a cut right now would leave.
    fn at_cut(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        // Read under the lock: what was promised by now was synced by now.
        state.cut(&self.root, self.promised.load(Ordering::SeqCst) as usize);
        state
    }

    pub(crate) fn create(&self, path: &Path, new: bool) -> io::Result<File> {
        let mut state = self.at_cut();
        match state.entry(path)? {
            Some(_) if new => Err(io::Error::from_raw_os_error(nix::libc::EEXIST)),
            Some(Entry::File(node)) => {
                let file = &state.nodes[node].live;
                file.set_len(0)?;
                reopen(file)
            }
            Some(Entry::Folder) => Err(io::Error::from_raw_os_error(nix::libc::EISDIR)),
            None => {
                let node = state.node(&[]);
                state.name(path, Some(Entry::File(node)))?;
                reopen(&state.nodes[node].live)
            }
        }
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let state = self.state();
        match state.entry(path)? {
            Some(Entry::File(node)) => reopen(&state.nodes[node].live),
            _ => Err(not_found()),
        }
    }

    /// A cut is looked at after each sector of the write, too.
    pub(crate) fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.at_cut();
        let promised = self.promised.load(Ordering::SeqCst) as usize;
        if state.watched {
            let node = state.node_of(file)?;
            for torn in torn_writes(&state.nodes[node].durable, bytes, offset as usize) {
                let image = state.image_with(&self.root, node, torn);
                state.keep(image, promised);
            }
        }
        file.write_all_at(bytes, offset)
    }

    pub(crate) fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        let _cut = self.at_cut();
        file.set_len(length)
    }

    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        let mut state = self.at_cut();
        let node = state.node_of(file)?;
        if state.lies != Some(Lie::Files) {
            state.nodes[node].durable = Arc::new(contents(&state.nodes[node].live));
        }
        drop(state);
        drop(self.at_cut());
        Ok(())
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        let honest = state.lies != Some(Lie::Folders);
        let folder = state.folders.get_mut(path).filter(|_| honest);
        let Some(folder) = folder else { return if honest { Err(not_found()) } else { Ok(()) } };
        folder.durable = folder.live.clone();
        drop(state);
        drop(self.at_cut());
        Ok(())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        let entry = state.entry(from)?.ok_or_else(not_found)?;
        state.name(to, Some(entry))?;
        state.name(from, None)
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        let entry = state.entry(from)?.ok_or_else(not_found)?;
        match state.entry(to)? {
            Some(_) => Err(io::Error::from_raw_os_error(nix::libc::EEXIST)),
            None => state.name(to, Some(entry)),
        }
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        match state.entry(path)? {
            Some(Entry::File(_)) => state.name(path, None),
            _ => Err(not_found()),
        }
    }

    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        if !state.folders.get(path).ok_or_else(not_found)?.live.is_empty() {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOTEMPTY));
        }
        state.folders.remove(path);
        state.name(path, None)
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.at_cut();
        if state.entry(path)?.is_some() {
            return Err(io::Error::from_raw_os_error(nix::libc::EEXIST));
        }
        state.name(path, Some(Entry::Folder))?;
        state.folders.insert(path.to_owned(), Folder::default());
        Ok(())
    }

    pub(crate) fn create_folders(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> = path.ancestors().take_while(|folder| *folder != self.root).collect();
        missing
            .into_iter()
            .rev()
            .filter(|folder| !self.exists(folder))
            .try_for_each(|folder| self.create_folder(folder))
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        let state = self.state();
        let names = &state.folders.get(path).ok_or_else(not_found)?.live;
        Ok(names.iter().map(|(name, entry)| (path.join(name), *entry == Entry::Folder)).collect())
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        matches!(self.state().entry(path), Ok(Some(_)))
    }
}

impl State {
    fn node(&mut self, bytes: &[u8]) -> usize {
        let live = memfd(bytes);
        let inode = live.metadata().expect("a memory file has an inode").ino();
        self.by_inode.insert(inode, self.nodes.len());
        self.nodes.push(Node { live, durable: Arc::new(bytes.to_vec()) });
        self.nodes.len() - 1
    }

    fn node_of(&self, file: &File) -> io::Result<usize> {
        self.by_inode.get(&file.metadata()?.ino()).copied().ok_or_else(not_found)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let folder = path.parent().and_then(|parent| self.folders.get(parent)).ok_or_else(not_found)?;
        Ok(folder.live.get(path.file_name().unwrap_or_default()).copied())
    }

    fn name(&mut self, path: &Path, entry: Option<Entry>) -> io::Result<()> {
        let folder = path.parent().and_then(|parent| self.folders.get_mut(parent)).ok_or_else(not_found)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        match entry {
            Some(entry) => folder.live.insert(name, entry),
            None => folder.live.remove(&name),
        };
        Ok(())
    }

    fn toss(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 33 & 1 == 1
    }

    /// Looks at three disks that a cut could leave now: nothing unsynced is there, all of it is, a random part is.
    fn cut(&mut self, root: &Path, promised: usize) {
        if !self.watched {
            return;
        }
        self.cuts += 1;
        let nothing = self.image(root, &mut |_| false, None);
        let all = self.image(root, &mut |_| true, None);
        let part = self.image(root, &mut Self::toss, None);
        [nothing, all, part].into_iter().for_each(|image| self.keep(image, promised));
    }

    fn keep(&mut self, image: Image, promised: usize) {
        // The same disk later must keep more.
        let kept = self.images.entry(image).or_default();
        *kept = promised.max(*kept);
    }

    /// Nothing unsynced is there but these bytes of one file.
    fn image_with(&mut self, root: &Path, node: usize, bytes: Vec<u8>) -> Image {
        self.cuts += 1;
        self.image(root, &mut |_| false, Some((node, Arc::new(bytes))))
    }

    fn image(
        &mut self,
        root: &Path,
        survives: &mut dyn FnMut(&mut Self) -> bool,
        instead: Option<(usize, Arc<Vec<u8>>)>,
    ) -> Image {
        let mut image = Image::default();
        let mut to_do = vec![root.to_owned()];
        while let Some(path) = to_do.pop() {
            let folder = self.folders.get(&path).cloned().unwrap_or_default();
            let mut names: Vec<_> = folder.live.keys().chain(folder.durable.keys()).cloned().collect();
            names.sort();
            names.dedup();
            for name in names {
                let (live, durable) = (folder.live.get(&name), folder.durable.get(&name));
                let entry = if live == durable || survives(self) { live } else { durable };
                let below = path.join(&name);
                match entry {
                    None => continue,
                    Some(Entry::Folder) => {
                        image.0.insert(below.clone(), None);
                        to_do.push(below);
                    }
                    Some(Entry::File(node)) => {
                        let bytes = match &instead {
                            Some((other, bytes)) if other == node => bytes.clone(),
                            _ => self.bytes(*node, survives),
                        };
                        image.0.insert(below, Some(bytes));
                    }
                }
            }
        }
        image
    }

    /// A file after a cut: sector by sector what was synced or what was written since.
    fn bytes(&mut self, node: usize, survives: &mut dyn FnMut(&mut Self) -> bool) -> Arc<Vec<u8>> {
        let live = contents(&self.nodes[node].live);
        let durable = self.nodes[node].durable.clone();
        if *durable == live {
            return durable;
        }
        let length = if live.len() == durable.len() || survives(self) { live.len() } else { durable.len() };
        let mut bytes = vec![0; length];
        for start in (0..length).step_by(SECTOR) {
            let end = length.min(start + SECTOR);
            let of = |whole: &[u8]| -> Vec<u8> {
                let mut sector = vec![0; end - start];
                let there = whole.get(start..end.min(whole.len())).unwrap_or_default();
                sector[..there.len()].copy_from_slice(there);
                sector
            };
            let (new, old) = (of(&live), of(&durable));
            let sector = if new == old || survives(self) { new } else { old };
            bytes[start..end].copy_from_slice(&sector);
        }
        Arc::new(bytes)
    }
}

/// The file `before` with the first sectors of a write, for each number of them that is not all.
fn torn_writes(before: &[u8], bytes: &[u8], offset: usize) -> Vec<Vec<u8>> {
    let first_border = (offset / SECTOR + 1) * SECTOR;
    // A long row of zeros says nothing after its first sectors.
    let borders = (first_border..offset + bytes.len()).step_by(SECTOR).take(8);
    let torn = |border: usize| {
        let mut file = before.to_vec();
        file.resize(file.len().max(border), 0);
        file[offset..border].copy_from_slice(&bytes[..border - offset]);
        file
    };
    borders.map(torn).collect()
}

mod tests {
    use super::*;
    use crate::disk::Disk;

    fn all(sim: &SimDisk) -> Vec<Image> {
        drop(sim.at_cut());
        sim.images().0.into_iter().map(|(image, _)| image).collect()
    }

    #[test]
    fn unsynced_names_and_bytes_may_go_and_synced_ones_stay() {
        let root = Path::new("/sim");
        let sim = SimDisk::new(root, 7);
        let disk = Disk::simulated(sim.clone());
        let (path, moved) = (root.join("a"), root.join("b"));
        sim.watch();
        let file = disk.write_file(&path, b"one").unwrap();
        assert!(all(&sim).contains(&Image::default()), "nothing is synced");
        disk.sync_all(&file).unwrap();
        all(&sim);
        assert!(all(&sim).contains(&Image::default()), "the name is not synced");
        disk.sync_folder(root).unwrap();
        all(&sim);
        disk.write_all_at(&file, b"two", 0).unwrap();
        disk.rename(&path, &moved).unwrap();
        let texts = |image: &Image, path: &Path| image.0.get(path).cloned().flatten().map(|bytes| bytes.to_vec());
        let seen: Vec<_> = (0..40).flat_map(|_| all(&sim)).map(|i| (texts(&i, &path), texts(&i, &moved))).collect();
        let (one, two) = (Some(b"one".to_vec()), Some(b"two".to_vec()));
        for expected in [(&one, &None), (&two, &None), (&None, &one), (&None, &two), (&one, &one), (&None, &None)] {
            assert!(seen.iter().any(|(a, b)| (a, b) == expected), "{expected:?}");
        }
        disk.sync_data(&file).unwrap();
        disk.sync_folder(root).unwrap();
        all(&sim);
        assert!(all(&sim).iter().all(|image| texts(image, &moved) == two && !image.has(&path)));
    }

    #[test]
    fn a_write_may_be_torn_at_each_sector_border() {
        let before = vec![1; 600];
        let torn = torn_writes(&before, &[2; 1500], 500);
        let news: Vec<usize> = torn.iter().map(|file| file.iter().filter(|byte| **byte == 2).count()).collect();
        assert_eq!(news, [12, 524, 1036]);
        assert_eq!(torn[0].len(), 600, "what lay behind stays");
    }
}
