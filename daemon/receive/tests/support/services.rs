//! What the tests of the services share: documents and holdings in memory, a box that can be stopped and started again on
//! them, a peer that is called back.

use super::{FolderInbox, Server, native, scu_config, uid};
use fovea_core::{
    Accepted, Document, DocumentKind, Documents, HeldInstance, Holdings, Inbox, PortError, Query, Row, Selection, Uid,
    sop_class,
};
use fovea_dimse::commitment::{self, Reference, Report, Request};
use fovea_dimse::{
    Association, CommandField, Context, ContextAnswer, DataSet, Element, Limits, Message, Proposal, Requested, Roles,
    Scu, Status, Terms, transfer_syntax,
};
use fovea_receive::{Config, Counters, Ports, RawConfig, RawPeer, Service, serve};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub const STEP: &str = "1.2.840.10008.3.1.2.3.3";
pub const STUDY_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
pub const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
pub const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Documents in memory, with a switch to misbehave.
#[derive(Default)]
pub struct Papers {
    held: Mutex<BTreeMap<(DocumentKind, String), Vec<u8>>>,
    /// Writes fail.
    pub broken: AtomicBool,
}

impl Papers {
    pub fn count(&self, kind: DocumentKind) -> usize {
        self.held.lock().unwrap().keys().filter(|(held, _)| *held == kind).count()
    }

    fn writable(&self) -> Result<(), PortError> {
        match self.broken.load(SeqCst) {
            true => Err(PortError::OutOfSpace { detail: "as told".into() }),
            false => Ok(()),
        }
    }
}

impl Documents for Papers {
    fn put_document(&self, kind: DocumentKind, document: Document) -> Result<(), PortError> {
        self.writable()?;
        self.held.lock().unwrap().insert((kind, document.key), document.content);
        Ok(())
    }

    fn remove_document(&self, kind: DocumentKind, key: &str) -> Result<(), PortError> {
        self.writable()?;
        self.held.lock().unwrap().remove(&(kind, key.to_owned()));
        Ok(())
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Document>, PortError> {
        let held = self.held.lock().unwrap().get(&(kind, key.to_owned())).cloned();
        Ok(held.map(|content| Document { key: key.to_owned(), content }))
    }

    fn documents(&self, kind: DocumentKind, after: &str, limit: usize) -> Result<Vec<Document>, PortError> {
        let held = self.held.lock().unwrap();
        let of_kind = held.iter().filter(|((held, key), _)| *held == kind && key.as_str() > after);
        let documents = of_kind.map(|((_, key), content)| Document { key: key.clone(), content: content.clone() });
        Ok(documents.take(limit).collect())
    }
}

/// What the folder holds, each instance a row of its own; keys are not matched.
pub struct Shelf(pub Arc<FolderInbox>);

fn held_instance(accepted: &Accepted) -> HeldInstance {
    HeldInstance {
        study_uid: accepted.header.study_uid.clone(),
        series_uid: accepted.header.series_uid.clone(),
        sop_instance_uid: accepted.header.sop_instance_uid.clone(),
        sop_class_uid: accepted.header.sop_class_uid.clone(),
        transfer_syntax_uid: accepted.header.transfer_syntax_uid.clone(),
        file_bytes: accepted.file_bytes,
    }
}

impl Holdings for Shelf {
    fn find(&self, query: &Query) -> Result<Vec<Row>, PortError> {
        let row = |accepted: Accepted| {
            let header = accepted.header;
            Row::from([
                (0x0008_0018, header.sop_instance_uid.to_string()),
                (0x0020_000D, header.study_uid.to_string()),
                (0x0010_0010, "Jürgen^A".to_owned()),
            ])
        };
        Ok(self.0.held().into_iter().map(row).take(query.limit).collect())
    }

    fn select(&self, selection: &Selection, limit: usize) -> Result<Vec<HeldInstance>, PortError> {
        let among = |wanted: &[Uid], uid: &Uid| wanted.is_empty() || wanted.contains(uid);
        let fits = |held: &HeldInstance| {
            among(&selection.study_uids, &held.study_uid)
                && among(&selection.series_uids, &held.series_uid)
                && among(&selection.sop_instance_uids, &held.sop_instance_uid)
        };
        Ok(self.0.held().iter().map(held_instance).filter(fits).take(limit).collect())
    }

