//! WADO-RS: objects, their data sets, their long values.
//!
//! Standard: PS3.18 sections 8.6 (multipart), 8.7 (media types) and 10.4.

use super::accept::Accept;
use super::dataset;
use super::error::{WebError, blocking};
use super::stream::{Ended, Pieces, body};
use super::{Place, Web};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fovea_core::{HeldInstance, Selection, Uid, chain};
use std::fs::File;
use std::io::{Seek, SeekFrom};

/// Most instances in one answer.
const INSTANCES_MAX: usize = 10_000;
const DICOM: &str = "application/dicom";

/// The instances that a path names.
pub(super) async fn held(web: &Web, place: &Place) -> Result<Vec<HeldInstance>, WebError> {
    let list = |uid: &Option<Uid>| uid.iter().cloned().collect::<Vec<_>>();
    let selection = Selection {
        patient_id: None,
        study_uids: list(&place.study),
        series_uids: list(&place.series),
        sop_instance_uids: list(&place.instance),
    };
    let holdings = web.holdings.clone();
    let held = blocking(move || holdings.select(&selection, INSTANCES_MAX + 1)).await?;
    match held.len() {
        0 => Err(WebError::NotFound),
        1..=INSTANCES_MAX => Ok(held),
        _ => Err(WebError::BadRequest("more instances than one answer has; ask series by series")),
    }
}

pub(super) async fn open(web: &Web, uid: &Uid) -> Result<File, WebError> {
    let (holdings, uid) = (web.holdings.clone(), uid.clone());
    blocking(move || holdings.open(&uid)).await
}

/// Objects as they are stored.
pub(super) async fn objects(
    State(web): State<Web>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let held = held(&web, &place).await?;
    let accept = Accept::of(&headers);
    if let [one] = held.as_slice()
        && accept.takes_single(DICOM, one.transfer_syntax_uid.as_str())
    {
        let (file, length) = (open(&web, &one.sop_instance_uid).await?, one.file_bytes);
        let sent = body(move |pieces| async move { pieces.send_file(file, length).await });
        return Ok(([(header::CONTENT_TYPE, DICOM)], sent).into_response());
    }
    if !held.iter().all(|instance| accept.takes_parts(DICOM, instance.transfer_syntax_uid.as_str())) {
        return Err(WebError::NotAcceptable);
    }
    let boundary = boundary(&held[0].sop_instance_uid);
    let content_type = format!("multipart/related; type=\"{DICOM}\"; boundary={boundary}");
    let sent = body(move |pieces| async move {
        for instance in held {
            let Ok(file) = open(&web, &instance.sop_instance_uid).await else {
                return Err(pieces.fail("an instance went while it was sent").await);
            };
            let kind = format!("{DICOM}; transfer-syntax={}", instance.transfer_syntax_uid);
            part(&pieces, &boundary, &kind, file, instance.file_bytes).await?;
        }
        end(&pieces, &boundary).await
    });
    Ok(([(header::CONTENT_TYPE, content_type)], sent).into_response())
}

/// A text that no file holds but by intent: and a file that does breaks only its own answer.
pub(super) fn boundary(uid: &Uid) -> String {
    format!("fovea-{}", fovea_core::Sha256::of(format!("boundary {uid}").as_bytes())).chars().take(60).collect()
}

/// One part: `length` bytes of `file` from where it stands.
pub(super) async fn part(pieces: &Pieces, boundary: &str, kind: &str, file: File, length: u64) -> Result<(), Ended> {
    part_head(pieces, boundary, kind, length).await?;
    pieces.send_file(file, length).await?;
    pieces.send("\r\n").await
}

pub(super) async fn part_head(pieces: &Pieces, boundary: &str, kind: &str, length: u64) -> Result<(), Ended> {
    pieces.send(format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")).await
}

pub(super) async fn end(pieces: &Pieces, boundary: &str) -> Result<(), Ended> {
    pieces.send(format!("--{boundary}--\r\n")).await
}

/// Data sets as JSON, one after the other.
pub(super) async fn metadata(
    State(web): State<Web>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    if !Accept::of(&headers).takes_json() {
        return Err(WebError::NotAcceptable);
    }
    let (held, root) = (held(&web, &place).await?, web.root(&headers));
    let sent: Body = body(move |pieces| async move {
        let mut before = "[";
        for instance in held {
            let Ok(text) = data_set(&web, &instance, &root).await else {
                return Err(pieces.fail("a stored data set could not be told").await);
            };
            pieces.send(before).await?;
            pieces.send(text).await?;
            before = ",";
        }
        pieces.send("]").await
    });
    Ok(([(header::CONTENT_TYPE, "application/dicom+json")], sent).into_response())
}

async fn data_set(web: &Web, instance: &HeldInstance, root: &str) -> Result<String, WebError> {
    let place = Place {
        study: Some(instance.study_uid.clone()),
        series: Some(instance.series_uid.clone()),
        instance: Some(instance.sop_instance_uid.clone()),
        ..Place::default()
    };
    let url = place.url(root);
    let file = open(web, &instance.sop_instance_uid).await?;
    let _place = web.data_sets.acquire().await.map_err(|_| WebError::Stopping)?;
    let read = tokio::task::spawn_blocking(move || {
        let read = dataset::read(file, &url);
        read.map(|data_set| serde_json::Value::from(data_set.json).to_string())
    });
    read.await.map_err(|_| WebError::Stopping)?.map_err(|error| unreadable(&instance.sop_instance_uid, &error))
}

pub(super) fn unreadable(uid: &Uid, error: &dataset::DataSetError) -> WebError {
    log::error!("{uid} for DICOMweb: {}", chain(error));
    WebError::Unreadable
}

/// One long value, told by where it lies in the stored file: any bytes of an object that the asker may fetch whole.
pub(super) async fn bulk(
    State(web): State<Web>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let bad = || WebError::BadRequest("bulk data is named FROM-LENGTH");
    let (from, length) = place.range.as_deref().and_then(|range| range.split_once('-')).ok_or_else(bad)?;
    let (from, length): (u64, u64) = (from.parse().map_err(|_| bad())?, length.parse().map_err(|_| bad())?);
    let held = held(&web, &place).await?;
    if from.checked_add(length).is_none_or(|end| end > held[0].file_bytes) {
        return Err(WebError::NotFound);
    }
    let mut file = open(&web, &held[0].sop_instance_uid).await?;
    // Moves a number in the kernel, and no disk.
    file.seek(SeekFrom::Start(from)).map_err(|_| WebError::Unreadable)?;
    let (accept, kind) = (Accept::of(&headers), "application/octet-stream");
    if accept.takes_single(kind, "*") {
        let sent = body(move |pieces| async move { pieces.send_file(file, length).await });
        return Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], sent).into_response());
    }
    if !accept.takes_parts(kind, "*") {
        return Err(WebError::NotAcceptable);
    }
    let boundary = boundary(&held[0].sop_instance_uid);
    let content_type = format!("multipart/related; type=\"{kind}\"; boundary={boundary}");
    let sent = body(move |pieces| async move {
        part(&pieces, &boundary, kind, file, length).await?;
        end(&pieces, &boundary).await
    });
    Ok(([(header::CONTENT_TYPE, content_type)], sent).into_response())
}
