//! The look at a graph before an engine compiles it: a compile cannot be cancelled and allocates what the graph asks.
//! In: OpenVINO IR (XML, `net` version 10 and 11). Out: yes, or the first thing that is out of bounds.
//! Promise: the graph has one input and the outputs that the manifest says, each of the shape that its kind needs; all
//! constants lie inside its `.bin`, and neither the number of operations nor any tensor is larger than its bound.
//! Source of the format: OpenVINO documentation, "OpenVINO IR format".

use super::manifest::{MAP_SIDE_MAX, Network};
use super::output::{Kind, Output};
use crate::answer::Shape;
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
    #[error("constant {index} lies outside the file of {bin_bytes} B")]
    ConstOutside {
        /// Which constant, in file order.
        index: usize,
        /// Length of the constants' file.
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
    /// Not as many outputs as the manifest has.
    #[error("{found} outputs, bundle.toml has {expected}")]
    Outputs {
        /// From the manifest.
        expected: usize,
        /// Outputs found.
        found: usize,
    },
    /// An output is not of the shape that its kind needs.
    #[error("output {tensor} is {found}, bundle.toml's kind needs {expected}")]
    OutputShape {
        /// Its name.
        tensor: String,
        /// From the manifest.
        expected: String,
        /// From the graph.
        found: String,
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

/// Checks a graph against its manifest and the length of its constants; returns the shapes of its outputs in the
/// manifest's order.
pub(crate) fn check(xml: &[u8], bin_bytes: usize, network: &Network, ops_max: u32) -> Result<Vec<Shape>, GraphError> {
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
    if ops.len() > ops_max as usize {
        return Err(GraphError::TooManyOps { ops: ops.len(), ops_max });
    }
    check_constants(&ops, bin_bytes)?;
    check_tensors(&ops)?;
    check_input(&ops, network)?;
    check_outputs(net, &ops, network)
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

fn check_input(ops: &[Node], network: &Network) -> Result<(), GraphError> {
    let inputs: Vec<Node> = of_type(ops, "Parameter").collect();
    let [input] = inputs[..] else { return Err(GraphError::Inputs { found: inputs.len() }) };
    let spec = &network.input;
    let expected = format!("1,{},{},{}", spec.channels.count(), spec.height_px, spec.width_px);
    let shape: String = data(input, "shape").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let element = data(input, "element_type").unwrap_or_default();
    if shape != expected || element != "f32" {
        let found: String = format!("{element} {shape}").chars().take(60).collect();
        return Err(GraphError::InputShape { expected, found });
    }
    if port_named(input, &network.input_tensor).is_none() {
        return Err(GraphError::NoTensor { key: "networks.input.tensor" });
    }
    Ok(())
}

/// Each output of the manifest must be a tensor that feeds a result, and no result may be left over.
fn check_outputs(net: Node, ops: &[Node], network: &Network) -> Result<Vec<Shape>, GraphError> {
    let results: Vec<&str> = of_type(ops, "Result").filter_map(|op| op.attribute("id")).collect();
    let (expected, found) = (network.outputs.len(), of_type(ops, "Result").count());
    if expected != found {
        return Err(GraphError::Outputs { expected, found });
    }
    // Tensors that feed a result, as (operation, port).
    let ends: Vec<(&str, &str)> = net
        .children()
        .filter(|node| node.has_tag_name("edges"))
        .flat_map(|edges| edges.children().filter(|node| node.has_tag_name("edge")))
        .filter(|edge| edge.attribute("to-layer").is_some_and(|to| results.contains(&to)))
        .filter_map(|edge| edge.attribute("from-layer").zip(edge.attribute("from-port")))
        .collect();
    let shape = |output: &Output| {
        let end = ops.iter().find_map(|op| {
            let port = port_named(*op, &output.tensor)?;
            let end = op.attribute("id").zip(port.attribute("id"))?;
            ends.contains(&end).then_some(port)
        });
        let port = end.ok_or(GraphError::NoTensor { key: "networks.outputs.tensor" })?;
        // Already known to be numbers whose product is bounded.
        let dims: Vec<usize> = port
            .children()
            .filter(|node| node.has_tag_name("dim"))
            .filter_map(|dim| dim.text().and_then(|text| text.trim().parse().ok()))
            .collect();
        output_shape(output, &dims, network)
    };
    network.outputs.iter().map(shape).collect()
}

/// What a kind needs: a list has as many elements as it means, along one axis; a map has four axes.
fn output_shape(output: &Output, dims: &[usize], network: &Network) -> Result<Shape, GraphError> {
    let planes = output.kind.planes();
    let wrong = |expected: String| {
        let found: Vec<String> = dims.iter().take(8).map(usize::to_string).collect();
        Err(GraphError::OutputShape {
            tensor: output.tensor.clone(),
            expected,
            found: format!("[{}]", found.join(",")),
        })
    };
    if !output.kind.is_map() {
        let along = dims.iter().filter(|dim| **dim != 1).count();
        if dims.len() > 4 || along > 1 || dims.iter().product::<usize>() != planes {
            return wrong(format!("{planes} numbers"));
        }
        return Ok(Shape { planes, height: 1, width: 1 });
    }
    let &[1, found, height, width] = dims else { return wrong(format!("[1,{planes},h,w]")) };
    if found != planes || !(1..=MAP_SIDE_MAX).contains(&height) || !(1..=MAP_SIDE_MAX).contains(&width) {
        return wrong(format!("[1,{planes},h,w], sides of 1 to {MAP_SIDE_MAX}"));
    }
    if let Kind::Nuclei(_) = output.kind {
        // Maps of overlapping windows are laid on one grid.
        let (rows, columns) = (network.input.height_px as usize, network.input.width_px as usize);
        if (rows, columns) != (height, width) {
            return wrong(format!("[1,{planes},{rows},{columns}], as the input"));
        }
    }
    Ok(Shape { planes, height, width })
}

/// The operation's output port that has the name.
fn port_named<'a, 'input>(op: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    let ports = op.children().filter(|node| node.has_tag_name("output")).flat_map(|output| output.children());
    let has = |names: &str| names.split(',').any(|one| one.trim() == name);
    ports.into_iter().find(|port| port.attribute("names").is_some_and(has))
}
