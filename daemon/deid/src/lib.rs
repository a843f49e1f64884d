//! De-identified copies of stored objects.
//!
//! In: a stored Part 10 object and its header facts. Out: a Part 10 file without identity, or a reason why there is none.
//! Promise: nothing is de-identified by hope (invariant 5). A rewriter makes the copy by the Basic Profile; then an
//! independent audit reads the bytes that would leave and the original, and any doubt of either is [`DeidError::Quarantine`].
//! Reasons name attributes, never values (invariant 9). Pixel data is streamed; memory is bounded by the header's bound.
//! Standard: DICOM PS3.15 annex E. The rules beyond its table are stated in rules.rs.
//!
//! Pixels are not cleaned yet, so only objects whose pixels carry no text by their nature pass: ophthalmic photographs
//! without Burned In Annotation YES. For all other classes a NO there is the sender's claim, and they are held back. A fundus
//! photograph can itself identify a person; no rule on attributes changes that.

mod audit;
mod config;
mod pixels;
mod profile;
mod rules;
mod scrub;
mod uids;
mod wire;

pub use audit::{AuditError, Leak, audit};
pub use config::{Config, ConfigError, Key, Profile, RawConfig, load_or_create_key};

use fovea_core::{ObjectHeader, Uid, UidError, sop_class};
use pixels::{Coding, Geometry, PixelError};
use scrub::Family;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use wire::{DataSet, Reader, WireError};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// Makes copies by one profile under one key.
#[derive(Clone, Debug)]
pub struct Deidentifier {
    key: Key,
}

/// What a copy is; its bytes are in the file that was handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CleanCopy {
    /// The source's class.
    pub sop_class_uid: Uid,
    /// The replaced instance UID, the same for the same object and key.
    pub sop_instance_uid: Uid,
    /// The replaced study UID.
    pub study_uid: Uid,
    /// The replaced series UID.
    pub series_uid: Uid,
    /// The source's syntax; Explicit VR Little Endian for a deflated source.
    pub transfer_syntax_uid: Uid,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum DeidError {
    /// The object stays until a person has looked. No identity is in the reason.
    #[error("quarantine: {reason}")]
    Quarantine {
        /// Why, for people: names attributes and positions, never values.
        reason: String,
    },
    /// Reading or writing failed; trying again may help.
    #[error("{doing}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl DeidError {
    fn quarantine(reason: impl Into<String>) -> Self {
        Self::Quarantine { reason: reason.into() }
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> DeidError {
    move |source| DeidError::Io { doing, source }
}

impl From<WireError> for DeidError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Read { source, .. } if source.kind() != io::ErrorKind::UnexpectedEof && !is_inflate(&source) => {
                Self::Io { doing: "read the object's header", source }
            }
            damaged => Self::quarantine(format!("the header cannot be read with certainty: {damaged}")),
        }
    }
}

impl From<PixelError> for DeidError {
    fn from(error: PixelError) -> Self {
        match error {
            PixelError::Read(source) if source.kind() != io::ErrorKind::UnexpectedEof && !is_inflate(&source) => {
                Self::Io { doing: "read pixel data", source }
            }
            PixelError::Write(source) => Self::Io { doing: "write pixel data", source },
            damaged => Self::quarantine(damaged.to_string()),
        }
    }
}

