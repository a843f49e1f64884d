//! Everything that one peer may say on a connection, to the accepting side.
//!
//! In: the bytes of a connection. Out: what was understood. Promise asked: no panic, no wait, no byte twice or out of nothing, and
//! the same is understood however the network cuts the bytes.

use fovea_dimse::{Association, CommandField, ContextAnswer, Limits, Requested, Status};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was understood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// The handshake ended in an association.
    pub associated: bool,
    /// Field of each whole command.
    pub commands: Vec<u16>,
    /// All bytes of all data sets.
    pub data: Vec<u8>,
    /// The peer released in peace.
    pub released: bool,
}

/// A peer that has said all that it will say; what it is told is dropped.
struct Peer<'a> {
    said: &'a [u8],
    piece: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.said.len()).min(into.remaining());
        let (now, later) = self.said.split_at(count);
        into.put_slice(now);
        self.said = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The target.
pub fn run(input: &[u8]) {
    let whole = hear(input, usize::MAX);
    assert!(whole.data.len() <= input.len(), "bytes out of nothing");
    assert!(whole.commands.len() * 12 <= input.len(), "commands out of nothing");
    for piece in [1, 5] {
        assert_eq!(hear(input, piece), whole, "cut into pieces of {piece}");
    }
}

/// What a server understands of `input` that comes in pieces of `piece` bytes.
pub fn hear(input: &[u8], piece: usize) -> Heard {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let mut heard = Heard::default();
    RUNTIME.with(|runtime| runtime.block_on(serve(Peer { said: input, piece }, &mut heard)));
    heard
}

async fn serve(peer: Peer<'_>, heard: &mut Heard) {
    let long = Duration::from_secs(60);
    let limits = Limits { pdu_bytes_max: 16 * 1024, associate: long, idle: long, message: long };
    let Ok(requested) = Requested::read(peer, limits).await else { return };
    let first = |_: &_, syntaxes: &[fovea_core::Uid]| match syntaxes.first() {
        Some(syntax) => ContextAnswer::Accept(syntax.clone()),
        None => ContextAnswer::TransferSyntaxesNotSupported,
    };
    let _identity = requested.user_identity();
    let Ok(mut association) = requested.accept(first).await else { return };
    heard.associated = true;
    while answer(&mut association, heard).await {}
}

/// One message; false when it was the last.
async fn answer(association: &mut Association<Peer<'_>>, heard: &mut Heard) -> bool {
    let message = match association.next_command().await {
        Ok(Some(message)) => message,
        Ok(None) => {
            heard.released = true;
            return false;
        }
        Err(_) => return false,
    };
    let field = message.command.field().unwrap_or(CommandField(0));
    heard.commands.push(field.0);
    assert!(association.context(message.context_id).is_some(), "a message in a context that was not agreed on");
    // Every other message is left to next_command() to read over.
    if heard.commands.len() % 2 == 1 {
        loop {
            match association.next_data().await {
                Ok(Some(piece)) => heard.data.extend_from_slice(piece),
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    field.is_response() || association.respond(&message, Status::SUCCESS).await.is_ok()
}
