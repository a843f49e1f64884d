"""Trains the screening network: five folds for honest figures, then one network on all photographs.

In: the data folder (labels.csv, images.zip). Out, in the work folder: `fold{0..4}.pt` and `final.pt` (weights),
`oof.npz` (out-of-fold logits), `training.json` (the schedule). Every step is seeded and leaves a checkpoint; a second
start goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional as F
from tqdm import tqdm

import fundus
from network import FROZEN_BLOCKS, REFERABLE, EyeNet

SEED = 20260411
FOLDS = 5
VIEWS = 8
"""Random views of each photograph; view 0 is the photograph itself."""

WATCHED_VIEWS = 3
"""Random views of held-out photographs that are scored too: how the network holds up under another camera's colours."""

BATCH = 8
EMA_DECAY = 0.96
HEAD_WEIGHTS = torch.tensor([0.5, 1.0, 0.5, 0.3, 0.3, 0.3])
"""Weight of each logit in the loss; the second is the one that counts."""


def folds(labels: fundus.Labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, validation) indices, stratified by DR grade."""
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(splitter.split(np.zeros(len(labels.names)), labels.dr_grade))


def targets(labels: fundus.Labels) -> np.ndarray:
    """Six yes/no answers per photograph: DR grade >= 1..4, oedema risk >= 1..2."""
    grade = labels.dr_grade[:, None] >= np.arange(1, 5)
    oedema = labels.dme_risk[:, None] >= np.arange(1, 3)
    return np.concatenate([grade, oedema], axis=1).astype(np.float32)


def early_features(pictures: list[np.ndarray], options: argparse.Namespace) -> np.ndarray:
    """Answers of the frozen blocks: photographs x (1 + VIEWS) x channels x rows x columns, f16, kept on disk."""
    path, marker = options.work / "early.npy", options.work / "early.done"
    finished = int(marker.read_text()) if marker.exists() else 0
    net = EyeNet().eval()
    example = torch.zeros(1, 3, fundus.SIDE_PX, fundus.SIDE_PX)
    shape = (len(pictures), 1 + VIEWS, *net.early(example).shape[1:])
    cache = np.lib.format.open_memmap(path, "r+" if finished else "w+", np.float16, shape)
    if finished < len(pictures):
        batch_shape = [1 + VIEWS, 3, fundus.SIDE_PX, fundus.SIDE_PX]
        model = ov.convert_model(net.early, example_input=example, input=[batch_shape])
        exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": options.threads}
        early = ov.Core().compile_model(model, "CPU", exact)
        for index in tqdm(range(finished, len(pictures)), desc="frozen blocks", unit="photo"):
            rng = np.random.default_rng([SEED, index])
            square = fundus.retina_square(pictures[index])
            seen = [fundus.area_resize(square, fundus.SIDE_PX)] + [fundus.view(square, rng) for _ in range(VIEWS)]
            cache[index] = early([np.stack([fundus.tensor(v) for v in seen])])[0]
            if index % 20 == 19 or index + 1 == len(pictures):
                cache.flush()
                marker.write_text(str(index + 1))
    return cache


def batch_of(cache: np.ndarray, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    """Features of chosen photographs and views as float32."""
    picked = np.stack([cache[row, seen] for row, seen in zip(rows, views, strict=True)])
    return torch.from_numpy(picked).float().contiguous(memory_format=torch.channels_last)


def predict(net: EyeNet, cache: np.ndarray, rows: np.ndarray, seen: int = 0) -> np.ndarray:
    """Referable-DR logits of photographs: unchanged, or one of their random views."""
    net.eval()
    with torch.no_grad():
        parts = [
            net.from_early(batch_of(cache, some, np.full(len(some), seen)))
            for some in np.array_split(rows, max(1, len(rows) // 16))
        ]
    return torch.cat(parts)[:, REFERABLE].numpy()


def fit(
    name: str,
    cache: np.ndarray,
    answers: np.ndarray,
    train: np.ndarray,
    watch: np.ndarray,
    options: argparse.Namespace,
) -> EyeNet:
    """Trains one network on `train`; `watch` is only printed, nothing is chosen by it."""
    done, checkpoint = options.work / f"{name}.pt", options.work / f"{name}.part"
    net, mean = _new(), _new()
    if done.exists():
        mean.load_state_dict(torch.load(done, weights_only=True))
        return mean
    mean.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(
        [
            {"params": net.late.parameters(), "lr": options.rate},
            {"params": net.head.parameters(), "lr": options.rate * 3},
        ],
        weight_decay=0.05,
    )
    steps_per_epoch = len(train) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate_share(step, steps_per_epoch * options.epochs)
    )
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, options.epochs):
        rng = np.random.default_rng([SEED, *name.encode(), epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        losses = []
        order = rng.permutation(train)[: steps_per_epoch * BATCH].reshape(-1, BATCH)
        for rows in tqdm(order, desc=f"{name} epoch {epoch + 1}/{options.epochs}", unit="step", leave=False):
            losses.append(_step(net, mean, optimiser, cache, answers, rows, rng))
            schedule.step()
        note = ""
        if len(watch):
            note = f" watched AUC {roc_auc_score(answers[watch, REFERABLE], predict(mean, cache, watch)):.4f}"
        tqdm.write(f"{name} epoch {epoch + 1}: loss {np.mean(losses):.4f}{note}")
        _save(
            {
                "net": net.state_dict(),
                "mean": mean.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
            },
            checkpoint,
        )
    _save(mean.state_dict(), done)
    checkpoint.unlink(missing_ok=True)
    return mean


def _new() -> EyeNet:
    torch.manual_seed(SEED)
    return EyeNet().to(memory_format=torch.channels_last)


def _rate_share(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then a cosine to a hundredth."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _step(net, mean, optimiser, cache, answers, rows, rng) -> float:
    """One step with mixed-up features; the running mean of the weights follows."""
    net.train()
    features = batch_of(cache, rows, rng.integers(0, 1 + VIEWS, len(rows)))
    wanted = torch.from_numpy(answers[rows]) * 0.94 + 0.03  # smoothed: graders differ by a grade often enough
    if rng.random() < 0.5:
        share, other = float(rng.beta(0.4, 0.4)), torch.from_numpy(rng.permutation(len(rows)))
        features = share * features + (1 - share) * features[other]
        wanted = share * wanted + (1 - share) * wanted[other]
    losses = F.binary_cross_entropy_with_logits(net.from_early(features), wanted, reduction="none")
    loss = (losses * HEAD_WEIGHTS).sum(dim=1).mean() / HEAD_WEIGHTS.sum()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    with torch.no_grad():
        for kept, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - EMA_DECAY)
            else:
                kept.copy_(new)
    return float(loss.detach())


def _save(content: object, path: Path) -> None:
    """Written beside and renamed, so that a cut leaves the old one."""
    torch.save(content, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches, checkpoints and weights")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate of the body")
    parser.add_argument("--only", nargs="+", default=[*(f"fold{n}" for n in range(FOLDS)), "final"], help="of all six")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Folds, then the final network."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    pictures, labels = fundus.load(options.data)
    cache, answers = early_features(pictures, options), targets(labels)
    logits = np.full((1 + WATCHED_VIEWS, len(pictures)), np.nan, np.float32)
    for number, (train, held_out) in enumerate(folds(labels)):
        if f"fold{number}" not in options.only:
            continue
        net = fit(f"fold{number}", cache, answers, train, held_out, options)
        for seen in range(1 + WATCHED_VIEWS):
            logits[seen, held_out] = predict(net, cache, held_out, seen)
    if "final" in options.only:
        fit("final", cache, answers, np.arange(len(pictures)), np.arange(0), options)
    if not np.isnan(logits).any():
        np.savez(
            options.work / "oof.npz",
            logits=logits[0],
            views=logits[1:],
            referable=labels.referable,
            dr_grade=labels.dr_grade,
        )
        schedule = {"epochs": options.epochs, "peak_rate": options.rate, "frozen_blocks": FROZEN_BLOCKS}
        (options.work / "training.json").write_text(json.dumps(schedule) + "\n")
        print(f"pooled out-of-fold AUC {roc_auc_score(labels.referable, logits[0]):.4f}")


if __name__ == "__main__":
    main()
