//! Routes and answers. All port calls block on disk, so each runs on the blocking pool.

use crate::models::{BUNDLE_BYTES_MAX, Changed, ModelList, ModelStore, ModelsError, ModelsErrorKind};
use crate::scheduled::{Scheduled, ScheduledOf};
use crate::worklist::{Worklist, WorklistOf};
use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fovea_core::{Finding, FindingId, Ledger, Outbox, ParcelState, PortError, Quarantined, Uid};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Most rows in one answer: a page of 1,000 findings is about 2 MB.
pub const PAGE_LIMIT_MAX: usize = 1_000;
/// Longest wait for a first finding; a client that wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the API reads. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Findings.
    pub ledger: Arc<dyn Ledger>,
    /// What leaves the box.
    pub outbox: Arc<dyn Outbox>,
    /// Makes the status object; may block on disk.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The open findings in the order of need.
    pub worklist: WorklistOf,
    /// What is planned.
    pub scheduled: ScheduledOf,
    /// The set of models.
    pub models: Arc<dyn ModelStore>,
    /// Changes after each recorded finding.
    pub recorded: watch::Receiver<u64>,
}

/// One finding with its place in the order of recording.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlacedFinding {
    /// Place, from 1.
    pub place: u64,
    /// The finding.
    pub finding: Finding,
}

/// Findings in the order of recording.
#[derive(Debug, Serialize, Deserialize)]
pub struct FindingPage {
    /// Rows.
    pub findings: Vec<PlacedFinding>,
}

/// Parcels in the order of dispatch.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutboxPage {
    /// Rows.
    pub parcels: Vec<ParcelState>,
}

/// All that the box knows of one object. As JSON: the finding's keys, and these.
#[derive(Debug, Serialize, Deserialize)]
pub struct FindingDetail {
    /// The finding; its keys stand at the top level.
    #[serde(flatten)]
    pub finding: Finding,
    /// The stored object, relative to the state folder.
    pub object_path: String,
    /// Parcels made for it, and where they went.
    pub sent: Vec<ParcelState>,
    /// Copies that were held back, with the reason.
    pub quarantined: Vec<Quarantined>,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no finding has the id or SOP Instance UID {what}")]
    NotFound { what: String },
    #[error("{what} is neither a finding id (f- and 32 hexadecimal digits) nor a UID")]
    NotAnId { what: String },
    #[error("the store could not answer")]
    Port {
        #[from]
        source: PortError,
    },
    #[error(transparent)]
    Models(#[from] ModelsError),
    #[error("the bundle has more than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the bundle did not arrive whole")]
    Cut,
    #[error("the daemon is stopping")]
    Stopping,
}

impl ApiError {
    fn cure(&self) -> Option<&str> {
        match self {
            Self::Models(error) => Some(&error.cure),
            Self::TooLarge => Some("give it the bundle's own folder or .fovea file, nothing around it"),
            Self::Cut => Some("try again"),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::NotAnId { .. } => StatusCode::BAD_REQUEST,
            Self::Port { source } => {
                log::error!("control request: {source}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Models(error) => match error.kind {
                ModelsErrorKind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
                ModelsErrorKind::NotFound => StatusCode::NOT_FOUND,
                ModelsErrorKind::Conflict => StatusCode::CONFLICT,
                ModelsErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Cut => StatusCode::BAD_REQUEST,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(serde_json::json!({ "error": self.to_string(), "cure": self.cure() }))).into_response()
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "page_limit_max")]
    limit: usize,
    #[serde(default)]
    wait_ms: u64,
}

fn page_limit_max() -> usize {
    PAGE_LIMIT_MAX
}

impl Page {
    fn limit(&self) -> usize {
        self.limit.clamp(1, PAGE_LIMIT_MAX)
    }
}

/// The routes over `api`.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/findings", get(findings))
        .route("/v1/findings/{id}", get(finding))
        .route("/v1/worklist", get(worklist))
        .route("/v1/scheduled", get(scheduled))
        .route("/v1/outbox", get(outbox))
        .route("/v1/models", get(models).post(install))
        .route("/v1/models/{id}/activate", post(activate))
        .route("/v1/models/{id}/rollback", post(rollback))
        .merge(crate::outbox::routes())
        .with_state(api)
}

async fn status(State(api): State<Api>) -> Result<Json<serde_json::Value>, ApiError> {
    Ok(Json(blocking(move || Ok((api.status)())).await?))
}

async fn findings(State(mut api): State<Api>, Query(page): Query<Page>) -> Result<Json<FindingPage>, ApiError> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(page.wait_ms).min(WAIT_MAX);
    loop {
        // Marked seen before the read: a finding recorded after the read wakes the wait below.
        api.recorded.mark_unchanged();
        let (ledger, after, limit) = (Arc::clone(&api.ledger), page.after, page.limit());
        let rows = blocking(move || ledger.findings_after(after, limit)).await?;
        let waited_enough = tokio::time::Instant::now() >= deadline;
        if !rows.is_empty() || waited_enough {
            let findings = rows.into_iter().map(|(place, finding)| PlacedFinding { place, finding }).collect();
            return Ok(Json(FindingPage { findings }));
        }
        // Either a finding, or the deadline: both lead back to one more read.
        match tokio::time::timeout_at(deadline, api.recorded.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return Err(ApiError::Stopping),
        }
    }
}

