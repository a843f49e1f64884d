//! One association with the archive, and one parcel over it.
//!
//! In: a parcel and its file. Out: [`Sent`]. Promise: an answer about the object is told apart from trouble with the
//! destination, for only the first may ever end in giving the object up.
//! Standard: PS3.4 annex B (storage), PS3.7 annex C (statuses).

use crate::config::Destination;
use fovea_core::{Parcel, PortError, Uid, chain};
use fovea_dimse::{Context, Part10Error, Scu, ScuConfig, ScuError, Status, part10_head};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;
use tokio::io::BufReader;

/// For name resolution and TCP: a local archive answers at once, one behind a VPN within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Our side of the largest PDU, as fast as any that was measured.
const PDU_BYTES_MAX: u32 = 128 * 1024;
/// An association holds so many contexts (PS3.8 section 9.3.2).
const CONTEXTS_MAX: usize = 128;

/// How one attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Success, or success with a warning.
    Delivered,
    /// The archive does not want this object; the association stands.
    Refused(String),
    /// The archive cannot take anything now; the association is of no more use.
    Unavailable(String),
}

/// A class in a syntax.
type Pair = (Uid, Uid);

/// An association that stands.
pub(crate) struct Session {
    scu: Scu,
    proposed: BTreeSet<Pair>,
}

fn pair(parcel: &Parcel) -> Pair {
    (parcel.sop_class_uid.clone(), parcel.transfer_syntax_uid.clone())
}

impl Session {
    /// Opens an association for all classes and syntaxes of `parcels`, or the first of them.
    pub(crate) async fn open(destination: &Destination, parcels: &[Parcel]) -> Result<Self, String> {
        let mut proposed = BTreeSet::new();
        for parcel in parcels {
            if proposed.len() < CONTEXTS_MAX {
                proposed.insert(pair(parcel));
            }
        }
        // One syntax a context: the object is sent as it is, so this very syntax must be had.
        let context = |(class, syntax): &Pair| Context {
            sop_class_uid: class.clone(),
            transfer_syntax_uids: vec![syntax.clone()],
        };
        let contexts: Vec<Context> = proposed.iter().map(context).collect();
        let config = ScuConfig {
            address: destination.address.clone(),
            called_ae: destination.called_ae.clone(),
            calling_ae: destination.calling_ae.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: destination.response_timeout,
            max_pdu_bytes: PDU_BYTES_MAX,
            tls: destination.tls.clone(),
        };
        let scu = Scu::connect(&config, &contexts).await.map_err(|error| chain(&error))?;
        Ok(Self { scu, proposed })
    }

    /// The archive has been asked about this class and syntax.
    pub(crate) fn has_asked(&self, parcel: &Parcel) -> bool {
        self.proposed.contains(&pair(parcel))
    }

    /// And said yes.
    pub(crate) fn accepts(&self, parcel: &Parcel) -> bool {
        self.scu.accepts(&parcel.sop_class_uid, &parcel.transfer_syntax_uid)
    }

    /// Sends one parcel whose data set starts at the position of `data_set`.
    pub(crate) async fn send(&mut self, parcel: &Parcel, data_set: File) -> Sent {
        let reader = BufReader::with_capacity(PDU_BYTES_MAX as usize, tokio::fs::File::from_std(data_set));
        let Parcel { sop_class_uid, sop_instance_uid, transfer_syntax_uid, .. } = parcel;
        match self.scu.store(sop_class_uid, sop_instance_uid, transfer_syntax_uid, reader).await {
            Ok(status) => judge(status),
            Err(error @ ScuError::ContextNotAccepted { .. }) => Sent::Refused(chain(&error)),
            Err(error) => Sent::Unavailable(chain(&error)),
        }
    }

    /// Ends the association politely; a peer that does not answer that has nothing of ours.
    pub(crate) async fn release(self) {
        if let Err(error) = self.scu.release().await {
            log::debug!("release: {}", chain(&error));
        }
    }
}

/// Why a parcel of ours cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is gone or damaged: another try will not help.
    ForGood(String),
    /// No descriptor left, a disk that stumbles: that may pass, and says nothing about the parcel.
    Now(String),
}

impl From<PortError> for Unreadable {
    fn from(error: PortError) -> Self {
        match error {
            PortError::NotHeld { .. } | PortError::Damaged { .. } => Self::ForGood(chain(&error)),
            PortError::Io { .. } | PortError::OutOfSpace { .. } => Self::Now(chain(&error)),
        }
    }
}

/// Moves an opened parcel to its data set.
pub(crate) fn to_data_set(mut file: File) -> Result<File, Unreadable> {
    match part10_head(&mut file) {
        Ok(_) => Ok(file),
        Err(error @ Part10Error::Read { .. }) => Err(Unreadable::Now(chain(&error))),
        Err(error) => Err(Unreadable::ForGood(chain(&error))),
    }
}

fn judge(status: Status) -> Sent {
    if status.is_success() || status.is_warning() {
        return Sent::Delivered;
    }
    match status.0 {
        // Out of resources, resource limitation, processing failure: about the archive, not about the object.
        0xA700..=0xA7FF | 0x0110 | 0x0213 => Sent::Unavailable(format!("the archive answered {status}")),
        _ => Sent::Refused(format!("the archive answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_either_done_about_the_object_or_about_the_archive() {
        for (code, delivered, refused) in [
            (0x0000, true, false),
            (0xB000, true, false),
            (0xB007, true, false),
            (0xA700, false, false),
            (0xA7FE, false, false),
            (0x0213, false, false),
            (0x0122, false, true),
            (0xA900, false, true),
            (0xC000, false, true),
            (0x0110, false, false),
        ] {
            let sent = judge(Status(code));
            assert_eq!(sent == Sent::Delivered, delivered, "{code:04X}");
            assert_eq!(matches!(sent, Sent::Refused(_)), refused, "{code:04X}");
        }
    }
}
