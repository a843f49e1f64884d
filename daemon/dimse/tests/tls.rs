//! TLS between our two sides: who is let in, who is not, and how fast a refusal comes.

// Helpers of a test binary may panic; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used)]

use fovea_dimse::{PeerCertificate, TlsClient, TlsError, TlsFiles, TlsServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(5);

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Files of a certificate of this authority, believing in this authority.
    fn issue(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix: &str| self.folder.join(format!("{common_name}.{suffix}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(file("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        TlsFiles { certificate: file("pem"), key: file("key"), authorities: self.folder.join("ca.pem") }
    }
}

/// What the server says of one client, and what the client says.
async fn meet(
    server: &TlsFiles,
    client: &TlsFiles,
    name: &str,
) -> (Result<PeerCertificate, TlsError>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = TlsServer::new(server, LIMIT).unwrap();
    let serving = tokio::spawn(async move {
        let (mut transport, certificate) = server.accept(listener.accept().await.unwrap().0).await?;
        let mut word = [0; 5];
        transport.read_exact(&mut word).await.unwrap();
        transport.write_all(&word).await.unwrap();
        Ok(certificate)
    });
    let client = TlsClient::new(client).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let said = async {
        let mut transport = client.connect(stream, name, LIMIT).await.map_err(|error| fovea_core::chain(&error))?;
        transport.write_all(b"hello").await.map_err(|error| error.to_string())?;
        let mut word = [0; 5];
        // In TLS 1.3 a client hears of its refused certificate with its first read.
        transport.read_exact(&mut word).await.map_err(|error| error.to_string())?;
        assert_eq!(&word, b"hello");
        Ok(())
    };
    let said = said.await;
    (serving.await.unwrap(), said)
}

#[tokio::test]
async fn both_sides_prove_who_they_are_and_the_callers_names_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (box_files, cart) = (authority.issue("BOX", |_| ()), authority.issue("CART", |_| ()));
    let (seen, said) = meet(&box_files, &cart, "localhost").await;
    said.unwrap();
    let seen = seen.unwrap();
    assert!(seen.is_named("cart") && seen.is_named("localhost") && !seen.is_named("BOX"), "{seen:?}");
}

#[tokio::test]
async fn who_cannot_prove_it_is_refused_by_the_other_side() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, foreign) = (Authority::new(folder.path(), "authority"), Authority::new(folder.path(), "foreign"));
    let good = authority.issue("BOX", |_| ());
    let client = authority.issue("CART", |_| ());
    let past = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    };
    let expired = authority.issue("EXPIRED", past);
    let mut stranger = foreign.issue("STRANGER", |_| ());
    stranger.authorities = good.authorities.clone();

    for (what, files) in [("expired", &expired), ("of a foreign authority", &stranger)] {
        let (seen, said) = meet(&good, files, "localhost").await;
        assert!(matches!(seen, Err(TlsError::Handshake { .. })), "a caller's certificate is {what}");
        assert!(said.is_err(), "{what}");
        let (_, said) = meet(files, &client, "localhost").await;
        assert!(said.unwrap_err().contains("certificate"), "our archive's certificate is {what}");
    }
    let (_, said) = meet(&good, &client, "archive.example").await;
    assert!(said.unwrap_err().contains("certificate"), "the name in the certificate is another");
}

#[tokio::test]
async fn a_plain_or_silent_peer_on_the_encrypted_port_is_refused_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new(folder.path(), "authority").issue("BOX", |_| ());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = TlsServer::new(&files, Duration::from_millis(300)).unwrap();

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&[1, 0, 0, 0, 0, 68]).await.unwrap();
    plain.write_all(&[0; 68]).await.unwrap();
    let refused = server.accept(listener.accept().await.unwrap().0).await;
    assert!(matches!(refused, Err(TlsError::Handshake { .. })), "an A-ASSOCIATE-RQ is no TLS");

    let _silent = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let refused = server.accept(listener.accept().await.unwrap().0).await;
    assert!(matches!(refused, Err(TlsError::Slow { .. })));
    assert!(begun.elapsed() < LIMIT);
}

#[test]
fn a_file_that_cannot_serve_is_named_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new(folder.path(), "authority").issue("BOX", |_| ());
    let fails = |files: &TlsFiles| fovea_core::chain(&TlsServer::new(files, LIMIT).err().unwrap());
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(fails(&files).contains("chmod 600"));
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let swapped = TlsFiles { certificate: files.key.clone(), ..files.clone() };
    assert!(fails(&swapped).contains("holds no certificate"));
    let absent = TlsFiles { authorities: folder.path().join("none.pem"), ..files.clone() };
    assert!(fails(&absent).contains("none.pem"));
    let other = Authority::new(folder.path(), "other").issue("OTHER", |_| ());
    let mixed = TlsFiles { key: other.key, ..files };
    assert!(fails(&mixed).contains("certificate and key"));
}
