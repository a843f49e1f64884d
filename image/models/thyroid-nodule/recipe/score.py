"""Scores what the six networks say: out of fold by patient, FP32 beside INT8, on the pictures as the appliance makes them.

In: the work folder of heads.py and export.py's IR files. Out: the nested figures of results.json.
Promise: every frame is scored by a network that saw nothing of its patient; a temperature is fitted without the
fold it is counted on where a figure says "honest".
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

import frames as fr
from common import figures
from network import REASONS
from train import full_size

MASK_THRESHOLD = 0.62
"""From this probability on a place is nodule. At one half outlines come out a little wide, in INT8 more than in FP32."""

AREA_MIN_SHARE = 0.004
"""Regions below this share of the tensor's area are dropped: a nodule of a tenth of the field's side is twice as large."""

MASK_LEVEL = float(np.log(MASK_THRESHOLD / (1 - MASK_THRESHOLD)))
"""The same as a logit."""

GATE_MOST = 0.6
"""Greatest threshold of the gate: it was set on one hospital, and others must pass too."""

GATE_PASS = 0.995
"""Share of clean frames that the gate is set to let pass, out of fold."""


@dataclass
class Answers:
    """Raw answers for all frames, each from the network that had not seen its patient."""

    masks: np.ndarray
    """N x MASK_PX x MASK_PX logits."""
    moved: np.ndarray
    """The same of `moved_view`s."""
    suspicious: np.ndarray
    """N logits, before the temperature."""
    gate: np.ndarray
    """N x 4 logits."""
    folds: list[np.ndarray]
    """Held-out rows of each fold that has been trained; other rows of the arrays hold nothing."""

    @property
    def scored(self) -> np.ndarray:
        """Whether a row was held out of a trained fold."""
        return np.isin(np.arange(len(self.masks)), np.concatenate(self.folds))


def regions(logits: np.ndarray, side: int) -> np.ndarray:
    """The mask as told: at the frame's size, without regions that are too small."""
    shape = full_size(logits, side, MASK_LEVEL).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(shape)
    small = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] < AREA_MIN_SHARE * side * side]
    shape[np.isin(parts, small)] = 0
    return shape


