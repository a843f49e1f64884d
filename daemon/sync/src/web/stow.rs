//! STOW-RS out, and QIDO-RS to look afterwards.
//!
//! In: parcels and their files. Out: a [`Sent`] for each. Promise: files go from disk to the line in pieces of 64 KiB, none is held
//! whole; an answer about one instance is told apart from one about the request, and one about the request from one about the archive.
//! Standard: PS3.18 sections 10.5 (store) and 10.6 (search); RFC 2387 (multipart/related).

use super::{Answer, Auth, Connection, Progress, StoreAnswer, Stored, WebAddress, WebError, held_instances};
use crate::deliver::{Sent, judge};
use fovea_core::{Parcel, Uid, chain};
use fovea_dimse::{ScuTls, Status};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// One piece of a file on its way.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are read ahead.
const PIECES_AHEAD: usize = 4;
const JSON: &str = "application/dicom+json";

/// One instance of a request.
pub(crate) struct Part {
    pub parcel: Parcel,
    /// At its start.
    pub file: File,
    /// Of the file.
    pub bytes: u64,
}

/// An archive that speaks DICOMweb.
pub(crate) struct WebSession {
    connection: Connection,
    base: String,
    /// Fewer than configured once the archive found a request too large or could not say which instance it refused.
    pub(crate) instances_max: usize,
}

impl WebSession {
    pub(crate) async fn open(
        address: &WebAddress,
        auth: Option<&Auth>,
        tls: Option<&ScuTls>,
        limit: Duration,
        instances_max: usize,
    ) -> Result<Self, WebError> {
        let connection = Connection::open(address, auth, tls, limit).await?;
        Ok(Self { connection, base: address.base.clone(), instances_max })
    }

    pub(crate) fn stands(&self) -> bool {
        self.connection.stands()
    }

    /// Stores all parts with one request; one answer for each, in their order.
    pub(crate) async fn store(&mut self, parts: Vec<Part>) -> Vec<Sent> {
        let uids: Vec<Uid> = parts.iter().map(|part| part.parcel.sop_instance_uid.clone()).collect();
        let all = |sent: Sent| vec![sent; uids.len()];
        let progress = Arc::new(Progress::new());
        let request = match self.request(parts, &progress) {
            Ok(request) => request,
            Err(error) => return all(Sent::Unavailable(chain(&error))),
        };
        let answer = match self.connection.ask(request, &progress).await {
            Ok(answer) => answer,
            Err(error) => return all(Sent::Unavailable(chain(&error))),
        };
        match answer.status {
            200 | 202 | 409 => {
                let rows = StoreAnswer::read(&answer.body);
                uids.iter().map(|uid| settle(answer.status, rows.of(uid))).collect()
            }
            413 if uids.len() > 1 => {
                self.instances_max = (uids.len() / 2).max(1);
                all(Sent::Smaller)
            }
            400 | 406 | 411 | 413 | 415 | 422 if uids.len() == 1 => all(Sent::Refused(said(&answer))),
            400 | 406 | 411 | 415 | 422 => {
                // One of them is not wanted, and the archive does not say which: each on its own.
                self.instances_max = 1;
                all(Sent::Smaller)
            }
            _ => match answer.retry_after {
                Some(wait) if matches!(answer.status, 429 | 503) => all(Sent::Later(said(&answer), wait)),
                _ => all(Sent::Unavailable(said(&answer))),
            },
        }
    }

    fn request(&self, parts: Vec<Part>, progress: &Arc<Progress>) -> Result<Request<Multipart>, WebError> {
        let boundary = boundary();
        let content_type = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
        Ok(Request::post(format!("{}/studies", self.base))
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, content_type)
            .body(Multipart::begin(parts, &boundary, Arc::clone(progress)))?)
    }

    /// Whether the archive holds an instance, by query.
    pub(crate) async fn holds(&mut self, sop_instance_uid: &Uid) -> Result<bool, String> {
        let path = format!("{}/instances?SOPInstanceUID={sop_instance_uid}&limit=1", self.base);
        let progress = Progress::new();
        let request = Request::get(path).header(ACCEPT, JSON).body(Empty::new().map_err_never());
        let request = request.map_err(|error| chain(&WebError::from(error)))?;
        let answer = self.connection.ask(request, &progress).await.map_err(|error| chain(&error))?;
        match answer.status {
            200 => Ok(held_instances(&answer.body).iter().any(|held| held == sop_instance_uid.as_str())),
            204 => Ok(false),
            _ => Err(said(&answer)),
        }
    }
}

