//! The listener: connections, their bounds, the end.
//!
//! In: connections. Out: requests to the routes. Promise: connections, handshakes and heads are bounded in number and time; when
//! asked to stop, what is in hand is ended: a client that was not answered knows nothing of success.

use super::access::check;
use super::{Web, WebConfig, router};
use fovea_core::chain;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long the TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the head of a request may take, the first and each that follows on a kept connection.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Longest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Out of file descriptors: some come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After so many failures to accept in a row the listener gives up.
const ACCEPT_FAILURES_MAX: u32 = 600;

/// Why DICOMweb is not served any more.
#[derive(Debug, thiserror::Error)]
#[error("accept DICOMweb connections on {listen}")]
pub struct WebServeError {
    listen: SocketAddr,
    source: io::Error,
}

/// Serves `web` on `listener` until `stop` fires.
///
/// # Errors
/// [`WebServeError`] when the listener fails for good.
pub async fn serve_web(
    listener: TcpListener,
    config: WebConfig,
    web: Web,
    stop: CancellationToken,
) -> Result<(), WebServeError> {
    let web = Web { is_secure: config.tls.is_some(), ..web };
    let routes = router(web).layer(axum::middleware::from_fn_with_state(config.credentials.clone(), check));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut failures = 0;
    loop {
        let accepted = tokio::select! { // cancel-safe: neither branch loses anything when it is dropped
            biased;
            // Dropped with their set, connections end at once.
            () = stop.cancelled() => return Ok(()),
            Some(_ended) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(source) if failures >= ACCEPT_FAILURES_MAX => {
                return Err(WebServeError { listen: config.listen, source });
            }
            Err(_) => {
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failures = 0;
        // Past the bound: closed at once, which a client takes for "try again".
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (routes, tls) = (routes.clone(), config.tls.clone());
        connections.spawn(async move {
            connection(stream, from, tls, routes).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, tls: Option<tokio_rustls::TlsAcceptor>, routes: axum::Router) {
    let _slower_without = stream.set_nodelay(true);
    let Some(tls) = tls else { return converse(stream, from, routes).await };
    match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, from, routes).await,
        Ok(Err(error)) => log::warn!("no DICOMweb connection with {}: {}", from.ip(), chain(&error)),
        Err(_) => log::warn!("no DICOMweb connection with {}: the handshake took too long", from.ip()),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    routes: axum::Router,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = served.await {
        log::debug!("a DICOMweb connection with {} broke: {}", from.ip(), chain(&error));
    }
}
