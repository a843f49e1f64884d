"""How well nuclei are found, by the definitions that the card names.

In: label images (0 = background, 1..n = nucleus). Out: AP@0.5, count error, matches.
"""

from __future__ import annotations

import numpy as np


def overlaps(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Intersection over union of every true nucleus (rows) with every found one (columns)."""
    rows, columns = int(truth.max()) + 1, int(guess.max()) + 1
    both = np.bincount((truth.astype(np.int64) * columns + guess).ravel(), minlength=rows * columns)
    both = both.reshape(rows, columns).astype(np.float64)
    of_truth, of_guess = both.sum(axis=1, keepdims=True), both.sum(axis=0, keepdims=True)
    union = of_truth + of_guess - both
    table = np.divide(both, union, out=np.zeros_like(both), where=union > 0)[1:, 1:]
    return table[of_truth[1:, 0] > 0][:, of_guess[0, 1:] > 0]


def average_precision(truth: np.ndarray, guess: np.ndarray, least: float = 0.5) -> float:
    """TP / (TP + FP + FN) of one field, as the 2018 Data Science Bowl counts at one threshold.

    A true nucleus and a found one are a match where their intersection over union is above `least`; from 0.5 on no
    nucleus can match two. A field without nuclei in which none are found counts 1.
    """
    table = overlaps(truth, guess)
    hits = int((table > least).sum())
    total = table.shape[0] + table.shape[1] - hits
    return 1.0 if total == 0 else hits / total


def count_error(truth: np.ndarray, guess: np.ndarray) -> float:
    """Difference of the counts as a share of the true count (at least 1)."""
    counts = [len(np.unique(x[x > 0])) for x in (truth, guess)]
    return abs(counts[1] - counts[0]) / max(counts[0], 1)
