//! What a peer may ask besides storage, and what we need for the answers.
//!
//! In: the grants of the configuration, the ports. Out: the [`Offer`] that an association is negotiated by.
//! Promise: a service is offered only to a peer that is granted it, and only where its port is there.

pub(crate) mod announce;
mod answer;
pub(crate) mod commit;
pub(crate) mod find;
pub(crate) mod identifier;
pub(crate) mod retrieve;
pub(crate) mod send;
pub(crate) mod steps;
pub(crate) mod studies;

use crate::classes;
use crate::counters::Counters;
use crate::peers::{Peer, Throttle};
use crate::{Admitted, Config};
use commit::Commitments;
use fovea_core::{Documents, Holdings, Inbox, PortError, Uid};
use fovea_dimse::{ContextAnswer, Roles, Terms, commitment};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use steps::Steps;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Queries answered at once: each may hold some thousand rows.
const QUESTIONS_MAX: usize = 4;
/// Retrievals served at once: each holds its list of instances and reads the disk.
const RETRIEVALS_MAX: usize = 8;

/// What a peer may be granted; verification is everyone's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// C-STORE.
    Store,
    /// Storage commitment: to ask for it, and as an archive to tell of it.
    Commitment,
    /// Modality performed procedure steps.
    Steps,
    /// C-FIND. Its answers hold patient identity.
    Query,
    /// C-MOVE and C-GET. What they give holds patient identity.
    Retrieve,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Store, Self::Commitment, Self::Steps, Self::Query, Self::Retrieve];

    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Commitment => "commitment",
            Self::Steps => "steps",
            Self::Query => "query",
            Self::Retrieve => "retrieve",
        }
    }
}

/// A set of services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Services(u8);

impl Services {
    /// What a modality needs, and what tells it nothing of others' patients.
    pub const MODALITY: Self = Self::of(&[Service::Store, Service::Commitment, Service::Steps]);