    fn open(&self, sop_instance_uid: &Uid) -> Result<File, PortError> {
        self.0.open_object(sop_instance_uid)
    }
}

/// The calling peer of the tests, granted everything.
pub fn viewer() -> RawPeer {
    RawPeer { services: Some(Service::ALL.to_vec()), ..RawPeer::titled("SCOPE") }
}

/// A box on these documents and this inbox.
pub async fn box_on(
    inbox: &Arc<FolderInbox>,
    papers: &Arc<Papers>,
    committed: Option<Arc<dyn commitment::Listener>>,
    change: impl FnOnce(&mut RawConfig),
) -> Server {
    let mut raw = RawConfig { peers: vec![viewer()], ..RawConfig::default() };
    change(&mut raw);
    let config = Arc::new(Config::try_from(raw).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (counters, doorbell, stop) = (Arc::new(Counters::default()), Arc::new(Notify::new()), CancellationToken::new());
    let holdings = Arc::new(Shelf(Arc::clone(inbox)));
    let ports = Ports { inbox: inbox.clone(), documents: Some(papers.clone()), holdings: Some(holdings), committed };
    let serving = serve(listener, config, Arc::clone(&counters), ports, Arc::clone(&doorbell), stop.clone());
    Server { address, inbox: Arc::clone(inbox), counters, doorbell, stop, served: tokio::spawn(serving) }
}

/// A box on fresh ones.
pub async fn fresh_box(change: impl FnOnce(&mut RawConfig)) -> (Server, Arc<Papers>) {
    let papers = Arc::new(Papers::default());
    (box_on(&FolderInbox::new(), &papers, None, change).await, papers)
}

pub fn small(class: &str) -> Context {
    Context { sop_class_uid: uid(class), transfer_syntax_uids: vec![uid(transfer_syntax::IMPLICIT_VR_LE)] }
}

/// An association for storage in both native syntaxes and for these classes; SCP of `given` for C-GET.
pub async fn associate(server: &Server, classes: &[&str], given: bool) -> Scu {
    let mut contexts = super::contexts();
    contexts.extend(classes.iter().map(|class| small(class)));
    let roles = given.then(|| (uid(sop_class::SECONDARY_CAPTURE), Roles { scu: true, scp: true }));
    let proposal = Proposal { roles: roles.into_iter().collect(), user_identity: None };
    Scu::connect_as(&scu_config(server.address.clone()), &contexts, &proposal).await.unwrap()
}

pub async fn store(scu: &mut Scu, instance: &str, syntax: &str) {
    let class = uid(sop_class::SECONDARY_CAPTURE);
    let data = native(instance, syntax, 300_000);
    let status = scu.store(&class, &uid(instance), &uid(syntax), data.as_slice()).await.unwrap();
    assert!(status.is_success(), "{status}");
}

pub fn reference(class: &str, instance: &str) -> Reference {
    Reference { sop_class_uid: uid(class), sop_instance_uid: uid(instance) }
}

pub fn request(transaction: &str, instances: &[&str]) -> Request {
    let references = instances.iter().map(|instance| reference(sop_class::SECONDARY_CAPTURE, instance)).collect();
    Request { transaction_uid: uid(transaction), references }
}

pub async fn ask(scu: &mut Scu, request: &Request) -> Status {
    let (class, instance) = (commitment::class(), commitment::instance());
    scu.n_action(&class, &instance, commitment::ACTION_REQUEST, &request.to_data_set()).await.unwrap().status
}

/// The report that comes on this association, answered.
pub async fn report_here(scu: &mut Scu, answer: Status) -> Option<Report> {
    let event = scu.next_event_report(Duration::from_secs(3)).await.unwrap()?;
    scu.answer_event(&event, answer).await.unwrap();
    Some(Report::from_data_set(event.event_type, &event.data_set.unwrap()).unwrap())
}

/// Accepts everything, and lets the one that calls be SCP.
pub struct Anything;

impl Terms for Anything {
    fn context(&self, _: &Uid, syntaxes: &[Uid]) -> ContextAnswer {
        ContextAnswer::Accept(syntaxes[0].clone())
    }

    fn roles(&self, _: &Uid, proposed: Roles) -> Roles {
        proposed
    }
}

/// Where the peer of the tests listens.
pub struct Peer {
    listener: TcpListener,
    pub address: String,
}

impl Peer {
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    /// The next association that the box opens.
    pub async fn called(&self) -> Association<TcpStream> {
        let accepted = tokio::time::timeout(Duration::from_secs(10), self.listener.accept()).await;
        let (stream, _) = accepted.expect("the box calls back").unwrap();
        let idle = Duration::from_secs(10);
        let limits = Limits { pdu_bytes_max: 16_384, associate: idle, idle, message: idle };
        let Ok(requested) = Requested::read(stream, limits).await else { panic!("no association request") };
        let Ok(association) = requested.accept_on(&Anything).await else { panic!("no association") };
        association
    }

    /// The next report that the box tells, answered with `status`; then the association is released by the box.
    pub async fn told(&self, status: Status) -> Report {
        let mut association = self.called().await;
        assert!(association.contexts()[0].requestor.scp, "the box proposes itself as SCP");
        let message = association.next_command().await.unwrap().expect("a report");
        assert_eq!(message.command.field(), Ok(CommandField::N_EVENT_REPORT_RQ));
        let data_set = association.read_data_set(&message).await.unwrap().unwrap();
        association.respond(&message, status).await.unwrap();
        while association.next_command().await.is_ok_and(|message| message.is_some()) {}
        Report::from_data_set(message.command.u16(Element::EventType).unwrap(), &data_set).unwrap()
    }
}

/// An identifier at a level with keys.
pub fn identifier(level: &str, keys: &[(u32, &str)]) -> DataSet {
    let start = DataSet::default().with_text(0x0008_0052, level);
    keys.iter().fold(start, |identifier, (tag, value)| identifier.with_text(*tag, value))
}

pub fn counter(message: &Message, element: Element) -> u16 {
    message.command.u16(element).unwrap_or(u16::MAX)
}
