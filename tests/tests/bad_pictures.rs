//! Pictures that lie: accepted, because their structure is sound, and answered with an outcome that says what is wrong.
//!
//! In: eye photographs whose pixels are not what their header says. Out: one outcome each, never a finding (invariant 2).
//! Promise: the daemon and the worker stay up and small, and a real photograph is analysed afterwards.

use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use fovea_core::{Outcome, sop_class};
use fovea_tests::node::Setup;
use fovea_tests::random::Random;
use fovea_tests::sample::{EXPLICIT_VR_LE, Sample};
use fovea_tests::wire::{self, Association};
use fovea_tests::{object, paths, process};
use std::time::Duration;

const EYE: &str = sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT;
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
/// Highest resident memory of the daemon and of the worker, bytes.
const RESIDENT_MAX: (u64, u64) = (200 << 20, 600 << 20);

/// One lie, as the box will see it.
struct Lie {
    name: String,
    transfer_syntax: &'static str,
    data_set: InMemDicomObject,
    /// Reason codes that tell it; empty for any.
    told_as: &'static [&'static str],
}

/// Eye photographs of noise, each with another fault.
struct Lies {
    made: Vec<Lie>,
    seed: u64,
}

impl Lies {
    /// An eye photograph of 512 x 512 RGB pixels, large enough for the model to be chosen.
    fn sound(&mut self) -> InMemDicomObject {
        self.seed += 1;
        let mut sample = Sample::secondary_capture(self.seed).class(EYE, "OP");
        sample.samples_per_pixel = 3;
        sample.data_set()
    }

    fn raw(&mut self, name: &str, told_as: &'static [&'static str], change: impl FnOnce(&mut InMemDicomObject)) {
        let mut data_set = self.sound();
        change(&mut data_set);
        self.made.push(Lie { name: name.into(), transfer_syntax: EXPLICIT_VR_LE, data_set, told_as });
    }

    /// The same with its pixels replaced by one fragment of code.
    fn coded(
        &mut self,
        name: &str,
        transfer_syntax: &'static str,
        code: Vec<u8>,
        told_as: &'static [&'static str],
        change: impl FnOnce(&mut InMemDicomObject),
    ) {
        let mut data_set = self.sound();
        let mut code = code;
        if code.len() % 2 == 1 {
            code.push(0);
        }
        let fragments = PixelFragmentSequence::new(Vec::<u32>::new(), vec![code]);
        data_set.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::PixelSequence(fragments)));
        change(&mut data_set);
        self.made.push(Lie { name: name.into(), transfer_syntax, data_set, told_as });
    }
}

fn number(data_set: &mut InMemDicomObject, tag: dicom_core::Tag, value: u16) {
    data_set.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
}

fn size(columns: u16, rows: u16) -> impl FnOnce(&mut InMemDicomObject) {
    move |data_set| {
        number(data_set, tags::COLUMNS, columns);
        number(data_set, tags::ROWS, rows);
    }
}

fn photometric(name: &'static str, samples: u16) -> impl FnOnce(&mut InMemDicomObject) {
    move |data_set| {
        object::put(data_set, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, name);
        number(data_set, tags::SAMPLES_PER_PIXEL, samples);
    }
}

/// Descriptions of pixels that do not describe the pixels.
fn raw_lies(lies: &mut Lies) {
    let damaged =
        &["pixel_data_damaged", "object_damaged", "pixel_description_invalid", "pixel_data_contradicts_header"];
    let invalid = &["pixel_description_invalid", "unsupported_pixel_format", "pixel_data_damaged"];
    lies.raw("zero rows", &["too_small", "pixel_description_invalid"], size(512, 0));
    lies.raw("zero columns and rows", &["too_small", "pixel_description_invalid"], size(0, 0));
    lies.raw("65535 x 65535 claimed", &["image_too_large"], size(65_535, 65_535));
    lies.raw("one row more than there is", damaged, size(512, 513));
    lies.raw("no pixels at all", &["no_pixel_data"], |data_set| {
        data_set.remove_element(tags::PIXEL_DATA);
    });
    lies.raw("ten bytes of pixels", damaged, |data_set| {
        data_set.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(vec![7u8; 10])));
    });
    lies.raw("a photometric that does not exist", &["no_eligible_model"], photometric("ULTRAVIOLET", 3));
    lies.raw("RGB of one sample", invalid, photometric("RGB", 1));
    lies.raw("4:2:2 without a code", invalid, photometric("YBR_FULL_422", 1));
    lies.raw("a palette of three samples", invalid, photometric("PALETTE COLOR", 3));
    lies.raw("a palette that is missing", invalid, photometric("PALETTE COLOR", 1));
    lies.raw("a palette that is cut", invalid, |data_set| {
        photometric("PALETTE COLOR", 1)(data_set);
        for (descriptor, values) in [
            (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA),
        ] {
            let three = PrimitiveValue::U16([256u16, 0, 16].as_slice().into());
            data_set.put(DataElement::new(descriptor, VR::US, three));
            data_set.put(DataElement::new(values, VR::OW, PrimitiveValue::from(vec![1u8, 2, 3, 4])));
        }
    });
    for (bits, name) in [(0, "0 bits"), (1, "1 bit"), (12, "12 bits in 12"), (32, "32 bits"), (65_535, "65535 bits")] {
        lies.raw(&format!("{name} allocated"), &[], |data_set| number(data_set, tags::BITS_ALLOCATED, bits));
    }
    lies.raw("more bits stored than allocated", invalid, |data_set| number(data_set, tags::BITS_STORED, 16));
    lies.raw("a high bit beyond the sample", &[], |data_set| number(data_set, tags::HIGH_BIT, 200));
    lies.raw("seven samples a pixel", invalid, |data_set| number(data_set, tags::SAMPLES_PER_PIXEL, 7));
    lies.raw("2147483647 frames", &[], |data_set| {
        object::put(data_set, tags::NUMBER_OF_FRAMES, VR::IS, "2147483647");
    });
}

