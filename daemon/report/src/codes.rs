//! Coded concepts that reports use. Standard ones where the standard has them; ours under the scheme `99FOVEA`.
//! Standard: DICOM PS3.16 TID 1500, 1501, 1600, 4019, CID 244, CID 4209; PS3.3 section 8.8.

use fovea_core::{Band, Code, Laterality, Outcome, Priority};

/// Designator of our own scheme; its values are stable.
pub const OWN_SCHEME: &str = "99FOVEA";

fn dcm(value: &str, meaning: &str) -> Code {
    Code::new("DCM", value, meaning)
}

fn sct(value: &str, meaning: &str) -> Code {
    Code::new("SCT", value, meaning)
}

fn own(value: &str, meaning: &str) -> Code {
    Code::new(OWN_SCHEME, value, meaning)
}

macro_rules! concepts {
    ($($(#[$doc:meta])* $name:ident = $scheme:ident($value:literal, $meaning:literal);)*) => {
        $($(#[$doc])* pub fn $name() -> Code { $scheme($value, $meaning) })*
    };
}

concepts! {
    measurement_report = dcm("126000", "Imaging Measurement Report");
    language = dcm("121049", "Language of Content Item and Descendants");
    observer_type = dcm("121005", "Observer Type");
    device = dcm("121007", "Device");
    device_uid = dcm("121012", "Device Observer UID");
    device_name = dcm("121013", "Device Observer Name");
    device_manufacturer = dcm("121014", "Device Observer Manufacturer");
    device_model = dcm("121015", "Device Observer Model Name");
    device_serial = dcm("121016", "Device Observer Serial Number");
    procedure_reported = dcm("121058", "Procedure reported");
    /// Of CID 100: the general one, since the box knows the object's class but not what was ordered.
    imaging_procedure = sct("363679005", "Imaging procedure");
    image_library = dcm("111028", "Image Library");
    image_library_group = dcm("126200", "Image Library Group");
    source = sct("260753009", "Source");
    modality = dcm("121139", "Modality");
    measurements = dcm("126010", "Imaging Measurements");
    measurement_group = dcm("125007", "Measurement Group");
    tracking_identifier = dcm("112039", "Tracking Identifier");
    tracking_uid = dcm("112040", "Tracking Unique Identifier");
    finding = dcm("121071", "Finding");
    finding_site = sct("363698007", "Finding Site");
    retina = sct("5665001", "Retina");
    laterality = sct("272741003", "Laterality");
    algorithm_name = dcm("111001", "Algorithm Name");
    algorithm_version = dcm("111003", "Algorithm Version");
    algorithm_family = dcm("111000", "Algorithm Family");
    algorithm_parameters = dcm("111002", "Algorithm Parameters");
    algorithm_manufacturer = dcm("122405", "Algorithm Manufacturer");
    source_of_measurement = dcm("121112", "Source of Measurement");
    image_region = dcm("111030", "Image Region");
    source_image = dcm("121324", "Source Image");
    comment = dcm("121106", "Comment");
    probability = own("probability", "Calibrated probability of the finding");
    triage_band = own("band", "Triage band");
    outcome = own("outcome", "Outcome of the analysis");
    priority = own("priority", "Reading priority");
    reason = own("reason", "Reason why there is no finding");
    advice = own("advice", "What can be done");
}

/// Present, absent or undetermined (CID 240) for a band.
pub fn presence(band: Band) -> Code {
    match band {
        Band::Clear => sct("272519000", "Absent"),
        Band::Ambiguous => sct("373068000", "Undetermined"),
        Band::Significant => sct("52101004", "Present"),
    }
}

/// The band itself.
pub fn band(band: Band) -> Code {
    match band {
        Band::Clear => own("clear", "Clear: below the lower threshold"),
        Band::Ambiguous => own("ambiguous", "Ambiguous: between the thresholds"),
        Band::Significant => own("significant", "Significant: at or above the threshold"),
    }
}

/// How the analysis ended.
pub fn ended(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Finding => own("finding", "Analysed, a model answered"),
        Outcome::Ungradable => own("ungradable", "Not gradable, can be taken again"),
        Outcome::NotAnalysed => own("not_analysed", "Not analysed, no model has answered"),
    }
}

/// How soon a person should look.
pub fn urgency(priority: Priority) -> Code {
    match priority {
        Priority::Routine => own("routine", "Routine: in order of arrival"),
        Priority::High => own("high", "High: before routine ones"),
        Priority::Urgent => own("urgent", "Urgent: first"),
    }
}

/// CID 244, where one side is meant.
pub fn side(laterality: Laterality) -> Option<Code> {
    match laterality {
        Laterality::Left => Some(sct("7771000", "Left")),
        Laterality::Right => Some(sct("24028007", "Right")),
        Laterality::Both => None,
    }
}

/// The language of everything we write.
pub fn english() -> Code {
    Code::new("RFC5646", "en-US", "English (United States)")
}

/// UCUM "no units".
pub fn no_units() -> Code {
    Code::new("UCUM", "1", "no units")
}
