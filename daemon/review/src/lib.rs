//! The JSON API over the box's state, for `foveactl` now and the review pages later.
//!
//! In: requests on the control socket `<state>/control.sock` (HTTP/1.1). Out: JSON read from the ports.
//! Promise: `GET` only reads, from the index, never from the network or a picture; `POST` changes the set of models, or lets a parcel be sent once more, and nothing else;
//! every list and every body is bounded.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | one object: what is running and how it is |
//! | `GET /v1/findings?after=N&limit=M&wait_ms=W` | findings recorded after place N, oldest first; waits up to W ms for the first |
//! | `GET /v1/findings/{id}` | one finding by its id or by SOP Instance UID, with what was sent and held back for it |
//! | `GET /v1/worklist?limit=M` | open findings in the order of need, each with the reason in words |
//! | `GET /v1/scheduled` | the modality worklist: what is planned, and how old that is |
//! | `GET /v1/outbox?after=N&limit=M` | parcels after place N, oldest first |
//! | `POST /v1/outbox/{seq}/retry?destination=D`, `POST /v1/outbox/retry?destination=D` | what was set aside waits once more: one parcel, or all |
//! | `GET /v1/models` | every bundle: built-in or installed, and what it does |
//! | `POST /v1/models?activate=true` | installs the bundle in the body, a tar file, once it has proved itself |
//! | `POST /v1/models/{id}/activate?version=V` | lets that version serve |
//! | `POST /v1/models/{id}/rollback` | lets the version serve again that served before |
//!
//! What cannot be done answers `{ "error": why, "cure": what to do }`.

mod api;
mod dicomweb;
mod models;
mod outbox;
mod scheduled;
mod socket;
mod worklist;

pub use api::{Api, FindingDetail, FindingPage, OutboxPage, PAGE_LIMIT_MAX, PlacedFinding};
pub use dicomweb::{
    Incoming, IncomingObject, Later, RawWebConfig, Refused, Taken, Web, WebConfig, WebConfigError, WebServeError,
    serve_web,
};
pub use models::{
    BUNDLE_BYTES_MAX, Changed, Kept, ModelList, ModelRow, ModelStore, ModelsError, ModelsErrorKind, Origin, RowState,
};
pub use outbox::Retried;
pub use scheduled::{Scheduled, ScheduledOf};
pub use socket::{ServeError, serve};
pub use worklist::{Worklist, WorklistOf, WorklistRow};
