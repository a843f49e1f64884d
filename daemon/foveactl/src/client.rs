//! Asks the daemon over its control socket (HTTP/1.1, JSON).

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest answer: a full page of findings is about 2 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The daemon itself waits at most 30 s for a finding to come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

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
        tokio::time::timeout(ANSWER_TIMEOUT, self.get_untimed(path))
            .await
            .context("the daemon did not answer in time")?
    }

    async fn get_untimed<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no daemon answers at {}: start it with `fovead run --state DIR` and pass the same --state DIR",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path).header("host", "fovea").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).context("read the daemon's answer")?.to_bytes();
        driver.abort();
        if !status.is_success() {
            let error: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            match error.as_ref().and_then(|error| error["error"].as_str()) {
                Some(error) => bail!("{error}"),
                None => bail!("the daemon answered {status}"),
            }
        }
        serde_json::from_slice(&body)
            .context("the daemon's answer is not what this version knows: are both of one version?")
    }
}
