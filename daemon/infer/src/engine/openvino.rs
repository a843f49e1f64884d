//! OpenVINO's CPU plugin, through the `openvino` crate.
//!
//! In: the runtime's folder, then bundles, then tensors. Out: answers of float32, the same bits for the same input.
//! Promise: libraries are hashed before they are loaded (a truncated one would kill the process), models are read
//! from memory (a mapped file that shrinks would too), and nothing is cached on disk (a flipped byte in a cache
//! is not noticed by the runtime).
//!
//! Calls of the crate that are not used, because they are unsound, leak or panic: `Tensor::set_shape` (two owners),
//! property reads after the start (never freed), any name with a NUL byte (panic; the manifest has none).

use super::{DeviceError, EngineError, shortened};
use crate::bundle::Graph;
use crate::bundle::manifest::Network;
use fovea_core::Sha256;
use openvino::{Core, DeviceType, ElementType, InferRequest, PropertyKey, RwPropertyKey, Shape, Tensor};
use std::path::{Path, PathBuf};

/// Lists the hash of every file of the folder; written by scripts/fetch-openvino.sh.
const SUMS: &str = "SHA256SUMS";
/// Without these no model runs.
const NEEDED: [&str; 5] = [
    "libopenvino.so.",
    "libopenvino_c.so.",
    "libopenvino_intel_cpu_plugin.so",
    "libopenvino_ir_frontend.so.",
    "libtbb.so.",
];

/// One number in, the same number out.
const EMPTY_GRAPH: &[u8] = br#"<?xml version="1.0"?><net name="empty" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="out" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim></port></input>
</layer></layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"#;

/// The started runtime.
pub struct Runtime {
    core: Core,
    description: String,
}

impl Runtime {
    /// Verifies, loads and starts the libraries in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, DeviceError> {
        let library = verified_library(folder)?;
        let failed = |message: String| DeviceError::Start { message: shortened(&message) };
        openvino_sys::library::load_from(library).map_err(failed)?;
        let mut core = Core::new().map_err(|error| failed(error.to_string()))?;
        let cpu = [
            (RwPropertyKey::HintPerformanceMode, "LATENCY"),
            (RwPropertyKey::NumStreams, "1"),
            // One thread has the better tail while the daemon works beside it, and answers never differ by a sum's order.
            (RwPropertyKey::InferenceNumThreads, "1"),
            // The default is bfloat16 on some processors: errors of 0.2 on logits were seen.
            (RwPropertyKey::HintInferencePrecision, "f32"),
        ];
        core.set_properties(&DeviceType::CPU, cpu).map_err(|error| failed(error.to_string()))?;
        core.set_property(&DeviceType::Other("".into()), &RwPropertyKey::EnableMmap, "NO")
            .map_err(|error| failed(error.to_string()))?;
        // The question loads the plugin and the empty graph its reader, so that nothing is left to load once the
        // process is shut in. Compiling would start threads, which must not be before that.
        let description = core
            .get_property(&DeviceType::CPU, &PropertyKey::DeviceFullName)
            .map_err(|error| failed(error.to_string()))?;
        core.read_model_from_buffer(EMPTY_GRAPH, None).map_err(|error| failed(error.to_string()))?;
        Ok(Self { core, description })
    }

    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// Compiles a network's graph. Takes seconds for a large one and cannot be cancelled.
    pub(super) fn compile(&mut self, network: &Network, graph: &Graph) -> Result<OpenvinoEngine, EngineError> {
        let failed = |error: openvino::InferenceError| EngineError::Compile { message: shortened(&error.to_string()) };
        let weights = filled_u8(&graph.bin).map_err(failed)?;
        let model = self.core.read_model_from_buffer(&graph.xml, Some(&weights)).map_err(failed)?;
        let mut compiled = self.core.compile_model(&model, DeviceType::CPU).map_err(failed)?;
        let mut request = compiled.create_infer_request().map_err(failed)?;
        let spec = &network.input;
        // Sides are at most 4096 (manifest), so nothing is cut here.
        let shape = [1, spec.channels.count() as i64, i64::from(spec.height_px), i64::from(spec.width_px)];
        let input = Tensor::new(ElementType::F32, &Shape::new(&shape).map_err(failed)?).map_err(failed)?;
        request.set_input_tensor(&input).map_err(failed)?;
        let outputs = network.outputs.iter().map(|output| output.tensor.clone()).collect();
        Ok(OpenvinoEngine { request, input, outputs, _compiled: compiled })
    }
}

/// One compiled model with its request and the one tensor that every input is written into.
pub struct OpenvinoEngine {
    request: InferRequest,
    input: Tensor,
    /// Names of the outputs, in the order of the manifest.
    outputs: Vec<String>,
    // Below the request, so that it is dropped after it.
    _compiled: openvino::CompiledModel,
}

