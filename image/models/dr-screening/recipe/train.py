"""Trains grade, oedema risk and the map of lesions: five folds for honest figures, then one network on all photographs.

In: the data folder and the store of features.py. Out, in the work folder: `fold{0..4}.pt` and `final.pt` (weights of
the trained part), `oof.npz` (out-of-fold logits and maps), `training.json` (the schedule). Every step is seeded, every
epoch leaves a checkpoint; a second start goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import types
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import fundus
from common import figures
from features import SEED, VIEWS, Store
from network import FROZEN_BLOCKS, REFERABLE, SIDE_PX, Late

FOLDS = 5
WATCHED_VIEWS = 2
"""Random views of held-out photographs that are scored too: how the network holds up under another camera's colours."""

BATCH = 8
EMA_DECAY = 0.96
TARGET_WEIGHTS = torch.tensor([0.6, 1.0, 0.6, 0.5, 0.3, 0.3])
"""Weight of each logit in the loss: DR grade >= 1..4, oedema risk >= 1..2."""

MIX_SHARE = 0.4
"""Share of steps on mixed-up pairs; the map is trained on the others."""

LESION_FULL = 0.06
"""Share of lesion in a field of the map from which the field counts as full."""

TOP_FIELDS = 8
"""Fields (of 784) that must light up in a referable photograph without masks."""


