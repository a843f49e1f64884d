//! Objects as plain bytes, and an inbox that can lose them.

use fovea_core::*;
use fovea_store::MemoryStore;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

pub fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

/// An element of a data set in Explicit VR Little Endian.
pub fn element(tag: TagNumber, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == "UI" { 0 } else { b' ' });
    }
    let mut out = [(tag >> 16) as u16, tag as u16].map(u16::to_le_bytes).concat();
    out.extend_from_slice(vr.as_bytes());
    if ["OB", "SQ", "UN", "UT"].contains(&vr) {
        out.extend_from_slice(&[0, 0]);
        out.extend((value.len() as u32).to_le_bytes());
    } else {
        out.extend((value.len() as u16).to_le_bytes());
    }
    out.extend(value);
    out
}

/// One object: what tells it from others.
#[derive(Clone)]
pub struct Picture<'a> {
    pub sop: &'a str,
    pub series: &'a str,
    pub study: &'a str,
    pub patient: &'a str,
    /// As bytes in `set`.
    pub name: &'a [u8],
    pub set: &'a str,
    pub date: &'a str,
    pub modality: &'a str,
    pub accession: &'a str,
}

impl Default for Picture<'_> {
    fn default() -> Self {
        Self {
            sop: "1.1.1.1",
            series: "1.1.1",
            study: "1.1",
            patient: "P1",
            name: b"DOE^JANE",
            set: "ISO_IR 192",
            date: "20260102",
            modality: "OP",
            accession: "A1",
        }
    }
}

pub const CLASS: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
pub const SYNTAX: &str = "1.2.840.10008.1.2.1";

impl Picture<'_> {
    pub fn data_set(&self) -> Vec<u8> {
        let request = [element(0x0040_0009, "SH", b"STEP7"), element(0x0040_1001, "SH", b"PROC7")].concat();
        let mut item = vec![0xFE, 0xFF, 0x00, 0xE0];
        item.extend((request.len() as u32).to_le_bytes());
        item.extend(request);
        [
            element(0x0008_0005, "CS", self.set.as_bytes()),
            element(0x0008_0008, "CS", b"ORIGINAL\\PRIMARY"),
            element(0x0008_0016, "UI", CLASS.as_bytes()),
            element(0x0008_0018, "UI", self.sop.as_bytes()),
            element(0x0008_0020, "DA", self.date.as_bytes()),
            element(0x0008_0030, "TM", b"101112.5"),
            element(0x0008_0050, "SH", self.accession.as_bytes()),
            element(0x0008_0060, "CS", self.modality.as_bytes()),
            element(0x0008_1030, "LO", b"Eye check"),
            element(0x0008_1070, "PN", b"Nurse^A\\Nurse^B"),
            element(0x0010_0010, "PN", self.name),
            element(0x0010_0020, "LO", self.patient.as_bytes()),
            element(0x0020_000D, "UI", self.study.as_bytes()),
            element(0x0020_000E, "UI", self.series.as_bytes()),
            element(0x0020_0011, "IS", b"07"),
            element(0x0020_0013, "IS", b"1"),
            element(0x0028_0010, "US", &512u16.to_le_bytes()),
            element(0x0028_0011, "US", &640u16.to_le_bytes()),
            element(0x0040_0275, "SQ", &item),
            element(0x7FE0_0010, "OB", &[7; 64]),
        ]
        .concat()
    }

    pub fn file(&self) -> Vec<u8> {
        let meta = [
            element(0x0002_0001, "OB", &[0, 1]),
            element(0x0002_0002, "UI", CLASS.as_bytes()),
            element(0x0002_0003, "UI", self.sop.as_bytes()),
            element(0x0002_0010, "UI", SYNTAX.as_bytes()),
        ]
        .concat();
        let mut file = vec![0; 128];
        file.extend_from_slice(b"DICM");
        file.extend(element(0x0002_0000, "UL", &(meta.len() as u32).to_le_bytes()));
        file.extend(meta);
        file.extend(self.data_set());
        file
    }

    pub fn header(&self) -> ObjectHeader {
        ObjectHeader {
            sop_class_uid: uid(CLASS),
            sop_instance_uid: uid(self.sop),
            study_uid: uid(self.study),
            series_uid: uid(self.series),
            transfer_syntax_uid: uid(SYNTAX),
            modality: Some(self.modality.to_owned()),
            body_part: None,
            laterality: None,
            rows_px: None,
            columns_px: None,
            frames: 1,
            photometric: None,
            burned_in_annotation: None,
            pixel_data_offset: None,
        }
    }
}

