//! Budget: 1 ms for a 2048x1536 RGB photograph to the tensor of a 384x384 model, on AVX2 and one core: a three-hundredth of
//! the time that a photograph has from its last byte to its finding. Floor: the 9.4 MB are read in 0.45 ms at 21 GB/s.
//! Every variant this processor has is measured, so the first one is the scalar truth.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fovea_kernels::Isa;
use fovea_kernels::area::{Image, Plane, PlaneSource, Window, resize_f32_planar, resize_u8};
use std::hint::black_box;

fn noise(samples: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..samples).map(|_| next()).collect()
}

fn fundus_to_tensor(c: &mut Criterion) {
    let (width, height) = (2048_u32, 1536_u32);
    let samples = noise(width as usize * height as usize * 3);
    let image = Image::new(&samples, width, height, 3).expect("the size fits");
    let whole = Window { x_px: 0, y_px: 0, width_px: width, height_px: height };
    let planes = [0, 1, 2].map(|channel| Plane { source: PlaneSource::Channel(channel), mean: 0.485, std: 0.229 });
    let mut group = c.benchmark_group("area/rgb_2048x1536");
    group.throughput(Throughput::Bytes(samples.len() as u64));
    for isa in Isa::available() {
        let mut tensor = vec![0.0; 3 * 384 * 384];
        group.bench_function(format!("f32_384/{}", isa.name()), |b| {
            b.iter(|| resize_f32_planar(*isa, black_box(&image), whole, 384, 384, &planes, &mut tensor));
        });
        let mut bytes = vec![0; 3 * 512 * 512];
        group.bench_function(format!("u8_512/{}", isa.name()), |b| {
            b.iter(|| resize_u8(*isa, black_box(&image), whole, 512, 512, &mut bytes));
        });
    }
    group.finish();
}

criterion_group!(benches, fundus_to_tensor);
criterion_main!(benches);
