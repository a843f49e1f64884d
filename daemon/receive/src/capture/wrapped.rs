//! A picture file as a Part 10 file, without an inbox: for tools that show the analysis what a capture folder would.
//!
//! In: a JPEG or PNG, and as what it is to be presented. Out: the object that the capture folder would have made of it.
//! Promise: the same code makes both; pixels that are not baseline JPEG are decoded by the [`PictureDecoder`].

use super::photograph::{Picture, PictureClass, PixelForm, before_pixels, behind_pixels, instance_uid};
use super::{PictureDecoder, PictureFate, Source, pixels_of, whole};
use crate::capture::sidecar::Sidecar;
use fovea_core::{Sha256, Uid};
use fovea_dimse::{part10_prefix, transfer_syntax};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::SystemTime;

/// Why a picture is no object.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WrapError(#[from] PictureFate);

/// Writes the object of `picture`, which must be at its start, into `out`. Blocks, for as long as the decoder may.
///
/// # Errors
/// [`WrapError`] when it is neither JPEG nor PNG, or cannot be read, decoded or written.
pub fn picture_object(
    picture: &mut File,
    class: &PictureClass,
    decoder: &dyn PictureDecoder,
    out: &mut File,
) -> Result<(), WrapError> {
    Ok(write(picture, class, decoder, out)?)
}

fn write(
    file: &mut File,
    class: &PictureClass,
    decoder: &dyn PictureDecoder,
    out: &mut File,
) -> Result<(), PictureFate> {
    let failed = |source| PictureFate::Write { source };
    file.rewind().map_err(|source| PictureFate::Read { source })?;
    let bytes = whole(file)?;
    let file_sha256 = Sha256::of(&bytes);
    let (width_px, height_px, pixels, source) = pixels_of(bytes, file, decoder)?;
    let picture = Picture {
        class: class.clone(),
        file_sha256,
        taken_at: SystemTime::UNIX_EPOCH,
        sidecar: Sidecar::default(),
        width_px,
        height_px,
        pixels,
    };
    let syntax = match pixels {
        PixelForm::Jpeg { .. } => transfer_syntax::JPEG_BASELINE,
        PixelForm::Rgb { .. } => transfer_syntax::EXPLICIT_VR_LE,
    };
    // A constant of the standard: it is a UID.
    let syntax = Uid::new(syntax).map_err(|_| PictureFate::Lost)?;
    let instance = instance_uid(&file_sha256, &picture.sidecar);
    out.write_all(&part10_prefix(&class.sop_class_uid, &instance, &syntax, None)).map_err(failed)?;
    out.write_all(&before_pixels(&picture)).map_err(failed)?;
    let pixel_bytes = match source {
        Source::Bytes(bytes) => out.write_all(&bytes).map(|()| bytes.len() as u64),
        Source::File { file, bytes_left } => copy_exactly(file, bytes_left, out),
    };
    out.write_all(&behind_pixels(pixels, pixel_bytes.map_err(failed)?)).map_err(failed)
}

fn copy_exactly(file: File, bytes: u64, out: &mut File) -> io::Result<u64> {
    match io::copy(&mut file.take(bytes), out)? {
        copied if copied == bytes => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
