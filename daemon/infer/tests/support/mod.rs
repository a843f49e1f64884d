//! A bundle small enough to write by hand and to know its answer: the model says how bright a picture is.
//!
//! Graph: Parameter -> ReduceMean over channels, rows and columns -> Multiply(scale) -> Add(bias) -> Result, so
//! logit = mean((value / 255 - 0.5) / 0.25) * 4 + 1. Shared by the tests of infer and of worker.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

pub mod many;

use ed25519_dalek::{Signer, SigningKey};
use fovea_core::Sha256;
use fovea_infer::TrustedKey;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub const SIDE_PX: usize = 16;
const SCALE: f32 = 4.0;
const BIAS: f32 = 1.0;
const LEVELS: [u8; 4] = [0, 100, 120, 255];

/// The key that signs test bundles.
pub fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// Its public half.
pub fn trusted() -> Vec<TrustedKey> {
    vec![TrustedKey::from_bytes(signer().verifying_key().as_bytes()).unwrap()]
}

/// The model's probability for a picture of mean brightness `level` (0 to 255).
pub fn expected_probability(level: f64) -> f64 {
    let logit = (level / 255.0 - 0.5) / 0.25 * f64::from(SCALE) + f64::from(BIAS);
    1.0 / (1.0 + (-logit).exp())
}

/// The OpenVINO runtime for tests; they fail with the cure where it is missing.
pub fn runtime_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/openvino");
    let folder = std::env::var_os("FOVEA_OPENVINO_DIR").map_or(workspace, PathBuf::from);
    assert!(
        folder.join("SHA256SUMS").is_file(),
        "no OpenVINO runtime in {}: run scripts/fetch-openvino.sh, or set FOVEA_OPENVINO_DIR",
        folder.display()
    );
    folder.canonicalize().unwrap()
}

