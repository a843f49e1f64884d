//! De-identifies one file by hand, for foreign validators.
//!
//! In: `deid_file IN.dcm OUT.dcm [KEYFILE]`. Out: OUT.dcm, or the reason why there is none and exit code 1.
//! The header facts that the daemon takes at intake are taken here with dicom-object.

use anyhow::Context;
use dicom_core::Tag;
use fovea_core::{ObjectHeader, Uid};
use fovea_deid::{Config, Deidentifier, Key, load_or_create_key};
use std::fs::{File, OpenOptions};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let source = arguments.next().context("usage: deid_file IN OUT [KEYFILE]")?;
    let target = arguments.next().context("usage: deid_file IN OUT [KEYFILE]")?;
    let key = match arguments.next() {
        Some(path) => load_or_create_key(Path::new(&path))?,
        None => Key::new([0; 32]),
    };
    let header = header(Path::new(&source))?;
    let mut out = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(target)?;
    let copy = Deidentifier::new(&Config::default(), key).copy(File::open(source)?, &header, &mut out)?;
    println!("{} {}", copy.sop_class_uid, copy.sop_instance_uid);
    Ok(())
}

fn header(path: &Path) -> anyhow::Result<ObjectHeader> {
    let object = dicom_object::OpenFileOptions::new().read_until(Tag(0x7FE0, 0x0010)).open_file(path)?;
    let text = |group, element| -> anyhow::Result<String> {
        Ok(object.element(Tag(group, element))?.to_str()?.trim_matches(['\0', ' ']).to_owned())
    };
    let uid = |group, element| -> anyhow::Result<Uid> { Ok(Uid::new(&text(group, element)?)?) };
    Ok(ObjectHeader {
        sop_class_uid: uid(0x0008, 0x0016)?,
        sop_instance_uid: uid(0x0008, 0x0018)?,
        study_uid: uid(0x0020, 0x000D)?,
        series_uid: uid(0x0020, 0x000E)?,
        transfer_syntax_uid: Uid::new(object.meta().transfer_syntax())?,
        modality: None,
        body_part: None,
        laterality: None,
        rows_px: None,
        columns_px: None,
        frames: 1,
        photometric: None,
        burned_in_annotation: text(0x0028, 0x0301).ok().map(|value| value == "YES"),
        // Not known here; the daemon hands it over so that two parsers can be compared.
        pixel_data_offset: None,
    })
}
