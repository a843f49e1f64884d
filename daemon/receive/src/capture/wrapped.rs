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
        scheduled: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_file_header;
    use crate::{PictureError, RawPicture};
    use fovea_core::sop_class;

    /// Three columns and one row: an odd number of bytes.
    struct Drawn;

    impl PictureDecoder for Drawn {
        fn decode_rgb8(&self, _: &File) -> Result<RawPicture, PictureError> {
            let mut rgb = tempfile::tempfile().expect("a file");
            rgb.write_all(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).expect("pixels");
            rgb.rewind().expect("at its start");
            Ok(RawPicture { width_px: 3, height_px: 1, rgb })
        }
    }

    fn wrapped(bytes: &[u8], class: &PictureClass) -> Result<File, WrapError> {
        let (mut picture, mut out) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        picture.write_all(bytes).expect("a picture");
        picture_object(&mut picture, class, &Drawn, &mut out).map(|()| out)
    }

    #[test]
    fn a_picture_is_presented_as_asked_and_its_header_is_read_by_the_walk_of_the_wire() {
        for (class, modality, body_part) in [
            (sop_class::ULTRASOUND, "US", Some("THYROID")),
            (sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, "OP", None),
            (sop_class::VL_MICROSCOPIC, "GM", Some("LUNG")),
        ] {
            let asked = PictureClass {
                sop_class_uid: Uid::new(class).expect("a class"),
                modality: modality.to_owned(),
                body_part: body_part.map(str::to_owned),
            };
            let mut object = wrapped(b"\x89PNG\r\n\x1a\n and more", &asked).expect("an object");
            let header = object_file_header(&mut object).expect("a header");
            assert_eq!(header.sop_class_uid, asked.sop_class_uid);
            assert_eq!((header.modality.as_deref(), header.body_part.as_deref()), (Some(modality), body_part));
            assert_eq!(
                (header.rows_px, header.columns_px, header.photometric.as_deref()),
                (Some(1), Some(3), Some("RGB"))
            );
            let offset = header.pixel_data_offset.expect("pixels");
            object.seek(io::SeekFrom::Start(offset + 12)).expect("the pixels");
            let mut pixels = Vec::new();
            object.read_to_end(&mut pixels).expect("the pixels");
            assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "padded to an even length");
        }
    }

    #[test]
    fn what_is_no_picture_and_what_is_no_object_is_refused() {
        let class = PictureClass::eye().expect("a class");
        assert!(wrapped(b"neither", &class).is_err());
        let mut text = tempfile::tempfile().expect("a file");
        text.write_all(&[b'x'; 500]).expect("text");
        assert!(object_file_header(&mut text).is_err());
        let mut cut = wrapped(b"\x89PNG\r\n\x1a\n", &class).expect("an object");
        let length = cut.metadata().expect("a length").len();
        cut.set_len(length - 4).expect("cut");
        cut.rewind().expect("at its start");
        assert!(object_file_header(&mut cut).is_err());
    }
}
