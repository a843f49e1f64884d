"""The class head: what kind of tissue, from the frozen numbers. Five folds by original, then one head on all tiles.

In: `tissue-numbers.npy` of tissue.py. Out, in the work folder: `head-{fold0..4,final}.pt`, `tissue-oof.npz`
(out-of-fold logits on clean and on perturbed tiles), `tissue.json` (how it was fitted).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from tqdm import tqdm

import tiles
from shared import save
from tissue import NUMBERS, PERTURBED, VIEWS, numbers_of_tiles

PENALTY = 3e-4
"""Inverse strength of the penalty (scikit-learn's C); the numbers are many and alike, so it is strong."""

ROUNDS = 150


class Head(nn.Module):
    """Numbers -> three logits."""

    def __init__(self) -> None:
        """Untrained; `shift` and `scale` bring each number to mean 0 and spread 1."""
        super().__init__()
        self.register_buffer("shift", torch.zeros(NUMBERS))
        self.register_buffer("scale", torch.ones(NUMBERS))
        self.linear = nn.Linear(NUMBERS, len(tiles.CLASSES))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """N x NUMBERS -> N x 3."""
        return self.linear((numbers - self.shift) * self.scale)


def fit(numbers: np.ndarray, classes: np.ndarray, rows: np.ndarray, penalty: float = PENALTY) -> Head:
    """Fits on the tiles in `rows`, as they are and as every view."""
    x = numbers[rows, : 1 + VIEWS].reshape(-1, NUMBERS).astype(np.float32)
    y = np.repeat(classes[rows], 1 + VIEWS)
    shift, scale = x.mean(axis=0), 1 / (x.std(axis=0) + 1e-3)
    found = LogisticRegression(C=penalty, max_iter=ROUNDS).fit((x - shift) * scale, y)
    head = Head()
    with torch.no_grad():
        head.shift.copy_(torch.from_numpy(shift))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(found.coef_))
        head.linear.bias.copy_(torch.from_numpy(found.intercept_))
    return head.eval()


def logits(head: Head, numbers: np.ndarray) -> np.ndarray:
    """Logits of rows of numbers."""
    with torch.no_grad():
        return head(torch.from_numpy(np.ascontiguousarray(numbers, np.float32))).numpy()


def main() -> None:
    """Folds, then the final head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = tiles.load(options.lung)
    numbers = np.array(numbers_of_tiles(known, options.work))
    clean, perturbed = (np.zeros((len(known.names), len(tiles.CLASSES)), np.float32) for _ in range(2))
    for number, (train, held_out) in enumerate(tqdm(known.folds(), desc="class head")):
        head = fit(numbers, known.classes, train)
        save(head.state_dict(), options.work / f"head-fold{number}.pt")
        clean[held_out] = logits(head, numbers[held_out, 0])
        perturbed[held_out] = logits(head, numbers[held_out, PERTURBED])
    np.savez(options.work / "tissue-oof.npz", clean=clean, perturbed=perturbed)
    save(fit(numbers, known.classes, np.arange(len(known.names))).state_dict(), options.work / "head-final.pt")
    schedule = {"penalty": PENALTY, "rounds": ROUNDS, "views": VIEWS, "numbers": NUMBERS}
    (options.work / "tissue.json").write_text(json.dumps(schedule, indent=1) + "\n")
    right = (clean.argmax(axis=1) == known.classes).mean(), (perturbed.argmax(axis=1) == known.classes).mean()
    print(f"accuracy by original: clean {right[0]:.4f}, perturbed {right[1]:.4f}")


if __name__ == "__main__":
    main()
