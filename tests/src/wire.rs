//! A DICOM upper layer over plain TCP that says what a test wants said, true or not. None of it is the product's own code.
//!
//! In: lengths, bytes, commands. Out: what the other side answers. Promise: nothing is checked before it is sent; every wait ends.
//! Standard: PS3.8 section 9.3 (PDUs), PS3.7 sections 9.3.1 and E.1 (C-STORE).

use crate::sample::EXPLICIT_VR_LE;
use anyhow::{Context as _, bail, ensure};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// PDU types (PS3.8 table 9-11 and following).
pub mod kind {
    /// A-ASSOCIATE-RQ.
    pub const ASSOCIATE_RQ: u8 = 1;
    /// A-ASSOCIATE-AC.
    pub const ASSOCIATE_AC: u8 = 2;
    /// A-ASSOCIATE-RJ.
    pub const ASSOCIATE_RJ: u8 = 3;
    /// P-DATA-TF.
    pub const DATA: u8 = 4;
    /// A-RELEASE-RQ.
    pub const RELEASE_RQ: u8 = 5;
    /// A-RELEASE-RP.
    pub const RELEASE_RP: u8 = 6;
    /// A-ABORT.
    pub const ABORT: u8 = 7;
}

/// PDV control: a piece of a command, not its last.
pub const COMMAND: u8 = 0b01;
/// PDV control: the last piece of a command.
pub const COMMAND_LAST: u8 = 0b11;
/// PDV control: a piece of a data set, not its last.
pub const DATA: u8 = 0b00;
/// PDV control: the last piece of a data set.
pub const DATA_LAST: u8 = 0b10;

/// How long an answer may take before it counts as silence.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest piece of a data set that we send: fits the smallest PDU limit in use (16 KiB).
const PIECE_BYTES: usize = 16_000;
/// Longest answer that we take in.
const ANSWER_BYTES_MAX: u32 = 1 << 20;

/// What the other side did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It sent a PDU.
    Pdu {
        /// Its type.
        kind: u8,
        /// What stands behind its length.
        body: Vec<u8>,
    },
    /// It closed or reset the connection.
    Closed,
    /// It neither spoke nor closed within 20 seconds.
    Silence,
}

impl Said {
    /// True when it ended the association one way or another: abort, rejection or a closed connection.
    #[must_use]
    pub fn ended(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Pdu { kind, .. } => matches!(*kind, kind::ABORT | kind::ASSOCIATE_RJ),
            Self::Silence => false,
        }
    }
}

/// Connects to a loopback port.
///
/// # Errors
/// When nobody accepts within 5 seconds.
pub fn dial(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads one PDU.
///
/// # Errors
/// When the answer is longer than any that makes sense.
pub fn listen(stream: &mut TcpStream) -> anyhow::Result<Said> {
    let mut head = [0; 6];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) => return silence_or_closed(&error),
    }
    let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    let mut body = vec![0; length as usize];
    match stream.read_exact(&mut body) {
        Ok(()) => Ok(Said::Pdu { kind: head[0], body }),
        Err(error) => silence_or_closed(&error),
    }
}

fn silence_or_closed(error: &io::Error) -> anyhow::Result<Said> {
    Ok(match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Said::Silence,
        _ => Said::Closed,
    })
}

/// A PDU whose length is true.
#[must_use]
pub fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&pdu_head(kind, body.len() as u32)[..], body].concat()
}

/// The first six bytes of a PDU of any length.
#[must_use]
pub fn pdu_head(kind: u8, length: u32) -> [u8; 6] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind, 0, a, b, c, d]
}

/// A PDV item whose length is true.
#[must_use]
pub fn pdv(context_id: u8, control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u32 + 2;
    [&length.to_be_bytes()[..], &[context_id, control], bytes].concat()
}

/// An association request; context ids are 1, 3, 5, ... for the pairs of class and transfer syntax.
#[must_use]
pub fn associate_request(contexts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend_from_slice(b"FOVEA           ");
    body.extend_from_slice(b"HOSTILE         ");
    body.extend_from_slice(&[0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    for (index, (class, syntax)) in contexts.iter().enumerate() {
        let mut context = vec![(index * 2 + 1) as u8, 0, 0, 0];
        context.extend(item(0x30, class.as_bytes()));
        context.extend(item(0x40, syntax.as_bytes()));
        body.extend(item(0x20, &context));
    }
    let mut user = item(0x51, &(PIECE_BYTES as u32 + 384).to_be_bytes());
    user.extend(item(0x52, b"2.25.1"));
    body.extend(item(0x50, &user));
    pdu(kind::ASSOCIATE_RQ, &body)
}

fn item(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16;
    [&[kind, 0][..], &length.to_be_bytes(), value].concat()
}

/// A command set of the given elements of group 0000, with a true group length. Implicit VR Little Endian (PS3.7 section 6.3.1).
#[must_use]
pub fn command_set(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut rest = Vec::new();
    for (element, value) in elements {
        rest.extend(command_element(*element, value));
    }
    let mut set = command_element(0x0000, &(rest.len() as u32).to_le_bytes());
    set.extend(rest);
    set
}

fn command_element(element: u16, value: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &element.to_le_bytes(), &(value.len() as u32).to_le_bytes(), value].concat()
}

/// The command of a C-STORE request.
#[must_use]
pub fn store_command(message_id: u16, sop_class_uid: &str, sop_instance_uid: &str) -> Vec<u8> {
    command_set(&[
        (0x0002, &even(sop_class_uid)),
        (0x0100, &[1, 0]),
        (0x0110, &message_id.to_le_bytes()),
        (0x0700, &[0, 0]),
        (0x0800, &[2, 1]),
        (0x1000, &even(sop_instance_uid)),
    ])
}

fn even(uid: &str) -> Vec<u8> {
    let mut bytes = uid.as_bytes().to_vec();
    if !bytes.len().is_multiple_of(2) {
        bytes.push(0);
    }
    bytes
}

/// The data set alone, encoded in an uncompressed or encapsulated explicit little endian syntax.
///
/// # Errors
/// When it cannot be encoded.
pub fn encode(data_set: InMemDicomObject, transfer_syntax_uid: &str) -> anyhow::Result<Vec<u8>> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax_uid);
    let object = data_set.with_meta(meta).context("make the file meta information")?;
    let mut file = Vec::new();
    object.write_all(&mut file).context("encode")?;
    Ok(data_set_of(&file)?.to_vec())
}

