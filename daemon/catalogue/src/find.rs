//! Questions of the port as SQL.
//!
//! In: a query or selection. Out: rows. Promise: as many rows as asked for and no more are held; numbers of related things are
//! counted when a row is made, so they cannot drift.

use crate::attributes::{
    INSTANCE_AVAILABILITY, INSTANCES_OF_PATIENT, INSTANCES_OF_SERIES, INSTANCES_OF_STUDY, MODALITIES_IN_STUDY,
    SERIES_OF_PATIENT, SERIES_OF_STUDY, SOP_CLASSES_IN_STUDY, STUDIES_OF_PATIENT, attribute, of_level,
};
use crate::database::table;
use crate::matching::{Condition, condition, uids};
use fovea_core::{HeldInstance, Query, QueryLevel, Row, Selection, TagNumber, Uid};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use QueryLevel::{Instance, Patient, Series, Study};

const LEVELS: [QueryLevel; 4] = [Patient, Study, Series, Instance];

/// How a number or list of related things is got, by the level whose rows have it.
const COMPUTED: [(QueryLevel, TagNumber, &str); 8] = [
    (Patient, STUDIES_OF_PATIENT, "SELECT count(*) FROM study AS s WHERE s.patient_id = patient.id"),
    (
        Patient,
        SERIES_OF_PATIENT,
        "SELECT count(*) FROM series AS e JOIN study AS s ON s.id = e.study_id WHERE s.patient_id = patient.id",
    ),
    (
        Patient,
        INSTANCES_OF_PATIENT,
        "SELECT count(*) FROM instance AS i JOIN series AS e ON e.id = i.series_id JOIN study AS s ON s.id = e.study_id \
         WHERE s.patient_id = patient.id",
    ),
    (Study, SERIES_OF_STUDY, "SELECT count(*) FROM series AS e WHERE e.study_id = study.id"),
    (
        Study,
        INSTANCES_OF_STUDY,
        "SELECT count(*) FROM instance AS i JOIN series AS e ON e.id = i.series_id WHERE e.study_id = study.id",
    ),
    (
        Study,
        MODALITIES_IN_STUDY,
        "SELECT group_concat(m, '\\') FROM (SELECT DISTINCT e.a00080060 AS m FROM series AS e \
         WHERE e.study_id = study.id AND e.a00080060 <> '' ORDER BY m)",
    ),
    (
        Study,
        SOP_CLASSES_IN_STUDY,
        "SELECT group_concat(c, '\\') FROM (SELECT DISTINCT i.a00080016 AS c FROM instance AS i \
         JOIN series AS e ON e.id = i.series_id WHERE e.study_id = study.id ORDER BY c)",
    ),
    (Series, INSTANCES_OF_SERIES, "SELECT count(*) FROM instance AS i WHERE i.series_id = series.id"),
];

/// The order of rows: the newest study first, then by arrival.
const fn order(level: QueryLevel) -> &'static str {
    match level {
        Patient => "patient.newest DESC, patient.id",
        Study => "study.a00080020 DESC, study.a00080030 DESC, study.id",
        Series => "study.a00080020 DESC, study.a00080030 DESC, study.id, series.id",
        Instance => "study.a00080020 DESC, study.a00080030 DESC, study.id, series.id, instance.arrived, instance.id",
    }
}

/// A level's table and those above it.
fn joined(level: QueryLevel) -> &'static str {
    match level {
        Patient => "patient",
        Study => "study JOIN patient ON patient.id = study.patient_id",
        Series => "study JOIN patient ON patient.id = study.patient_id JOIN series ON series.study_id = study.id",
        Instance => {
            "study JOIN patient ON patient.id = study.patient_id JOIN series ON series.study_id = study.id \
             JOIN instance ON instance.series_id = series.id"
        }
    }
}

