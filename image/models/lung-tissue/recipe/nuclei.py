"""The nuclei network: where nuclei are and where their borders run. Folds by look, then one network on all fields.

In: the DSB2018 tissue folder. Out, in the work folder: `nuclei-{fold0..,final}.pt` (weights), `nuclei.json` (the schedule).
Every step is seeded and leaves a checkpoint; a second start goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
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

FROZEN_BLOCKS = 3
"""Stem and so many blocks stay as ImageNet made them: the finest scales cost most to train and know edges already."""

BATCH = 6
EMA_DECAY = 0.985
SCALES = (2, 4, 8, 16)
WIDTHS = (24, 32, 48, 64)
"""Channels of the decoder at each scale."""


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
        for block in self.encoder.blocks[:FROZEN_BLOCKS]:
            block.requires_grad_(False)

    def train(self, mode: bool = True) -> NucleiNet:
        """The frozen part never leaves inference mode."""
        super().train(mode)
        self.encoder.stem.eval()
        for block in self.encoder.blocks[:FROZEN_BLOCKS]:
            block.eval()
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


@dataclass(frozen=True)
class Stage:
    """One part of the training, with a schedule of its own."""

    name: str
    epochs: int
    final_epochs: int
    rate: float
    cores: bool
    colours: float


STAGES = (
    Stage("rims", 30, 30, 3e-3, False, 1.0),
    Stage("cores", 36, 30, 2e-3, True, 1.0),
    Stage("again", 44, 40, 2.5e-3, True, 0.5),
)
"""Thin rims first, then wide ones that leave the core (fields.targets), then these again with colours shaken half as
much. Epochs of a fold and of the final network, whose epochs have more steps."""


def fit(name: str, known: fields.Fields, train: np.ndarray, work: Path) -> NucleiNet:
    """Trains one network on `train`, stage by stage."""
    done, net = work / f"nuclei-{name}.pt", _new()
    if not done.exists():
        for stage in STAGES:
            if stage.name == "cores":
                with torch.no_grad():  # cores ask for a wider border: it starts less sure
                    net.head.weight[1] *= 0.5
                    net.head.bias[1] = -1.0
            net = _stage(name, stage, known, train, net, work)
        save(net.state_dict(), done)
    net.load_state_dict(torch.load(done, weights_only=True))
    return net.eval()


def _stage(name: str, stage: Stage, known: fields.Fields, train: np.ndarray, net: NucleiNet, work: Path) -> NucleiNet:
    """One stage of training from the weights in `net`; the running mean of the weights."""
    stem, epochs = f"nuclei-{name}-{stage.name}", stage.final_epochs if name == "final" else stage.epochs
    done, checkpoint = work / f"{stem}.stage", work / f"{stem}.part"
    mean = _new()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean
    mean.load_state_dict(net.state_dict())
    old = [p for p in net.encoder.parameters() if p.requires_grad]
    new = [*net.bottom.parameters(), *net.up.parameters(), *net.head.parameters()]
    optimiser = torch.optim.AdamW([{"params": old, "lr": stage.rate / 3}, {"params": new, "lr": stage.rate}], weight_decay=0.02)
    steps = -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, steps * epochs))
    state = {"net": net, "mean": mean, "optimiser": optimiser, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for key, part in state.items():
            part.load_state_dict(saved[key])
        first = int(saved["epoch"])
    for epoch in tqdm(range(first, epochs), desc=stem, unit="epoch", initial=first, total=epochs):
        rng = np.random.default_rng([fields.SEED, *stem.encode(), epoch])
        order = rng.permutation(np.resize(rng.permutation(train), steps * BATCH)).reshape(-1, BATCH)
        losses = []
        for rows in order:
            losses.append(_step(net, optimiser, known, rows, rng, stage))
            schedule.step()
            follow(mean, net, EMA_DECAY)
        tqdm.write(f"{stem} epoch {epoch + 1}: loss {np.mean(losses):.4f}")
        if epoch % 5 == 4:
            save({key: part.state_dict() for key, part in state.items()} | {"epoch": epoch + 1}, checkpoint)
    save(mean.state_dict(), done)
    checkpoint.unlink(missing_ok=True)
    return mean


def _new() -> NucleiNet:
    torch.manual_seed(fields.SEED)
    return NucleiNet().to(memory_format=torch.channels_last)


def _step(net, optimiser, known, rows, rng, stage) -> float:
    """One step on one crop of each of these fields."""
    net.train()
    crops = [fields.crop(known.pictures[row], known.labels[row], CROP_PX, rng, stage.colours) for row in rows]
    images = torch.from_numpy(np.stack([tiles.tensor(picture) for picture, _ in crops]))
    wanted = [torch.from_numpy(np.stack(maps)) for maps in zip(*(fields.targets(s, stage.cores) for _, s in crops), strict=True)]
    loss = loss_of(net(images.contiguous(memory_format=torch.channels_last)), *wanted)
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
    schedule = {"stages": [asdict(stage) for stage in STAGES], "batch": BATCH, "crop_px": CROP_PX, "frozen_blocks": FROZEN_BLOCKS}
    (options.work / "nuclei.json").write_text(json.dumps(schedule, indent=1) + "\n")


if __name__ == "__main__":
    main()
