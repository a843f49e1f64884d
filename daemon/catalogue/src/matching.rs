//! Keys of a query as conditions on the index.
//!
//! In: an attribute and the value asked for. Out: SQL with bound values, and the functions it calls.
//! Promise: no text from outside becomes SQL; a key that an index can answer is answered by it.
//! Standard: PS3.4 section C.2.2.2: single value, list of UID, universal, wildcard and range matching; person names without
//! regard to case (the choice that C.2.2.2.1 leaves).

use crate::attributes::{Attribute, Kind, PATIENT_NAME};
use crate::text::folded_groups;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;

/// UIDs in one list.
pub(crate) const UIDS_MAX: usize = 10_000;

/// A part of a WHERE clause. Its `?` stand for `values`, in order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Condition {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Condition {
    fn new(sql: impl Into<String>, values: impl IntoIterator<Item = String>) -> Self {
        Self { sql: sql.into(), values: values.into_iter().map(Value::Text).collect() }
    }

    /// Nothing matches.
    fn never() -> Self {
        Self::new("0", [])
    }
}

/// What `wanted` asks of an attribute; none when everything matches.
pub(crate) fn condition(attribute: Attribute, wanted: &str) -> Option<Condition> {
    let wanted = wanted.trim_matches([' ', '\0']);
    // Nothing but asterisks matches also what has no value (C.2.2.2.4).
    if wanted.chars().all(|c| c == '*') {
        return None;
    }
    let column = attribute.column();
    Some(match attribute.kind {
        Kind::Uid => uids(&column, wanted.split('\\')),
        Kind::Date | Kind::Time => range(&column, wanted, attribute.kind),
        Kind::Number | Kind::Short => match wanted.parse::<i64>() {
            Ok(number) => Condition {
                sql: format!("({column} <> '' AND CAST({column} AS INTEGER) = ?)"),
                values: vec![Value::Integer(number)],
            },
            Err(_) => Condition::never(),
        },
        Kind::Name if attribute.tag == PATIENT_NAME => patient_name(wanted),
        Kind::Name => Condition::new(format!("name_matches({column}, ?)"), [wanted.to_owned()]),
        Kind::Text => text(&column, wanted),
    })
}

/// Equal to one of a list.
pub(crate) fn uids<'a>(column: &str, wanted: impl Iterator<Item = &'a str>) -> Condition {
    // As one variable, of which a statement may have some ten thousand; what is no UID matches nothing.
    let is_uid = |uid: &&str| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let list: Vec<&str> = wanted.map(|uid| uid.trim_matches([' ', '\0'])).filter(is_uid).take(UIDS_MAX).collect();
    let list = if list.is_empty() { "[]".to_owned() } else { format!("[\"{}\"]", list.join("\",\"")) };
    Condition::new(format!("{column} IN (SELECT value FROM json_each(?))"), [list])
}

