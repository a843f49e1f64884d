//! The tree of content items, and how it becomes attributes.
//! In: items that measure.rs joined. Out: attributes of the SR Document Content module.
//! Standard: DICOM PS3.3 section C.17.3, table C.17-5.

use crate::codes::OWN_SCHEME;
use crate::encode::{DataSet, short, vr};
use fovea_core::{Code, Uid};
use std::collections::BTreeSet;

/// How an item stands to its parent (PS3.3 section C.17.3.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// CONTAINS
    Contains,
    /// HAS OBS CONTEXT
    ObservationContext,
    /// HAS ACQ CONTEXT
    AcquisitionContext,
    /// HAS CONCEPT MOD
    ConceptModifier,
    /// SELECTED FROM
    SelectedFrom,
}

impl Relation {
    fn defined_term(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::ObservationContext => "HAS OBS CONTEXT",
            Self::AcquisitionContext => "HAS ACQ CONTEXT",
            Self::ConceptModifier => "HAS CONCEPT MOD",
            Self::SelectedFrom => "SELECTED FROM",
        }
    }
}

/// What an item holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A heading, with its template's number where it has one.
    Container {
        /// Template of PS3.16, for instance `1500`.
        template: Option<&'static str>,
    },
    /// A coded answer.
    Code(Code),
    /// Words.
    Text(String),
    /// A UID.
    UidRef(Uid),
    /// A number, finite, with its UCUM unit.
    Number {
        /// As DS, at most 16 characters.
        value: String,
        /// Unit.
        unit: Code,
    },
    /// A closed outline in pixels of the image that it is selected from (PS3.3 section C.18.6.1.2, POLYLINE).
    Outline {
        /// x then y, without the first point repeated.
        points: Vec<[f32; 2]>,
    },
    /// An image, with the frame where it has several.
    Image {
        /// Class.
        class: Uid,
        /// Instance.
        instance: Uid,
        /// From 1.
        frame: Option<u32>,
    },
}

/// One node of the tree.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// To its parent; the root's is not written.
    pub relation: Relation,
    /// What it is about.
    pub concept: Code,
    /// What it says.
    pub value: Value,
    /// Below it, in order.
    pub children: Vec<Item>,
}

impl Item {
    /// A leaf.
    #[must_use]
    pub fn new(relation: Relation, concept: Code, value: Value) -> Self {
        Self { relation, concept, value, children: Vec::new() }
    }

    /// The same with children.
    #[must_use]
    pub fn with(mut self, children: Vec<Item>) -> Self {
        self.children = children;
        self
    }

    /// Calls `visit` for this item and all below, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Item)) {
        visit(self);
        self.children.iter().for_each(|child| child.walk(visit));
    }
}

/// Writes the root's attributes into the document.
pub fn put_root(data: &mut DataSet, root: &Item) {
    put_item(data, root);
}

/// Lists private coding schemes (PS3.3 section C.12.1.1.7): every `99` designator in the tree.
pub fn put_coding_schemes(data: &mut DataSet, root: &Item) {
    let mut schemes = BTreeSet::new();
    root.walk(&mut |item| {
        let mut note = |code: &Code| {
            if code.scheme.starts_with("99") {
                schemes.insert(code.scheme.clone());
            }
        };
        note(&item.concept);
        match &item.value {
            Value::Code(code) => note(code),
            Value::Number { unit, .. } => note(unit),
            _ => {}
        }
    });
    let items: Vec<DataSet> = schemes
        .iter()
        .map(|scheme| {
            let mut item = DataSet::new();
            item.put_text(0x0008_0102, vr::SH, scheme);
            let name = if scheme == OWN_SCHEME { "Fovea result codes" } else { "Private result codes" };
            item.put_text(0x0008_0115, vr::ST, name);
            item
        })
        .collect();
    if !items.is_empty() {
        data.put_sequence(0x0008_0110, &items);
    }
}

fn put_item(data: &mut DataSet, item: &Item) {
    data.put_sequence(0x0040_A043, &[code_item(&item.concept)]);
    let value_type = match &item.value {
        Value::Container { template } => {
            data.put_text(0x0040_A050, vr::CS, "SEPARATE");
            if let Some(template) = template {
                let mut applied = DataSet::new();
                applied.put_text(0x0008_0105, vr::CS, "DCMR");
                applied.put_text(0x0040_DB00, vr::CS, template);
                data.put_sequence(0x0040_A504, &[applied]);
            }
            "CONTAINER"
        }
        Value::Code(code) => {
            data.put_sequence(0x0040_A168, &[code_item(code)]);
            "CODE"
        }
        Value::Text(text) => {
            data.put_text(0x0040_A160, vr::UT, &printable(text));
            "TEXT"
        }
        Value::UidRef(uid) => {
            data.put_uid(0x0040_A124, uid);
            "UIDREF"
        }
        Value::Number { value, unit } => {
            let mut measured = DataSet::new();
            measured.put_sequence(0x0040_08EA, &[code_item(unit)]);
            measured.put_text(0x0040_A30A, vr::DS, value);
            data.put_sequence(0x0040_A300, &[measured]);
            "NUM"
        }
        Value::Outline { points } => {
            let closed = points.iter().chain(points.first()).flatten();
            data.put_text(0x0070_0023, vr::CS, "POLYLINE");
            data.put_raw(0x0070_0022, vr::FL, closed.flat_map(|coordinate| coordinate.to_le_bytes()).collect());
            "SCOORD"
        }
        Value::Image { class, instance, frame } => {
            let mut reference = DataSet::new();
            reference.put_uid(0x0008_1150, class);
            reference.put_uid(0x0008_1155, instance);
            if let Some(frame) = frame {
                reference.put_text(0x0008_1160, vr::IS, &frame.to_string());
            }
            data.put_sequence(0x0008_1199, &[reference]);
            "IMAGE"
        }
    };
    data.put_text(0x0040_A040, vr::CS, value_type);
    let children: Vec<DataSet> = item
        .children
        .iter()
        .map(|child| {
            let mut node = DataSet::new();
            node.put_text(0x0040_A010, vr::CS, child.relation.defined_term());
            put_item(&mut node, child);
            node
        })
        .collect();
    if !children.is_empty() {
        data.put_sequence(0x0040_A730, &children);
    }
}

/// Lengths were checked by `measure::fits`; a cut here would never show.
fn code_item(code: &Code) -> DataSet {
    let mut item = DataSet::new();
    item.put_text(0x0008_0100, vr::SH, &short(&code.value, 16));
    item.put_text(0x0008_0102, vr::SH, &short(&code.scheme, 16));
    item.put_text(0x0008_0104, vr::LO, &short(&code.meaning, 64));
    item
}

/// Text of ours beside the source's character set: ASCII is the same in all of them but for the backslash, which some
/// Japanese sets show as a yen sign.
fn printable(text: &str) -> String {
    short(text, 1024)
}