/// The data set of a Part 10 file: what stands behind the file meta information (PS3.10 section 7.1).
///
/// # Errors
/// When it is no such file.
pub fn data_set_of(part10: &[u8]) -> anyhow::Result<&[u8]> {
    ensure!(part10.get(128..132) == Some(b"DICM"), "no Part 10 file");
    // (0002,0000) UL 4, then the length of the rest of the group.
    let length = part10.get(140..144).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let start = 144 + length.context("the file ends early")? as usize;
    part10.get(start..).context("the file ends early")
}

/// An association that we opened.
#[derive(Debug)]
pub struct Association {
    /// The connection, for saying what no association says.
    pub stream: TcpStream,
    /// When the last piece of the last whole object began to be sent.
    pub last_byte_at: Option<Instant>,
    message_id: u16,
}

impl Association {
    /// Proposes pairs of class and transfer syntax, with ids 1, 3, 5, ...
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn open(port: u16, contexts: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut stream = dial(port).context("connect")?;
        stream.write_all(&associate_request(contexts)).context("ask for an association")?;
        match listen(&mut stream)? {
            Said::Pdu { kind: kind::ASSOCIATE_AC, .. } => Ok(Self { stream, last_byte_at: None, message_id: 0 }),
            other => bail!("asked for an association: {other:?}"),
        }
    }

    /// Proposes one class in Explicit VR Little Endian.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn open_for(port: u16, sop_class_uid: &str) -> anyhow::Result<Self> {
        Self::open(port, &[(sop_class_uid, EXPLICIT_VR_LE)])
    }

    /// Sends a C-STORE request's command and the first `sent` bytes of its data set, without ending it.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn begin_store(&mut self, class: &str, instance: &str, sent: &[u8]) -> anyhow::Result<()> {
        self.message_id += 1;
        let command = pdv(1, COMMAND_LAST, &store_command(self.message_id, class, instance));
        self.stream.write_all(&pdu(kind::DATA, &command)).context("send the command")?;
        for piece in sent.chunks(PIECE_BYTES) {
            self.stream.write_all(&pdu(kind::DATA, &pdv(1, DATA, piece))).context("send the data set")?;
        }
        Ok(())
    }

    /// Sends a whole C-STORE over the first context and waits for its status.
    ///
    /// # Errors
    /// When the connection breaks or the answer is none.
    pub fn store(&mut self, class: &str, instance: &str, data_set: &[u8]) -> anyhow::Result<u16> {
        let last = data_set.len().saturating_sub(1).min(data_set.len() / PIECE_BYTES * PIECE_BYTES);
        self.begin_store(class, instance, &data_set[..last])?;
        let end = pdv(1, DATA_LAST, &data_set[last..]);
        self.last_byte_at = Some(Instant::now());
        self.stream.write_all(&pdu(kind::DATA, &end)).context("send the end of the data set")?;
        self.status()
    }

    /// The status of the next response.
    ///
    /// # Errors
    /// When something else comes.
    pub fn status(&mut self) -> anyhow::Result<u16> {
        match listen(&mut self.stream)? {
            Said::Pdu { kind: kind::DATA, body } => status_in(&body).context("a response without a status"),
            other => bail!("waited for a response: {other:?}"),
        }
    }

    /// Asks for release and waits for the answer.
    ///
    /// # Errors
    /// When it is not released.
    pub fn release(mut self) -> anyhow::Result<()> {
        self.stream.write_all(&pdu(kind::RELEASE_RQ, &[0; 4])).context("ask for release")?;
        match listen(&mut self.stream)? {
            Said::Pdu { kind: kind::RELEASE_RP, .. } => Ok(()),
            other => bail!("asked for release: {other:?}"),
        }
    }
}

/// The value of (0000,0900) in a P-DATA body of one PDV.
fn status_in(body: &[u8]) -> Option<u16> {
    let mut rest = body.get(6..)?;
    while rest.len() >= 8 {
        let element = u16::from_le_bytes([rest[2], rest[3]]);
        let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        let value = rest.get(8..8 + length)?;
        if element == 0x0900 {
            return Some(u16::from_le_bytes([*value.first()?, *value.get(1)?]));
        }
        rest = &rest[8 + length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_response_tells_its_status() {
        let response = command_set(&[(0x0100, &[1, 0x80]), (0x0900, &[0x00, 0xa7])]);
        assert_eq!(status_in(&pdv(1, COMMAND_LAST, &response)), Some(0xa700));
        assert_eq!(status_in(&pdv(1, COMMAND_LAST, &command_set(&[(0x0100, &[1, 0x80])]))), None);
    }

    #[test]
    fn an_encoded_data_set_starts_with_its_first_element() {
        let bytes = encode(Sample::secondary_capture(1).data_set(), EXPLICIT_VR_LE).unwrap();
        assert_eq!(bytes[..6], [0x08, 0, 0x05, 0, b'C', b'S']);
    }
}