def folds(labels: fundus.Labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, validation) indices, stratified by DR grade."""
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(splitter.split(np.zeros(len(labels.names)), labels.dr_grade))


def targets(labels: fundus.Labels) -> np.ndarray:
    """Six yes/no answers per photograph: DR grade >= 1..4, oedema risk >= 1..2."""
    grade = labels.dr_grade[:, None] >= np.arange(1, 5)
    oedema = labels.dme_risk[:, None] >= np.arange(1, 3)
    return np.concatenate([grade, oedema], axis=1).astype(np.float32)


def features_of(store: Store, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    """Features of chosen photographs and views as float32."""
    picked = np.stack([store.early[row, seen] for row, seen in zip(rows, views, strict=True)])
    return torch.from_numpy(picked).float().contiguous(memory_format=torch.channels_last)


def predict(late: Late, store: Store, rows: np.ndarray, seen: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six logits and the map's logits of photographs: unchanged, or one of their random views."""
    late.eval()
    logits, maps = [], []
    with torch.no_grad():
        for some in np.array_split(rows, max(1, len(rows) // 8)):
            answer = late(features_of(store, some, np.full(len(some), seen)))
            logits.append(answer[0].numpy())
            maps.append(answer[1][:, 0].numpy())
    return np.concatenate(logits), np.concatenate(maps)


def map_loss(logits: torch.Tensor, maps: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Masks where there are some; no lesion at all in grade 0; somewhere a few fields in grade 2 and worse."""
    logits = logits[:, 0].flatten(1)
    masked = ~torch.isnan(maps).flatten(1).any(dim=1)
    healthy, ill = ~masked & (answers[:, 0] == 0), ~masked & (answers[:, REFERABLE] == 1)
    loss = logits.sum() * 0.0
    if masked.any():
        wanted = (maps[masked].flatten(1) / LESION_FULL).clamp(0, 1)
        weight = 1 + 2 * wanted
        each = F.binary_cross_entropy_with_logits(logits[masked], wanted, reduction="none") * weight
        loss = loss + 2 * each.mean(1).sum()
    if healthy.any():
        loss = loss + F.softplus(logits[healthy]).mean(1).sum()
    if ill.any():
        loss = loss + 0.2 * F.softplus(-logits[ill].topk(TOP_FIELDS, dim=1).values).mean(1).sum()
    return loss / len(logits)


def fit(name: str, store: Store, answers: np.ndarray, train: np.ndarray, options: argparse.Namespace) -> Late:
    """Trains one network on `train`."""
    done, checkpoint = options.work / f"{name}.pt", options.work / f"{name}.part"
    mean = _new()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean
    late = _new()
    if options.bf16:
        _pointwise_in_bf16(late)
    heads = [p for n, p in late.named_parameters() if n.split(".")[0] not in ("middle", "deep", "top")]
    body = [p for n, p in late.named_parameters() if n.split(".")[0] in ("middle", "deep", "top")]
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": options.rate}, {"params": heads, "lr": options.rate * 3}], weight_decay=0.05
    )
    steps = len(train) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: _rate_share(s, steps * options.epochs))
    first, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        late.load_state_dict(saved["late"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first, spent = saved["epoch"], saved["core_seconds"]
    for epoch in range(first, options.epochs):
        rng = np.random.default_rng([SEED, *name.encode(), epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        order = rng.permutation(train)[: steps * BATCH].reshape(-1, BATCH)
        started, losses = time.process_time(), []
        for rows in tqdm(order, desc=f"{name} epoch {epoch + 1}/{options.epochs}", unit="step", mininterval=10):
            losses.append(_step(late, mean, optimiser, store, answers, rows, rng))
            schedule.step()
        spent += time.process_time() - started
        both = [np.mean([pair[part] for pair in losses if pair[part] > 0]) for part in (0, 1)]
        tqdm.write(f"{name} epoch {epoch + 1}: loss {both[0]:.4f} map {both[1]:.4f} core seconds {spent:.0f} in all")
        parts = {"late": late, "mean": mean, "optimiser": optimiser, "schedule": schedule}
        _save({k: v.state_dict() for k, v in parts.items()} | {"epoch": epoch + 1, "core_seconds": spent}, checkpoint)
    (options.work / f"{name}.seconds").write_text(f"{spent:.0f}\n")
    _save(mean.state_dict(), done)
    checkpoint.unlink(missing_ok=True)
    return mean


def _new() -> Late:
    torch.manual_seed(SEED)
    return Late().to(memory_format=torch.channels_last)


def _pointwise_in_bf16(late: Late) -> None:
    """Multiplies 1 x 1 convolutions in bfloat16: a quarter faster on a CPU that has it, with weights kept in FP32."""

    def forward(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        rows = x.permute(0, 2, 3, 1).bfloat16()
        return F.linear(rows, self.weight.flatten(1).bfloat16()).float().permute(0, 3, 1, 2)

    for layer in late.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.bias is None:
            layer.forward = types.MethodType(forward, layer)


def _rate_share(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then a cosine to a hundredth."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _step(late, mean, optimiser, store, answers, rows, rng) -> tuple[float, float]:
    """One step; the running mean of the weights follows."""
    late.train()
    views = rng.integers(0, 1 + VIEWS, len(rows))
    features, plain = features_of(store, rows, views), torch.from_numpy(answers[rows])
    wanted = plain * 0.94 + 0.03  # smoothed: graders differ by a grade often enough
    mixed = rng.random() < MIX_SHARE
    if mixed:
        share, other = float(rng.beta(0.4, 0.4)), torch.from_numpy(rng.permutation(len(rows)))
        features = share * features + (1 - share) * features[other]
        wanted = share * wanted + (1 - share) * wanted[other]
    logits, drawn = late(features)
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    loss = (losses * TARGET_WEIGHTS).sum(dim=1).mean() / TARGET_WEIGHTS.sum()
    lesions = torch.zeros(())
    if not mixed:
        maps = torch.from_numpy(np.stack([store.maps[r, v] for r, v in zip(rows, views, strict=True)]))
        lesions = map_loss(drawn, maps, plain)
    optimiser.zero_grad(set_to_none=True)
    (loss + 0.5 * lesions).backward()
    torch.nn.utils.clip_grad_norm_(late.parameters(), 5.0)
    optimiser.step()
    with torch.no_grad():
        for kept, new in zip(mean.state_dict().values(), late.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - EMA_DECAY)
            else:
                kept.copy_(new)
    return float(loss.detach()), float(lesions.detach())


def _save(content: object, path: Path) -> None:
    """Written beside and renamed, so that a cut leaves the old one."""
    torch.save(content, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def collect(store: Store, labels: fundus.Labels, work: Path) -> None:
    """Out-of-fold answers of all five networks."""
    count = len(labels.names)
    logits = np.full((1 + WATCHED_VIEWS, count, 6), np.nan, np.float32)
    maps = np.full((count, *store.maps.shape[2:]), np.nan, np.float32)
    for number, (_, held_out) in enumerate(folds(labels)):
        late = _new()
        late.load_state_dict(torch.load(work / f"fold{number}.pt", weights_only=True))
        for seen in range(1 + WATCHED_VIEWS):
            logits[seen, held_out], drawn = predict(late, store, held_out, seen)
            if seen == 0:
                maps[held_out] = drawn
    np.savez(work / "oof.npz", logits=logits[0], views=logits[1:], maps=maps)
    print(f"pooled out-of-fold AUC {figures.auc(labels.referable, logits[0][:, REFERABLE]):.4f}")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv, images.zip and lesions.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder of features.py's store; takes the weights")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate of the body")
    parser.add_argument("--only", nargs="+", default=[*(f"fold{n}" for n in range(FOLDS)), "final"], help="of all six")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="where the CPU has no bfloat16")
    return parser.parse_args()


def main() -> None:
    """Folds, then the final network."""
    options = arguments()
    torch.set_num_threads(1)
    _, labels = fundus.load(options.data)
    store, answers = Store(options.work, "r"), targets(labels)
    for number, (train, held_out) in enumerate(folds(labels)):
        if f"fold{number}" in options.only:
            late = fit(f"fold{number}", store, answers, train, options)
            logits, _ = predict(late, store, held_out)
            print(f"fold{number}: AUC {figures.auc(labels.referable[held_out], logits[:, REFERABLE]):.4f}", flush=True)
    if "final" in options.only:
        fit("final", store, answers, np.arange(len(labels.names)), options)
    if all((options.work / f"fold{n}.pt").exists() for n in range(FOLDS)):
        collect(store, labels, options.work)
    schedule = {
        "epochs": options.epochs,
        "peak_rate": options.rate,
        "frozen_blocks": FROZEN_BLOCKS,
        "side_px": SIDE_PX,
        "batch": BATCH,
        "views": VIEWS,
        "folds": FOLDS,
    }
    (options.work / "training.json").write_text(json.dumps(schedule) + "\n")


if __name__ == "__main__":
    main()
