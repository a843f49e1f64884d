"""Figures that cards report: calibration, intervals, thresholds, agreement, overlap.

In: truth and scores as numpy arrays. Out: plain numbers.
Promise: seeded, and the same definitions for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SEED = 20260411
"""Of bootstrap draws."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(x, np.float64), -500, 500)))


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


# Calibration


def nll(logits: np.ndarray, truth: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log likelihood: of yes/no (logits like truth) or of classes (logits N x K, truth N)."""
    z, t = np.asarray(logits, np.float64) / temperature, np.asarray(truth)
    if z.ndim == t.ndim:
        return float(np.mean(np.logaddexp(0, z) - t * z))
    return float(np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(len(t)), t]))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The one number that, dividing the logits, makes the answers most likely."""
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 801))
    return float(grid[np.argmin([nll(logits, truth, t) for t in grid])])


def ece(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of yes/no probabilities over bins of equal count."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [len(p) * abs(probability[p].mean() - truth[p].mean()) for p in parts if len(p)]
    return float(sum(gaps) / len(truth))


def ece_by_width(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """The same over bins of equal width, as many papers count it."""
    index = np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
    parts = [np.flatnonzero(index == b) for b in range(bins)]
    gaps = [len(p) * abs(probability[p].mean() - truth[p].mean()) for p in parts if len(p)]
    return float(sum(gaps) / len(truth))


def honest_probability(
    logits: np.ndarray, truth: np.ndarray, held_out: Sequence[np.ndarray], activate: Callable = sigmoid
) -> np.ndarray:
    """Probabilities with, for each fold, a temperature fitted on the other folds."""
    out = np.empty(np.shape(logits), np.float64)
    for fold in held_out:
        rest = np.setdiff1d(np.arange(len(truth)), fold)
        out[fold] = activate(np.asarray(logits)[fold] / fit_temperature(np.asarray(logits)[rest], truth[rest]))
    return out


# Intervals


def interval(
    score: Callable[..., float],
    *columns: np.ndarray,
    groups: np.ndarray | None = None,
    draws: int = 2000,
    seed: int = SEED,
) -> list[float]:
    """95 % bootstrap interval of `score(*columns)` over rows, or over whole `groups` (a case, a slide).

    Draws on which the score is not defined (it raises ValueError or is not finite) are drawn again.
    """
    rng, values, failed = np.random.default_rng(seed), [], 0
    count = len(columns[0])
    members = None
    if groups is not None:
        _, index = np.unique(groups, return_inverse=True)
        members = [np.flatnonzero(index == g) for g in range(index.max() + 1)]
    while len(values) < draws:
        if members is None:
            pick = rng.integers(0, count, count)
        else:
            pick = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        try:
            value = float(score(*(c[pick] for c in columns)))
        except ValueError:
            value = float("nan")
        if np.isfinite(value):
            values.append(value)
        else:
            failed += 1
            if failed > draws:
                raise ValueError("the score is undefined on most draws")
    return [float(v) for v in np.quantile(values, (0.025, 0.975))]


# Yes or no


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve (ties count half)."""
    truth, score = np.asarray(truth).astype(bool), np.asarray(score, np.float64)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if positive == 0 or negative == 0:
        raise ValueError("one class only")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def sensitivity(truth: np.ndarray, probability: np.ndarray, threshold: float) -> float:
    """Share of positives at or above the threshold."""
    return float((np.asarray(probability)[np.asarray(truth) == 1] >= threshold).mean())


def specificity(truth: np.ndarray, probability: np.ndarray, threshold: float) -> float:
    """Share of negatives below the threshold."""
    return float((np.asarray(probability)[np.asarray(truth) == 0] < threshold).mean())


def at_threshold(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, object]:
    """Sensitivity and specificity with intervals when `probability >= threshold` calls for action."""
    out: dict[str, object] = {"threshold": threshold}
    for name, count in (("sensitivity", sensitivity), ("specificity", specificity)):
        out[name] = count(truth, probability, threshold)
        out[f"{name}_95"] = interval(lambda t, p, c=count: c(t, p, threshold), truth, probability)
    return out


TARGETS = [(0.95, 0.90), (0.96, 0.92), (0.97, 0.94), (0.98, 0.95), (0.99, 0.97)]
"""(sensitivity at clear_below, specificity at significant_from), the mildest first."""


def band_thresholds(truth: np.ndarray, probability: np.ndarray, targets: list = TARGETS) -> dict[str, float]:
    """`clear_below` and `significant_from`, to two digits on the safe side, and the targets they were chosen for.

    Where the classes part so well that both targets hold at one threshold, the targets rise until a tenth of the scale
    lies between, for the doubtful.
    """
    hits, healthy = np.sort(probability[truth == 1]), np.sort(probability[truth == 0])
    for wanted_sensitivity, wanted_specificity in targets:
        clear = np.floor(hits[int(np.floor((1 - wanted_sensitivity) * len(hits)))] * 100) / 100
        rank = max(int(np.ceil(wanted_specificity * len(healthy))) - 1, 0)
        significant = np.ceil(healthy[rank] * 100 + 1e-9) / 100
        if significant - clear >= 0.1:
            break
    clear = float(max(clear, 0.01))
    return {
        "clear_below": round(clear, 2),
        "significant_from": round(float(min(max(significant, clear + 0.1), 0.99)), 2),
        "sensitivity_target": wanted_sensitivity,
        "specificity_target": wanted_specificity,
    }


def bands(probability: np.ndarray, clear_below: float, significant_from: float) -> np.ndarray:
    """0 clear, 1 ambiguous, 2 significant."""
    return (probability >= clear_below).astype(int) + (probability >= significant_from)


# Classes and grades


def quadratic_kappa(truth: np.ndarray, guess: np.ndarray, levels: int) -> float:
    """Cohen's kappa with quadratic weights."""
    seen = np.zeros((levels, levels))
    np.add.at(seen, (np.asarray(truth), np.asarray(guess)), 1)
    weight = np.subtract.outer(np.arange(levels), np.arange(levels)) ** 2
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()
    if (weight * chance).sum() == 0:
        raise ValueError("one level only")
    return float(1 - (weight * seen).sum() / (weight * chance).sum())


def accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Share of right answers."""
    return float((np.asarray(truth) == np.asarray(guess)).mean())


def confusion(truth: np.ndarray, guess: np.ndarray, classes: int) -> list[list[int]]:
    """Rows: truth; columns: guess."""
    seen = np.zeros((classes, classes), int)
    np.add.at(seen, (np.asarray(truth), np.asarray(guess)), 1)
    return seen.tolist()


# Regions


def dice(truth: np.ndarray, guess: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    a, b = np.asarray(truth, bool), np.asarray(guess, bool)
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else float(2 * (a & b).sum() / total)


def iou(truth: np.ndarray, guess: np.ndarray) -> float:
    """|A and B| / |A or B|; 1 where both are empty."""
    a, b = np.asarray(truth, bool), np.asarray(guess, bool)
    union = (a | b).sum()
    return 1.0 if union == 0 else float((a & b).sum() / union)
