//! One association: whole commands, data sets in pieces, answers.
//!
//! In: pieces from the wire. Out: [`Message`]s, data set bytes, and what we answer or ask.
//! Promise: fragments that do not belong together never make a message (which context, command or data, last or
//! not); on a breach of protocol the peer gets an A-ABORT and the association is over.
//! Standard: PS3.7 section 8, PS3.8 sections 7 and 9, annex E.
//!
//! P-DATA is read here and not by dicom-ul: its reader for data ignores the PDU limit, whether a fragment is command
//! or data, and a changed context, and its reader for PDUs copies each one whole before anyone sees a byte.

use crate::pdu::{ABORT, RELEASE_RP, RELEASE_RQ};
use crate::wire::{Incoming, Wire};
use crate::{
    AssociationError, COMMAND_BYTES_MAX, Coding, CommandSet, DATA_SET_BYTES_MAX, DataSet, DataSetError, ProtocolError,
    Status, pdu,
};
use fovea_core::{AeTitle, Uid};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

/// Least PDU length of a peer into which we can put a message sensibly.
pub(crate) const PEER_PDU_BYTES_MIN: u32 = 128;

/// Our bounds on an association.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest P-DATA PDU that we take, announced to the peer, and longest that we send.
    pub pdu_bytes_max: u32,
    /// From the connection to the end of the handshake (ARTIM, PS3.8 section 9.1.5).
    pub associate: Duration,
    /// Longest silence between messages and within one.
    pub idle: Duration,
    /// From the first to the last byte of one message.
    pub message: Duration,
}

/// A presentation context that both sides agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NegotiatedContext {
    /// Odd, 1 to 255.
    pub id: u8,
    /// SOP class.
    pub abstract_syntax: Uid,
    /// How data sets are encoded.
    pub transfer_syntax: Uid,
    /// What the side that opened the association may be in this class.
    pub requestor: Roles,
}

/// Which sides of a class an application entity may be (PS3.7 section D.3.3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// It may ask.
    pub scu: bool,
    /// It may be asked.
    pub scp: bool,
}

impl Roles {
    /// What a requestor is where roles are not spoken of.
    pub const DEFAULT: Self = Self { scu: true, scp: false };

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { scu: self.scu && other.scu, scp: self.scp && other.scp }
    }
}

/// A whole command, and where it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Presentation context.
    pub context_id: u8,
    /// The command set.
    pub command: CommandSet,
    /// A data set follows: read it with [`Association::next_data`].
    pub has_data_set: bool,
}

/// What both sides said in the handshake.
pub(crate) struct Agreement {
    pub(crate) calling_ae: AeTitle,
    pub(crate) called_ae: AeTitle,
    pub(crate) contexts: Vec<NegotiatedContext>,
    /// 0 for no limit.
    pub(crate) peer_pdu_bytes_max: u32,
}

