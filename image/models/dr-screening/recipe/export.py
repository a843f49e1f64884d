"""Turns the trained network into the bundle: INT8 IR, calibration, thresholds, golden vectors, figures, card.

In: the work folder of train.py and quality.py, the data folder, one CC0 photograph for the golden inputs.
Out: the bundle folder without its signature (sign.py adds that) and results.json beside this file.
Promise: every figure in the card comes from results.json; no picture of the data set enters the bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from pathlib import Path
from string import Template

import nncf
import numpy as np
import openvino as ov
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import cross_val_predict
from tqdm import tqdm

import fundus
from network import EyeNet, Referable
from train import BATCH, FOLDS, SEED, VIEWS, folds

HERE = Path(__file__).resolve().parent
CALIBRATION_PHOTOS = 200
TENSOR_SHAPE = [1, 3, fundus.SIDE_PX, fundus.SIDE_PX]
GOLDEN_TOLERANCE = 0.03
TARGETS = [(0.95, 0.90), (0.96, 0.92), (0.97, 0.94), (0.98, 0.95), (0.99, 0.97)]
"""(sensitivity at clear_below, specificity at significant_from), the mildest first."""


# Conversion


def load_net(path: Path | None) -> Referable:
    """The one-logit network from trained weights, or an untrained head for a provisional bundle."""
    torch.manual_seed(SEED)
    net = EyeNet()
    if path is not None:
        net.load_state_dict(torch.load(path, weights_only=True))
    return Referable(net.eval()).eval()


def to_ir(net: Referable) -> ov.Model:
    """FP32 IR, static shape, tensors named `image` and `logit`."""
    model = ov.convert_model(net, example_input=torch.zeros(TENSOR_SHAPE), input=[("image", TENSOR_SHAPE)])
    model.inputs[0].get_tensor().set_names({"image"})
    model.outputs[0].get_tensor().set_names({"logit"})
    model.reshape({"image": TENSOR_SHAPE})
    return model


def to_int8(model: ov.Model, calibration: np.ndarray) -> ov.Model:
    """Post-training quantisation: symmetric weights and activations, per-tensor where hardware wants it."""
    data = nncf.Dataset([fundus.tensor(picture)[None] for picture in calibration])
    # The slow bias correction: with the fast one the served network strayed three times as far from FP32.
    return nncf.quantize(
        model,
        data,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(calibration),
        fast_bias_correction=False,
    )


class Runner:
    """Runs a model one picture at a time, as the appliance does."""

    def __init__(self, model: ov.Model) -> None:
        """Compiles for the CPU with one thread."""
        exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        self.request = ov.Core().compile_model(model, "CPU", exact).create_infer_request()

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """One logit per picture (N x rows x columns x 3, u8)."""
        return np.array([self.request.infer([fundus.tensor(p)[None]])[0].item() for p in pictures])

    def median_ms(self, picture: np.ndarray, runs: int = 50) -> float:
        """Median time of one inference on one thread."""
        x, times = fundus.tensor(picture)[None], []
        for _ in range(runs):
            start = time.perf_counter()
            self.request.infer([x])
            times.append(time.perf_counter() - start)
        return float(np.median(times) * 1000)


# Figures


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def likelihood_cost(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    """Mean negative log likelihood."""
    z = logits / temperature
    return float(np.mean(np.logaddexp(0, z) - truth * z))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The one number that makes the probabilities most likely."""
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 2001))
    return float(grid[np.argmin([likelihood_cost(logits, truth, t) for t in grid])])


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over bins of equal count."""
    parts = np.array_split(np.argsort(probability), bins)
    return float(sum(len(p) * abs(probability[p].mean() - truth[p].mean()) for p in parts) / len(truth))


def interval(score, truth: np.ndarray, *columns: np.ndarray, draws: int = 4000) -> list[float]:
    """95 % bootstrap interval over photographs."""
    rng, values = np.random.default_rng(SEED), []
    while len(values) < draws:
        pick = rng.integers(0, len(truth), len(truth))
        if 0 < truth[pick].sum() < len(truth):
            values.append(score(truth[pick], *(c[pick] for c in columns)))
    return [float(v) for v in np.quantile(values, (0.025, 0.975))]


def at_threshold(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, object]:
    """Sensitivity and specificity with intervals when `probability >= threshold` calls for referral."""

    def sensitivity(t: np.ndarray, p: np.ndarray) -> float:
        return float((p[t == 1] >= threshold).mean())

    def specificity(t: np.ndarray, p: np.ndarray) -> float:
        return float((p[t == 0] < threshold).mean())

    return {
        "threshold": threshold,
        "sensitivity": sensitivity(truth, probability),
        "sensitivity_95": interval(sensitivity, truth, probability),
        "specificity": specificity(truth, probability),
        "specificity_95": interval(specificity, truth, probability),
    }


def thresholds(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """`clear_below` and `significant_from`, to two digits on the safe side, and the targets they were chosen for.

    The targets start at sensitivity 0.95 for clear and specificity 0.90 for significant. Where the classes part so well
    that both hold at one threshold, the targets rise until a tenth of the scale lies between, for the doubtful.
    """
    hits, healthy = np.sort(probability[truth == 1]), np.sort(probability[truth == 0])
    for sensitivity, specificity in TARGETS:
        clear = np.floor(hits[int(np.floor((1 - sensitivity) * len(hits)))] * 100) / 100
        significant = np.ceil(healthy[int(np.ceil(specificity * len(healthy))) - 1] * 100 + 1e-9) / 100
        if significant - clear >= 0.1:
            break
    return {
        "clear_below": float(max(clear, 0.01)),
        "significant_from": float(min(max(significant, clear + 0.1), 0.99)),
        "sensitivity_target": sensitivity,
        "specificity_target": specificity,
    }


def bands(probability: np.ndarray, clear: float, significant: float) -> np.ndarray:
    """0 clear, 1 ambiguous, 2 significant."""
    return (probability >= clear).astype(int) + (probability >= significant)


def int8_out_of_fold(work: Path, squares: np.ndarray, labels: fundus.Labels) -> np.ndarray:
    """Logits of each fold's INT8 network on its held-out photographs, calibrated on its own training part."""
    path = work / "oof-int8.npy"
    out = np.load(path) if path.exists() else np.full(len(squares), np.nan)
    for number, (train, held_out) in enumerate(tqdm(folds(labels), desc="INT8 folds")):
        if np.isnan(out[held_out]).any():
            picked = np.random.default_rng([SEED, number]).choice(train, CALIBRATION_PHOTOS, replace=False)
            model = to_int8(to_ir(load_net(work / f"fold{number}.pt")), squares[picked])
            out[held_out] = Runner(model).logits(squares[held_out])
            np.save(path, out)
    return out


