"""Trains the nodule network: five folds for honest figures, then one network on all frames.

In: the data folder. Out, in the work folder: `fold{0..4}.pt` and `final.pt` (weights of encoder and decoder; heads.py
adds the two small heads), `<name>.json` (its schedule). Every step is seeded and every epoch leaves a checkpoint; a second start goes on
where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from torch.nn import functional as F
from tqdm import tqdm

import frames as fr
from network import NoduleNet, Served

from common import export, figures

BATCH = 8
EMA_DECAY = 0.985
FAR_SHARE = 0.5
"""Share of views that are moved a lot."""

SUSPICION_WEIGHT = 0.15
NAMES = [*(f"fold{n}" for n in range(fr.FOLDS)), "final"]


class Early:
    """The frozen blocks, run by OpenVINO in single precision: three times as fast as torch on one thread."""

    def __init__(self, net: NoduleNet) -> None:
        """Compiles for batches of BATCH."""
        shape = [BATCH, 3, fr.SIDE_PX, fr.SIDE_PX]
        model = ov.convert_model(net.early, example_input=torch.zeros(shape), input=[shape])
        self.model = ov.Core().compile_model(model, "CPU", export.EXACT)

    def __call__(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """Features of at most BATCH u8 pictures."""
        filled = pictures + [pictures[0]] * (BATCH - len(pictures))
        answer = self.model([np.stack([fr.tensor(p) for p in filled])])[0]
        return torch.from_numpy(answer[: len(pictures)].copy()).contiguous(memory_format=torch.channels_last)


def new_net() -> NoduleNet:
    """A network that starts the same every time."""
    torch.manual_seed(fr.SEED)
    return NoduleNet().to(memory_format=torch.channels_last)


class Features:
    """A whole network in FP32: mask logits and the heads' columns of u8 pictures, BATCH at a time."""

    def __init__(self, net: Served) -> None:
        """Compiles."""
        shape = [BATCH, 3, fr.SIDE_PX, fr.SIDE_PX]
        part = _Columns(net).eval()
        model = ov.convert_model(part, example_input=torch.zeros(shape), input=[shape])
        self.model = ov.Core().compile_model(model, "CPU", export.EXACT)

    def __call__(self, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(masks N x MASK_PX x MASK_PX, columns of suspicion, columns of the gate)."""
        parts: list[list[np.ndarray]] = [[], [], []]
        for start in range(0, len(pictures), BATCH):
            some = pictures[start : start + BATCH]
            answer = self.model([np.stack([fr.tensor(p) for p in some + [some[0]] * (BATCH - len(some))])])
            for index, part in enumerate(parts):
                part.append(answer[index][: len(some)].copy())
        mask, nodule, whole = (np.concatenate(part) for part in parts)
        return mask[:, 0], nodule, whole


class _Columns(torch.nn.Module):
    """`Served.features` as a module of its own."""

    def __init__(self, net: Served) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.net.features(images)


def full_size(logits: np.ndarray, side: int, level: float = 0.0) -> np.ndarray:
    """Mask of the frame's own size: logits enlarged linearly, then cut at `level`."""
    return cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR) > level


def watched(net: NoduleNet, data: fr.Frames, rows: np.ndarray) -> str:
    """Dice on held-out frames and on moved copies of them; printed only, nothing is chosen by it."""
    run, rows = Features(Served(net)), rows[data.marked[rows]]
    plain = run([fr.as_seen(data.pictures[r]) for r in rows])[0]
    pairs = [fr.moved_view(data.pictures[r], data.masks[r], np.random.default_rng([fr.SEED, 9, r])) for r in rows]
    moved = run([p for p, _ in pairs])[0]
    here = [figures.dice(data.masks[r], full_size(m, len(data.masks[r]))) for m, r in zip(plain, rows, strict=True)]
    there = [figures.dice(t > 0.5, m > 0) for m, (_, t) in zip(moved, pairs, strict=True) if (t > 0.5).any()]
    return f" held-out Dice {np.mean(here):.4f}, moved {np.mean(there):.4f}"


