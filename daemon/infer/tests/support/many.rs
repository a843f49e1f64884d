//! A bundle with two networks and every kind of output but the plain yes or no, whose answers are known by formula.
//!
//! `frame` (16 x 16): three lists, each the means of red, green and blue times a scale, and two maps, 4 x red and
//! 4 x blue. `cells` (windows of 64 x 64): two maps, 4 x red (interior) and 4 x green (border). Values are
//! (pixel / 255 - 0.5) / 0.25.

use super::{TestBundle, recorded};
use std::fmt::Write as _;

pub const WINDOW_PX: usize = 64;
pub const FRAME_PX: usize = super::SIDE_PX;
const MAP_SCALE: f32 = 4.0;
const GATE: (&str, f32) = ("fit", 2.0);
const CLASS: (&str, f32) = ("class", 3.0);
const GRADE: (&str, f32) = ("grade", 2.5);
const TEMPERATURE: f64 = 1.5;

/// The bundle.
pub fn bundle() -> TestBundle {
    let mut bundle = TestBundle { manifest: manifest(), files: std::collections::BTreeMap::new() };
    let (frame_xml, frame_bin) = frame_graph();
    let (cells_xml, cells_bin) = cells_graph();
    let frames: Vec<Vec<u8>> = (0..3).map(|seed| picture(FRAME_PX, seed)).collect();
    let windows: Vec<Vec<u8>> = (3..5).map(|seed| picture(WINDOW_PX, seed)).collect();
    let frame_expected: Vec<f64> = frames.iter().flat_map(|pixels| frame_answers(pixels)).collect();
    let cells_expected: Vec<f64> = windows.iter().flat_map(|pixels| cells_answers(pixels)).collect();
    for (name, bytes) in [
        ("frame.xml", frame_xml),
        ("frame.bin", frame_bin),
        ("cells.xml", cells_xml),
        ("cells.bin", cells_bin),
        ("golden/frame.inputs.bin", frames.concat()),
        ("golden/frame.expected.bin", recorded(&frame_expected)),
        ("golden/cells.inputs.bin", windows.concat()),
        ("golden/cells.expected.bin", recorded(&cells_expected)),
        ("card.md", b"# Colours\n".to_vec()),
    ] {
        bundle.files.insert(name.to_owned(), bytes);
    }
    bundle
}

/// Pixels (rows x columns x RGB) that differ from place to place, the same for a seed.
pub fn picture(side: usize, seed: u32) -> Vec<u8> {
    let pixel = |at: usize| ((at as u32 / 3).wrapping_mul(7 + seed * 12) + (at as u32 % 3) * (40 + 30 * seed)) % 251;
    (0..side * side * 3).map(|at| pixel(at) as u8).collect()
}

/// The tensor that preprocess would make of a picture.
pub fn tensor(pixels: &[u8]) -> Vec<f32> {
    (0..3).flat_map(|channel| plane(pixels, channel)).map(|value| value as f32).collect()
}

