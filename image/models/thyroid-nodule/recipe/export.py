"""Turns the networks into INT8, scores them out of fold, and makes the bundle of the final one.

In: the work folder of train.py and heads.py, the data folders. Out: results.json beside this file, the bundle folder
without its signature (common/sign.py adds that), and in the work folder the worst frames as pictures.
Promise: every figure in the card comes from results.json; no picture of the data set enters the bundle.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as opset
import torch
from tqdm import tqdm

import domains
import frames as fr
import heads
import score
from common import backbone, card, export, golden, manifest
from network import Served
from train import NAMES, new_net

HERE = Path(__file__).resolve().parent
VERSION = "1.0.0"
NETWORK = "nodule"
CALIBRATION = {"frames": 40, "views": 16, "others": 8}
"""Pictures that set the ranges of INT8: frames, views of them, and other pictures that the gate must still know."""

SHAPE = [1, 3, fr.SIDE_PX, fr.SIDE_PX]
GOLDEN = 4
OPS_MAX = 1900


def served(path: Path) -> Served:
    """The network to export."""
    net = Served(new_net())
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def quantised(name: str, data: fr.Frames, train: np.ndarray, others: list[np.ndarray], work: Path) -> None:
    """Writes `<name>-fp32.xml` and `<name>-int8.xml` into the work folder, where they are missing."""
    if (work / f"{name}-int8.xml").exists():
        return
    model = export.to_ir(served(work / f"{name}-served.pt"), SHAPE, list(Served.OUTPUTS))
    rng = np.random.default_rng([fr.SEED, 70, *name.encode()])
    picked = rng.permutation(train)[: CALIBRATION["frames"] + CALIBRATION["views"]]
    pictures = [fr.as_seen(data.pictures[r]) for r in picked[: CALIBRATION["frames"]]]
    pictures += [fr.view(data.pictures[r], data.masks[r], rng, far=True)[0] for r in picked[CALIBRATION["frames"] :]]
    pictures += others[: CALIBRATION["others"]]
    # The heads are a thousandth of the work and read numbers of very different size: they stay in floating point.
    small = export.to_int8(model, [fr.tensor(p) for p in pictures], fast=True, keep=[".*suspicious.*", ".*gate.*"])
    fit_suspicion(small, data, train)
    export.save_ir(model, work / f"{name}-fp32.xml")
    export.save_ir(small, work / f"{name}-int8.xml")


def fit_suspicion(small: ov.Model, data: fr.Frames, train: np.ndarray) -> None:
    """Fits the suspicion head once more, on the columns that the INT8 network itself computes for training frames.

    Rounding in the frozen branch moves the columns, another way in each network, further than bias correction takes back.
    A head fitted to FP32 columns reads that as suspicion; one fitted to INT8 columns has learned to look past it.
    """
    multiply = _before(small.output("suspicious").get_node().input_value(0).get_node(), "MatMul")
    columns = opset.result(multiply.input_value(0))
    columns.output(0).get_tensor().set_names({"columns"})
    small.add_results([columns])
    rows = heads.suspicion_rows(data, train)
    found = export.Runner(small).run_all([fr.tensor(p) for p in heads.suspicion_views(data, rows)])["columns"]
    small.remove_result(columns)
    set_suspicion(small, *heads.teach_suspicion(found, np.tile(data.suspicious[rows], 2), heads.STRENGTH_INT8))


def set_suspicion(model: ov.Model, slope: np.ndarray, bias: float) -> None:
    """Replaces weights and bias of the suspicion head, which stays in floating point."""
    add = model.output("suspicious").get_node().input_value(0).get_node()
    for node, values in ((_before(add, "MatMul"), slope), (add, bias)):
        port = next(p for p in node.inputs() if p.get_source_output().get_node().get_type_name() == "Constant")
        shape = port.get_source_output().get_node().data.shape
        port.replace_source_output(opset.constant(np.reshape(np.float32(values), shape), dtype=np.float32).output(0))


def _before(node: ov.Node, kind: str) -> ov.Node:
    """The operation of `kind` that feeds `node`."""
    sources = (port.get_source_output().get_node() for port in node.inputs())
    return next(source for source in sources if source.get_type_name() == kind)


def answers(name: str, data: fr.Frames, rows: np.ndarray, work: Path) -> None:
    """Writes `<name>-answers.npz`: both precisions on held-out frames and moved copies of them."""
    path = work / f"{name}-answers.npz"
    if path.exists():
        return
    out = {"rows": rows}
    plain = [fr.tensor(fr.as_seen(data.pictures[r])) for r in rows]
    moved = [fr.tensor(score.truth_of_moved(data, r)[0]) for r in rows]
    for precision in ("fp32", "int8"):
        run = export.Runner(work / f"{name}-{precision}.xml")
        for kind, tensors in (("plain", plain), ("moved", moved)):
            raw = run.run_all(tensors, f"{name} {precision} {kind}")
            out |= {f"{precision}/{kind}/{tensor}": values for tensor, values in raw.items()}
    np.savez(path, **out)


def gathered(data: fr.Frames, work: Path) -> dict[str, score.Answers]:
    """Out-of-fold answers of all frames in both precisions, as far as folds are trained."""
    count = len(data.names)
    out = {}
    for precision in ("fp32", "int8"):
        names = [n for n in NAMES[:-1] if (work / f"{n}-answers.npz").exists()]
        one = score.Answers(
            np.zeros((count, fr.MASK_PX, fr.MASK_PX), np.float32),
            np.zeros((count, fr.MASK_PX, fr.MASK_PX), np.float32),
            np.zeros(count),
            np.zeros((count, 4), np.float32),
            [np.load(work / f"{n}-answers.npz")["rows"] for n in names],
        )
        for name in names:
            held = np.load(work / f"{name}-answers.npz")
            rows = held["rows"]
            one.masks[rows] = held[f"{precision}/plain/mask"][:, 0]
            one.moved[rows] = held[f"{precision}/moved/mask"][:, 0]
            one.suspicious[rows] = held[f"{precision}/plain/suspicious"][:, 0]
            one.gate[rows] = held[f"{precision}/plain/gate"]
        out[precision] = one
    return out


def tested_kinds(options: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Pictures of other domains that no gate was taught."""
    kinds = {kind: pair[1] for kind, pair in domains.kinds(options.others, heads.COUNT).items()}
    samples = heads.other_ultrasound(options.others / "dicom-ultrasound-samples")
    return kinds | {f"dicom {kind}": pictures for kind, pictures in samples.items()}


