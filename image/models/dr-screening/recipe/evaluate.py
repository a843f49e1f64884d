"""Figures of the eye model from out-of-fold answers, FP32 beside INT8.

In: labels, out-of-fold logits and maps, the folds. Out: nested numbers for results.json.
Promise: temperature and grade thresholds that a figure uses were fitted without the fold on which it is counted.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

import fundus
from common import figures
from common.figures import sigmoid

GRADES = 5
GRID = np.round(np.arange(0.06, 0.95, 0.02), 2)
LESION_SHARE_MIN = 0.01
"""Share of lesion pixels from which a field of the map counts as lesion."""

Folds = list[tuple[np.ndarray, np.ndarray]]


def grade_of(probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of leading levels that hold, as the appliance counts them."""
    return np.cumprod(probability >= np.asarray(thresholds), axis=1).sum(axis=1).astype(int)


def grade_probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Four ordinal logits -> probabilities that never rise with the level."""
    return np.minimum.accumulate(sigmoid(logits / temperature), axis=1)


def fit_thresholds(probability: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """Thresholds of the four levels for the best quadratic kappa, one after the other until none moves.

    Each goes to the middle of the values that come within 0.002 of the best: an edge would not carry over.
    """
    chosen = np.full(GRADES - 1, 0.5)
    for _ in range(6):
        before = chosen.copy()
        for level in range(GRADES - 1):
            tried = np.tile(chosen, (len(GRID), 1))
            tried[:, level] = GRID
            scores = [figures.quadratic_kappa(grades, grade_of(probability, t), GRADES) for t in tried]
            good = GRID[np.array(scores) >= max(scores) - 0.002]
            chosen[level] = round(float(np.median(good)), 2)
        if (before == chosen).all():
            break
    return chosen


def graded(logits: np.ndarray, labels: fundus.Labels, folds: Folds) -> np.ndarray:
    """Grades of held-out photographs; temperature and thresholds from the other folds' answers."""
    out = np.zeros(len(logits), int)
    levels = (labels.dr_grade[:, None] >= np.arange(1, GRADES)).astype(float)
    for _, held_out in folds:
        rest = np.setdiff1d(np.arange(len(logits)), held_out)
        temperature = figures.fit_temperature(logits[rest], levels[rest])
        thresholds = fit_thresholds(grade_probability(logits[rest], temperature), labels.dr_grade[rest])
        out[held_out] = grade_of(grade_probability(logits[held_out], temperature), thresholds)
    return out


def referable(fp32: np.ndarray, int8: np.ndarray, views: np.ndarray, labels: fundus.Labels, folds: Folds) -> dict:
    """The main answer. Temperature and bands are those of the INT8 network, which is the one that serves."""
    truth, held_out = labels.referable, [h for _, h in folds]
    temperature = round(figures.fit_temperature(int8, truth), 3)
    exact, served = sigmoid(fp32 / temperature), sigmoid(int8 / temperature)
    chosen = figures.band_thresholds(truth, served)
    clear, significant = chosen["clear_below"], chosen["significant_from"]
    honest = figures.honest_probability(fp32, truth, held_out)
    honest_int8 = figures.honest_probability(int8, truth, held_out)
    band, band_int8 = (figures.bands(p, clear, significant) for p in (exact, served))
    delta = np.abs(served - exact)
    return {
        "photographs": len(truth),
        "referable": int(truth.sum()),
        "temperature": temperature,
        **{name: chosen[name] for name in ("sensitivity_target", "specificity_target")},
        "clear_below": clear,
        "significant_from": significant,
        "fp32": _yes_no(truth, exact, honest, clear, significant),
        "int8": _yes_no(truth, served, honest_int8, clear, significant),
        "auc_by_fold": [figures.auc(truth[h], int8[h]) for h in held_out],
        "auc_on_views": float(np.mean([figures.auc(truth, v) for v in views])),
        "auc_grade_0_against_2_to_4": figures.auc(truth[labels.dr_grade != 1], int8[labels.dr_grade != 1]),
        "ece_before": figures.ece(sigmoid(int8), truth),
        "int8_minus_fp32": figures.auc(truth, int8) - figures.auc(truth, fp32),
        "int8_minus_fp32_95": figures.interval(
            lambda t, q, p: figures.auc(t, q) - figures.auc(t, p), truth, int8, fp32, draws=1000
        ),
        "delta_mean": float(delta.mean()),
        "delta_99": float(np.quantile(delta, 0.99)),
        "delta_max": float(delta.max()),
        "same_band": float((band == band_int8).mean()),
        "shares": {n: float((band_int8 == i).mean()) for i, n in enumerate(("clear", "ambiguous", "significant"))},
    }


