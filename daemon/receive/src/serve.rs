//! The listener: connections, places for associations, the end.
//!
//! In: connections. Out: one task for each, and its session.
//! Promise: 128 associations need no thread of their own; a flood of silent connections, of idle or of dripping associations
//! does not keep a good one out (places); when asked to stop, the object in hand of each session is finished first.

use crate::Config;
use crate::counters::{Counters, add};
use crate::object::Intake;
use crate::places::{Handshakes, Place, Places};
use crate::services::announce::OwedHere;
use crate::services::{Caller, Hub, Offer, Ports, blocking};
use crate::session::{Ended, Pace, Session, commitment_context};
use fovea_core::{PortError, chain};
use fovea_dimse::{
    AcceptError, Association, AssociationError, PeerCertificate, Rejection, Requested, TlsServer, Transport,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why the listener ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The listening socket does not work any more.
    #[error("accept connections on {listen}")]
    Accept {
        /// Where we listened.
        listen: SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What was promised before the start cannot be read.
    #[error("read the commitments and steps of before")]
    Promises {
        /// Why not.
        source: PortError,
    },
}

/// After so many failures to accept in a row, each [`ACCEPT_PAUSE`] after the other, the listener gives up.
const ACCEPT_FAILURES_MAX: u32 = 600;
/// Out of file descriptors: some come back when sessions end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Within this a handshake that was given up has let go of its connection.
const ROOM_SOON: Duration = Duration::from_secs(2);

/// Where connections come in.
pub struct Doors {
    /// Plain TCP.
    pub plain: TcpListener,
    /// TLS.
    pub secured: Option<(TcpListener, TlsServer)>,
}

impl From<TcpListener> for Doors {
    fn from(plain: TcpListener) -> Self {
        Self { plain, secured: None }
    }
}

impl Doors {
    /// The next connection, from whom, and with what it must shake hands. Cancel-safe.
    async fn next(&self) -> std::io::Result<(TcpStream, SocketAddr, Option<TlsServer>)> {
        let Some((listener, server)) = &self.secured else {
            let (stream, from) = self.plain.accept().await?;
            return Ok((stream, from, None));
        };
        let (accepted, server) = tokio::select! { // cancel-safe: accept is
            accepted = self.plain.accept() => (accepted, None),
            accepted = listener.accept() => (accepted, Some(server.clone())),
        };
        let (stream, from) = accepted?;
        Ok((stream, from, server))
    }
}

/// Serves associations on `doors` until `stop` fires; then ends idle ones, finishes the objects in hand, and
/// returns. Rings `doorbell` after each newly accepted object. Services whose port is missing are not offered.
///
/// # Errors
/// [`ReceiveError`] when the listener fails for good, or what was promised before cannot be read.
pub async fn serve(
    doors: impl Into<Doors>,
    config: Arc<Config>,
    counters: Arc<Counters>,
    ports: impl Into<Ports>,
    doorbell: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), ReceiveError> {
    let (doors, ports) = (doors.into(), ports.into());
    let hub = {
        let (config, ports, counters) = (Arc::clone(&config), ports.clone(), Arc::clone(&counters));
        blocking(move || Hub::load(config, ports, counters)).await
    };
    let hub = hub.map_err(|source| ReceiveError::Promises { source })?;
    let intake = Intake::new(ports.inbox, doorbell, Arc::clone(&counters), config.object_bytes_max);
    let places = Places::new(config.associations_max, config.give_way_after, Arc::clone(&counters));
    let connections = Arc::new(Semaphore::new(config.connections_max));
    let (handshakes, mut told) = (Arc::new(Handshakes::default()), false);
    let (mut sessions, mut services) = (JoinSet::new(), JoinSet::new());
    hub.start(&mut services, &stop);
    let mut failures = 0;
    let ended = loop {
        let accepted = tokio::select! { // cancel-safe: neither branch loses anything when it is dropped
            biased;
            () = stop.cancelled() => break Ok(()),
            Some(_ended) = sessions.join_next() => continue,
            accepted = doors.next() => accepted,
        };
        let (stream, from, tls) = match accepted {
            Ok(accepted) => accepted,
            Err(source) if failures >= ACCEPT_FAILURES_MAX => {
                break Err(ReceiveError::Accept { listen: config.listen, source });
            }
            Err(_) => {
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failures = 0;
        let room = match Arc::clone(&connections).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if handshakes.oldest_gives_way() => None, // soon
            Err(_) => {
                add(&counters.connections_refused);
                if !told {
                    log::warn!(
                        "connections are refused: all {} of receive.connections_max are taken",
                        config.connections_max
                    );
                }
                told = true;
                continue;
            }
        };
        told = false;
        let connection = Connection {
            hub: Arc::clone(&hub),
            intake: Arc::clone(&intake),
            places: Arc::clone(&places),
            handshakes: Arc::clone(&handshakes),
            from: from.ip(),
            stop: stop.clone(),
        };
        let connections = Arc::clone(&connections);
        sessions.spawn(async move {
            let soon = || tokio::time::timeout(ROOM_SOON, connections.acquire_owned());
            let permit = match room {
                Some(permit) => Some(permit),
                None => soon().await.ok().and_then(Result::ok),
            };
            match permit {
                Some(_permit) => connection.run(stream, tls).await,
                None => add(&connection.intake.counters.connections_refused),
            }
        });
    };
    while sessions.join_next().await.is_some() {}
    if ended.is_ok() {
        while services.join_next().await.is_some() {}
    }
    ended
}

/// An association that is asked for, or why it is not.
type Opened = Result<Requested<Transport>, AcceptError>;

/// One connection, from its first byte to its last.
struct Connection {
    hub: Arc<Hub>,
    intake: Arc<Intake>,
    places: Arc<Places>,
    handshakes: Arc<Handshakes>,
    from: IpAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsServer>) {
        // A response is one write; Nagle would hold it for the peer's delayed acknowledgement.
        let _slower_without = stream.set_nodelay(true);
        let counters = Arc::clone(&self.intake.counters);
        let handshake = self.handshakes.begin();
        let opened = tokio::select! { // what a dropped handshake loses does not matter
            biased;
            () = self.stop.cancelled() => return,
            () = handshake.wanted() => {
                add(&counters.connections_refused);
                log::info!("a slow handshake of {} gave way: receive.connections_max are open", self.from);
                return;
            }
            opened = self.open(stream, tls) => opened,
        };
        let Some((requested, certificate)) = opened else { return };
        let requested = match requested {
            Ok(requested) => requested,
            Err(error) => return self.no_association(&error),
        };
        let admitted = self.admit(&requested, certificate.as_ref());
        drop(handshake);
        let (caller, place) = match admitted {
            Ok(admitted) => admitted,
            Err(rejection) => {
                add(&counters.associations_refused);
                log::warn!("association from {} ({}) rejected: {rejection}", requested.calling_ae(), self.from);
                return requested.reject(rejection).await;
            }
        };
        let hub = Arc::clone(&self.hub);
        let offer = Offer { granted: caller.services, ports: &hub.ports, confirms_identity: caller.is_identified };
        match requested.accept_on(&offer).await {
            Err(error) => self.no_association(&error),
            Ok(association) => {
                add(&counters.associations_total);
                let (peer, from) = (association.calling_ae().clone(), self.from);
                match self.session(association, caller, &place).run().await {
                    Ok(Ended::Released) => log::debug!("association from {peer} released"),
                    Ok(Ended::GaveWay) => log::info!("idle association from {peer} gave way to another"),
                    Ok(Ended::Stopped) => log::debug!("association from {peer} ended: we stop"),
                    Err(error) => {
                        add(&counters.associations_broken);
                        log::warn!("association from {peer} ({from}) broke: {}", chain(&error));
                    }
                }
            }
        }
    }

    fn session(self, association: Association<Transport>, caller: Caller, place: &Place) -> Session<'_> {
        let pace = Pace {
            bytes_per_s_min: self.hub.config.object_bytes_per_s_min,
            pdu_bytes_max: self.hub.config.limits.pdu_bytes_max.into(),
        };
        let tells = commitment_context(&association).and(self.hub.commitments.clone());
        let owed = OwedHere::new(tells, association.calling_ae());
        let (studies, stop) = (BTreeSet::new(), self.stop);
        Session {
            association,
            hub: self.hub,
            intake: self.intake,
            caller,
            place,
            stop,
            pace,
            owed,
            studies,
            store_id: 0,
        }
    }

    /// Until we know who wants what; none where the connection failed before.
    async fn open(&self, stream: TcpStream, tls: Option<TlsServer>) -> Option<(Opened, Option<PeerCertificate>)> {
        let (stream, certificate) = self.secure(stream, tls).await?;
        Some((Requested::read(stream, self.hub.config.limits).await, certificate))
    }

    /// Shakes hands where the door asks for it; none where it failed or we stop.
    async fn secure(&self, stream: TcpStream, tls: Option<TlsServer>) -> Option<(Transport, Option<PeerCertificate>)> {
        let Some(tls) = tls else { return Some((stream.into(), None)) };
        let shaken = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            shaken = tls.accept(stream) => shaken,
        };
        match shaken {
            Ok((transport, certificate)) => Some((transport, Some(certificate))),
            Err(error) => {
                add(&self.intake.counters.connections_refused);
                log::warn!("no connection with {}: {}", self.from, chain(&error));
                None
            }
        }
    }

    /// Checks who calls whom, and takes a place.
    fn admit(
        &self,
        requested: &Requested<Transport>,
        certificate: Option<&PeerCertificate>,
    ) -> Result<(Caller, Place), Rejection> {
        let config = &self.hub.config;
        if !config.any_called_ae && requested.called_ae() != config.ae_title.as_str() {
            return Err(Rejection::CalledAe);
        }
        let admitted = config.admits(requested.calling_ae(), self.from, certificate).ok_or(Rejection::CallingAe)?;
        let user = admitted.peer.and_then(|at| config.peers[at].user.as_ref());
        if user.is_some_and(|user| !user.is(requested.user_identity().as_ref())) {
            return Err(Rejection::NoReason);
        }
        let caller = self.hub.caller(admitted).ok_or(Rejection::LocalLimit)?;
        let place = self.places.take((self.from, requested.calling_ae().clone()));
        if place.is_none() {
            log::warn!("all {} places of receive.associations_max are in good use", self.hub.config.associations_max);
        }
        Ok((caller, place.ok_or(Rejection::LocalLimit)?))
    }

    fn no_association(&self, error: &AcceptError) {
        // A connection that closes without a word is a port check of a monitor: not worth a line.
        if !matches!(error, AcceptError::Handshake { source: AssociationError::Closed }) {
            add(&self.intake.counters.associations_refused);
            log::warn!("no association with {}: {}", self.from, chain(error));
        }
    }
}