async fn finding(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<FindingDetail>, ApiError> {
    let wanted = Wanted::parse(&id)?;
    let detail = blocking(move || detail(&api, &wanted)).await?;
    detail.map(Json).ok_or(ApiError::NotFound { what: id })
}

async fn worklist(State(api): State<Api>, Query(page): Query<Page>) -> Result<Json<Worklist>, ApiError> {
    let limit = page.limit();
    Ok(Json(blocking(move || (api.worklist)(limit)).await?))
}

async fn scheduled(State(api): State<Api>) -> Result<Json<Scheduled>, ApiError> {
    Ok(Json(apart(move || (api.scheduled)()).await?))
}

async fn outbox(State(api): State<Api>, Query(page): Query<Page>) -> Result<Json<OutboxPage>, ApiError> {
    let limit = page.limit();
    let parcels = blocking(move || api.outbox.parcels_after(page.after, limit)).await?;
    Ok(Json(OutboxPage { parcels }))
}

async fn models(State(api): State<Api>) -> Result<Json<ModelList>, ApiError> {
    let models = apart(move || api.models.list()).await??;
    Ok(Json(ModelList { models }))
}

#[derive(Deserialize)]
struct Install {
    activate: bool,
}

/// The body is the bundle as a tar file.
async fn install(State(api): State<Api>, Query(wanted): Query<Install>, body: Body) -> Result<Json<Changed>, ApiError> {
    let store = Arc::clone(&api.models);
    let file = apart(move || store.incoming()).await??;
    let file = received(file, body).await?;
    Ok(Json(apart(move || api.models.install(file, wanted.activate)).await??))
}

/// Writes a body to `file`, piece by piece.
async fn received(mut file: File, mut body: Body) -> Result<File, ApiError> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| ApiError::Cut)?.into_data() else { continue };
        bytes += piece.len() as u64;
        if bytes > BUNDLE_BYTES_MAX {
            return Err(ApiError::TooLarge);
        }
        let written = apart(move || file.write_all(&piece).map(|()| file)).await?;
        file = written.map_err(|error| {
            let text = format!("the bundle cannot be written: {error}");
            ModelsError::new(ModelsErrorKind::Failed, text, "make room on the disk of the state folder")
        })?;
    }
    Ok(file)
}

#[derive(Deserialize)]
struct Activate {
    version: String,
}

async fn activate(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wanted): Query<Activate>,
) -> Result<Json<Changed>, ApiError> {
    Ok(Json(apart(move || api.models.activate(&id, &wanted.version)).await??))
}

async fn rollback(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Changed>, ApiError> {
    Ok(Json(apart(move || api.models.rollback(&id)).await??))
}

enum Wanted {
    Finding(FindingId),
    Object(Uid),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let id = FindingId::new(text).map(Self::Finding);
        // The text is echoed only where it has the form of an id: it came from outside.
        id.or_else(|_| Uid::new(text).map(Self::Object))
            .map_err(|_| ApiError::NotAnId { what: "the name given".to_owned() })
    }
}

fn detail(api: &Api, wanted: &Wanted) -> Result<Option<FindingDetail>, PortError> {
    let finding = match wanted {
        Wanted::Finding(id) => api.ledger.finding(id)?,
        Wanted::Object(uid) => api.ledger.finding_of(uid)?,
    };
    let Some(finding) = finding else { return Ok(None) };
    let (sent, quarantined) = api.outbox.sent_for(&finding.sop_instance_uid)?;
    let object_path = format!("objects/{}/{}.dcm", finding.study_uid, finding.sop_instance_uid);
    Ok(Some(FindingDetail { finding, object_path, sent, quarantined }))
}

pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(apart(read).await??)
}

/// Runs what blocks on the blocking pool.
async fn apart<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(call).await.map_err(|_| ApiError::Stopping)
}
