//! `[receive]`: where we listen, who may call, and the bounds.

use crate::peers::{Peer, RawPeer, peer};
use crate::services::Services;
use fovea_core::{AeTitle, chain};
use fovea_dimse::{Limits, PeerCertificate, TlsClient, TlsFiles, TlsServer};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `[receive]` as it is written. Every key has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Address and port.
    pub listen: String,
    /// Our AE title.
    pub ae_title: String,
    /// Serve peers that call us by another title.
    pub any_called_ae: bool,
    /// Who may call; empty for any, which is allowed on a loopback address only.
    pub peers: Vec<RawPeer>,
    /// Associations at once.
    pub associations_max: u16,
    /// Connections at once, with those whose association does not stand yet.
    pub connections_max: u16,
    /// From the connection to the association.
    pub associate_timeout_ms: u64,
    /// Longest silence of an association.
    pub idle_timeout_ms: u64,
    /// From the first to the last byte of one object.
    pub object_timeout_ms: u64,
    /// Fewer bytes a second than this, on average over one object, end the association; 0 for any.
    pub object_bytes_per_s_min: u64,
    /// When all associations are taken, one that was silent between messages for this long gives way to a newcomer.
    pub give_way_after_ms: u64,
    /// Longest PDU.
    pub pdu_bytes_max: u32,
    /// Longest object.
    pub object_mib_max: u64,
    /// A second port, encrypted; none where absent.
    pub tls: Option<RawTls>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:11112".to_owned(),
            ae_title: "FOVEA".to_owned(),
            any_called_ae: false,
            peers: Vec::new(),
            associations_max: 128,
            connections_max: 1024,
            associate_timeout_ms: 10_000,
            idle_timeout_ms: 120_000,
            object_timeout_ms: 1_800_000,
            object_bytes_per_s_min: 1024,
            give_way_after_ms: 2_000,
            pdu_bytes_max: 128 * 1024,
            object_mib_max: 4096,
            tls: None,
        }
    }
}

/// `[receive.tls]` as it is written: PEM files. Peers must show a certificate of one of the authorities.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// Address and port; 2762 is registered for DICOM over TLS.
    #[serde(default = "tls_listen")]
    pub listen: String,
    /// Our certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// Our private key, mode 600.
    pub key: PathBuf,
    /// Authorities whose certificates we believe.
    pub authorities: PathBuf,
}

fn tls_listen() -> String {
    "0.0.0.0:2762".to_owned()
}

/// The encrypted port.
#[derive(Clone)]
pub struct Secured {
    /// Where we listen.
    pub listen: SocketAddr,
    /// Our certificate and whom we believe.
    pub server: TlsServer,
    /// The same, for associations that we open to a peer.
    pub client: TlsClient,
}

/// Checked `[receive]`.
#[derive(Clone)]
pub struct Config {
    /// Where we listen.
    pub listen: SocketAddr,
    /// Our title.
    pub ae_title: AeTitle,
    /// Serve peers that call us by another title.
    pub any_called_ae: bool,
    /// Who may call; empty for any.
    pub peers: Vec<Peer>,
    /// Associations at once, at least 1.
    pub associations_max: usize,
    /// Connections at once, at least `associations_max`.
    pub connections_max: usize,
    /// Timers and PDU length of an association.
    pub limits: Limits,
    /// Lowest rate of one object, bytes a second, at most 1 MiB; 0 for any.
    pub object_bytes_per_s_min: u64,
    /// Silence between messages after which an association gives way when all are taken.
    pub give_way_after: Duration,
    /// Longest data set, bytes.
    pub object_bytes_max: u64,
    /// The encrypted port, if there is one.
    pub tls: Option<Secured>,
}

/// Which key of `[receive]` cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("receive.{key}: {what}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
}

pub(crate) fn error(key: &'static str, what: impl Into<String>) -> ConfigError {
    ConfigError { key, what: what.into() }
}

