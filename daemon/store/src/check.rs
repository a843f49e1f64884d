//! Looks at everything that is kept, and mends what can be mended.
//!
//! In: an open store. Out: a report in counts and instance UIDs, no patient identity, and calls of `progress` on the way.
//! Promise: nothing that can still be read is lost: a damaged file is moved to `quarantine/damaged/` with a note beside it, a lost
//! record is made again from its object, and a file that came back takes its place again.
//!
//! An object is checked against the SHA-256 in its record, a parcel against its length, a sealed journal file against its seal and
//! every record against its own checksum.

use crate::error::StoreError;
use crate::part10::data_set_sha256;
use crate::record::Record;
use crate::recovery::{self, free_name, uid_of};
use crate::segment;
use crate::store::{Key, Parts, Store};
use fovea_core::{Accepted, ObjectHeader, PortError, Sender, Sha256, Uid, UnixMicros, chain};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Records that are looked at together.
pub(crate) const BATCH: usize = 256;

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Files of the journal.
    Journal,
    /// The index is made anew from it.
    Index,
    /// Files without a record.
    Strays,
    /// Objects.
    Objects,
    /// Parcels.
    Parcels,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Things done in this step.
    pub done: u64,
    /// Things to do in this step.
    pub total: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Files of the journal.
    pub journal_files: u64,
    /// Records in them that are whole.
    pub journal_records: u64,
    /// Bytes in them that are no record; where they were whole ones, they are lost.
    pub journal_damaged_bytes: u64,
    /// Records that this version does not understand.
    pub journal_unknown_records: u64,
    /// Files whose bytes are not those that were sealed.
    pub journal_broken_seals: u64,
    /// Objects whose bytes are those that were acknowledged.
    pub objects_sound: u64,
    /// Objects whose file is elsewhere on purpose: an archive keeps it.
    pub objects_evicted: u64,
    /// Objects with other bytes than those that were acknowledged; they are in quarantine now.
    pub objects_damaged: Vec<Uid>,
    /// Objects without a file.
    pub objects_missing: Vec<Uid>,
    /// Objects whose file could not be read this time.
    pub objects_unread: Vec<Uid>,
    /// Parcels whose file is there at its full length.
    pub parcels_sound: u64,
    /// Parcels whose file went after an archive had proved to keep it.
    pub parcels_evicted: u64,
    /// Parcels without a file, or with one of another length.
    pub parcels_damaged: Vec<Uid>,
}

impl VerifyReport {
    /// Nothing was found that should not be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let journal = self.journal_damaged_bytes + self.journal_unknown_records + self.journal_broken_seals;
        let objects = self.objects_damaged.len() + self.objects_missing.len() + self.objects_unread.len();
        journal == 0 && objects + self.parcels_damaged.len() == 0
    }
}

/// What was mended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RebuildReport {
    /// Objects that the journal names.
    pub objects: u64,
    /// Findings that the journal names.
    pub findings: u64,
    /// Documents that the journal names.
    pub documents: u64,
    /// Records that the journal had lost and the index still knew.
    pub records_salvaged: u64,
    /// Objects whose lost record was made again from their file. Each waits for an outcome.
    pub records_made: Vec<Uid>,
    /// Objects whose lost file was found again.
    pub files_put_back: Vec<Uid>,
    /// Files without a record of which nothing could be made; they stay in quarantine.
    pub strays_left: u64,
    /// How everything stands after that.
    pub verified: VerifyReport,
}

/// Reads routing facts and sender from a stored file, with bounds of its own; none where they cannot be had.
/// The store knows no DICOM: whoever parses headers for the daemon does it here, too.
pub type HeaderOf<'a> = dyn Fn(&File) -> Option<(ObjectHeader, Sender)> + 'a;

/// What became of one stray file.
enum Stray {
    Made(Uid),
    PutBack(Uid),
    Left,
}

impl Store {
    /// Checks all that is kept: the journal, every object, every parcel. Reads every byte, so it takes as long as the disk
    /// needs for that; the store can be used meanwhile.
    ///
    /// # Errors
    /// When the journal or the index cannot be read at all. What is damaged is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        self.check_journal(&mut report, progress)?;
        self.check_objects(&mut report, progress)?;
        self.check_parcels(&mut report, progress)?;
        Ok(report)
    }

    /// Writes down again what the journal has lost and the index still knows; makes the index anew from the journal, then
    /// lost records from the objects that are left of them, and puts back files that were found; then verifies. Objects in `quarantine/orphans/` and `quarantine/damaged/` are looked at.
    ///
    /// # Errors
    /// As [`Store::verify`]; and when a record cannot be written.
    pub fn rebuild(
        &self,
        header_of: &HeaderOf<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<RebuildReport, StoreError> {
        let mut report = RebuildReport { records_salvaged: self.salvage(progress)?, ..RebuildReport::default() };
        self.index.read_journal_again()?;
        let strays = self.strays()?;
        for (done, path) in (1..).zip(&strays) {
            match self.mend(path, header_of).map_err(asked)? {
                Stray::Made(uid) => report.records_made.push(uid),
                Stray::PutBack(uid) => report.files_put_back.push(uid),
                Stray::Left => report.strays_left += 1,
            }
            progress(Progress { step: Step::Strays, done, total: strays.len() as u64 });
        }
        let counts = self.index.meta().map_err(asked)?.counts;
        (report.objects, report.findings, report.documents) = (counts.objects, counts.findings, counts.documents);
        report.verified = self.verify(progress)?;
        Ok(report)
    }
}

