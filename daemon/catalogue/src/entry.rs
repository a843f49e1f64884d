//! One instance into the index, or out of it.
//!
//! In: what is known of an instance. Out: rows. Promise: a study, series or patient has a row exactly while an instance of it has one;
//! what is said of it is what its first instance said.

use crate::attributes::{
    MODALITY, PATIENT_ID, PATIENT_ID_ISSUER, PATIENT_NAME, SERIES_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_DATE,
    STUDY_TIME, STUDY_UID, SYNTAX_UID, of_level,
};
use crate::database::{columns, table};
use crate::header::Values;
use crate::text::folded_groups;
use fovea_core::{Accepted, Parcel, QueryLevel, TagNumber, Uid, UnixMicros};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

/// An instance that can be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub values: Values,
    pub arrived: UnixMicros,
    pub file_bytes: u64,
    /// Where it lies: a parcel, or none for an object as received.
    pub parcel: Option<u64>,
}

impl Entry {
    /// An object as it was received: what routes it is known, whatever its header says.
    pub(crate) fn of_object(object: &Accepted, mut values: Values) -> Self {
        let header = &object.header;
        let uids = [
            (STUDY_UID, &header.study_uid),
            (SERIES_UID, &header.series_uid),
            (SOP_INSTANCE_UID, &header.sop_instance_uid),
            (SOP_CLASS_UID, &header.sop_class_uid),
            (SYNTAX_UID, &header.transfer_syntax_uid),
        ];
        values.extend(uids.map(|(tag, uid)| (tag, uid.as_str().to_owned())));
        if let Some(modality) = &header.modality {
            values.insert(MODALITY, modality.clone());
        }
        Self { values, arrived: object.accepted_at, file_bytes: object.file_bytes, parcel: None }
    }

    /// A report that was made here; none where its own header does not say to which series it belongs.
    pub(crate) fn of_report(parcel: &Parcel, mut values: Values) -> Option<Self> {
        let uids = [
            (SOP_INSTANCE_UID, &parcel.sop_instance_uid),
            (SOP_CLASS_UID, &parcel.sop_class_uid),
            (SYNTAX_UID, &parcel.transfer_syntax_uid),
        ];
        values.extend(uids.map(|(tag, uid)| (tag, uid.as_str().to_owned())));
        let is_uid = |tag: TagNumber| values.get(&tag).is_some_and(|text| Uid::new(text).is_ok());
        (is_uid(STUDY_UID) && is_uid(SERIES_UID)).then_some(Self {
            values,
            arrived: parcel.dispatched_at,
            file_bytes: parcel.file_bytes,
            parcel: Some(parcel.seq),
        })
    }

    fn value(&self, tag: TagNumber) -> &str {
        self.values.get(&tag).map_or("", String::as_str)
    }

    /// Two patients without an id are not one: each study has its own.
    fn patient_identity(&self) -> String {
        match self.value(PATIENT_ID) {
            "" => format!("study {}", self.value(STUDY_UID)),
            id => format!("id {id}\n{}", self.value(PATIENT_ID_ISSUER)),
        }
    }
}

