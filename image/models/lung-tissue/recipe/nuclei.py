"""The nuclei network: where nuclei are and where their borders run. Folds by look, then one network on all fields.

In: the DSB2018 tissue folder. Out, in the work folder: `nuclei-{fold0..,final}.pt` (weights), `nuclei.json` (the schedule).
Seeded, with a checkpoint every SAVE_EVERY steps; a second start goes on where the first stopped. The weights of version 1.1.0's folds
0 to 2 and of its served network come from the same schedule with the crops drawn in another order.
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

import fields
import tiles
from shared import follow, rate_share, save
from common.backbone import Pyramid, slow_batch_norm

SIDE_PX = 256
"""Side of a window that is served."""

CROP_PX = 192
"""Side of a crop in training."""

STEPS = 1500
FINAL_SCHEDULE = 1800
"""Steps over which the rate of the served network would fall to its end: it has more fields to learn, so its rate falls slower."""

BATCH = 8
RATE = 2e-3
"""Peak rate of what is new; the encoder's is a third of it."""

COLOURS = 0.5
"""How much of the full shake of colours a crop gets."""

EMA_DECAY = 0.99
SCALES = (2, 4, 8, 16)
WIDTHS = (32, 64, 96, 128)
"""Channels of the decoder at each scale."""

SAVE_EVERY = 100
"""Steps between checkpoints; the random numbers of each such part are its own, so that a second start draws the same."""


def _mix(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU6())


class NucleiNet(nn.Module):
    """EfficientNet-Lite0 down to 1/16, back up to 1/2 with what each scale knew, two logits, doubled to full size."""

    def __init__(self) -> None:
        """ImageNet weights below, new ones above."""
        super().__init__()
        self.encoder = Pyramid(SIDE_PX, SCALES)
        channels = self.encoder.channels
        self.bottom = nn.Sequential(nn.Conv2d(channels[-1], WIDTHS[-1], 1, bias=False), nn.BatchNorm2d(WIDTHS[-1]), nn.ReLU6())
        pairs = zip(WIDTHS[1:], channels[:-1], WIDTHS[:-1], strict=True)
        self.up = nn.ModuleList([_mix(below + beside, width) for below, beside, width in pairs])
        self.head = nn.Conv2d(WIDTHS[0], 2, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.tensor([-1.5, -2.0]))
        slow_batch_norm(self)
        self.encoder.stem.requires_grad_(False)

    def train(self, mode: bool = True) -> NucleiNet:
        """The stem, which knows edges already, never leaves inference mode."""
        super().train(mode)
        self.encoder.stem.eval()
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """N x 3 x side x side -> N x 2 x side x side: logits of interior and border."""
        kept = self.encoder(image)
        x = self.bottom(kept[-1])
        for mix, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = mix(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], dim=1))
        return F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)


def loss_of(logits: torch.Tensor, interior: torch.Tensor, border: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of both maps and the overlap (Dice) of each."""
    total = logits.new_zeros(())
    for index, (wanted, share) in enumerate(((interior, 1.0), (border, 1.0))):
        raw = logits[:, index]
        cross = F.binary_cross_entropy_with_logits(raw, wanted, reduction="none")
        p = torch.sigmoid(raw)
        overlap = (2 * (p * wanted).sum(dim=(1, 2)) + 20) / (p.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2)) + 20)
        total = total + share * ((cross * weight).mean() + 0.5 * (1 - overlap).mean())
    return total


def fit(name: str, known: fields.Fields, train: np.ndarray, work: Path) -> NucleiNet:
    """Trains one network on `train`; the running mean of its weights."""
    done, part = work / f"nuclei-{name}.pt", work / f"nuclei-{name}.part"
    mean = _new()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean.eval()
    net = _new()
    old = [p for p in net.encoder.parameters() if p.requires_grad]
    new = [*net.bottom.parameters(), *net.up.parameters(), *net.head.parameters()]
    optimiser = torch.optim.AdamW([{"params": old, "lr": RATE / 3}, {"params": new, "lr": RATE}], weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, FINAL_SCHEDULE if name == "final" else STEPS))
    state, first = {"net": net, "mean": mean, "optimiser": optimiser, "schedule": schedule}, 0
    if part.exists():
        saved = torch.load(part, weights_only=True)
        for key, value in state.items():
            value.load_state_dict(saved[key])
        first = int(saved["step"])
    bar = tqdm(total=STEPS, initial=first, desc=f"nuclei-{name}", unit="step")
    for start in range(first, STEPS, SAVE_EVERY):
        rng, losses = np.random.default_rng([fields.SEED, *name.encode(), start]), []
        count = min(SAVE_EVERY, STEPS - start)
        order = np.concatenate([rng.permutation(train) for _ in range(-(-count * BATCH // len(train)))])
        for step, rows in enumerate(order[: count * BATCH].reshape(count, BATCH), start):
            losses.append(_step(net, optimiser, known, rows, rng))
            schedule.step()
            follow(mean, net, min(EMA_DECAY, (1 + step) / (10 + step)))
            bar.update()
        tqdm.write(f"nuclei-{name} step {start + count}: loss {np.mean(losses):.4f}")
        save({key: value.state_dict() for key, value in state.items()} | {"step": start + count}, part)
    save(mean.state_dict(), done)
    part.unlink(missing_ok=True)
    return mean.eval()


def _new() -> NucleiNet:
    torch.manual_seed(fields.SEED)
    return NucleiNet().to(memory_format=torch.channels_last)


def _step(net: NucleiNet, optimiser: torch.optim.Optimizer, known: fields.Fields, rows: np.ndarray, rng: np.random.Generator) -> float:
    """One step on one crop of each of these fields; the way forward in bfloat16, which its CPU does in half the time."""
    net.train()
    crops = [fields.crop(known.pictures[row], known.labels[row], CROP_PX, rng, COLOURS) for row in rows]
    images = torch.from_numpy(np.stack([tiles.tensor(picture) for picture, _ in crops]))
    wanted = [torch.from_numpy(np.stack(maps)) for maps in zip(*(fields.targets(s) for _, s in crops), strict=True)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = net(images.contiguous(memory_format=torch.channels_last))
    loss = loss_of(raw.float(), *wanted)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def main() -> None:
    """The final network, then the folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of networks to train: fold0 ... final")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    known = fields.load(options.data)
    plan = [("final", np.arange(len(known.names)))]
    plan += [(f"fold{number}", train) for number, (train, _) in enumerate(known.folds())]
    for name, train in plan:
        if not options.only or name in options.only:
            fit(name, known, train, options.work)
    schedule = {"steps": STEPS, "final_schedule": FINAL_SCHEDULE, "rate": RATE, "batch": BATCH, "crop_px": CROP_PX}
    (options.work / "nuclei.json").write_text(json.dumps(schedule, indent=1) + "\n")


if __name__ == "__main__":
    main()
