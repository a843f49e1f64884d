//! PDUs on a byte stream, read piece by piece through one small buffer.
//!
//! In: a stream. Out: [`Incoming`], pieces of presentation data values as they arrive.
//! Promise: memory is the buffer, whatever lengths a peer announces; lengths that do not fit into each other end the
//! association; no wait is longer than the idle limit or the deadline.
//! Standard: PS3.8 sections 9.3.4, 9.3.5 and annex E.

use crate::pdu::{
    ABORT, ASSOCIATE_AC, ASSOCIATE_BYTES_MAX, ASSOCIATE_RJ, ASSOCIATE_RQ, P_DATA, RELEASE_RP, RELEASE_RQ,
};
use crate::{AssociationError, ProtocolError, pdu};
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

/// Buffer before an association stands: a stranger's connection costs little.
const OPENING_BUFFER_BYTES: usize = 4 * 1024;
/// Buffer of an association. Larger ones did not make it faster: the second-level cache holds this one.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a peer is heard out after our last word, so that it can read it before the connection is reset.
const LINGER: Duration = Duration::from_millis(500);

/// What came.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A piece of a presentation data value; its bytes are in [`Wire::bytes`] until the next read.
    Piece {
        context_id: u8,
        is_command: bool,
        /// Last piece of the last value of its command or data set.
        ends: bool,
        range: Range<usize>,
    },
    /// A-RELEASE or A-ABORT, with the four bytes behind the header.
    Control { pdu_type: u8, body: [u8; 4] },
}

/// The presentation data value that is being read.
#[derive(Default)]
struct Value {
    context_id: u8,
    is_command: bool,
    is_last: bool,
    bytes_left: u32,
}

