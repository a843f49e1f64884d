"""Turns the trained networks into the bundle: INT8 graphs, calibration, golden vectors, figures, card, manifest.

In: the work folder of tissue.py, gate.py, nuclei.py and stain_study.py, the data folders. Out: the bundle folder without
its signature (common/sign.py adds that) and results.json beside this file.
Promise: every figure in the card comes from results.json; no picture of LC25000 enters the bundle: its golden inputs are
CC0 fields and drawings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from tqdm import tqdm

import fields
import gate
import measure
import nonsense
import served
import tiles
from common import card, figures, golden, manifest
from common.export import Runner, operations, save_ir, versions

HERE = Path(__file__).resolve().parent
WINDOW_PX = 256
FIELD_UM, FIELD_PX, NUCLEI_FIELDS_MAX = 192.0, 768, 48
UM_PER_PX = 0.5

WHOLE_SLIDE, MICROSCOPIC, SLIDE_COORDINATES = (f"1.2.840.10008.5.1.4.1.1.77.1.{n}" for n in (6, 2, 3))
PHOTOGRAPHIC, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.7"


def own(value: str, meaning: str) -> dict:
    """A code of this product: SNOMED CT's would need a licence and say a diagnosis."""
    return {"scheme": "99FOVEA", "value": value, "meaning": meaning}


CLASS_CODES = {
    "benign": ("benign lung tissue", own("lung-benign", "Benign lung tissue"), False),
    "adenocarcinoma": ("adenocarcinoma", own("lung-adeno", "Adenocarcinoma pattern of lung tissue"), True),
    "squamous_cell_carcinoma": ("squamous cell carcinoma", own("lung-squamous", "Squamous cell carcinoma pattern of lung tissue"), True),
}  # fmt: skip

REASONS = [
    {
        "code": "not_stained_tissue",
        "text": "this is not a tissue section stained with haematoxylin and eosin",
        "advice": "",
        "outcome": "not_analysed",
    },
    {
        "code": "empty_field",
        "text": "the field shows glass and hardly any tissue",
        "advice": "Move to the tissue and take it again.",
        "outcome": "ungradable",
    },
    {
        "code": "out_of_focus",
        "text": "the field is out of focus: no nucleus has an edge",
        "advice": "Focus and take it again.",
        "outcome": "ungradable",
    },
]


# Golden vectors


def golden_tissue(known: fields.Fields) -> np.ndarray:
    """Three inputs: a CC0 field, a pink one out of focus, drawn cells."""
    rng = np.random.default_rng(tiles.SEED)
    purple, pink = (tiles.inner_square(known.pictures[np.flatnonzero(known.kinds == kind)[0]]) for kind in (0, 2))
    return np.stack([purple, cv2.GaussianBlur(pink, (0, 0), 4.0), nonsense.drawn_cells(rng)])


def golden_nuclei(known: fields.Fields) -> np.ndarray:
    """Two windows of CC0 fields of different look."""
    picked = [known.pictures[np.flatnonzero(known.kinds == kind)[1]] for kind in (0, 2)]
    return np.stack([np.ascontiguousarray(p[:WINDOW_PX, :WINDOW_PX]) for p in picked])


# The gate as it is served


