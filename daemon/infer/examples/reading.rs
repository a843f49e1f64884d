//! Times what is done with answers after a network has run, on drawn maps of the sizes that bundles have.
//!
//! Budgets, of one core: 4 ms for the places of a live frame, a third of the 12 ms that a frame has; 500 ms for the
//! nuclei of a field of 1024 x 1024, of which a slide reads some dozens.
//! `cargo run -p fovea-infer --example reading`

use fovea_core::{Code, FrameGeometry, PixelBox, Roi};
use fovea_infer::read::{self, Place};
use fovea_infer::{Answer, Mask, Nuclei, Shape};
use std::hint::black_box;
use std::time::Instant;

fn map(side: usize, value: impl Fn(f32, f32) -> f32) -> Answer {
    let values = (0..side * side).map(|at| value((at % side) as f32, (at / side) as f32)).collect();
    Answer { shape: Shape { planes: 1, height: side, width: side }, values }
}

fn timed<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut times_us: Vec<u128> = Vec::new();
    for _run in 0..15 {
        let start = Instant::now();
        black_box(work());
        times_us.push(start.elapsed().as_micros());
    }
    times_us.sort_unstable();
    println!("{what}: median {} us, most {} us", times_us[7], times_us[14]);
}

fn main() {
    let code = Code::new("99FOVEA", "thing", "Thing");
    let mask = Mask {
        label: "thing".to_owned(),
        code: code.clone(),
        threshold: 0.5,
        area_min_share: 0.001,
        required: None,
        axes: true,
    };
    let wave = |x: f32, y: f32| 1.0 / (1.0 + (((x - 150.0) / 70.0).hypot((y - 140.0) / 45.0) * 9.0 - 9.0).exp());
    let nodule = map(300, |x, y| wave(x, y) + 0.02 * ((x * 1.7).sin() * (y * 2.3).cos()));
    let place = Place {
        roi: Roi { x: 0, y: -90, side: 900 },
        shown: PixelBox { x: 0, y: 0, width: 900, height: 720 },
        width_px: 900,
        height_px: 720,
        geometry: FrameGeometry::default(),
    };
    timed("regions of a map of 300 x 300", || read::mask(&mask, &nodule, &place));
    timed("mask of a frame of 900 x 720", || read::mask_as_told(&mask, &nodule, &place));
    let noise = map(1024, |x, y| ((x * 12.9898 + y * 78.233).sin() * 43758.547).fract().abs());
    timed("regions of noise of 1024 x 1024, the worst there is", || read::mask(&mask, &noise, &place));

    let spec = Nuclei {
        label: "nuclei".to_owned(),
        code,
        interior_threshold: 0.5,
        seed_threshold: 0.3,
        area_min_px: 8,
        mean_min: 0.0,
    };
    // A nucleus of 20 pixels every 26: 1,521 of them, more than any field of tissue holds.
    let depth = |x: f32, y: f32| 10.0 - (x % 26.0 - 13.0).hypot(y % 26.0 - 13.0);
    let interior = map(1024, |x, y| 1.0 / (1.0 + (-depth(x, y)).exp()));
    let border = map(1024, |x, y| (-(depth(x, y) - 0.5).powi(2) / 2.0).exp());
    println!("{} nuclei", read::nuclei(&interior.values, &border.values, 1024, &spec).areas.len());
    timed("nuclei of a field of 1024 x 1024", || read::nuclei(&interior.values, &border.values, 1024, &spec));
}