/// A stream with its read buffer and timers.
pub(crate) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pdu_bytes_left: u32,
    value: Value,
    pdu_bytes_max: u32,
    idle: Duration,
    deadline: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// - `pdu_bytes_max`: longest P-DATA PDU taken. `idle`: longest silence in either direction.
    pub(crate) fn new(stream: S, pdu_bytes_max: u32, idle: Duration) -> Self {
        let buffer = vec![0; OPENING_BUFFER_BYTES];
        let value = Value::default();
        Self { stream, buffer, start: 0, end: 0, pdu_bytes_left: 0, value, pdu_bytes_max, idle, deadline: None }
    }

    /// Grows the buffer for an association's data.
    pub(crate) fn established(&mut self, idle: Duration) {
        self.buffer.resize(BUFFER_BYTES, 0);
        self.idle = idle;
    }

    /// Sets the moment by which what is being read must be whole; none for no such moment.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The bytes of a piece.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    fn until(&self) -> Instant {
        let idle = Instant::now() + self.idle;
        self.deadline.map_or(idle, |deadline| deadline.min(idle))
    }

    /// Reads once into the free part of the buffer; 0 when the peer has closed.
    async fn fill(&mut self, doing: &'static str) -> Result<usize, AssociationError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let until = self.until();
        let read = timeout_at(until, self.stream.read(&mut self.buffer[self.end..])).await;
        let count = read
            .map_err(|_| AssociationError::Timeout { doing })?
            .map_err(|source| AssociationError::Io { doing, source })?;
        self.end += count;
        Ok(count)
    }

    /// Fills until `count` bytes, at most the opening buffer, are there.
    async fn ensure(&mut self, count: usize, doing: &'static str) -> Result<(), AssociationError> {
        while self.end - self.start < count {
            if self.fill(doing).await? == 0 {
                return Err(AssociationError::Closed);
            }
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.buffer[self.start..self.start + N]);
        self.start += N;
        out
    }

    /// The next piece or control PDU. Loses nothing when it is dropped.
    pub(crate) async fn next(&mut self, doing: &'static str) -> Result<Incoming, AssociationError> {
        loop {
            if self.value.bytes_left > 0 {
                self.ensure(1, doing).await?;
                return Ok(self.piece());
            }
            if self.pdu_bytes_left > 0 {
                self.open_value(doing).await?;
                if self.value.bytes_left == 0 {
                    return Ok(self.piece());
                }
                continue;
            }
            self.ensure(6, doing).await?;
            let head = &self.buffer[self.start..self.start + 6];
            let (pdu_type, pdu_bytes) = (head[0], u32::from_be_bytes([head[2], head[3], head[4], head[5]]));
            match pdu_type {
                P_DATA => {
                    check_length(pdu_type, pdu_bytes, self.pdu_bytes_max)?;
                    if pdu_bytes < 6 {
                        return Err(ProtocolError::PdvLength { pdv_bytes: 0, pdu_bytes_left: pdu_bytes }.into());
                    }
                    self.start += 6;
                    self.pdu_bytes_left = pdu_bytes;
                }
                RELEASE_RQ | RELEASE_RP | ABORT if pdu_bytes == pdu::SHORT_BYTES => {
                    self.ensure(10, doing).await?;
                    let body = self.take::<10>();
                    return Ok(Incoming::Control { pdu_type, body: [body[6], body[7], body[8], body[9]] });
                }
                RELEASE_RQ | RELEASE_RP | ABORT => {
                    let pdu_bytes_max = pdu::SHORT_BYTES;
                    return Err(ProtocolError::PduTooLong { pdu_type, pdu_bytes, pdu_bytes_max }.into());
                }
                _ => return Err(ProtocolError::UnexpectedPdu { pdu_type, doing }.into()),
            }
        }
    }

    /// Reads the header of the next value of this PDU (PS3.8 table 9-23).
    async fn open_value(&mut self, doing: &'static str) -> Result<(), AssociationError> {
        let pdu_bytes_left = self.pdu_bytes_left;
        if pdu_bytes_left < 6 {
            return Err(ProtocolError::PdvLength { pdv_bytes: 0, pdu_bytes_left }.into());
        }
        self.ensure(6, doing).await?;
        let head = self.take::<6>();
        let pdv_bytes = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if pdv_bytes < 2 || pdv_bytes > pdu_bytes_left - 4 {
            return Err(ProtocolError::PdvLength { pdv_bytes, pdu_bytes_left }.into());
        }
        self.pdu_bytes_left -= 6;
        let (is_command, is_last) = (head[5] & 1 != 0, head[5] & 2 != 0);
        self.value = Value { context_id: head[4], is_command, is_last, bytes_left: pdv_bytes - 2 };
        Ok(())
    }

    /// Hands out what is there of the value.
    fn piece(&mut self) -> Incoming {
        let count = (self.end - self.start).min(self.value.bytes_left as usize);
        let range = self.start..self.start + count;
        self.start += count;
        // `count` is at most `bytes_left`, which is at most what is left of the PDU.
        self.value.bytes_left -= count as u32;
        self.pdu_bytes_left -= count as u32;
        let Value { context_id, is_command, is_last, bytes_left } = self.value;
        Incoming::Piece { context_id, is_command, ends: is_last && bytes_left == 0, range }
    }

    /// Reads one whole PDU of those that open an association, header included. Grows only with what has come.
    pub(crate) async fn association_pdu(&mut self, doing: &'static str) -> Result<Vec<u8>, AssociationError> {
        self.ensure(6, doing).await?;
        let head = self.take::<6>();
        let (pdu_type, pdu_bytes) = (head[0], u32::from_be_bytes([head[2], head[3], head[4], head[5]]));
        let pdu_bytes_max = match pdu_type {
            ASSOCIATE_RQ | ASSOCIATE_AC => ASSOCIATE_BYTES_MAX,
            ASSOCIATE_RJ | ABORT => pdu::SHORT_BYTES,
            _ => return Err(ProtocolError::UnexpectedPdu { pdu_type, doing }.into()),
        };
        check_length(pdu_type, pdu_bytes, pdu_bytes_max)?;
        let mut whole = head.to_vec();
        let mut bytes_left = pdu_bytes as usize;
        while bytes_left > 0 {
            self.ensure(1, doing).await?;
            let count = (self.end - self.start).min(bytes_left);
            whole.extend_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            bytes_left -= count;
        }
        Ok(whole)
    }

    /// Waits for the peer to say or close something, at most for `limit`; the next read tells what it was.
    pub(crate) async fn wait(&mut self, limit: Duration) -> bool {
        if self.start < self.end {
            return true;
        }
        (self.start, self.end) = (0, 0);
        match timeout(limit, self.stream.read(&mut self.buffer)).await {
            Err(_) => false,
            Ok(read) => {
                self.end = read.unwrap_or(0);
                true
            }
        }
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8], doing: &'static str) -> Result<(), AssociationError> {
        match timeout(self.idle, self.stream.write_all(bytes)).await {
            Err(_) => Err(AssociationError::Timeout { doing }),
            Ok(written) => written.map_err(|source| AssociationError::Io { doing, source }),
        }
    }

    /// Sends the last words of an association and lets the peer read them. Failures do not matter any more.
    pub(crate) async fn farewell(&mut self, bytes: &[u8]) {
        let goodbye = async {
            self.stream.write_all(bytes).await?;
            self.stream.shutdown().await?;
            // Unread bytes would make the kernel reset the connection, and the peer lose what we just said.
            while self.stream.read(&mut self.buffer).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        let _no_one_to_tell = timeout(LINGER, goodbye).await;
    }
}

fn check_length(pdu_type: u8, pdu_bytes: u32, pdu_bytes_max: u32) -> Result<(), ProtocolError> {
    if pdu_bytes > pdu_bytes_max {
        return Err(ProtocolError::PduTooLong { pdu_type, pdu_bytes, pdu_bytes_max });
    }
    Ok(())
}
