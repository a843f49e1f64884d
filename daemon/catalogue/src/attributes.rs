//! What is indexed: one table, from which the schema, the reading of headers, matching and answers are made.
//!
//! In: nothing. Out: [`ATTRIBUTES`]. Promise: an attribute that is not here matches all and is in no row.
//! Standard: PS3.4 tables C.6-1 to C.6-5 and C.6.2 (keys of each level), PS3.18 tables 10.6.1-5 and 10.6.3-3 to 10.6.3-5.

use fovea_core::{QueryLevel, TagNumber};

/// How a value is read and compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// UI: equal to one of a list.
    Uid,
    /// PN: by component group, case does not count, wildcards.
    Name,
    /// DA: a range.
    Date,
    /// TM: a range.
    Time,
    /// Any other text: case counts, wildcards; several values each for itself.
    Text,
    /// IS: by its number.
    Number,
    /// US: two bytes, by its number.
    Short,
}

/// One indexed attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attribute {
    pub tag: TagNumber,
    /// Of what it is an attribute.
    pub level: QueryLevel,
    pub kind: Kind,
}

impl Attribute {
    /// Its column.
    pub(crate) fn column(self) -> String {
        format!("a{:08x}", self.tag)
    }
}

const fn of(level: QueryLevel, tag: TagNumber, kind: Kind) -> Attribute {
    Attribute { tag, level, kind }
}

use Kind::{Date, Name, Number, Short, Text, Time, Uid};
use QueryLevel::{Instance, Patient, Series, Study};

pub(crate) const PATIENT_NAME: TagNumber = 0x0010_0010;
pub(crate) const PATIENT_ID: TagNumber = 0x0010_0020;
pub(crate) const PATIENT_ID_ISSUER: TagNumber = 0x0010_0021;
pub(crate) const STUDY_DATE: TagNumber = 0x0008_0020;
pub(crate) const STUDY_TIME: TagNumber = 0x0008_0030;
pub(crate) const STUDY_UID: TagNumber = 0x0020_000D;
pub(crate) const SERIES_UID: TagNumber = 0x0020_000E;
pub(crate) const SOP_CLASS_UID: TagNumber = 0x0008_0016;
pub(crate) const SOP_INSTANCE_UID: TagNumber = 0x0008_0018;
pub(crate) const MODALITY: TagNumber = 0x0008_0060;
/// Available Transfer Syntax UID: known from the store, not from the data set.
pub(crate) const SYNTAX_UID: TagNumber = 0x0008_3002;
/// Request Attributes Sequence: of its first item two attributes are indexed as if they stood at the top.
pub(crate) const REQUEST_ATTRIBUTES: TagNumber = 0x0040_0275;

// Computed when asked for.
pub(crate) const INSTANCE_AVAILABILITY: TagNumber = 0x0008_0056;
pub(crate) const MODALITIES_IN_STUDY: TagNumber = 0x0008_0061;
pub(crate) const SOP_CLASSES_IN_STUDY: TagNumber = 0x0008_0062;
pub(crate) const STUDIES_OF_PATIENT: TagNumber = 0x0020_1200;
pub(crate) const SERIES_OF_PATIENT: TagNumber = 0x0020_1202;
pub(crate) const INSTANCES_OF_PATIENT: TagNumber = 0x0020_1204;
pub(crate) const SERIES_OF_STUDY: TagNumber = 0x0020_1206;
pub(crate) const INSTANCES_OF_STUDY: TagNumber = 0x0020_1208;
pub(crate) const INSTANCES_OF_SERIES: TagNumber = 0x0020_1209;

