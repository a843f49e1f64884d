"""Which treatment of stain holds up when the stain changes: none, Reinhard, Macenko, or shaken colours in training.

In: the LC25000 folder. Out: `stain.json` in the work folder: 3-class accuracy by group, five folds, on clean held-out
tiles and on tiles that `stain.perturb` has turned into another laboratory's.
How: pooled answers of the untrained (ImageNet) backbone and a linear classifier, so that one night of training is not
needed for each row; every row sees the same tiles, the same number of views and the same folds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import tqdm

import stain
import tiles
from shared import compiled  # first: it makes `common` importable
from common.backbone import Parts  # isort: skip

VIEWS = 3
BATCH = 10


class Pooled(nn.Module):
    """Means over the picture of three depths: 80, 112 and 1280 numbers."""

    def __init__(self) -> None:
        """Untrained beyond ImageNet."""
        super().__init__()
        parts = Parts(tiles.SIDE_PX)
        self.stem, self.blocks, self.top = parts.stem, nn.ModuleList(parts.blocks), parts.top

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N x 3 x 224 x 224 -> N x 1472."""
        x, kept = self.stem(images), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in (7, 10):
                kept.append(x.mean(dim=(2, 3)))
        return torch.cat([*kept, self.top(x).mean(dim=(2, 3))], dim=1)


def features(model, pictures: list[np.ndarray], name: str, work: Path) -> np.ndarray:
    """Pooled answers, kept on disk."""
    path = work / f"stain-{name}.npy"
    if path.exists():
        return np.load(path)
    out = []
    for start in tqdm(range(0, len(pictures), BATCH), desc=name, leave=False):
        batch = np.stack([tiles.tensor(p) for p in pictures[start : start + BATCH]])
        missing = BATCH - len(batch)
        batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        out.append(model([batch])[0][: BATCH - missing])
    np.save(path, np.concatenate(out))
    return np.concatenate(out)


def study(data: Path, work: Path) -> dict:
    """Accuracy of each treatment."""
    work.mkdir(parents=True, exist_ok=True)
    known = tiles.load(data)
    model = compiled(Pooled(), [BATCH, 3, tiles.SIDE_PX, tiles.SIDE_PX])
    rng = np.random.default_rng(tiles.SEED)
    clean = list(known.pictures)
    other = [stain.perturb(p, rng) for p in tqdm(clean, desc="perturb", leave=False)]
    plain = [tiles.view(p, rng, 0.0) for p in clean for _ in range(VIEWS)]
    shaken = [tiles.view(p, rng, 1.0) for p in clean for _ in range(VIEWS)]
    treatments = {
        "none": (plain, lambda p: p),
        "Reinhard": (plain, stain.reinhard),
        "Macenko": (plain, stain.macenko),
        "shaken colours": (shaken, lambda p: p),
    }
    results = {}
    for name, (views, treat) in treatments.items():
        key = name.split()[0].lower()
        first = "none" if key == "shaken" else key
        held = {
            "clean": features(model, [treat(p) for p in clean], f"{first}-clean", work),
            "perturbed": features(model, [treat(p) for p in other], f"{first}-perturbed", work),
        }
        seen = features(model, [treat(p) for p in views], f"{key}-views", work).reshape(len(clean), VIEWS, -1)
        results[name] = _cross_validated(known, held, seen)
        tqdm.write(f"{name}: {results[name]}")
    return {"views": VIEWS, "accuracy": results}


def _cross_validated(known: tiles.Tiles, held: dict[str, np.ndarray], seen: np.ndarray) -> dict[str, float]:
    right: dict[str, list[bool]] = {name: [] for name in held}
    for train, test in known.folds():
        x = np.concatenate([held["clean"][train], seen[train].reshape(-1, seen.shape[2])])
        y = np.concatenate([known.classes[train], np.repeat(known.classes[train], seen.shape[1])])
        scaler = StandardScaler().fit(x)
        linear = LogisticRegression(C=0.003, max_iter=300).fit(scaler.transform(x), y)
        for name, columns in held.items():
            right[name] += list(linear.predict(scaler.transform(columns[test])) == known.classes[test])
    return {name: float(np.mean(values)) for name, values in right.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    result = study(options.data, options.work)
    (options.work / "stain.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
