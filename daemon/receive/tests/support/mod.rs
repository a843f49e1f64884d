//! What the tests share: an inbox in a folder, a server on a free port, data sets made by hand.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and may fail where it stands")]

pub mod services;

use fovea_core::{
    Acceptance, Accepted, AeTitle, Inbox, NewObject, PortError, Sender, TempObject, Uid, UnixMicros, sop_class,
};
use fovea_dimse::{Context, Scu, ScuConfig, Status, transfer_syntax};
use fovea_receive::{Config, Counters, RawConfig, ReceiveError, serve};
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const IMPLICIT: &str = transfer_syntax::IMPLICIT_VR_LE;
pub const EXPLICIT: &str = transfer_syntax::EXPLICIT_VR_LE;
pub const DEFLATED: &str = transfer_syntax::DEFLATED_EXPLICIT_VR_LE;
pub const BASELINE: &str = transfer_syntax::JPEG_BASELINE;

pub fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

pub fn ae(text: &str) -> AeTitle {
    AeTitle::new(text).unwrap()
}

/// An inbox in a folder: no index, no durability, and switches to misbehave.
pub struct FolderInbox {
    pub dir: TempDir,
    held: Mutex<HashMap<Uid, Accepted>>,
    next: AtomicU64,
    /// `open_temp` says that the disk is full.
    pub full: AtomicBool,
    /// `accept` fails.
    pub broken: AtomicBool,
    /// Most that a sender may have, in what is held and on its way; what is held is not counted here.
    pub share_bytes_max: AtomicU64,
    /// What was asked for by `check_space`, bytes.
    pub asked: Mutex<Vec<u64>>,
    gate: (Mutex<bool>, Condvar),
    pub waiting_at_gate: AtomicU64,
}

impl FolderInbox {
    pub fn new() -> Arc<Self> {
        Self::within(&std::env::temp_dir())
    }

    pub fn within(folder: &std::path::Path) -> Arc<Self> {
        Arc::new(Self {
            dir: tempfile::tempdir_in(folder).unwrap(),
            held: Mutex::default(),
            next: AtomicU64::new(0),
            full: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            share_bytes_max: AtomicU64::new(u64::MAX),
            asked: Mutex::default(),
            gate: (Mutex::new(true), Condvar::new()),
            waiting_at_gate: AtomicU64::new(0),
        })
    }

    /// Closed, `accept` waits.
    pub fn set_gate(&self, open: bool) {
        *self.gate.0.lock().unwrap() = open;
        self.gate.1.notify_all();
    }

    pub fn held(&self) -> Vec<Accepted> {
        let mut held: Vec<Accepted> = self.held.lock().unwrap().values().cloned().collect();
        held.sort_by_key(|accepted| accepted.seq);
        held
    }

    pub fn path_of(&self, instance: &Uid) -> PathBuf {
        self.dir.path().join(format!("{instance}.dcm"))
    }

    /// Temporary files that are still there.
    pub fn temps(&self) -> usize {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("temp-")).count()
    }
}

impl Inbox for FolderInbox {
    fn open_temp(&self) -> Result<TempObject, PortError> {
        if self.full.load(SeqCst) {
            return Err(PortError::OutOfSpace { detail: "as told".into() });
        }
        let path = self.dir.path().join(format!("temp-{}", self.next.fetch_add(1, SeqCst)));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        Ok(TempObject::new(file, Some(path)))
    }

    fn check_space(&self, _: &Sender, bytes: u64) -> Result<(), PortError> {
        self.asked.lock().unwrap().push(bytes);
        if self.full.load(SeqCst) || bytes > self.share_bytes_max.load(SeqCst) {
            return Err(PortError::OutOfSpace { detail: "as told".into() });
        }
        Ok(())
    }

