//! The JSON API over the box's state, for `foveactl` now and the review pages later.
//!
//! In: requests on the control socket `<state>/control.sock` (HTTP/1.1). Out: JSON read from the ports.
//! Promise: it only reads; it answers from the index, never from the network or a picture; every list is bounded.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | one object: what is running and how it is |
//! | `GET /v1/findings?after=N&limit=M&wait_ms=W` | findings recorded after place N, oldest first; waits up to W ms for the first |
//! | `GET /v1/findings/{id}` | one finding by its id or by SOP Instance UID, with what was sent and held back for it |
//! | `GET /v1/outbox?after=N&limit=M` | parcels after place N, oldest first |

mod api;
mod socket;

pub use api::{Api, FindingDetail, FindingPage, OutboxPage, PAGE_LIMIT_MAX, PlacedFinding};
pub use socket::{ServeError, serve};