/// An index that gives no answer.
pub(crate) fn asked(error: PortError) -> StoreError {
    StoreError::Index { detail: chain(&error) }
}

impl Parts {
    /// The closed files of the journal: the one that is written to is checked by every opening.
    fn check_journal(&self, report: &mut VerifyReport, progress: &mut dyn FnMut(Progress)) -> Result<(), StoreError> {
        let dir = &self.layout.journal;
        let failed = || StoreError::io("read", dir);
        let closed_before = self.committer.closed_before();
        let end = self.committer.end();
        let segments = segment::list(&self.disk, dir).map_err(failed())?;
        for (done, segment) in (1..).zip(&segments) {
            let limit = if segment.base < closed_before { u64::MAX } else { end };
            let mut unknown = 0;
            let walk = segment.walk(&self.disk, segment.first, limit, &mut |_, json| {
                unknown += u64::from(serde_json::from_slice::<Record>(json).is_err());
            });
            // One that was compacted away meanwhile is in the file that took its place.
            let Some(walk) = unless_gone(walk).map_err(failed())? else { continue };
            let broken = unless_gone(segment.sealed_well(&self.disk)).map_err(failed())?.flatten() == Some(false);
            report.journal_files += 1;
            report.journal_records += walk.records - unknown;
            report.journal_unknown_records += unknown;
            report.journal_damaged_bytes += walk.gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>();
            report.journal_damaged_bytes += if limit == u64::MAX { walk.tail_bytes } else { 0 };
            report.journal_broken_seals += u64::from(broken);
            progress(Progress { step: Step::Journal, done, total: segments.len() as u64 });
        }
        Ok(())
    }

    fn check_objects(&self, report: &mut VerifyReport, progress: &mut dyn FnMut(Progress)) -> Result<(), StoreError> {
        let total = self.index.meta().map_err(asked)?.counts.objects;
        let (mut after, mut done) = (String::new(), 0);
        loop {
            let objects = self.index.ask(|view| view.objects_after(&after, BATCH)).map_err(asked)?;
            let Some(last) = objects.last() else { return Ok(()) };
            last.header.sop_instance_uid.as_str().clone_into(&mut after);
            for object in &objects {
                self.check_object(object, report).map_err(asked)?;
                done += 1;
                progress(Progress { step: Step::Objects, done, total: total.max(done) });
            }
        }
    }