/// A damaged deflate stream is the object's fault, not the disk's.
fn is_inflate(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

impl From<UidError> for DeidError {
    fn from(error: UidError) -> Self {
        Self::quarantine(format!("a UID is malformed: {error}"))
    }
}

impl Deidentifier {
    /// By the Basic Profile under `key`.
    #[must_use]
    pub fn new(config: &Config, key: Key) -> Self {
        // One profile so far; a second one will have to change this line.
        let Profile::Basic = config.profile;
        Self { key }
    }

    /// Makes a copy of `source` in `out` and audits it. Blocks: disk and, for large objects, seconds.
    ///
    /// - `source`: the stored Part 10 file; its position is moved.
    /// - `header`: the facts taken at intake; where they and this parser disagree, the object is held back.
    /// - `out`: emptied first; afterwards its position is at the end. Left empty on any error.
    ///
    /// # Errors
    /// [`DeidError`]. After either kind the caller may try again with the same arguments.
    pub fn copy(&self, source: File, header: &ObjectHeader, out: &mut File) -> Result<CleanCopy, DeidError> {
        let done = self.rewrite_and_audit(&source, header, out);
        if done.is_err() {
            // Nothing half-clean may lie around; the caller throws the file away as well.
            out.set_len(0).map_err(io_error("empty the copy"))?;
            out.seek(SeekFrom::Start(0)).map_err(io_error("empty the copy"))?;
        }
        done
    }

    fn rewrite_and_audit(&self, source: &File, header: &ObjectHeader, out: &mut File) -> Result<CleanCopy, DeidError> {
        may_be_copied(header)?;
        let copy = self.rewrite(source, header, out)?;
        let leaks = match audit(source, out) {
            Ok(leaks) => leaks,
            Err(AuditError::Io { source, .. }) => return Err(DeidError::Io { doing: "audit the copy", source }),
            Err(doubt) => return Err(DeidError::quarantine(format!("the audit has no certainty: {doubt}"))),
        };
        if !leaks.is_empty() {
            let shown: Vec<_> = leaks.iter().take(5).map(ToString::to_string).collect();
            let reason = format!("the audit found {} leaks: {}", leaks.len(), shown.join("; "));
            return Err(DeidError::quarantine(reason));
        }
        out.seek(SeekFrom::End(0)).map_err(io_error("seek in the copy"))?;
        Ok(copy)
    }

    fn rewrite(&self, source: &File, header: &ObjectHeader, out: &mut File) -> Result<CleanCopy, DeidError> {
        let mut file = source;
        file.seek(SeekFrom::Start(0)).map_err(io_error("seek in the object"))?;
        let mut reader = Reader::new(BufReader::new(file), 0, true);
        let meta = reader.meta()?;
        let syntax = header.transfer_syntax_uid.as_str();
        if meta.ascii(0x0002_0010) != Some(syntax) {
            return Err(DeidError::quarantine("(0002,0010) is not the transfer syntax of intake"));
        }
        let layout = Layout::of(syntax)?;
        if syntax == DEFLATED {
            let at = reader.at;
            let inflated = BufReader::new(flate2::bufread::DeflateDecoder::new(reader.inner));
            self.write(Reader::new(inflated, at, true), header, layout, None, out)
        } else {
            let reader = Reader::new(reader.inner, reader.at, layout.explicit);
            self.write(reader, header, layout, header.pixel_data_offset, out)
        }
    }

    fn write<R: Read>(
        &self,
        mut reader: Reader<R>,
        header: &ObjectHeader,
        layout: Layout,
        pixels_at: Option<u64>,
        out: &mut File,
    ) -> Result<CleanCopy, DeidError> {
        let (data, start) = reader.header()?;
        if pixels_at.is_some_and(|at| at != start.at) {
            return Err(DeidError::quarantine("pixel data is elsewhere than intake saw it"));
        }
        agrees_with_intake(&data, header)?;
        let geometry = Geometry::of(&data)?;
        let clean = rules::clean_object(&self.key, &data);
        let copy = CleanCopy {
            sop_class_uid: header.sop_class_uid.clone(),
            sop_instance_uid: uid_of(&clean, 0x0008_0018)?,
            study_uid: uid_of(&clean, 0x0020_000D)?,
            series_uid: uid_of(&clean, 0x0020_000E)?,
            transfer_syntax_uid: Uid::new(layout.output)?,
        };
        out.set_len(0).map_err(io_error("empty the copy"))?;
        out.seek(SeekFrom::Start(0)).map_err(io_error("seek in the copy"))?;
        let mut writer = BufWriter::new(&mut *out);
        writer.write_all(&file_start(&copy)).map_err(io_error("write the copy's header"))?;
        writer.write_all(&clean.to_bytes(layout.explicit)).map_err(io_error("write the copy's header"))?;
        pixels::copy(&mut reader.inner, &mut writer, start, layout.coding, layout.explicit, geometry)?;
        writer.flush().map_err(io_error("write the copy"))?;
        drop(writer);
        Ok(copy)
    }
}

/// Classes whose pixels carry no text by their nature.
fn may_be_copied(header: &ObjectHeader) -> Result<(), DeidError> {
    let class = header.sop_class_uid.as_str();
    if ![sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, sop_class::OPHTHALMIC_PHOTOGRAPHY_16_BIT].contains(&class) {
        return Err(DeidError::quarantine(
            "pixels may carry burned-in text: the class is no ophthalmic photograph and pixels are not cleaned yet",
        ));
    }
    if header.burned_in_annotation == Some(true) {
        return Err(DeidError::quarantine("pixels may carry burned-in text: (0028,0301) Burned In Annotation is YES"));
    }
    Ok(())
}

/// A parser that saw another object than intake did saw something that was hidden from one of them.
fn agrees_with_intake(data: &DataSet, header: &ObjectHeader) -> Result<(), DeidError> {
    let uids = [
        (0x0008_0016, "(0008,0016)", &header.sop_class_uid),
        (0x0008_0018, "(0008,0018)", &header.sop_instance_uid),
        (0x0020_000D, "(0020,000D)", &header.study_uid),
        (0x0020_000E, "(0020,000E)", &header.series_uid),
    ];
    for (tag, name, uid) in uids {
        if data.ascii(tag) != Some(uid.as_str()) {
            return Err(DeidError::quarantine(format!("{name} is not what intake saw")));
        }
    }
    match data.ascii(0x0028_0301) {
        None | Some("NO") => {}
        Some(_) => return Err(DeidError::quarantine("pixels may carry burned-in text: (0028,0301) is not NO")),
    }
    // Retired overlays live in unused bits of the pixels; they are zeroed, but who has them may have more of the kind.
    if data
        .0
        .keys()
        .any(|tag| tag >> 16 & 0xFF00 == 0x6000 && tag & 0xFFFF == 0x0102 && data.us(*tag).unwrap_or(0) != 0)
    {
        return Err(DeidError::quarantine("(60xx,0102): an overlay is embedded in the pixels"));
    }
    Ok(())
}

fn uid_of(data: &DataSet, tag: u32) -> Result<Uid, DeidError> {
    let text = data.ascii(tag).ok_or_else(|| DeidError::quarantine("study, series or instance has no UID"))?;
    Ok(Uid::new(text)?)
}

/// Preamble of zeros, prefix, file meta of ours.
fn file_start(copy: &CleanCopy) -> Vec<u8> {
    let mut meta = DataSet::default();
    let ui = |meta: &mut DataSet, tag, uid: &Uid| meta.put(tag, b"UI", uid.as_str().as_bytes());
    meta.put(0x0002_0001, b"OB", &[0, 1]);
    ui(&mut meta, 0x0002_0002, &copy.sop_class_uid);
    ui(&mut meta, 0x0002_0003, &copy.sop_instance_uid);
    ui(&mut meta, 0x0002_0010, &copy.transfer_syntax_uid);
    ui(&mut meta, 0x0002_0012, &Uid::derived("implementation", &["fovea"]));
    meta.put(0x0002_0013, b"SH", b"FOVEA");
    let meta = meta.to_bytes(true);
    let mut length = DataSet::default();
    length.put(0x0002_0000, b"UL", &(meta.len() as u32).to_le_bytes());
    let mut out = vec![0u8; 128];
    out.extend_from_slice(b"DICM");
    out.extend_from_slice(&length.to_bytes(true));
    out.extend_from_slice(&meta);
    out
}

/// How a transfer syntax lays an object down.
#[derive(Clone, Copy, Debug)]
struct Layout {
    explicit: bool,
    coding: Coding,
    output: &'static str,
}

impl Layout {
    fn of(syntax: &str) -> Result<Self, DeidError> {
        let jpeg = Coding::Codestream(Family::Jpeg { is_ls: false });
        let jpeg_ls = Coding::Codestream(Family::Jpeg { is_ls: true });
        let jpeg_2000 = Coding::Codestream(Family::Jpeg2000);
        // Process 14 lossless is T.81 as well; video and JPIP are no frames that we can look into.
        let known = [
            ("1.2.840.10008.1.2", Coding::Native),
            (EXPLICIT, Coding::Native),
            ("1.2.840.10008.1.2.5", Coding::RunLength),
            ("1.2.840.10008.1.2.4.50", jpeg),
            ("1.2.840.10008.1.2.4.51", jpeg),
            ("1.2.840.10008.1.2.4.57", jpeg),
            ("1.2.840.10008.1.2.4.70", jpeg),
            ("1.2.840.10008.1.2.4.80", jpeg_ls),
            ("1.2.840.10008.1.2.4.81", jpeg_ls),
            ("1.2.840.10008.1.2.4.90", jpeg_2000),
            ("1.2.840.10008.1.2.4.91", jpeg_2000),
            ("1.2.840.10008.1.2.4.201", jpeg_2000),
            ("1.2.840.10008.1.2.4.202", jpeg_2000),
            ("1.2.840.10008.1.2.4.203", jpeg_2000),
        ];
        if syntax == DEFLATED {
            return Ok(Self { explicit: true, coding: Coding::Native, output: EXPLICIT });
        }
        let found = known.into_iter().find(|(uid, _)| *uid == syntax);
        let (output, coding) = found
            .ok_or_else(|| DeidError::quarantine("pixels may carry text: the transfer syntax cannot be looked into"))?;
        Ok(Self { explicit: output != "1.2.840.10008.1.2", coding, output })
    }
}