def gate_on_others(options: argparse.Namespace, exact: Runner, small: Runner, threshold: float, known: fields.Fields, lung: tiles.Tiles) -> dict:
    """Pictures that get a finding, by kind, FP32 and INT8: archives' pictures that the gate was not trained on, new drawings."""
    rng = np.random.default_rng(tiles.SEED + 1)
    tissue = [lung.pictures[i] for i in rng.choice(len(lung.pictures), 80, replace=False)]
    archives = {"retina": options.retina, "thyroid ultrasound": options.thyroid, "breast ultrasound": options.breast}
    kinds: dict[str, list[np.ndarray]] = {
        name: nonsense.from_zip(path, 60, 50 + number) for number, (name, path) in enumerate(archives.items())
    }
    kinds["immunostain"] = [nonsense.one_of(options.wheel, "ihc.png")]
    kinds["photographs"] = list(nonsense.crops(nonsense.photographs(options.wheel), 60, rng))
    kinds |= {name: [draw(rng) for _ in range(20)] for name, draw in nonsense.DRAWN.items()}
    kinds |= {name: [spoil(p, rng) for p in tissue[:30]] for name, spoil in nonsense.SPOILED.items()}
    kinds["out of focus"] = [nonsense.blurred(p, rng) for p in tissue]
    kinds["bare glass"] = [nonsense.empty(rng) for _ in range(40)]
    fit = {"nuclei fields": known.pictures, "lung tiles": tissue}
    out: dict = {"counts": {name: len(pictures) for name, pictures in (kinds | fit).items()}}
    shares: dict = {"fp32": {}, "int8": {}}
    for name, pictures in tqdm((kinds | fit).items(), desc="gate as served"):
        inputs = [tiles.tensor(tiles.inner_square(p)) for p in pictures]
        for kind, runner in (("fp32", exact), ("int8", small)):
            p = figures.softmax(runner.run_all(inputs)["gate_logits"].astype(np.float64))[:, 0]
            shares[kind][name] = float((p >= threshold).mean())
    out["passed"] = shares
    wrong = [name for name in kinds if name not in ("out of focus", "bare glass")]
    total = sum(len(kinds[name]) for name in wrong)
    out["wrong_pictures"] = total
    for kind, passed in shares.items():
        out[f"wrong_with_finding_{kind}"] = sum(passed[name] * len(kinds[name]) for name in wrong) / total
    return out


# Bundle


def content(results: dict, tissue_golden: dict, nuclei_golden: dict) -> dict:
    """The manifest without its file list."""
    tissue, rule = results["tissue"], results["nuclei"]["rule"]
    mean, std = ([round(float(v), 3) for v in vector] for vector in (tiles.MEAN, tiles.STD))
    normal = {"channels": "rgb", "mean": mean, "std": std}
    classes = [
        {"value": name, "label": CLASS_CODES[name][0], "code": CLASS_CODES[name][1], "positive": CLASS_CODES[name][2]}
        for name in tiles.CLASSES
    ]
    return {
        "#": "What this model wants to see, what its answer means, and by what it proves itself. Written by recipe/export.py.",
        "schema": 2,
        "id": "lung-tissue",
        "version": results["version"],
        "task": "lung_tissue",
        "description": "Kind of lung tissue (benign, adenocarcinoma, squamous cell carcinoma) and nuclei in H&E sections. Research use only.",
        "licence": "LicenseRef-research-only",
        "eligible": {
            "#": "Whole slides and photomicrographs. Photographs and captures only where their modality says microscope: other\nphotographs are another model's.",
            "sop_classes": [WHOLE_SLIDE, MICROSCOPIC, SLIDE_COORDINATES, PHOTOGRAPHIC, SECONDARY_CAPTURE],
            "modalities": ["SM", "GM"],
            "body_parts": ["LUNG", "BRONCHUS", "CHEST"],
            "lateralities": [],
            "photometrics": manifest.COLOUR_PHOTOMETRICS,
            "min_rows_px": 200,
            "min_columns_px": 200,
        },
        "labels": {
            "meaning": "benign, adenocarcinoma or squamous_cell_carcinoma; or 0 (benign) and 1 (tumour) where only 0 and 1 occur"
        },
        "algorithm": {"name": "Fovea lung-tissue", "family": manifest.ALGORITHM_FAMILY},
        "limits": {"ops_max": 1500},
        "networks": [
            {
                "name": "tissue",
                "input": {"tensor": "image", "width_px": tiles.SIDE_PX, "height_px": tiles.SIDE_PX, **normal, "roi": "inner_square"},
                "golden": tissue_golden,
                "outputs": [
                    {
                        "tensor": "class_logits",
                        "kind": "class_logits",
                        "label": "tumour pattern in lung tissue",
                        "code": own("lung-tumour", "Tumour pattern in lung tissue"),
                        "temperature": tissue["temperature"],
                        "clear_below": tissue["thresholds"]["clear_below"],
                        "significant_from": tissue["thresholds"]["significant_from"],
                        "classes": classes,
                    },
                    {
                        "tensor": "gate_logits",
                        "kind": "gate_logits",
                        "temperature": 1.0,
                        "threshold": results["gate"]["threshold"],
                        "reasons": REASONS,
                    },
                ],
            },
            {
                "name": "nuclei",
                "input": {"tensor": "image", "width_px": WINDOW_PX, "height_px": WINDOW_PX, **normal, "roi": "window", "um_per_px": UM_PER_PX},
                "golden": nuclei_golden,
                "outputs": [
                    {
                        "tensor": "nuclei_logits",
                        "kind": "nuclei_logits",
                        "label": "nuclei",
                        "code": own("nuclei", "Cell nuclei"),
                        **rule,
                    }
                ],
            },
        ],
        "tiles": {
            "#": "The fields that the tile class was trained on are about 190 micrometres wide (card.md says how that was judged).",
            "field_um": FIELD_UM,
            "field_px": FIELD_PX,
            "nuclei_fields_max": NUCLEI_FIELDS_MAX,
        },
    }