    fn accept(&self, mut temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        self.waiting_at_gate.fetch_add(1, SeqCst);
        drop(self.gate.1.wait_while(self.gate.0.lock().unwrap(), |open| !*open).unwrap());
        if self.broken.load(SeqCst) {
            return Err(PortError::Damaged { detail: "as told".into() });
        }
        assert_eq!(temp.file.metadata().unwrap().len(), object.file_bytes);
        let mut held = self.held.lock().unwrap();
        let instance = object.header.sop_instance_uid.clone();
        if let Some(old) = held.get(&instance) {
            return Ok(if old.data_set_sha256 == object.data_set_sha256 {
                Acceptance::Duplicate(old.clone())
            } else {
                Acceptance::Conflict { held: old.clone(), quarantined: PathBuf::from("quarantine") }
            });
        }
        std::fs::rename(temp.path.take().unwrap(), self.path_of(&instance)).unwrap();
        let accepted = Accepted {
            seq: held.len() as u64 + 1,
            header: object.header,
            sender: object.sender,
            last_byte_at: object.last_byte_at,
            accepted_at: UnixMicros::from(std::time::SystemTime::now()),
            data_set_sha256: object.data_set_sha256,
            file_bytes: object.file_bytes,
        };
        held.insert(instance, accepted.clone());
        Ok(Acceptance::New(accepted))
    }

    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError> {
        Ok(self.held().into_iter().take(limit).collect())
    }

    fn accepted(&self, instance: &Uid) -> Result<Option<Accepted>, PortError> {
        Ok(self.held.lock().unwrap().get(instance).cloned())
    }

    fn open_object(&self, instance: &Uid) -> Result<File, PortError> {
        File::open(self.path_of(instance)).map_err(|_| PortError::NotHeld { what: "object".into() })
    }
}

/// A server with its inbox.
pub struct Server {
    pub address: String,
    pub inbox: Arc<FolderInbox>,
    pub counters: Arc<Counters>,
    pub doorbell: Arc<Notify>,
    pub stop: CancellationToken,
    pub served: JoinHandle<Result<(), ReceiveError>>,
}

impl Server {
    pub async fn start(change: impl FnOnce(&mut RawConfig)) -> Self {
        let mut raw = RawConfig::default();
        change(&mut raw);
        let config = Arc::new(Config::try_from(raw).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (inbox, counters, doorbell) = (FolderInbox::new(), Arc::new(Counters::default()), Arc::new(Notify::new()));
        let stop = CancellationToken::new();
        let serving =
            serve(listener, config, Arc::clone(&counters), inbox.clone(), Arc::clone(&doorbell), stop.clone());
        Self { address, inbox, counters, doorbell, stop, served: tokio::spawn(serving) }
    }

    pub fn scu_config(&self) -> ScuConfig {
        scu_config(self.address.clone())
    }

    pub async fn scu(&self) -> Scu {
        Scu::connect(&self.scu_config(), &contexts()).await.unwrap()
    }

    /// Stores one data set on an association of its own.
    pub async fn store(&self, instance: &str, syntax: &str, data_set: &[u8]) -> Status {
        let mut scu = self.scu().await;
        let class = uid(sop_class::SECONDARY_CAPTURE);
        let status = scu.store(&class, &uid(instance), &uid(syntax), data_set).await.unwrap();
        scu.release().await.unwrap();
        status
    }

    /// Ends the server and fails if it does not end.
    pub async fn end(self) -> Arc<FolderInbox> {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.served).await.unwrap().unwrap().unwrap();
        self.inbox
    }
}

pub fn scu_config(address: String) -> ScuConfig {
    let timeout = Duration::from_secs(10);
    ScuConfig {
        address,
        called_ae: ae("FOVEA"),
        calling_ae: ae("SCOPE"),
        connect_timeout: timeout,
        response_timeout: timeout,
        max_pdu_bytes: 128 * 1024,
        tls: None,
    }
}