/// A bundle's files and manifest, to be spoiled as a test likes and then signed.
#[derive(Clone)]
pub struct TestBundle {
    /// `bundle.toml` without its `[files]`.
    pub manifest: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl TestBundle {
    pub fn new() -> Self {
        let expected: Vec<f64> = LEVELS.iter().map(|level| expected_probability(f64::from(*level))).collect();
        let mut files = BTreeMap::new();
        files.insert("model.xml".to_owned(), graph_xml().into_bytes());
        files.insert("model.bin".to_owned(), constants());
        files.insert(
            "golden/inputs.bin".to_owned(),
            LEVELS.iter().flat_map(|level| vec![*level; SIDE_PX * SIDE_PX * 3]).collect(),
        );
        files.insert("golden/expected.bin".to_owned(), recorded(&expected));
        files.insert("card.md".to_owned(), b"# Brightness\n".to_vec());
        Self { manifest: manifest(), files }
    }

    /// Replaces text in the manifest, which must hold it.
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.manifest.contains(from), "the manifest has no {from}");
        self.manifest = self.manifest.replace(from, to);
        self
    }

    /// Replaces text in the graph, which must hold it.
    pub fn edit_graph(mut self, from: &str, to: &str) -> Self {
        let xml = String::from_utf8(self.files["model.xml"].clone()).unwrap();
        assert!(xml.contains(from), "the graph has no {from}");
        self.files.insert("model.xml".to_owned(), xml.replace(from, to).into_bytes());
        self
    }

    pub fn with_file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), bytes.into());
        self
    }

    /// A chain of `ops` operations in the place of the graph's middle.
    pub fn with_chain(self, ops: usize) -> Self {
        let mut layers = String::new();
        let mut edges = String::new();
        let scalar = "<dim>1</dim>";
        for index in 0..ops {
            let (id, before) = (100 + index, if index == 0 { 6 } else { 99 + index });
            let _infallible = write!(
                layers,
                r#"<layer id="{id}" name="relu{index}" type="ReLU" version="opset1"><input><port id="0" precision="FP32">{scalar}</port></input><output><port id="1" precision="FP32">{scalar}</port></output></layer>"#
            );
            let port = if index == 0 { 2 } else { 1 };
            let _infallible =
                write!(edges, r#"<edge from-layer="{before}" from-port="{port}" to-layer="{id}" to-port="0"/>"#);
        }
        let _infallible = write!(edges, r#"<edge from-layer="{}" from-port="1" to-layer="7" to-port="0"/>"#, 99 + ops);
        self.edit_graph("<!-- more layers -->", &layers)
            .edit_graph(r#"<edge from-layer="6" from-port="2" to-layer="7" to-port="0"/>"#, &edges)
    }

    /// `bundle.toml` with the hash of every file.
    pub fn toml(&self) -> String {
        let mut text = self.manifest.clone();
        text += "[files]\n";
        for (name, bytes) in &self.files {
            let _infallible = writeln!(text, "\"{name}\" = \"{}\"", Sha256::of(bytes));
        }
        text
    }

    /// All files, signed.
    pub fn signed(&self) -> BTreeMap<String, Vec<u8>> {
        let toml = self.toml().into_bytes();
        let mut all = self.files.clone();
        all.insert("bundle.sig".to_owned(), signer().sign(&toml).to_bytes().to_vec());
        all.insert("bundle.toml".to_owned(), toml);
        all
    }

    /// Writes the signed bundle as a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        write_files(&self.signed(), folder);
        folder.to_owned()
    }

    /// Writes the signed bundle as a tar.
    pub fn write_tar(&self, path: &Path) -> PathBuf {
        let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
        for (name, bytes) in self.signed() {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.finish().unwrap();
        path.to_owned()
    }
}

pub fn write_files(files: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Probabilities as a bundle records them: u16 little endian, 65535 is 1.
pub fn recorded(expected: &[f64]) -> Vec<u8> {
    expected.iter().flat_map(|p| ((p * 65535.0).round() as u16).to_le_bytes()).collect()
}

fn constants() -> Vec<u8> {
    let axes = [1i64, 2, 3].into_iter().flat_map(i64::to_le_bytes);
    axes.chain(SCALE.to_le_bytes()).chain(BIAS.to_le_bytes()).collect()
}

fn manifest() -> String {
    format!(
        r#"schema = 2
id = "brightness"
version = "1.0.0"
task = "brightness_screening"
description = "Says how bright a picture is."
licence = "Apache-2.0"
[eligible]
modalities = ["OP"]
min_rows_px = 8
min_columns_px = 8
[labels]
meaning = "0 dark, 1 bright"
[algorithm]
name = "Brightness"
family = {{ scheme = "DCM", value = "123110", meaning = "Artificial Intelligence" }}
[limits]
ops_max = 100
[[networks]]
name = "model"
[networks.input]
tensor = "image"
width_px = {SIDE_PX}
height_px = {SIDE_PX}
channels = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
roi = "full_frame"
[networks.golden]
inputs = "golden/inputs.bin"
expected = "golden/expected.bin"
count = {count}
tolerance_abs = 0.0001
[[networks.outputs]]
tensor = "logit"
kind = "binary_logit"
label = "bright picture"
code = {{ scheme = "99FOVEA", value = "BRIGHT", meaning = "Bright picture" }}
temperature = 1.0
clear_below = 0.2
significant_from = 0.6
"#,
        count = LEVELS.len()
    )
}

fn graph_xml() -> String {
    let image = format!("<dim>1</dim><dim>3</dim><dim>{SIDE_PX}</dim><dim>{SIDE_PX}</dim>");
    let one = "<dim>1</dim>";
    let constant = |id: u32, name: &str, kind: &str, precision: &str, shape: &str, offset: u32, size: u32| {
        format!(
            r#"<layer id="{id}" name="{name}" type="Const" version="opset1"><data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/><output><port id="0" precision="{precision}"><dim>{shape}</dim></port></output></layer>"#
        )
    };
    let binary = |id: u32, kind: &str, names: &str| {
        format!(
            r#"<layer id="{id}" name="{names}" type="{kind}" version="opset1"><data auto_broadcast="numpy"/><input><port id="0" precision="FP32">{one}</port><port id="1" precision="FP32">{one}</port></input><output><port id="2" precision="FP32" names="{names}">{one}</port></output></layer>"#
        )
    };
    format!(
        r#"<?xml version="1.0"?>
<net name="brightness" version="11"><layers>
<layer id="0" name="image" type="Parameter" version="opset1"><data shape="1,3,{SIDE_PX},{SIDE_PX}" element_type="f32"/><output><port id="0" precision="FP32" names="image">{image}</port></output></layer>
{axes}
<layer id="2" name="mean" type="ReduceMean" version="opset1"><data keep_dims="false"/><input><port id="0" precision="FP32">{image}</port><port id="1" precision="I64"><dim>3</dim></port></input><output><port id="2" precision="FP32">{one}</port></output></layer>
{scale}
{multiply}
{bias}
{add}
<!-- more layers -->
<layer id="7" name="result" type="Result" version="opset1"><input><port id="0" precision="FP32">{one}</port></input></layer>
</layers><edges>
<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
<edge from-layer="2" from-port="2" to-layer="4" to-port="0"/>
<edge from-layer="3" from-port="0" to-layer="4" to-port="1"/>
<edge from-layer="4" from-port="2" to-layer="6" to-port="0"/>
<edge from-layer="5" from-port="0" to-layer="6" to-port="1"/>
<edge from-layer="6" from-port="2" to-layer="7" to-port="0"/>
</edges></net>
"#,
        axes = constant(1, "axes", "i64", "I64", "3", 0, 24),
        scale = constant(3, "scale", "f32", "FP32", "1", 24, 4),
        bias = constant(5, "bias", "f32", "FP32", "1", 28, 4),
        multiply = binary(4, "Multiply", "scaled"),
        add = binary(6, "Add", "logit"),
    )
}