def truth_of_moved(data: fr.Frames, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The moved view of a frame, the same in every run, and where its nodule is (MASK_PX, 0 or 1)."""
    rng = np.random.default_rng([fr.SEED, 9, row])
    picture, share = fr.moved_view(data.pictures[row], data.masks[row], rng)
    return picture, (share > 0.5).astype(np.uint8)


def overlaps(data: fr.Frames, said: Answers) -> dict[str, np.ndarray]:
    """Dice and IoU of each frame, plain and moved; NaN where no nodule is marked."""
    out = {name: np.full(len(data.names), np.nan) for name in ("dice", "iou", "moved_dice")}
    for row in np.flatnonzero(data.marked & said.scored):
        found = regions(said.masks[row], len(data.masks[row]))
        out["dice"][row] = figures.dice(data.masks[row], found)
        out["iou"][row] = figures.iou(data.masks[row], found)
        truth = truth_of_moved(data, row)[1]
        if truth.any():
            out["moved_dice"][row] = figures.dice(truth, said.moved[row] > MASK_LEVEL)
    return out


def blob(data: fr.Frames) -> dict[str, float]:
    """What a mask scores that never looks at the picture: where most nodules of the training part lie."""
    plain, moved = np.full(len(data.names), np.nan), np.full(len(data.names), np.nan)
    for train, held_out in fr.folds(data):
        usual = np.mean([data.masks[r] for r in train], axis=0) > 0.5
        small = cv2.resize(usual.astype(np.uint8), (fr.MASK_PX, fr.MASK_PX), interpolation=cv2.INTER_NEAREST)
        for row in held_out[data.marked[held_out]]:
            plain[row] = figures.dice(data.masks[row], usual)
            truth = truth_of_moved(data, row)[1]
            if truth.any():
                moved[row] = figures.dice(truth, small)
    return {"dice": float(np.nanmean(plain)), "moved_dice": float(np.nanmean(moved))}


def segmentation(data: fr.Frames, fp32: Answers, int8: Answers) -> dict[str, object]:
    """Overlap in both precisions."""
    scored = {"fp32": overlaps(data, fp32), "int8": overlaps(data, int8)}
    marked = data.marked & int8.scored
    out: dict[str, object] = {"marked": int(marked.sum()), "blob": blob(data)}
    for precision, columns in scored.items():
        out[precision] = {name: float(np.nanmean(values)) for name, values in columns.items()}
        for name, values in columns.items():
            kept = ~np.isnan(values)
            out[precision][f"{name}_95"] = figures.interval(np.mean, values[kept], groups=data.patients[kept])
    for name in ("dice", "iou"):
        gap = (scored["int8"][name] - scored["fp32"][name])[marked]
        out[f"int8_minus_fp32_{name}"] = float(gap.mean())
        out[f"int8_minus_fp32_{name}_95"] = figures.interval(np.mean, gap, groups=data.patients[marked])
    dice = scored["int8"]["dice"]
    out["by_fold"] = [float(np.nanmean(dice[held_out])) for held_out in int8.folds]
    out["by_tirads"] = {
        (grade or "not stated"): _subgroup(dice, data, np.array([t == grade for t in data.tirads]))
        for grade in ("2", "3", "4a", "4b", "4c", "5", "")
    }
    areas = np.array([m.mean() for m in data.masks])
    edges = np.quantile(areas[data.marked], [1 / 3, 2 / 3])
    cuts = {"small": areas < edges[0], "middle": (areas >= edges[0]) & (areas < edges[1]), "large": areas >= edges[1]}
    out["by_size"] = {name: _subgroup(dice, data, cut & marked) for name, cut in cuts.items()}
    out["below_half"] = float((dice[marked] < 0.5).mean())
    out["below_07"] = float((dice[marked] < 0.7).mean())
    out["worst"] = [[data.names[r], round(float(dice[r]), 3)] for r in np.argsort(np.nan_to_num(dice, nan=2))[:10]]
    empty = np.flatnonzero(~data.marked & int8.scored)
    out["unmarked"] = len(empty)
    out["unmarked_with_region"] = int(sum(regions(int8.masks[r], 300).any() for r in empty))
    return out


def _subgroup(values: np.ndarray, data: fr.Frames, rows: np.ndarray) -> dict[str, object]:
    kept = rows & ~np.isnan(values)
    span = figures.interval(np.mean, values[kept], groups=data.patients[kept], draws=1000)
    return {"frames": int(kept.sum()), "dice": float(values[kept].mean()), "dice_95": span}


# Suspicion


def suspicion(data: fr.Frames, fp32_said: Answers, int8_said: Answers) -> dict[str, object]:
    """The weak head: AUC, calibration before and after, bands. What is served is INT8, so INT8 answers set the temperature."""
    fp32, int8 = fp32_said.suspicious, int8_said.suspicious
    known = np.flatnonzero((data.suspicious >= 0) & int8_said.scored)
    truth, patients = data.suspicious[known], data.patients[known]
    temperature = round(figures.fit_temperature(int8[known], truth), 3)
    held_out = [np.flatnonzero(np.isin(known, rows)) for rows in int8_said.folds]
    honest = {name: figures.honest_probability(z[known], truth, held_out) for name, z in (("fp32", fp32), ("int8", int8))}
    served = figures.sigmoid(int8[known] / temperature)
    chosen = figures.band_thresholds(truth, served, [(0.95, 0.90), (0.90, 0.90), (0.90, 0.80), (0.85, 0.75)])
    out = {
        "labelled": len(known),
        "suspicious": int(truth.sum()),
        "temperature": temperature,
        "ece_before": figures.ece(figures.sigmoid(fp32[known]), truth),
        "ece_before_int8": figures.ece(figures.sigmoid(int8[known]), truth),
        "ece_honest": figures.ece(honest["fp32"], truth),
        "ece_honest_int8": figures.ece(honest["int8"], truth),
        "ece_width_honest_int8": figures.ece_by_width(honest["int8"], truth),
        "ece_served_int8": figures.ece(served, truth),
        "ece_of_perfect": perfect(served),
        "targets": {name: value for name, value in chosen.items() if name.endswith("target")},
        "clear_below": figures.at_threshold(truth, served, chosen["clear_below"]),
        "significant_from": figures.at_threshold(truth, served, chosen["significant_from"]),
    }
    for name, logits in (("fp32", fp32), ("int8", int8)):
        out[f"auc_{name}"] = figures.auc(truth, logits[known])
        out[f"auc_{name}_95"] = figures.interval(figures.auc, truth, logits[known], groups=patients)
    both = (truth, fp32[known], int8[known])
    out["int8_minus_fp32_auc"] = out["auc_int8"] - out["auc_fp32"]
    out["int8_minus_fp32_auc_95"] = figures.interval(lambda t, a, b: figures.auc(t, b) - figures.auc(t, a), *both, groups=patients)
    shares = np.bincount(figures.bands(served, chosen["clear_below"], chosen["significant_from"]), minlength=3)
    out["band_shares"] = dict(zip(("clear", "ambiguous", "significant"), (shares / len(known)).tolist(), strict=True))
    out["significant_by_tirads"] = {
        grade: float((served[np.array([data.tirads[r] == grade for r in known])] >= chosen["significant_from"]).mean())
        for grade in ("2", "3", "4a", "4b", "4c", "5")
    }
    out["delta_mean"] = float(np.abs(served - figures.sigmoid(fp32[known] / temperature)).mean())
    return out


def perfect(probability: np.ndarray, draws: int = 400) -> float:
    """Mean calibration error of answers that are drawn to be right: what the number of frames alone makes of it."""
    rng = np.random.default_rng(fr.SEED)
    return float(np.mean([figures.ece(probability, rng.random(len(probability)) < probability) for _ in range(draws)]))


# Gate


def gate(clean: np.ndarray, others: dict[str, tuple[np.ndarray, np.ndarray]], unseen: dict, views: np.ndarray) -> dict:
    """Threshold, share of frames that pass, share of other pictures that are refused or get a finding, by kind.

    `clean`: N x 4 logits of frames, out of fold; `others`: kind -> (logits, whether a region is found), both INT8 of the
    served network; `unseen`: the same of gates that were never taught the kind; `views`: logits of augmented frames.
    """
    fit = figures.softmax(clean)[:, 0]
    threshold = round(float(np.clip(np.floor(np.quantile(fit, 1 - GATE_PASS) * 100) / 100, 0.05, GATE_MOST)), 2)
    out: dict[str, object] = {
        "threshold": threshold,
        "pass": float((fit >= threshold).mean()),
        "pass_augmented": float((figures.softmax(views)[:, 0] >= threshold).mean()),
    }
    for name, kinds in (("taught", others), ("unseen", unseen)):
        out[name] = {}
        for kind, (logits, found) in kinds.items():
            passed = figures.softmax(logits)[:, 0] >= threshold
            reason = np.argmax(logits[:, 1:], axis=1)
            out[name][kind] = {
                "pictures": len(passed),
                "passed": int(passed.sum()),
                "findings": int((passed & found).sum()),
                "reason": REASONS[int(np.bincount(reason, minlength=len(REASONS)).argmax())],
            }
        total = sum(k["pictures"] for k in out[name].values())
        for what in ("passed", "findings"):
            out[f"{name}_{what}"] = sum(k[what] for k in out[name].values()) / max(1, total)
    return out
