//! Keeps the index up to what inbox and outbox say.
//!
//! In: what came and what went after the places kept in the index itself. Out: rows, written with their place in one transaction.
//! Promise: a step that fails leaves nothing half-done; an object whose header is not understood is still held, by what routes it.

use crate::attributes::SOP_INSTANCE_UID;
use crate::database::{self, DatabaseError};
use crate::entry::{self, Entry, Leaving};
use crate::header::{self, HeaderError, Values};
use fovea_core::{Accepted, Gone, Inbox, Outbox, ParcelState, PortError, Uid, What, chain};
use rusqlite::{Connection, params};
use std::fs::File;

/// Objects of one step: bounds memory, and how long a question waits for its turn.
const BATCH: usize = 256;
/// Files looked at in one call of [`Follower::look_after`].
const LOOKS: i64 = 64;

/// Why a step was not done.
#[derive(Debug)]
pub(crate) enum FollowError {
    Port(PortError),
    Database(DatabaseError),
}

impl From<PortError> for FollowError {
    fn from(error: PortError) -> Self {
        Self::Port(error)
    }
}

impl From<DatabaseError> for FollowError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<rusqlite::Error> for FollowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// How far inbox and outbox are indexed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reached {
    accepted: u64,
    /// The object at that place.
    accepted_uid: String,
    parcel: u64,
    gone: u64,
}

/// The writing side.
pub(crate) struct Follower {
    connection: Connection,
    /// The file is sound and of this store: looked at once.
    is_checked: bool,
    /// Up to where files were looked at.
    looked_to: i64,
}

impl Follower {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, is_checked: false, looked_to: 0 }
    }

    /// Indexes up to [`BATCH`] of each; says whether there may be more.
    pub(crate) fn step(&mut self, inbox: &dyn Inbox, outbox: &dyn Outbox) -> Result<bool, FollowError> {
        if !self.is_checked {
            self.check(inbox)?;
        }
        let mut reached = self.reached()?;
        let objects = inbox.accepted_after(reached.accepted, BATCH)?;
        let parcels = outbox.parcels_after(reached.parcel, BATCH)?;
        let gone = inbox.gone_after(reached.gone, BATCH)?;
        if objects.is_empty() && parcels.is_empty() && gone.is_empty() {
            return Ok(false);
        }
        let mut entries = Vec::new();
        for object in &objects {
            entries.extend(of_object(inbox, object)?);
        }
        for state in &parcels {
            entries.extend(of_parcel(outbox, state)?);
        }
        if let Some(last) = objects.last() {
            (reached.accepted, reached.accepted_uid) = (last.seq, last.header.sop_instance_uid.to_string());
        }
        reached.parcel = parcels.last().map_or(reached.parcel, |state| state.parcel.seq);
        reached.gone = gone.last().map_or(reached.gone, |(place, _)| *place);
        self.write(&entries, &gone, &reached)?;
        Ok([objects.len(), parcels.len(), gone.len()].contains(&BATCH))
    }

    fn write(&mut self, entries: &[Entry], gone: &[(u64, Gone)], reached: &Reached) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for entry in entries {
            entry::put(&transaction, entry)?;
        }
        for (_, gone) in gone {
            entry::remove(&transaction, &Leaving::Parcel(gone.parcel))?;
            if let Some(uid) = &gone.object {
                entry::remove(&transaction, &Leaving::Object(uid))?;
            }
        }
        let place = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        transaction.execute(
            "UPDATE place SET accepted = ?, accepted_uid = ?, parcel = ?, gone = ?",
            params![place(reached.accepted), reached.accepted_uid, place(reached.parcel), place(reached.gone)],
        )?;
        transaction.commit()
    }

    fn reached(&self) -> rusqlite::Result<Reached> {
        self.connection.query_row("SELECT accepted, accepted_uid, parcel, gone FROM place", [], |row| {
            Ok(Reached {
                accepted: row.get::<_, i64>(0)?.unsigned_abs(),
                accepted_uid: row.get(1)?,
                parcel: row.get::<_, i64>(2)?.unsigned_abs(),
                gone: row.get::<_, i64>(3)?.unsigned_abs(),
            })
        })
    }

    /// Once, before anything is written: the file is sound, and what it says of its place is so in this store.
    fn check(&mut self, inbox: &dyn Inbox) -> Result<(), FollowError> {
        let damaged = || FollowError::Database(rusqlite::Error::InvalidQuery.into());
        if !database::is_sound(&self.connection)? {
            return Err(damaged());
        }
        let reached = self.reached()?;
        if reached.accepted > 0 {
            let held = match Uid::new(&reached.accepted_uid) {
                Ok(uid) => inbox.accepted(&uid)?,
                Err(_) => None,
            };
            // The state is another one, or was put back to an earlier day.
            if held.is_none_or(|held| held.seq != reached.accepted) {
                return Err(damaged());
            }
        }
        self.is_checked = true;
        Ok(())
    }

    /// Looks at the next few instances, and forgets those whose file is gone for good.
    pub(crate) fn look_after(&mut self, inbox: &dyn Inbox, outbox: &dyn Outbox) -> Result<(), FollowError> {
        let next = "SELECT id, a00080018, parcel FROM instance WHERE id > ? ORDER BY id LIMIT ?";
        let mut statement = self.connection.prepare(next)?;
        let rows = statement.query_map([self.looked_to, LOOKS], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?))
        })?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        drop(statement);
        // At the end it begins again.
        self.looked_to = rows.last().map_or(0, |(id, ..)| *id);
        for (_, uid, parcel) in rows {
            let Ok(uid) = Uid::new(&uid) else { return Err(rusqlite::Error::InvalidQuery.into()) };
            let parcel = parcel.map(i64::unsigned_abs);
            let opened = parcel.map_or_else(|| inbox.open_object(&uid), |seq| outbox.open_parcel(seq));
            if matches!(opened, Err(PortError::NotHeld { .. } | PortError::Damaged { .. })) {
                log::warn!("catalogue: the file of {uid} is gone; it is no longer offered");
                let leaving = parcel.map_or(Leaving::Object(&uid), Leaving::Parcel);
                let transaction = self.connection.transaction()?;
                entry::remove(&transaction, &leaving)?;
                transaction.commit()?;
            }
        }
        Ok(())
    }
}

