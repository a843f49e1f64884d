//! No model answers for what it was not made for: every bundle gets the other bundles' pictures and ten kinds of
//! nonsense, under headers that say they are just what it is for.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use fovea_core::{Finding, Outcome, Uid, sop_class};
use fovea_tests::node::{Node, Setup};
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::{object, paths};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SIDE_PX: u16 = 640;

/// How an object says that it is what a bundle is for.
struct Disguise {
    bundle: &'static str,
    sop_class: &'static str,
    modality: &'static str,
    body_part: &'static str,
    /// The sample that it is really for.
    own: &'static str,
}

const DISGUISES: [Disguise; 3] = [
    Disguise {
        bundle: "dr-screening",
        sop_class: sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT,
        modality: "OP",
        body_part: "RETINA",
        own: "retina",
    },
    Disguise {
        bundle: "lung-tissue",
        sop_class: sop_class::VL_MICROSCOPIC,
        modality: "GM",
        body_part: "LUNG",
        own: "tissue.dcm",
    },
    Disguise {
        bundle: "thyroid-nodule",
        sop_class: sop_class::ULTRASOUND,
        modality: "US",
        body_part: "THYROID",
        own: "thyroid-synthetic.dcm",
    },
];

/// Samples of one bundle or of none.
const PICTURES: [&str; 6] =
    ["tissue.dcm", "thyroid-synthetic.dcm", "us-rgb.dcm", "us-palette.dcm", "us-jpeg2000.dcm", "us-cine.dcm"];

type Nonsense = (&'static str, fn(f64, f64, u64) -> [u8; 3]);

/// Each from column and row, 0 to 1, and 64 random bits of the place.
const NONSENSE: [Nonsense; 10] = [
    ("black", |_, _, _| [0; 3]),
    ("gray", |_, _, _| [128; 3]),
    ("white", |_, _, _| [255; 3]),
    ("noise", |_, _, bits| [bits as u8, (bits >> 8) as u8, (bits >> 16) as u8]),
    ("gray noise", |_, _, bits| [bits as u8; 3]),
    ("gradient", |x, y, _| [(x * 255.0) as u8, (y * 255.0) as u8, 90]),
    ("checkerboard", |x, y, _| if ((x * 8.0) as u32 + (y * 8.0) as u32).is_multiple_of(2) { [250; 3] } else { [5; 3] }),
    ("stripes", |x, _, _| [((x * 120.0).sin() * 120.0 + 128.0) as u8, 60, 60]),
    ("orange disc", |x, y, _| if (x - 0.5).hypot(y - 0.5) < 0.45 { [210, 110, 40] } else { [0; 3] }),
    ("rings", |x, y, _| [(((x - 0.5).hypot(y - 0.5) * 90.0).sin() * 100.0 + 128.0) as u8; 3]),
];

fn pixels(of: fn(f64, f64, u64) -> [u8; 3]) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let side = u32::from(SIDE_PX);
    (0..side * side)
        .flat_map(|place| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = |pixel: u32| f64::from(pixel) / f64::from(side);
            of(at(place % side), at(place / side), state >> 20)
        })
        .collect()
}

/// Another name and the headers of what the bundle is for; the pixels stay.
fn put_on(disguise: &Disguise, picture: &str, mut data: InMemDicomObject, syntax: &str, folder: &Path) -> PathBuf {
    let uid = Uid::derived("fovea-tests disguise", &[disguise.bundle, picture]);
    let texts = [
        (tags::SOP_CLASS_UID, VR::UI, disguise.sop_class),
        (tags::SOP_INSTANCE_UID, VR::UI, uid.as_str()),
        (tags::MODALITY, VR::CS, disguise.modality),
        (tags::BODY_PART_EXAMINED, VR::CS, disguise.body_part),
    ];
    for (tag, vr, text) in texts {
        object::put(&mut data, tag, vr, text);
    }
    let path = folder.join(format!("{uid}.dcm"));
    object::write(data, syntax, &path).expect("the object is written");
    path
}

fn from_file(path: &Path) -> (InMemDicomObject, String) {
    let file = object::open(path).expect("the sample is a DICOM object");
    let syntax = file.meta().transfer_syntax().trim_end_matches('\0').to_owned();
    (file.into_inner(), syntax)
}

