//! Why a request was not answered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fovea_core::{PortError, chain};

/// Why a request was not answered. Texts are ours: nothing of the request is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("nothing of that name is held")]
    NotFound,
    #[error("what is held is not in a form that was asked for; it is sent as it is stored")]
    NotAcceptable,
    #[error("the body must be multipart/related; type=\"application/dicom\" with a boundary")]
    MediaType,
    #[error("the box could not answer")]
    Port(#[source] PortError),
    #[error("what is stored could not be read")]
    Unreadable,
    #[error("the box is stopping")]
    Stopping,
}

impl From<PortError> for WebError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::NotHeld { .. } => Self::NotFound,
            other => Self::Port(other),
        }
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Port(error) => {
                log::error!("a DICOMweb request: {}", chain(error));
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Unreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response()
    }
}

/// Runs a call that blocks on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, WebError> {
    Ok(tokio::task::spawn_blocking(call).await.map_err(|_| WebError::Stopping)??)
}