/// Rows that match.
pub(crate) fn find(connection: &Connection, query: &Query) -> rusqlite::Result<Vec<Row>> {
    let mut tags = Vec::new();
    let mut columns = Vec::new();
    for level in LEVELS.into_iter().filter(|level| *level <= query.level) {
        for attribute in of_level(level) {
            tags.push(attribute.tag);
            columns.push(format!("{}.{}", table(level), attribute.column()));
        }
    }
    for (_, tag, sql) in COMPUTED.iter().filter(|(level, ..)| *level == query.level) {
        tags.push(*tag);
        columns.push(format!("({sql})"));
    }
    let (condition, mut values) = all(query.keys.iter().filter_map(|(tag, wanted)| of_key(query.level, *tag, wanted)));
    values.extend([number(query.limit), number(query.offset)]);
    let sql = format!(
        "SELECT {} FROM {} WHERE {condition} ORDER BY {} LIMIT ? OFFSET ?",
        columns.join(", "),
        joined(query.level),
        order(query.level)
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |found| {
        let mut row = Row::new();
        for (index, tag) in tags.iter().enumerate() {
            let text = match found.get::<_, Value>(index)? {
                Value::Text(text) => text,
                Value::Integer(number) => number.to_string(),
                _ => String::new(),
            };
            row.insert(*tag, text);
        }
        row.insert(INSTANCE_AVAILABILITY, "ONLINE".to_owned());
        Ok(row)
    })?;
    rows.collect()
}

/// What one key asks of rows of `level`; none when it asks nothing.
fn of_key(level: QueryLevel, tag: TagNumber, wanted: &str) -> Option<Condition> {
    let below = match tag {
        MODALITIES_IN_STUDY if level >= Study => Some((0x0008_0060, "FROM series AS e WHERE e.study_id = study.id")),
        SOP_CLASSES_IN_STUDY if level >= Study => {
            Some((0x0008_0016, "FROM instance AS i JOIN series AS e ON e.id = i.series_id WHERE e.study_id = study.id"))
        }
        _ => None,
    };
    if let Some((tag, from)) = below {
        let mut exists = condition(attribute(tag)?, wanted)?;
        exists.sql = format!("EXISTS (SELECT 1 {from} AND {})", exists.sql);
        return Some(exists);
    }
    let attribute = attribute(tag).filter(|attribute| attribute.level <= level)?;
    condition(attribute, wanted)
}

/// All of the conditions as one, with their values.
fn all(conditions: impl Iterator<Item = Condition>) -> (String, Vec<Value>) {
    let (mut sql, mut values) = ("1".to_owned(), Vec::new());
    for condition in conditions {
        sql.push_str(" AND ");
        sql.push_str(&condition.sql);
        values.extend(condition.values);
    }
    (sql, values)
}

fn number(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Instances of a selection.
pub(crate) fn select(
    connection: &Connection,
    selection: &Selection,
    limit: usize,
) -> rusqlite::Result<Vec<HeldInstance>> {
    let mut conditions = Vec::new();
    if let Some(patient_id) = &selection.patient_id {
        let values = vec![Value::Text(patient_id.clone())];
        conditions.push(Condition { sql: "patient.a00100020 = ?".to_owned(), values });
    }
    let lists = [
        ("study.a0020000d", &selection.study_uids),
        ("series.a0020000e", &selection.series_uids),
        ("instance.a00080018", &selection.sop_instance_uids),
    ];
    for (column, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        conditions.push(uids(column, list.iter().map(Uid::as_str)));
    }
    let (condition, mut values) = all(conditions.into_iter());
    values.push(number(limit));
    let sql = format!(
        "SELECT study.a0020000d, series.a0020000e, instance.a00080018, instance.a00080016, instance.a00083002, \
         instance.file_bytes FROM {} WHERE {condition} ORDER BY instance.arrived, instance.id LIMIT ?",
        joined(Instance)
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let uid = |index: usize| -> rusqlite::Result<Uid> {
            let text: String = row.get(index)?;
            Uid::new(&text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
            })
        };
        Ok(HeldInstance {
            study_uid: uid(0)?,
            series_uid: uid(1)?,
            sop_instance_uid: uid(2)?,
            sop_class_uid: uid(3)?,
            transfer_syntax_uid: uid(4)?,
            file_bytes: row.get::<_, i64>(5)?.unsigned_abs(),
        })
    })?;
    rows.collect()
}