def figures(work: Path, squares: np.ndarray, labels: fundus.Labels) -> dict[str, object]:
    """Cross-validated figures in FP32 and INT8, temperature and thresholds."""
    truth, logits = labels.referable, np.load(work / "oof.npz")["logits"].astype(np.float64)
    temperature = round(fit_temperature(logits, truth), 3)
    # The error after calibration is counted with temperatures fitted without the fold they are used on.
    honest = np.empty_like(logits)
    for _, held_out in folds(labels):
        rest = np.setdiff1d(np.arange(len(truth)), held_out)
        honest[held_out] = sigmoid(logits[held_out] / fit_temperature(logits[rest], truth[rest]))
    probability = sigmoid(logits / temperature)
    chosen = thresholds(truth, probability)
    clear, significant = chosen["clear_below"], chosen["significant_from"]
    quantised = sigmoid(int8_out_of_fold(work, squares, labels) / temperature)
    delta = np.abs(quantised - probability)
    by_grade = {
        str(g): float((bands(probability, clear, significant)[labels.dr_grade == g] == 2).mean()) for g in range(5)
    }
    shares = np.bincount(bands(probability, clear, significant), minlength=3) / len(truth)
    views = np.load(work / "oof.npz")["views"]
    return {
        "photographs": len(truth),
        "grades": np.bincount(labels.dr_grade, minlength=5).tolist(),
        "colour_alone_auc": colour_alone(squares, labels),
        "auc_on_views": float(np.mean([roc_auc_score(truth, v) for v in views])),
        "referable": int(truth.sum()),
        "auc": float(roc_auc_score(truth, logits)),
        "auc_95": interval(roc_auc_score, truth, logits),
        "auc_by_fold": [float(roc_auc_score(truth[h], logits[h])) for _, h in folds(labels)],
        "auc_grade_0_against_2_to_4": float(roc_auc_score(truth[labels.dr_grade != 1], logits[labels.dr_grade != 1])),
        "temperature": temperature,
        "ece_before": calibration_error(sigmoid(logits), truth),
        "ece_after": calibration_error(honest, truth),
        "nll_before": likelihood_cost(logits, truth, 1.0),
        "nll_after": likelihood_cost(logits, truth, temperature),
        "targets": {name: value for name, value in chosen.items() if name.endswith("target")},
        "clear_below": at_threshold(truth, probability, clear),
        "significant_from": at_threshold(truth, probability, significant),
        "at_half": at_threshold(truth, probability, 0.5),
        "sensitivity_at_specificity_90": _sensitivity_at(truth, logits, 0.90),
        "band_shares": {n: float(s) for n, s in zip(("clear", "ambiguous", "significant"), shares, strict=True)},
        "significant_by_grade": by_grade,
        "int8_auc": float(roc_auc_score(truth, quantised)),
        "int8_auc_95": interval(roc_auc_score, truth, quantised),
        "int8_auc_minus_fp32_95": interval(
            lambda t, q, p: roc_auc_score(t, q) - roc_auc_score(t, p), truth, quantised, probability
        ),
        "int8_probability_delta_mean": float(delta.mean()),
        "int8_probability_delta_99": float(np.quantile(delta, 0.99)),
        "int8_probability_delta_max": float(delta.max()),
        "int8_same_band": float(
            (bands(quantised, clear, significant) == bands(probability, clear, significant)).mean()
        ),
        "int8_clear_below": at_threshold(truth, quantised, clear),
        "int8_significant_from": at_threshold(truth, quantised, significant),
    }


