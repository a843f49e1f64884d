//! `[dicomweb]`: off unless it says where to listen.

use super::access::Credentials;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// Longest file of credentials or PEM.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// As it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RawWebConfig {
    listen: Option<SocketAddr>,
    credentials_file: Option<PathBuf>,
    tls: Option<RawWebTls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebTls {
    certificate: PathBuf,
    key: PathBuf,
}

/// Checked: where to listen, how, and for whom.
#[derive(Clone)]
pub struct WebConfig {
    /// Address of the listener.
    pub listen: SocketAddr,
    pub(super) credentials: Credentials,
    pub(super) tls: Option<TlsAcceptor>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// A key has a value that cannot be.
    #[error("{key}: {what}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read.
    #[error("{key}: read {path}")]
    Read {
        /// Which key names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl WebConfig {
    /// Checks; none where DICOMweb is off.
    ///
    /// # Errors
    /// [`WebConfigError`] names the key.
    pub fn new(raw: RawWebConfig) -> Result<Option<Self>, WebConfigError> {
        let value = |key, what: &str| WebConfigError::Value { key, what: what.to_owned() };
        let Some(listen) = raw.listen else {
            return match (raw.credentials_file, raw.tls) {
                (None, None) => Ok(None),
                _ => Err(value("dicomweb.listen", "is missing, and without it the rest of [dicomweb] does nothing")),
            };
        };
        let credentials = match &raw.credentials_file {
            None => Credentials::default(),
            Some(path) => {
                let text = secret_file("dicomweb.credentials_file", path)?;
                let text = String::from_utf8(text).map_err(|_| value("dicomweb.credentials_file", "is no UTF-8"))?;
                Credentials::parse(&text).map_err(|what| value("dicomweb.credentials_file", &what))?
            }
        };
        let tls = raw.tls.map(|tls| acceptor(&tls)).transpose()?;
        if !listen.ip().is_loopback() {
            if tls.is_none() {
                return Err(value("dicomweb.tls", "is needed where [dicomweb] listen is not loopback"));
            }
            if !credentials.are_needed() {
                return Err(value("dicomweb.credentials_file", "is needed where [dicomweb] listen is not loopback"));
            }
        }
        Ok(Some(Self { listen, credentials, tls }))
    }
}

impl std::fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// TLS 1.2 with forward secrecy, or 1.3 (BCP 195); clients prove themselves by credentials, not by certificates.
fn acceptor(files: &RawWebTls) -> Result<TlsAcceptor, WebConfigError> {
    let refused = |key, what: String| WebConfigError::Value { key, what };
    let pem = file("dicomweb.tls.certificate", &files.certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| refused("dicomweb.tls.certificate", format!("is no PEM certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(&secret_file("dicomweb.tls.key", &files.key)?)
        .map_err(|error| refused("dicomweb.tls.key", format!("is no PEM key: {error}")))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| refused("dicomweb.tls", format!("certificate and key cannot be used: {error}")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn file(key: &'static str, path: &Path) -> Result<Vec<u8>, WebConfigError> {
    let read = |source| WebConfigError::Read { key, path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(WebConfigError::Value { key, what: format!("has {bytes} bytes, the limit is {FILE_BYTES_MAX}") });
    }
    std::fs::read(path).map_err(read)
}

/// Only its owner, and root's group for services, may read it.
fn secret_file(key: &'static str, path: &Path) -> Result<Vec<u8>, WebConfigError> {
    let read = |source| WebConfigError::Read { key, path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(read)?.permissions().mode();
    if mode & 0o037 != 0 {
        let what = format!("others may read or write it (mode {:o}): chmod 600 it", mode & 0o777);
        return Err(WebConfigError::Value { key, what });
    }
    file(key, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<WebConfig>, String> {
        let raw: RawWebConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        WebConfig::new(raw).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_unless_told_where_to_listen_and_open_only_on_loopback() {
        assert!(check("{}").unwrap().is_none());
        assert!(check(r#"{"listen":"127.0.0.1:8080"}"#).unwrap().is_some());
        for (text, key) in [
            (r#"{"listen":"0.0.0.0:8080"}"#, "dicomweb.tls"),
            (r#"{"credentials_file":"/nowhere"}"#, "dicomweb.listen"),
            (r#"{"listen":"127.0.0.1:1","credentials_file":"/nowhere"}"#, "dicomweb.credentials_file"),
            (r#"{"listen":"127.0.0.1:1","port":1}"#, "port"),
        ] {
            let error = check(text).err().unwrap();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_file_of_credentials_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "bearer 0123456789abcdef").unwrap();
        let text = serde_json::json!({ "listen": "127.0.0.1:1", "credentials_file": path }).to_string();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check(&text).err().unwrap().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(check(&text).unwrap().unwrap().credentials.are_needed());
    }
}
