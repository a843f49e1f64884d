//! The words that Fovea's stages share: identifiers, units, messages and ports.
//!
//! In: nothing. Out: types that every stage may name, so that no stage has to name another.
//! Promise: no I/O, no async, no clock; a value that exists is valid (ids are checked when they are made).
//!
//! The way of an image, and the message that stands at each arrow:
//!
//! ```text
//! receive --NewObject--> [Inbox] --Accepted--> worker --Analysis--> triage --Finding--> [Ledger]
//!                                decode --Frame--> preprocess (InputSpec) --tensor--> infer
//! [Ledger] --Finding--> report, deid --NewParcel--> [Outbox] --Parcel--> sync
//! ```

mod analysis;
mod chain;
mod documents;
mod finding;
mod frame;
mod geometry;
mod holdings;
mod ids;
mod input;
mod object;
mod ports;
mod schedule;
mod uid;

pub use analysis::{Analysis, Scores, StageTimes, Verdict};
pub use chain::chain;
pub use documents::{DOCUMENT_BYTES_MAX, DOCUMENT_KEY_BYTES_MAX, Document, DocumentKind, Documents};
pub use finding::{
    Band, ClassScore, Code, Finding, FindingStatus, Measurement, ModelRef, Outcome, Priority, ReaderGrade, Reason,
    Region, TileMap, Timing,
};
pub use frame::{Frame, FrameError, Pixels};
pub use geometry::{FrameGeometry, PixelBox, PixelSize};
pub use holdings::{HeldInstance, Holdings, Query, QueryLevel, Row, Selection, TagNumber};
pub use ids::{AeTitle, FindingId, IdError, Sha256, UnixMicros};
pub use input::{Channels, InputSpec, Measure, Quality, QualityLimits, Roi, RoiMethod};
pub use object::{Accepted, Laterality, NewObject, ObjectHeader, Sender};
pub use ports::{
    Acceptance, Custody, Gone, Inbox, Lane, Ledger, NewParcel, Outbox, Parcel, ParcelState, PortError, Proof,
    Quarantined, RULED_OUT, Recorded, TempObject, What,
};
pub use schedule::{Schedule, ScheduledItem};
pub use uid::{Uid, UidError, sop_class};
