//! A small HTTP/1.1 client for one archive: one connection that is kept, no redirects, no cookies, no pools.
//!
//! In: a request. Out: status, the headers that matter, a bounded body. Promise: every wait is bounded, also of a body that is
//! being sent; a redirect is an answer like any other, so nothing of a patient follows one to another host; credentials are
//! read from a file that only its owner may read, and stand in no log.

mod answer;
mod stow;

pub(crate) use answer::{StoreAnswer, Stored, held_instances};
pub(crate) use stow::{Part, WebSession};

use fovea_dimse::{ScuTls, Transport};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// For name resolution and TCP, and for TLS again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read: 256 references with reasons are 100 KiB.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Longest file with credentials.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// A server may ask us to stay away for so long at most.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

type Content = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

/// Where DICOMweb services are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebAddress {
    /// By TLS.
    pub is_secure: bool,
    /// Host name or IP address, an IPv6 one without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Begins with `/` and does not end so; empty for the root.
    pub base: String,
}

impl WebAddress {
    /// Reads `http(s)://host[:port][/path]`; none for anything else, a query, a fragment or a user among them.
    #[must_use]
    pub fn new(url: &str) -> Option<Self> {
        let (is_secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:[]%".contains(&byte);
        if !rest.bytes().all(is_plain) {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let default_port = if is_secure { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']')?;
                (host, if after.is_empty() { default_port } else { after.strip_prefix(':')?.parse().ok()? })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (authority, default_port),
            },
        };
        let base = path.trim_end_matches('/').to_owned();
        (!host.is_empty() && port > 0).then(|| Self { is_secure, host: host.to_owned(), port, base })
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

/// `[sync.destination.auth]` as written: one of the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAuth {
    /// A file with a bearer token.
    pub bearer_file: Option<PathBuf>,
    /// A file with `user:password`.
    pub basic_file: Option<PathBuf>,
}

/// Who we prove to be. The file is read for each connection, so a token may be replaced at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// A bearer token.
    Bearer(PathBuf),
    /// `user:password`.
    Basic(PathBuf),
}

impl Auth {
    pub(crate) fn new(raw: RawAuth) -> Result<Self, &'static str> {
        let auth = match (raw.bearer_file, raw.basic_file) {
            (Some(file), None) => Self::Bearer(file),
            (None, Some(file)) => Self::Basic(file),
            _ => return Err("needs bearer_file or basic_file"),
        };
        auth.header().map(|_| auth).map_err(|problem| problem.problem)
    }

    fn header(&self) -> Result<String, AuthError> {
        match self {
            Self::Bearer(file) => Ok(format!("Bearer {}", secret(file)?)),
            Self::Basic(file) => Ok(format!("Basic {}", base64(secret(file)?.as_bytes()))),
        }
    }
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file with the credentials {problem}")]
pub(crate) struct AuthError {
    problem: &'static str,
}

