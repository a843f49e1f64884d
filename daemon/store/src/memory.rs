//! The twin in memory, for the tests of other crates: the same answers as the store, nothing survives it.
//!
//! Written without the store's code, so that a test can hold one against the other. Bytes live in memfds.

use crate::documents;
use crate::ledger::check;
use crate::outbox::{check_name, shorten};
use fovea_core::{
    Acceptance, Accepted, Custody, Document, DocumentKind, Documents, Finding, FindingId, Inbox, Ledger, NewObject,
    NewParcel, Outbox, Parcel, ParcelState, PortError, Proof, Quarantined, Recorded, TempObject, Uid, UnixMicros, What,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The four ports in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: Vec<Accepted>,
    object_files: HashMap<Uid, File>,
    conflicts: HashSet<(Uid, String)>,
    findings: Vec<Finding>,
    parcels: Vec<ParcelState>,
    parcel_files: HashMap<u64, File>,
    dispatched: BTreeMap<Uid, Vec<Quarantined>>,
    documents: BTreeMap<(DocumentKind, String), Vec<u8>>,
}

impl State {
    fn held(&self, uid: &Uid) -> Option<&Accepted> {
        self.objects.iter().find(|object| object.header.sop_instance_uid == *uid)
    }

    fn outcome(&self, uid: &Uid) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.sop_instance_uid == *uid)
    }

    fn parcel(&mut self, seq: u64) -> Result<&mut ParcelState, PortError> {
        let found = self.parcels.iter_mut().find(|state| state.parcel.seq == seq);
        found.ok_or_else(|| PortError::NotHeld { what: format!("parcel {seq}") })
    }
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A second, read-only look at a file that may have no name: its position is its own.
fn reopen(file: &File) -> Result<File, PortError> {
    File::open(Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()))
        .map_err(|source| PortError::Io { doing: "open a memory file".into(), source })
}

fn keep(temp: &TempObject) -> Result<File, PortError> {
    temp.file.try_clone().map_err(|source| PortError::Io { doing: "keep a memory file".into(), source })
}

impl Inbox for MemoryStore {
    fn open_temp(&self) -> Result<TempObject, PortError> {
        let memory = memfd_create(c"fovea-object", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| PortError::Io { doing: "create a memory file".into(), source: errno.into() })?;
        Ok(TempObject::new(memory.into(), None))
    }

    fn accept(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        let found = temp.file.metadata().map_or(0, |metadata| metadata.len());
        if found != object.file_bytes {
            return Err(PortError::Damaged { detail: "an object is not as long as it was said to be".into() });
        }
        let mut state = self.state();
        let uid = object.header.sop_instance_uid.clone();
        if let Some(held) = state.held(&uid).cloned() {
            if held.data_set_sha256 == object.data_set_sha256 {
                return Ok(Acceptance::Duplicate(held));
            }
            let digest = object.data_set_sha256.to_string();
            let quarantined = PathBuf::from(format!("conflict/{uid}-{digest}.dcm"));
            state.conflicts.insert((uid, digest));
            return Ok(Acceptance::Conflict { held, quarantined });
        }
        let accepted = Accepted {
            seq: state.objects.len() as u64 + 1,
            header: object.header,
            sender: object.sender,
            last_byte_at: object.last_byte_at,
            accepted_at: SystemTime::now().into(),
            data_set_sha256: object.data_set_sha256,
            file_bytes: object.file_bytes,
        };
        state.object_files.insert(uid, keep(&temp)?);
        state.objects.push(accepted.clone());
        Ok(Acceptance::New(accepted))
    }

    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError> {
        let state = self.state();
        let open = |object: &&Accepted| state.outcome(&object.header.sop_instance_uid).is_none();
        Ok(state.objects.iter().filter(open).take(limit).cloned().collect())
    }

    fn accepted(&self, sop_instance_uid: &Uid) -> Result<Option<Accepted>, PortError> {
        Ok(self.state().held(sop_instance_uid).cloned())
    }