pub fn contexts() -> Vec<Context> {
    let of = |class: &str, syntax: &str| Context { sop_class_uid: uid(class), transfer_syntax_uids: vec![uid(syntax)] };
    let class = sop_class::SECONDARY_CAPTURE;
    vec![
        of(fovea_dimse::VERIFICATION, IMPLICIT),
        of(class, IMPLICIT),
        of(class, EXPLICIT),
        of(class, DEFLATED),
        of(class, BASELINE),
    ]
}

/// Writes data sets, Explicit or Implicit VR.
pub struct Maker {
    pub explicit: bool,
    pub bytes: Vec<u8>,
}

impl Maker {
    pub fn element(mut self, group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Self {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" { 0 } else { b' ' });
        }
        self = self.head(group, element, vr, value.len() as u32);
        self.bytes.extend_from_slice(&value);
        self
    }

    pub fn head(mut self, group: u16, element: u16, vr: &[u8; 2], length: u32) -> Self {
        self.bytes.extend_from_slice(&group.to_le_bytes());
        self.bytes.extend_from_slice(&element.to_le_bytes());
        let long = matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT");
        if self.explicit && group != 0xFFFE {
            self.bytes.extend_from_slice(vr);
            if long {
                self.bytes.extend_from_slice(&[0, 0]);
            } else {
                self.bytes.extend_from_slice(&(length as u16).to_le_bytes());
                return self;
            }
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
}

pub fn maker(syntax: &str) -> Maker {
    Maker { explicit: syntax != IMPLICIT, bytes: Vec::new() }
}

/// All before the pixels of a secondary capture.
pub fn head(instance: &str, syntax: &str) -> Maker {
    maker(syntax)
        .element(0x0008, 0x0016, b"UI", sop_class::SECONDARY_CAPTURE.as_bytes())
        .element(0x0008, 0x0018, b"UI", instance.as_bytes())
        .element(0x0008, 0x0060, b"CS", b"OT")
        .element(0x0010, 0x0010, b"PN", b"SECRET^NAME")
        .element(0x0018, 0x0015, b"CS", b"EYE")
        .head(0x0008, 0x1140, b"SQ", 0xFFFF_FFFF)
        .head(0xFFFE, 0xE000, b"UN", 0xFFFF_FFFF)
        .element(0x0008, 0x1155, b"UI", b"1.2.3.4")
        .head(0xFFFE, 0xE00D, b"UN", 0)
        .head(0xFFFE, 0xE0DD, b"UN", 0)
        .element(0x0020, 0x000D, b"UI", b"1.2.40")
        .element(0x0020, 0x000E, b"UI", b"1.2.41")
        .element(0x0020, 0x0062, b"CS", b"L")
        .element(0x0028, 0x0004, b"CS", b"MONOCHROME2")
        .element(0x0028, 0x0008, b"IS", b"3")
        .element(0x0028, 0x0010, b"US", &[16, 0])
        .element(0x0028, 0x0011, b"US", &[32, 0])
        .element(0x0028, 0x0301, b"CS", b"NO")
}

/// A whole secondary capture with native pixels.
pub fn native(instance: &str, syntax: &str, pixel_bytes: usize) -> Vec<u8> {
    let pixels: Vec<u8> = (0..pixel_bytes).map(|i| (i * 7 % 253) as u8).collect();
    head(instance, syntax).element(0x7FE0, 0x0010, b"OW", &pixels).bytes
}

/// A whole secondary capture with pixels in fragments.
pub fn encapsulated(instance: &str, fragments: &[&[u8]]) -> Vec<u8> {
    let mut data = head(instance, BASELINE).head(0x7FE0, 0x0010, b"OB", 0xFFFF_FFFF).head(0xFFFE, 0xE000, b"OB", 0);
    for fragment in fragments {
        data = data.head(0xFFFE, 0xE000, b"OB", fragment.len() as u32).raw(fragment);
    }
    data.head(0xFFFE, 0xE0DD, b"OB", 0).bytes
}

/// Waits until `holds`, or fails after five seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