/// Everything that is indexed.
pub(crate) const ATTRIBUTES: &[Attribute] = &[
    of(Patient, PATIENT_NAME, Name),
    of(Patient, PATIENT_ID, Text),
    of(Patient, PATIENT_ID_ISSUER, Text),
    of(Patient, 0x0010_0030, Date), // PatientBirthDate
    of(Patient, 0x0010_0032, Time), // PatientBirthTime
    of(Patient, 0x0010_0040, Text), // PatientSex
    of(Patient, 0x0010_2160, Text), // EthnicGroup
    of(Study, STUDY_DATE, Date),
    of(Study, STUDY_TIME, Time),
    of(Study, 0x0008_0050, Text), // AccessionNumber
    of(Study, 0x0008_0090, Name), // ReferringPhysicianName
    of(Study, 0x0008_0201, Text), // TimezoneOffsetFromUTC
    of(Study, 0x0008_1030, Text), // StudyDescription
    of(Study, 0x0008_1060, Name), // NameOfPhysiciansReadingStudy
    of(Study, 0x0010_1010, Text), // PatientAge
    of(Study, 0x0010_1020, Text), // PatientSize
    of(Study, 0x0010_1030, Text), // PatientWeight
    of(Study, 0x0010_2180, Text), // Occupation
    of(Study, STUDY_UID, Uid),
    of(Study, 0x0020_0010, Text),  // StudyID
    of(Series, 0x0008_0021, Date), // SeriesDate
    of(Series, 0x0008_0031, Time), // SeriesTime
    of(Series, MODALITY, Text),
    of(Series, 0x0008_0070, Text), // Manufacturer
    of(Series, 0x0008_0080, Text), // InstitutionName
    of(Series, 0x0008_1010, Text), // StationName
    of(Series, 0x0008_103E, Text), // SeriesDescription
    of(Series, 0x0008_1050, Name), // PerformingPhysicianName
    of(Series, 0x0008_1070, Name), // OperatorsName
    of(Series, 0x0008_1090, Text), // ManufacturerModelName
    of(Series, 0x0018_0015, Text), // BodyPartExamined
    of(Series, 0x0018_1030, Text), // ProtocolName
    of(Series, SERIES_UID, Uid),
    of(Series, 0x0020_0011, Number), // SeriesNumber
    of(Series, 0x0020_0060, Text),   // Laterality
    of(Series, 0x0040_0009, Text),   // ScheduledProcedureStepID, in RequestAttributesSequence
    of(Series, 0x0040_0244, Date),   // PerformedProcedureStepStartDate
    of(Series, 0x0040_0245, Time),   // PerformedProcedureStepStartTime
    of(Series, 0x0040_0253, Text),   // PerformedProcedureStepID
    of(Series, 0x0040_0254, Text),   // PerformedProcedureStepDescription
    of(Series, 0x0040_1001, Text),   // RequestedProcedureID, in RequestAttributesSequence
    of(Instance, 0x0008_0008, Text), // ImageType
    of(Instance, SOP_CLASS_UID, Uid),
    of(Instance, SOP_INSTANCE_UID, Uid),
    of(Instance, 0x0008_0022, Date), // AcquisitionDate
    of(Instance, 0x0008_0023, Date), // ContentDate
    of(Instance, 0x0008_0032, Time), // AcquisitionTime
    of(Instance, 0x0008_0033, Time), // ContentTime
    of(Instance, SYNTAX_UID, Uid),
    of(Instance, 0x0020_0013, Number), // InstanceNumber
    of(Instance, 0x0020_0062, Text),   // ImageLaterality
    of(Instance, 0x0028_0004, Text),   // PhotometricInterpretation
    of(Instance, 0x0028_0008, Number), // NumberOfFrames
    of(Instance, 0x0028_0010, Short),  // Rows
    of(Instance, 0x0028_0011, Short),  // Columns
    of(Instance, 0x0028_0100, Short),  // BitsAllocated
    of(Instance, 0x0040_A491, Text),   // CompletionFlag
    of(Instance, 0x0040_A493, Text),   // VerificationFlag
];

/// Behind this tag nothing is indexed, so nothing is read.
pub(crate) const LAST_TAG: TagNumber = 0x0040_A493;

/// The attribute of that tag.
pub(crate) fn attribute(tag: TagNumber) -> Option<Attribute> {
    ATTRIBUTES.iter().copied().find(|attribute| attribute.tag == tag)
}

/// Attributes of exactly that level.
pub(crate) fn of_level(level: QueryLevel) -> impl Iterator<Item = Attribute> {
    ATTRIBUTES.iter().copied().filter(move |attribute| attribute.level == level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attribute_is_there_twice_and_none_lies_behind_the_last() {
        let mut tags: Vec<TagNumber> = ATTRIBUTES.iter().map(|attribute| attribute.tag).collect();
        assert!(tags.iter().all(|tag| *tag <= LAST_TAG));
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), ATTRIBUTES.len());
    }
}
