"""Turns the trained parts into the bundle: INT8 IR, calibration, thresholds, golden vectors, figures, card, manifest.

In: the work folder of features.py, train.py and gate.py, the data sets, one CC0 photograph for the golden inputs.
Out: the bundle folder without its signature (sign.py adds that), results.json beside this file, and in the work folder
`validation/fold{0..4}`: pictures, labels.csv and the fold's own bundle, for `foveactl models eval`.
Promise: every figure in the card comes from results.json; no picture of a data set enters the bundle.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from tqdm import tqdm

import describe
import evaluate
import fundus
import retina
from common import backbone, export, figures, golden, manifest
from degrade import KINDS, REASONS, gaussian_blur, low_light
from features import SEED, Store
from network import SIDE_PX, Gate, Late, Served
from train import folds

HERE = Path(__file__).resolve().parent
SHAPE = [1, 3, SIDE_PX, SIDE_PX]
CALIBRATION_PHOTOS = 100
GOLDEN = 6
KEEP = [".*gate.*"]
"""The gate stays in FP32: it is a thousandth of the work, and its spreads suffer from rounding."""


def tensor(picture: np.ndarray) -> np.ndarray:
    """SIDE_PX u8 -> normalised."""
    return export.tensor(picture, backbone.MEAN, backbone.STD)


def served(work: Path, late: str, gate: str) -> Served:
    """A network from trained parts."""
    parts = Late(), Gate(len(REASONS))
    for part, name in zip(parts, (late, gate), strict=True):
        part.load_state_dict(torch.load(work / f"{name}.pt", weights_only=True))
    return Served(*parts)


def quantised(work: Path, net: Served, squares: np.ndarray, rows: np.ndarray, name: str) -> Path:
    """INT8 IR of `net`, calibrated on some of `rows`; made once."""
    xml = work / "int8" / f"{name}.xml"
    if not xml.exists():
        picked = np.random.default_rng([SEED, *name.encode()]).choice(rows, CALIBRATION_PHOTOS, replace=False)
        model = export.to_ir(net, SHAPE, list(Served.OUTPUTS))
        # The slow bias correction: with the fast one the network strays several times as far from FP32.
        small = export.to_int8(model, [tensor(squares[i]) for i in picked], fast=False, keep=KEEP)
        export.save_ir(small, xml)
    return xml


def out_of_fold(work: Path, squares: np.ndarray, labels: fundus.Labels) -> dict[str, np.ndarray]:
    """Raw answers of each fold's INT8 network on its held-out photographs."""
    path = work / "oof-int8.npz"
    if path.exists():
        return dict(np.load(path))
    found: dict[str, np.ndarray] = {}
    for number, (train, held_out) in enumerate(tqdm(folds(labels), desc="INT8 folds")):
        net = served(work, f"fold{number}", f"gate{number}")
        runner = export.Runner(quantised(work, net, squares, train, f"fold{number}"))
        for name, values in runner.run_all([tensor(squares[i]) for i in held_out]).items():
            found.setdefault(name, np.full((len(squares), *values.shape[1:]), np.nan))[held_out] = values
    np.savez(path, **found)
    return found


# Golden vectors


def golden_candidates(rgb: np.ndarray) -> np.ndarray:
    """Nine inputs made from one CC0 photograph alone: healthy, with drawn spots, dim, spoilt."""
    whole = retina.to_u8(retina.area_resize(retina.square(rgb), SIDE_PX))
    mirrored = np.ascontiguousarray(whole[:, ::-1])
    dim = retina.to_u8(mirrored * np.array([0.75, 0.6, 0.4]))
    rng = np.random.default_rng(SEED)
    healthy = [whole, mirrored, dim]
    spotted = [_with_spots(whole, 25), _with_spots(whole, 40), _with_spots(dim, 12), _with_spots(mirrored, 60)]
    return np.stack([*healthy, *spotted, gaussian_blur(whole, rng), low_light(whole, rng)])


def nearest(exact: dict, small: dict, outputs: list[dict]) -> np.ndarray:
    """The `GOLDEN` candidates on which INT8 lies nearest FP32, in their order.

    They are there to prove a machine: the nearer the two, the smaller the fault that shows.
    """
    pairs = zip(golden.activated(exact, outputs), golden.activated(small, outputs), outputs, strict=True)
    gaps = [np.abs(e - s).max(axis=1) for e, s, spec in pairs if spec["kind"] not in golden.MAPS]
    return np.sort(np.argsort(np.max(gaps, axis=0), kind="stable")[:GOLDEN])


