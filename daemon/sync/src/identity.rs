//! The study and series of a parcel, for archives that are asked by query.
//!
//! In: a parcel's file. Out: the identifier of a C-FIND at instance level. Promise: the file is read up to its series and no
//! further than [`HEAD_BYTES_MAX`].
//! Standard: PS3.4 section C.4.1.1.3.1 (the keys above the level are needed), section C.6.2.1.

use fovea_core::{Outbox, TagNumber, Uid};
use fovea_dimse::DataSet;
use std::io::Read;

/// Study and series stand behind the few KiB that say what an object is; a report has its sequences behind them, too.
const HEAD_BYTES_MAX: u64 = 1 << 20;
const LEVEL: TagNumber = 0x0008_0052;
const SOP_INSTANCE: TagNumber = 0x0008_0018;
const STUDY: TagNumber = 0x0020_000D;
const SERIES: TagNumber = 0x0020_000E;
/// Behind the series.
const BEHIND: dicom_core::Tag = dicom_core::Tag(0x0020, 0x000F);

/// What to ask an archive for an instance with; none when its file cannot be read. Blocks on disk.
pub(crate) fn query_identifier(outbox: &dyn Outbox, seq: u64, sop_instance_uid: &Uid) -> Option<DataSet> {
    let head = outbox.open_parcel(seq).ok()?.take(HEAD_BYTES_MAX);
    let object = dicom_object::OpenFileOptions::new().read_until(BEHIND).from_reader(head).ok()?;
    let uid = |tag: TagNumber| {
        let tag = dicom_core::Tag((tag >> 16) as u16, (tag & 0xffff) as u16);
        Uid::new(&object.element(tag).ok()?.to_str().ok()?).ok()
    };
    let identifier = DataSet::default().with_text(LEVEL, "IMAGE").with_uid(SOP_INSTANCE, sop_instance_uid);
    Some(identifier.with_uid(STUDY, &uid(STUDY)?).with_uid(SERIES, &uid(SERIES)?))
}
