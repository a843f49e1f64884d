//! WADO-RS: frames as they are stored.
//!
//! In: a stored object, numbers from 1. Out: their bytes, native or as compressed streams. Promise: nothing is decoded or converted;
//! frames that cannot be told apart are refused.
//! Standard: PS3.18 section 10.4.1.3 and table 8.7.3-5 (media types of compressed frames), PS3.5 section A.4 (fragments).

use super::accept::Accept;
use super::dataset::{self, DataSet, DataSetError, PixelData};
use super::error::WebError;
use super::retrieve::{boundary, end, held, open, part_head, unreadable};
use super::stream::body;
use super::{Place, Web};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Frames in one answer.
const FRAMES_MAX: usize = 10_000;
/// Fragments of one object that are looked at.
const FRAGMENTS_MAX: usize = 1_000_000;

/// Bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    offset: u64,
    length: u64,
}

/// Frames by their runs.
pub(super) async fn frames(
    State(web): State<Web>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let held = held(&web, &place).await?;
    let uid = held[0].sop_instance_uid.clone();
    let wanted = place.frames.as_deref().map(numbers).transpose()?;
    let file = open(&web, &uid).await?;
    let looked = tokio::task::spawn_blocking(move || {
        let again = file.try_clone()?;
        let data_set = dataset::read(again, "")?;
        let frames = runs(&file, &data_set)?;
        Ok::<_, DataSetError>((file, data_set.transfer_syntax, frames))
    });
    let looked = looked.await.map_err(|_| WebError::Stopping)?;
    let (file, syntax, all) = looked.map_err(|error| unreadable(&uid, &error))?;
    let all = all.ok_or(WebError::NotAcceptable)?;
    let chosen: Vec<Vec<Run>> = match wanted {
        None => all.into_iter().take(FRAMES_MAX).collect(),
        Some(numbers) => {
            let chosen = numbers.iter().map(|number| all.get(number - 1).cloned());
            chosen.collect::<Option<_>>().ok_or(WebError::NotFound)?
        }
    };
    let kind = media(&syntax);
    if !Accept::of(&headers).takes_parts(kind, &syntax) {
        return Err(WebError::NotAcceptable);
    }
    let boundary = boundary(&uid);
    let content_type = format!("multipart/related; type=\"{kind}\"; boundary={boundary}");
    let sent = body(move |pieces| async move {
        for runs in chosen {
            let length = runs.iter().map(|run| run.length).sum();
            part_head(&pieces, &boundary, &format!("{kind}; transfer-syntax={syntax}"), length).await?;
            for run in runs {
                let at = file.try_clone().and_then(|mut file| file.seek(SeekFrom::Start(run.offset)).map(|_| file));
                let Ok(at) = at else { return Err(pieces.fail("a stored file could not be read").await) };
                pieces.send_file(at, run.length).await?;
            }
            pieces.send("\r\n").await?;
        }
        end(&pieces, &boundary).await
    });
    Ok(([(header::CONTENT_TYPE, content_type)], sent).into_response())
}

/// Frame numbers by comma.
fn numbers(text: &str) -> Result<Vec<usize>, WebError> {
    let bad = || WebError::BadRequest("frames are numbers from 1, by comma");
    let numbers: Vec<usize> =
        text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
    if numbers.len() > FRAMES_MAX || numbers.contains(&0) { Err(bad()) } else { Ok(numbers) }
}

/// Media type of a frame in a transfer syntax.
fn media(syntax: &str) -> &'static str {
    match syntax.strip_prefix("1.2.840.10008.1.2.").unwrap_or_default() {
        "4.50" | "4.51" | "4.57" | "4.70" => "image/jpeg",
        "4.80" | "4.81" => "image/jls",
        "4.90" | "4.91" => "image/jp2",
        "4.201" | "4.202" | "4.203" => "image/jphc",
        "5" => "image/dicom-rle",
        "4.100" | "4.101" => "video/mpeg2",
        "4.102" | "4.103" | "4.104" | "4.105" | "4.106" | "4.107" | "4.108" => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// Every frame's bytes; none where there are no pixels, or frames that cannot be told apart.
fn runs(file: &File, data_set: &DataSet) -> Result<Option<Vec<Vec<Run>>>, DataSetError> {
    let Some(pixels) = data_set.pixels else { return Ok(None) };
    let number = |tag: &str| data_set.json.get(tag).and_then(|attribute| attribute["Value"][0].as_u64());
    let frames = number("00280008").unwrap_or(1);
    let Ok(frames) = usize::try_from(frames) else { return Ok(None) };
    let Some(length) = pixels.length else { return fragments(file, pixels, frames) };
    let size = [number("00280010"), number("00280011"), number("00280002"), number("00280100")];
    let [Some(rows), Some(columns), Some(samples), Some(bits)] = size else { return Ok(None) };
    let bits = rows.checked_mul(columns).and_then(|n| n.checked_mul(samples)).and_then(|n| n.checked_mul(bits));
    // Single bits that do not end with a byte run into each other.
    let Some(bytes) = bits.filter(|bits| bits % 8 == 0 && *bits > 0).map(|bits| bits / 8) else { return Ok(None) };
    if bytes.checked_mul(frames as u64).is_none_or(|all| all > u64::from(length)) {
        return Ok(None);
    }
    Ok(Some((0..frames as u64).map(|n| vec![Run { offset: pixels.offset + n * bytes, length: bytes }]).collect()))
}

/// Fragments by frame: one each, all of the only frame, or by the offset table.
fn fragments(file: &File, pixels: PixelData, frames: usize) -> Result<Option<Vec<Vec<Run>>>, DataSetError> {
    let mut file = BufReader::new(file);
    file.seek(SeekFrom::Start(pixels.offset))?;
    let mut at = pixels.offset;
    let (mut table, mut found) = (None, Vec::new());
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        at += 8;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        match (&head[..4], &table) {
            ([0xFE, 0xFF, 0xDD, 0xE0], _) => break,
            // The first item is the table.
            ([0xFE, 0xFF, 0x00, 0xE0], None) if length as usize <= 4 * FRAGMENTS_MAX => {
                let mut bytes = vec![0; length as usize];
                file.read_exact(&mut bytes)?;
                let offsets = bytes.as_chunks::<4>().0.iter().map(|chunk| u64::from(u32::from_le_bytes(*chunk)));
                table = Some((offsets.collect::<Vec<u64>>(), at + u64::from(length)));
            }
            ([0xFE, 0xFF, 0x00, 0xE0], Some(_)) if found.len() < FRAGMENTS_MAX => {
                found.push(Run { offset: at, length: length.into() });
                file.seek_relative(length.into())?;
            }
            _ => return Err(DataSetError::Malformed("fragments that are none, or too many")),
        }
        at += u64::from(length);
    }
    let Some((offsets, first)) = table else { return Ok(None) };
    if found.len() == frames {
        return Ok(Some(found.into_iter().map(|run| vec![run]).collect()));
    }
    if frames == 1 {
        return Ok(Some(vec![found]));
    }
    if offsets.len() != frames {
        return Ok(None);
    }
    let mut by_frame = vec![Vec::new(); frames];
    for run in found {
        // Offsets are of the item's head, counted from the first one behind the table.
        let start = run.offset - 8 - first;
        let Some(frame) = offsets.partition_point(|offset| *offset <= start).checked_sub(1) else { return Ok(None) };
        by_frame[frame].push(run);
    }
    Ok(Some(by_frame))
}