pub(crate) fn bounded(key: &'static str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(error(key, format!("is {value}, must be {least} to {most}")))
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        let listen: SocketAddr =
            raw.listen.parse().map_err(|_| error("listen", "must be an IP address and a port, as 127.0.0.1:11112"))?;
        let ae_title = AeTitle::new(&raw.ae_title).map_err(|source| error("ae_title", source.to_string()))?;
        if raw.peers.is_empty() && !listen.ip().is_loopback() {
            return Err(error("peers", "must name who may call when `listen` is not a loopback address"));
        }
        let millis = |key, value, most| bounded(key, value, 10, most).map(Duration::from_millis);
        let associations_max = bounded("associations_max", raw.associations_max.into(), 1, 1024)?;
        let connections = bounded("connections_max", raw.connections_max.into(), associations_max, 16_384)?;
        let limits = Limits {
            pdu_bytes_max: bounded("pdu_bytes_max", raw.pdu_bytes_max.into(), 4096, 1 << 20)? as u32,
            associate: millis("associate_timeout_ms", raw.associate_timeout_ms, 120_000)?,
            idle: millis("idle_timeout_ms", raw.idle_timeout_ms, 3_600_000)?,
            message: millis("object_timeout_ms", raw.object_timeout_ms, 86_400_000)?,
        };
        let tls = raw.tls.map(|tls| secured(tls, limits.associate)).transpose()?;
        let peers = raw.peers.into_iter().map(|raw| peer(raw, tls.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self {
            listen,
            ae_title,
            any_called_ae: raw.any_called_ae,
            peers,
            associations_max: associations_max as usize,
            connections_max: connections as usize,
            limits,
            object_bytes_per_s_min: bounded("object_bytes_per_s_min", raw.object_bytes_per_s_min, 0, 1 << 20)?,
            give_way_after: millis("give_way_after_ms", raw.give_way_after_ms, 3_600_000)?,
            object_bytes_max: bounded("object_mib_max", raw.object_mib_max, 1, 65_536)? << 20,
            tls,
        })
    }
}

fn secured(raw: RawTls, handshake_max: Duration) -> Result<Secured, ConfigError> {
    let listen =
        raw.listen.parse().map_err(|_| error("tls.listen", "must be an IP address and a port, as 0.0.0.0:2762"))?;
    let files = TlsFiles { certificate: raw.certificate, key: raw.key, authorities: raw.authorities };
    let unusable = |source| error("tls", chain(&source));
    let server = TlsServer::new(&files, handshake_max).map_err(unusable)?;
    Ok(Secured { listen, server, client: TlsClient::new(&files).map_err(unusable)? })
}

impl Config {
    /// This title may call from this address, with this certificate where the connection is encrypted; which of the peers
    /// it is then, none where any may call.
    ///
    /// An authority vouches for the names in a certificate, the caller alone for its title: one must follow from the
    /// other, or any cart of the clinic could speak as any other.
    #[must_use]
    pub fn admits(
        &self,
        calling_ae: &AeTitle,
        from: IpAddr,
        certificate: Option<&PeerCertificate>,
    ) -> Option<Admitted> {
        let bears = |name: &str| certificate.is_none_or(|certificate| certificate.is_named(name));
        let fits = |peer: &Peer| {
            let named = match peer.certificate.as_deref() {
                Some("*") => certificate.is_some(),
                Some(name) => certificate.is_some() && bears(name),
                None => bears(peer.ae_title.as_str()),
            };
            named && peer.ae_title == *calling_ae && peer.address.is_none_or(|address| address == from.to_canonical())
        };
        if self.peers.is_empty() {
            return bears(calling_ae.as_str()).then_some(Admitted { peer: None, services: Services::MODALITY });
        }
        let at = self.peers.iter().position(fits)?;
        Some(Admitted { peer: Some(at), services: self.peers[at].services })
    }
}

