//! DICOMweb: what the box holds for web viewers, and a way in for web senders.
//!
//! In: HTTP requests on a listener of their own, off unless configured. Out: rows and objects from the port
//! [`Holdings`](fovea_core::Holdings); objects to an [`Incoming`]. Promise: nothing is acknowledged before it is durable; memory is
//! bounded by the pieces that are on their way, not by objects; anything but loopback needs TLS and credentials; answers hold
//! patient identity, logs do not.
//! Standard: PS3.18 sections 10.4 (WADO-RS), 10.5 (STOW-RS), 10.6 (QIDO-RS), annex F (JSON).
//!
//! | request, below `/dicomweb` | answer |
//! | --- | --- |
//! | `GET /studies`, `/series`, `/instances`, and below a study or series | matches as JSON; `limit`, `offset`, keys by keyword or tag |
//! | `GET /studies/S`, `/studies/S/series/E`, `…/instances/I` | objects as they are stored, multipart |
//! | `GET …/metadata` | their data sets as JSON, long values by `BulkDataURI` |
//! | `GET …/instances/I/frames/1,2` | frames as they are stored |
//! | `GET …/instances/I/bulkdata/FROM-LENGTH` | one long value |
//! | `POST /studies`, `/studies/S` | what became of each object of a multipart body |

mod accept;
mod access;
mod config;
mod dataset;
mod door;
mod error;
mod frames;
mod json;
mod multipart;
mod query;
mod retrieve;
mod store;
mod stream;

pub use config::{RawWebConfig, WebConfig, WebConfigError};
pub use door::{WebServeError, serve_web};
pub use store::{Incoming, IncomingObject, Later, Refused, Taken};

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::get;
use fovea_core::{Holdings, QueryLevel, Uid};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Data sets turned into JSON at once: each may take some tens of MiB (a slide's).
const DATA_SETS_AT_ONCE: usize = 4;

/// What DICOMweb reads from and stores to. Cheap to clone.
#[derive(Clone)]
pub struct Web {
    holdings: Arc<dyn Holdings>,
    incoming: Arc<dyn Incoming>,
    data_sets: Arc<Semaphore>,
    is_secure: bool,
}

impl Web {
    /// DICOMweb over these.
    #[must_use]
    pub fn new(holdings: Arc<dyn Holdings>, incoming: Arc<dyn Incoming>) -> Self {
        Self { holdings, incoming, data_sets: Arc::new(Semaphore::new(DATA_SETS_AT_ONCE)), is_secure: false }
    }

    /// The service's own address as the client wrote it; without its scheme and host where it wrote none that can be repeated.
    fn root(&self, headers: &HeaderMap) -> String {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(is_plain) {
            return ROOT.to_owned();
        }
        format!("{}://{host}{ROOT}", if self.is_secure { "https" } else { "http" })
    }
}

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
struct Place {
    study: Option<Uid>,
    series: Option<Uid>,
    instance: Option<Uid>,
    frames: Option<String>,
    range: Option<String>,
}

/// Longest `Host` that is repeated in an answer.
const HOST_BYTES_MAX: usize = 300;
/// Root of the service.
const ROOT: &str = "/dicomweb";

impl Place {
    /// The address of the study, series or instance below `root`.
    fn url(&self, root: &str) -> String {
        let parts = [("studies", &self.study), ("series", &self.series), ("instances", &self.instance)];
        let named = parts.into_iter().filter_map(|(kind, uid)| Some(format!("/{kind}/{}", uid.as_ref()?)));
        named.fold(root.to_owned(), |url, part| url + &part)
    }
}

/// The routes.
fn router(web: Web) -> Router {
    use QueryLevel::{Instance, Series, Study};
    let all = |level| get(move |state, query, headers| query::search_all(level, state, query, headers));
    let within =
        |level| get(move |state, place, query, headers| query::search_within(level, state, place, query, headers));
    let routes = Router::new()
        .route("/studies", all(Study).post(store::store))
        .route("/series", all(Series))
        .route("/instances", all(Instance))
        .route("/studies/{study}/series", within(Series))
        .route("/studies/{study}/instances", within(Instance))
        .route("/studies/{study}/series/{series}/instances", within(Instance))
        .route("/studies/{study}", get(retrieve::objects).post(store::store_in))
        .route("/studies/{study}/series/{series}", get(retrieve::objects))
        .route("/studies/{study}/series/{series}/instances/{instance}", get(retrieve::objects))
        .route("/studies/{study}/metadata", get(retrieve::metadata))
        .route("/studies/{study}/series/{series}/metadata", get(retrieve::metadata))
        .route("/studies/{study}/series/{series}/instances/{instance}/metadata", get(retrieve::metadata))
        .route("/studies/{study}/series/{series}/instances/{instance}/frames", get(frames::frames))
        .route("/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", get(frames::frames))
        .route("/studies/{study}/series/{series}/instances/{instance}/bulkdata/{range}", get(retrieve::bulk))
        .with_state(web);
    Router::new().nest(ROOT, routes)
}