/// A JPEG whose frame header says another size than its data has (ITU-T T.81 section B.2.2).
fn resized(jpeg: &[u8], columns: u16, rows: u16) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let mut at = 2;
    while at + 9 < bytes.len() && bytes[at] == 0xff {
        if matches!(bytes[at + 1], 0xc0..=0xc2) {
            bytes[at + 5..at + 7].copy_from_slice(&rows.to_be_bytes());
            bytes[at + 7..at + 9].copy_from_slice(&columns.to_be_bytes());
            return bytes;
        }
        at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
    panic!("the sample has no frame header");
}

fn coded_lies(lies: &mut Lies, random: &mut Random) {
    let jpeg = std::fs::read(paths::sample("retina.jpg").expect("the samples are there")).expect("it can be read");
    let contradicts = &["pixel_data_contradicts_header"];
    let code = &["pixel_data_damaged", "pixel_data_contradicts_header", "image_too_large"];
    lies.coded("a JPEG larger than the header says", JPEG_BASELINE, jpeg.clone(), contradicts, size(512, 512));
    for (columns, rows) in [(65_500, 65_500), (1, 65_535), (512, 512), (3_000, 3_000)] {
        let name = format!("a JPEG that claims {columns} x {rows} in both places");
        // Where both places agree on a size that the code could fill, only the picture tells: no retina is in it.
        let told: &[&str] = match (columns, rows) {
            (65_500, 65_500) => &["image_too_large"],
            (1, _) => &["too_small"],
            _ => &[],
        };
        lies.coded(&name, JPEG_BASELINE, resized(&jpeg, columns, rows), told, size(columns, rows));
    }
    lies.coded("a JPEG of 0 x 0", JPEG_BASELINE, resized(&jpeg, 0, 0), code, |_| {});
    lies.coded("a JPEG that is cut", JPEG_BASELINE, jpeg[..jpeg.len() / 3].to_vec(), &[], size(1411, 1411));
    lies.coded("a JPEG of its first bytes", JPEG_BASELINE, jpeg[..20].to_vec(), code, |_| {});
    lies.coded("an empty fragment", JPEG_BASELINE, Vec::new(), &[], |_| {});
    for (name, syntax) in [
        ("JPEG baseline", JPEG_BASELINE),
        ("JPEG lossless", "1.2.840.10008.1.2.4.70"),
        ("JPEG-LS", "1.2.840.10008.1.2.4.80"),
        ("JPEG 2000", "1.2.840.10008.1.2.4.90"),
        ("HTJ2K", "1.2.840.10008.1.2.4.201"),
        ("RLE", "1.2.840.10008.1.2.5"),
    ] {
        lies.coded(&format!("noise as {name}"), syntax, random.bytes(5_000), &[], |_| {});
    }
    lies.coded("a film", "1.2.840.10008.1.2.4.102", random.bytes(5_000), &["unsupported_transfer_syntax"], |_| {});
}

#[test]
fn inv_02_inv_08_every_picture_that_lies_gets_an_outcome_with_its_reason() {
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let mut node = Setup::new(folder.path()).unwrap().start().unwrap();
    let mut lies = Lies { made: Vec::new(), seed: 0 };
    raw_lies(&mut lies);
    coded_lies(&mut lies, &mut random);
    let mut wrong = Vec::new();
    for Lie { name, transfer_syntax, data_set, told_as } in lies.made {
        let uid = object::text(&data_set, tags::SOP_INSTANCE_UID).unwrap();
        let bytes = wire::encode(data_set, transfer_syntax).unwrap();
        let mut association = Association::open(node.port(), &[(EYE, transfer_syntax)]).unwrap();
        let status = association.store(EYE, &uid, &bytes).unwrap();
        assert_eq!(status, 0, "{name}: its structure is sound");
        let finding = node.ctl().wait_for_finding(&uid, Duration::from_secs(60)).unwrap();
        let code = finding.reason_code.clone().unwrap_or_default();
        let text = finding.reason.clone().unwrap_or_default();
        println!("{name}: {:?}, {code}: {text}", finding.outcome);
        let told = told_as.is_empty() || told_as.contains(&code.as_str());
        if finding.outcome == Outcome::Finding || code.is_empty() || text.is_empty() || !told {
            wrong.push(format!("{name}: {:?}, {code}: {text}", finding.outcome));
        }
        if code.starts_with("worker_") {
            wrong.push(format!("{name}: the worker did not survive it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let real = node.capture_and_wait(&paths::sample("retina.jpg").unwrap(), Duration::from_secs(60)).unwrap();
    assert_eq!(real.outcome, Outcome::Finding, "a real photograph is analysed afterwards: {:?}", real.reason);
    let pids = (node.process().unwrap().pid(), node.worker_pid().unwrap());
    let peak = |pid| process::resident_peak_bytes(pid).unwrap();
    let (daemon, worker) = (peak(pids.0), peak(pids.1));
    println!("highest resident memory: daemon {} MiB, worker {} MiB", daemon >> 20, worker >> 20);
    assert!(daemon < RESIDENT_MAX.0 && worker < RESIDENT_MAX.1, "daemon {daemon}, worker {worker} bytes");
}