fn plane(pixels: &[u8], channel: usize) -> Vec<f64> {
    pixels.chunks_exact(3).map(|pixel| (f64::from(pixel[channel]) / 255.0 - 0.5) / 0.25).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn map(pixels: &[u8], channel: usize) -> Vec<f64> {
    plane(pixels, channel).into_iter().map(|value| sigmoid(value * f64::from(MAP_SCALE))).collect()
}

/// What `frame` answers, output by output.
pub fn frame_answers(pixels: &[u8]) -> Vec<f64> {
    let means: Vec<f64> = (0..3).map(|c| plane(pixels, c).iter().sum::<f64>() / (pixels.len() / 3) as f64).collect();
    let logits = |scale: f32| means.iter().map(move |mean| mean * f64::from(scale) / TEMPERATURE);
    let softmax = |scale: f32| {
        let powers: Vec<f64> = logits(scale).map(f64::exp).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(move |power| power / sum).collect::<Vec<f64>>()
    };
    let mut least = 1.0f64;
    let grades = logits(GRADE.1).map(|x| {
        least = least.min(sigmoid(x));
        least
    });
    let grades: Vec<f64> = grades.collect();
    [softmax(GATE.1), softmax(CLASS.1), grades, map(pixels, 0), map(pixels, 2)].concat()
}

/// What `cells` answers.
pub fn cells_answers(pixels: &[u8]) -> Vec<f64> {
    [map(pixels, 0), map(pixels, 1)].concat()
}

fn manifest() -> String {
    let code = |value: &str| format!(r#"{{ scheme = "99FOVEA", value = "{value}", meaning = "{value}" }}"#);
    let input = |tensor: &str, side: usize, roi: &str| {
        format!(
            "[networks.input]\ntensor = \"{tensor}\"\nwidth_px = {side}\nheight_px = {side}\nchannels = \"rgb\"\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\nroi = \"{roi}\"\n"
        )
    };
    let golden = |name: &str, count: usize| {
        format!(
            "[networks.golden]\ninputs = \"golden/{name}.inputs.bin\"\nexpected = \"golden/{name}.expected.bin\"\ncount = {count}\ntolerance_abs = 0.001\ntolerance_map_mean = 0.001\n"
        )
    };
    format!(
        r#"schema = 2
id = "colours"
version = "2.1.0"
task = "colours"
description = "Says which colour a picture has, and where."
licence = "Apache-2.0"
[eligible]
modalities = ["OP"]
[labels]
meaning = "0 or 1"
[algorithm]
name = "Colours"
family = {{ scheme = "DCM", value = "123110", meaning = "Artificial Intelligence" }}
[limits]
ops_max = 100
[[networks]]
name = "frame"
{frame_input}{frame_golden}
[[networks.outputs]]
tensor = "fit"
kind = "gate_logits"
temperature = {TEMPERATURE}
threshold = 0.25
reasons = [
  {{ code = "too_green", text = "the picture is green", advice = "Take it in the sun.", outcome = "ungradable" }},
  {{ code = "no_picture", text = "this is the sky", outcome = "not_analysed" }},
]
[[networks.outputs]]
tensor = "class"
kind = "class_logits"
label = "coloured"
code = {coloured}
temperature = {TEMPERATURE}
clear_below = 0.3
significant_from = 0.7
classes = [
  {{ value = "red", label = "red", code = {red}, positive = true }},
  {{ value = "green", label = "green", code = {green}, positive = false }},
  {{ value = "blue", label = "blue", code = {blue}, positive = true }},
]
[[networks.outputs]]
tensor = "grade"
kind = "ordinal_logits"
label = "grade"
code = {grade}
temperature = {TEMPERATURE}
levels = ["none", "some", "more", "most"]
thresholds = [0.5, 0.5, 0.5]
[[networks.outputs]]
tensor = "where"
kind = "mask_logits"
label = "red place"
code = {place}
threshold = 0.5
area_min_share = 0.001
required = {{ code = "no_place", text = "no red place was found", advice = "Look for one." }}
axes = true
[[networks.outputs]]
tensor = "why"
kind = "heat_logits"
label = "what the answer rests on"
threshold = 0.5
regions_max = 3
[[networks]]
name = "cells"
{cells_input}um_per_px = 0.5
{cells_golden}
[[networks.outputs]]
tensor = "maps"
kind = "nuclei_logits"
label = "nuclei"
code = {nuclei}
interior_threshold = 0.5
seed_threshold = 0.25
area_min_px = 4
[tiles]
field_um = 64.0
field_px = 128
nuclei_fields_max = 4
"#,
        frame_input = input("image", FRAME_PX, "full_frame"),
        cells_input = input("window", WINDOW_PX, "window"),
        frame_golden = golden("frame", 3),
        cells_golden = golden("cells", 2),
        coloured = code("coloured"),
        red = code("red"),
        green = code("green"),
        blue = code("blue"),
        grade = code("grade"),
        place = code("place"),
        nuclei = code("nuclei-count"),
    )
}

/// A graph in the making: layers, edges and constants in the order in which they are added.
#[derive(Default)]
struct Graph {
    layers: String,
    edges: String,
    constants: Vec<u8>,
    next: usize,
}

impl Graph {
    /// Adds an operation that reads `inputs` (operation and its shape); the output is its next port.
    fn op(&mut self, kind: &str, data: &str, inputs: &[(usize, &str, &str)], name: &str, shape: &str) -> usize {
        let id = self.next;
        self.next += 1;
        let mut ports = String::new();
        for (port, (from, precision, shape)) in inputs.iter().enumerate() {
            let _infallible = write!(ports, r#"<port id="{port}" precision="{precision}">{}</port>"#, dims(shape));
            let from_port = self.port_of(*from);
            let _infallible = write!(
                self.edges,
                r#"<edge from-layer="{from}" from-port="{from_port}" to-layer="{id}" to-port="{port}"/>"#
            );
        }
        let input = if inputs.is_empty() { String::new() } else { format!("<input>{ports}</input>") };
        let port = inputs.len();
        let precision = if data.contains("i64") { "I64" } else { "FP32" };
        let output = if kind == "Result" {
            String::new()
        } else {
            format!(
                r#"<output><port id="{port}" precision="{precision}" names="{name}">{}</port></output>"#,
                dims(shape)
            )
        };
        let _infallible = writeln!(
            self.layers,
            r#"<layer id="{id}" name="{name}" type="{kind}" version="opset1">{data}{input}{output}</layer><!-- out {port} -->"#
        );
        id
    }

    /// Constants and parameters have their output at port 0, means and products of two at port 2.
    fn port_of(&self, op: usize) -> usize {
        let line = self.layers.lines().nth(op).unwrap_or_default();
        line.rsplit("out ").next().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    fn constant(&mut self, name: &str, kind: &str, shape: &str, bytes: &[u8]) -> usize {
        let (offset, size) = (self.constants.len(), bytes.len());
        self.constants.extend(bytes);
        let data = format!(r#"<data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/>"#);
        self.op("Const", &data, &[], name, shape)
    }

    /// Means of the three planes, times a scale.
    fn means(&mut self, image: (usize, &str), (name, scale): (&str, f32)) {
        let axes: Vec<u8> = [2i64, 3].into_iter().flat_map(i64::to_le_bytes).collect();
        let axes = self.constant(&format!("{name}-axes"), "i64", "2", &axes);
        let inputs = [(image.0, "FP32", image.1), (axes, "I64", "2")];
        let mean = self.op("ReduceMean", r#"<data keep_dims="false"/>"#, &inputs, &format!("{name}-mean"), "1,3");
        let factor = self.constant(&format!("{name}-scale"), "f32", "1", &scale.to_le_bytes());
        let inputs = [(mean, "FP32", "1,3"), (factor, "FP32", "1")];
        let list = self.op("Multiply", r#"<data auto_broadcast="numpy"/>"#, &inputs, name, "1,3");
        self.op("Result", "", &[(list, "FP32", "1,3")], &format!("{name}-result"), "");
    }

    /// One map for each row of weights over red, green and blue.
    fn maps(&mut self, image: (usize, &str), name: &str, weights: &[[f32; 3]]) {
        let shape = image.1.replacen("1,3", &format!("1,{}", weights.len()), 1);
        let kernel_shape = format!("{},3,1,1", weights.len());
        let bytes: Vec<u8> = weights.iter().flatten().flat_map(|weight| weight.to_le_bytes()).collect();
        let kernel = self.constant(&format!("{name}-kernel"), "f32", &kernel_shape, &bytes);
        let data = r#"<data strides="1,1" dilations="1,1" pads_begin="0,0" pads_end="0,0" auto_pad="explicit"/>"#;
        let inputs = [(image.0, "FP32", image.1), (kernel, "FP32", &*kernel_shape)];
        let map = self.op("Convolution", data, &inputs, name, &shape);
        self.op("Result", "", &[(map, "FP32", &shape)], &format!("{name}-result"), "");
    }

    fn image(&mut self, name: &str, shape: &str) -> usize {
        self.op("Parameter", &format!(r#"<data shape="{shape}" element_type="f32"/>"#), &[], name, shape)
    }

    fn finish(self) -> (Vec<u8>, Vec<u8>) {
        let (layers, edges) = (self.layers, self.edges);
        let xml = format!(
            "<?xml version=\"1.0\"?>\n<net name=\"test\" version=\"11\"><layers>\n{layers}</layers><edges>{edges}</edges></net>\n"
        );
        (xml.into_bytes(), self.constants)
    }
}

fn dims(shape: &str) -> String {
    shape.split(',').filter(|dim| !dim.is_empty()).map(|dim| format!("<dim>{dim}</dim>")).collect()
}

fn frame_graph() -> (Vec<u8>, Vec<u8>) {
    let mut graph = Graph::default();
    let shape = format!("1,3,{FRAME_PX},{FRAME_PX}");
    let image = (graph.image("image", &shape), &*shape);
    // Not in the order of the manifest: outputs are told apart by name.
    graph.maps(image, "why", &[[0.0, 0.0, MAP_SCALE]]);
    graph.means(image, GRADE);
    graph.means(image, GATE);
    graph.maps(image, "where", &[[MAP_SCALE, 0.0, 0.0]]);
    graph.means(image, CLASS);
    graph.finish()
}

fn cells_graph() -> (Vec<u8>, Vec<u8>) {
    let mut graph = Graph::default();
    let shape = format!("1,3,{WINDOW_PX},{WINDOW_PX}");
    let image = (graph.image("window", &shape), &*shape);
    graph.maps(image, "maps", &[[MAP_SCALE, 0.0, 0.0], [0.0, MAP_SCALE, 0.0]]);
    graph.finish()
}
