//! The look at a graph before an engine compiles it: a compile cannot be cancelled and allocates what the graph asks.
//! In: OpenVINO IR (XML, `net` version 10 and 11). Out: yes, or the first thing that is out of bounds.
//! Promise: the graph has one input and one output as the manifest says, all constants lie inside model.bin, and
//! neither the number of operations nor any tensor is larger than its bound.
//! Source of the format: OpenVINO documentation, "OpenVINO IR format".

use super::manifest::Manifest;
use roxmltree::{Document, Node, ParsingOptions};

/// Most XML nodes, text between elements included: 2000 operations have about 150,000.
const NODES_MAX: u32 = 400_000;
/// Most elements of any tensor: 256 MiB of float32.
const TENSOR_ELEMENTS_MAX: u64 = 64 << 20;

/// What is wrong with a graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Not UTF-8, not well-formed, too many nodes, or a document type.
    #[error("not a readable graph: {message}")]
    Xml {
        /// What the parser says.
        message: String,
    },
    /// The root is not `net`, or has no layers.
    #[error("not an OpenVINO graph")]
    NotANet,
    /// More operations than allowed.
    #[error("{ops} operations, the limit is {ops_max}")]
    TooManyOps {
        /// Operations found.
        ops: usize,
        /// The bundle's limit.
        ops_max: u32,
    },
    /// A constant that is not where the file has bytes, or has no place.
    #[error("constant {index} lies outside model.bin ({bin_bytes} B)")]
    ConstOutside {
        /// Which constant, in file order.
        index: usize,
        /// Length of model.bin.
        bin_bytes: usize,
    },
    /// A tensor of dynamic or absurd shape.
    #[error("operation {op} has a tensor of dynamic shape or more than {TENSOR_ELEMENTS_MAX} elements")]
    TensorTooLarge {
        /// Which operation, in file order.
        op: usize,
    },
    /// Not exactly one input.
    #[error("{found} inputs, one is needed")]
    Inputs {
        /// Inputs found.
        found: usize,
    },
    /// Not exactly one output.
    #[error("{found} outputs, one is needed")]
    Outputs {
        /// Outputs found.
        found: usize,
    },
    /// The input is not what the manifest says.
    #[error("the input is {found}, bundle.toml says f32 {expected}")]
    InputShape {
        /// From the manifest: `1,C,H,W`.
        expected: String,
        /// From the graph.
        found: String,
    },
    /// No tensor has the name that the manifest gives.
    #[error("no tensor is named as bundle.toml's {key}")]
    NoTensor {
        /// `input.tensor` or `outputs.tensor`.
        key: &'static str,
    },
}

/// Checks a graph against its manifest and the length of its constants.
pub(crate) fn check(xml: &[u8], bin_bytes: usize, manifest: &Manifest) -> Result<(), GraphError> {
    let unreadable = |message: String| GraphError::Xml { message };
    let text = std::str::from_utf8(xml).map_err(|_| unreadable("not UTF-8".to_owned()))?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, entity_resolver: None };
    let document = Document::parse_with_options(text, options).map_err(|error| unreadable(error.to_string()))?;
    let net = document.root_element();
    if !net.has_tag_name("net") || !net.children().any(|node| node.has_tag_name("layers")) {
        return Err(GraphError::NotANet);
    }
    // Bodies of loops and branches hold layers too: all are counted.
    let ops: Vec<Node> = net.descendants().filter(|node| node.has_tag_name("layer")).collect();
    if ops.len() > manifest.ops_max as usize {
        return Err(GraphError::TooManyOps { ops: ops.len(), ops_max: manifest.ops_max });
    }
    check_constants(&ops, bin_bytes)?;
    check_tensors(&ops)?;
    check_ends(&ops, manifest)
}

fn of_type<'a, 'input>(ops: &'a [Node<'a, 'input>], kind: &'a str) -> impl Iterator<Item = Node<'a, 'input>> {
    ops.iter().copied().filter(move |op| op.attribute("type") == Some(kind))
}

fn data<'a>(op: Node<'a, '_>, key: &str) -> Option<&'a str> {
    op.children().find(|node| node.has_tag_name("data")).and_then(|node| node.attribute(key))
}

fn check_constants(ops: &[Node], bin_bytes: usize) -> Result<(), GraphError> {
    for (index, constant) in of_type(ops, "Const").enumerate() {
        let number = |key| data(constant, key).and_then(|text| text.parse::<usize>().ok());
        let end = number("offset").zip(number("size")).and_then(|(offset, size)| offset.checked_add(size));
        if end.is_none_or(|end| end > bin_bytes) {
            return Err(GraphError::ConstOutside { index, bin_bytes });
        }
    }
    Ok(())
}

fn check_tensors(ops: &[Node]) -> Result<(), GraphError> {
    for (index, op) in ops.iter().enumerate() {
        for port in op.descendants().filter(|node| node.has_tag_name("port")) {
            let dims = port.children().filter(|node| node.has_tag_name("dim"));
            let elements = dims
                .map(|dim| dim.text().and_then(|text| text.trim().parse::<u64>().ok()))
                .try_fold(1u64, |elements, dim| {
                    elements.checked_mul(dim?).filter(|elements| *elements <= TENSOR_ELEMENTS_MAX)
                });
            if elements.is_none() {
                return Err(GraphError::TensorTooLarge { op: index });
            }
        }
    }
    Ok(())
}

fn check_ends(ops: &[Node], manifest: &Manifest) -> Result<(), GraphError> {
    let inputs: Vec<Node> = of_type(ops, "Parameter").collect();
    let [input] = inputs[..] else { return Err(GraphError::Inputs { found: inputs.len() }) };
    let outputs = of_type(ops, "Result").count();
    if outputs != 1 {
        return Err(GraphError::Outputs { found: outputs });
    }
    let spec = &manifest.input;
    let expected = format!("1,{},{},{}", spec.channels.count(), spec.height_px, spec.width_px);
    let shape: String = data(input, "shape").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let element = data(input, "element_type").unwrap_or_default();
    if shape != expected || element != "f32" {
        let found: String = format!("{element} {shape}").chars().take(60).collect();
        return Err(GraphError::InputShape { expected, found });
    }
    if !named(input, &manifest.input_tensor) {
        return Err(GraphError::NoTensor { key: "input.tensor" });
    }
    if !ops.iter().any(|op| named(*op, &manifest.output.tensor)) {
        return Err(GraphError::NoTensor { key: "outputs.tensor" });
    }
    Ok(())
}

/// True when one of the operation's output tensors has the name.
fn named(op: Node, name: &str) -> bool {
    let ports = op.children().filter(|node| node.has_tag_name("output")).flat_map(|output| output.children());
    ports.filter_map(|port| port.attribute("names")).any(|names| names.split(',').any(|one| one.trim() == name))
}