def gate_figures(data: fr.Frames, int8: score.Answers, run: export.Runner, options: argparse.Namespace) -> dict:
    """The gate in INT8: frames out of fold, other pictures by the final network, and kinds that were never taught."""
    answered = {}
    for kind, pictures in tqdm(tested_kinds(options).items(), desc="other pictures"):
        raw = run.run_all([fr.tensor(p) for p in pictures])
        found = np.array([score.regions(m[0], fr.SIDE_PX).any() for m in raw["mask"]])
        answered[kind] = (raw["gate"], found)
    left = np.load(options.work / "gates.npz")
    unseen = {k: (left[f"unseen/{k}"], answered[k][1]) for k in answered if f"unseen/{k}" in left.files}
    unseen |= {k: pair for k, pair in answered.items() if k.startswith("dicom ")}
    clean = np.array([r for r in np.flatnonzero(int8.scored) if data.names[r] not in fr.BROKEN])
    held = [options.work / f"{n}-answers.npz" for n in NAMES[:-1]]
    moved = np.concatenate([np.load(path)["int8/moved/gate"] for path in held if path.exists()])
    return score.gate(int8.gate[clean], answered, unseen, moved)


def golden_pictures(runs: dict[str, export.Runner], asked: list[dict]) -> np.ndarray:
    """Drawn scans, grey, as three equal channels: of many, those on which INT8 follows FP32 best.

    They are to show a machine that computes wrongly, so the network's own rounding should be small on them; how far INT8
    strays on frames is told by the figures.
    """
    rng = np.random.default_rng([fr.SEED, 80])
    drawn = [np.repeat(domains.phantom(rng)[0][..., None], 3, 2) for _ in range(6 * GOLDEN)]
    raw = {p: [run.run_all([fr.tensor(one)]) for one in drawn] for p, run in runs.items()}
    found = [golden.differences(a, b, asked) for a, b in zip(raw["fp32"], raw["int8"], strict=True)]
    # Each against what a bundle may allow at most.
    gaps = [max(one["scalar_max"] / 0.1, one["map_mean_max"] / 0.05) for one in found]
    return np.stack([drawn[n] for n in sorted(np.argsort(gaps)[:GOLDEN])])


