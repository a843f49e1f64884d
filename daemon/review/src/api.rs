//! Routes and answers. All port calls block on disk, so each runs on the blocking pool.

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fovea_core::{Finding, FindingId, Ledger, Outbox, ParcelState, PortError, Quarantined, Uid};
use serde::{Deserialize, Serialize};
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
enum ApiError {
    #[error("no finding has the id or SOP Instance UID {what}")]
    NotFound { what: String },
    #[error("{what} is neither a finding id (f- and 32 hexadecimal digits) nor a UID")]
    NotAnId { what: String },
    #[error("the store could not answer")]
    Port {
        #[from]
        source: PortError,
    },
    #[error("the daemon is stopping")]
    Stopping,
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
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response()
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
        .route("/v1/outbox", get(outbox))
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

async fn outbox(State(api): State<Api>, Query(page): Query<Page>) -> Result<Json<OutboxPage>, ApiError> {
    let limit = page.limit();
    let parcels = blocking(move || api.outbox.parcels_after(page.after, limit)).await?;
    Ok(Json(OutboxPage { parcels }))
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

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::Stopping),
    }
}
