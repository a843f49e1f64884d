//! What we accept: one table, from which negotiation works and the conformance statement is made.
//!
//! In: nothing. Out: [`conformance`], and the answer to each proposed context.
//! Promise: what is not in the tables is not accepted.
//! Standard: PS3.4 table B.5-1 (classes), PS3.5 annex A and PS3.6 table A-1 (transfer syntaxes).

use crate::services::Service;
use fovea_core::{Uid, sop_class};
use fovea_dimse::{ContextAnswer, Status, VERIFICATION, commitment};

/// How a data set in some transfer syntax is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Implicit VR Little Endian, native pixels.
    Implicit,
    /// Explicit VR Little Endian, native pixels.
    Explicit,
    /// Explicit VR Little Endian, the whole data set deflated (RFC 1951).
    Deflated,
    /// Explicit VR Little Endian, pixels in fragments.
    Encapsulated,
}

/// A storage class that we accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassEntry {
    /// SOP class UID.
    pub uid: &'static str,
    /// Its name in PS3.4.
    pub name: &'static str,
}

/// A transfer syntax that we accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyntaxEntry {
    /// Transfer syntax UID.
    pub uid: &'static str,
    /// Its name in PS3.6.
    pub name: &'static str,
    /// How the data set is laid out.
    pub encoding: Encoding,
    /// Kept and forwarded, never analysed.
    pub store_only: bool,
}

/// A class of another service than storage that we accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceEntry {
    /// SOP class UID.
    pub uid: &'static str,
    /// Its name in PS3.4.
    pub name: &'static str,
    /// What a peer must be granted for it.
    pub service: Service,
    /// What the one that calls us may be in it.
    pub requestor: &'static str,
}

/// A status of one of the other services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceStatus {
    /// The request.
    pub of: &'static str,
    /// The status.
    pub status: Status,
    /// When it is sent.
    pub when: &'static str,
}

/// Everything that the conformance statement says of what we accept.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// Our implementation class UID.
    pub implementation_class_uid: &'static Uid,
    /// Our implementation version name.
    pub implementation_version_name: &'static str,
    /// Storage classes, as SCP. Verification is accepted too, in the two native syntaxes.
    pub storage_classes: &'static [ClassEntry],
    /// Classes that are never taken, only given in C-GET.
    pub given_classes: &'static [ClassEntry],
    /// Classes of the other services; in the two native syntaxes.
    pub service_classes: &'static [ServiceEntry],
    /// Statuses of the other services.
    pub service_statuses: &'static [ServiceStatus],
    /// For each storage class, best first: of the syntaxes in one context the first of these is chosen.
    pub transfer_syntaxes: &'static [SyntaxEntry],
    /// Status codes of C-STORE responses, with when they are sent.
    pub store_statuses: &'static [(Status, &'static str)],
}

const fn class(uid: &'static str, name: &'static str) -> ClassEntry {
    ClassEntry { uid, name }
}

const fn syntax(uid: &'static str, name: &'static str, encoding: Encoding) -> SyntaxEntry {
    SyntaxEntry { uid, name, encoding, store_only: false }
}

const fn video(uid: &'static str, name: &'static str) -> SyntaxEntry {
    SyntaxEntry { uid, name, encoding: Encoding::Encapsulated, store_only: true }
}

const CLASSES: &[ClassEntry] = &[
    class(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, "Ophthalmic Photography 8 Bit Image Storage"),
    class(sop_class::OPHTHALMIC_PHOTOGRAPHY_16_BIT, "Ophthalmic Photography 16 Bit Image Storage"),
    class(sop_class::ULTRASOUND, "Ultrasound Image Storage"),
    class(sop_class::ULTRASOUND_MULTI_FRAME, "Ultrasound Multi-frame Image Storage"),
    class(sop_class::ULTRASOUND_RETIRED, "Ultrasound Image Storage (Retired)"),
    class(sop_class::ULTRASOUND_MULTI_FRAME_RETIRED, "Ultrasound Multi-frame Image Storage (Retired)"),
    class(sop_class::SECONDARY_CAPTURE, "Secondary Capture Image Storage"),
    class(sop_class::SECONDARY_CAPTURE_MULTI_BIT, "Multi-frame Single Bit Secondary Capture Image Storage"),
    class(sop_class::SECONDARY_CAPTURE_MULTI_BYTE, "Multi-frame Grayscale Byte Secondary Capture Image Storage"),
    class(sop_class::SECONDARY_CAPTURE_MULTI_WORD, "Multi-frame Grayscale Word Secondary Capture Image Storage"),
    class(sop_class::SECONDARY_CAPTURE_MULTI_COLOR, "Multi-frame True Color Secondary Capture Image Storage"),
    class(sop_class::VL_ENDOSCOPIC, "VL Endoscopic Image Storage"),
    class(sop_class::VL_PHOTOGRAPHIC, "VL Photographic Image Storage"),
    class(sop_class::VL_MICROSCOPIC, "VL Microscopic Image Storage"),
    class(sop_class::VL_SLIDE_MICROSCOPIC, "VL Slide-Coordinates Microscopic Image Storage"),
    class(sop_class::VL_WHOLE_SLIDE, "VL Whole Slide Microscopy Image Storage"),
];