impl super::Engine for OpenvinoEngine {
    fn infer(&mut self, input: &[f32]) -> Result<Vec<Vec<f32>>, EngineError> {
        let failed = |error: openvino::InferenceError| EngineError::Run { message: shortened(&error.to_string()) };
        let own = self.input.get_data_mut::<f32>().map_err(failed)?;
        if own.len() != input.len() {
            return Err(EngineError::InputLength { expected: own.len(), found: input.len() });
        }
        own.copy_from_slice(input);
        self.request.infer().map_err(failed)?;
        let read = |name: &String| {
            // Asked for after every run: the plugin may have put the answer elsewhere than before.
            let output = self.request.get_tensor(name).map_err(failed)?;
            let element = output.get_element_type().map_err(failed)?;
            if element != ElementType::F32 {
                return Err(EngineError::OutputType { tensor: name.clone(), found: format!("{element:?}") });
            }
            Ok(output.get_data::<f32>().map_err(failed)?.to_vec())
        };
        self.outputs.iter().map(read).collect()
    }
}

fn filled_u8(bytes: &[u8]) -> Result<Tensor, openvino::InferenceError> {
    // A Vec is never longer than i64::MAX.
    let mut tensor = Tensor::new(ElementType::U8, &Shape::new(&[bytes.len() as i64])?)?;
    if !bytes.is_empty() {
        tensor.get_raw_data_mut()?.copy_from_slice(bytes);
    }
    Ok(tensor)
}

/// Checks every library against the folder's own list and finds the C interface, whose suffix changes by release.
///
/// Guards against damage, not against an attacker who can write there: the folder is the box's own, read-only.
fn verified_library(folder: &Path) -> Result<PathBuf, DeviceError> {
    let unusable = |problem: String| DeviceError::Runtime { folder: folder.to_owned(), problem };
    let sums = std::fs::read_to_string(folder.join(SUMS)).map_err(|error| unusable(format!("{SUMS}: {error}")))?;
    let mut library = None;
    let mut found = [false; NEEDED.len()];
    for line in sums.lines() {
        let Some((digest, name)) = line.split_once("  ") else { return Err(unusable(format!("{SUMS} is malformed"))) };
        if name.contains('/') {
            continue; // Licences: they are carried, not loaded.
        }
        let bytes = std::fs::read(folder.join(name)).map_err(|error| unusable(format!("{name}: {error}")))?;
        if Sha256::from_hex(digest) != Ok(Sha256::of(&bytes)) {
            return Err(unusable(format!("{name} is damaged")));
        }
        for (found, needed) in found.iter_mut().zip(NEEDED) {
            *found |= name.starts_with(needed);
        }
        if name.starts_with("libopenvino_c.so.") {
            library = Some(folder.join(name));
        }
    }
    match (library, NEEDED.iter().zip(found).find(|(_, found)| !found)) {
        (Some(library), None) => Ok(library),
        (_, missing) => Err(unusable(format!("{} is missing", missing.map_or("libopenvino_c.so", |(name, _)| name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime_folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut sums = String::new();
        for name in names {
            std::fs::write(folder.path().join(name), name).unwrap();
            sums += &format!("{}  {name}\n", Sha256::of(name.as_bytes()));
        }
        std::fs::write(folder.path().join(SUMS), sums).unwrap();
        folder
    }

    const WHOLE: [&str; 5] = [
        "libopenvino.so.2641",
        "libopenvino_c.so.2641",
        "libopenvino_intel_cpu_plugin.so",
        "libopenvino_ir_frontend.so.2641",
        "libtbb.so.12",
    ];

    #[test]
    fn a_whole_runtime_names_its_c_interface() {
        let folder = runtime_folder(&WHOLE);
        assert_eq!(verified_library(folder.path()).unwrap(), folder.path().join("libopenvino_c.so.2641"));
    }

    #[test]
    fn a_missing_or_damaged_library_is_named_before_anything_is_loaded() {
        for name in WHOLE {
            let folder = runtime_folder(&WHOLE);
            std::fs::write(folder.path().join(name), &name[1..]).unwrap();
            let refused = verified_library(folder.path()).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name} is damaged")), "{refused}");
            std::fs::remove_file(folder.path().join(name)).unwrap();
            assert!(verified_library(folder.path()).unwrap_err().to_string().contains(name));
            let without: Vec<_> = WHOLE.into_iter().filter(|other| *other != name).collect();
            assert!(verified_library(runtime_folder(&without).path()).is_err(), "{name}");
        }
    }

    #[test]
    fn an_absent_runtime_says_how_to_get_it() {
        let refused = Runtime::open(Path::new("/nonexistent")).err().unwrap().to_string();
        assert!(refused.contains("run scripts/fetch-openvino.sh"), "{refused}");
    }
}