    fn check_object(&self, object: &Accepted, report: &mut VerifyReport) -> Result<(), PortError> {
        let uid = &object.header.sop_instance_uid;
        // Nobody brings or evicts it meanwhile.
        let _one = self.reserved.take(Key::Object(uid.clone()));
        let path = self.layout.object(&object.header.study_uid, uid);
        if self.index.ask(|view| view.object_evicted(uid))? {
            report.objects_evicted += 1;
            return Ok(());
        }
        let found =
            self.disk.open(&path).and_then(|mut file| Ok((file.metadata()?.len(), data_set_sha256(&mut file)?)));
        match found {
            Ok((_, sha256)) if sha256 == object.data_set_sha256 => report.objects_sound += 1,
            Ok((bytes, sha256)) => {
                log::error!("object {uid} is damaged: it goes to quarantine");
                self.put_aside(&path, object, bytes, sha256);
                report.objects_damaged.push(uid.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => report.objects_missing.push(uid.clone()),
            Err(error) => {
                log::error!("read object {uid}: {error}");
                report.objects_unread.push(uid.clone());
            }
        }
        Ok(())
    }

    /// Moves a damaged object to quarantine, with a note for people. A failure is logged: it is in the report anyway.
    fn put_aside(&self, path: &Path, object: &Accepted, bytes: u64, sha256: Sha256) {
        let note = format!(
            "The bytes of this object are not those that were acknowledged.\n\
             instance: {}\nplace: {}\nbytes: {bytes} of {}\nsha256: {sha256}\nacknowledged sha256: {}\n\
             When its sender brings it again, that takes its place.\n",
            object.header.sop_instance_uid, object.seq, object.file_bytes, object.data_set_sha256
        );
        let folder = &self.layout.damaged;
        let moved = (|| {
            let target = free_name(&self.disk, folder, path);
            self.disk.rename(path, &target)?;
            self.disk.write_file(&target.with_extension("txt"), note.as_bytes())?;
            self.disk.sync_folder(folder)
        })();
        if let Err(error) = moved {
            log::error!("move a damaged object to quarantine: {error}");
        }
    }

    fn check_parcels(&self, report: &mut VerifyReport, progress: &mut dyn FnMut(Progress)) -> Result<(), StoreError> {
        let total = self.index.meta().map_err(asked)?.counts.parcels;
        let (mut after, mut done) = (0, 0);
        loop {
            let ways = self.index.ask(|view| view.ways_after(after, BATCH)).map_err(asked)?;
            let Some(last) = ways.last() else { return Ok(()) };
            after = last.parcel.seq;
            for way in &ways {
                let _one = self.reserved.take(Key::Parcel(way.parcel.seq));
                let way = self.index.ask(|view| view.way(way.parcel.seq)).map_err(asked)?;
                let Some(way) = way else { continue };
                let path = self.layout.parcel(&way.parcel.sop_instance_uid);
                let length = self.disk.open(&path).and_then(|file| file.metadata()).map(|metadata| metadata.len());
                if way.evicted {
                    report.parcels_evicted += 1;
                } else if length.is_ok_and(|length| length == way.parcel.file_bytes) {
                    report.parcels_sound += 1;
                } else {
                    report.parcels_damaged.push(way.parcel.sop_instance_uid);
                }
                done += 1;
                progress(Progress { step: Step::Parcels, done, total: total.max(done) });
            }
        }
    }

    /// Files of which something may be made: in quarantine, or among the objects without a record.
    fn strays(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut strays = recovery::orphans(&self.disk, &self.layout, &self.index)?;
        strays.retain(|path| path.starts_with(&self.layout.objects));
        for folder in [&self.layout.orphans, &self.layout.damaged] {
            let entries = self.disk.list(folder).map_err(StoreError::io("list", folder))?;
            strays.extend(entries.into_iter().map(|(path, _)| path));
        }
        strays.retain(|path| path.extension().is_some_and(|extension| extension == "dcm"));
        strays.sort();
        Ok(strays)
    }

    /// Makes of one stray file what can be made. Its bytes decide: a held object takes only those that were acknowledged.
    fn mend(&self, path: &Path, header_of: &HeaderOf<'_>) -> Result<Stray, PortError> {
        let opened = self.disk.open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let Ok((file_bytes, mut file)) = opened else { return Ok(Stray::Left) };
        let named = uid_of_stray(path);
        let Some(sha256) = data_set_sha256(&mut file).ok() else { return Ok(Stray::Left) };
        let held = named.as_ref().map(|uid| self.index.ask(|view| view.accepted(uid))).transpose()?.flatten();
        if let Some(held) = held {
            return self.put_back(path, &held, sha256);
        }
        let Some((header, sender)) = header_of(&file) else { return Ok(Stray::Left) };
        let uid = header.sop_instance_uid.clone();
        let _one = self.reserved.take(Key::Object(uid.clone()));
        if named.as_ref() != Some(&uid) || self.index.ask(|view| view.accepted(&uid))?.is_some() {
            return Ok(Stray::Left);
        }
        let made = self.give_name(path, &header.study_uid, &uid)?;
        let now = (self.clock)();
        self.commit(Record::Accepted(Accepted {
            seq: 0, // the committer's to give, as is the moment
            accepted_at: UnixMicros(0),
            header,
            sender,
            last_byte_at: now,
            data_set_sha256: sha256,
            file_bytes,
        }))?;
        self.drop_stray(path, &made);
        Ok(Stray::Made(uid))
    }

    fn put_back(&self, path: &Path, held: &Accepted, sha256: Sha256) -> Result<Stray, PortError> {
        let uid = &held.header.sop_instance_uid;
        let _one = self.reserved.take(Key::Object(uid.clone()));
        let there = self.disk.exists(&self.layout.object(&held.header.study_uid, uid)).unwrap_or(true);
        if there || sha256 != held.data_set_sha256 || self.index.ask(|view| view.object_evicted(uid))? {
            return Ok(Stray::Left);
        }
        let made = self.give_name(path, &held.header.study_uid, uid)?;
        self.drop_stray(path, &made);
        Ok(Stray::PutBack(uid.clone()))
    }

    /// Gives a stray file its place among the objects, durably. It keeps its old name: until its record is durable, that is
    /// what a person finds.
    fn give_name(&self, path: &Path, study_uid: &Uid, uid: &Uid) -> Result<PathBuf, PortError> {
        let (folder, target) = (self.layout.study(study_uid), self.layout.object(study_uid, uid));
        if path != target {
            self.files.forget_folder(&folder);
            self.files.ensure_folder(&folder, &self.layout.objects)?;
            self.files.link(path, &target)?;
        }
        Ok(target)
    }

    /// The old name is not needed any more.
    fn drop_stray(&self, path: &Path, place: &Path) {
        if path != place
            && let Err(error) = self.disk.remove_file(path)
        {
            log::warn!("remove a file that has its place again: {error}");
        }
    }
}

/// None for a file that is not there any more.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The instance that a file in quarantine is named for: `<uid>.dcm`, or `<number>-<uid>.dcm` where that was taken.
fn uid_of_stray(path: &Path) -> Option<Uid> {
    let name = path.file_name()?.to_str()?;
    let name = name.split_once('-').map_or(name, |(_number, name)| name);
    uid_of(Path::new(name))
}
