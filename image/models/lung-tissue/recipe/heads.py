"""The class head: what kind of tissue, from the frozen numbers. Five folds by original, then one head on all tiles.

In: `tissue-numbers.npy` of tissue.py. Out, in the work folder: `head-{fold0..4,final}.pt`, `tissue-oof.npz`
(out-of-fold logits on clean and on perturbed tiles), `tissue.json` (how it was trained).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import tiles
from shared import save
from tissue import MILD_VIEWS, NUMBERS, PERTURBED, VIEWS, numbers_of_mild_views, numbers_of_tiles

MEMBERS = 5
"""Heads that start apart, see the same tiles, are judged each alone and answer as one: their mean is steadier than each."""

HIDDEN = 48
STEPS, BATCH, RATE, DECAY = 600, 128, 1.5e-3, 0.3
SMOOTHING = 0.08
FAR = 6.0
"""Standard deviations at which a number is cut."""


class Head(nn.Module):
    """Numbers -> three logits, through MEMBERS x HIDDEN units."""

    def __init__(self) -> None:
        """Untrained; `shift` and `scale` bring each number to mean 0 and spread 1."""
        super().__init__()
        self.register_buffer("shift", torch.zeros(NUMBERS))
        self.register_buffer("scale", torch.ones(NUMBERS))
        self.inner = nn.Linear(NUMBERS, MEMBERS * HIDDEN)
        self.outer = nn.Linear(MEMBERS * HIDDEN, len(tiles.CLASSES))

    def even(self, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers of one size."""
        return torch.clamp((numbers - self.shift) * self.scale, -FAR, FAR)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """N x NUMBERS -> N x 3."""
        return self.outer(F.relu(self.inner(self.even(numbers))))


def fit(numbers: np.ndarray, mild: np.ndarray, classes: np.ndarray, rows: np.ndarray) -> Head:
    """Trains on the tiles in `rows`, as they are and as every view."""
    x = np.concatenate([numbers[rows, : 1 + VIEWS], mild[rows].astype(np.float32)], axis=1)
    y = torch.from_numpy(np.repeat(classes[rows], x.shape[1]))
    x = x.reshape(-1, NUMBERS)
    shift, scale = torch.from_numpy(x.mean(axis=0)), torch.from_numpy(1 / (x.std(axis=0) + 1e-3))
    torch.manual_seed(tiles.SEED)
    rng, inner = np.random.default_rng(tiles.SEED), nn.Linear(NUMBERS, MEMBERS * HIDDEN)
    outer = nn.Parameter(torch.randn(MEMBERS, HIDDEN, len(tiles.CLASSES)) * 0.5 / HIDDEN**0.5)
    bias = nn.Parameter(torch.zeros(MEMBERS, len(tiles.CLASSES)))
    even = torch.clamp((torch.from_numpy(x) - shift) * scale, -FAR, FAR)
    wanted = F.one_hot(y, len(tiles.CLASSES)).float() * (1 - SMOOTHING) + SMOOTHING / len(tiles.CLASSES)
    optimiser = torch.optim.AdamW([*inner.parameters(), outer, bias], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for _ in range(STEPS):
        one, other = rng.integers(0, len(even), (2, BATCH))
        share = torch.from_numpy(rng.beta(0.4, 0.4, (BATCH, 1)).astype(np.float32))
        mixed = F.dropout(share * even[one] + (1 - share) * even[other], 0.5)
        hidden = F.dropout(F.relu(inner(mixed)).view(BATCH, MEMBERS, HIDDEN), 0.5)
        answers = torch.einsum("bmh,mhc->bmc", hidden, outer) + bias
        truth = (share * wanted[one] + (1 - share) * wanted[other])[:, None]
        loss = -(truth * F.log_softmax(answers, dim=-1)).sum(dim=-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return _as_one(shift, scale, inner, outer.detach(), bias.detach())


def _as_one(shift: torch.Tensor, scale: torch.Tensor, inner: nn.Linear, outer: torch.Tensor, bias: torch.Tensor) -> Head:
    """The members as two products: the mean of their logits."""
    whole = Head()
    with torch.no_grad():
        whole.shift.copy_(shift)
        whole.scale.copy_(scale)
        whole.inner.weight.copy_(inner.weight)
        whole.inner.bias.copy_(inner.bias)
        whole.outer.weight.copy_(outer.reshape(MEMBERS * HIDDEN, -1).T / MEMBERS)
        whole.outer.bias.copy_(bias.mean(dim=0))
    return whole.eval()


def logits(head: Head, numbers: np.ndarray) -> np.ndarray:
    """Logits of rows of numbers."""
    with torch.no_grad():
        return head(torch.from_numpy(np.ascontiguousarray(numbers, np.float32))).numpy()


def logits_int8(head: Head, numbers: np.ndarray) -> np.ndarray:
    """The same with weights and inputs of both products in eight bits, as the served head has them."""

    def weights(layer: nn.Linear) -> torch.Tensor:
        step = layer.weight.abs().amax(dim=1, keepdim=True) / 127
        return torch.round(layer.weight / step) * step

    with torch.no_grad():
        x = head.even(torch.from_numpy(np.ascontiguousarray(numbers, np.float32)))
        x = torch.round(x * 127 / FAR) * FAR / 127
        x = F.relu(F.linear(x, weights(head.inner), head.inner.bias))
        step = x.amax() / 255
        return F.linear(torch.round(x / step) * step, weights(head.outer), head.outer.bias).numpy()


def load_head(work: Path, name: str) -> Head:
    """A trained head."""
    head = Head()
    head.load_state_dict(torch.load(work / f"head-{name}.pt", weights_only=True))
    return head.eval()


def main() -> None:
    """Folds, then the final head; what is already there is not trained again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = tiles.load(options.lung)
    numbers = np.array(numbers_of_tiles(known, options.work))
    mild = np.array(numbers_of_mild_views(known, options.work))
    everything = np.arange(len(known.names))
    plan = [("final", everything, everything[:0])] + [(f"fold{n}", *fold) for n, fold in enumerate(known.folds())]
    clean, perturbed = (np.zeros((len(known.names), len(tiles.CLASSES)), np.float32) for _ in range(2))
    for name, train, held_out in tqdm(plan, desc="class head"):
        if not (options.work / f"head-{name}.pt").exists():
            save(fit(numbers, mild, known.classes, train).state_dict(), options.work / f"head-{name}.pt")
        head = load_head(options.work, name)
        clean[held_out] = logits(head, numbers[held_out, 0])
        perturbed[held_out] = logits(head, numbers[held_out, PERTURBED])
    np.savez(options.work / "tissue-oof.npz", clean=clean, perturbed=perturbed)
    schedule = {"members": MEMBERS, "hidden": HIDDEN, "steps": STEPS, "batch": BATCH, "views": VIEWS, "mild_views": MILD_VIEWS, "numbers": NUMBERS}
    (options.work / "tissue.json").write_text(json.dumps(schedule, indent=1) + "\n")
    right = (clean.argmax(axis=1) == known.classes).mean(), (perturbed.argmax(axis=1) == known.classes).mean()
    print(f"accuracy by original: clean {right[0]:.4f}, perturbed {right[1]:.4f}")


if __name__ == "__main__":
    main()