    /// Those listed.
    #[must_use]
    pub const fn of(services: &[Service]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < services.len() {
            bits |= 1 << services[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// This one is in it.
    #[must_use]
    pub fn has(self, service: Service) -> bool {
        self.0 & 1 << service as u8 != 0
    }
}

/// The durable places that the services work on. Without documents there is no commitment and no step, without holdings
/// no query and no retrieval, without a listener no archive tells us what it commits to.
#[derive(Clone)]
pub struct Ports {
    /// Where objects go.
    pub inbox: Arc<dyn Inbox>,
    /// Where promises and steps are kept.
    pub documents: Option<Arc<dyn Documents>>,
    /// What viewers may ask for.
    pub holdings: Option<Arc<dyn Holdings>>,
    /// Who wants to know what archives commit to.
    pub committed: Option<Arc<dyn commitment::Listener>>,
}

impl From<Arc<dyn Inbox>> for Ports {
    fn from(inbox: Arc<dyn Inbox>) -> Self {
        Self { inbox, documents: None, holdings: None, committed: None }
    }
}

impl<I: Inbox + 'static> From<Arc<I>> for Ports {
    fn from(inbox: Arc<I>) -> Self {
        let inbox: Arc<dyn Inbox> = inbox;
        inbox.into()
    }
}

impl Ports {
    fn serve(&self, service: Service) -> bool {
        match service {
            Service::Store => true,
            Service::Commitment => self.documents.is_some() || self.committed.is_some(),
            Service::Steps => self.documents.is_some(),
            Service::Query | Service::Retrieve => self.holdings.is_some(),
        }
    }
}

/// What all sessions share besides the intake.
pub(crate) struct Hub {
    pub(crate) config: Arc<Config>,
    pub(crate) ports: Ports,
    pub(crate) counters: Arc<Counters>,
    pub(crate) commitments: Option<Arc<Commitments>>,
    pub(crate) steps: Option<Arc<Steps>>,
    pub(crate) questions: Semaphore,
    pub(crate) retrievals: Semaphore,
    /// For each peer of the configuration.
    peers: Vec<PeerLimits>,
}

/// What a peer may take up.
struct PeerLimits {
    associations: Option<Arc<Semaphore>>,
    throttle: Option<Arc<Throttle>>,
}

/// What one caller may do on its association.
pub(crate) struct Caller {
    pub(crate) services: Services,
    pub(crate) throttle: Option<Arc<Throttle>>,
    /// It said who it is, and that was checked.
    pub(crate) is_identified: bool,
    /// One of the associations that it may have at once.
    _place: Option<OwnedSemaphorePermit>,
}

impl Hub {
    /// Reads what was promised before the start. Blocks.
    ///
    /// # Errors
    /// When the documents cannot be read.
    pub(crate) fn load(config: Arc<Config>, ports: Ports, counters: Arc<Counters>) -> Result<Arc<Self>, PortError> {
        let (mut commitments, mut steps) = (None, None);
        if let Some(documents) = &ports.documents {
            let (documents, inbox) = (Arc::clone(documents), Arc::clone(&ports.inbox));
            steps = Some(Steps::load(Arc::clone(&documents), Arc::clone(&inbox), Arc::clone(&counters.studies))?);
            commitments = Some(Commitments::load(documents, inbox, Arc::clone(&counters))?);
        }
        let limits = |peer: &Peer| PeerLimits {
            associations: peer.associations_max.map(|most| Arc::new(Semaphore::new(most))),
            throttle: peer.bytes_per_s_max.map(|rate| Arc::new(Throttle::new(rate))),
        };
        let peers = config.peers.iter().map(limits).collect();
        let (questions, retrievals) = (Semaphore::new(QUESTIONS_MAX), Semaphore::new(RETRIEVALS_MAX));
        Ok(Arc::new(Self { config, ports, counters, commitments, steps, questions, retrievals, peers }))
    }

    /// Starts what works beside the associations.
    pub(crate) fn start(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        if let Some(commitments) = self.commitments.clone() {
            tasks.spawn(announce::announce(commitments, Arc::clone(&self.config), stop.clone()));
        }
        let studies = Arc::clone(&self.counters.studies);
        tasks.spawn(announce::keep_house(studies, self.commitments.clone(), self.steps.clone(), stop.clone()));
    }

    /// What an admitted caller may do; none where it has as many associations as it may.
    pub(crate) fn caller(&self, admitted: Admitted) -> Option<Caller> {
        let limits = admitted.peer.map(|at| &self.peers[at]);
        let place = match limits.and_then(|limits| limits.associations.clone()) {
            None => None,
            Some(places) => Some(places.try_acquire_owned().ok()?),
        };
        let throttle = limits.and_then(|limits| limits.throttle.clone());
        let is_identified = admitted.peer.is_some_and(|at| self.config.peers[at].user.is_some());
        Some(Caller { services: admitted.services, throttle, is_identified, _place: place })
    }
}

/// What one peer is offered on one association.
pub(crate) struct Offer<'a> {
    pub(crate) granted: Services,
    pub(crate) ports: &'a Ports,
    pub(crate) confirms_identity: bool,
}

impl Offer<'_> {
    fn offers(&self, service: Service) -> bool {
        self.granted.has(service) && self.ports.serve(service)
    }
}

impl Terms for Offer<'_> {
    fn context(&self, class: &Uid, syntaxes: &[Uid]) -> ContextAnswer {
        classes::answer(class, syntaxes, |service| self.offers(service))
    }

    fn roles(&self, class: &Uid, _proposed: Roles) -> Roles {
        if class.as_str() == commitment::CLASS {
            return Roles { scu: self.ports.documents.is_some(), scp: self.ports.committed.is_some() };
        }
        let is_given = classes::is_given(class);
        Roles { scu: !is_given || classes::is_stored(class), scp: is_given && self.offers(Service::Retrieve) }
    }

    fn confirms_identity(&self) -> bool {
        self.confirms_identity
    }
}

/// Runs a port call on a disk thread. A panic in there is raised again here.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modality_is_granted_nothing_that_tells_of_patients() {
        for service in Service::ALL {
            let tells = matches!(service, Service::Query | Service::Retrieve);
            assert_eq!(Services::MODALITY.has(service), !tells, "{}", service.name());
        }
        assert!(Services::of(&Service::ALL).has(Service::Retrieve));
    }
}
