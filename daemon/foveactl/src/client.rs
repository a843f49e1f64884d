//! Asks the daemon over its control socket (HTTP/1.1, JSON).

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::error::Elapsed;

/// Longest answer: a full page of findings is about 2 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The daemon itself waits at most 30 s for a finding to come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Proving a bundle starts a worker of its own, and activation brings up another beside the one that serves.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// Nobody takes a change back because its asker went away.
const CHANGE_UNKNOWN: &str =
    "the change is not done yet and may still happen: look with `foveactl models list` before asking again";

/// One box, named by its state folder.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(state_dir: &Path) -> Self {
        Self { socket: state_dir.join("control.sock") }
    }

    /// `GET path`, read as `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new(), ANSWER_TIMEOUT).await
    }

    /// `POST path`, read as `T`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> anyhow::Result<T> {
        let asked = self.ask(Method::POST, path, Bytes::from(body), CHANGE_TIMEOUT).await;
        asked.map_err(|error| if error.is::<Elapsed>() { error.context(CHANGE_UNKNOWN) } else { error })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> anyhow::Result<T> {
        let asked = self.ask_untimed(method, path, body);
        tokio::time::timeout(timeout, asked).await.context("the daemon did not answer in time")?
    }

    async fn ask_untimed<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no daemon answers at {}: start it with `fovead run --state DIR` and pass the same --state DIR",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "fovea").body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).context("read the daemon's answer")?.to_bytes();
        driver.abort();
        if !status.is_success() {
            let error: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            let text = |key: &str| error.as_ref().and_then(|error| error[key].as_str()).filter(|text| !text.is_empty());
            match (text("error"), text("cure")) {
                (Some(error), Some(cure)) => bail!("{error}\n  what to do: {cure}"),
                (Some(error), None) => bail!("{error}"),
                (None, _) => bail!("the daemon answered {status}"),
            }
        }
        serde_json::from_slice(&body)
            .context("the daemon's answer is not what this version knows: are both of one version?")
    }
}