/// The memory twin, from which objects can go.
#[derive(Default)]
pub struct Held {
    pub store: MemoryStore,
    gone: Mutex<Vec<Gone>>,
    lost: Mutex<HashSet<Uid>>,
}

impl Held {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn take(&self, picture: &Picture<'_>) {
        self.take_bytes(picture, &picture.file());
    }

    pub fn take_bytes(&self, picture: &Picture<'_>, bytes: &[u8]) {
        let mut temp = self.store.open_temp().unwrap();
        temp.file.write_all(bytes).unwrap();
        let object = NewObject {
            header: picture.header(),
            sender: Sender::Capture,
            last_byte_at: UnixMicros(1),
            data_set_sha256: Sha256::of(bytes),
            file_bytes: bytes.len() as u64,
        };
        assert!(matches!(self.store.accept(temp, object).unwrap(), Acceptance::New(_)));
    }

    /// A report of an object, in a series of its own.
    pub fn report(&self, of: &Picture<'_>, report: &Picture<'_>) {
        let mut content = self.store.open_temp().unwrap();
        content.file.write_all(&report.file()).unwrap();
        let parcel = NewParcel {
            what: What::Findings,
            lane: Lane::Findings,
            sop_class_uid: uid(sop_class::COMPREHENSIVE_SR),
            sop_instance_uid: uid(report.sop),
            transfer_syntax_uid: uid(SYNTAX),
            content,
        };
        self.store.dispatch(&uid(of.sop), vec![parcel], vec![], UnixMicros(2)).unwrap();
    }

    /// An eviction as the store tells it.
    pub fn evict(&self, parcel: u64, object: Option<&str>) {
        let object = object.map(uid);
        self.lost.lock().unwrap().extend(object.clone());
        self.gone.lock().unwrap().push(Gone { parcel, object });
    }

    /// A file goes and nobody tells.
    pub fn lose(&self, sop: &str) {
        self.lost.lock().unwrap().insert(uid(sop));
    }
}

impl Inbox for Held {
    fn open_temp(&self) -> Result<TempObject, PortError> {
        self.store.open_temp()
    }

    fn accept(&self, temp: TempObject, object: NewObject) -> Result<Acceptance, PortError> {
        self.store.accept(temp, object)
    }

    fn pending(&self, limit: usize) -> Result<Vec<Accepted>, PortError> {
        self.store.pending(limit)
    }

    fn accepted(&self, uid: &Uid) -> Result<Option<Accepted>, PortError> {
        self.store.accepted(uid)
    }

    fn open_object(&self, uid: &Uid) -> Result<File, PortError> {
        if self.lost.lock().unwrap().contains(uid) {
            return Err(PortError::NotHeld { what: format!("object {uid}") });
        }
        self.store.open_object(uid)
    }

    fn accepted_after(&self, after: u64, limit: usize) -> Result<Vec<Accepted>, PortError> {
        self.store.accepted_after(after, limit)
    }

    fn gone_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Gone)>, PortError> {
        let gone = self.gone.lock().unwrap();
        Ok((1..).zip(gone.iter().cloned()).filter(|(place, _)| *place > after).take(limit).collect())
    }
}

/// The outbox of such a box: parcels are of the memory twin.
pub struct Out(pub Arc<Held>);

impl Outbox for Out {
    fn dispatch(
        &self,
        uid: &Uid,
        new: Vec<NewParcel>,
        held: Vec<Quarantined>,
        now: UnixMicros,
    ) -> Result<(), PortError> {
        self.0.store.dispatch(uid, new, held, now)
    }

    fn waiting(&self, destination: &str, wants: &[What], limit: usize) -> Result<Vec<Parcel>, PortError> {
        self.0.store.waiting(destination, wants, limit)
    }

    fn open_parcel(&self, seq: u64) -> Result<File, PortError> {
        self.0.store.open_parcel(seq)
    }

    fn delivered(&self, seq: u64, destination: &str, at: UnixMicros) -> Result<(), PortError> {
        self.0.store.delivered(seq, destination, at)
    }

    fn set_aside(&self, seq: u64, destination: &str, reason: &str) -> Result<(), PortError> {
        self.0.store.set_aside(seq, destination, reason)
    }

    fn sent_for(&self, uid: &Uid) -> Result<(Vec<ParcelState>, Vec<Quarantined>), PortError> {
        self.0.store.sent_for(uid)
    }

    fn parcels_after(&self, after: u64, limit: usize) -> Result<Vec<ParcelState>, PortError> {
        self.0.store.parcels_after(after, limit)
    }
}