fn drawn(of: fn(f64, f64, u64) -> [u8; 3]) -> InMemDicomObject {
    let mut sample = Sample::secondary_capture(1).size(SIDE_PX, SIDE_PX);
    sample.samples_per_pixel = 3;
    let mut data = sample.data_set();
    data.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(pixels(of))));
    data
}

/// A box with every bundle, and the photograph as the DICOM object that the box made of it.
fn every_bundle(folder: &Path) -> (Node, Finding, PathBuf) {
    let bundles = paths::bundles().expect("the bundles are there");
    let named: Vec<_> = DISGUISES.iter().map(|disguise| disguise.bundle).collect();
    let found: Vec<_> = bundles.iter().filter_map(|path| path.parent()?.file_name()?.to_str()).collect();
    assert_eq!(found, named, "every bundle of the project is tried");
    let node = Setup::new(folder).expect("a box").bundles(bundles).start().expect("the box starts");
    let finding = node.capture_and_wait(&paths::sample("retina.jpg").expect("the sample"), LIMIT).expect("an outcome");
    let detail = node.ctl().show(finding.sop_instance_uid.as_str()).expect("the object is known");
    let photograph = node.state().join(&detail.object_path);
    (node, finding, photograph)
}

#[test]
fn inv_02_no_bundle_answers_for_another_bundles_pictures_or_for_nonsense() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _, photograph) = every_bundle(folder.path());
    let out = folder.path().join("disguised");
    std::fs::create_dir(&out).expect("a folder");
    let (mut names, mut files) = (Vec::new(), Vec::new());
    for disguise in &DISGUISES {
        let mut add = |picture: &str, data, syntax: &str| {
            if picture != disguise.own {
                names.push(format!("{} shown {picture}", disguise.bundle));
                files.push(put_on(disguise, picture, data, syntax, &out));
            }
        };
        let (data, syntax) = from_file(&photograph);
        add("retina", data, &syntax);
        for picture in PICTURES {
            let (data, syntax) = from_file(&paths::sample(picture).expect("the sample"));
            add(picture, data, &syntax);
        }
        for (picture, of) in NONSENSE {
            add(picture, drawn(of), EXPLICIT_VR_LE);
        }
    }
    let sent = node.send(&files).expect("every object is stored");
    let mut wrong = Vec::new();
    for (name, file) in names.iter().zip(&files) {
        let row = sent.iter().find(|row| row.path == *file).expect("each file has a row");
        let finding = node.ctl().wait_for_finding(&row.sop_instance_uid, LIMIT).expect("each object has an outcome");
        let reason = finding.reason.as_deref().unwrap_or_default();
        println!("{name}: {:?}, {reason}", finding.outcome);
        if finding.outcome == Outcome::Finding || reason.is_empty() {
            wrong.push(format!("{name}: {:?} {:?} {reason}", finding.outcome, finding.probability));
        }
    }
    assert!(wrong.is_empty(), "{} of {} got an answer:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

#[test]
fn each_bundle_answers_for_its_own_pictures_with_all_bundles_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, photograph, _) = every_bundle(folder.path());
    assert_eq!(photograph.outcome, Outcome::Finding, "{photograph:?}");
    let samples = ["thyroid-synthetic.dcm", "tissue.dcm", "slide.dcm"];
    let files: Vec<PathBuf> = samples.iter().map(|name| paths::sample(name).expect("the sample")).collect();
    let sent = node.send(&files).expect("every object is stored");
    for (name, file) in samples.iter().zip(&files) {
        let row = sent.iter().find(|row| row.path == *file).expect("each file has a row");
        let finding = node.ctl().wait_for_finding(&row.sop_instance_uid, LIMIT).expect("an outcome");
        assert_eq!(finding.outcome, Outcome::Finding, "{name}: {:?}", finding.reason);
        assert!(finding.model.is_some() && finding.probability.is_some(), "{name}: {finding:?}");
        match *name {
            "thyroid-synthetic.dcm" => {
                let sizes = &finding.regions[0].measurements;
                assert!(sizes.iter().any(|size| size.unit.value == "mm"), "the frame is calibrated: {sizes:?}");
            }
            "slide.dcm" => assert!(finding.tile_map.is_some(), "a slide has a map"),
            _ => assert_eq!(finding.classes.len(), 3),
        }
    }
}
