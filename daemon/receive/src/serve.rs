//! The listener: connections, places for associations, the end.
//!
//! In: connections. Out: one task for each, and its session.
//! Promise: 128 associations need no thread of their own; a flood of silent connections or idle associations does
//! not keep a good one out; when asked to stop, the object in hand of each session is finished first.

use crate::Config;
use crate::classes;
use crate::counters::{Counters, add};
use crate::object::Intake;
use crate::session::{Ended, Pace, Session};
use fovea_core::{Inbox, chain};
use fovea_dimse::{AcceptError, AssociationError, PeerCertificate, Rejection, Requested, TlsServer, Transport};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
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
}

/// After so many failures to accept in a row, each [`ACCEPT_PAUSE`] after the other, the listener gives up.
const ACCEPT_FAILURES_MAX: u32 = 600;
/// Out of file descriptors: some come back when sessions end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
/// returns. Rings `doorbell` after each newly accepted object.
///
/// # Errors
/// [`ReceiveError`] when the listener fails for good.
pub async fn serve(
    doors: impl Into<Doors>,
    config: Arc<Config>,
    counters: Arc<Counters>,
    inbox: Arc<dyn Inbox>,
    doorbell: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), ReceiveError> {
    let doors = doors.into();
    let intake = Intake::new(inbox, doorbell, Arc::clone(&counters), config.object_bytes_max);
    let places = Places::new(config.associations_max, config.give_way_after, Arc::clone(&counters));
    let connections = Arc::new(Semaphore::new(config.connections_max));
    let mut sessions = JoinSet::new();
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
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            add(&counters.connections_refused);
            continue;
        };
        let connection = Connection {
            config: Arc::clone(&config),
            intake: Arc::clone(&intake),
            places: Arc::clone(&places),
            from: from.ip(),
            stop: stop.clone(),
        };
        sessions.spawn(async move {
            connection.run(stream, tls).await;
            drop(permit);
        });
    };
    while sessions.join_next().await.is_some() {}
    ended
}

/// One connection, from its first byte to its last.
struct Connection {
    config: Arc<Config>,
    intake: Arc<Intake>,
    places: Arc<Places>,
    from: IpAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsServer>) {
        // A response is one write; Nagle would hold it for the peer's delayed acknowledgement.
        let _slower_without = stream.set_nodelay(true);
        let counters = Arc::clone(&self.intake.counters);
        let Some((stream, certificate)) = self.secure(stream, tls).await else { return };
        let requested = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            requested = Requested::read(stream, self.config.limits) => requested,
        };
        let requested = match requested {
            Ok(requested) => requested,
            Err(error) => return self.no_association(&error),
        };
        let (requested, place) = match self.admit(&requested, certificate.as_ref()) {
            Ok(place) => (requested, place),
            Err(rejection) => {
                add(&counters.associations_refused);
                log::warn!("association from {} ({}) rejected: {rejection}", requested.calling_ae(), self.from);
                return requested.reject(rejection).await;
            }
        };
        match requested.accept(classes::answer).await {
            Err(error) => self.no_association(&error),
            Ok(association) => {
                add(&counters.associations_total);
                let peer = association.calling_ae().clone();
                let pace = Pace {
                    bytes_per_s_min: self.config.object_bytes_per_s_min,
                    pdu_bytes_max: self.config.limits.pdu_bytes_max.into(),
                };
                let session = Session { association, intake: self.intake, place: &place, stop: self.stop, pace };
                match session.run().await {
                    Ok(Ended::Released) => log::debug!("association from {peer} released"),
                    Ok(Ended::GaveWay) => log::info!("idle association from {peer} gave way to another"),
                    Ok(Ended::Stopped) => log::debug!("association from {peer} ended: we stop"),
                    Err(error) => {
                        add(&counters.associations_broken);
                        log::warn!("association from {peer} ({}) broke: {}", self.from, chain(&error));
                    }
                }
            }
        }
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
    ) -> Result<Place, Rejection> {
        if !self.config.any_called_ae && requested.called_ae() != self.config.ae_title.as_str() {
            return Err(Rejection::CalledAe);
        }
        if !self.config.admits(requested.calling_ae(), self.from, certificate) {
            return Err(Rejection::CallingAe);
        }
        self.places.take().ok_or(Rejection::LocalLimit)
    }

    fn no_association(&self, error: &AcceptError) {
        // A connection that closes without a word is a port check of a monitor: not worth a line.
        if !matches!(error, AcceptError::Handshake { source: AssociationError::Closed }) {
            add(&self.intake.counters.associations_refused);
            log::warn!("no association with {}: {}", self.from, chain(error));
        }
    }
}

