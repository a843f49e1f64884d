//! An archive that does as it is told, and a task that sends to it from an outbox in memory.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should
#![allow(dead_code)] // each test file uses its part

use fovea_core::*;
use fovea_dimse::{AcceptError, CommandField, ContextAnswer, Element, Limits, Requested, Status, part10_prefix};
use fovea_store::MemoryStore;
use fovea_sync::{Clock, Config, Counters, Custodian, Destination, Ports, RawConfig, Snapshot, run};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub const SR: &str = sop_class::COMPREHENSIVE_SR;
pub const PHOTO: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";

pub fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

/// What the archive does with the nth copy (from 0) of an object.
#[derive(Clone, Copy, PartialEq)]
pub enum Answer {
    Say(u16),
    Abort,
    Silence,
}

pub type Behaviour = Arc<dyn Fn(&str, usize) -> Answer + Send + Sync>;

#[derive(Default)]
pub struct Seen {
    /// Objects that were answered with success, in order, with their bytes.
    pub stored: Vec<(String, Vec<u8>)>,
    /// All objects, with those that were refused or broken off.
    pub offered: Vec<String>,
    pub associations: usize,
}

pub struct Archive {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Archive {
    pub async fn start(behaviour: Behaviour) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), vec![SR, PHOTO], behaviour).await
    }

    pub async fn start_at(address: SocketAddr, classes: Vec<&'static str>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shared, classes) = (seen.clone(), Arc::new(classes));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, behaviour, classes) = (shared.clone(), behaviour.clone(), classes.clone());
                tokio::spawn(async move {
                    // A task that goes away in the middle is part of the game.
                    let _ended = serve(stream, &classes, &seen, &behaviour).await;
                });
            }
        });
        Self { address, seen, task }
    }

    pub fn stored(&self) -> Vec<String> {
        self.seen.lock().unwrap().stored.iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn offered(&self) -> Vec<String> {
        self.seen.lock().unwrap().offered.clone()
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn serve(
    stream: tokio::net::TcpStream,
    classes: &[&str],
    seen: &Mutex<Seen>,
    behaviour: &Behaviour,
) -> Result<(), AcceptError> {
    stream.set_nodelay(true).unwrap();
    let second = Duration::from_secs(5);
    let limits = Limits { pdu_bytes_max: 16 * 1024, associate: second, idle: second, message: second };
    let requested = Requested::read(stream, limits).await?;
    let mut association = requested
        .accept(|class, syntaxes| match classes.contains(&class.as_str()) {
            true => ContextAnswer::Accept(syntaxes[0].clone()),
            false => ContextAnswer::AbstractSyntaxNotSupported,
        })
        .await?;
    seen.lock().unwrap().associations += 1;
    while let Some(message) = association.next_command().await? {
        assert_eq!(message.command.field().unwrap(), CommandField::C_STORE_RQ);
        let name = message.command.uid(Element::AffectedSopInstance).unwrap().to_string();
        let answer = {
            let mut seen = seen.lock().unwrap();
            let before = seen.offered.iter().filter(|offered| **offered == name).count();
            seen.offered.push(name.clone());
            behaviour(&name, before)
        };
        let mut bytes = Vec::new();
        while let Some(piece) = association.next_data().await? {
            bytes.extend_from_slice(piece);
            if answer == Answer::Abort {
                association.abort().await;
                return Ok(());
            }
        }
        match answer {
            Answer::Say(code) => {
                if Status(code).is_success() || Status(code).is_warning() {
                    seen.lock().unwrap().stored.push((name, bytes));
                }
                association.respond(&message, Status(code)).await?;
            }
            _ => sleep(Duration::from_secs(60)).await,
        }
    }
    Ok(())
}

pub fn destination(address: SocketAddr) -> Destination {
    let text = format!(
        "[[destination]]\nname = 'vna'\nkind = 'dimse'\naddress = '{address}'\nae_title = 'ARCHIVE'\n\
         what = ['findings', 'deidentified']\nretry_min_ms = 20\nretry_max_ms = 200\nrefusals_max = 3\n\
         refuse_after_min_s = 0\nresponse_timeout_ms = 500\n"
    );
    let raw: RawConfig = toml::from_str(&text).unwrap();
    Config::new(raw, &AeTitle::new("FOVEA").unwrap()).unwrap().destinations.remove(0)
}

pub fn data_set(name: &str, length: usize) -> Vec<u8> {
    name.bytes().cycle().take(length).collect()
}

/// Puts one object's parcels into the outbox: name, lane, length of the data set.
pub fn dispatch(outbox: &MemoryStore, source: &str, parcels: &[(&str, Lane, usize)]) {
    let source = uid(source);
    let header = ObjectHeader {
        sop_class_uid: uid(PHOTO),
        sop_instance_uid: source.clone(),
        study_uid: uid("1.2"),
        series_uid: uid("1.2.3"),
        transfer_syntax_uid: uid(EXPLICIT),
        modality: None,
        body_part: None,
        laterality: None,
        rows_px: None,
        columns_px: None,
        frames: 1,
        photometric: None,
        burned_in_annotation: None,
        pixel_data_offset: None,
    };
    let new = NewObject {
        header,
        sender: Sender::Capture,
        last_byte_at: UnixMicros(0),
        data_set_sha256: Sha256::of(b""),
        file_bytes: 0,
    };
    outbox.accept(outbox.open_temp().unwrap(), new).unwrap();
    let parcels = parcels.iter().map(|(name, lane, length)| {
        let pixels = *lane == Lane::Pixels;
        let class = uid(if pixels { PHOTO } else { SR });
        let mut content = outbox.open_temp().unwrap();
        content.file.write_all(&part10_prefix(&class, &uid(name), &uid(EXPLICIT), None)).unwrap();
        content.file.write_all(&data_set(name, *length)).unwrap();
        NewParcel {
            what: if pixels { What::Deidentified } else { What::Findings },
            lane: *lane,
            sop_class_uid: class,
            sop_instance_uid: uid(name),
            transfer_syntax_uid: uid(EXPLICIT),
            content,
        }
    });
    outbox.dispatch(&source, parcels.collect(), vec![], UnixMicros(0)).unwrap();
}

pub struct Running {
    pub outbox: Arc<MemoryStore>,
    pub doorbell: Arc<Notify>,
    pub counters: Arc<Counters>,
    pub custodian: Arc<Custodian>,
    pub stop: CancellationToken,
    task: JoinHandle<Result<(), fovea_sync::SyncError>>,
}

impl Running {
    pub fn start(outbox: &Arc<MemoryStore>, address: SocketAddr) -> Self {
        Self::start_with(outbox, outbox.clone(), destination(address))
    }

    /// Sends what `seen` shows of `outbox`.
    pub fn start_with(outbox: &Arc<MemoryStore>, seen: Arc<dyn Outbox>, destination: Destination) -> Self {
        Self::start_rung_by(Arc::new(Notify::new()), outbox, seen, destination)
    }

    /// With a doorbell that others ring, too.
    pub fn start_rung_by(
        doorbell: Arc<Notify>,
        outbox: &Arc<MemoryStore>,
        seen: Arc<dyn Outbox>,
        destination: Destination,
    ) -> Self {
        let (counters, stop) = (Arc::new(Counters::default()), CancellationToken::new());
        let clock: Clock = Arc::new(|| SystemTime::now().into());
        let named = [(&destination, doorbell.clone())];
        let custodian = Custodian::new(named, seen.clone(), outbox.clone(), clock.clone());
        let ports = Ports { inbox: outbox.clone(), ledger: outbox.clone(), outbox: seen, clock };
        let sending = run(destination, ports, custodian.clone(), doorbell.clone(), counters.clone(), stop.clone());
        Self { outbox: outbox.clone(), doorbell, counters, custodian, stop, task: tokio::spawn(sending) }
    }

    pub fn waiting(&self) -> Vec<Parcel> {
        self.outbox.waiting("vna", &[What::Findings, What::Deidentified], 1000).unwrap()
    }

    pub async fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let polled = async {
            while !done(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = timeout(Duration::from_secs(20), polled).await;
        assert!(ended.is_ok(), "waited too long for: {what}; {:?}", self.counters.snapshot());
    }

    pub async fn until_empty(&self) {
        self.until("an empty outbox", |running| running.waiting().is_empty()).await;
    }

    pub async fn stop(self) -> Snapshot {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.task).await.expect("stops in time").unwrap().unwrap();
        self.counters.snapshot()
    }
}

pub fn always(code: u16) -> Behaviour {
    Arc::new(move |_, _| Answer::Say(code))
}
