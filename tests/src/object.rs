//! Reads and rewrites DICOM objects, for looking into what the box made and for sending it again.
//!
//! In: Part 10 files. Out: values by tag, changed copies. Promise: pixel data and transfer syntax stay as they are.

use anyhow::Context as _;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject};
use std::path::Path;

/// Opens a Part 10 file.
///
/// # Errors
/// When it is none.
pub fn open(path: &Path) -> anyhow::Result<DefaultDicomObject> {
    dicom_object::open_file(path).with_context(|| format!("read {}", path.display()))
}

/// Reads a Part 10 file that is in memory.
///
/// # Errors
/// When it is none.
pub fn parse(bytes: &[u8]) -> anyhow::Result<DefaultDicomObject> {
    dicom_object::from_reader(bytes).context("read a Part 10 file")
}

/// The text of an element at the top level, none where it is absent.
#[must_use]
pub fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = object.get(tag)?.to_str().ok()?;
    Some(value.trim_end_matches(['\0', ' ']).to_owned())
}

/// Writes a copy of `from` under another SOP Instance UID.
///
/// # Errors
/// When `from` is no Part 10 file or `to` cannot be written.
pub fn copy_as(from: &Path, to: &Path, sop_instance_uid: &str) -> anyhow::Result<()> {
    let object = open(from)?;
    let transfer_syntax = object.meta().transfer_syntax().trim_end_matches('\0').to_owned();
    let mut inner = object.into_inner();
    put(&mut inner, tags::SOP_INSTANCE_UID, VR::UI, sop_instance_uid);
    write(inner, &transfer_syntax, to)
}

/// Sets one element at the top level.
pub fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

/// Writes a data set as a Part 10 file; class and instance are taken from it.
///
/// # Errors
/// When the file cannot be written.
pub fn write(object: InMemDicomObject, transfer_syntax_uid: &str, to: &Path) -> anyhow::Result<()> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax_uid);
    let object = object.with_meta(meta).context("make the file meta information")?;
    object.write_to_file(to).with_context(|| format!("write {}", to.display()))
}

/// The pixel data as they are: one buffer for native data, else the fragments without the offset table.
///
/// # Errors
/// When the object has no pixel data.
pub fn pixel_data(object: &InMemDicomObject) -> anyhow::Result<Vec<Vec<u8>>> {
    let value = object.get(tags::PIXEL_DATA).context("no pixel data")?.value();
    match value.fragments() {
        Some(fragments) => Ok(fragments.to_vec()),
        None => Ok(vec![value.to_bytes().context("pixel data as bytes")?.into_owned()]),
    }
}
