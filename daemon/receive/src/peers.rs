//! One entry of `[receive] peers`: who it is, what it may ask, how much it may send, where it is called back.
//!
//! In: the table as it is written. Out: a [`Peer`] that can be used without asking again.
//! Promise: no secret is shown by `Debug`; secrets are compared in a time that does not tell where they differ.

use crate::config::{ConfigError, Secured, bounded, error};
use crate::services::{Service, Services};
use fovea_core::{AeTitle, Sha256};
use fovea_dimse::{ScuTls, UserIdentity};
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest user name and passcode, bytes.
const IDENTITY_BYTES_MAX: usize = 256;

/// One entry of `peers` as it is written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPeer {
    /// Calling AE title.
    pub ae_title: String,
    /// Only from this IP address.
    #[serde(default)]
    pub address: Option<String>,
    /// Only over TLS, with this common name or DNS name in its certificate; `*` for any that our authorities vouch
    /// for. Where it is absent, a certificate must bear the AE title itself.
    #[serde(default)]
    pub certificate: Option<String>,
    /// What it may ask; `store`, `commitment` and `steps` where absent.
    #[serde(default)]
    pub services: Option<Vec<Service>>,
    /// `host:port` where it listens: for commitments that are told later, and as a destination of C-MOVE.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// Call it back over TLS, with the files of `[receive.tls]`.
    #[serde(default)]
    pub reply_tls: bool,
    /// It must say that it is this user (PS3.7 section D.3.3.7).
    #[serde(default)]
    pub username: Option<String>,
    /// And prove it by this passcode.
    #[serde(default)]
    pub passcode: Option<String>,
    /// Its associations at once; as many as there are for all where absent.
    #[serde(default)]
    pub associations_max: Option<u16>,
    /// Bytes a second of its objects, all associations together; any rate where absent.
    #[serde(default)]
    pub bytes_per_s_max: Option<u64>,
}

impl RawPeer {
    /// A peer with nothing but a title.
    #[must_use]
    pub fn titled(ae_title: &str) -> Self {
        Self {
            ae_title: ae_title.to_owned(),
            address: None,
            certificate: None,
            services: None,
            reply_to: None,
            reply_tls: false,
            username: None,
            passcode: None,
            associations_max: None,
            bytes_per_s_max: None,
        }
    }
}

impl fmt::Debug for RawPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawPeer").field("ae_title", &self.ae_title).finish_non_exhaustive()
    }
}

/// Who may call, and what it may ask.
#[derive(Clone)]
pub struct Peer {
    /// Calling AE title.
    pub ae_title: AeTitle,
    /// Only from here; from anywhere where none.
    pub address: Option<IpAddr>,
    /// Only over TLS with this name in the certificate, or any name where it is `*`.
    pub certificate: Option<String>,
    /// What it is granted.
    pub services: Services,
    /// Where it is called back; nowhere where none.
    pub reply_to: Option<ReplyTo>,
    /// Who it must say it is; nobody where none.
    pub user: Option<User>,
    /// Its associations at once.
    pub associations_max: Option<usize>,
    /// Bytes a second of its objects.
    pub bytes_per_s_max: Option<u64>,
}

/// Where a peer listens.
#[derive(Clone)]
pub struct ReplyTo {
    /// `host:port`.
    pub address: String,
    /// Encrypted; plain where none.
    pub tls: Option<ScuTls>,
}

/// A user name with or without its passcode.
#[derive(Clone)]
pub struct User {
    username: String,
    passcode: Option<String>,
}

impl User {
    /// Whether this is what a peer said. What is compared is digests, so that the time tells nothing of the secret.
    #[must_use]
    pub fn is(&self, said: Option<&UserIdentity>) -> bool {
        let digest = |text: &str| Sha256::of(text.as_bytes());
        let Some(UserIdentity { username: Some(username), passcode, .. }) = said else { return false };
        let named = digest(username) == digest(&self.username);
        let proved = match (&self.passcode, passcode) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => digest(ours) == digest(theirs),
            (Some(_), None) => false,
        };
        named && proved
    }
}

