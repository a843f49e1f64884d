//! Objects come in. Promise: `accept` answers `Ok` only for what survives a power cut, and each UID is new once.

use crate::error::port_io;
use crate::record::{Conflict, Record};
use crate::store::{Key, Store};
use fovea_core::{Acceptance, Accepted, Gone, Inbox, NewObject, PortError, Sender, TempObject, Uid, UnixMicros};
use std::fs::File;
use std::io;

impl Inbox for Store {
    fn open_temp(&self) -> Result<TempObject, PortError> {
        self.takes(0)?;
        self.files.temp(&self.layout.tmp).map_err(port_io("create a temporary file"))
    }

    fn check_space(&self, sender: &Sender, bytes: u64) -> Result<(), PortError> {
        self.takes(bytes)?;
        self.check_quota(sender, bytes)
    }

    fn accept(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        let found = temp.file.metadata().map_err(port_io("look at a file"))?.len();
        if found != object.file_bytes {
            let expected = object.file_bytes;
            return Err(PortError::Damaged {
                detail: format!("an object of {expected} bytes has {found} in its file"),
            });
        }
        let uid = &object.header.sop_instance_uid;
        // Two associations may bring the same UID at once: one of them is new, the other then finds it held.
        let _one = self.reserved.take(Key::Object(uid.clone()));
        match self.index.ask(|view| view.accepted(uid))? {
            None => {
                self.check_quota(&object.sender, object.file_bytes)?;
                self.accept_new(temp, object)
            }
            Some(held) if held.data_set_sha256 == object.data_set_sha256 => self.accept_again(temp, held),
            Some(held) => self.keep_conflict(temp, &object, held),
        }
    }

    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError> {
        self.index.ask(|view| view.pending(limit))
    }

    fn accepted(&self, sop_instance_uid: &Uid) -> Result<Option<Accepted>, PortError> {
        self.index.ask(|view| view.accepted(sop_instance_uid))
    }

    fn open_object(&self, sop_instance_uid: &Uid) -> Result<File, PortError> {
        let not_held = || PortError::NotHeld { what: format!("object {sop_instance_uid}") };
        let held = self.accepted(sop_instance_uid)?.ok_or_else(not_held)?;
        if self.index.ask(|view| view.object_evicted(sop_instance_uid))? {
            let what = format!("object {sop_instance_uid}: an archive keeps it, and its file went to make room");
            return Err(PortError::NotHeld { what });
        }
        self.open_held(&self.layout.object(&held.header.study_uid, sop_instance_uid))
    }

    fn accepted_after(&self, after: u64, limit: usize) -> Result<Vec<Accepted>, PortError> {
        self.index.ask(|view| view.accepted_after(after, limit))
    }

    fn gone_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Gone)>, PortError> {
        self.index.ask(|view| view.gone_after(after, limit))
    }
}

impl Store {
    /// Opens a file that a record names: its absence is damage, any other failure is the disk's and may pass.
    pub(crate) fn open_held(&self, path: &std::path::Path) -> Result<File, PortError> {
        self.disk.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PortError::Damaged { detail: "a recorded file is missing".into() },
            _ => port_io("open a file")(error),
        })
    }

    fn accept_new(&self, mut temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        let target = self.layout.object(&object.header.study_uid, &object.header.sop_instance_uid);
        let folder = self.layout.study(&object.header.study_uid);
        self.files.ensure_folder(&folder, &self.layout.objects)?;
        // The folder may have been removed by hand: the sender's next try makes it again.
        self.files.install_unnamed(&mut temp, &target).inspect_err(|_| self.files.forget_folder(&folder))?;
        let record = Record::Accepted(Accepted {
            seq: 0, // the committer's to give, as is the moment
            accepted_at: UnixMicros(0),
            header: object.header,
            sender: object.sender,
            last_byte_at: object.last_byte_at,
            data_set_sha256: object.data_set_sha256,
            file_bytes: object.file_bytes,
        });
        match self.commit(record) {
            Ok(Record::Accepted(accepted)) => Ok(Acceptance::New(accepted)),
            Ok(_) => Err(port_io("write the journal")(io::Error::other("it answered with another record"))),
            Err(error) => {
                // Nothing half-done shows. If this fails too, the file is swept when the store opens.
                let _swept_later = self.disk.remove_file(&target);
                Err(error)
            }
        }
    }

    /// The same data set again. If the held file has been lost, the newcomer takes its place.
    fn accept_again(&self, mut temp: TempObject, held: Accepted) -> Result<Acceptance, PortError> {
        let target = self.layout.object(&held.header.study_uid, &held.header.sop_instance_uid);
        let evicted = self.index.ask(|view| view.object_evicted(&held.header.sop_instance_uid))?;
        if !evicted && !self.disk.exists(&target).map_err(port_io("look for a file"))? {
            log::warn!("object {} was missing; its repeat takes its place", held.header.sop_instance_uid);
            let folder = self.layout.study(&held.header.study_uid);
            self.files.forget_folder(&folder);
            self.files.ensure_folder(&folder, &self.layout.objects)?;
            // Bytes first: there is a record, so whatever has the name counts as the object.
            self.files.sync_file(&temp)?;
            self.files.install(&mut temp, &target).inspect_err(|_| self.files.forget_folder(&folder))?;
        }
        Ok(Acceptance::Duplicate(held))
    }

    /// Refuses what would take a sender past its share.
    fn check_quota(&self, sender: &Sender, bytes: u64) -> Result<(), PortError> {
        let Some(limit) = self.sender_bytes_max else { return Ok(()) };
        let held = self.index.ask(|view| view.share_of(sender))?.bytes;
        if held.saturating_add(bytes) <= limit {
            return Ok(());
        }
        Err(PortError::OutOfSpace { detail: format!("{held} bytes of this sender are held, its limit is {limit}") })
    }

    /// Other bytes under a UID that is held: both are kept, and a person decides.
    fn keep_conflict(&self, mut temp: TempObject, object: &NewObject, held: Accepted) -> Result<Acceptance, PortError> {
        let uid = &object.header.sop_instance_uid;
        // The whole digest: no newcomer takes another one's place.
        let quarantined = self.layout.conflict.join(format!("{uid}-{}.dcm", object.data_set_sha256));
        if !self.index.ask(|view| view.has_conflict(uid, &object.data_set_sha256))? {
            self.files.sync_file(&temp)?;
            self.files.install(&mut temp, &quarantined)?;
            self.commit(Record::Conflict(Conflict {
                sop_instance_uid: uid.clone(),
                data_set_sha256: object.data_set_sha256,
                sender: object.sender.clone(),
                at: UnixMicros(0),
            }))?;
        }
        Ok(Acceptance::Conflict { held, quarantined })
    }
}
