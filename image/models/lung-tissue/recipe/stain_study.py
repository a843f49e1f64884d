"""Which treatment of stain holds up when the stain changes: none, Reinhard, Macenko, or shaken colours in training.

In: the LC25000 folder, `tissue-numbers.npy` of tissue.py. Out: `stain.json` in the work folder: 3-class accuracy by
original, five folds, on clean held-out tiles and on tiles that `stain.perturb` has turned into another laboratory's.
How: means of three depths of the backbone (blocks 7 and 10, and its last convolution) and a linear classifier. Rows
without views train on the tiles alone, rows with views on the tile and two views of it. The figures of card 1.1.0 are from tiles
read at 224 x 224, as in version 1.0.0: the study was not repeated with enlarged ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import stain
import tiles
from shared import compiled
from tissue import NUMBERS, TOP, TissueNet, columns, numbers_of_tiles

BATCH = 10
RIDGE = 3000.0
"""Weight of the penalty; the numbers are many and alike."""

READ = np.r_[columns(7, 0), columns(10, 0), NUMBERS - 2 * TOP : NUMBERS - TOP]

Treatment = Callable[[np.ndarray], np.ndarray]


def features(model, pictures, name: str, work: Path) -> np.ndarray:
    """Means of three depths, kept on disk."""
    path = work / f"stain-{name}.npy"
    if path.exists():
        return np.load(path)
    pictures, out = list(pictures), []
    for start in tqdm(range(0, len(pictures), BATCH), desc=name, leave=False):
        batch = np.stack([tiles.tensor(p) for p in pictures[start : start + BATCH]])
        missing = BATCH - len(batch)
        batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        out.append(model([batch])[0][: BATCH - missing][:, READ])
    np.save(path, np.concatenate(out))
    return np.concatenate(out)


def study(data: Path, work: Path) -> dict:
    """Accuracy of each treatment."""
    known, rng = tiles.load(data), np.random.default_rng(tiles.SEED)
    model = compiled(TissueNet(), [BATCH, 3, tiles.SIDE_PX, tiles.SIDE_PX])
    other = [stain.perturb(p, rng) for p in known.pictures]
    treatments: dict[str, Treatment] = {"none": lambda p: p, "Reinhard": stain.reinhard, "Macenko": stain.macenko}
    results, untreated = {}, {}
    for name, treat in treatments.items():
        held = {
            "clean": features(model, (treat(p) for p in known.pictures), f"{name.lower()}-clean", work),
            "perturbed": features(model, (treat(p) for p in other), f"{name.lower()}-perturbed", work),
        }
        untreated = untreated or held
        results[name] = _cross_validated(known, held, held["clean"][:, None])
    turned = features(model, (tiles.view(p, rng, 0.0) for p in known.pictures for _ in range(2)), "turned", work)
    shaken = np.array(numbers_of_tiles(known, work)[:, 1:3][:, :, READ])
    for name, views in (("none, turned views", turned.reshape(shaken.shape)), ("shaken colours in training", shaken)):
        seen = np.concatenate([untreated["clean"][:, None], views], axis=1)
        results[name] = _cross_validated(known, untreated, seen)
    return {"accuracy": results}


def _cross_validated(known: tiles.Tiles, held: dict[str, np.ndarray], seen: np.ndarray) -> dict[str, float]:
    right: dict[str, list[bool]] = {name: [] for name in held}
    for train, test in known.folds():
        x, y = seen[train].reshape(-1, seen.shape[2]), np.repeat(known.classes[train], seen.shape[1])
        scaler = StandardScaler().fit(x)
        linear = RidgeClassifier(alpha=RIDGE * seen.shape[1] / 3).fit(scaler.transform(x), y)
        for name, numbers in held.items():
            right[name] += list(linear.predict(scaler.transform(numbers[test])) == known.classes[test])
    return {name: float(np.mean(values)) for name, values in right.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = study(options.lung, options.work)
    (options.work / "stain.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