def colour_alone(squares: np.ndarray, labels: fundus.Labels) -> float:
    """AUC of a forest that sees only mean and spread of each channel: what this data gives away."""
    inside = [s[s.max(axis=2) > 20].astype(np.float64) for s in squares]
    columns = np.array([np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]) for pixels in inside])
    forest = RandomForestClassifier(300, random_state=SEED)
    guess = cross_val_predict(forest, columns, labels.referable, cv=folds(labels), method="predict_proba")
    return float(roc_auc_score(labels.referable, guess[:, 1]))


def _sensitivity_at(truth: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    false_share, true_share, _ = roc_curve(truth, scores)
    return float(true_share[false_share <= 1 - specificity].max())


# Golden vectors


def golden_inputs(rgb: np.ndarray) -> np.ndarray:
    """Six inputs made from one CC0 photograph alone: as it is, mirrored and dim, cropped, with drawn spots."""
    whole = fundus.to_u8(fundus.area_resize(fundus.retina_square(rgb), fundus.SIDE_PX))
    side = rgb.shape[0]
    inner = rgb[side // 5 : -side // 5, side // 5 : -side // 5]
    crop = fundus.to_u8(fundus.area_resize(inner, fundus.SIDE_PX))
    dim = fundus.to_u8(whole[:, ::-1] * np.array([0.75, 0.6, 0.4]))
    return np.stack([whole, with_lesions(dim, 12), crop, dim, with_lesions(whole, 60), with_lesions(whole, 25)])


def with_lesions(picture: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` dark and bright soft spots: not a disease, only a reason for the network to answer otherwise."""
    rng = np.random.default_rng([SEED, count])
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    out = picture.astype(np.float32)
    for spot in range(count):
        row, column = rng.uniform(0.25, 0.75, 2) * picture.shape[0]
        reach = rng.uniform(1.5, 4.5)
        share = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))[..., None]
        colour = np.array([235, 215, 110]) if spot % 2 else np.array([95, 20, 15])
        out = out * (1 - 0.85 * share) + 0.85 * share * colour
    return fundus.to_u8(out)


# Bundle


def strip_machine_facts(xml: Path) -> None:
    """Removes what names this machine from the IR: paths, and the conversion call."""
    text = xml.read_text()
    text = re.sub(r"\s*<conversion_parameters>.*?</conversion_parameters>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<(\w+) value=\"/[^\"]*\" ?/>", "", text)
    for fact in ("/tmp", "/home", "/root", "site-packages"):
        if fact in text:
            raise SystemExit(f"{xml.name} still names {fact}")
    xml.write_text(text)


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(results: dict, golden: np.ndarray, expected: np.ndarray, bundle: Path) -> str:
    """The text of bundle.toml."""
    hashes = "\n".join(
        f'"{name}" = "{digest(bundle / name)}"' for name in ("model.xml", "model.bin", "golden/inputs.bin", "card.md")
    )
    cv, limits = results["cross_validation"], results["quality"]["limits"]
    fields = {
        "side": fundus.SIDE_PX,
        "mean": [float(f"{v:.3f}") for v in fundus.MEAN],
        "std": [float(f"{v:.3f}") for v in fundus.STD],
        "limits": "\n".join(f"{name} = {value}" for name, value in limits.items()),
        "temperature": float(cv["temperature"]),
        "clear_below": cv["clear_below"]["threshold"],
        "significant_from": cv["significant_from"]["threshold"],
        "count": len(golden),
        "expected": [round(float(p), 6) for p in expected],
        "tolerance": results["golden"]["tolerance_abs"],
        "version": results["version"],
        "hashes": hashes,
    }
    return Template((HERE / "bundle.template.toml").read_text()).substitute(fields)


def flatten(value: object, prefix: str = "") -> dict[str, str]:
    """Nested results -> names for the card's template: percentages as `name_pc`, numbers to three digits as `name`."""
    out: dict[str, str] = {}
    if isinstance(value, dict):
        for key, inner in value.items():
            out |= flatten(inner, f"{prefix}_{_plain(key)}" if prefix else _plain(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            out |= flatten(inner, f"{prefix}_{index}")
    elif isinstance(value, float):
        out[prefix], out[f"{prefix}_pc"] = f"{value:.3f}", f"{100 * value:.1f}"
    else:
        out[prefix] = str(value)
    return out


def _plain(key: str) -> str:
    return re.sub(r"\W+", "_", key).strip("_")


def card(results: dict) -> str:
    """The card, every figure from `results`."""
    rows = "\n".join(
        f"| {name} | {100 * share:.0f} % | {'yes' if results['quality']['other_camera_rejected'][name] else 'no'} |"
        for name, share in results["quality"]["rejected_by_degradation"].items()
    )
    cv = results["cross_validation"]
    fields = flatten(results) | {
        "degradation_rows": rows,
        "prevalence_pc": f"{100 * cv['referable'] / cv['photographs']:.0f}",
        "training_peak_rate": str(results["training"]["peak_rate"]),
        **{f"cross_validation_{t}_threshold": f"{cv[t]['threshold']:.2f}" for t in ("clear_below", "significant_from")},
        **{f"quality_limits_{name}": f"{value:g}" for name, value in results["quality"]["limits"].items()},
    }
    return Template((HERE / "card.template.md").read_text()).substitute(fields)


def build(options: argparse.Namespace) -> None:
    """Final network -> bundle and results."""
    bundle, work = options.bundle, options.work
    (bundle / "golden").mkdir(parents=True, exist_ok=True)
    pictures, labels = fundus.load(options.data)
    squares = np.stack(
        [fundus.to_u8(fundus.area_resize(fundus.retina_square(p), fundus.SIDE_PX)) for p in tqdm(pictures)]
    )
    net = load_net(work / "final.pt")
    picked = np.random.default_rng(SEED).choice(len(squares), CALIBRATION_PHOTOS, replace=False)
    exact, small = to_ir(net), to_int8(to_ir(net), squares[picked])
    ov.save_model(small, bundle / "model.xml", compress_to_fp16=False)
    strip_machine_facts(bundle / "model.xml")

    golden = golden_inputs(fundus.decode_rgb(options.other_camera.read_bytes()))
    (bundle / "golden" / "inputs.bin").write_bytes(golden.tobytes())
    results = {
        "version": options.version,
        "seed": SEED,
        "views": VIEWS,
        "batch": BATCH,
        "folds": FOLDS,
        "openvino": ov.__version__.split("-")[0],
        "nncf": nncf.__version__,
        "torch": torch.__version__.split("+")[0],
        "training": json.loads((work / "training.json").read_text()),
        "cross_validation": figures(work, squares, labels),
        "quality": _quality(work),
    }
    temperature = results["cross_validation"]["temperature"]
    fp32, int8 = Runner(exact), Runner(ov.Core().read_model(bundle / "model.xml"))
    with torch.no_grad():
        tensors = torch.from_numpy(np.stack([fundus.tensor(p) for p in golden]))
        expected = sigmoid(net(tensors)[:, 0].numpy() / temperature)
    served = sigmoid(int8.logits(golden) / temperature)
    results["golden"] = {
        "fp32": [float(p) for p in expected],
        "int8": [float(p) for p in served],
        "int8_minus_fp32_max": float(np.abs(served - expected).max()),
        "ir_minus_torch_max": float(np.abs(sigmoid(fp32.logits(golden) / temperature) - expected).max()),
        "tolerance_abs": max(GOLDEN_TOLERANCE, round(1.5 * float(np.abs(served - expected).max()), 3)),
    }
    results["cost"] = {
        "operations": sum(1 for _ in small.get_ops()),
        "int8_ms_1_thread": int8.median_ms(golden[0]),
        "fp32_ms_1_thread": fp32.median_ms(golden[0]),
        "model_bin_mb": (bundle / "model.bin").stat().st_size / 1e6,
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (bundle / "card.md").write_text(card(results))
    (bundle / "bundle.toml").write_text(manifest(results, golden, expected, bundle))
    (bundle / "bundle.sig").unlink(missing_ok=True)
    print(json.dumps({k: results[k] for k in ("cross_validation", "golden", "cost")}, indent=1))


def _quality(work: Path) -> dict:
    """What quality.py found, without the single numbers of each degraded copy."""
    found = json.loads((work / "quality.json").read_text())
    return {key: value for key, value in found.items() if key != "other_camera_degraded"}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other-camera", type=Path, required=True, help="the CC0 photograph retina.jpg")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "bundle")
    parser.add_argument("--version", default="1.0.0")
    build(parser.parse_args())


if __name__ == "__main__":
    main()