def outputs(results: dict) -> list[dict]:
    """`[[networks.outputs]]`."""
    doubt = results["suspicion"]
    fovea = {"scheme": "99FOVEA"}
    return [
        {
            "tensor": "gate",
            "kind": "gate_logits",
            "temperature": 1.0,
            "threshold": results["gate"]["threshold"],
            "reasons": [
                {
                    "code": "not_ultrasound",
                    "text": "not an ultrasound frame",
                    "advice": "send a B-mode frame of the thyroid",
                    "outcome": "not_analysed",
                },
                {
                    "code": "other_body_part",
                    "text": "an ultrasound frame, but not of a thyroid as a linear probe shows it",
                    "advice": "send a B-mode frame of the thyroid, taken with a linear probe",
                    "outcome": "not_analysed",
                },
                {
                    "code": "colour_flow",
                    "text": "colour covers the tissue",
                    "advice": "switch colour flow off and freeze a grey frame",
                    "outcome": "ungradable",
                },
            ],
        },
        {
            "tensor": "mask",
            "kind": "mask_logits",
            "label": "thyroid nodule",
            "code": fovea | {"value": "thyroid-nodule", "meaning": "Thyroid nodule"},
            "threshold": score.MASK_THRESHOLD,
            "area_min_share": score.AREA_MIN_SHARE,
            "required": {
                "code": "no_nodule",
                "text": "no nodule found in the frame",
                "advice": "move the probe until the nodule lies in the middle of the field, then freeze again",
            },
            "axes": True,
        },
        {
            "tensor": "suspicious",
            "kind": "binary_logit",
            "label": "thyroid nodule looks suspicious (TI-RADS 4a or higher)",
            "code": fovea | {"value": "thyroid-nod-susp", "meaning": "Suspicious thyroid nodule, TI-RADS 4a or higher"},
            "temperature": doubt["temperature"],
            "clear_below": doubt["clear_below"]["threshold"],
            "significant_from": doubt["significant_from"]["threshold"],
        },
    ]


def content(results: dict, said: dict) -> dict:
    """bundle.toml without its hashes."""
    return {
        "#": "What this model wants to see, what its answers mean, and by what it proves itself. Written by recipe/export.py.",
        "schema": 2,
        "id": "thyroid-nodule",
        "version": VERSION,
        "task": "thyroid_nodule",
        "description": "Outline and axes of a thyroid nodule in a B-mode ultrasound frame, and a weak guess whether it looks suspicious. Research use only.",
        "licence": "LicenseRef-research-only",
        "eligible": {
            "#": "Ultrasound (single, multi-frame, both retired ones), Secondary Capture. A thyroid looks like other soft tissue\n"
            "under a linear probe: the gate cannot tell breast from thyroid unless it was taught that breast, so an object must say.",
            "sop_classes": [
                "1.2.840.10008.5.1.4.1.1.6.1",
                "1.2.840.10008.5.1.4.1.1.3.1",
                "1.2.840.10008.5.1.4.1.1.6",
                "1.2.840.10008.5.1.4.1.1.3",
                "1.2.840.10008.5.1.4.1.1.7",
            ],
            "modalities": ["US"],
            "body_parts": ["THYROID", "NECK"],
            "body_part_required": True,
            "photometrics": ["MONOCHROME2", *manifest.COLOUR_PHOTOMETRICS],
            "min_rows_px": 200,
            "min_columns_px": 200,
        },
        "labels": {"meaning": "1 where the nodule's TI-RADS is 4a or higher, 0 where it is 2 or 3; empty where not stated"},
        "algorithm": {"name": "Fovea thyroid-nodule", "family": manifest.ALGORITHM_FAMILY},
        "limits": {"ops_max": OPS_MAX},
        "networks": [
            {
                "name": NETWORK,
                "input": {
                    "tensor": "image",
                    "width_px": fr.SIDE_PX,
                    "height_px": fr.SIDE_PX,
                    "channels": "rgb",
                    "mean": backbone.MEAN,
                    "std": backbone.STD,
                    "roi": "ultrasound_field",
                },
                "golden": said,
                "outputs": outputs(results),
            }
        ],
    }


def make_bundle(results: dict, work: Path, bundle: Path) -> None:
    """Everything but the signature."""
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.mkdir(parents=True)
    for ending in ("xml", "bin"):
        shutil.copy(work / f"final-int8.{ending}", bundle / f"{NETWORK}.{ending}")
    asked = outputs(results)
    runs = {p: export.Runner(work / f"final-{p}.xml") for p in ("fp32", "int8")}
    pictures = golden_pictures(runs, asked)
    raw = {p: run.run_all([fr.tensor(x) for x in pictures]) for p, run in runs.items()}
    found = golden.differences(raw["fp32"], raw["int8"], asked)
    said = golden.write(bundle, NETWORK, pictures, raw["fp32"], asked) | golden.tolerances(found, with_maps=True)
    results["golden"] = found | {k: v for k, v in said.items() if k.startswith("tolerance")}
    results["bundle"] = {
        "weights_mb": round((bundle / f"{NETWORK}.bin").stat().st_size / 1e6, 3),
        "operations": export.operations(ov.Core().read_model(bundle / f"{NETWORK}.xml")),
    }
    (bundle / "card.md").write_text(card.fill(HERE / "card.template.md", results, **tables(results)))
    manifest.write(bundle, content(results, said))


