//! Part 10 files that come as streams of bytes (STOW-RS): the same checks and the same durable way as a C-STORE.
//!
//! In: the pieces of a file. Out: what the inbox said, or why it was refused, as a status of PS3.4 table B.2-1.
//! Promise: a file that is answered with success is durable. Its own head is read for class, instance and transfer syntax, and
//! another one is written: what a sender put there is not kept.

use crate::classes::conformance;
use crate::counters::Counters;
use crate::object::{Intake, Object, Refusal};
use fovea_core::{Acceptance, Inbox, ObjectHeader, Sender, Uid, chain};
use fovea_dimse::{Part10Head, Status, part10_head};
use std::io::Cursor;
use std::sync::Arc;
use tokio::sync::Notify;

/// Longest head of a file: preamble and file meta information.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Preamble, magic, and the group length element, which says how long the rest is (PS3.10 section 7.1).
const GROUP_LENGTH_END: usize = 144;

/// Takes such files. Cheap to clone.
#[derive(Clone)]
pub struct Part10Intake {
    intake: Arc<Intake>,
}

/// A file that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part10Refused {
    /// As a C-STORE would be answered.
    pub status: u16,
    /// Why, without anything from the file.
    pub why: String,
    /// Class and instance, where they were understood.
    pub object: Option<(Uid, Uid)>,
}

impl Part10Intake {
    /// Files go to `inbox`; each newly accepted one is counted and rung. `object_bytes_max`: longest data set.
    #[must_use]
    pub fn new(inbox: Arc<dyn Inbox>, doorbell: Arc<Notify>, counters: Arc<Counters>, object_bytes_max: u64) -> Self {
        Self { intake: Intake::new(inbox, doorbell, counters, object_bytes_max) }
    }

    /// Begins a file. With `study` it is refused where its data set is of another one.
    #[must_use]
    pub fn begin(&self, study: Option<Uid>) -> Part10Object {
        Part10Object { intake: Arc::clone(&self.intake), study, state: State::Head(Vec::new()) }
    }
}

/// One file on its way.
pub struct Part10Object {
    intake: Arc<Intake>,
    study: Option<Uid>,
    state: State,
}

enum State {
    /// The head is not complete.
    Head(Vec<u8>),
    Body {
        object: Box<Object>,
        class: Uid,
        instance: Uid,
    },
    /// What comes is thrown away; the answer is given at the end.
    Refused(Part10Refused),
}

impl Part10Object {
    /// Takes the next bytes. Never fails: a refusal is told by [`finish`](Self::finish), and what follows it costs nothing.
    pub async fn push(&mut self, bytes: &[u8]) {
        let refused = match &mut self.state {
            State::Refused(_) => return,
            State::Body { object, class, instance } => match object.push(bytes).await {
                Ok(()) => return,
                Err(refusal) => refused(&refusal, Some((class.clone(), instance.clone()))),
            },
            State::Head(head) => {
                head.extend_from_slice(bytes);
                match head_end(head) {
                    // What comes at once is bounded by the caller's pieces.
                    Ok(None) => return,
                    Ok(Some(_)) => match self.start().await {
                        Ok(()) => return,
                        Err(refused) => refused,
                    },
                    Err(why) => not_understood(why),
                }
            }
        };
        self.state = State::Refused(refused);
    }

    async fn start(&mut self) -> Result<(), Part10Refused> {
        let State::Head(bytes) = std::mem::replace(&mut self.state, State::Head(Vec::new())) else { return Ok(()) };
        let head = part10_head(&mut Cursor::new(&bytes)).map_err(|error| not_understood(&chain(&error)))?;
        let Part10Head {
            sop_class_uid: class, sop_instance_uid: instance, transfer_syntax_uid, data_set_offset, ..
        } = head;
        let names = || Some((class.clone(), instance.clone()));
        if !conformance().storage_classes.iter().any(|entry| entry.uid == class.as_str()) {
            return Err(refused(&Refusal::ForeignClass, names()));
        }
        let object = Object::start(&self.intake, class.clone(), instance.clone(), transfer_syntax_uid, Sender::Web);
        let mut object = match object {
            Ok(object) => object.only_of(self.study.take()),
            // The only reason here: no such transfer syntax is taken.
            Err(_) => {
                let why = "its transfer syntax is not taken".to_owned();
                return Err(Part10Refused { status: SYNTAX_NOT_SUPPORTED, why, object: names() });
            }
        };
        let rest = usize::try_from(data_set_offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        object.push(rest).await.map_err(|refusal| refused(&refusal, names()))?;
        self.state = State::Body { object: Box::new(object), class, instance };
        Ok(())
    }

    /// The last byte has come: makes the object durable. Answers with what its header says.
    ///
    /// # Errors
    /// [`Part10Refused`].
    pub async fn finish(self) -> Result<ObjectHeader, Part10Refused> {
        let (object, class, instance) = match self.state {
            State::Body { object, class, instance } => (object, class, instance),
            State::Head(_) => return Err(not_understood("it ends within its head")),
            State::Refused(refused) => return Err(refused),
        };
        match object.finish().await {
            Ok(Acceptance::New(held) | Acceptance::Duplicate(held)) => Ok(held.header),
            Ok(Acceptance::Conflict { .. }) => Err(Part10Refused {
                status: Status::DUPLICATE_SOP_INSTANCE.0,
                why: "held with other content; kept in quarantine".to_owned(),
                object: Some((class, instance)),
            }),
            Err(refusal) => Err(refused(&refusal, Some((class, instance)))),
        }
    }
}

/// Referenced Transfer Syntax not supported (PS3.18 table I.2-2).
const SYNTAX_NOT_SUPPORTED: u16 = 0xC122;

fn refused(refusal: &Refusal, object: Option<(Uid, Uid)>) -> Part10Refused {
    Part10Refused { status: refusal.status().0, why: chain(refusal), object }
}

fn not_understood(why: &str) -> Part10Refused {
    Part10Refused { status: Status::CANNOT_UNDERSTAND.0, why: why.to_owned(), object: None }
}

/// Where the head ends, once all of it is there.
fn head_end(head: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some(start) = head.get(128..GROUP_LENGTH_END) else { return Ok(None) };
    // Tag (0002,0000), UL, 4 bytes.
    if start[..4] != *b"DICM" || start[4..12] != [2, 0, 0, 0, b'U', b'L', 4, 0] {
        return Err("it is no Part 10 file with a group length");
    }
    let length = u32::from_le_bytes([start[12], start[13], start[14], start[15]]) as usize;
    match GROUP_LENGTH_END.saturating_add(length) {
        end if end > HEAD_BYTES_MAX => Err("its head is too long"),
        // One element of the data set too, so that the end of the head is seen.
        end if head.len() < end + 8 => Ok(None),
        end => Ok(Some(end)),
    }
}
