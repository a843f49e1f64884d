//! QIDO-RS: a search as a query of the port.
//!
//! Standard: PS3.18 sections 8.3.4 (query parameters) and 10.6.

use super::accept::Accept;
use super::error::{WebError, blocking};
use super::{Place, Web, json};
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fovea_core::{Query, QueryLevel, Uid};
use serde_json::Value;

/// Most rows in one answer, and as many as come when nobody says.
pub(super) const ROWS_MAX: usize = 1_000;
/// Most keys in one query.
const KEYS_MAX: usize = 100;

type Pairs = Parameters<Vec<(String, String)>>;

/// A search over everything.
pub(super) async fn search_all(
    level: QueryLevel,
    State(web): State<Web>,
    Parameters(pairs): Pairs,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    search(level, web, &Place::default(), pairs, &headers).await
}

/// A search below a study or series.
pub(super) async fn search_within(
    level: QueryLevel,
    State(web): State<Web>,
    Path(place): Path<Place>,
    Parameters(pairs): Pairs,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    search(level, web, &place, pairs, &headers).await
}

async fn search(
    level: QueryLevel,
    web: Web,
    place: &Place,
    pairs: Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<Response, WebError> {
    if !Accept::of(headers).takes_json() {
        return Err(WebError::NotAcceptable);
    }
    let Asked { mut query, is_fuzzy } = asked(level, place, pairs)?;
    let limit = query.limit;
    query.limit += 1; // tells whether there is more
    let (root, holdings) = (web.root(headers), web.holdings);
    let mut rows = blocking(move || holdings.find(&query)).await?;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let mut answer = if rows.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let rows: Vec<Value> = rows.iter().map(|row| json::row(row, level, &root)).collect();
        ([(header::CONTENT_TYPE, "application/dicom+json")], Value::from(rows).to_string()).into_response()
    };
    let warnings = [
        (
            is_fuzzy,
            "299 fovea \"The fuzzymatching parameter is not supported. Only literal matching has been performed.\"",
        ),
        (is_more, "299 fovea \"There are additional results that can be requested\""),
    ];
    for (_, warning) in warnings.into_iter().filter(|(applies, _)| *applies) {
        answer.headers_mut().append(header::WARNING, HeaderValue::from_static(warning));
    }
    Ok(answer)
}

#[derive(Debug, PartialEq)]
struct Asked {
    query: Query,
    is_fuzzy: bool,
}

fn asked(level: QueryLevel, place: &Place, pairs: Vec<(String, String)>) -> Result<Asked, WebError> {
    let uid = |uid: &Option<Uid>| uid.as_ref().map(ToString::to_string);
    let named = [(0x0020_000D, uid(&place.study)), (0x0020_000E, uid(&place.series))];
    let mut keys: Vec<(u32, String)> = named.into_iter().filter_map(|(tag, uid)| Some((tag, uid?))).collect();
    let (mut offset, mut limit, mut is_fuzzy) = (0, ROWS_MAX, false);
    let number = |text: &str| text.parse::<usize>().map_err(|_| WebError::BadRequest("limit and offset are numbers"));
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => limit = number(&value)?.min(ROWS_MAX),
            "offset" => offset = number(&value)?,
            "fuzzymatching" => is_fuzzy = value.eq_ignore_ascii_case("true"),
            // Every attribute that is indexed comes anyway, and others cannot.
            "includefield" => {}
            _ => {
                let tag = json::tag_of(&name).ok_or(WebError::BadRequest("a parameter that is no attribute"))?;
                // A list of UIDs comes by comma or backslash.
                let is_uid = json::vr_of(tag) == dicom_core::VR::UI;
                keys.push((tag, if is_uid { value.replace(',', "\\") } else { value }));
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(WebError::BadRequest("too many keys"));
        }
    }
    Ok(Asked { query: Query { level, keys, offset, limit }, is_fuzzy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_become_keys_and_bounds() {
        let place = Place { study: Uid::new("1.2").ok(), ..Place::default() };
        let given = [
            ("PatientName", "DOE*"),
            ("0020000E", "1.3,1.4"),
            ("limit", "5000"),
            ("offset", "7"),
            ("includefield", "all"),
            ("fuzzymatching", "true"),
        ];
        let asked = asked(QueryLevel::Series, &place, pairs(&given)).unwrap();
        let keys = [(0x0020_000D, "1.2"), (0x0010_0010, "DOE*"), (0x0020_000E, "1.3\\1.4")];
        let keys = keys.map(|(tag, text)| (tag, text.to_owned())).to_vec();
        assert_eq!(asked.query, Query { level: QueryLevel::Series, keys, offset: 7, limit: ROWS_MAX });
        assert!(asked.is_fuzzy);
    }

    #[test]
    fn inv_08_what_is_no_attribute_or_too_much_is_refused() {
        let many: Vec<(String, String)> = (0..=KEYS_MAX).map(|_| ("PatientID".to_owned(), "x".to_owned())).collect();
        for given in [pairs(&[("Name", "x")]), pairs(&[("limit", "-1")]), pairs(&[("offset", "x")]), many] {
            let answer = asked(QueryLevel::Study, &Place::default(), given);
            assert!(matches!(answer, Err(WebError::BadRequest(_))), "{answer:?}");
        }
    }
}
