"""The tile network: what kind of lung tissue a field shows. Five folds by original, then one network on all tiles.

In: the LC25000 folder (labels.csv, images.zip). Out, in the work folder: `tissue-{fold0..4,final}.pt` (weights),
`tissue-oof.npz` (out-of-fold logits on clean and on perturbed tiles), `tissue.json` (the schedule).
Every step is seeded and leaves a checkpoint; a second start goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import stain
import tiles
from shared import compiled, follow, rate_share, save
from common.backbone import POOLED_CHANNELS, early_and_late, slow_batch_norm

FROZEN_BLOCKS = 8
"""Blocks (of 16) behind the stem that stay as ImageNet made them: their answers are computed once for each view."""

VIEWS = 8
"""Random views of each tile; view 0 is the tile itself."""

BATCH = 16
EMA_DECAY = 0.97
SMOOTHING = 0.06
PERTURBED = 1 + VIEWS
"""Index of the perturbed copy in the cache: scored, never trained on."""


class TissueNet(nn.Module):
    """`early` (frozen) then `late` (trained), then three logits."""

    def __init__(self, dropout: float = 0.3) -> None:
        """ImageNet weights and a new head."""
        super().__init__()
        self.early, self.late = early_and_late(tiles.SIDE_PX, FROZEN_BLOCKS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(POOLED_CHANNELS, len(tiles.CLASSES))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        slow_batch_norm(self.late)

    def train(self, mode: bool = True) -> TissueNet:
        """The frozen part never leaves inference mode."""
        super().train(mode)
        self.early.eval()
        return self

    def from_early(self, features: torch.Tensor) -> torch.Tensor:
        """Logits from the frozen part's answer."""
        return self.head(self.dropout(self.late(features).mean(dim=(2, 3))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits from images."""
        return self.from_early(self.early(images))


def early_features(known: tiles.Tiles, options: argparse.Namespace) -> np.ndarray:
    """Answers of the frozen blocks: tiles x (1 + VIEWS + 1) x channels x 14 x 14, f16, kept on disk."""
    path, marker = options.work / "tissue-early.npy", options.work / "tissue-early.done"
    finished = int(marker.read_text()) if marker.exists() else 0
    net, seen = TissueNet().eval(), 2 + VIEWS
    shape = [seen, 3, tiles.SIDE_PX, tiles.SIDE_PX]
    example = net.early(torch.zeros(1, *shape[1:]))
    cache = np.lib.format.open_memmap(
        path, "r+" if finished else "w+", np.float16, (len(known.names), seen, *example.shape[1:])
    )
    early = compiled(net.early, shape) if finished < len(known.names) else None
    for index in tqdm(range(finished, len(known.names)), desc="frozen blocks", unit="tile"):
        rng, picture = np.random.default_rng([tiles.SEED, index]), known.pictures[index]
        views = [picture, *(tiles.view(picture, rng) for _ in range(VIEWS)), stain.perturb(picture, rng)]
        cache[index] = early([np.stack([tiles.tensor(v) for v in views])])[0]
        if index % 50 == 49 or index + 1 == len(known.names):
            cache.flush()
            marker.write_text(str(index + 1))
    return cache


def batch_of(cache: np.ndarray, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    """Features of chosen tiles and views as float32."""
    picked = np.stack([cache[row, seen] for row, seen in zip(rows, views, strict=True)])
    return torch.from_numpy(picked).float().contiguous(memory_format=torch.channels_last)


def predict(net: TissueNet, cache: np.ndarray, rows: np.ndarray, seen: int = 0) -> np.ndarray:
    """Logits of tiles: as they are, or one of their other views."""
    net.eval()
    with torch.no_grad():
        parts = [
            net.from_early(batch_of(cache, some, np.full(len(some), seen)))
            for some in np.array_split(rows, max(1, len(rows) // 16))
        ]
    return torch.cat(parts).numpy()


def fit(
    name: str,
    cache: np.ndarray,
    classes: np.ndarray,
    train: np.ndarray,
    watch: np.ndarray,
    options: argparse.Namespace,
    views: int = VIEWS,
) -> TissueNet:
    """Trains one network on `train`; `watch` is only printed, nothing is chosen by it. `views` 0: clean tiles alone."""
    done, checkpoint = options.work / f"tissue-{name}.pt", options.work / f"tissue-{name}.part"
    net, mean = _new(), _new()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean
    mean.load_state_dict(net.state_dict())
    groups = [{"params": net.late.parameters(), "lr": options.rate}, {"params": net.head.parameters(), "lr": options.rate * 3}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = len(train) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, steps * options.epochs))
    state = {"net": net, "mean": mean, "optimiser": optimiser, "schedule": schedule}
    first = _resume(checkpoint, state)
    for epoch in range(first, options.epochs):
        rng = np.random.default_rng([tiles.SEED, *name.encode(), epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        losses, order = [], rng.permutation(train)[: steps * BATCH].reshape(-1, BATCH)
        for rows in tqdm(order, desc=f"{name} epoch {epoch + 1}/{options.epochs}", unit="step", leave=False):
            losses.append(_step(net, optimiser, cache, classes, rows, rng, views))
            schedule.step()
            follow(mean, net, EMA_DECAY)
        note = ""
        if len(watch):
            right = [(predict(mean, cache, watch, v).argmax(axis=1) == classes[watch]).mean() for v in (0, PERTURBED)]
            note = f" watched accuracy {right[0]:.4f}, perturbed {right[1]:.4f}"
        tqdm.write(f"tissue {name} epoch {epoch + 1}: loss {np.mean(losses):.4f}{note}")
        save({key: part.state_dict() for key, part in state.items()} | {"epoch": epoch + 1}, checkpoint)
    save(mean.state_dict(), done)
    checkpoint.unlink(missing_ok=True)
    return mean


def _resume(checkpoint: Path, state: dict) -> int:
    """Loads what an interrupted run left; the epoch to go on with."""
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    for key, part in state.items():
        part.load_state_dict(saved[key])
    return int(saved["epoch"])


def _new() -> TissueNet:
    torch.manual_seed(tiles.SEED)
    return TissueNet().to(memory_format=torch.channels_last)


def _step(net, optimiser, cache, classes, rows, rng, views) -> float:
    """One step with mixed-up features."""
    net.train()
    features = batch_of(cache, rows, rng.integers(0, 1 + views, len(rows)))
    count = len(tiles.CLASSES)
    wanted = F.one_hot(torch.from_numpy(classes[rows]), count) * (1 - SMOOTHING) + SMOOTHING / count
    if rng.random() < 0.5:
        share, other = float(rng.beta(0.4, 0.4)), torch.from_numpy(rng.permutation(len(rows)))
        features = share * features + (1 - share) * features[other]
        wanted = share * wanted + (1 - share) * wanted[other]
    loss = F.cross_entropy(net.from_early(features), wanted)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def main() -> None:
    """Folds, then the final network, then one fold without any views for comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    known = tiles.load(options.data)
    start = time.process_time()
    cache = early_features(known, options)
    clean, perturbed = (np.zeros((len(known.names), len(tiles.CLASSES)), np.float32) for _ in range(2))
    for number, (train, held_out) in enumerate(known.folds()):
        net = fit(f"fold{number}", cache, known.classes, train, held_out, options)
        clean[held_out] = predict(net, cache, held_out)
        perturbed[held_out] = predict(net, cache, held_out, PERTURBED)
    np.savez(options.work / "tissue-oof.npz", clean=clean, perturbed=perturbed)
    everything = np.arange(len(known.names))
    fit("final", cache, known.classes, everything, everything[:0], options)
    spent = time.process_time() - start
    schedule = {
        "epochs": options.epochs, "peak_rate": options.rate, "batch": BATCH, "views": VIEWS,
        "frozen_blocks": FROZEN_BLOCKS, "last_run_cpu_minutes": spent / 60,
    }  # fmt: skip
    (options.work / "tissue.json").write_text(json.dumps(schedule, indent=1) + "\n")


if __name__ == "__main__":
    main()
