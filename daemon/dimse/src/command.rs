//! Command sets: the small headers of DIMSE messages.
//!
//! In: the bytes of a command, at most [`COMMAND_BYTES_MAX`]. Out: [`CommandSet`], and back.
//! Promise: a length inside the bytes is believed only when that many bytes are there; what is encoded decodes to
//! the same set.
//! Standard: PS3.7 section 6.3 (Implicit VR Little Endian, group 0000 only), fields in section 9.3 and annex E.

use crate::Status;
use fovea_core::{AeTitle, Uid};

/// Longest command set that is read. The largest in use (N-GET with its attribute list) stay below 1 KiB.
pub const COMMAND_BYTES_MAX: usize = 4096;
/// (0000,0800) that says: no data set follows (PS3.7 section E.1).
const NO_DATA_SET: u16 = 0x0101;
/// (0000,0800) that says: a data set follows; any other value than [`NO_DATA_SET`] does.
const DATA_SET_FOLLOWS: u16 = 0x0001;

/// Elements whose values are text and no UID.
const TEXTS: [Element; 3] = [Element::ErrorComment, Element::MoveDestination, Element::MoveOriginatorAe];

/// Element numbers of group 0000 (PS3.7 table E.1-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum Element {
    /// Affected SOP Class UID.
    AffectedSopClass = 0x0002,
    /// Requested SOP Class UID.
    RequestedSopClass = 0x0003,
    /// Command Field.
    CommandField = 0x0100,
    /// Message ID.
    MessageId = 0x0110,
    /// Message ID Being Responded To.
    MessageIdRespondedTo = 0x0120,
    /// Move Destination, an AE title.
    MoveDestination = 0x0600,
    /// Priority: 0 medium, 1 high, 2 low.
    Priority = 0x0700,
    /// Command Data Set Type.
    DataSetType = 0x0800,
    /// Status.
    Status = 0x0900,
    /// Error Comment, at most 64 characters.
    ErrorComment = 0x0902,
    /// Error ID, the service's own number.
    ErrorId = 0x0903,
    /// Affected SOP Instance UID.
    AffectedSopInstance = 0x1000,
    /// Requested SOP Instance UID.
    RequestedSopInstance = 0x1001,
    /// Event Type ID.
    EventType = 0x1002,
    /// Action Type ID.
    ActionType = 0x1008,
    /// Number of Remaining Sub-operations.
    Remaining = 0x1020,
    /// Number of Completed Sub-operations.
    Completed = 0x1021,
    /// Number of Failed Sub-operations.
    Failed = 0x1022,
    /// Number of Warning Sub-operations.
    Warning = 0x1023,
    /// Move Originator Application Entity Title.
    MoveOriginatorAe = 0x1030,
    /// Move Originator Message ID.
    MoveOriginatorMessage = 0x1031,
}

/// Command Field (0000,0100) values (PS3.7 section E.1). A response is its request with bit 15 set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommandField(pub u16);

impl CommandField {
    /// C-STORE-RQ.
    pub const C_STORE_RQ: Self = Self(0x0001);
    /// C-GET-RQ.
    pub const C_GET_RQ: Self = Self(0x0010);
    /// C-FIND-RQ.
    pub const C_FIND_RQ: Self = Self(0x0020);
    /// C-MOVE-RQ.
    pub const C_MOVE_RQ: Self = Self(0x0021);
    /// C-ECHO-RQ.
    pub const C_ECHO_RQ: Self = Self(0x0030);
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT_RQ: Self = Self(0x0100);
    /// N-SET-RQ.
    pub const N_SET_RQ: Self = Self(0x0120);
    /// N-ACTION-RQ.
    pub const N_ACTION_RQ: Self = Self(0x0130);
    /// N-CREATE-RQ.
    pub const N_CREATE_RQ: Self = Self(0x0140);
    /// C-CANCEL-RQ: it has no response.
    pub const C_CANCEL_RQ: Self = Self(0x0FFF);

    /// Answers another message.
    #[must_use]
    pub fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// The field of the answer to this request.
    #[must_use]
    pub fn response(self) -> Self {
        Self(self.0 | 0x8000)
    }
}

/// Why bytes are no command set, or lack what the message needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// An element header or value ends behind the end of the command.
    #[error("the command ends inside the element at byte {position}")]
    Truncated {
        /// Where the element begins.
        position: usize,
    },
    /// An element of another group.
    #[error("a command holds only group 0000, group {group:04X} is in it")]
    ForeignGroup {
        /// The group.
        group: u16,
    },
    /// The same element twice.
    #[error("element (0000,{element:04X}) is there twice")]
    Repeated {
        /// The element.
        element: u16,
    },
    /// A needed element is not there.
    #[error("element (0000,{element:04X}) is missing")]
    Missing {
        /// The element.
        element: u16,
    },
    /// A needed element is there but not readable as its type.
    #[error("element (0000,{element:04X}) has a value of the wrong form")]
    WrongForm {
        /// The element.
        element: u16,
    },
}