def _with_spots(picture: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` dark and bright soft spots: not a disease, only a reason for the network to answer otherwise."""
    rng = np.random.default_rng([SEED, count])
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    out = picture.astype(np.float32)
    for spot in range(count):
        row, column = rng.uniform(0.25, 0.75, 2) * picture.shape[0]
        reach = rng.uniform(1.5, 5.0)
        share = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))[..., None]
        colour = np.array([235, 215, 110]) if spot % 2 else np.array([95, 20, 15])
        out = out * (1 - 0.85 * share) + 0.85 * share * colour
    return retina.to_u8(out)


# Assembly


def assemble(folder: Path, xml: Path, net: Served, pictures: np.ndarray, results: dict, version: str) -> dict:
    """Writes everything but the signature; what the golden vectors showed."""
    for stale in ("model.xml", "model.bin", "golden/inputs.bin"):
        (folder / stale).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for end in (".xml", ".bin"):
        shutil.copyfile(xml.with_suffix(end), folder / f"retina{end}")
    outputs = describe.outputs(results)
    tensors = [tensor(p) for p in pictures]
    with torch.no_grad():
        answers = net(torch.from_numpy(np.stack(tensors)))
    exact = {name: value.numpy() for name, value in zip(Served.OUTPUTS, answers, strict=True)}
    small = export.Runner(folder / "retina.xml").run_all(tensors)
    picked = nearest(exact, small, outputs)
    exact, small = ({name: values[picked] for name, values in answers.items()} for answers in (exact, small))
    table = golden.write(folder, "retina", pictures[picked], exact, outputs)
    found = golden.differences(exact, small, outputs)
    table |= golden.tolerances(found, with_maps=True)
    values = dict(zip((o["tensor"] for o in outputs), golden.activated(exact, outputs), strict=True))
    shown = found | table | {"picked": picked.tolist()}
    shown |= {"fp32": values["referable"][:, 0].tolist(), "fit": values["gate"][:, 0].tolist()}
    if version == results["version"]:
        (folder / "card.md").write_text(describe.card_text(results | {"golden": shown}))
    else:
        (folder / "card.md").write_text("One fold's network, to check the figures of the card with. Not for use.\n")
    manifest.write(folder, describe.content(results, table, outputs, version))
    return shown


def validation_folders(options: argparse.Namespace, labels: fundus.Labels, results: dict, make_bundle) -> None:
    """For each fold: its held-out photographs as they came, labels.csv, and its own bundle."""
    with zipfile.ZipFile(options.data_sets / "idrid-512" / "images.zip") as archive:
        for number, (_, held_out) in enumerate(folds(labels)):
            folder = options.work / "validation" / f"fold{number}"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            lines = ["file,label"]
            for index in held_out:
                name = Path(labels.names[index]).name
                (folder / "images" / name).write_bytes(archive.read(labels.names[index]))
                lines.append(f"{name},{labels.dr_grade[index]}")
            (folder / "labels.csv").write_text("\n".join(lines) + "\n")
            make_bundle(number, folder / "bundle")


def quality_limits(pictures: list[np.ndarray], other: np.ndarray, work: Path) -> dict[str, object]:
    """Plain limits beside the gate, past what any clean photograph shows, and what they alone refuse of spoilt ones.

    Light is what the gate judges worst in kinds that it has not seen, and what a plain number judges well.
    """
    path = work / "quality.json"
    if not path.exists():
        clean = [retina.quality(picture) for picture in tqdm(pictures, desc="quality")]
        spoilt = {
            kind: [retina.quality(spoil(p, np.random.default_rng([SEED, i]))) for i, p in enumerate(pictures[::14])]
            for kind, (_, spoil) in tqdm(KINDS.items(), desc="quality, spoilt")
        }
        path.write_text(json.dumps({"clean": clean, "spoilt": spoilt}))
    known = json.loads(path.read_text())
    column = {name: np.array([n[name] for n in known["clean"]]) for name in known["clean"][0]}
    limits = {
        "exposure_min": float(np.floor(column["exposure"].min() * 0.85 * 100) / 100),
        "exposure_max": float(np.ceil(column["exposure"].max() * 1.15 * 100) / 100),
        "clipped_max": float(np.ceil(column["clipped"].max() * 1.35 * 100) / 100),
        "field_min": 0.75,
    }

    def refused(numbers: dict[str, float]) -> bool:
        return not (
            limits["exposure_min"] <= numbers["exposure"] <= limits["exposure_max"]
            and numbers["clipped"] <= limits["clipped_max"]
            and numbers["field"] >= limits["field_min"]
        )

    return {
        "limits": limits,
        "least_median_greatest": {n: np.quantile(v, (0, 0.5, 1)).tolist() for n, v in column.items()},
        "clean_refused": float(np.mean([refused(n) for n in known["clean"]])),
        "finder_or_limits_refuse": {
            kind: float(np.mean([one is None or refused(one) for one in numbers]))
            for kind, numbers in known["spoilt"].items()
        },
        "other_camera": retina.quality(other),
    }


def gate_results(work: Path, int8: dict) -> dict:
    """What gate.py found, and what the folds' INT8 networks say of their held-out photographs."""
    found = json.loads((work / "gate.json").read_text())
    fit = figures.softmax(int8["gate"] / found["temperature"])[:, 0]
    served = {"clean_refused": float((fit < found["threshold"]).mean()), "clean_least_fit": float(fit.min())}
    return found | {"out_of_fold_int8": served}


def production(work: Path, labels: fundus.Labels, probability: np.ndarray) -> dict | None:
    """What `foveactl models eval` said of the folds (`WORK/validation/fold?/eval.json`), beside Python's answers."""
    paths = sorted((work / "validation").glob("fold*/eval.json"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    cases = {line["file"]: line for line in lines if "file" in line}
    rows = [(i, cases.get(Path(name).name)) for i, name in enumerate(labels.names)]
    if any(case is None for _, case in rows):
        return None
    answered = [(i, case) for i, case in rows if case["outcome"] == "finding"]
    index = np.array([i for i, _ in answered])
    told = np.array([case["probability"] for _, case in answered])
    level = np.array([case["level"] for _, case in answered])
    delta = np.abs(told - probability[index])
    return {
        "answered": len(answered),
        "ungradable": len(rows) - len(answered),
        "auc": figures.auc(labels.referable[index], told),
        "auc_95": figures.interval(figures.auc, labels.referable[index], told),
        "kappa": figures.quadratic_kappa(labels.dr_grade[index], level, evaluate.GRADES),
        "delta_mean": float(delta.mean()),
        "delta_max": float(delta.max()),
    }


def build(options: argparse.Namespace) -> None:
    """Trained parts -> bundle and results."""
    work, data = options.work, options.data_sets / "idrid-512"
    pictures, labels = fundus.load(data)
    other = fundus.decode_rgb(options.other_camera.read_bytes())
    squares = np.stack([fundus.plain(retina.square(p), None).picture for p in tqdm(pictures, desc="squares")])
    exact, small, parts = dict(np.load(work / "oof.npz")), out_of_fold(work, squares, labels), folds(labels)
    store = Store(work, "r")
    masks = {i: np.asarray(m[0]) for i, m in enumerate(store.maps) if not np.isnan(m[0]).any()}
    fp32, int8 = exact["logits"].astype(np.float64), small["referable"][:, 0]
    results: dict[str, object] = {
        "version": options.version,
        "seed": SEED,
        **export.versions(),
        "training": json.loads((work / "training.json").read_text())
        | {"core_minutes": sum(int(p.read_text()) for p in work.glob("*.seconds")) / 60},
        "data": {
            "photographs": len(pictures),
            "grades": np.bincount(labels.dr_grade, minlength=5).tolist(),
            "dme_risks": np.bincount(labels.dme_risk, minlength=3).tolist(),
            "with_lesion_masks": len(masks),
        },
        "referable": evaluate.referable(fp32[:, 1], int8, exact["views"][..., 1], labels, parts),
        "grade": evaluate.grades(fp32[:, :4], small["grade"], labels, parts),
        "lesions": evaluate.lesions(exact["maps"], masks, labels),
        "lesions_int8": evaluate.lesions(small["lesions"][:, 0], masks, labels),
        "colour_alone_auc": evaluate.colour_alone(list(squares), labels, parts, SEED),
        "gate": gate_results(work, small),
        "quality": quality_limits(pictures, other, work),
    }
    guess = evaluate.graded(small["grade"], labels, parts)
    results["subgroups"] = evaluate.subgroups(int8, guess, results["referable"], labels)
    results["production"] = production(work, labels, figures.sigmoid(int8 / results["referable"]["temperature"]))
    net = served(work, "final", "gate-final")
    xml = quantised(work, net, squares, np.arange(len(squares)), "final")
    exact_runner = export.Runner(export.to_ir(net, SHAPE, list(Served.OUTPUTS)))
    runner, inputs = export.Runner(xml), golden_candidates(other)
    results["cost"] = {
        "operations": export.operations(ov.Core().read_model(xml)),
        "int8_ms_1_thread": runner.median_ms(tensor(inputs[0])),
        "fp32_ms_1_thread": exact_runner.median_ms(tensor(inputs[0])),
        "weights_mb": xml.with_suffix(".bin").stat().st_size / 1e6,
    }
    seen = tensor(inputs[0])
    results["other_camera"] = {
        name: {
            "probability": float(figures.sigmoid(answer["referable"] / results["referable"]["temperature"]).item()),
            "fit": float(figures.softmax(answer["gate"] / results["gate"]["temperature"])[0, 0]),
        }
        for name, answer in (("fp32", exact_runner.run(seen)), ("int8", runner.run(seen)))
    }
    results["golden"] = assemble(options.bundle, xml, net, inputs, results, options.version)

    def fold_bundle(number: int, folder: Path) -> None:
        its_net = served(work, f"fold{number}", f"gate{number}")
        its_xml = work / "int8" / f"fold{number}.xml"
        assemble(folder, its_xml, its_net, inputs, results, f"{options.version}-fold.{number}")

    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    brief = {k: results[k] for k in ("referable", "grade", "lesions", "golden", "cost", "subgroups")}
    print(json.dumps(brief, indent=1))
    if options.validation:
        validation_folders(options, labels, results, fold_bundle)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=Path, required=True, help="folder above the data sets")
    parser.add_argument("--other-camera", type=Path, required=True, help="the CC0 photograph retina.jpg")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "bundle")
    parser.add_argument("--version", default="2.0.0")
    parser.add_argument("--no-validation", dest="validation", action="store_false", help="no folders for models eval")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    build(options)


if __name__ == "__main__":
    main()
