//! A body that is made while it is sent.
//!
//! In: a task that sends pieces. Out: a body. Promise: at most [`PIECES`] pieces wait; who stops reading stops the task.

use axum::body::Body;
use hyper::body::{Bytes, Frame};
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces that wait for the client.
const PIECES: usize = 2;
/// Bytes read from a file at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A client that takes no piece for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The sending end.
pub(super) struct Pieces(mpsc::Sender<io::Result<Bytes>>);

/// The client has gone, or the body cannot be made whole: either way it ends here.
#[derive(Debug)]
pub(super) struct Ended;

impl Pieces {
    /// Sends a piece.
    pub(super) async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Ended> {
        self.0.send_timeout(Ok(bytes.into()), SILENCE_MAX).await.map_err(|_| Ended)
    }

    /// Breaks the body off, so that the client does not take it for whole.
    pub(super) async fn fail(&self, why: &'static str) -> Ended {
        log::warn!("a DICOMweb answer was broken off: {why}");
        let _gone_too = self.0.send_timeout(Err(io::Error::other(why)), SILENCE_MAX).await;
        Ended
    }

    /// Sends `length` bytes of a file from where it stands. Disk calls are short and off the async workers.
    pub(super) async fn send_file(&self, file: File, length: u64) -> Result<(), Ended> {
        let (mut file, mut left) = (file, length);
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; size];
                file.read_exact(&mut piece).map(|()| (file, piece))
            });
            let Ok(Ok((back, piece))) = read.await else {
                return Err(self.fail("a stored file could not be read").await);
            };
            file = back;
            left -= piece.len() as u64;
            self.send(piece).await?;
        }
        Ok(())
    }
}

struct Made {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    task: JoinHandle<()>,
}

impl hyper::body::Body for Made {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body of what `make` sends.
pub(super) fn body<F>(make: impl FnOnce(Pieces) -> F) -> Body
where
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(PIECES);
    let made = make(Pieces(sender));
    let task = tokio::spawn(async move {
        // Whoever ended it knows.
        let _ended = made.await;
    });
    Body::new(Made { pieces, task })
}
