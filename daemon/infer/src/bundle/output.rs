//! What one tensor of a network's answer means: the checked form of `[[networks.outputs]]`.
//! In: values that `raw_output` checked. Out: types that activation, reading and admission share.
//! Promise: every temperature is above 0, every threshold is a probability, every text is bounded.

use fovea_core::{Code, Reason};

/// One tensor of a network's answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Name of the tensor in the graph.
    pub tensor: String,
    /// What it holds.
    pub kind: Kind,
}

/// What a tensor holds and how it is read.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// One logit: yes or no. May be the bundle's main answer.
    Binary(Binary),
    /// K logits of "the level is at least k", k = 1..=K.
    Ordinal(Ordinal),
    /// K logits of classes that exclude each other. May be the bundle's main answer.
    Classes(Classes),
    /// 1 + R logits: fit to be answered, or one of R reasons why not.
    Gate(Gate),
    /// A map, `[1,1,h,w]`: where a structure lies.
    Mask(Mask),
    /// A map, `[1,1,h,w]`: what the answer rests on.
    Heat(Heat),
    /// Two maps, `[1,2,h,w]`: inside and border of nuclei.
    Nuclei(Nuclei),
}

impl Kind {
    /// True for maps, false for lists of numbers.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self, Self::Mask(_) | Self::Heat(_) | Self::Nuclei(_))
    }

    /// Elements of a list, planes of a map.
    #[must_use]
    pub fn planes(&self) -> usize {
        match self {
            Self::Binary(_) | Self::Mask(_) | Self::Heat(_) => 1,
            Self::Nuclei(_) => 2,
            Self::Ordinal(ordinal) => ordinal.thresholds.len(),
            Self::Classes(classes) => classes.classes.len(),
            Self::Gate(gate) => 1 + gate.reasons.len(),
        }
    }
}

/// Where a probability changes its band.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bands {
    /// Below this the band is clear, 0 to 1.
    pub clear_below: f64,
    /// From this on the band is significant, `clear_below` to 1.
    pub significant_from: f64,
}

/// Yes or no. Activated: sigmoid(x / temperature).
#[derive(Clone, PartialEq, Debug)]
pub struct Binary {
    /// What the probability is of, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// 0.01 to 100.
    pub temperature: f64,
    /// Bands of the probability.
    pub bands: Bands,
}

/// A level, 0 to K. Activated: sigmoid(x / temperature), then the running minimum, so that "at least k" never grows with k.
#[derive(Clone, PartialEq, Debug)]
pub struct Ordinal {
    /// What is graded, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// 0.01 to 100.
    pub temperature: f64,
    /// K + 1 words, level 0 first.
    pub levels: Vec<String>,
    /// K probabilities: the level is how many leading k have p_k at or above theirs. K is 1 to 15.
    pub thresholds: Vec<f64>,
}

/// One of several answers that exclude each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Class {
    /// For programs and tables: lower case, digits, `_` and `-`.
    pub value: String,
    /// In words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// Whether it counts towards the main probability.
    pub positive: bool,
}

/// Answers that exclude each other. Activated: softmax(x / temperature); the probability is the sum of the positive ones.
#[derive(Clone, PartialEq, Debug)]
pub struct Classes {
    /// What the positive ones are together, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// 0.01 to 100.
    pub temperature: f64,
    /// Bands of the probability.
    pub bands: Bands,
    /// In the tensor's order, 2 to 10, at least one positive and one not.
    pub classes: Vec<Class>,
}

/// How an object ends that a gate turns away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    /// The picture can be taken again.
    Ungradable,
    /// It is nothing that the model is for.
    NotAnalysed,
}

/// Why a gate turns an object away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GateReason {
    /// For programs and people.
    pub reason: Reason,
    /// How the object ends.
    pub outcome: GateOutcome,
}

/// Whether the picture is one to answer for. Activated: softmax(x / temperature), index 0 is "fit".
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    /// 0.01 to 100.
    pub temperature: f64,
    /// Least probability of "fit" that lets a picture pass.
    pub threshold: f64,
    /// Of index 1 and on, 1 to 15.
    pub reasons: Vec<GateReason>,
}

/// Where a structure lies. Activated: sigmoid, element by element.
#[derive(Clone, PartialEq, Debug)]
pub struct Mask {
    /// What lies there, in words.
    pub label: String,
    /// The same, coded.
    pub code: Code,
    /// From this probability on an element belongs to the structure, above 0 and below 1.
    pub threshold: f64,
    /// Least area of a region, as a share of the tensor's, 0 to 1.
    pub area_min_share: f64,
    /// Where no region is found the picture is ungradable for this reason.
    pub required: Option<Reason>,
    /// Whether long and short axis are told.
    pub axes: bool,
}

/// What an answer rests on. Activated: sigmoid, element by element.
#[derive(Clone, PartialEq, Debug)]
pub struct Heat {
    /// What is shown, in words.
    pub label: String,
    /// From this value on an element is outlined, above 0 and below 1.
    pub threshold: f64,
    /// Most outlines, 1 to 16; the largest ones are told.
    pub regions_max: u32,
}

/// Inside (plane 0) and border (plane 1) of nuclei. Activated: sigmoid, element by element.
#[derive(Clone, PartialEq, Debug)]
pub struct Nuclei {
    /// What is counted, in words.
    pub label: String,
    /// Of their number, coded.
    pub code: Code,
    /// From this value of the interior on an element is of a nucleus, above 0 and below 1.
    pub interior_threshold: f64,
    /// From this difference of interior and border on an element is of a seed, -1 to 1.
    pub seed_threshold: f64,
    /// Smaller seeds are dropped, elements of the map, at least 1.
    pub area_min_px: u32,
    /// Nuclei whose interior is below this in the mean are dropped, 0 (none is) up to below 1.
    pub mean_min: f64,
}
