//! One association with the archive, and one parcel over it.
//!
//! In: a parcel and its file. Out: [`Sent`]. Promise: an answer about the object is told apart from trouble with the
//! destination, for only the first may ever end in giving the object up.
//! Standard: PS3.4 annex B (storage), PS3.7 annex C (statuses).

use crate::config::{Destination, Line};
use fovea_core::{Parcel, PortError, Uid, chain};
use fovea_dimse::{Context, Part10Error, Scu, ScuConfig, ScuError, Status, part10_head};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::time::Duration;
use tokio::io::BufReader;

/// For name resolution and TCP: a local archive answers at once, one behind a VPN within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Our side of the largest PDU, as fast as any that was measured.
const PDU_BYTES_MAX: u32 = 128 * 1024;
/// Objects up to this are read whole in the call that opens them: a thread hop for each piece would cost more than the reading.
const SMALL_BYTES: u64 = 1 << 20;
/// An association holds so many contexts (PS3.8 section 9.3.2).
const CONTEXTS_MAX: usize = 128;

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Success, or success with a warning.
    Delivered,
    /// The archive does not want this object; the association stands.
    Refused(String),
    /// The archive cannot take anything now; the association is of no more use.
    Unavailable(String),
    /// The archive cannot take anything now and says for how long.
    Later(String, Duration),
    /// Not so many at once: the same again at once, in smaller requests.
    Smaller,
}

/// A parcel's file, ready to be sent.
#[derive(Debug)]
pub(crate) enum Content {
    /// The data set.
    Small(Cursor<Vec<u8>>),
    /// At its data set.
    Large(File),
    /// The whole Part 10 file, at its start, and its length.
    Whole(File, u64),
}

/// How a destination's DIMSE side is called; none where it has none.
pub(crate) fn scu_config(destination: &Destination) -> Option<ScuConfig> {
    let Line::Dimse { address, called_ae } = &destination.line else { return None };
    Some(ScuConfig {
        address: address.clone(),
        called_ae: called_ae.clone(),
        calling_ae: destination.calling_ae.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: destination.response_timeout,
        max_pdu_bytes: PDU_BYTES_MAX,
        tls: destination.tls.clone(),
    })
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
    pub(crate) async fn open<'a>(
        config: &ScuConfig,
        parcels: impl Iterator<Item = &'a Parcel>,
    ) -> Result<Self, String> {
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
        let scu = Scu::connect(config, &contexts).await.map_err(|error| chain(&error))?;
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

    /// Sends one parcel.
    pub(crate) async fn send(&mut self, parcel: &Parcel, content: Content) -> Sent {
        let Parcel { sop_class_uid: class, sop_instance_uid: instance, transfer_syntax_uid: syntax, .. } = parcel;
        let status = match content {
            Content::Small(data_set) => self.scu.store(class, instance, syntax, data_set).await,
            Content::Large(file) | Content::Whole(file, _) => {
                let reader = BufReader::with_capacity(PDU_BYTES_MAX as usize, tokio::fs::File::from_std(file));
                self.scu.store(class, instance, syntax, reader).await
            }
        };
        match status {
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

/// Readies an opened parcel, `whole` for archives that take Part 10 files.
pub(crate) fn ready(mut file: File, whole: bool) -> Result<Content, Unreadable> {
    let now = |error: std::io::Error| Unreadable::Now(format!("read a parcel: {error}"));
    let head = match part10_head(&mut file) {
        Ok(head) => head,
        Err(error @ Part10Error::Read { .. }) => return Err(Unreadable::Now(chain(&error))),
        Err(error) => return Err(Unreadable::ForGood(chain(&error))),
    };
    let length = file.metadata().map_err(now)?.len();
    if whole {
        file.seek(SeekFrom::Start(0)).map_err(now)?;
        return Ok(Content::Whole(file, length));
    }
    let data_bytes = length.saturating_sub(head.data_set_offset);
    if data_bytes > SMALL_BYTES {
        return Ok(Content::Large(file));
    }
    let mut bytes = Vec::with_capacity(data_bytes as usize + 1);
    file.take(SMALL_BYTES).read_to_end(&mut bytes).map_err(now)?;
    Ok(Content::Small(Cursor::new(bytes)))
}

pub(crate) fn judge(status: Status) -> Sent {
    if status.is_success() || status.is_warning() {
        return Sent::Delivered;
    }
    match status.0 {
        // It is there under this UID: sent before, and the answer was lost.
        0x0111 => Sent::Delivered,
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
            (0x0111, true, false),
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