/// An empty body never fails, but the connection's bodies may.
trait MapErrNever {
    type Mapped;
    fn map_err_never(self) -> Self::Mapped;
}

impl MapErrNever for Empty<Bytes> {
    type Mapped = http_body_util::combinators::MapErr<Self, fn(std::convert::Infallible) -> io::Error>;
    fn map_err_never(self) -> Self::Mapped {
        http_body_util::BodyExt::map_err(self, |never| match never {})
    }
}

/// The status in words; never the body, for it may name a patient.
fn said(answer: &Answer) -> String {
    match answer.status {
        300..=399 => format!("the archive answered HTTP {}: redirects are not followed", answer.status),
        401 | 403 => format!("the archive answered HTTP {}: our credentials are not taken", answer.status),
        status => format!("the archive answered HTTP {status}"),
    }
}

/// One instance: its own row counts; without one, the status (PS3.18 table 10.5.3-1).
fn settle(status: u16, row: Stored) -> Sent {
    match (row, status) {
        (Stored::Kept { warning }, _) => {
            if let Some(warning) = warning {
                log::debug!("stored with warning {warning:04X}");
            }
            Sent::Delivered
        }
        // No reason given: as little about the object as about the archive, so it is tried again like a refusal.
        (Stored::Failed { reason: 0 }, _) => Sent::Refused("the archive failed to store it and gave no reason".into()),
        (Stored::Failed { reason }, _) => judge(Status(reason)),
        (Stored::Unknown, 200) => Sent::Delivered,
        (Stored::Unknown, 409) => Sent::Refused("the archive answered HTTP 409 and did not speak of it".into()),
        (Stored::Unknown, _) => {
            Sent::Unavailable(format!("the archive answered HTTP {status} and did not speak of it"))
        }
    }
}

/// 128 random bits: no file holds them. Without randomness a constant, which is as good unless a file is made to break it.
fn boundary() -> String {
    let mut bytes = [0x5a; 16];
    let _constant_else = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body: each part's head and file, read by a thread of its own.
struct Multipart {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    progress: Arc<Progress>,
}

impl Multipart {
    fn begin(parts: Vec<Part>, boundary: &str, progress: Arc<Progress>) -> Self {
        let head = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n");
        let tail = format!("--{boundary}--\r\n");
        let left = parts.iter().map(|part| head.len() as u64 + part.bytes + 2).sum::<u64>() + tail.len() as u64;
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        // Ends when all is read or nobody takes the next piece.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = read_all(parts, &head, &tail, &sender) {
                let _nobody_waits = sender.blocking_send(Err(error));
            }
        }));
        Self { pieces, left, progress }
    }
}

fn read_all(parts: Vec<Part>, head: &str, tail: &str, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let give = |piece: Vec<u8>| sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into());
    for Part { file, bytes, .. } in parts {
        give(head.as_bytes().to_vec())?;
        let (mut file, mut left) = (file, bytes);
        while left > 0 {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
            file.read_exact(&mut piece)?;
            left -= piece.len() as u64;
            give(piece)?;
        }
        give(b"\r\n".to_vec())?;
    }
    give(tail.as_bytes().to_vec())
}

impl Body for Multipart {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        body.pieces.poll_recv(cx).map(|piece| {
            body.progress.mark();
            let piece = piece?;
            if let Ok(bytes) = &piece {
                body.left -= (bytes.len() as u64).min(body.left);
            }
            Some(piece.map(Frame::data))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}
