//! The encrypted port against DCMTK's sender: which profiles and certificates are served, and which are refused.
//! Standard: PS3.15 annexes B.9 to B.12 (BCP 195 and what came before it).

use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::Sample;
use fovea_tests::{dcmtk, ports};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a plain path").to_owned()
    }

    /// Writes NAME.key and NAME.pem.
    fn issue(&self, name: &str) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key_path = self.folder.join(format!("{name}.key"));
        std::fs::write(&key_path, key.serialize_pem()).expect("a file");
        std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        std::fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).expect("a file");
    }
}

/// A box that serves SCOPE over TLS on `port`.
fn secured_box(folder: &Path, authority: &Authority) -> (Node, u16) {
    authority.issue("BOX");
    let port = ports::free().expect("a free port");
    let node = Setup::new(folder)
        .expect("a box")
        .receive("peers = [{ ae_title = \"SCOPE\" }]")
        .config(&format!(
            "[receive.tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = {:?}\nkey = {:?}\nauthorities = {:?}",
            authority.file("BOX.pem"),
            authority.file("BOX.key"),
            authority.file("ca.pem")
        ))
        .start()
        .expect("the box starts");
    (node, port)
}

fn storescu(object: &Path, port: u16, calling: &str, tls: &[&str]) -> bool {
    let port = port.to_string();
    let mut arguments = vec!["-aec", "FOVEA", "-aet", calling, "-to", "10"];
    arguments.extend(tls);
    arguments.extend(["127.0.0.1", &port, object.to_str().expect("a plain path")]);
    dcmtk::run("storescu", &arguments).expect("storescu runs").success
}

#[test]
fn dcmtk_is_served_in_the_profiles_of_today_and_refused_in_those_of_yesterday() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, foreign) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "foreign"));
    let (node, port) = secured_box(folder.path(), &authority);
    authority.issue("SCOPE");
    foreign.issue("SCOPE");
    let object = Sample::secondary_capture(7).write(folder.path()).expect("an object");
    let (key, pem, ca) = (authority.file("SCOPE.key"), authority.file("SCOPE.pem"), authority.file("ca.pem"));
    let ours = ["+tls", &key, &pem, "+cf", &ca];
    let (foreign_key, foreign_pem) = (foreign.file("SCOPE.key"), foreign.file("SCOPE.pem"));
    let stranger = ["+tls", &foreign_key, &foreign_pem, "+cf", &ca];
    let nobody = ["+tla", "+cf", &ca];
    let with = |profile: &'static str| [&[profile], &ours[..]].concat();

    for profile in ["+py", "+px", "+pz"] {
        assert!(storescu(&object, port, "SCOPE", &with(profile)), "{profile} is a profile of today");
    }
    for profile in ["+pa", "+pn"] {
        assert!(!storescu(&object, port, "SCOPE", &with(profile)), "{profile} is too weak");
    }
    assert!(!storescu(&object, port, "CART", &ours), "the certificate bears another title");
    assert!(!storescu(&object, port, "SCOPE", &stranger), "a foreign authority vouches for it");
    assert!(!storescu(&object, port, "SCOPE", &nobody), "it shows no certificate");
    assert!(!storescu(&object, port, "SCOPE", &[]), "it speaks plain DICOM on the encrypted port");
    assert!(!storescu(&object, node.port(), "SCOPE", &ours), "it speaks TLS on the plain port");
    assert!(storescu(&object, node.port(), "SCOPE", &[]), "the plain port on loopback serves as ever");
}