OUTPUTS = {
    "tissue": [{"tensor": "class_logits", "kind": "class_logits"}, {"tensor": "gate_logits", "kind": "gate_logits", "temperature": 1.0}],
    "nuclei": [{"tensor": "nuclei_logits", "kind": "nuclei_logits"}],
}


def network(name: str, exact: ov.Model, small: ov.Model, pictures: np.ndarray, bundle: Path, outputs: list[dict]) -> tuple[dict, dict, Runner, Runner]:
    """Writes the graph and the golden vectors of one network: (golden table, what was measured, FP32 and INT8 runner)."""
    save_ir(small, bundle / f"{name}.xml")
    runners = Runner(exact), Runner(bundle / f"{name}.xml")
    inputs = [tiles.tensor(p) for p in pictures]
    raw, raw_small = (runner.run_all(inputs) for runner in runners)
    table = golden.write(bundle, name, pictures, raw, outputs)
    found = golden.differences(raw, raw_small, outputs)
    limits = golden.tolerances(found, with_maps=name == "nuclei")
    if name == "nuclei":
        del limits["tolerance_abs"]
    measured = {
        **found,
        "operations": operations(small),
        "int8_ms": runners[1].median_ms(inputs[0]),
        "fp32_ms": runners[0].median_ms(inputs[0], 20),
        "bytes": sum((bundle / f"{name}{end}").stat().st_size for end in (".xml", ".bin")),
    }
    return table | limits, measured, *runners


def kept(path: Path, make: Callable[[], ov.Model]) -> ov.Model:
    """A quantised model, from disk where an earlier run has left it."""
    if not path.exists():
        ov.save_model(make(), path, compress_to_fp16=False)
    return ov.Core().read_model(path)


def build(options: argparse.Namespace) -> None:
    """Final networks -> bundle and results."""
    work, bundle = options.work, options.bundle
    lung, known = tiles.load(options.lung), fields.load(options.fields)
    others = [tiles.inner_square(p) for p in known.pictures]
    gated = measure.parts(work, "gate.json")
    exact = served.tissue_ir(served.load_tissue(work, "final"))
    small = kept(work / "tissue-int8.xml", lambda: served.tissue_int8(exact, list(lung.pictures), others, [tiles.SEED, 99]))
    results: dict = {
        "version": options.version,
        "seeds": {"tiles": tiles.SEED, "fields": fields.SEED, "gate": gate.SEED, "nonsense": nonsense.SEED},
        **versions(),
        "training": {"tissue": measure.parts(work, "tissue.json"), "nuclei": measure.parts(work, "nuclei.json")},
        "stain": measure.parts(work, "stain.json"),
        "tissue": measure.tissue_figures(work, lung, small),
        "nuclei": measure.nuclei_figures(work, known),
        "gate": gated,
    }
    OUTPUTS["tissue"][0]["temperature"] = results["tissue"]["temperature"]
    tissue_table, cost_tissue, *runners = network("tissue", exact, small, golden_tissue(known), bundle, OUTPUTS["tissue"])
    results["gate_as_served"] = gate_on_others(options, *runners, gated["threshold"], known, lung)
    exact = served.nuclei_ir(served.load_nuclei(work, "final"))
    every = np.arange(len(known.names))
    small = kept(work / "nuclei-int8.xml", lambda: served.nuclei_int8(exact, known, every, [fields.SEED, 99]))
    nuclei_table, cost_nuclei, *_ = network("nuclei", exact, small, golden_nuclei(known), bundle, OUTPUTS["nuclei"])
    results["cost"] = {"tissue": cost_tissue, "nuclei": cost_nuclei}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    finish(results, tissue_table, nuclei_table, bundle)


