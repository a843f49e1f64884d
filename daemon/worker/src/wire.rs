//! One packet a message, over a pair of connected sockets, with open files beside it.
//! In and out: serde messages as JSON, at most 128 KiB and 32 files each.
//! Promise: a packet is whole or an error; files that nobody takes are closed; nothing blocks past its deadline.

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt,
    socketpair,
};
use nix::sys::time::TimeVal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Longest packet, bytes: the largest analysis fits (see `bounds.rs`).
pub const PACKET_BYTES_MAX: usize = 128 << 10;
/// Most files beside a packet: as many as a bundle may have.
const FILES_MAX: usize = 32;

/// Why a packet did not go or come.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side has closed its end.
    #[error("the other side is gone")]
    Closed,
    /// The deadline passed.
    #[error("no answer in time")]
    Deadline,
    /// The socket failed.
    #[error("{doing}")]
    Socket {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// More than a packet may hold, or not what was expected.
    #[error("a packet is too large or not understood")]
    Malformed,
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// The child's end is built before the system calls for timeouts are taken away, and waits for ever.
    timed: bool,
}

impl Channel {
    /// Two connected ends; the second is for the child.
    pub fn pair() -> Result<(Self, OwnedFd), WireError> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|source| WireError::Socket { doing: "make a socket pair", source })?;
        Ok((Self { socket: ours, timed: true }, theirs))
    }

    /// The child's end: it waits without a deadline.
    pub fn child(socket: OwnedFd) -> Self {
        Self { socket, timed: false }
    }

    /// Sends one message with files beside it.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        files: &[BorrowedFd],
        deadline: Option<Instant>,
    ) -> Result<(), WireError> {
        let packet = serde_json::to_vec(message).map_err(|_| WireError::Malformed)?;
        if packet.len() > PACKET_BYTES_MAX || files.len() > FILES_MAX {
            return Err(WireError::Malformed);
        }
        let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let beside = if files.is_empty() { &[][..] } else { &rights[..] };
        loop {
            self.arm("send", deadline)?;
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&packet)], beside, flags, None) {
                Ok(_whole_packet) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(WireError::Closed),
                Err(Errno::EAGAIN) => return Err(WireError::Deadline),
                Err(source) => return Err(WireError::Socket { doing: "send a packet", source }),
            }
        }
    }

    /// Waits for one message and the files beside it.
    pub fn receive<T: DeserializeOwned>(&self, deadline: Option<Instant>) -> Result<(T, Vec<OwnedFd>), WireError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let mut control = nix::cmsg_space!([RawFd; FILES_MAX]);
        loop {
            self.arm("receive", deadline)?;
            let mut parts = [IoSliceMut::new(&mut packet)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(received) => {
                    let (bytes, flags) = (received.bytes, received.flags);
                    // Taken first, so that they are closed whatever comes next.
                    let files = take_files(received.cmsgs());
                    if bytes == 0 && files.is_empty() {
                        return Err(WireError::Closed);
                    }
                    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
                        return Err(WireError::Malformed);
                    }
                    let message = serde_json::from_slice(&packet[..bytes]).map_err(|_| WireError::Malformed)?;
                    return Ok((message, files));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Err(WireError::Closed),
                Err(Errno::EAGAIN) => return Err(WireError::Deadline),
                Err(source) => return Err(WireError::Socket { doing: "receive a packet", source }),
            }
        }
    }

    /// Sets how long the next call may block.
    fn arm(&self, doing: &'static str, deadline: Option<Instant>) -> Result<(), WireError> {
        if !self.timed {
            return Ok(());
        }
        let left = match deadline {
            // Zero would mean for ever.
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
            None => Duration::ZERO,
        };
        let left = TimeVal::new(i64::try_from(left.as_secs()).unwrap_or(i64::MAX), i64::from(left.subsec_micros()));
        let set = match doing {
            "send" => setsockopt(&self.socket, SendTimeout, &left),
            _ => setsockopt(&self.socket, ReceiveTimeout, &left),
        };
        set.map_err(|source| WireError::Socket { doing: "set a deadline", source })
    }
}

fn take_files(control: Result<nix::sys::socket::CmsgIterator<'_>, Errno>) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    for message in control.into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(rights) = message {
            for right in rights {
                // SAFETY: the kernel has just made this descriptor for us with this packet; nobody else knows it.
                files.push(unsafe { OwnedFd::from_raw_fd(right) });
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(50))
    }

    #[test]
    fn a_message_and_its_files_arrive_together() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::child(theirs);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"pixels").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        ours.send(&"look", &[file.as_fd(), file.as_fd()], soon()).unwrap();
        let (message, files) = theirs.receive::<String>(None).unwrap();
        let mut text = String::new();
        File::from(files.into_iter().next_back().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((&*message, &*text), ("look", "pixels"));
    }

    #[test]
    fn inv_08_silence_ends_at_the_deadline_and_a_closed_end_at_once() {
        let (ours, theirs) = Channel::pair().unwrap();
        assert!(matches!(ours.receive::<String>(soon()), Err(WireError::Deadline)));
        drop(theirs);
        assert!(matches!(ours.receive::<String>(soon()), Err(WireError::Closed)));
        assert!(matches!(ours.send(&"x", &[], soon()), Err(WireError::Closed)));
    }

    #[test]
    fn inv_08_packets_and_files_past_their_bounds_are_refused() {
        let (ours, theirs) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(ours.send(&"x".repeat(PACKET_BYTES_MAX), &[], soon()), Err(WireError::Malformed)));
        assert!(matches!(ours.send(&"x", &[file.as_fd(); FILES_MAX + 1], soon()), Err(WireError::Malformed)));
        // The largest that is allowed does pass.
        let theirs = Channel::child(theirs);
        theirs.send(&"x".repeat(PACKET_BYTES_MAX - 2), &[file.as_fd(); FILES_MAX], None).unwrap();
        let (text, files) = ours.receive::<String>(soon()).unwrap();
        assert_eq!((text.len(), files.len()), (PACKET_BYTES_MAX - 2, FILES_MAX));
    }

    #[test]
    fn what_is_not_the_expected_message_is_malformed() {
        let (ours, theirs) = Channel::pair().unwrap();
        Channel::child(theirs).send(&vec![1, 2], &[], None).unwrap();
        assert!(matches!(ours.receive::<String>(soon()), Err(WireError::Malformed)));
    }
}
