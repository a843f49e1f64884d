//! The manifest's bounds, one by one.

use super::manifest::{Manifest, ManifestError, safe_name};
use super::output::{GateOutcome, Kind};
use fovea_core::{RoiMethod, Sha256};

/// A whole manifest with every kind of output: one network that looks at the frame, one at windows.
fn text() -> String {
    let digest = Sha256::of(b"");
    let code = |value: &str| format!(r#"{{ scheme = "99FOVEA", value = "{value}", meaning = "Meaning of {value}" }}"#);
    format!(
        r#"
schema = 2
id = "tissue-test"
version = "1.0.0"
task = "some_task"
description = "Says something."
licence = "Apache-2.0"
[eligible]
modalities = ["SM"]
lateralities = ["L", "R"]
body_parts = ["LUNG"]
body_part_required = true
[labels]
meaning = "0 or 1"
[algorithm]
name = "Tissue test"
family = {{ scheme = "DCM", value = "123110", meaning = "Artificial Intelligence" }}
[limits]
ops_max = 1500
[[networks]]
name = "tissue"
[networks.input]
tensor = "image"
width_px = 8
height_px = 9
channels = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
roi = "inner_square"
[networks.quality]
focus_min = 0.1
[networks.golden]
inputs = "golden/tissue.inputs.bin"
expected = "golden/tissue.expected.bin"
count = 3
tolerance_abs = 0.03
tolerance_map_mean = 0.02
[[networks.outputs]]
tensor = "fit"
kind = "gate_logits"
temperature = 1.5
threshold = 0.4
reasons = [
  {{ code = "blur", text = "the picture is blurred", advice = "Focus and take it again.", outcome = "ungradable" }},
  {{ code = "no_tissue", text = "this is no tissue", outcome = "not_analysed" }},
]
[[networks.outputs]]
tensor = "class"
kind = "class_logits"
label = "malignant tissue"
code = {malignant}
temperature = 1.25
clear_below = 0.2
significant_from = 0.6
classes = [
  {{ value = "adenocarcinoma", label = "adenocarcinoma", code = {adeno}, positive = true }},
  {{ value = "benign", label = "benign tissue", code = {benign}, positive = false }},
]
[[networks.outputs]]
tensor = "grade"
kind = "ordinal_logits"
label = "grade of it"
code = {grade}
temperature = 0.75
levels = ["none", "some", "much"]
thresholds = [0.45, 0.55]
[[networks.outputs]]
tensor = "where"
kind = "mask_logits"
label = "the thing"
code = {thing}
threshold = 0.35
area_min_share = 0.001
required = {{ code = "no_thing", text = "no thing was found", advice = "" }}
axes = true
[[networks.outputs]]
tensor = "why"
kind = "heat_logits"
label = "what the answer rests on"
threshold = 0.65
regions_max = 4
[[networks]]
name = "nuclei"
[networks.input]
tensor = "window"
width_px = 256
height_px = 256
channels = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
roi = "window"
um_per_px = 0.5
[networks.golden]
inputs = "golden/nuclei.inputs.bin"
expected = "golden/nuclei.expected.bin"
count = 2
tolerance_map_mean = 0.04
[[networks.outputs]]
tensor = "maps"
kind = "nuclei_logits"
label = "nuclei"
code = {nuclei}
interior_threshold = 0.5
seed_threshold = 0.25
area_min_px = 12
[tiles]
field_um = 384.0
field_px = 768
nuclei_fields_max = 48
[files]
"tissue.xml" = "{digest}"
"tissue.bin" = "{digest}"
"nuclei.xml" = "{digest}"
"nuclei.bin" = "{digest}"
"golden/tissue.inputs.bin" = "{digest}"
"golden/tissue.expected.bin" = "{digest}"
"golden/nuclei.inputs.bin" = "{digest}"
"golden/nuclei.expected.bin" = "{digest}"
"#,
        malignant = code("malignant"),
        adeno = code("adeno"),
        benign = code("benign"),
        grade = code("grade"),
        thing = code("thing"),
        nuclei = code("nuclei-count"),
    )
}

/// The same, read.
pub fn manifest() -> Manifest {
    Manifest::parse(text().as_bytes()).unwrap()
}

#[test]
fn a_whole_manifest_is_read() {
    let manifest = manifest();
    assert_eq!(manifest.networks[0].input_len(), 216);
    assert_eq!(manifest.networks[0].quality.focus_min, Some(0.1));
    assert_eq!((manifest.networks[1].input.roi, manifest.networks[1].um_per_px), (RoiMethod::Window, Some(0.5)));
    assert_eq!((manifest.eligible.modalities.len(), manifest.eligible.body_part_required), (1, true));
    assert_eq!((manifest.label(), &*manifest.labels.meaning), ("malignant tissue", "0 or 1"));
    assert_eq!(manifest.tiles.unwrap().nuclei_fields_max, 48);
    let planes: Vec<usize> = manifest.outputs().map(|(_, _, output)| output.kind.planes()).collect();
    assert_eq!(planes, [3, 2, 2, 1, 1, 2]);
    let Kind::Gate(gate) = &manifest.networks[0].outputs[0].kind else { panic!("{manifest:?}") };
    assert_eq!((gate.reasons[1].outcome, &*gate.reasons[1].reason.advice), (GateOutcome::NotAnalysed, ""));
}

#[test]
fn every_value_outside_its_bound_is_refused_by_name() {
    let cases = [
        ("schema = 2", "schema = 1", "schema"),
        ("id = \"tissue-test\"", "id = \"../eye\"", "id"),
        ("version = \"1.0.0\"", "version = \"\"", "version"),
        ("task = \"some_task\"", "task = \"Some task\"", "task"),
        ("meaning = \"0 or 1\"", "meaning = \" \"", "labels.meaning"),
        ("modalities = [\"SM\"]", "modalities = [\"\"]", "eligible"),
        ("[\"L\", \"R\"]", "[\"LEFT\"]", "eligible.lateralities"),
        ("body_parts = [\"LUNG\"]", "body_parts = []", "eligible.body_part_required"),
        ("ops_max = 1500", "ops_max = 2001", "limits.ops_max"),
        ("ops_max = 1500", "ops_max = 0", "limits.ops_max"),
        ("name = \"nuclei\"", "name = \"tissue\"", "networks.name"),
        ("name = \"nuclei\"", "name = \"Nuclei\"", "networks.name"),
        ("name = \"nuclei\"", "name = \"other\"", "networks.name"),
        ("width_px = 8", "width_px = 5000", "networks.input.width_px"),
        ("width_px = 256", "width_px = 63", "networks.input.width_px"),
        ("height_px = 9", "height_px = 0", "networks.input.height_px"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5]", "networks.input.mean"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [nan, 0.5, 0.5]", "networks.input.mean"),
        ("std = [0.25, 0.25, 0.25]", "std = [0.25, 0.0, 0.25]", "networks.input.std"),
        ("tensor = \"image\"", "tensor = \"im\\u0000age\"", "networks.input.tensor"),
        ("roi = \"window\"\num_per_px = 0.5", "roi = \"full_frame\"", "networks.input.roi"),
        ("roi = \"inner_square\"", "roi = \"window\"", "networks.input.roi"),
        ("um_per_px = 0.5", "um_per_px = 0.0", "networks.input.um_per_px"),
        ("roi = \"inner_square\"", "roi = \"inner_square\"\num_per_px = 0.5", "networks.input.um_per_px"),
        ("focus_min = 0.1", "focus_min = inf", "networks.quality"),
        ("inputs = \"golden/tissue.inputs.bin\"", "inputs = \"other.bin\"", "networks.golden.inputs"),
        ("expected = \"golden/nuclei.expected.bin\"", "expected = \"other.bin\"", "networks.golden.expected"),
        ("count = 3", "count = 65", "networks.golden.count"),
        ("count = 3", "count = 0", "networks.golden.count"),
        ("tolerance_abs = 0.03", "tolerance_abs = 0.5", "networks.golden.tolerance_abs"),
        ("tolerance_abs = 0.03", "tolerance_abs = nan", "networks.golden.tolerance_abs"),
        ("tolerance_abs = 0.03", "", "networks.golden.tolerance_abs"),
        ("tolerance_map_mean = 0.02", "tolerance_map_mean = 0.06", "networks.golden.tolerance_map_mean"),
        ("tolerance_map_mean = 0.04", "", "networks.golden.tolerance_map_mean"),
        ("tensor = \"class\"", "tensor = \"cl ass\"", "networks.outputs.tensor"),
        ("tensor = \"class\"", "tensor = \"fit\"", "networks.outputs.tensor"),
        ("label = \"the thing\"", "label = \"\"", "networks.outputs.label"),
        ("value = \"thing\"", "value = \"48550034855003485\"", "networks.outputs.code"),
        ("value = \"adeno\"", "value = \"48550034855003485\"", "networks.outputs.classes.code"),
        ("temperature = 1.5", "temperature = 0.0", "networks.outputs.temperature"),
        ("temperature = 1.25", "temperature = nan", "networks.outputs.temperature"),
        ("temperature = 0.75", "temperature = 101.0", "networks.outputs.temperature"),
        ("clear_below = 0.2", "clear_below = 0.7", "networks.outputs.clear_below"),
        ("clear_below = 0.2", "clear_below = nan", "networks.outputs.clear_below"),
        ("significant_from = 0.6", "significant_from = 1.5", "networks.outputs.clear_below"),
        ("positive = false", "positive = true", "networks.outputs.classes"),
        ("value = \"benign\", label", "value = \"adenocarcinoma\", label", "networks.outputs.classes.value"),
        ("value = \"benign\", label", "value = \"Benign\", label", "networks.outputs.classes.value"),
        ("label = \"benign tissue\"", "label = \"\\u0007\"", "networks.outputs.classes.label"),
        ("levels = [\"none\", ", "levels = [", "networks.outputs.levels"),
        ("levels = [\"none\", ", "levels = [\"\", ", "networks.outputs.levels"),
        ("thresholds = [0.45, 0.55]", "thresholds = []", "networks.outputs.thresholds"),
        ("thresholds = [0.45, 0.55]", "thresholds = [0.45, 1.0]", "networks.outputs.thresholds"),
        ("threshold = 0.4\n", "threshold = 0.0\n", "networks.outputs.threshold"),
        ("code = \"blur\"", "code = \"Blur\"", "networks.outputs.reasons"),
        ("text = \"this is no tissue\"", "text = \"\"", "networks.outputs.reasons"),
        ("threshold = 0.35", "threshold = nan", "networks.outputs.threshold"),
        ("area_min_share = 0.001", "area_min_share = -0.1", "networks.outputs.area_min_share"),
        ("text = \"no thing was found\"", "text = \"\"", "networks.outputs.required"),
        ("threshold = 0.65", "threshold = 1.0", "networks.outputs.threshold"),
        ("regions_max = 4", "regions_max = 17", "networks.outputs.regions_max"),
        ("interior_threshold = 0.5", "interior_threshold = 1.5", "networks.outputs.interior_threshold"),
        ("seed_threshold = 0.25", "seed_threshold = 1.5", "networks.outputs.seed_threshold"),
        ("area_min_px = 12", "area_min_px = 0", "networks.outputs.area_min_px"),
        ("area_min_px = 12", "area_min_px = 12\nmean_min = 1.0", "networks.outputs.mean_min"),
        ("field_um = 384.0", "field_um = 1.0", "tiles.field_um"),
        ("field_um = 384.0", "field_um = nan", "tiles.field_um"),
        ("field_px = 768", "field_px = 5000", "tiles.field_px"),
        ("nuclei_fields_max = 48", "nuclei_fields_max = 0", "tiles.nuclei_fields_max"),
        ("\"golden/tissue.inputs.bin\" =", "\"../inputs.bin\" =", "files"),
        ("\"nuclei.bin\" =", "\"weights.bin\" =", "networks.name"),
    ];
    for (from, to, wanted) in cases {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{from} is not in the text");
        match Manifest::parse(changed.as_bytes()) {
            Err(ManifestError::Value { key, .. }) => assert_eq!(key, wanted, "{to}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

/// The text without its `n`-th output, or with it twice under another name.
fn with_output(n: usize, times: usize) -> String {
    let whole = text();
    let begin = whole.match_indices("[[networks.outputs]]").nth(n).unwrap().0;
    let end = whole[begin + 4..].find("\n[").unwrap() + begin + 5;
    let one = &whole[begin..end];
    let mut changed = whole[..begin].to_owned();
    for time in 0..times {
        changed += &one.replace("tensor = \"", &format!("tensor = \"again{time}"));
    }
    changed + &whole[end..]
}

#[test]
fn a_bundle_has_one_main_answer_and_each_reading_at_most_once() {
    for (output, times, fits) in [
        (0, 0, true),  // No gate: every picture is answered for.
        (0, 2, false), // Two gates: which is asked?
        (1, 0, false), // No main answer.
        (1, 2, false),
        (2, 0, true),
        (2, 2, false), // Two levels could not be told apart.
        (3, 0, true),
        (3, 2, false),
        (4, 0, true),
        (4, 2, true),  // Two heat maps have labels of their own.
        (4, 5, false), // More outputs than a network may have.
        (5, 2, false),
    ] {
        match Manifest::parse(with_output(output, times).as_bytes()) {
            Ok(_) => assert!(fits, "output {output} {times} times"),
            Err(ManifestError::Value { key, .. }) => {
                assert!(!fits && key == "networks.outputs", "output {output} {times} times: {key}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_bundle_has_one_to_four_networks() {
    let whole = text();
    let (begin, end) = (whole.rfind("[[networks]]").unwrap(), whole.find("[tiles]").unwrap());
    let windows = &whole[begin..end];
    let mut many = whole[..begin].to_owned();
    for number in 0..4 {
        many += &windows.replace("name = \"nuclei\"", &format!("name = \"nuclei-{number}\""));
    }
    many += &whole[end..];
    let refused = Manifest::parse(many.as_bytes());
    assert!(matches!(refused, Err(ManifestError::Value { key: "networks", .. })), "{refused:?}");
}

#[test]
fn unknown_and_missing_keys_are_refused() {
    for (from, to) in [
        ("ops_max = 1500", "ops_max = 1500\nops_mix = 1"),
        ("roi = \"inner_square\"", ""),
        ("roi = \"inner_square\"", "roi = \"everything\""),
        ("kind = \"class_logits\"", "kind = \"oracle\""),
        ("kind = \"class_logits\"", ""),
        ("kind = \"heat_logits\"", "kind = \"heat_logits\"\ntemperature = 1.0"),
        ("axes = true", ""),
        ("outcome = \"ungradable\"", "outcome = \"finding\""),
        ("positive = true", "positive = 1"),
        ("schema = 2", "schema = \"2\""),
        ("schema = 2", "schema ="),
        ("[labels]\nmeaning = \"0 or 1\"", ""),
    ] {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{from} is not in the text");
        let refused = Manifest::parse(changed.as_bytes());
        assert!(matches!(refused, Err(ManifestError::Toml { .. })), "{to}: {refused:?}");
    }
    assert!(matches!(Manifest::parse(b"\xff\xfe"), Err(ManifestError::Toml { .. })));
}

#[test]
fn names_stay_inside_the_bundle() {
    for good in ["tissue.xml", "golden/tissue.inputs.bin", "a/b/c.d", "card.md"] {
        assert!(safe_name(good), "{good}");
    }
    for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/b/c/d", "a\\b", "a b", "a\0b", "ü"] {
        assert!(!safe_name(bad), "{bad:?}");
    }
}
