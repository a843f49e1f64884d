//! STOW-RS: objects come in.
//!
//! In: a multipart body of Part 10 files. Out: what became of each. Promise: an object that is told as stored is durable; one
//! that is refused does not keep the others from being stored.
//! Standard: PS3.18 section 10.5 and table 10.5.3-1 (status), annex I.2 (failure reasons).

use super::error::WebError;
use super::json::{attribute, key};
use super::multipart::{Multipart, boundary};
use super::{Place, Web};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dicom_core::VR;
use fovea_core::{ObjectHeader, Uid};
use serde_json::{Map, Value, json};
use std::pin::Pin;

/// Objects of one request.
const PARTS_MAX: usize = 10_000;
/// After how many seconds a sender may try again that found the box full.
const RETRY_AFTER_S: &str = "60";
/// Refused: out of resources.
const OUT_OF_RESOURCES: u16 = 0xA700;
/// Error: cannot understand.
const CANNOT_UNDERSTAND: u16 = 0xC000;

/// What an object's header said, once it is durable.
pub type Taken = ObjectHeader;

/// An object that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// (0008,1197): as a C-STORE would be answered.
    pub status: u16,
    /// For the log: nothing of a patient.
    pub why: String,
    /// Class and instance, where they were understood.
    pub object: Option<(Uid, Uid)>,
}

/// A future that a trait object gives.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes Part 10 files that come as streams. Sides: the daemon's intake, and a fake in tests.
pub trait Incoming: Send + Sync {
    /// Begins a file; with `study` it is refused where it is of another one.
    fn begin(&self, study: Option<Uid>) -> Box<dyn IncomingObject>;
}

/// A file on its way. Dropped before its end, nothing of it stays.
pub trait IncomingObject: Send {
    /// Takes the next bytes; a refusal is told at the end.
    fn push<'a>(&'a mut self, bytes: &'a [u8]) -> Later<'a, ()>;

    /// The last byte has come: durable when it answers `Ok`.
    fn finish(self: Box<Self>) -> Later<'static, Result<Taken, Refused>>;
}

/// Into any study.
pub(super) async fn store(State(web): State<Web>, headers: HeaderMap, body: Body) -> Result<Response, WebError> {
    take(&web, None, &headers, body).await
}

/// Into one study.
pub(super) async fn store_in(
    State(web): State<Web>,
    Path(place): Path<Place>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WebError> {
    take(&web, place.study, &headers, body).await
}

async fn take(web: &Web, study: Option<Uid>, headers: &HeaderMap, body: Body) -> Result<Response, WebError> {
    let boundary = boundary(headers, "application/dicom").ok_or(WebError::MediaType)?;
    let mut multipart = Multipart::new(body, &boundary);
    let mut results = Vec::new();
    loop {
        match multipart.part().await {
            Ok(None) => break,
            Ok(Some(_)) if results.len() >= PARTS_MAX => return Err(WebError::BadRequest("too many objects at once")),
            Ok(Some(kind)) => results.push(one(web, &study, &kind, &mut multipart).await),
            Err(error) => {
                results.push(Err(not_understood(error.to_string())));
                break;
            }
        }
    }
    if results.is_empty() {
        return Err(WebError::BadRequest("the body has no object"));
    }
    Ok(answer(&web.root(headers), study.as_ref(), &results))
}

async fn one(web: &Web, study: &Option<Uid>, kind: &str, multipart: &mut Multipart) -> Result<Taken, Refused> {
    // A part that does not say what it is, is what the body says.
    if !matches!(kind, "application/dicom" | "") {
        return Err(not_understood("a part is no application/dicom".to_owned()));
    }
    let mut object = web.incoming.begin(study.clone());
    loop {
        match multipart.piece().await {
            Ok(Some(piece)) => object.push(&piece).await,
            Ok(None) => return object.finish().await,
            // Not whole: dropped. The same error ends the request.
            Err(error) => return Err(not_understood(error.to_string())),
        }
    }
}

fn not_understood(why: String) -> Refused {
    Refused { status: CANNOT_UNDERSTAND, why, object: None }
}

fn answer(root: &str, study: Option<&Uid>, results: &[Result<Taken, Refused>]) -> Response {
    let (mut stored, mut failed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(taken) => stored.push(reference(&taken.sop_class_uid, &taken.sop_instance_uid, |item| {
                let instance = format!("/series/{}/instances/{}", taken.series_uid, taken.sop_instance_uid);
                let url = format!("{root}/studies/{}{instance}", taken.study_uid);
                item.insert(key(0x0008_1190), attribute(VR::UR, &url));
            })),
            Err(refused) => {
                log::warn!("an object over DICOMweb was refused ({:04X}): {}", refused.status, refused.why);
                let reason = json!({ "vr": "US", "Value": [refused.status] });
                match &refused.object {
                    Some((class, instance)) => {
                        failed.push(reference(class, instance, |item| drop(item.insert(key(0x0008_1197), reason))));
                    }
                    None => others.push(json!({ key(0x0008_1197): reason })),
                }
            }
        }
    }
    let is_full = results.iter().all(|result| matches!(result, Err(refused) if refused.status == OUT_OF_RESOURCES));
    let status = match (stored.is_empty(), failed.is_empty() && others.is_empty()) {
        (_, true) => StatusCode::OK,
        (false, false) => StatusCode::ACCEPTED,
        (true, false) if is_full => StatusCode::SERVICE_UNAVAILABLE,
        (true, false) => StatusCode::CONFLICT,
    };
    let mut body = Map::new();
    if let Some(study) = study {
        body.insert(key(0x0008_1190), attribute(VR::UR, &format!("{root}/studies/{study}")));
    }
    for (tag, items) in [(0x0008_1199, stored), (0x0008_1198, failed), (0x0008_119A, others)] {
        if !items.is_empty() {
            body.insert(key(tag), json!({ "vr": "SQ", "Value": items }));
        }
    }
    let body = Value::from(body).to_string();
    let mut answer = (status, [(header::CONTENT_TYPE, "application/dicom+json")], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_S));
    }
    answer
}

fn reference(class: &Uid, instance: &Uid, more: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut item = Map::new();
    item.insert(key(0x0008_1150), attribute(VR::UI, class.as_str()));
    item.insert(key(0x0008_1155), attribute(VR::UI, instance.as_str()));
    more(&mut item);
    Value::from(item)
}