/// A command set: its elements in rising order, without the group length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandSet {
    elements: Vec<(u16, Vec<u8>)>,
}

impl CommandSet {
    /// A request without data set; add the fields of its service.
    #[must_use]
    pub fn request(field: CommandField, message_id: u16) -> Self {
        let set = Self { elements: Vec::with_capacity(8) };
        set.with_u16(Element::CommandField, field.0)
            .with_u16(Element::MessageId, message_id)
            .with_u16(Element::DataSetType, NO_DATA_SET)
    }

    /// C-ECHO-RQ (PS3.7 table 9.3-12).
    #[must_use]
    pub fn echo_request(message_id: u16) -> Self {
        let verification = crate::VERIFICATION.as_bytes();
        Self::request(CommandField::C_ECHO_RQ, message_id).with(Element::AffectedSopClass, verification.to_vec())
    }

    /// C-STORE-RQ with a data set, medium priority (PS3.7 table 9.3-1).
    #[must_use]
    pub fn store_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid) -> Self {
        Self::request(CommandField::C_STORE_RQ, message_id)
            .with_uid(Element::AffectedSopClass, sop_class)
            .with_uid(Element::AffectedSopInstance, sop_instance)
            .with_u16(Element::Priority, 0)
            .with_data_set()
    }

    /// C-FIND-RQ or C-GET-RQ with an identifier, medium priority (PS3.7 tables 9.3-3 and 9.3-6).
    #[must_use]
    pub fn query_request(field: CommandField, message_id: u16, sop_class: &Uid) -> Self {
        Self::request(field, message_id)
            .with_uid(Element::AffectedSopClass, sop_class)
            .with_u16(Element::Priority, 0)
            .with_data_set()
    }

    /// C-MOVE-RQ with an identifier, medium priority (PS3.7 table 9.3-9).
    #[must_use]
    pub fn move_request(message_id: u16, sop_class: &Uid, destination: &AeTitle) -> Self {
        Self::query_request(CommandField::C_MOVE_RQ, message_id, sop_class)
            .with_ae(Element::MoveDestination, destination)
    }

    /// C-CANCEL-RQ of the operation that `message_id` began (PS3.7 tables 9.3-5, 9.3-8 and 9.3-11).
    #[must_use]
    pub fn cancel_request(message_id: u16) -> Self {
        Self { elements: Vec::with_capacity(3) }
            .with_u16(Element::CommandField, CommandField::C_CANCEL_RQ.0)
            .with_u16(Element::MessageIdRespondedTo, message_id)
            .with_u16(Element::DataSetType, NO_DATA_SET)
    }

    /// N-ACTION-RQ (PS3.7 table 10.3-7).
    #[must_use]
    pub fn action_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid, action_type: u16) -> Self {
        Self::request(CommandField::N_ACTION_RQ, message_id)
            .with_uid(Element::RequestedSopClass, sop_class)
            .with_uid(Element::RequestedSopInstance, sop_instance)
            .with_u16(Element::ActionType, action_type)
    }

    /// N-EVENT-REPORT-RQ (PS3.7 table 10.3-1).
    #[must_use]
    pub fn event_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid, event_type: u16) -> Self {
        Self::request(CommandField::N_EVENT_REPORT_RQ, message_id)
            .with_uid(Element::AffectedSopClass, sop_class)
            .with_uid(Element::AffectedSopInstance, sop_instance)
            .with_u16(Element::EventType, event_type)
    }

    /// N-CREATE-RQ of an instance whose UID we choose (PS3.7 table 10.3-9).
    #[must_use]
    pub fn create_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid) -> Self {
        Self::request(CommandField::N_CREATE_RQ, message_id)
            .with_uid(Element::AffectedSopClass, sop_class)
            .with_uid(Element::AffectedSopInstance, sop_instance)
    }

    /// N-SET-RQ (PS3.7 table 10.3-5).
    #[must_use]
    pub fn set_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid) -> Self {
        Self::request(CommandField::N_SET_RQ, message_id)
            .with_uid(Element::RequestedSopClass, sop_class)
            .with_uid(Element::RequestedSopInstance, sop_instance)
    }

    /// The answer to `request`, without data set: class and instance are repeated where the request had them.
    #[must_use]
    pub fn response_to(request: &Self, status: Status) -> Self {
        let field = request.field().unwrap_or(CommandField(0)).response();
        let mut answer = Self { elements: Vec::with_capacity(8) }
            .with_u16(Element::CommandField, field.0)
            .with_u16(Element::MessageIdRespondedTo, request.message_id().unwrap_or(0))
            .with_u16(Element::DataSetType, NO_DATA_SET)
            .with_u16(Element::Status, status.0);
        // What the services of PS3.7 chapter 10 repeat; those of chapter 9 have no such elements.
        let repeated = [
            (Element::EventType, Element::EventType),
            (Element::ActionType, Element::ActionType),
            (Element::AffectedSopClass, Element::AffectedSopClass),
            (Element::RequestedSopClass, Element::AffectedSopClass),
            (Element::AffectedSopInstance, Element::AffectedSopInstance),
            (Element::RequestedSopInstance, Element::AffectedSopInstance),
        ];
        for (from, to) in repeated {
            if let Some(value) = request.bytes(from as u16) {
                answer = answer.with(to, value.to_vec());
            }
        }
        answer
    }

    /// Sets an element to an unsigned short (VR US).
    #[must_use]
    pub fn with_u16(self, element: Element, value: u16) -> Self {
        self.with(element, value.to_le_bytes().to_vec())
    }

    /// Says that a data set follows.
    #[must_use]
    pub fn with_data_set(self) -> Self {
        self.with_u16(Element::DataSetType, DATA_SET_FOLLOWS)
    }

    /// Sets an element to an AE title (VR AE).
    #[must_use]
    pub fn with_ae(self, element: Element, title: &AeTitle) -> Self {
        self.with(element, title.as_str().as_bytes().to_vec())
    }

    /// Sets an element to a UID (VR UI).
    #[must_use]
    pub fn with_uid(self, element: Element, uid: &Uid) -> Self {
        self.with(element, uid.as_str().as_bytes().to_vec())
    }

    /// Sets the error comment: printable ASCII of it, cut at 64 characters (VR LO).
    #[must_use]
    pub fn with_comment(self, comment: &str) -> Self {
        let text = comment.bytes().filter(|b| (0x20..0x7f).contains(b) && *b != b'\\').take(64).collect();
        self.with(Element::ErrorComment, text)
    }

    fn with(mut self, element: Element, value: Vec<u8>) -> Self {
        let element = element as u16;
        match self.elements.binary_search_by_key(&element, |(number, _)| *number) {
            Ok(at) => self.elements[at].1 = value,
            Err(at) => self.elements.insert(at, (element, value)),
        }
        self
    }

    /// Reads a command set.
    ///
    /// # Errors
    /// [`CommandError`] when an element does not lie within `bytes`, is of another group or comes twice.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let mut elements = Vec::with_capacity(12);
        let mut position = 0;
        while position < bytes.len() {
            let truncated = CommandError::Truncated { position };
            let (header, rest) = bytes[position..].split_first_chunk::<8>().ok_or(truncated.clone())?;
            let group = u16::from_le_bytes([header[0], header[1]]);
            let element = u16::from_le_bytes([header[2], header[3]]);
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if group != 0 {
                return Err(CommandError::ForeignGroup { group });
            }
            let value = rest.get(..length).ok_or(truncated)?;
            // The group length repeats what we know from the PDVs, and old devices get it wrong: it is not used.
            if element != 0 {
                elements.push((element, value.to_vec()));
            }
            position += 8 + length;
        }
        elements.sort_by_key(|(element, _)| *element);
        match elements.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(CommandError::Repeated { element: pair[0].0 }),
            None => Ok(Self { elements }),
        }
    }

    /// Appends the encoded set, group length first, to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let padded = |value: &[u8]| (value.len() + value.len() % 2) as u32;
        let length: u32 = self.elements.iter().map(|(_, value)| 8 + padded(value)).sum();
        out.extend_from_slice(&[0, 0, 0, 0, 4, 0, 0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
        for (element, value) in &self.elements {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&element.to_le_bytes());
            out.extend_from_slice(&padded(value).to_le_bytes());
            out.extend_from_slice(value);
            if value.len() % 2 == 1 {
                // UIDs are padded with NUL, text with a space (PS3.5 section 6.2).
                out.push(if TEXTS.iter().any(|text| *element == *text as u16) { b' ' } else { 0 });
            }
        }
    }

    fn bytes(&self, element: u16) -> Option<&[u8]> {
        let at = self.elements.binary_search_by_key(&element, |(number, _)| *number).ok()?;
        Some(&self.elements[at].1)
    }

    /// An unsigned short.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::WrongForm`].
    pub fn u16(&self, element: Element) -> Result<u16, CommandError> {
        let element = element as u16;
        let value = self.bytes(element).ok_or(CommandError::Missing { element })?;
        let value: [u8; 2] = value.try_into().map_err(|_| CommandError::WrongForm { element })?;
        Ok(u16::from_le_bytes(value))
    }

    /// A UID.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::WrongForm`].
    pub fn uid(&self, element: Element) -> Result<Uid, CommandError> {
        let element = element as u16;
        let value = self.bytes(element).ok_or(CommandError::Missing { element })?;
        let text = std::str::from_utf8(value).map_err(|_| CommandError::WrongForm { element })?;
        Uid::new(text).map_err(|_| CommandError::WrongForm { element })
    }

    /// An AE title.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::WrongForm`].
    pub fn ae(&self, element: Element) -> Result<AeTitle, CommandError> {
        let element = element as u16;
        let value = self.bytes(element).ok_or(CommandError::Missing { element })?;
        let text = std::str::from_utf8(value).map_err(|_| CommandError::WrongForm { element })?;
        AeTitle::new(text).map_err(|_| CommandError::WrongForm { element })
    }

    /// The command field.
    ///
    /// # Errors
    /// As [`Self::u16`].
    pub fn field(&self) -> Result<CommandField, CommandError> {
        self.u16(Element::CommandField).map(CommandField)
    }

    /// The message id of a request.
    ///
    /// # Errors
    /// As [`Self::u16`].
    pub fn message_id(&self) -> Result<u16, CommandError> {
        self.u16(Element::MessageId)
    }

    /// The status of a response.
    ///
    /// # Errors
    /// As [`Self::u16`].
    pub fn status(&self) -> Result<Status, CommandError> {
        self.u16(Element::Status).map(Status)
    }

    /// A data set follows this command.
    ///
    /// # Errors
    /// As [`Self::u16`].
    pub fn has_data_set(&self) -> Result<bool, CommandError> {
        self.u16(Element::DataSetType).map(|kind| kind != NO_DATA_SET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    #[test]
    fn a_store_request_survives_encoding_and_decoding() {
        let request = CommandSet::store_request(7, &uid("1.2.840.10008.5.1.4.1.1.7"), &uid("1.2.3"));
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(bytes.len() % 2, 0);
        assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize, bytes.len() - 12);
        let read = CommandSet::decode(&bytes).unwrap();
        assert_eq!(read.field(), Ok(CommandField::C_STORE_RQ));
        assert_eq!(read.message_id(), Ok(7));
        assert_eq!(read.uid(Element::AffectedSopInstance), Ok(uid("1.2.3")));
        assert_eq!(read.has_data_set(), Ok(true));
    }

    #[test]
    fn a_response_repeats_message_id_class_and_instance_of_its_request() {
        let request = CommandSet::store_request(9, &uid("1.2.4"), &uid("1.2.3"));
        let response = CommandSet::response_to(&request, Status::DATA_SET_MISMATCH).with_comment("caf\u{e9}\\\n why");
        assert_eq!(response.field().unwrap().0, 0x8001);
        assert_eq!(response.u16(Element::MessageIdRespondedTo), Ok(9));
        assert_eq!(response.uid(Element::AffectedSopClass), Ok(uid("1.2.4")));
        assert_eq!(response.status(), Ok(Status::DATA_SET_MISMATCH));
        assert_eq!(response.has_data_set(), Ok(false));
        assert_eq!(response.bytes(Element::ErrorComment as u16), Some(b"caf why".as_slice()));
    }

    #[test]
    fn inv_08_a_length_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let bytes = [0, 0, 0x10, 0x01, 0xff, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(CommandSet::decode(&bytes), Err(CommandError::Truncated { position: 0 }));
        assert_eq!(CommandSet::decode(&bytes[..5]), Err(CommandError::Truncated { position: 0 }));
    }

    #[test]
    fn foreign_groups_and_repeats_are_refused() {
        assert_eq!(CommandSet::decode(&[8, 0, 0x10, 0x01, 0, 0, 0, 0]), Err(CommandError::ForeignGroup { group: 8 }));
        let twice = [0, 0, 0x10, 0x01, 0, 0, 0, 0].repeat(2);
        assert_eq!(CommandSet::decode(&twice), Err(CommandError::Repeated { element: 0x0110 }));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(set) = CommandSet::decode(&bytes) {
                let _unused = (set.field(), set.uid(Element::AffectedSopClass), set.has_data_set());
            }
        }

        #[test]
        fn what_is_encoded_decodes_to_the_same(id in any::<u16>(), status in any::<u16>()) {
            let set = CommandSet::response_to(&CommandSet::echo_request(id), Status(status));
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let read = CommandSet::decode(&bytes).unwrap();
            prop_assert_eq!(read.status(), Ok(Status(status)));
            prop_assert_eq!(read.u16(Element::MessageIdRespondedTo), Ok(id));
        }
    }
}