def tables(results: dict) -> dict[str, str]:
    """The card's tables."""

    def span(pair: list[float]) -> str:
        return f"{pair[0]:.3f} to {pair[1]:.3f}"

    seg, out = results["segmentation"], {}
    for key, head in (("by_tirads", "TI-RADS"), ("by_size", "nodule's size in the frame")):
        rows = [[name, s["frames"], f"{s['dice']:.3f}", span(s["dice_95"])] for name, s in seg[key].items()]
        out[f"table_{key}"] = card.table([head, "frames", "Dice (INT8)", "95 %"], rows)
    gate = results["gate"]
    kinds = list(dict.fromkeys([*gate["taught"], *gate["unseen"]]))
    rows = []
    for kind in kinds:
        one, other = gate["taught"].get(kind), gate["unseen"].get(kind)
        never = kind.startswith("dicom ")
        cells = ["" if never else f"{one['passed']} / {one['findings']}"]
        cells.append(f"{other['passed']} / {other['findings']}" if other else "")
        rows.append([kind, one["pictures"], *cells])
    out["table_gate"] = card.table(["kind", "pictures", "taught: passed / finding", "never taught: passed / finding"], rows)
    out["by_fold"] = ", ".join(f"{v:.3f}" for v in seg["by_fold"])
    shares = results["suspicion"]["significant_by_tirads"]
    out["significant_by_tirads"] = ", ".join(f"{k}: {100 * v:.0f} %" for k, v in shares.items())
    out["epochs_by_network"] = ", ".join(f"{n} {s['epochs']}" for n, s in results["training"].items())
    out["known_failures"] = (HERE / "failures.md").read_text().strip()
    out["training_minutes"] = f"{sum(s['cpu_s'] for s in results['training'].values()) / 60:.0f}"
    return out


def worst_pictures(data: fr.Frames, int8: score.Answers, names: list, path: Path) -> None:
    """The worst frames side by side: green is the truth, red what was found."""
    tiles = []
    for name, value in names:
        row = data.names.index(name)
        tile = cv2.cvtColor(data.pictures[row], cv2.COLOR_GRAY2BGR)
        plain = tile.copy()
        for mask, colour in ((data.masks[row], (0, 255, 0)), (score.regions(int8.masks[row], 300), (0, 0, 255))):
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, contours, -1, colour, 2)
        cv2.putText(tile, f"{name} {value}", (4, 14), 0, 0.45, (0, 255, 255), 1)
        tiles.append(np.vstack([plain, tile]))
    cv2.imwrite(str(path), np.hstack(tiles))


def main() -> None:
    """Quantises, scores, writes."""
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = fr.load(options.data)
    others = [heads.domains.nonsense("noise", np.random.default_rng(1)), heads.domains.nonsense("flat", np.random.default_rng(2))]
    others += [p for pair in list(domains.kinds(options.others, 4).values())[:5] for p in pair[0][:2]]
    parts = dict(zip(NAMES, [*fr.folds(data), (np.arange(len(data.names)), np.arange(0))], strict=True))
    for name in [NAMES[-1], *NAMES[:-1]]:
        if not (options.work / f"{name}-served.pt").exists():
            print(f"{name}: not trained yet")
            continue
        quantised(name, data, parts[name][0], others, options.work)
        if len(parts[name][1]):
            answers(name, data, parts[name][1], options.work)
    if options.prepare:
        return
    both = gathered(data, options.work)
    final = export.Runner(options.work / "final-int8.xml")
    results = {"version": VERSION, "frames": len(data.names), "patients": len(set(data.patients.tolist()))}
    results["versions"] = export.versions()
    results["training"] = {n: json.loads((options.work / f"{n}.json").read_text()) for n in NAMES if (options.work / f"{n}-served.pt").exists()}
    results["segmentation"] = score.segmentation(data, both["fp32"], both["int8"])
    results["suspicion"] = score.suspicion(data, both["fp32"], both["int8"])
    results["gate"] = gate_figures(data, both["int8"], final, options)
    x = fr.tensor(fr.as_seen(data.pictures[0]))
    results["latency_ms"] = {"int8": final.median_ms(x), "fp32": export.Runner(options.work / "final-fp32.xml").median_ms(x)}
    if options.latency_ms:
        results["latency_ms"]["int8"], results["latency_ms"]["fp32"] = options.latency_ms
    worst_pictures(data, both["int8"], results["segmentation"]["worst"], options.work / "worst.png")
    make_bundle(results, options.work, options.bundle)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({k: results["segmentation"][k] for k in ("fp32", "int8", "blob", "by_fold")}, indent=1))


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images.zip")
    parser.add_argument("--others", type=Path, required=True, help="folder that holds the folders of other data sets")
    parser.add_argument("--work", type=Path, required=True, help="work folder of train.py and heads.py")
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "bundle")
    parser.add_argument("--prepare", action="store_true", help="only INT8 networks and answers, no figures")
    parser.add_argument("--latency-ms", type=float, nargs=2, help="INT8 and FP32, measured on an idle core, instead of here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
