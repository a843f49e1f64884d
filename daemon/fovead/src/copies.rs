//! What leaves the box for one finding: its report, a de-identified copy, the original where a destination wants it.
//!
//! In: a finding. Out: parcels ready for the outbox, and notes on what was held back and why.
//! Promise: a copy that cannot be made for certain is held back with the reason (invariant 5), and never holds up the
//! report; only a full or failing disk makes the whole finding wait.

use crate::config::Config;
use crate::identity;
use crate::logging::chain;
use fovea_core::{
    Accepted, Finding, Inbox, Lane, NewParcel, Outcome, PortError, Priority, Quarantined, TempObject, What,
};
use fovea_deid::{DeidError, Deidentifier, load_or_create_key};
use fovea_report::{Algorithm, Observer, structured_report};
use fovea_store::Store;
use std::fs::File;
use std::io::{self, Write};
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
        self.report(finding, &mut made)?;
        self.deidentified(finding, &accepted, &mut made)?;
        if self.originals_wanted {
            self.original(finding, &accepted, &mut made)?;
        }
        Ok(made)
    }

    fn report(&self, finding: &Finding, made: &mut Made) -> Result<(), PortError> {
        let Some(mut source) = self.open(finding, What::Findings, made) else { return Ok(()) };
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

    fn deidentified(&self, finding: &Finding, accepted: &Accepted, made: &mut Made) -> Result<(), PortError> {
        let Some(source) = self.open(finding, What::Deidentified, made) else { return Ok(()) };
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
            Err(error) => {
                log::error!("no copy of {}: {}", accepted.header.sop_instance_uid, chain(&error));
                made.hold(What::Deidentified, format!("no copy could be made: {}", chain(&error)));
            }
        }
        Ok(())
    }

    fn original(&self, finding: &Finding, accepted: &Accepted, made: &mut Made) -> Result<(), PortError> {
        let Some(source) = self.open(finding, What::Originals, made) else { return Ok(()) };
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

    /// The stored object; where it cannot be opened, a note, so that it does not hold up the others for ever.
    fn open(&self, finding: &Finding, what: What, made: &mut Made) -> Option<File> {
        match self.store.open_object(&finding.sop_instance_uid) {
            Ok(file) => Some(file),
            Err(error) => {
                made.hold(what, format!("the stored object cannot be read: {}", chain(&error)));
                None
            }
        }
    }
}

impl Made {
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