def finish(results: dict, tissue_table: dict, nuclei_table: dict, bundle: Path) -> None:
    """Card and manifest."""
    (bundle / "card.md").write_text(text(results))
    manifest.write(bundle, content(results, tissue_table, nuclei_table))
    print(json.dumps({k: results[k] for k in ("tissue", "nuclei", "gate_as_served", "cost")}, indent=1))


def text(results: dict) -> str:
    """The card, every figure from `results`."""
    gated, stains, as_served = results["gate"], results["stain"]["accuracy"], results["gate_as_served"]
    pc = "{:.1f} %".format
    shown = [name.replace("_", " ") for name in tiles.CLASSES]
    tissue, nuclei = results["tissue"], results["nuclei"]
    return card.fill(
        HERE / "card.template.md",
        results,
        stain_rows=card.table(
            ["treatment", "clean tiles", "perturbed tiles"],
            [[name, pc(100 * row["clean"]), pc(100 * row["perturbed"])] for name, row in stains.items()],
        ),
        confusion_rows=card.table(
            ["truth \\ answer", *shown, "right", "right, INT8"],
            [
                [shown[c], *row, pc(100 * tissue["fp32"]["by_class"][c]), pc(100 * tissue["int8"]["by_class"][c])]
                for c, row in enumerate(tissue["fp32"]["confusion"])
            ],
        ),
        kind_rows=card.table(
            ["look", "fields", "AP@0.5", "AP@0.5, INT8", "median count error", "median count error, INT8"],
            [
                [name, row["fields"], f"{row['ap50']:.3f}", f"{nuclei['int8']['by_kind'][name]['ap50']:.3f}",
                 pc(100 * row["count_error"]), pc(100 * nuclei["int8"]["by_kind"][name]["count_error"])]
                for name, row in nuclei["fp32"]["by_kind"].items()
            ],
        ),
        held_rows=card.table(
            ["kind", "pictures", "held", "held when the kind was never seen", "held by the served INT8 network"],
            [
                [name, gated["counts"][name], pc(100 * share),
                 pc(100 * gated["held_unseen"][name]) if name in gated["held_unseen"] else "",
                 pc(100 * (1 - as_served["passed"]["int8"][name])) if name in as_served["passed"]["int8"] else ""]
                for name, share in gated["held"].items()
            ],
        ),
        passed_rows=card.table(
            ["kind", "pictures", "passed"],
            [[name, gated["counts"][name], pc(100 * share)] for name, share in gated["passed"].items()],
        ),
        ms_tissue=f"{results['cost']['tissue']['int8_ms']:.1f}", ms_tissue_fp32=f"{results['cost']['tissue']['fp32_ms']:.1f}",
        ms_nuclei=f"{results['cost']['nuclei']['int8_ms']:.1f}", ms_nuclei_fp32=f"{results['cost']['nuclei']['fp32_ms']:.1f}",
        clear_below=f"{tissue['thresholds']['clear_below']:.2f}", significant_from=f"{tissue['thresholds']['significant_from']:.2f}",
        folds_nuclei={2: "two", 3: "three", 4: "four", 5: "five"}[fields.FOLDS],
        folds_tissue=", ".join(f"{v:.3f}" for v in tissue["accuracy_by_fold"]),
        field_um=f"{FIELD_UM:g}",
    )  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--fields", type=Path, required=True, help="DSB2018 tissue folder")
    parser.add_argument("--retina", type=Path, required=True, help="archive of fundus photographs")
    parser.add_argument("--thyroid", type=Path, required=True, help="archive of thyroid ultrasound")
    parser.add_argument("--breast", type=Path, required=True, help="archive of breast ultrasound")
    parser.add_argument("--wheel", type=Path, required=True, help="the scikit-image 0.16.2 wheel")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "bundle")
    parser.add_argument("--version", default="1.1.0")
    build(parser.parse_args())


if __name__ == "__main__":
    main()
