//! Thousands of damaged files: each ends in a frame or an error, none in a panic, in much memory or in much time.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod part10;

use fovea_core::PixelBox;
use fovea_decode::{DecodeLimits, open, picture_rgb8};
use part10::{Lengths, Part10, Value, fd, file_of, sl, ul, us};
use std::fs;
use std::path::Path;

/// Xorshift; the seed of a failing case is in the panic's message.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "dcm" || kind == "png" || kind == "jpg"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    files.push(("slide.dcm".to_owned(), slide()));
    files.push(("regions.dcm".to_owned(), regions()));
    files.sort();
    files
}

/// A sparse slide of 24 tiles in RLE with an offset table.
fn slide() -> Vec<u8> {
    let mut code = vec![0; 64];
    (code[0], code[4]) = (1, 64);
    code.extend([0xF1, 7]);
    let table: Vec<u8> = (0..24_u32).flat_map(|frame| (frame * 74).to_le_bytes()).collect();
    let mut fragments: Vec<&[u8]> = vec![&table];
    fragments.extend(vec![&code[..]; 24]);
    let place = |frame: i32| vec![(0x0048_021E, sl(1 + frame % 6 * 4)), (0x0048_021F, sl(1 + frame / 6 * 4))];
    let groups = (0..24).map(|frame| vec![(0x0048_021A, Value::Items(vec![place(frame)]))]).collect();
    Part10::image(4, 4, 1, "MONOCHROME2", 8, 8)
        .raw(0x0008_0016, b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.6")
        .raw(0x0020_9311, b"CS", b"TILED_SPARSE")
        .raw(0x0028_0008, b"IS", b"24")
        .raw(0x0048_0006, b"UL", &24_u32.to_le_bytes())
        .raw(0x0048_0007, b"UL", &16_u32.to_le_bytes())
        .sequence(0x5200_9230, groups)
        .lengths(Lengths::Undefined)
        .syntax("1.2.840.10008.1.2.5")
        .fragments(&fragments)
        .bytes()
}

/// An ultrasound frame with two regions.
fn regions() -> Vec<u8> {
    let region = |kind| {
        vec![
            (0x0018_6012, us(1)),
            (0x0018_6014, us(kind)),
            (0x0018_6018, ul(1)),
            (0x0018_601A, ul(1)),
            (0x0018_601C, ul(7)),
            (0x0018_601E, ul(6)),
            (0x0018_6024, us(3)),
            (0x0018_6026, us(3)),
            (0x0018_602C, fd(0.01)),
            (0x0018_602E, fd(0.01)),
        ]
    };
    let image = Part10::image(8, 8, 1, "MONOCHROME2", 8, 8).pixels(&[5; 64]);
    image.sequence(0x0018_6011, vec![region(1), region(2)]).bytes()
}

/// Opens, asks for all that is told, decodes one frame.
fn look(bytes: &[u8], limits: DecodeLimits) -> bool {
    let looked = open(file_of(bytes), limits).and_then(|mut object| {
        if let Some(size) = object.geometry().pixel_size {
            assert!(size.width_mm.is_finite() && size.width_mm > 0.0 && size.height_mm > 0.0);
        }
        if let Some(slide) = object.slide().cloned() {
            let whole = PixelBox { x: 0, y: 0, width: slide.width_px(), height: slide.height_px() };
            for tile in slide.tiles(whole)? {
                assert!(tile.frame < object.frames() && tile.x < slide.width_px() && tile.y < slide.height_px());
            }
        }
        object.frame(object.frames() / 2)
    });
    looked.is_ok()
}

fn mutate(bytes: &mut Vec<u8>, draw: &mut Draw) {
    for _ in 0..=draw.below(4) {
        let at = draw.below(bytes.len());
        match draw.below(6) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = 0xFF,
            2 => bytes[at] = draw.below(256) as u8,
            3 => bytes[at] ^= 1 << draw.below(8),
            4 => {
                let end = (at + 1 + draw.below(8)).min(bytes.len());
                bytes.drain(at..end);
                bytes.push(0);
            }
            _ => {
                let word = [0, 0xFF, 0x7F, 0x80][draw.below(4)];
                let end = (at + 4).min(bytes.len());
                bytes[at..end].fill(word);
            }
        }
    }
}

/// Peak resident memory of this process in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn inv_08_damaged_objects_never_panic_and_stay_within_memory() {
    // The default hook would print each panic that the barrier round foreign decoders catches.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = DecodeLimits { frame_bytes_max: 16 << 20, whole_bytes_max: 16 << 20, ..DecodeLimits::default() };
    let (mut whole, mut refused) = (0_u32, 0_u32);
    for (name, original) in fixtures() {
        for case in 0..130_u64 {
            let seed = 0x9E37_79B9_7F4A_7C15 ^ (case * 7_919 + 1);
            let mut bytes = original.clone();
            // Half of the cases leave the header alone, so that the codes get their share.
            let mut draw = Draw(seed);
            let (mut head, mut tail) = (bytes.clone(), Vec::new());
            if case % 2 == 0 && name.ends_with("dcm") {
                tail = head.split_off(head.len().min(700));
            }
            if tail.is_empty() {
                mutate(&mut head, &mut draw);
            } else {
                mutate(&mut tail, &mut draw);
            }
            bytes.clear();
            bytes.extend(head);
            bytes.extend(tail);
            let ended = std::panic::catch_unwind(|| {
                if name.ends_with("dcm") { look(&bytes, limits) } else { picture_rgb8(file_of(&bytes), limits).is_ok() }
            });
            match ended {
                Ok(true) => whole += 1,
                Ok(false) => refused += 1,
                Err(_) => {
                    let _default = std::panic::take_hook();
                    panic!("{name} case={case} seed={seed:#x}");
                }
            }
        }
    }
    let _default = std::panic::take_hook();
    assert!(whole + refused >= 5000, "{whole} + {refused}");
    assert!(whole > 100 && refused > 1000, "the damage is neither harmless nor total: {whole}, {refused}");
    let peak = peak_mib();
    assert!(peak < 400, "{peak} MiB");
}