/// An association that stands.
pub struct Association<S> {
    wire: Wire<S>,
    agreement: Agreement,
    limits: Limits,
    /// Longest fragment that we send, even.
    fragment_bytes_max: usize,
    command: Vec<u8>,
    /// Context whose data set is being read.
    data_due: Option<u8>,
    out: Vec<u8>,
    /// A message of ours is on its way; still set afterwards when its future was dropped.
    sending: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<S> {
    pub(crate) fn new(mut wire: Wire<S>, agreement: Agreement, limits: Limits) -> Result<Self, ProtocolError> {
        let pdu_bytes = match agreement.peer_pdu_bytes_max {
            0 => limits.pdu_bytes_max,
            theirs => theirs.min(limits.pdu_bytes_max),
        };
        if pdu_bytes < PEER_PDU_BYTES_MIN {
            return Err(ProtocolError::PeerPduTooShort { pdu_bytes });
        }
        // Fragments are even (PS3.8 section E.2); 6 bytes are the value's own header.
        let fragment_bytes_max = (pdu_bytes as usize - 6) & !1;
        wire.established(limits.idle);
        wire.set_deadline(None);
        let (command, out) = (Vec::new(), Vec::new());
        Ok(Self { wire, agreement, limits, fragment_bytes_max, command, data_due: None, out, sending: false })
    }

    /// The other side's title when it called us, else ours.
    #[must_use]
    pub fn calling_ae(&self) -> &AeTitle {
        &self.agreement.calling_ae
    }

    /// The title that was called.
    #[must_use]
    pub fn called_ae(&self) -> &AeTitle {
        &self.agreement.called_ae
    }

    /// All contexts that were agreed on.
    #[must_use]
    pub fn contexts(&self) -> &[NegotiatedContext] {
        &self.agreement.contexts
    }

    /// One context.
    #[must_use]
    pub fn context(&self, id: u8) -> Option<&NegotiatedContext> {
        self.agreement.contexts.iter().find(|context| context.id == id)
    }

    /// Reads the next command; what is left of the data set before it is read and dropped. None when the peer released.
    ///
    /// # Errors
    /// [`AssociationError`]; the peer has been told, and the association is over.
    pub async fn next_command(&mut self) -> Result<Option<Message>, AssociationError> {
        while self.data_due.is_some() {
            self.next_data().await?;
        }
        match self.read_command().await {
            Ok(message) => Ok(message),
            Err(error) => Err(self.broken(error).await),
        }
    }

    async fn read_command(&mut self) -> Result<Option<Message>, AssociationError> {
        self.command.clear();
        self.wire.set_deadline(None);
        let mut message_context_id = None;
        loop {
            let (context_id, ends, range) = match self.wire.next("waiting for a command").await? {
                Incoming::Piece { is_command: false, .. } => return Err(ProtocolError::CommandDue.into()),
                Incoming::Piece { context_id, ends, range, .. } => (context_id, ends, range),
                Incoming::Control { pdu_type: RELEASE_RQ, .. } if message_context_id.is_none() => {
                    self.wire.farewell(&pdu::release(RELEASE_RP)).await;
                    return Ok(None);
                }
                Incoming::Control { pdu_type, body } => return Err(control_error(pdu_type, body, "reading a command")),
            };
            let message_context = *message_context_id.get_or_insert(context_id);
            self.check_context(context_id, message_context)?;
            if self.command.is_empty() {
                self.wire.set_deadline(Some(Instant::now() + self.limits.message));
            }
            if self.command.len() + range.len() > COMMAND_BYTES_MAX {
                return Err(ProtocolError::CommandTooLong { command_bytes_max: COMMAND_BYTES_MAX }.into());
            }
            self.command.extend_from_slice(self.wire.bytes(range));
            if ends {
                break;
            }
        }
        let command = CommandSet::decode(&self.command).map_err(ProtocolError::from)?;
        let has_data_set = command.has_data_set().map_err(ProtocolError::from)?;
        command.field().map_err(ProtocolError::from)?;
        self.data_due = message_context_id.filter(|_| has_data_set);
        let context_id = message_context_id.unwrap_or_default();
        Ok(Some(Message { context_id, command, has_data_set }))
    }

    fn check_context(&self, context_id: u8, message_context_id: u8) -> Result<(), ProtocolError> {
        if context_id != message_context_id {
            return Err(ProtocolError::ContextChanged { context_id, message_context_id });
        }
        match self.context(context_id) {
            Some(_) => Ok(()),
            None => Err(ProtocolError::UnknownContext { context_id }),
        }
    }

    /// The next piece of the data set that follows the command, none behind its end. Pieces may be empty.
    ///
    /// # Errors
    /// [`AssociationError`]; the peer has been told, and the association is over.
    pub async fn next_data(&mut self) -> Result<Option<&[u8]>, AssociationError> {
        let Some(message_context_id) = self.data_due else { return Ok(None) };
        let range = match self.wire.next("waiting for the data set").await {
            Ok(Incoming::Piece { is_command: false, context_id, ends, range }) => {
                self.check_context(context_id, message_context_id).map(|()| (ends, range)).map_err(Into::into)
            }
            Ok(Incoming::Piece { .. }) => Err(ProtocolError::DataDue.into()),
            Ok(Incoming::Control { pdu_type, body }) => Err(control_error(pdu_type, body, "reading a data set")),
            Err(error) => Err(error),
        };
        match range {
            Ok((ends, range)) => {
                if ends {
                    self.data_due = None;
                }
                Ok(Some(self.wire.bytes(range)))
            }
            Err(error) => Err(self.broken(error).await),
        }
    }

    /// Reads the whole data set of `message`. One that is too long or not understood is read to its end all the same.
    ///
    /// # Errors
    /// `Ok(Err)` when the data set is of no use; the association stands.
    /// [`AssociationError`] as [`Self::next_data`].
    pub async fn read_data_set(
        &mut self,
        message: &Message,
    ) -> Result<Result<DataSet, DataSetError>, AssociationError> {
        let syntax = self.context(message.context_id).map(|context| context.transfer_syntax.clone());
        let (mut bytes, mut is_too_long) = (Vec::new(), false);
        while let Some(piece) = self.next_data().await? {
            is_too_long |= bytes.len() + piece.len() > DATA_SET_BYTES_MAX;
            if !is_too_long {
                bytes.extend_from_slice(piece);
            }
        }
        if is_too_long {
            return Ok(Err(DataSetError::TooLong { bytes_max: DATA_SET_BYTES_MAX }));
        }
        let coding = syntax.as_ref().and_then(Coding::of).ok_or(DataSetError::Syntax);
        Ok(coding.and_then(|coding| DataSet::decode(&bytes, coding)))
    }

    /// Sends a command with a data set.
    ///
    /// # Errors
    /// [`AssociationError`]; [`ProtocolError::UnknownContext`] where the context is none of ours, or holds no data sets
    /// that we can write.
    pub async fn send_message(
        &mut self,
        context_id: u8,
        command: CommandSet,
        data_set: &DataSet,
    ) -> Result<(), AssociationError> {
        let coding = self.context(context_id).and_then(|context| Coding::of(&context.transfer_syntax));
        let coding = coding.ok_or(ProtocolError::UnknownContext { context_id })?;
        let bytes = data_set.encode(coding);
        let sent = self.send_with_data(context_id, &command.with_data_set(), bytes.as_slice()).await?;
        sent.map(|_| ()).map_err(|source| AssociationError::Io { doing: "reading a data set of ours", source })
    }

    /// Waits until the peer says something, at most for `limit`. True when there is something to read, be it the end.
    /// Loses nothing when it is dropped. Between messages only.
    pub async fn wait_for_input(&mut self, limit: Duration) -> bool {
        self.wire.wait(limit).await
    }

    /// Answers a message: one write.
    ///
    /// # Errors
    /// [`AssociationError`].
    pub async fn respond(&mut self, message: &Message, status: Status) -> Result<(), AssociationError> {
        self.send_command(message.context_id, &CommandSet::response_to(&message.command, status)).await
    }

    /// Sends a command without a data set: one write.
    ///
    /// # Errors
    /// [`AssociationError`].
    pub async fn send_command(&mut self, context_id: u8, command: &CommandSet) -> Result<(), AssociationError> {
        let mut out = std::mem::take(&mut self.out);
        self.encode_command(context_id, command, &mut out);
        let sent = self.send(&out, "sending a command").await;
        self.out = out;
        sent
    }

    /// Writes the command's PDUs into `out`, from its start.
    fn encode_command(&self, context_id: u8, command: &CommandSet, out: &mut Vec<u8>) {
        let mut encoded = Vec::with_capacity(256);
        command.encode(&mut encoded);
        out.clear();
        let mut fragments = encoded.chunks(self.fragment_bytes_max).peekable();
        while let Some(fragment) = fragments.next() {
            let is_last = fragments.peek().is_none();
            out.extend_from_slice(&pdu::p_data_header(context_id, true, is_last, fragment.len() as u32));
            out.extend_from_slice(fragment);
        }
    }

    /// Sends a command and all bytes of `data_set`, from its position to its end. The command and the first PDU of
    /// data leave in one write; each further PDU in one more.
    ///
    /// # Errors
    /// `Ok(Err)` when `data_set` could not be read: the message is cut, so the association is aborted.
    /// `Err` when the association broke.
    pub async fn send_with_data<R: AsyncRead + Unpin>(
        &mut self,
        context_id: u8,
        command: &CommandSet,
        mut data_set: R,
    ) -> Result<Result<u64, io::Error>, AssociationError> {
        let mut out = std::mem::take(&mut self.out);
        self.encode_command(context_id, command, &mut out);
        let (mut base, chunk) = (out.len(), self.fragment_bytes_max);
        // One byte more than a fragment is read, to know whether it is the last; that byte then opens the next one.
        out.resize(base + 12 + chunk + 1, 0);
        let (mut carried, mut sent_bytes) = (0, 0);
        loop {
            let room = &mut out[base + 12..base + 12 + chunk + 1];
            let filled = match read_full(&mut data_set, &mut room[carried..]).await {
                Ok(count) => carried + count,
                Err(error) => {
                    self.abort_now().await;
                    return Ok(Err(error));
                }
            };
            let is_last = filled <= chunk;
            let count = filled.min(chunk);
            let carry = room[chunk];
            out[base..base + 12].copy_from_slice(&pdu::p_data_header(context_id, false, is_last, count as u32));
            if sent_bytes == 0 {
                self.begin_sending()?;
            }
            self.transmit(&out[..base + 12 + count], "sending a data set").await?;
            sent_bytes += count as u64;
            if is_last {
                self.sending = false;
                self.out = out;
                return Ok(Ok(sent_bytes));
            }
            (base, carried) = (0, 1);
            out[12] = carry;
        }
    }

    async fn send(&mut self, bytes: &[u8], doing: &'static str) -> Result<(), AssociationError> {
        self.begin_sending()?;
        self.transmit(bytes, doing).await?;
        self.sending = false;
        Ok(())
    }

    /// From here until `sending` is cleared, a dropped future leaves half a message with the peer.
    fn begin_sending(&mut self) -> Result<(), ProtocolError> {
        if std::mem::replace(&mut self.sending, true) { Err(ProtocolError::OurMessageCut) } else { Ok(()) }
    }

    async fn transmit(&mut self, bytes: &[u8], doing: &'static str) -> Result<(), AssociationError> {
        match self.wire.write(bytes, doing).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_word(error).await),
        }
    }

    /// A failed write often means that the peer aborted: what it said before it went is the better error.
    async fn last_word(&mut self, error: AssociationError) -> AssociationError {
        self.wire.set_deadline(Some(Instant::now() + Duration::from_millis(100)));
        while let Ok(incoming) = self.wire.next("reading the last word").await {
            if let Incoming::Control { pdu_type: ABORT, body } = incoming {
                return control_error(ABORT, body, "sending");
            }
        }
        error
    }

    /// Asks for release and waits for the answer.
    ///
    /// # Errors
    /// [`AssociationError`].
    pub async fn release(mut self) -> Result<(), AssociationError> {
        self.send(&pdu::release(RELEASE_RQ), "sending a release request").await?;
        self.wire.set_deadline(Some(Instant::now() + self.limits.idle));
        loop {
            match self.wire.next("waiting for the release").await? {
                Incoming::Control { pdu_type: RELEASE_RP, .. } => return Ok(()),
                // Both asked at once: each answers the other (PS3.8 section 7.2.2.7).
                Incoming::Control { pdu_type: RELEASE_RQ, .. } => {
                    self.send(&pdu::release(RELEASE_RP), "answering a release request").await?;
                }
                Incoming::Control { pdu_type, body } => {
                    return Err(control_error(pdu_type, body, "waiting for the release"));
                }
                // Late answers may still come (PS3.8 section 7.2.1).
                Incoming::Piece { .. } => {}
            }
        }
    }

    /// Ends the association at once (A-ABORT, source service user).
    pub async fn abort(mut self) {
        self.abort_now().await;
    }

    async fn abort_now(&mut self) {
        self.sending = true;
        self.wire.farewell(&pdu::abort(0, 0)).await;
    }

    /// Tells the peer why it is over, where it is there to be told.
    async fn broken(&mut self, error: AssociationError) -> AssociationError {
        match &error {
            AssociationError::Protocol { source } => self.wire.farewell(&pdu::abort(2, source.abort_reason())).await,
            AssociationError::Timeout { .. } => self.wire.farewell(&pdu::abort(2, 0)).await,
            AssociationError::Io { .. } | AssociationError::PeerAborted { .. } | AssociationError::Closed => {}
        }
        self.sending = true;
        self.data_due = None;
        error
    }
}

/// What a control PDU means where none was due.
fn control_error(pdu_type: u8, body: [u8; 4], doing: &'static str) -> AssociationError {
    match pdu_type {
        ABORT => AssociationError::PeerAborted { source_code: body[2], reason_code: body[3] },
        _ => ProtocolError::UnexpectedPdu { pdu_type, doing }.into(),
    }
}

/// Reads until `out` is full or the source ends; how much was read.
async fn read_full<R: AsyncRead + Unpin>(source: &mut R, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match source.read(&mut out[filled..]).await? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
