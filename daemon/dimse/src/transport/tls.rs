//! TLS for associations: whom we prove to be, whom we believe.
//!
//! In: PEM files, connected sockets. Out: encrypted [`Transport`]s, and the names in the peer's certificate.
//! Promise: TLS 1.2 with forward secrecy and authenticated encryption, or 1.3; nothing older, nothing weaker, never a
//! fall back to plain. The whole handshake is over within its limit.
//! Standard: PS3.15 annexes B.9 to B.13 (BCP 195: RFC 9325), without the extensions for older peers.

use super::Transport;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longest PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where the material lies; all PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Our certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// Our private key (PKCS#8, PKCS#1 or SEC1, not encrypted); only its owner may read the file.
    pub key: PathBuf,
    /// Authorities whose certificates we believe; no other is.
    pub authorities: PathBuf,
}

/// Why TLS cannot be used, or did not come about. Texts name files and what a peer lacked, never key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not fit each other, or the library cannot use them.
    #[error("certificate and key cannot be used")]
    Material {
        /// Why not.
        source: tokio_rustls::rustls::Error,
    },
    /// The name to check the peer's certificate against is none.
    #[error("{name} is neither a host name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The handshake failed: a plain peer, old TLS, or a certificate that is expired, foreign or missing.
    #[error("the TLS handshake failed")]
    Handshake {
        /// How.
        source: io::Error,
    },
    /// The peer did not finish the handshake in time.
    #[error("the TLS handshake took longer than {limit_ms} ms")]
    Slow {
        /// The limit.
        limit_ms: u128,
    },
}

/// Names in a peer's certificate that an authority of ours vouches for: common name and DNS names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerCertificate {
    /// At most 64, each at most 255 bytes.
    pub names: Vec<String>,
}

impl PeerCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        // The library has verified it by now; what this parser cannot read has no names and is bound to no title.
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let dns = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        let names = common.chain(dns).filter(|name| name.len() <= 255).take(64).map(str::to_owned).collect();
        Self { names }
    }

    /// Whether `name` is one of its names; case does not count.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|held| held.eq_ignore_ascii_case(name))
    }
}

/// The accepting side: every peer must show a certificate of one of our authorities.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    limit: Duration,
}

impl TlsServer {
    /// Reads the files. `limit`: longest handshake.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn new(files: &TlsFiles, limit: Duration) -> Result<Self, TlsError> {
        let provider = provider();
        let authorities = Arc::new(authorities(&files.authorities)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
            .build()
            .map_err(|error| file(&files.authorities, error.to_string()))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(material)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
            .map_err(material)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), limit })
    }

    /// Shakes hands on a fresh connection.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] or [`TlsError::Slow`]; the connection is closed.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Transport, PeerCertificate), TlsError> {
        let stream = in_time(self.limit, self.acceptor.accept(stream)).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(PeerCertificate::of).unwrap_or_default();
        Ok((Transport::Tls(Box::new(TlsStream::Server(stream))), certificate))
    }
}

/// The calling side: shows our certificate, and believes only a peer with a certificate for the name that was called.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
}

impl TlsClient {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(material)?
            .with_root_certificates(authorities(&files.authorities)?)
            .with_client_auth_cert(certificates(&files.certificate)?, key(&files.key)?)
            .map_err(material)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Shows no certificate of ours: for servers that know us by something else, such as a token.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn nameless(authorities_file: &Path) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(material)?
            .with_root_certificates(authorities(authorities_file)?)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Shakes hands with the peer called `name`, a host name or IP address, within `limit`.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is closed.
    pub async fn connect(&self, stream: TcpStream, name: &str, limit: Duration) -> Result<Transport, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })?;
        let stream = in_time(limit, self.connector.connect(name, stream)).await?;
        Ok(Transport::Tls(Box::new(TlsStream::Client(stream))))
    }
}

async fn in_time<T>(limit: Duration, handshake: impl Future<Output = io::Result<T>>) -> Result<T, TlsError> {
    match timeout(limit, handshake).await {
        Ok(done) => done.map_err(|source| TlsError::Handshake { source }),
        Err(_) => Err(TlsError::Slow { limit_ms: limit.as_millis() }),
    }
}

/// Named here and not installed for the process: no other crate's choice can change ours.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn material(source: tokio_rustls::rustls::Error) -> TlsError {
    TlsError::Material { source }
}

fn file(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > PEM_BYTES_MAX {
        return Err(file(path, format!("has {length} bytes, a PEM file of at most {PEM_BYTES_MAX} is taken")));
    }
    std::fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(file(path, "holds no certificate (PEM, BEGIN CERTIFICATE)")),
        Err(error) => Err(file(path, format!("is no PEM file: {error}"))),
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| file(path, format!("holds a certificate that is no authority: {error}")))?;
    }
    Ok(roots)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    let mode = std::fs::metadata(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if mode.permissions().mode() & 0o077 != 0 {
        return Err(file(path, "may be read by others: chmod 600 it"));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| file(path, format!("holds no private key: {error}")))
}
