//! The control socket: a Unix socket that only the daemon's own user may open.

use crate::api::{Api, router};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Why the control socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be made.
    #[error("make the control socket {path}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended with an error.
    #[error("serve the control socket")]
    Serve {
        /// Why.
        source: io::Error,
    },
}

/// Serves `api` on `path` until `stop` fires; the socket is removed afterwards.
///
/// A socket left behind by a killed daemon is replaced: the store's lock already guarantees one daemon a state folder.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(path: &Path, api: Api, stop: CancellationToken) -> Result<(), ServeError> {
    let bind = |source| ServeError::Bind { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(bind(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(bind)?;
    // A request that waits for a finding must not hold up the stop: it is dropped with the server.
    let served = tokio::select! {
        served = async { axum::serve(listener, router(api)).await } => served,
        () = stop.cancelled() => Ok(()),
    };
    // Gone already or not removable: the next start replaces it.
    let _replaced_at_next_start = std::fs::remove_file(path);
    served.map_err(|source| ServeError::Serve { source })
}
