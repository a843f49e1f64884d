//! Requests to the JSON API.
//!
//! In: a socket that is served, and an input: a request line (`GET /v1/status`) and, after the first line break, a body. Out: the
//! status. Promise asked: an answer to everything that is a request, in bounds; no status says that the box failed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest answer: a thousand rows.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longer than the longest wait that a request may ask for.
const PATIENCE: Duration = Duration::from_secs(40);
/// What has control characters in its first line may be half a request: nobody owes it an answer.
const PATIENCE_FOR_HALF: Duration = Duration::from_millis(100);

/// Sends `input` to the API behind `socket`; the status of the answer, none where the connection was closed without one.
///
/// # Panics
/// When an answer says that the box failed, or does not end.
pub fn run(socket: &Path, input: &[u8]) -> Option<u16> {
    let (line, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[][..]),
    };
    let is_whole = !line.iter().any(u8::is_ascii_control);
    let mut stream = UnixStream::connect(socket).expect("the API is served");
    let patience = if is_whole { PATIENCE } else { PATIENCE_FOR_HALF };
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    let mut request = line.to_vec();
    request.extend_from_slice(b" HTTP/1.1\r\nhost: box\r\nconnection: close\r\ncontent-length: ");
    request.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    // It may have had enough before the end: then the answer says why.
    let _cut_short = stream.write_all(&request);
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    let waits = matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!(is_whole && waits), "no end of an answer");
    assert!((answer.len() as u64) < ANSWER_BYTES_MAX, "an answer of {} bytes", answer.len());
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    assert!(!matches!(status, Some(500..=599)), "the box failed: {}", String::from_utf8_lossy(&answer));
    status
}