/// The header of an opened file; none when it is gone for good, empty when it is not understood.
fn values(opened: Result<File, PortError>, what: &dyn std::fmt::Display) -> Result<Option<Values>, PortError> {
    let mut file = match opened {
        Ok(file) => file,
        Err(PortError::NotHeld { .. }) => return Ok(None),
        Err(error @ PortError::Damaged { .. }) => {
            log::warn!("catalogue: {what} is left out: {}", chain(&error));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match header::read(&mut file) {
        Ok(values) => Ok(Some(values)),
        Err(HeaderError::Read(source)) => Err(PortError::Io { doing: format!("read {what}"), source }),
        Err(error) => {
            log::warn!("catalogue: {what} is known by its route alone: {}", chain(&error));
            Ok(Some(Values::new()))
        }
    }
}

fn of_object(inbox: &dyn Inbox, object: &Accepted) -> Result<Option<Entry>, PortError> {
    let uid = &object.header.sop_instance_uid;
    Ok(values(inbox.open_object(uid), uid)?.map(|values| Entry::of_object(object, values)))
}

/// Reports only: a copy of an object is not a second object, and a de-identified one is not for those who ask here.
fn of_parcel(outbox: &dyn Outbox, state: &ParcelState) -> Result<Option<Entry>, PortError> {
    let parcel = &state.parcel;
    if parcel.what != What::Findings {
        return Ok(None);
    }
    let values = values(outbox.open_parcel(parcel.seq), &parcel.sop_instance_uid)?;
    Ok(values.and_then(|mut values| {
        values.remove(&SOP_INSTANCE_UID);
        Entry::of_report(parcel, values)
    }))
}
