//! A client for one request at a time, over TCP or a Unix socket.
//!
//! In: method, path, body. Out: status and body. Promise: bounded in time; HTTP/1.0, so no chunks and no kept connections.

use anyhow::{Context as _, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status, for instance 200.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When the status is not 200, or the body is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        ensure!(self.status == 200, "status {}: {}", self.status, String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).context("read JSON")
    }
}

/// Asks a server on loopback.
///
/// # Errors
/// When it does not answer within 20 seconds.
pub fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).context("set a time limit")?;
    exchange(stream, method, path, body).with_context(|| format!("{method} {path}"))
}

/// Asks a server on a Unix socket, for instance a box on its control socket.
///
/// # Errors
/// When it does not answer within 60 seconds.
pub fn ask_socket(socket: &Path, path: &str) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).context("set a time limit")?;
    exchange(stream, "GET", path, b"").with_context(|| format!("GET {path}"))
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).context("send")?;
    stream.write_all(body).context("send the body")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("receive")?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("the answer has no head")?;
    let line = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
    let status =
        line.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("no status in '{line}'"))?;
    Ok(Answer { status, body: answer[end + 4..].to_vec() })
}
