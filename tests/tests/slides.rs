//! A slide takes its time, and nobody else's: photographs that arrive meanwhile are answered at once.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use dicom_core::value::{DataSetSequence, PixelFragmentSequence, Value};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use fovea_core::{Outcome, sop_class};
use fovea_tests::node::Setup;
use fovea_tests::sample::Sample;
use fovea_tests::{object, paths};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
const SIDE_PX: u32 = 10_000;
const TILE_PX: u16 = 256;

/// A whole slide of tissue, as a scanner at 20x writes it.
fn slide(folder: &Path) -> (PathBuf, String) {
    let sample = Sample::secondary_capture(7).class(sop_class::VL_WHOLE_SLIDE, "SM").size(TILE_PX, TILE_PX);
    let mut slide = sample.data_set();
    let tile = |name: &str| std::fs::read(paths::workspace().join("daemon/worker/tests/data").join(name)).unwrap();
    let tissue = ["normal-1.jpg", "normal-2.jpg", "tumour-3.jpg", "tumour-4.jpg"].map(tile);
    let tiles = SIDE_PX.div_ceil(TILE_PX.into()).pow(2);
    for (tag, vr, text) in [
        (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\VOLUME\\NONE".to_owned()),
        (tags::DIMENSION_ORGANIZATION_TYPE, VR::CS, "TILED_FULL".to_owned()),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL_422".to_owned()),
        (tags::NUMBER_OF_FRAMES, VR::IS, tiles.to_string()),
    ] {
        object::put(&mut slide, tag, vr, &text);
    }
    for (tag, number) in [(tags::SAMPLES_PER_PIXEL, 3_u16), (tags::PLANAR_CONFIGURATION, 0)] {
        slide.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number)));
    }
    for tag in [tags::TOTAL_PIXEL_MATRIX_COLUMNS, tags::TOTAL_PIXEL_MATRIX_ROWS] {
        slide.put(DataElement::new(tag, VR::UL, PrimitiveValue::from(SIDE_PX)));
    }
    let mut measures = InMemDicomObject::new_empty();
    object::put(&mut measures, tags::PIXEL_SPACING, VR::DS, "0.0005\\0.0005");
    let group = InMemDicomObject::from_element_iter([sequence(tags::PIXEL_MEASURES_SEQUENCE, measures)]);
    slide.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, group));
    let frames: Vec<Vec<u8>> = (0..tiles as usize).map(|at| even(&tissue[(at * 7 + at / 40) % tissue.len()])).collect();
    slide.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        Value::PixelSequence(PixelFragmentSequence::new(Vec::<u32>::new(), frames)),
    ));
    let path = folder.join("slide.dcm");
    object::write(slide, JPEG_BASELINE, &path).unwrap();
    (path, sample.sop_instance_uid())
}

fn sequence(tag: Tag, item: InMemDicomObject) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item]))
}

fn even(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

#[test]
fn inv_02_photographs_that_arrive_while_a_slide_is_read_are_answered_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("box")).unwrap().bundles(paths::bundles().unwrap());
    let mut node = setup.start().unwrap();
    let first = node.capture_and_wait(&paths::sample("retina.jpg").unwrap(), Duration::from_secs(60)).unwrap();
    let photograph = node.state().join(node.ctl().show(first.sop_instance_uid.as_str()).unwrap().object_path);
    let (slide, slide_uid) = slide(folder.path());
    let begin = Instant::now();
    node.send(std::slice::from_ref(&slide)).unwrap();
    let is_read = |node: &fovea_tests::node::Node| {
        node.ctl().findings().unwrap().iter().any(|finding| finding.sop_instance_uid.as_str() == slide_uid)
    };
    let mut slowest = Duration::ZERO;
    let mut photographs = 0;
    while !is_read(&node) {
        assert!(begin.elapsed() < Duration::from_secs(180), "the slide has no outcome");
        photographs += 1;
        let (uid, path) = (format!("1.2.826.0.1.99.{photographs}"), folder.path().join(format!("{photographs}.dcm")));
        object::copy_as(&photograph, &path, &uid).unwrap();
        let sent = Instant::now();
        node.send(&[path]).unwrap();
        let finding = node.ctl().wait_for_finding(&uid, Duration::from_secs(30)).unwrap();
        assert_eq!(finding.task, "diabetic_retinopathy_screening");
        slowest = slowest.max(sent.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{photographs} photographs in {:?}, the slowest answered after {slowest:?}", begin.elapsed());
    assert!(photographs >= 3, "only {photographs} were sent while the slide was read");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let finding = node.ctl().wait_for_finding(&slide_uid, Duration::from_secs(5)).unwrap();
    assert_eq!((finding.outcome, &*finding.task), (Outcome::Finding, "lung_tissue"), "{finding:?}");
    assert_eq!(finding.tile_map.as_ref().map(|map| (map.columns, map.rows)), Some((27, 27)));
    // Once more: known, and no second outcome.
    node.send(&[slide]).unwrap();
    let same = node.ctl().wait_for_finding(&slide_uid, Duration::from_secs(5)).unwrap();
    assert_eq!(same.finding_id, finding.finding_id);
    assert!(node.stop().unwrap().success());
}
