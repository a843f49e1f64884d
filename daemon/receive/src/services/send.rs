//! Associations that we open to a peer: to tell it of commitments, and to send it what it or another asked for.

use crate::Config;
use crate::peers::Peer;
use fovea_core::AeTitle;
use fovea_dimse::ScuConfig;
use std::time::Duration;

/// For name resolution and TCP: peers are in the same building.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a peer that owes us an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The peer of this title that can be called back.
pub(crate) fn peer_to_call<'a>(config: &'a Config, title: &AeTitle) -> Option<&'a Peer> {
    config.peers.iter().find(|peer| peer.ae_title == *title && peer.reply_to.is_some())
}

/// How to call it; none where it cannot be.
pub(crate) fn scu_config(config: &Config, peer: &Peer) -> Option<ScuConfig> {
    let reply_to = peer.reply_to.as_ref()?;
    Some(ScuConfig {
        address: reply_to.address.clone(),
        called_ae: peer.ae_title.clone(),
        calling_ae: config.ae_title.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: RESPONSE_TIMEOUT,
        max_pdu_bytes: config.limits.pdu_bytes_max,
        tls: reply_to.tls.clone(),
    })
}