/// One value or two bounds, both included; an end of lower precision includes all of it.
fn range(column: &str, wanted: &str, kind: Kind) -> Condition {
    let clean = |text: &str| text.trim().replace(if kind == Kind::Date { '.' } else { ':' }, "");
    let is_moment = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.len() <= 16;
    let (from, to) = match wanted.split_once('-') {
        Some((from, to)) => (clean(from), clean(to)),
        None => (clean(wanted), clean(wanted)),
    };
    if !is_moment(&from) || !is_moment(&to) || from.is_empty() && to.is_empty() {
        return Condition::never();
    }
    // Digits sort before the tilde: everything that begins with the bound lies below it.
    let to = if to.is_empty() { "~".to_owned() } else { to + "~" };
    let from = if from.is_empty() { "!".to_owned() } else { from };
    Condition::new(format!("({column} >= ? AND {column} <= ?)"), [from, to])
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// What every match begins with, and what comes after all of them; none where a match may begin with anything.
fn prefix(pattern: &str) -> Option<[String; 2]> {
    let prefix = pattern.split(['*', '?']).next().unwrap_or_default();
    (!prefix.is_empty()).then(|| [prefix.to_owned(), format!("{prefix}\u{10FFFF}")])
}

fn text(column: &str, wanted: &str) -> Condition {
    if has_wildcard(wanted) {
        return Condition::new(format!("text_matches({column}, ?)"), [wanted.to_owned()]);
    }
    // Of several values one may match; the column as a whole is asked first, for the index.
    Condition::new(
        format!("({column} = ? OR (instr({column}, '\\') > 0 AND text_matches({column}, ?)))"),
        [wanted.to_owned(), wanted.to_owned()],
    )
}

/// The patient's name: its three component groups have indexed columns of their own.
fn patient_name(wanted: &str) -> Condition {
    let groups = folded_groups(wanted);
    let mut values = Vec::new();
    let mut of_group = |number: usize, pattern: &str| {
        let column = format!("name{number}");
        match (has_wildcard(pattern), prefix(pattern)) {
            (false, _) => {
                values.push(pattern.to_owned());
                format!("{column} = ?")
            }
            (true, Some([from, to])) => {
                values.extend([from, to, pattern.to_owned()]);
                format!("({column} >= ? AND {column} < ? AND wild_matches({column}, ?))")
            }
            (true, None) => {
                values.push(pattern.to_owned());
                format!("({column} <> '' AND wild_matches({column}, ?))")
            }
        }
    };
    let sql = if wanted.contains('=') {
        let asked = (1..).zip(&groups).filter(|(_, group)| !group.chars().all(|c| c == '*'));
        asked.map(|(number, group)| of_group(number, group)).collect::<Vec<_>>().join(" AND ")
    } else {
        (1..=3).map(|number| of_group(number, &groups[0])).collect::<Vec<_>>().join(" OR ")
    };
    Condition::new(if sql.is_empty() { "1".to_owned() } else { format!("({sql})") }, values)
}

/// Makes the functions known to a connection.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    type Matcher = fn(&str, &str) -> bool;
    let functions: [(&str, Matcher); 3] = [
        ("wild_matches", wild_matches),
        ("text_matches", |value, pattern| value.split('\\').any(|value| wild_matches(value, pattern))),
        ("name_matches", |value, pattern| value.split('\\').any(|value| name_matches(value, pattern))),
    ];
    for (name, matcher) in functions {
        connection.create_scalar_function(name, 2, flags, move |context| {
            let (value, pattern) = (context.get_raw(0).as_str(), context.get_raw(1).as_str());
            Ok(matches!((value, pattern), (Ok(value), Ok(pattern)) if matcher(value, pattern)))
        })?;
    }
    Ok(())
}

fn name_matches(value: &str, pattern: &str) -> bool {
    let (value, groups) = (folded_groups(value), folded_groups(pattern));
    if pattern.contains('=') {
        return value.iter().zip(&groups).all(|(value, pattern)| wild_matches(value, pattern));
    }
    value.iter().any(|value| !value.is_empty() && wild_matches(value, &groups[0]))
}

/// `*` stands for any characters, `?` for one (C.2.2.2.4). Time grows with the product of the lengths, memory not at all.
fn wild_matches(value: &str, pattern: &str) -> bool {
    let (mut value, mut pattern) = (value.chars(), pattern.chars());
    // Where to go on when what followed the last asterisk did not match.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let rest = value.clone();
        match (value.next(), pattern.next()) {
            (None, None) => return true,
            (_, Some('*')) => {
                retry = Some((rest.clone(), pattern.clone()));
                value = rest;
            }
            (Some(_), Some('?')) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, Some(_)) => return false,
            _ => {
                let Some((from, after)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                (value, pattern) = (from.clone(), after.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_any_or_for_one() {
        for (value, pattern, expected) in [
            ("DOE^JANE", "DOE*", true),
            ("DOE^JANE", "*JANE", true),
            ("DOE^JANE", "D?E^*E", true),
            ("DOE^JANE", "D?^*", false),
            ("DOE", "DOE", true),
            ("DOE", "DO", false),
            ("DO", "DOE", false),
            ("", "*", true),
            ("", "?", false),
            ("aXbXc", "a*X*c", true),
            ("abab", "*ab", true),
            ("aab", "*ab*b", false),
            ("山田^太郎", "山?^*", true),
            ("a[b", "a[*", true),
        ] {
            assert_eq!(wild_matches(value, pattern), expected, "{value} {pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let (value, pattern) = ("a".repeat(4096), "*a".repeat(512) + "b");
        let started = std::time::Instant::now();
        assert!(!wild_matches(&value, &pattern));
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn names_match_by_any_group_or_by_all_that_are_asked_for() {
        let value = "Yamada^Tarou=山田^太郎=やまだ^たろう";
        assert!(name_matches(value, "YAMADA*") && name_matches(value, "山田*") && name_matches(value, "yamada^tarou^"));
        assert!(name_matches(value, "*=山田*=*") && !name_matches(value, "*=川*=*") && !name_matches(value, "YAMADA"));
    }
}
