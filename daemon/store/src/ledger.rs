//! Outcomes. Promise: the first one of an object is durable and stays; every later one is answered with it.

use crate::record::Record;
use crate::store::{Key, Store};
use crate::view::FINDING_BYTES_MAX;
use fovea_core::{Finding, FindingId, Ledger, PortError, Recorded, Uid};

impl Ledger for Store {
    fn record(&self, finding: Finding) -> Result<Recorded, PortError> {
        check(&finding)?;
        let uid = finding.sop_instance_uid.clone();
        let _one = self.reserved.take(Key::Outcome(uid.clone()));
        let (held, already) = self.index.ask(|view| Ok((view.accepted(&uid)?, view.finding_of(&uid)?)))?;
        if let Some(already) = already {
            return Ok(Recorded::Already(Box::new(already)));
        }
        if held.is_none() {
            return Err(PortError::NotHeld { what: format!("object {uid}") });
        }
        self.commit(Record::Finding { place: 0, finding: Box::new(finding) })?;
        Ok(Recorded::New)
    }

    fn finding(&self, id: &FindingId) -> Result<Option<Finding>, PortError> {
        self.index.ask(|view| view.finding(id))
    }

    fn finding_of(&self, sop_instance_uid: &Uid) -> Result<Option<Finding>, PortError> {
        self.index.ask(|view| view.finding_of(sop_instance_uid))
    }

    fn findings_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Finding)>, PortError> {
        self.index.ask(|view| view.findings_after(after, limit))
    }

    fn undispatched(&self, limit: usize) -> Result<Vec<Finding>, PortError> {
        self.index.ask(|view| view.undispatched(limit))
    }
}

/// A finding must come back from its JSON as it is: a NaN would be written as `null` and be unreadable for ever.
pub(crate) fn check(finding: &Finding) -> Result<(), PortError> {
    let refused = |detail: String| PortError::Damaged { detail };
    let json = serde_json::to_vec(finding).map_err(|error| refused(format!("a finding without JSON: {error}")))?;
    if json.len() > FINDING_BYTES_MAX {
        return Err(refused(format!("a finding of {} bytes, the limit is {FINDING_BYTES_MAX}", json.len())));
    }
    match serde_json::from_slice::<Finding>(&json) {
        Ok(read) if read == *finding => Ok(()),
        _ => Err(refused("a finding that its JSON does not give back; is a number not finite?".into())),
    }
}
