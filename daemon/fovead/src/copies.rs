//! What leaves the box for one finding: its report, a de-identified copy, the original where a destination wants it.
//!
//! In: a finding. Out: parcels ready for the outbox, and notes on what was held back and why.
//! Promise: a copy that cannot be made for certain is held back with the reason (invariant 5), and never holds up the
//! report; only a full or failing disk makes the whole finding wait.

use crate::config::Config;
use crate::identity;
use fovea_core::{
    Accepted, Finding, Inbox, Lane, NewParcel, Outcome, PortError, Priority, Quarantined, TempObject, What, chain,
};
use fovea_deid::{DeidError, Deidentifier, load_or_create_key};
use fovea_report::{Algorithm, Observer, structured_report};
use fovea_store::Store;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const MANUFACTURER: &str = "Fovea";

/// Parcels and notes of one finding.
#[derive(Default)]
pub struct Made {
    pub parcels: Vec<NewParcel>,
    pub quarantined: Vec<Quarantined>,
}

/// Makes what leaves the box.
pub struct Copies {
    store: Arc<Store>,
    observer: Observer,
    deid: Deidentifier,
    originals_wanted: bool,
}

impl Copies {
    /// Reads or makes the box's identity and the de-identification key.
    pub fn new(config: &Config, store: Arc<Store>) -> anyhow::Result<Self> {
        let observer = Observer {
            device_uid: identity::load_or_create(&config.store.state_dir)?,
            name: config.node.name.clone(),
            manufacturer: MANUFACTURER.to_owned(),
            model: "fovead".to_owned(),
            serial: String::new(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let originals_wanted =
            config.destinations.iter().any(|destination| destination.what.contains(&What::Originals));
        let key_file = config.deid.key_file.clone().unwrap_or_else(|| config.store.state_dir.join("deid.key"));
        let key = load_or_create_key(&key_file)?;
        Ok(Self { store, observer, deid: Deidentifier::new(&config.deid, key), originals_wanted })
    }

    /// All that leaves the box for `finding`. Blocks on disk.
    ///
    /// # Errors
    /// When the disk is full or failing: nothing was kept, call again.
    pub fn make(&self, finding: &Finding) -> Result<Made, PortError> {
        let mut made = Made::default();
        let uid = &finding.sop_instance_uid;
        let accepted = self.store.accepted(uid)?;
        let accepted = accepted.ok_or_else(|| PortError::NotHeld { what: format!("object {uid}") })?;
        made.part(What::Findings, |made| self.report(finding, made))?;
        made.part(What::Deidentified, |made| self.deidentified(&accepted, made))?;
        if self.originals_wanted {
            made.part(What::Originals, |made| self.original(&accepted, made))?;
        }
        Ok(made)
    }

    /// The notes of a finding for which nothing could be put into the outbox.
    pub fn held_back(why: &str) -> Vec<Quarantined> {
        let note = |what| Quarantined { what, reason: format!("it could not be put into the outbox: {why}") };
        vec![note(What::Findings), note(What::Deidentified)]
    }

    fn report(&self, finding: &Finding, made: &mut Made) -> Result<(), PortError> {
        let mut source = self.store.open_object(&finding.sop_instance_uid)?;
        // From the finding alone, not from what serves now: a replay after an update must say the same.
        let algorithm = finding.model.as_ref().map(|model| {
            Algorithm::artificial_intelligence(&format!("Fovea {}", model.id), &model.version, MANUFACTURER)
        });
        match structured_report(finding, &mut source, algorithm.as_ref(), &self.observer) {
            Ok(report) => {
                let mut content = self.store.open_result_temp()?;
                content.file.write_all(&report.bytes).map_err(|source| io_error("write a report", source))?;
                made.parcels.push(NewParcel {
                    what: What::Findings,
                    lane: lane(finding),
                    sop_class_uid: report.sop_class_uid,
                    sop_instance_uid: report.sop_instance_uid,
                    transfer_syntax_uid: report.transfer_syntax_uid,
                    content,
                });
            }
            Err(error) => {
                log::error!("no report for {}: {}", finding.sop_instance_uid, chain(&error));
                made.hold(What::Findings, format!("no report could be made: {}", chain(&error)));
            }
        }
        Ok(())
    }

    fn deidentified(&self, accepted: &Accepted, made: &mut Made) -> Result<(), PortError> {
        let source = self.store.open_object(&accepted.header.sop_instance_uid)?;
        let mut content = self.store.open_result_temp()?;
        match self.deid.copy(source, &accepted.header, &mut content.file) {
            Ok(copy) => made.parcels.push(NewParcel {
                what: What::Deidentified,
                lane: Lane::Pixels,
                sop_class_uid: copy.sop_class_uid,
                sop_instance_uid: copy.sop_instance_uid,
                transfer_syntax_uid: copy.transfer_syntax_uid,
                content,
            }),
            Err(DeidError::Quarantine { reason }) => made.hold(What::Deidentified, reason),
            Err(DeidError::Io { doing, source }) => return Err(io_error(doing, source)),
        }
        Ok(())
    }

    fn original(&self, accepted: &Accepted, made: &mut Made) -> Result<(), PortError> {
        let source = self.store.open_object(&accepted.header.sop_instance_uid)?;
        let mut content = self.store.open_result_temp()?;
        copy(source, &mut content)?;
        made.parcels.push(NewParcel {
            what: What::Originals,
            lane: Lane::Pixels,
            sop_class_uid: accepted.header.sop_class_uid.clone(),
            sop_instance_uid: accepted.header.sop_instance_uid.clone(),
            transfer_syntax_uid: accepted.header.transfer_syntax_uid.clone(),
            content,
        });
        Ok(())
    }
}

impl Made {
    /// Makes one part. A stored object that is gone or damaged, and a defect of ours that panics over it, hold that part
    /// back with the reason: neither may stop the box or the other parts.
    fn part(&mut self, what: What, make: impl FnOnce(&mut Self) -> Result<(), PortError>) -> Result<(), PortError> {
        // What `make` leaves behind when it panics is at most a finished parcel; temporary files remove themselves.
        match catch_unwind(AssertUnwindSafe(|| make(self))) {
            Ok(Err(error @ (PortError::NotHeld { .. } | PortError::Damaged { .. }))) => {
                self.hold(what, format!("the stored object cannot be read: {}", chain(&error)));
                Ok(())
            }
            Ok(done) => done,
            Err(_) => {
                log::error!("making {what:?} panicked: a defect of this program, please report it");
                self.hold(what, "a defect of this program: making it panicked".to_owned());
                Ok(())
            }
        }
    }

    fn hold(&mut self, what: What, reason: String) {
        self.quarantined.push(Quarantined { what, reason });
    }
}

fn lane(finding: &Finding) -> Lane {
    if finding.outcome == Outcome::Finding && finding.priority == Priority::Urgent {
        Lane::UrgentFindings
    } else {
        Lane::Findings
    }
}

fn copy(mut source: File, content: &mut TempObject) -> Result<(), PortError> {
    io::copy(&mut source, &mut content.file).map(drop).map_err(|source| io_error("copy an original", source))
}

fn io_error(doing: &str, source: io::Error) -> PortError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PortError::OutOfSpace { detail: doing.to_owned() },
        _ => PortError::Io { doing: doing.to_owned(), source },
    }
}