/// A caller that may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Which of the peers it is.
    pub peer: Option<usize>,
    /// What it is granted.
    pub services: Services,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(change: impl FnOnce(&mut RawConfig)) -> Result<Config, ConfigError> {
        let mut raw = RawConfig::default();
        change(&mut raw);
        Config::try_from(raw)
    }

    fn open(ae_title: &str) -> RawPeer {
        RawPeer::titled(ae_title)
    }

    fn tls(listen: &str) -> RawTls {
        let path = PathBuf::from("/nowhere/file.pem");
        RawTls { listen: listen.into(), certificate: path.clone(), key: path.clone(), authorities: path }
    }

    #[test]
    fn the_defaults_work_and_listen_on_loopback_only() {
        let config = raw(|_| {}).unwrap();
        assert!(config.listen.ip().is_loopback());
        assert_eq!((config.ae_title.as_str(), config.associations_max), ("FOVEA", 128));
        assert!(config.admits(&AeTitle::new("ANY").unwrap(), "127.0.0.1".parse().unwrap(), None).is_some());
    }

    #[test]
    fn an_error_names_its_key() {
        type Change = fn(&mut RawConfig);
        let cases: [(&str, Change); 14] = [
            ("listen", |c| c.listen = "localhost".into()),
            ("peers", |c| c.listen = "0.0.0.0:11112".into()),
            ("ae_title", |c| c.ae_title = "SEVENTEEN_LETTERS".into()),
            ("associations_max", |c| c.associations_max = 0),
            ("connections_max", |c| c.connections_max = 5),
            ("object_bytes_per_s_min", |c| c.object_bytes_per_s_min = 2 << 20),
            ("idle_timeout_ms", |c| c.idle_timeout_ms = 0),
            ("pdu_bytes_max", |c| c.pdu_bytes_max = 10),
            ("tls", |c| c.tls = Some(tls("127.0.0.1:0"))),
            ("tls.listen", |c| c.tls = Some(tls("2762"))),
            ("peers.reply_to", |c| c.peers = vec![RawPeer { reply_to: Some("cart".into()), ..open("A") }]),
            ("peers.reply_tls", |c| c.peers = vec![RawPeer { reply_tls: true, ..open("A") }]),
            ("peers.passcode", |c| c.peers = vec![RawPeer { passcode: Some("x".into()), ..open("A") }]),
            ("peers.address", |c| c.peers = vec![RawPeer { address: Some("x".into()), ..open("A") }]),
        ];
        for (key, change) in cases {
            assert_eq!(raw(change).err().unwrap().key, key);
        }
    }

    #[test]
    fn peers_are_admitted_by_title_and_address() {
        let config = raw(|c| {
            c.listen = "0.0.0.0:11112".into();
            c.peers = vec![RawPeer { address: Some("10.0.0.7".into()), ..open("SCOPE") }, open("CART")];
        })
        .unwrap();
        let ae = |text| AeTitle::new(text).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let admits = |title, address| config.admits(&ae(title), ip(address), None).is_some();
        assert!(admits("SCOPE", "10.0.0.7") && admits("SCOPE", "::ffff:10.0.0.7"));
        assert!(!admits("SCOPE", "10.0.0.8") && !admits("OTHER", "10.0.0.7"));
        assert!(admits("CART", "10.9.9.9"));
    }

    #[test]
    fn a_title_is_bound_to_the_names_in_the_certificate() {
        let named = |name: &str| PeerCertificate { names: vec![name.to_owned()] };
        let peers = |peers: Vec<RawPeer>| raw(|c| c.peers = peers).unwrap();
        let admits = |config: &Config, title, certificate: Option<&str>| {
            let certificate = certificate.map(named);
            config.admits(&AeTitle::new(title).unwrap(), "127.0.0.1".parse().unwrap(), certificate.as_ref()).is_some()
        };
        let bound = |name: &str| RawPeer { certificate: Some(name.into()), ..open("CART") };
        for (config, certificate, is_admitted) in [
            (peers(vec![]), Some("cart"), true),
            (peers(vec![]), Some("scope"), false),
            (peers(vec![open("CART")]), Some("CART"), true),
            (peers(vec![open("CART")]), Some("SCOPE"), false),
            (peers(vec![open("CART")]), None, true),
            (peers(vec![bound("cart.clinic.example")]), Some("cart.clinic.example"), true),
            (peers(vec![bound("cart.clinic.example")]), Some("CART"), false),
            (peers(vec![bound("cart.clinic.example")]), None, false),
            (peers(vec![bound("*")]), Some("whoever"), true),
            (peers(vec![bound("*")]), None, false),
        ] {
            assert_eq!(admits(&config, "CART", certificate), is_admitted, "{certificate:?}");
        }
    }
}