def loss_of(net: NoduleNet, features: torch.Tensor, wanted: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross entropy and soft Dice of the mask, and a little cross entropy of suspicion where it is known."""
    found = net.body(features)
    logits = F.interpolate(found["mask"], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
    share = torch.sigmoid(logits)
    overlap = (share * wanted).sum((1, 2))
    apart = 1 - (2 * overlap + 50) / (share.sum((1, 2)) + wanted.sum((1, 2)) + 50)
    loss = F.binary_cross_entropy_with_logits(logits, wanted) + apart.mean()
    known = label >= 0
    if known.any():
        doubt = net.suspicious(F.dropout(found["nodule"], 0.3, net.training))[known, 0]
        loss = loss + SUSPICION_WEIGHT * F.binary_cross_entropy_with_logits(doubt, label[known] * 0.94 + 0.03)
    return loss


def fit(name: str, data: fr.Frames, train: np.ndarray, watch: np.ndarray, epochs: int, options: argparse.Namespace) -> NoduleNet:
    """Trains one network on `train`; `watch` is only printed."""
    done, checkpoint = options.work / f"{name}.pt", options.work / f"{name}.part"
    net, mean = new_net(), new_net()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean
    early = Early(net)
    train = np.array([r for r in train if data.names[r] not in fr.BROKEN])
    body = [p for n, p in net.named_parameters() if n.startswith("to") and p.requires_grad]
    rest = [p for n, p in net.named_parameters() if not n.startswith(("to", "early", "gate"))]
    groups = [{"params": body, "lr": options.rate}, {"params": rest, "lr": options.rate * 3}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.03)
    steps = len(train) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: _rate_share(s, steps * epochs))
    kept = {"net": net, "mean": mean, "optimiser": optimiser, "schedule": schedule}
    first, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for part, holder in kept.items():
            holder.load_state_dict(saved[part])
        first, spent = saved["epoch"], saved["spent"]
    for epoch in range(first, epochs):
        rng = np.random.default_rng([fr.SEED, *name.encode(), epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        losses, began = [], time.process_time()
        order = rng.permutation(train)[: steps * BATCH].reshape(-1, BATCH)
        net.train()
        for rows in tqdm(order, desc=f"{name} epoch {epoch + 1}/{epochs}", unit="step", leave=False, mininterval=5):
            losses.append(_step(net, mean, early, optimiser, data, rows, rng))
            schedule.step()
        late = options.watch and len(watch) and (epoch + 1 == epochs or epoch % 4 == 3)
        note = watched(mean, data, watch) if late else ""
        spent += time.process_time() - began
        tqdm.write(f"{name} epoch {epoch + 1}: loss {np.mean(losses):.4f}, {spent:.0f} s of CPU so far{note}")
        _save({**{p: h.state_dict() for p, h in kept.items()}, "epoch": epoch + 1, "spent": spent}, checkpoint)
        net.train()
    (options.work / f"{name}.json").write_text(json.dumps({"epochs": epochs, "peak_rate": options.rate, "cpu_s": spent}))
    _save(mean.state_dict(), done)
    checkpoint.unlink(missing_ok=True)
    return mean


def _rate_share(step: int, steps: int) -> float:
    """Warm-up over a twentieth of the steps, then a cosine to a hundredth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _step(net, mean, early, optimiser, data, rows, rng) -> float:
    """One step; the running mean of the weights follows."""
    pairs = [fr.view(data.pictures[r], data.masks[r], rng, rng.random() < FAR_SHARE) for r in rows]
    wanted = torch.from_numpy(np.stack([m for _, m in pairs]))
    label = torch.from_numpy(data.suspicious[rows]).float()
    loss = loss_of(net, early([p for p, _ in pairs]), wanted, label)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], 5.0)
    optimiser.step()
    with torch.no_grad():
        for held, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
            held.lerp_(new, 1 - EMA_DECAY) if held.is_floating_point() else held.copy_(new)
    return float(loss.detach())


def _save(content: object, path: Path) -> None:
    """Written beside and renamed, so that a cut leaves the old one."""
    torch.save(content, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and weights")
    parser.add_argument("--epochs", type=int, default=4, help="of each fold")
    parser.add_argument("--final-epochs", type=int, default=6, help="of the network on all frames")
    parser.add_argument("--rate", type=float, default=8e-4, help="peak learning rate of the encoder")
    parser.add_argument("--watch", action="store_true", help="print the Dice of held-out frames now and then")
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, help="of all six")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Folds, then the final network."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    data = fr.load(options.data)
    for number, (train, held_out) in enumerate(fr.folds(data)):
        if f"fold{number}" in options.only:
            fit(f"fold{number}", data, train, held_out, options.epochs, options)
    if "final" in options.only:
        fit("final", data, np.arange(len(data.names)), np.arange(0), options.final_epochs, options)


if __name__ == "__main__":
    main()
