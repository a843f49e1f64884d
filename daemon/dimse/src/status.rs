//! Status codes of DIMSE responses, with their meaning and their place in the standard.

use std::fmt;

/// The status (0000,0900) of a response. Standard: PS3.7 annex C; storage: PS3.4 table B.2-1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status(pub u16);

impl Status {
    /// Success (PS3.7 section C.1.1).
    pub const SUCCESS: Self = Self(0x0000);
    /// Failure: invalid attribute value (PS3.7 section C.5.11 of N-SET): also a step that is over (PS3.4 section F.7.2.2.2).
    pub const INVALID_ATTRIBUTE_VALUE: Self = Self(0x0106);
    /// Failure: processing failure (PS3.7 section C.5.21).
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// Failure: duplicate SOP instance (PS3.7 section C.5.4): the UID is held with other content.
    pub const DUPLICATE_SOP_INSTANCE: Self = Self(0x0111);
    /// Failure: no such SOP instance (PS3.7 section C.5.19).
    pub const NO_SUCH_INSTANCE: Self = Self(0x0112);
    /// Failure: no such event type (PS3.7 section C.5.18).
    pub const NO_SUCH_EVENT_TYPE: Self = Self(0x0113);
    /// Failure: invalid argument value (PS3.7 section C.5.10).
    pub const INVALID_ARGUMENT_VALUE: Self = Self(0x0115);
    /// Failure: invalid SOP instance (PS3.7 section C.5.11): the UID breaks the rules of PS3.5 chapter 9.
    pub const INVALID_SOP_INSTANCE: Self = Self(0x0117);
    /// Failure: class-instance conflict (PS3.7 section C.5.7).
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// Failure: missing attribute (PS3.7 section C.5.13).
    pub const MISSING_ATTRIBUTE: Self = Self(0x0120);
    /// Refused: SOP class not supported (PS3.7 section C.5.23).
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// Failure: no such action type (PS3.7 section C.5.16).
    pub const NO_SUCH_ACTION: Self = Self(0x0123);
    /// Refused: not authorized (PS3.7 section C.5.24).
    pub const NOT_AUTHORIZED: Self = Self(0x0124);
    /// Failure: duplicate invocation (PS3.7 section C.5.5).
    pub const DUPLICATE_INVOCATION: Self = Self(0x0210);
    /// Failure: unrecognized operation (PS3.7 section C.5.25).
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// Failure: mistyped argument (PS3.7 section C.5.15).
    pub const MISTYPED_ARGUMENT: Self = Self(0x0212);
    /// Failure: duplicate transaction UID (PS3.4 table J.3-2).
    pub const DUPLICATE_TRANSACTION: Self = Self(0x0131);
    /// Failure: resource limitation (PS3.7 section C.5.22).
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
    /// Refused: out of resources (PS3.4 table B.2-1, A7xx): the sender may try again later.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// Refused: unable to calculate the number of matches (PS3.4 table C.4-2).
    pub const UNABLE_TO_COUNT: Self = Self(0xA701);
    /// Refused: unable to perform sub-operations (PS3.4 table C.4-2).
    pub const UNABLE_TO_PERFORM: Self = Self(0xA702);
    /// Refused: move destination unknown (PS3.4 table C.4-2).
    pub const MOVE_DESTINATION_UNKNOWN: Self = Self(0xA801);
    /// Warning: sub-operations complete, some failed (PS3.4 tables C.4-2 and C.4-3).
    pub const SOME_FAILED: Self = Self(0xB000);
    /// Error: data set does not match SOP class (PS3.4 table B.2-1, A9xx).
    pub const DATA_SET_MISMATCH: Self = Self(0xA900);
    /// Error: cannot understand (PS3.4 table B.2-1, Cxxx).
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);
    /// Cancelled by the other side (PS3.7 section C.3).
    pub const CANCEL: Self = Self(0xFE00);
    /// Pending: more responses follow (PS3.7 section C.1.3).
    pub const PENDING: Self = Self(0xFF00);
    /// Pending, and some optional keys were not matched (PS3.4 table C.4-1).
    pub const PENDING_KEYS_IGNORED: Self = Self(0xFF01);

    /// The operation was done as asked.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// The operation was done, with a remark (PS3.7 section C.4: 0001, 0107, 0116, Bxxx).
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(self.0, 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }

    /// More responses follow (FF00, FF01).
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self.0, 0xFF00 | 0xFF01)
    }

    /// The operation was not done: neither success, warning, pending nor cancelled.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !(self.is_success() || self.is_warning() || self.is_pending() || self == Self::CANCEL)
    }

    /// The standard's words for the code.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self.0 {
            0x0000 => "success",
            0x0105 => "no such attribute",
            0x0106 => "invalid attribute value",
            0x0107 => "warning: attribute list error",
            0x0110 => "processing failure",
            0x0111 => "duplicate SOP instance",
            0x0112 => "no such SOP instance",
            0x0113 => "no such event type",
            0x0114 => "no such argument",
            0x0115 => "invalid argument value",
            0x0116 => "warning: attribute value out of range",
            0x0117 => "invalid SOP instance",
            0x0118 => "no such SOP class",
            0x0119 => "class-instance conflict",
            0x0120 => "missing attribute",
            0x0121 => "missing attribute value",
            0x0122 => "SOP class not supported",
            0x0123 => "no such action type",
            0x0124 => "not authorized",
            0x0131 => "duplicate transaction UID",
            0x0210 => "duplicate invocation",
            0x0211 => "unrecognized operation",
            0x0212 => "mistyped argument",
            0x0213 => "resource limitation",
            0xA701 => "refused: matches cannot be counted",
            0xA702 => "refused: sub-operations cannot be performed",
            0xA801 => "refused: move destination unknown",
            0xA700..=0xA7FF => "refused: out of resources",
            0xA900..=0xA9FF => "data set does not match SOP class",
            0xB000 => "warning: coercion of data elements",
            0xB006 => "warning: elements discarded",
            0xB007 => "warning: data set does not match SOP class",
            0xB001..=0xBFFF => "warning",
            0xC000..=0xCFFF => "cannot understand",
            0xFE00 => "cancelled",
            0xFF00 | 0xFF01 => "pending",
            _ => "failure",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X} ({})", self.0, self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_exactly_one_of_success_warning_pending_cancelled_failure() {
        for code in 0..=u16::MAX {
            let status = Status(code);
            let kinds = [
                status.is_success(),
                status.is_warning(),
                status.is_pending(),
                status == Status::CANCEL,
                status.is_failure(),
            ];
            assert_eq!(kinds.iter().filter(|yes| **yes).count(), 1, "{status}");
        }
    }

    #[test]
    fn a_status_shows_code_and_words() {
        assert_eq!(Status::OUT_OF_RESOURCES.to_string(), "A700 (refused: out of resources)");
        assert!(Status(0xA701).is_failure() && Status(0xB007).is_warning());
    }
}