/// Checks one entry.
pub(crate) fn peer(raw: RawPeer, secured: Option<&Secured>) -> Result<Peer, ConfigError> {
    let ae_title = AeTitle::new(&raw.ae_title).map_err(|source| error("peers.ae_title", source.to_string()))?;
    let address = raw.address.as_deref().map(str::parse).transpose();
    let address = address.map_err(|_| error("peers.address", "must be an IP address"))?;
    if raw.certificate.as_ref().is_some_and(|name| name.is_empty() || name.len() > 255) {
        return Err(error("peers.certificate", "must be 1 to 255 bytes"));
    }
    let associations_max = raw.associations_max.map(|most| bounded("peers.associations_max", most.into(), 1, 1024));
    let rate = raw.bytes_per_s_max.map(|rate| bounded("peers.bytes_per_s_max", rate, 1024, 1 << 40));
    Ok(Peer {
        services: raw.services.as_deref().map_or(Services::MODALITY, Services::of),
        reply_to: reply_to(&raw, secured)?,
        user: user(&raw)?,
        associations_max: associations_max.transpose()?.map(|most| most as usize),
        bytes_per_s_max: rate.transpose()?,
        ae_title,
        address,
        certificate: raw.certificate,
    })
}

fn reply_to(raw: &RawPeer, secured: Option<&Secured>) -> Result<Option<ReplyTo>, ConfigError> {
    let Some(address) = raw.reply_to.clone() else {
        let unused = raw.reply_tls.then(|| error("peers.reply_tls", "is of no use without `reply_to`"));
        return unused.map_or(Ok(None), Err);
    };
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) || address.len() > 255 {
        return Err(error("peers.reply_to", "must be a host and a port, as 10.0.0.7:104"));
    }
    let tls = match (raw.reply_tls, secured) {
        (false, _) => None,
        (true, None) => return Err(error("peers.reply_tls", "needs the certificate of [receive.tls]")),
        (true, Some(secured)) => {
            let name = raw.certificate.clone().filter(|name| name != "*");
            Some(ScuTls { client: secured.client.clone(), name })
        }
    };
    Ok(Some(ReplyTo { address, tls }))
}

fn user(raw: &RawPeer) -> Result<Option<User>, ConfigError> {
    let fits = |text: &Option<String>| text.as_ref().is_none_or(|text| (1..=IDENTITY_BYTES_MAX).contains(&text.len()));
    if !fits(&raw.username) || !fits(&raw.passcode) {
        return Err(error("peers.username", format!("and passcode must be 1 to {IDENTITY_BYTES_MAX} bytes")));
    }
    match (&raw.username, &raw.passcode) {
        (None, Some(_)) => Err(error("peers.passcode", "is of no use without `username`")),
        (None, None) => Ok(None),
        (Some(username), passcode) => Ok(Some(User { username: username.clone(), passcode: passcode.clone() })),
    }
}

/// Holds a peer to its rate, over all its associations.
pub(crate) struct Throttle {
    bytes_per_s: u64,
    /// Until when what has come is paid for.
    paid_until: Mutex<Instant>,
}

/// A peer may be so far ahead of its rate before it waits: short objects come in bursts.
const BURST: Duration = Duration::from_secs(1);

impl Throttle {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, paid_until: Mutex::new(Instant::now()) }
    }

    /// Counts `bytes` that came; how long to wait before more is read.
    pub(crate) fn take(&self, bytes: usize) -> Duration {
        let now = Instant::now();
        let cost = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / self.bytes_per_s);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *paid_until = (*paid_until).max(now) + cost;
        paid_until.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(username: &str, passcode: Option<&str>) -> UserIdentity {
        UserIdentity {
            username: Some(username.into()),
            passcode: passcode.map(str::to_owned),
            wants_confirmation: false,
        }
    }

    #[test]
    fn a_user_is_known_by_name_and_passcode_and_by_nothing_less() {
        let user = User { username: "cart".into(), passcode: Some("open sesame".into()) };
        assert!(user.is(Some(&said("cart", Some("open sesame")))));
        for wrong in [said("cart", None), said("cart", Some("open")), said("other", Some("open sesame"))] {
            assert!(!user.is(Some(&wrong)));
        }
        assert!(!user.is(None));
        let token = UserIdentity { username: None, passcode: None, wants_confirmation: true };
        assert!(!user.is(Some(&token)));
        assert!(User { username: "cart".into(), passcode: None }.is(Some(&said("cart", None))));
    }

    #[test]
    fn inv_09_a_peer_shows_no_secret() {
        let raw = RawPeer { passcode: Some("open sesame".into()), ..RawPeer::titled("CART") };
        assert!(!format!("{raw:?}").contains("sesame"));
    }

    #[test]
    fn a_throttled_peer_waits_once_its_burst_is_used_up() {
        let throttle = Throttle::new(1_000_000);
        assert_eq!(throttle.take(900_000), Duration::ZERO);
        let wait = throttle.take(1_000_000);
        assert!((Duration::from_millis(800)..=Duration::from_millis(900)).contains(&wait), "{wait:?}");
    }
}