/// Puts an instance in; one that is there already stays as it is.
pub(crate) fn put(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    let known = "SELECT 1 FROM instance WHERE a00080018 = ?";
    if connection.query_row(known, [entry.value(SOP_INSTANCE_UID)], |_| Ok(())).optional()?.is_some() {
        return Ok(());
    }
    let patient = patient(connection, entry)?;
    let find = "SELECT id FROM study WHERE a0020000d = ?";
    let study = match connection.query_row(find, [entry.value(STUDY_UID)], |row| row.get(0)).optional()? {
        Some(study) => study,
        None => {
            let patient = match patient {
                Some(patient) => patient,
                None => new_patient(connection, entry)?,
            };
            insert(connection, QueryLevel::Study, entry, &[("patient_id", Value::Integer(patient))])?
        }
    };
    let newest = "UPDATE patient SET newest = max(newest, ?) WHERE id = (SELECT patient_id FROM study WHERE id = ?)";
    let moment = format!("{}{}", entry.value(STUDY_DATE), entry.value(STUDY_TIME));
    connection.execute(newest, (moment, study))?;
    let find = "SELECT id FROM series WHERE study_id = ? AND a0020000e = ?";
    let held = connection.query_row(find, (study, entry.value(SERIES_UID)), |row| row.get(0)).optional()?;
    let series = match held {
        Some(series) => series,
        None => insert(connection, QueryLevel::Series, entry, &[("study_id", Value::Integer(study))])?,
    };
    let own = [
        ("series_id", Value::Integer(series)),
        ("arrived", Value::Integer(entry.arrived.0)),
        ("file_bytes", Value::Integer(i64::try_from(entry.file_bytes).unwrap_or(i64::MAX))),
        ("parcel", entry.parcel.and_then(|seq| i64::try_from(seq).ok()).map_or(Value::Null, Value::Integer)),
    ];
    insert(connection, QueryLevel::Instance, entry, &own).map(drop)
}

fn patient(connection: &Connection, entry: &Entry) -> rusqlite::Result<Option<i64>> {
    let find = "SELECT id FROM patient WHERE identity = ?";
    connection.query_row(find, [entry.patient_identity()], |row| row.get(0)).optional()
}

fn new_patient(connection: &Connection, entry: &Entry) -> rusqlite::Result<i64> {
    let [name1, name2, name3] = folded_groups(entry.value(PATIENT_NAME)).map(Value::Text);
    let own =
        [("identity", Value::Text(entry.patient_identity())), ("name1", name1), ("name2", name2), ("name3", name3)];
    insert(connection, QueryLevel::Patient, entry, &own)
}

/// A row with the columns given and those of the level's attributes; answers with its id.
fn insert(connection: &Connection, level: QueryLevel, entry: &Entry, own: &[(&str, Value)]) -> rusqlite::Result<i64> {
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    let values = of_level(level).map(|attribute| Value::Text(entry.value(attribute.tag).to_owned()));
    let values: Vec<Value> = own.iter().map(|(_, value)| value.clone()).chain(values).collect();
    let marks = vec!["?"; values.len()].join(", ");
    let sql = format!("INSERT INTO {} ({}, {}) VALUES ({marks})", table(level), names.join(", "), columns(level, ""));
    connection.execute(&sql, params_from_iter(values))?;
    Ok(connection.last_insert_rowid())
}

/// What goes out.
#[derive(Clone, Debug)]
pub(crate) enum Leaving<'a> {
    /// The object as received.
    Object(&'a Uid),
    /// What lies in a parcel.
    Parcel(u64),
}

/// Takes an instance out, and with the last one its series, study and patient.
pub(crate) fn remove(connection: &Connection, leaving: &Leaving<'_>) -> rusqlite::Result<()> {
    let (which, value) = match leaving {
        Leaving::Object(uid) => ("a00080018 = ? AND parcel IS NULL", Value::Text(uid.as_str().to_owned())),
        Leaving::Parcel(seq) => ("parcel = ?", Value::Integer(i64::try_from(*seq).unwrap_or(i64::MAX))),
    };
    let sql = format!("DELETE FROM instance WHERE {which} RETURNING series_id");
    let mut above: Option<i64> = connection.query_row(&sql, [value], |row| row.get(0)).optional()?;
    for (table, below, parent) in [
        ("series", "instance WHERE series_id", "study_id"),
        ("study", "series WHERE study_id", "patient_id"),
        ("patient", "study WHERE patient_id", "id"),
    ] {
        let Some(id) = above else { break };
        let sql =
            format!("DELETE FROM {table} WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM {below} = ?1) RETURNING {parent}");
        above = connection.query_row(&sql, [id], |row| row.get(0)).optional()?;
    }
    Ok(())
}