    fn open_object(&self, sop_instance_uid: &Uid) -> Result<File, PortError> {
        let state = self.state();
        let file = state.object_files.get(sop_instance_uid);
        reopen(file.ok_or_else(|| PortError::NotHeld { what: format!("object {sop_instance_uid}") })?)
    }

    fn accepted_after(&self, after: u64, limit: usize) -> Result<Vec<Accepted>, PortError> {
        Ok(self.state().objects.iter().filter(|object| object.seq > after).take(limit).cloned().collect())
    }
}

impl Ledger for MemoryStore {
    fn record(&self, finding: Finding) -> Result<Recorded, PortError> {
        check(&finding)?;
        let mut state = self.state();
        let uid = &finding.sop_instance_uid;
        if let Some(already) = state.outcome(uid) {
            return Ok(Recorded::Already(Box::new(already.clone())));
        }
        if state.held(uid).is_none() {
            return Err(PortError::NotHeld { what: format!("object {uid}") });
        }
        state.findings.push(finding);
        Ok(Recorded::New)
    }

    fn finding(&self, id: &FindingId) -> Result<Option<Finding>, PortError> {
        Ok(self.state().findings.iter().find(|finding| finding.finding_id == *id).cloned())
    }

    fn finding_of(&self, sop_instance_uid: &Uid) -> Result<Option<Finding>, PortError> {
        Ok(self.state().outcome(sop_instance_uid).cloned())
    }

    fn findings_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Finding)>, PortError> {
        let state = self.state();
        let placed = (1..).zip(state.findings.iter().cloned());
        Ok(placed.filter(|(place, _)| *place > after).take(limit).collect())
    }

    fn undispatched(&self, limit: usize) -> Result<Vec<Finding>, PortError> {
        let state = self.state();
        let open = |finding: &&Finding| !state.dispatched.contains_key(&finding.sop_instance_uid);
        Ok(state.findings.iter().filter(open).take(limit).cloned().collect())
    }
}

impl Outbox for MemoryStore {
    fn dispatch(
        &self,
        source_sop_instance_uid: &Uid,
        parcels: Vec<NewParcel>,
        quarantined: Vec<Quarantined>,
        now: UnixMicros,
    ) -> Result<(), PortError> {
        let mut state = self.state();
        if state.held(source_sop_instance_uid).is_none() {
            return Err(PortError::NotHeld { what: format!("object {source_sop_instance_uid}") });
        }
        if state.dispatched.contains_key(source_sop_instance_uid) {
            return Ok(());
        }
        let mut names: HashSet<Uid> = state.parcels.iter().map(|state| state.parcel.sop_instance_uid.clone()).collect();
        if !parcels.iter().all(|parcel| names.insert(parcel.sop_instance_uid.clone())) {
            return Err(PortError::Damaged { detail: "a parcel of that uid is there already".into() });
        }
        state.dispatched.insert(source_sop_instance_uid.clone(), quarantined);
        for new in parcels {
            let file = keep(&new.content)?;
            let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let seq = state.parcels.len() as u64 + 1;
            let path = PathBuf::from(format!("outbox/{}.dcm", new.sop_instance_uid));
            let parcel = Parcel {
                seq,
                source_sop_instance_uid: source_sop_instance_uid.clone(),
                what: new.what,
                lane: new.lane,
                sop_class_uid: new.sop_class_uid.clone(),
                sop_instance_uid: new.sop_instance_uid.clone(),
                transfer_syntax_uid: new.transfer_syntax_uid.clone(),
                file_bytes,
                dispatched_at: now,
            };
            state.parcel_files.insert(seq, file);
            let (delivered, set_aside, custody) = (Vec::new(), Vec::new(), Vec::new());
            state.parcels.push(ParcelState { parcel, path, delivered, set_aside, custody });
        }
        Ok(())
    }

    fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, PortError> {
        check_name(destination)?;
        let state = self.state();
        let mut waiting: Vec<Parcel> = state
            .parcels
            .iter()
            .filter(|state| wants.contains(&state.parcel.what))
            .filter(|state| state.delivered.iter().all(|(name, _)| name != destination))
            .filter(|state| state.set_aside.iter().all(|(name, _)| name != destination))
            .map(|state| state.parcel.clone())
            .collect();
        waiting.sort_by_key(|parcel| (parcel.lane, parcel.seq));
        waiting.truncate(limit);
        Ok(waiting)
    }

    fn open_parcel(&self, seq: u64) -> Result<File, PortError> {
        let state = self.state();
        reopen(state.parcel_files.get(&seq).ok_or_else(|| PortError::NotHeld { what: format!("parcel {seq}") })?)
    }

    fn delivered(&self, seq: u64, destination: &str, at: UnixMicros) -> Result<(), PortError> {
        check_name(destination)?;
        let mut state = self.state();
        let way = state.parcel(seq)?;
        if way.delivered.iter().all(|(name, _)| name != destination) {
            way.delivered.push((destination.to_owned(), at));
        }
        Ok(())
    }

    fn set_aside(&self, seq: u64, destination: &str, reason: &str) -> Result<(), PortError> {
        check_name(destination)?;
        let mut state = self.state();
        let way = state.parcel(seq)?;
        if way.set_aside.iter().all(|(name, _)| name != destination) {
            way.set_aside.push((destination.to_owned(), shorten(reason).to_owned()));
        }
        Ok(())
    }

    fn custody(&self, seq: u64, destination: &str, proof: Proof, at: UnixMicros) -> Result<(), PortError> {
        check_name(destination)?;
        let mut state = self.state();
        let held = &mut state.parcel(seq)?.custody;
        if held.iter().all(|custody| custody.destination != destination) {
            held.push(Custody { destination: destination.to_owned(), proof, at });
        }
        Ok(())
    }

    fn custody_of(&self, seq: u64) -> Result<Vec<Custody>, PortError> {
        Ok(self.state().parcel(seq)?.custody.clone())
    }

    fn send_again(&self, seq: u64, destination: &str) -> Result<(), PortError> {
        check_name(destination)?;
        let mut state = self.state();
        let way = state.parcel(seq)?;
        way.delivered.retain(|(name, _)| name != destination);
        way.set_aside.retain(|(name, _)| name != destination);
        Ok(())
    }

    fn sent_for(&self, source_sop_instance_uid: &Uid) -> Result<(Vec<ParcelState>, Vec<Quarantined>), PortError> {
        let state = self.state();
        let about = |way: &&ParcelState| way.parcel.source_sop_instance_uid == *source_sop_instance_uid;
        let ways = state.parcels.iter().filter(about).cloned().collect();
        Ok((ways, state.dispatched.get(source_sop_instance_uid).cloned().unwrap_or_default()))
    }

    fn parcels_after(&self, after: u64, limit: usize) -> Result<Vec<ParcelState>, PortError> {
        let state = self.state();
        Ok(state.parcels.iter().filter(|way| way.parcel.seq > after).take(limit).cloned().collect())
    }
}

impl Documents for MemoryStore {
    fn put_document(&self, kind: DocumentKind, document: Document) -> Result<(), PortError> {
        documents::check(&document)?;
        self.state().documents.insert((kind, document.key), document.content);
        Ok(())
    }

    fn remove_document(&self, kind: DocumentKind, key: &str) -> Result<(), PortError> {
        self.state().documents.remove(&(kind, key.to_owned()));
        Ok(())
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Document>, PortError> {
        let content = self.state().documents.get(&(kind, key.to_owned())).cloned();
        Ok(content.map(|content| Document { key: key.to_owned(), content }))
    }

    fn documents(&self, kind: DocumentKind, after: &str, limit: usize) -> Result<Vec<Document>, PortError> {
        let state = self.state();
        let wanted = state.documents.iter().filter(|((of, key), _)| *of == kind && key.as_str() > after);
        Ok(wanted
            .take(limit)
            .map(|((_, key), content)| Document { key: key.clone(), content: content.clone() })
            .collect())
    }
}