/// The places for associations. When all are taken, the one that has been idle longest gives way, if it was idle
/// long enough; so 500 idle associations do not keep a good one out, and busy ones are never disturbed.
pub(crate) struct Places {
    taken: Mutex<Vec<Arc<PlaceState>>>,
    places_max: usize,
    give_way_after: Duration,
    counters: Arc<Counters>,
    started: Instant,
}

struct PlaceState {
    /// Milliseconds after `started`; [`BUSY`] while a message is in hand.
    idle_since_ms: AtomicU64,
    give_way: CancellationToken,
}

const BUSY: u64 = u64::MAX;

/// A taken place; dropped, it is free.
pub(crate) struct Place {
    places: Arc<Places>,
    state: Arc<PlaceState>,
}

impl Places {
    pub(crate) fn new(places_max: usize, give_way_after: Duration, counters: Arc<Counters>) -> Arc<Self> {
        let (taken, started) = (Mutex::default(), Instant::now());
        Arc::new(Self { taken, places_max, give_way_after, counters, started })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<PlaceState>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.len() >= self.places_max {
            let idle_since = |state: &Arc<PlaceState>| state.idle_since_ms.load(Relaxed);
            let (at, longest) = taken.iter().enumerate().min_by_key(|(_, state)| idle_since(state))?;
            let since_ms = idle_since(longest);
            if since_ms == BUSY || self.now_ms() - since_ms < self.give_way_after.as_millis() as u64 {
                return None;
            }
            longest.give_way.cancel();
            taken.swap_remove(at);
            add(&self.counters.associations_gave_way);
        }
        let state = Arc::new(PlaceState { idle_since_ms: self.now_ms().into(), give_way: CancellationToken::new() });
        taken.push(Arc::clone(&state));
        self.counters.associations_now.store(taken.len() as u64, Relaxed);
        Some(Place { places: Arc::clone(self), state })
    }
}

impl Place {
    /// No message is in hand from now on.
    pub(crate) fn idle(&self) {
        self.state.idle_since_ms.store(self.places.now_ms(), Relaxed);
    }

    /// A message is in hand.
    pub(crate) fn busy(&self) {
        self.state.idle_since_ms.store(BUSY, Relaxed);
    }

    /// Returns when the place is wanted for another.
    pub(crate) async fn wanted(&self) {
        self.state.give_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.retain(|state| !Arc::ptr_eq(state, &self.state));
        self.places.counters.associations_now.store(taken.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_gives_the_place_of_the_longest_idle_and_never_of_a_busy_one() {
        let counters = Arc::new(Counters::default());
        let places = Places::new(2, Duration::from_millis(20), Arc::clone(&counters));
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none(), "both are fresh");
        std::thread::sleep(Duration::from_millis(30));
        first.busy();
        let third = places.take().expect("the second gives way");
        assert!(second.state.give_way.is_cancelled() && !first.state.give_way.is_cancelled());
        drop(second);
        assert_eq!(counters.counts().associations_now, 2);
        std::thread::sleep(Duration::from_millis(30));
        third.busy();
        assert!(places.take().is_none(), "all are busy");
        drop((first, third));
        assert_eq!((counters.counts().associations_now, counters.counts().associations_gave_way), (0, 1));
    }
}