def _yes_no(truth, probability, honest, clear: float, significant: float) -> dict:
    return {
        "auc": figures.auc(truth, probability),
        "auc_95": figures.interval(figures.auc, truth, probability),
        "ece": figures.ece(honest, truth),
        "ece_95": figures.interval(lambda p, t: figures.ece(p, t), honest, truth, draws=1000),
        "ece_equal_width": figures.ece_by_width(honest, truth),
        "not_clear": figures.at_threshold(truth, probability, clear),
        "significant": figures.at_threshold(truth, probability, significant),
        "half": figures.at_threshold(truth, probability, 0.5),
    }


def grades(fp32: np.ndarray, int8: np.ndarray, labels: fundus.Labels, folds: Folds) -> dict:
    """The grade, thresholds cross-fitted; and the ones that are served, fitted on all INT8 answers."""
    truth = labels.dr_grade
    levels = (truth[:, None] >= np.arange(1, GRADES)).astype(float)
    temperature = round(figures.fit_temperature(int8, levels), 3)
    served = fit_thresholds(grade_probability(int8, temperature), truth)

    def kappa(t: np.ndarray, g: np.ndarray) -> float:
        return figures.quadratic_kappa(t, g, GRADES)

    out: dict[str, object] = {"temperature": temperature, "thresholds": served.tolist()}
    guesses = {"fp32": graded(fp32, labels, folds), "int8": graded(int8, labels, folds)}
    for name, guess in guesses.items():
        out[name] = {
            "kappa": kappa(truth, guess),
            "kappa_95": figures.interval(kappa, truth, guess),
            "accuracy": figures.accuracy(truth, guess),
            "within_one": float((np.abs(truth - guess) <= 1).mean()),
            "confusion": figures.confusion(truth, guess, GRADES),
        }
    plain = grade_of(grade_probability(int8, temperature), np.full(4, 0.5))
    out["kappa_with_thresholds_at_half"] = kappa(truth, plain)
    out["int8_minus_fp32"] = out["int8"]["kappa"] - out["fp32"]["kappa"]
    return out


def subgroups(int8: np.ndarray, guess: np.ndarray, main: dict, labels: fundus.Labels) -> dict:
    """By grade and by oedema risk."""
    probability = sigmoid(int8 / main["temperature"])
    band = figures.bands(probability, main["clear_below"], main["significant_from"])
    out: dict[str, dict] = {"grade": {}, "dme_risk": {}}
    for name, column in (("grade", labels.dr_grade), ("dme_risk", labels.dme_risk)):
        for value in np.unique(column):
            mine = column == value
            truth = labels.referable[mine]
            out[name][str(value)] = {
                "photographs": int(mine.sum()),
                "clear": float((band[mine] == 0).mean()),
                "ambiguous": float((band[mine] == 1).mean()),
                "significant": float((band[mine] == 2).mean()),
                "auc": figures.auc(truth, probability[mine]) if 0 < truth.sum() < len(truth) else None,
                "mean_grade_error": float((guess[mine] - labels.dr_grade[mine]).mean()),
            }
    return out


def lesions(maps: np.ndarray, masks: dict[int, np.ndarray], labels: fundus.Labels) -> dict:
    """The map against the masks (share of lesion in each field), out of fold. `maps`: logits N x 28 x 28."""
    rows = sorted(masks)
    truth = np.stack([masks[i] >= LESION_SHARE_MIN for i in rows])
    drawn = sigmoid(maps)
    scores = [figures.dice(truth, drawn[rows] >= t) for t in GRID]
    threshold = float(GRID[int(np.argmax(scores))])
    hottest = [truth[k].ravel()[drawn[i].argmax()] for k, i in enumerate(rows)]
    each = np.array([figures.dice(t, drawn[i] >= threshold) for t, i in zip(truth, rows, strict=True)])
    marked = drawn[rows] >= threshold
    lit = (drawn >= threshold).any(axis=(1, 2))
    fields = np.array([figures.auc(t.ravel(), drawn[i].ravel()) for t, i in zip(truth, rows, strict=True)])
    return {
        "photographs_with_masks": len(rows),
        "threshold": threshold,
        "field_auc": float(fields.mean()),
        "field_auc_95": figures.interval(np.mean, fields),
        "hottest_field_holds_a_lesion": float(np.mean(hottest)),
        "dice": float(each.mean()),
        "dice_95": figures.interval(np.mean, each),
        "marked_fields_that_hold_lesion": float(truth[marked].mean()),
        "lesion_fields_marked": float(marked[truth].mean()),
        "lit_by_grade": {str(g): float(lit[labels.dr_grade == g].mean()) for g in range(GRADES)},
    }


def colour_alone(squares: list[np.ndarray], labels: fundus.Labels, folds: Folds, seed: int) -> float:
    """AUC of a forest that sees only mean and spread of each channel: what this data gives away."""
    inside = [s[s.max(axis=2) > 20].astype(np.float64) for s in squares]
    columns = np.array([np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]) for pixels in inside])
    forest = RandomForestClassifier(300, random_state=seed)
    guess = cross_val_predict(forest, columns, labels.referable, cv=folds, method="predict_proba")
    return figures.auc(labels.referable, guess[:, 1])