fn secret(file: &Path) -> Result<String, AuthError> {
    let wrong = |problem| AuthError { problem };
    let unreadable = |_| wrong("cannot be read");
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(wrong("may be read by others: chmod 600 it"));
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(wrong("is too long"));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let text = text.trim();
    match !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        true => Ok(text.to_owned()),
        false => Err(wrong("must hold one line of plain characters")),
    }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("could not reach {address}")]
    Unreachable { address: String, source: std::io::Error },
    #[error("no TLS with {address}")]
    Tls { address: String, source: fovea_dimse::TlsError },
    #[error("HTTP: {doing}")]
    Http { doing: &'static str, source: hyper::Error },
    #[error("timed out: {doing}")]
    Timeout { doing: &'static str },
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes or broke off")]
    Answer,
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("a request that HTTP cannot say")]
    Request(#[from] hyper::http::Error),
}

/// An answer.
pub(crate) struct Answer {
    pub status: u16,
    /// What the server asked for, bounded.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// When something last moved, so that a long upload that goes on is told from one that hangs.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Instant>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(crate) fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has moved for `limit`.
    async fn stalls(&self, limit: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

/// One kept connection.
pub(crate) struct Connection {
    sender: SendRequest<Content>,
    driver: JoinHandle<()>,
    authority: String,
    authorization: Option<String>,
    limit: Duration,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// `limit`: longest silence of the server, and longest stall of a body.
    pub(crate) async fn open(
        address: &WebAddress,
        auth: Option<&Auth>,
        tls: Option<&ScuTls>,
        limit: Duration,
    ) -> Result<Self, WebError> {
        let authority = address.authority();
        let authorization = auth.map(Auth::header).transpose()?;
        let unreachable = |source| WebError::Unreachable { address: authority.clone(), source };
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| unreachable(std::io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let transport = match tls.filter(|_| address.is_secure) {
            None => Transport::Plain(stream),
            Some(tls) => {
                let name = tls.name.as_deref().unwrap_or(&address.host);
                let secured = tls.client.connect(stream, name, CONNECT_TIMEOUT).await;
                secured.map_err(|source| WebError::Tls { address: authority.clone(), source })?
            }
        };
        let (sender, connection) = handshake(TokioIo::new(transport))
            .await
            .map_err(|source| WebError::Http { doing: "opening a connection", source })?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("an HTTP connection ended: {error}");
            }
        });
        Ok(Self { sender, driver, authority, authorization, limit })
    }

    /// The server still holds it open.
    pub(crate) fn stands(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks, and reads the whole answer. After an error the connection is of no more use.
    pub(crate) async fn ask<B>(&mut self, mut request: Request<B>, progress: &Progress) -> Result<Answer, WebError>
    where
        B: Body<Data = Bytes, Error = std::io::Error> + Send + Sync + 'static,
    {
        let bad = |_| WebError::Timeout { doing: "naming the host" };
        request.headers_mut().insert(HOST, self.authority.parse().map_err(bad)?);
        if let Some(authorization) = &self.authorization {
            let mut value: hyper::header::HeaderValue = authorization.parse().map_err(bad)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        progress.mark();
        let exchange = exchange(&mut self.sender, request.map(BodyExt::boxed), progress);
        tokio::select! { // a dropped exchange leaves a connection that is not used again
            answer = exchange => answer,
            () = progress.stalls(self.limit) => Err(WebError::Timeout { doing: "waiting for the server" }),
        }
    }
}

async fn exchange(
    sender: &mut SendRequest<Content>,
    request: Request<Content>,
    progress: &Progress,
) -> Result<Answer, WebError> {
    let http = |doing| move |source| WebError::Http { doing, source };
    sender.ready().await.map_err(http("waiting for the connection"))?;
    let response = sender.send_request(request).await.map_err(http("sending a request"))?;
    progress.mark();
    let status = response.status().as_u16();
    let retry_after = retry_after(&response);
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| WebError::Answer)?.to_bytes();
    Ok(Answer { status, retry_after, body })
}

/// Seconds; the form with a date is taken as "later", for our clock need not be the server's.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs).map(|wait: Duration| wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_could_mislead_is_refused() {
        let address = WebAddress::new("https://archive.example/dicom-web/").unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, address.base.as_str()),
            ("archive.example", 443, "/dicom-web")
        );
        let address = WebAddress::new("http://[::1]:8042").unwrap();
        assert_eq!((address.authority().as_str(), address.base.as_str()), ("[::1]:8042", ""));
        assert!(address.is_loopback());
        for url in
            ["ftp://a", "http://", "http://a:0", "http://u:p@a/b", "http://a/b?c=d", "http://a/b#c", "http://a b"]
        {
            assert_eq!(WebAddress::new(url), None, "{url}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn inv_09_credentials_are_taken_only_from_a_file_of_ones_own_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let raw = RawAuth { bearer_file: Some(file.clone()), basic_file: None };
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Auth::new(raw.clone()).unwrap_err().contains("chmod"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let auth = Auth::new(raw).unwrap();
        assert_eq!(auth.header().unwrap(), "Bearer s3cret");
        assert!(!format!("{auth:?}").contains("s3cret"));
    }
}
