//! The SQLite file: its tables, its connections, and what happens when it is damaged.
//!
//! In: a folder. Out: connections to a database of this version. Promise: whatever is in the folder, a database opens; a damaged or
//! foreign file is removed, for it is only a view.

use crate::attributes::{Attribute, SERIES_UID, SOP_INSTANCE_UID, STUDY_UID, of_level};
use crate::matching;
use fovea_core::QueryLevel;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Changes with any change of the tables: a file of another version is made anew.
const VERSION: i64 = 1;
/// Page cache of the writing connection, KiB.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
/// The same of each reading one.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Pages that gather in the write-ahead log before they are moved to the file, which syncs it: seldom, because senders wait for
/// the same disk.
const LOG_PAGES: i64 = 4096;

/// Why the database gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("make or clear the folder {folder}")]
    Folder { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl DatabaseError {
    /// The file is not what was written: made anew, it works.
    pub(crate) fn is_damage(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        // A column of another type or a table that is missing is damage too: nobody else writes here.
        !matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::PermissionDenied
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::TooBig
            )
        )
    }
}

/// Where the file lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("catalogue.db")
    }

    /// The writing connection; a file that is not usable is removed first.
    pub(crate) fn open(&self) -> Result<Connection, DatabaseError> {
        match self.open_or_create() {
            Err(error) if error.is_damage() => {
                log::warn!("catalogue: {error}; it is made anew from the objects");
                self.remove()?;
                self.open_or_create()
            }
            opened => opened,
        }
    }

    fn open_or_create(&self) -> Result<Connection, DatabaseError> {
        // It names patients: for the daemon's eyes only.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| DatabaseError::Folder { folder: self.folder.clone(), source })?;
        let connection = Connection::open(self.file())?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        prepare(&connection, WRITER_CACHE_KIB)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            VERSION => {}
            0 => create(&connection)?,
            _ => return Err(rusqlite::Error::InvalidQuery.into()),
        }
        Ok(connection)
    }

    /// A reading connection.
    pub(crate) fn open_reader(&self) -> Result<Connection, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        connection.pragma_update(None, "query_only", true)?;
        prepare(&connection, READER_CACHE_KIB)?;
        Ok(connection)
    }

    /// Removes the file and what belongs to it; who has it open reads on in what is no longer there.
    pub(crate) fn remove(&self) -> Result<(), DatabaseError> {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.file().into_os_string();
            path.push(end);
            let path = PathBuf::from(path);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DatabaseError::Folder { folder: self.folder.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the file is sound as far as SQLite can tell. Reads all of it.
pub(crate) fn is_sound(connection: &Connection) -> Result<bool, DatabaseError> {
    let told: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(told == "ok")
}

fn prepare(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    matching::register(connection)
}

/// Table of a level.
pub(crate) const fn table(level: QueryLevel) -> &'static str {
    match level {
        QueryLevel::Patient => "patient",
        QueryLevel::Study => "study",
        QueryLevel::Series => "series",
        QueryLevel::Instance => "instance",
    }
}

/// Columns of a level's attributes, with `end` behind each, by comma.
pub(crate) fn columns(level: QueryLevel, end: &str) -> String {
    let named = |attribute: Attribute| format!("{}{end}", attribute.column());
    of_level(level).map(named).collect::<Vec<_>>().join(", ")
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    let column = |tag: u32| format!("a{tag:08x}");
    let typed = |level| columns(level, " TEXT NOT NULL DEFAULT ''");
    let (study, series, sop) = (column(STUDY_UID), column(SERIES_UID), column(SOP_INSTANCE_UID));
    let sql = format!(
        "BEGIN;
        CREATE TABLE place (accepted INTEGER NOT NULL, accepted_uid TEXT NOT NULL, parcel INTEGER NOT NULL,
            gone INTEGER NOT NULL);
        INSERT INTO place VALUES (0, '', 0, 0);
        CREATE TABLE patient (id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL UNIQUE,
            newest TEXT NOT NULL DEFAULT '',
            name1 TEXT NOT NULL, name2 TEXT NOT NULL, name3 TEXT NOT NULL, {patient_columns});
        CREATE INDEX patient_newest ON patient (newest DESC, id);
        CREATE INDEX patient_number ON patient (a00100020);
        CREATE INDEX patient_name1 ON patient (name1);
        CREATE INDEX patient_name2 ON patient (name2);
        CREATE INDEX patient_name3 ON patient (name3);
        CREATE TABLE study (id INTEGER PRIMARY KEY AUTOINCREMENT, patient_id INTEGER NOT NULL REFERENCES patient,
            {study_columns});
        CREATE UNIQUE INDEX study_uid ON study ({study});
        CREATE INDEX study_patient ON study (patient_id);
        CREATE INDEX study_newest ON study (a00080020 DESC, a00080030 DESC, id);
        CREATE INDEX study_accession ON study (a00080050);
        CREATE TABLE series (id INTEGER PRIMARY KEY AUTOINCREMENT, study_id INTEGER NOT NULL REFERENCES study,
            {series_columns});
        CREATE UNIQUE INDEX series_uid ON series (study_id, {series});
        CREATE INDEX series_by_uid ON series ({series});
        CREATE INDEX series_modality ON series (a00080060);
        CREATE TABLE instance (id INTEGER PRIMARY KEY AUTOINCREMENT, series_id INTEGER NOT NULL REFERENCES series,
            arrived INTEGER NOT NULL, file_bytes INTEGER NOT NULL, parcel INTEGER, {instance_columns});
        CREATE UNIQUE INDEX instance_uid ON instance ({sop});
        CREATE INDEX instance_series ON instance (series_id, arrived, id);
        CREATE UNIQUE INDEX instance_parcel ON instance (parcel) WHERE parcel IS NOT NULL;
        PRAGMA user_version = {VERSION};
        COMMIT;",
        patient_columns = typed(QueryLevel::Patient),
        study_columns = typed(QueryLevel::Study),
        series_columns = typed(QueryLevel::Series),
        instance_columns = typed(QueryLevel::Instance),
    );
    connection.execute_batch(&sql)
}