/// Best first. A sender that offers several in one context must convert to what we choose, so nothing that loses
/// comes before anything that does not.
const SYNTAXES: &[SyntaxEntry] = &[
    syntax("1.2.840.10008.1.2.1", "Explicit VR Little Endian", Encoding::Explicit),
    syntax("1.2.840.10008.1.2", "Implicit VR Little Endian", Encoding::Implicit),
    syntax("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 (Lossless Only)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 with RPCL (Lossless Only)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.90", "JPEG 2000 (Lossless Only)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.70", "JPEG Lossless, Process 14, Selection Value 1", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.57", "JPEG Lossless, Process 14", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.5", "RLE Lossless", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", Encoding::Deflated),
    syntax("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless)", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.91", "JPEG 2000", Encoding::Encapsulated),
    syntax("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000", Encoding::Encapsulated),
    video("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
    video("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level"),
    video("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
    video("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
    video("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video"),
    video("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video"),
    video("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
    video("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1"),
    video("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1"),
];

const STORE_STATUSES: &[(Status, &str)] = &[
    (Status::SUCCESS, "the object is durable; also when the same data set was durable before"),
    (
        Status::OUT_OF_RESOURCES,
        "no space, the sender has its share, or the object is longer than the box takes: as soon as it is known, though the object is read to its end; nothing is kept",
    ),
    (Status::DATA_SET_MISMATCH, "SOP class or instance of the data set differ from the command's; nothing is kept"),
    (Status::CANNOT_UNDERSTAND, "the data set is cut, malformed or lacks study or series UID; nothing is kept"),
    (
        Status::DUPLICATE_SOP_INSTANCE,
        "the instance UID is held with other content: the held object stays, the new one is in quarantine on the box, the sender keeps its copy",
    ),
    (Status::SOP_CLASS_NOT_SUPPORTED, "the class of the command is not that of its presentation context"),
    (Status::NOT_AUTHORIZED, "the peer is not granted `store`"),
    (Status::PROCESSING_FAILURE, "the box could not make the object durable; nothing is kept"),
];

/// What the box makes itself and gives to viewers.
const GIVEN: &[ClassEntry] = &[class(sop_class::COMPREHENSIVE_SR, "Comprehensive SR Storage")];

/// Patient Root Query/Retrieve Information Model - FIND (PS3.4 section C.6.1.3).
pub(crate) const PATIENT_FIND: &str = "1.2.840.10008.5.1.4.1.2.1.1";
/// Patient Root - MOVE.
pub(crate) const PATIENT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.1.2";
/// Patient Root - GET.
pub(crate) const PATIENT_GET: &str = "1.2.840.10008.5.1.4.1.2.1.3";
/// Study Root - FIND (PS3.4 section C.6.2.3).
pub(crate) const STUDY_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
/// Study Root - MOVE.
pub(crate) const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
/// Study Root - GET.
pub(crate) const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
/// Modality Performed Procedure Step (PS3.4 section F.7).
pub(crate) const STEP: &str = "1.2.840.10008.3.1.2.3.3";

const fn other(uid: &'static str, name: &'static str, service: Service) -> ServiceEntry {
    ServiceEntry { uid, name, service, requestor: "SCU" }
}

const SERVICES: &[ServiceEntry] = &[
    ServiceEntry {
        uid: commitment::CLASS,
        name: "Storage Commitment Push Model",
        service: Service::Commitment,
        requestor: "SCU, or SCP to tell what it commits to",
    },
    other(STEP, "Modality Performed Procedure Step", Service::Steps),
    other(PATIENT_FIND, "Patient Root Query/Retrieve Information Model - FIND", Service::Query),
    other(STUDY_FIND, "Study Root Query/Retrieve Information Model - FIND", Service::Query),
    other(PATIENT_MOVE, "Patient Root Query/Retrieve Information Model - MOVE", Service::Retrieve),
    other(STUDY_MOVE, "Study Root Query/Retrieve Information Model - MOVE", Service::Retrieve),
    other(PATIENT_GET, "Patient Root Query/Retrieve Information Model - GET", Service::Retrieve),
    other(STUDY_GET, "Study Root Query/Retrieve Information Model - GET", Service::Retrieve),
];

const fn says(of: &'static str, status: Status, when: &'static str) -> ServiceStatus {
    ServiceStatus { of, status, when }
}

const SERVICE_STATUSES: &[ServiceStatus] = &[
    says("N-ACTION", Status::SUCCESS, "the request is durable: it is answered after any restart"),
    says("N-ACTION", Status::NO_SUCH_INSTANCE, "not the well-known instance"),
    says("N-ACTION", Status::NO_SUCH_ACTION, "another action than 1"),
    says("N-ACTION", Status::INVALID_ARGUMENT_VALUE, "transaction UID or references are missing or none"),
    says(
        "N-ACTION",
        Status::RESOURCE_LIMITATION,
        "too many references, or too many requests are open; nothing is kept",
    ),
    says("N-ACTION", Status::PROCESSING_FAILURE, "it could not be made durable, or the transaction UID is in use"),
    says("N-EVENT-REPORT", Status::SUCCESS, "what the archive commits to is durable here"),
    says("N-EVENT-REPORT", Status::NO_SUCH_INSTANCE, "no request of ours"),
    says("N-EVENT-REPORT", Status::NO_SUCH_EVENT_TYPE, "another event than 1 and 2"),
    says("N-EVENT-REPORT", Status::INVALID_ARGUMENT_VALUE, "the event information cannot be read"),
    says("N-CREATE", Status::SUCCESS, "the step is durable"),
    says("N-CREATE", Status::DUPLICATE_SOP_INSTANCE, "the step is held already"),
    says("N-CREATE", Status::MISSING_ATTRIBUTE, "no step status (0040,0252)"),
    says("N-CREATE", Status::INVALID_ATTRIBUTE_VALUE, "a step that begins otherwise than IN PROGRESS"),
    says("N-CREATE", Status::RESOURCE_LIMITATION, "too many steps are held, or the attributes are too long"),
    says("N-SET", Status::SUCCESS, "the change is durable"),
    says("N-SET", Status::NO_SUCH_INSTANCE, "no such step"),
    says("N-SET", Status::INVALID_ATTRIBUTE_VALUE, "a step status that does not exist"),
    says("N-SET", Status::PROCESSING_FAILURE, "the step is over, or the change could not be made durable"),
    says("C-FIND", Status::PENDING, "a match; every key that was asked for is in it"),
    says("C-FIND", Status::PENDING_KEYS_IGNORED, "a match; some key is not held for it"),
    says("C-FIND", Status::SUCCESS, "these were all matches"),
    says("C-FIND", Status::OUT_OF_RESOURCES, "there are more matches than are told: narrow the query"),
    says("C-FIND", Status::DATA_SET_MISMATCH, "no level, or one that the model lacks"),
    says("C-FIND", Status::CANCEL, "cancelled by the peer"),
    says("C-FIND", Status::CANNOT_UNDERSTAND, "the identifier cannot be read, or the index cannot be asked"),
    says("C-MOVE", Status::MOVE_DESTINATION_UNKNOWN, "not a peer with `reply_to`"),
    says("C-MOVE, C-GET", Status::PENDING, "one more sub-operation is done"),
    says("C-MOVE, C-GET", Status::SUCCESS, "every instance was sent"),
    says("C-MOVE, C-GET", Status::SOME_FAILED, "some instances were not sent; they are listed"),
    says("C-MOVE, C-GET", Status::UNABLE_TO_COUNT, "more instances than are sent in one operation"),
    says(
        "C-MOVE, C-GET",
        Status::UNABLE_TO_PERFORM,
        "no instance could be sent, or no association with the destination",
    ),
    says("C-MOVE, C-GET", Status::DATA_SET_MISMATCH, "the key of the level is missing"),
    says("C-MOVE, C-GET", Status::CANCEL, "cancelled by the peer"),
    says("C-MOVE, C-GET", Status::CANNOT_UNDERSTAND, "the identifier cannot be read, or the index cannot be asked"),
];

/// What we say of ourselves.
#[must_use]
pub fn conformance() -> Conformance {
    Conformance {
        implementation_class_uid: fovea_dimse::implementation_class_uid(),
        implementation_version_name: fovea_dimse::implementation_version_name(),
        storage_classes: CLASSES,
        given_classes: GIVEN,
        service_classes: SERVICES,
        service_statuses: SERVICE_STATUSES,
        transfer_syntaxes: SYNTAXES,
        store_statuses: STORE_STATUSES,
    }
}

/// The layout of a transfer syntax that we accept.
#[must_use]
pub fn encoding_of(transfer_syntax: &Uid) -> Option<Encoding> {
    SYNTAXES.iter().find(|entry| entry.uid == transfer_syntax.as_str()).map(|entry| entry.encoding)
}

/// A class of objects that we take.
pub(crate) fn is_stored(class: &Uid) -> bool {
    CLASSES.iter().any(|entry| entry.uid == class.as_str())
}

/// A class of objects that we may give: those that we take, and what we make ourselves.
pub(crate) fn is_given(class: &Uid) -> bool {
    is_stored(class) || GIVEN.iter().any(|entry| entry.uid == class.as_str())
}

/// Our answer to one proposed presentation context, to a peer that is granted what `offers` says.
pub(crate) fn answer(class: &Uid, proposed: &[Uid], offers: impl Fn(Service) -> bool) -> ContextAnswer {
    let service = SERVICES.iter().find(|entry| entry.uid == class.as_str()).map(|entry| entry.service);
    let is_small = class.as_str() == VERIFICATION || service.is_some_and(&offers);
    let is_object = is_stored(class) && offers(Service::Store) || is_given(class) && offers(Service::Retrieve);
    if !is_small && !is_object {
        return ContextAnswer::AbstractSyntaxNotSupported;
    }
    let native = |entry: &&SyntaxEntry| matches!(entry.encoding, Encoding::Implicit | Encoding::Explicit);
    let ours = SYNTAXES.iter().filter(|entry| is_object || native(entry));
    let mut chosen = ours.filter_map(|entry| proposed.iter().find(|uid| uid.as_str() == entry.uid));
    chosen.next().cloned().map_or(ContextAnswer::TransferSyntaxesNotSupported, ContextAnswer::Accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn answer(class: &Uid, proposed: &[Uid]) -> ContextAnswer {
        super::answer(class, proposed, |service| service == Service::Store)
    }

    #[test]
    fn a_service_is_offered_to_those_alone_that_are_granted_it() {
        let implicit = uid("1.2.840.10008.1.2");
        for entry in SERVICES {
            let proposed = std::slice::from_ref(&implicit);
            let granted = super::answer(&uid(entry.uid), proposed, |service| service == entry.service);
            assert_eq!(granted, ContextAnswer::Accept(implicit.clone()), "{}", entry.name);
            let others = super::answer(&uid(entry.uid), proposed, |service| service != entry.service);
            assert_eq!(others, ContextAnswer::AbstractSyntaxNotSupported, "{}", entry.name);
        }
    }

    #[test]
    fn every_uid_in_the_tables_is_one_and_stands_there_once() {
        let all: Vec<&str> = CLASSES
            .iter()
            .chain(GIVEN)
            .map(|c| c.uid)
            .chain(SYNTAXES.iter().map(|s| s.uid))
            .chain(SERVICES.iter().map(|s| s.uid))
            .collect();
        for (index, text) in all.iter().enumerate() {
            assert!(Uid::new(text).is_ok(), "{text}");
            assert!(!all[..index].contains(text), "{text}");
        }
    }

    #[test]
    fn a_sender_is_never_asked_to_lose_what_it_could_send_whole() {
        let us = uid(sop_class::ULTRASOUND);
        let (baseline, rle, explicit) =
            (uid("1.2.840.10008.1.2.4.50"), uid("1.2.840.10008.1.2.5"), uid("1.2.840.10008.1.2.1"));
        assert_eq!(
            answer(&us, &[baseline.clone(), rle.clone(), explicit.clone()]),
            ContextAnswer::Accept(explicit.clone())
        );
        assert_eq!(answer(&us, &[baseline.clone(), rle.clone()]), ContextAnswer::Accept(rle));
        assert_eq!(answer(&us, std::slice::from_ref(&baseline)), ContextAnswer::Accept(baseline.clone()));
        assert_eq!(answer(&uid(VERIFICATION), &[baseline]), ContextAnswer::TransferSyntaxesNotSupported);
        assert_eq!(
            answer(&uid(VERIFICATION), std::slice::from_ref(&explicit)),
            ContextAnswer::Accept(explicit.clone())
        );
    }

    #[test]
    fn big_endian_and_referenced_pixels_and_foreign_classes_are_refused() {
        let us = uid(sop_class::ULTRASOUND);
        for syntax in ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.7.1"] {
            assert_eq!(answer(&us, &[uid(syntax)]), ContextAnswer::TransferSyntaxesNotSupported, "{syntax}");
        }
        assert_eq!(
            answer(&uid("1.2.840.10008.5.1.4.1.1.2"), &[uid("1.2.840.10008.1.2")]),
            ContextAnswer::AbstractSyntaxNotSupported
        );
    }
}
