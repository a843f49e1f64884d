"""The tile network: EfficientNet-Lite0 as ImageNet left it, numbers of every depth, and small heads that are trained.

In: the LC25000 folder. Out, in the work folder: `tissue-numbers.npy`, what the backbone says of each tile and of its
views (tiles x (1 + VIEWS + 1) x NUMBERS; the last is a perturbed copy, scored and never trained on), and
`tissue-mild.npy`, the same of MILD_VIEWS more views whose colours are shaken half as much.
Promise: seeded; a second start goes on where the first stopped.

Why frozen: an original of this data set is shown many times, and there are few; networks that were trained further
(three epochs behind block 8) answered held-out originals no better than a linear head on the frozen numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import stain
import tiles
from shared import compiled
from common.backbone import Parts

LEVELS = {2: 24, 4: 40, 7: 80, 10: 112, 14: 192, 15: 320}
"""Blocks whose answers are read, and their channels: scales 1/4 to 1/32."""

TOP = 1280
NUMBERS = 3 * sum(LEVELS.values()) + 2 * TOP

READ_SIDE_PX = 320
"""Side to which the graph enlarges a tile before the backbone reads it: its filters then see nuclei at the size at which
ImageNet showed them fine structure. 0.3 points of accuracy against 224 (0.958 to 0.961), at twice the time and for 3 points less
on tiles of a perturbed stain."""

VIEWS, MILD_VIEWS = 2, 6
"""Random views with the full shake of colours, and with half of it."""

PERTURBED = 1 + VIEWS


class TissueNet(nn.Module):
    """Image -> NUMBERS: of each level the mean, the mean distance from it and the greatest value of every channel."""

    def __init__(self) -> None:
        """With ImageNet weights; nothing here is trained."""
        super().__init__()
        parts = Parts(READ_SIDE_PX)
        self.stem, self.blocks, self.top = parts.stem, nn.ModuleList(parts.blocks), parts.top
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """N x 3 x 224 x 224 -> N x NUMBERS."""
        x, numbers = self.stem(enlarged(image)), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in LEVELS:
                numbers.append(statistics(x))
        x = self.top(x)
        return torch.cat([*numbers, x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)


def enlarged(image: torch.Tensor) -> torch.Tensor:
    """N x 3 x 224 x 224 -> N x 3 x READ_SIDE_PX x READ_SIDE_PX."""
    return F.interpolate(image, size=(READ_SIDE_PX, READ_SIDE_PX), mode="bilinear", align_corners=False)


def statistics(features: torch.Tensor) -> torch.Tensor:
    """N x C x rows x columns -> N x 3C."""
    mean = features.mean(dim=(2, 3), keepdim=True)
    spread = (features - mean).abs().mean(dim=(2, 3))
    return torch.cat([mean[:, :, 0, 0], spread, features.amax(dim=(2, 3))], dim=1)


def columns(block: int, kind: int) -> slice:
    """Where the numbers of a block begin and end: `kind` 0 means, 1 spreads, 2 greatest values."""
    start = 0
    for index, channels in LEVELS.items():
        if index == block:
            return slice(start + kind * channels, start + (kind + 1) * channels)
        start += 3 * channels
    raise KeyError(block)


def views_of(known: tiles.Tiles, index: int) -> list[np.ndarray]:
    """A tile, its random views, and its perturbed copy."""
    rng, picture = np.random.default_rng([tiles.SEED, index]), known.pictures[index]
    return [picture, *(tiles.view(picture, rng) for _ in range(VIEWS)), stain.perturb(picture, rng)]


def mild_views_of(known: tiles.Tiles, index: int) -> list[np.ndarray]:
    """More views, shaken half as much."""
    rng = np.random.default_rng([tiles.SEED, 7, index])
    return [tiles.view(known.pictures[index], rng, 0.5) for _ in range(MILD_VIEWS)]


def numbers_of_tiles(known: tiles.Tiles, work: Path) -> np.ndarray:
    """Numbers of each tile, its views and its perturbed copy, kept on disk."""
    return _kept(known, work / "tissue-numbers.npy", views_of, 2 + VIEWS, np.float32)


def numbers_of_mild_views(known: tiles.Tiles, work: Path) -> np.ndarray:
    """Numbers of the mild views, kept on disk."""
    return _kept(known, work / "tissue-mild.npy", mild_views_of, MILD_VIEWS, np.float16)


def _kept(known: tiles.Tiles, path: Path, views, seen: int, kind: type) -> np.ndarray:
    marker = path.with_suffix(".done")
    finished = int(marker.read_text()) if marker.exists() else 0
    cache = np.lib.format.open_memmap(path, "r+" if finished else "w+", kind, (len(known.names), seen, NUMBERS))
    if finished < len(known.names):
        model = compiled(TissueNet(), [seen, 3, tiles.SIDE_PX, tiles.SIDE_PX])
    for index in tqdm(range(finished, len(known.names)), desc=path.stem, unit="tile"):
        cache[index] = model([np.stack([tiles.tensor(v) for v in views(known, index)])])[0]
        if index % 20 == 19 or index + 1 == len(known.names):
            cache.flush()
            marker.write_text(str(index + 1))
    return cache


def main() -> None:
    """Computes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    known = tiles.load(options.lung)
    numbers_of_tiles(known, options.work)
    numbers_of_mild_views(known, options.work)


if __name__ == "__main__":
    main()
