//! Associations and the capture folder become durable objects.
//!
//! In: DICOM associations on a listener; JPEG and PNG files in a folder. Out: objects accepted by the [`Inbox`], each
//! rung at the doorbell; promises kept and told (storage commitment), steps of modalities, answers to viewers.
//! Promise: a sender hears success only after the inbox said that the object is durable (invariant 1). Everything
//! from outside has a bound (invariant 8): associations, connections, silence, PDU, command, object, header. The
//! header of every object that is accepted can be parsed by dicom-object up to its Pixel Data without a length that
//! lies, deep nesting or more memory than a small multiple of the bounds in [`HeaderLimits`].
//!
//! [`Inbox`]: fovea_core::Inbox

mod capture;
mod classes;
mod config;
mod counters;
mod file;
mod header;
mod inflate;
mod object;
mod peers;
mod places;
mod serve;
mod services;
mod session;
mod web;

pub use capture::{
    CaptureError, PictureClass, PictureDecoder, PictureError, RawPicture, WrapError, picture_object, watch,
    watch_scheduled,
};
pub use classes::{
    ClassEntry, Conformance, Encoding, ServiceEntry, ServiceStatus, SyntaxEntry, conformance, encoding_of,
};
pub use config::{Admitted, Config, ConfigError, RawConfig, RawTls, Secured};
pub use counters::{Counters, Counts};
pub use file::{ObjectFileError, object_file_header};
pub use header::{HeaderError, HeaderLimits, HeaderWalker, Walked};
pub use peers::{Peer, RawPeer, ReplyTo, User};
pub use serve::{Doors, ReceiveError, serve};
pub use services::studies::{StudyState, WholeBy};
pub use services::{Ports, Service, Services};
pub use web::{Part10Intake, Part10Object, Part10Refused};
