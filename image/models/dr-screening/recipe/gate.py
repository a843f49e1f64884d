"""Trains the gate: is this a retina, and good enough to answer?

In: the data sets, the store of features.py (what the frozen blocks say of good pictures). Out, in the work folder:
`spoilt.npz` (the same of spoilt photographs and of pictures that are no retina), `gate{0..4}.pt` and `gate-final.pt`,
`gate.json` (figures).
Promise: unseen means unseen: the figures are of photographs of another fold spoilt in ways, and of domains, that the
scored head was not shown. A picture in which the appliance finds no disc never reaches the gate and is counted apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from torch.nn import functional as F
from tqdm import tqdm

import degrade
import fundus
import others
import retina
from common import export, figures
from degrade import KINDS, REASONS
from features import SEED, Frozen, Store, tensors
from network import SIDE_PX, Gate
from train import FOLDS, folds

KINDS_A_PHOTOGRAPH = 7
GROUPS = 4
"""Kinds and domains are held out in this many groups; a group takes at most two kinds of each reason."""

EPOCHS, RATE, DECAY, NOISE, DROP = 40, 3e-3, 3e-2, 0.15, 0.15
CLEAN_REFUSED_MAX = 0.01
BATCH = 6
INT8_EVERY = 5
STATISTICS_OPERATION = "__module.gate.statistics/aten::cat/Concat"


def cropped(rgb: np.ndarray) -> tuple[np.ndarray, bool]:
    """(what the network would see, whether the appliance finds a disc); without a disc the whole frame."""
    disc = retina.find(rgb)
    square = rgb if disc is None else retina.cut(rgb, disc)
    how = cv2.INTER_AREA if square.shape[0] >= SIDE_PX else cv2.INTER_LINEAR
    return cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=how), disc is not None


def examples(photographs: list[np.ndarray], data_sets: Path, every: int = 1):
    """(number, picture, photograph or -1, kind, reason) of everything that the gate must refuse.

    With `every` above 1 only of each such photograph and each such foreign picture; the numbers stay the same.
    """
    names, number = list(KINDS), 0
    for index, photograph in enumerate(photographs):
        if index % every == 0:
            rng = np.random.default_rng([SEED, 7, index])
            for place, name in enumerate(rng.choice(names, KINDS_A_PHOTOGRAPH, replace=False)):
                reason, spoil = KINDS[str(name)]
                yield number + place, spoil(photograph, rng), index, str(name), reason
        number += KINDS_A_PHOTOGRAPH
    for index, (domain, picture) in enumerate(others.pictures(data_sets, SEED)):
        copies = 2 if domain in others.ARCHIVES else 1
        if index % every == 0:
            rng = np.random.default_rng([SEED, 11, index])
            yield number, picture, -1, domain, "not_a_retina"
            for copy in range(copies):
                model = photographs[int(rng.integers(len(photographs)))]
                dressed = others.dressed(picture, model, rng)
                yield number + 1 + copy, dressed, -1, f"{domain} in a disc", "not_a_retina"
        number += 1 + copies


def compute(photographs: list[np.ndarray], data_sets: Path, work: Path) -> dict[str, np.ndarray]:
    """Statistics of all examples, from disk where they are known."""
    path = work / "spoilt.npz"
    if path.exists():
        return dict(np.load(path))
    frozen, waiting, columns = Frozen(BATCH), [], []
    found = {name: [] for name in ("photograph", "kind", "reason", "found")}

    def flush() -> None:
        padded = waiting + [waiting[-1]] * (BATCH - len(waiting))
        columns.extend(frozen(padded)[1][: len(waiting)])
        waiting.clear()

    for _, picture, photograph, kind, reason in tqdm(examples(photographs, data_sets), desc="spoilt", mininterval=10):
        seen, has_disc = cropped(picture)
        for name, value in (("photograph", photograph), ("kind", kind), ("reason", reason), ("found", has_disc)):
            found[name].append(value)
        waiting.append(seen)
        if len(waiting) == BATCH:
            flush()
    if waiting:
        flush()
    arrays = {name: np.array(values) for name, values in found.items()} | {"statistics": np.array(columns)}
    np.savez(path, **arrays)
    return arrays


def fit(statistics: np.ndarray, answers: np.ndarray, weights: np.ndarray, seed: int) -> Gate:
    """One head. `answers`: 0 fit to answer, 1 + index of the reason else."""
    torch.manual_seed(seed)
    gate = Gate(len(REASONS))
    x, y = torch.from_numpy(statistics), torch.from_numpy(answers)
    clean = x[y == 0]
    gate.centre.copy_(clean.mean(dim=0))
    gate.scale.copy_(1 / (x.std(dim=0) + 1e-3))
    z, w = ((x - gate.centre) * gate.scale).clamp(-6, 6), torch.from_numpy(weights.astype(np.float32))
    optimiser = torch.optim.AdamW([*gate.hidden.parameters(), *gate.answer.parameters()], RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(y) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        pick = torch.randint(len(y), (128,))
        rows = z[pick] + NOISE * torch.randn(128, z.shape[1])
        rows = rows * (torch.rand_like(rows) > DROP)
        logits = gate.answer(torch.relu(gate.hidden(rows)))
        loss = (F.cross_entropy(logits, y[pick], reduction="none", label_smoothing=0.02) * w[pick]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return gate.eval()


def logits_of(gate: Gate, statistics: np.ndarray) -> np.ndarray:
    """N x STATISTICS -> N x (1 + reasons)."""
    with torch.no_grad():
        return gate.from_statistics(torch.from_numpy(np.asarray(statistics, np.float32))).numpy()


class Pool:
    """Good and bad examples side by side."""

    def __init__(self, store: Store, spoilt: dict[str, np.ndarray]) -> None:
        """Every view of every photograph is good."""
        self.good = np.asarray(store.statistics)
        self.bad = spoilt
        self.answer = 1 + np.array([REASONS.index(reason) for reason in spoilt["reason"]])
        base = [str(kind).removesuffix(" in a disc") for kind in spoilt["kind"]]
        order = {kind: i for i, kind in enumerate([*KINDS, *others.ARCHIVES, "immunostained tissue", *others.NONSENSE])}
        self.group = np.array([order[kind] % GROUPS for kind in base])
        self.known: dict[tuple, Gate] = {}

    def head(self, photographs: np.ndarray, without_group: int | None, seed: int) -> Gate:
        """A head trained on some photographs and all groups of kinds but one; trained once."""
        key = (photographs.tobytes(), without_group, seed)
        if key not in self.known:
            self.known[key] = self._fit(photographs, without_group, seed)
        return self.known[key]

    def _fit(self, photographs: np.ndarray, without_group: int | None, seed: int) -> Gate:
        allowed = np.isin(self.bad["photograph"], [-1, *photographs])
        if without_group is not None:
            allowed &= self.group != without_group
        views = self.good[photographs]
        x = np.concatenate([views.reshape(-1, views.shape[-1]), self.bad["statistics"][allowed]])
        y = np.concatenate([np.zeros(views.shape[0] * views.shape[1], np.int64), self.answer[allowed]])
        w = np.ones(len(y))
        w[: len(y) - allowed.sum()][:: views.shape[1]] = 3.0  # the photographs themselves
        return fit(x.astype(np.float32), y, w, seed)


def evaluate(pool: Pool, labels: fundus.Labels, good: np.ndarray, spoilt: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of held-out photographs, kinds and domains.

    `good` (photographs x views x STATISTICS) and `spoilt` are what is scored: the pool's own, or what an INT8 network
    says of the same pictures; rows of NaN are left out.
    """
    count = len(labels.names)
    clean, views = np.zeros((GROUPS, count)), np.zeros((GROUPS, count, good.shape[1] - 1))
    bad, told = np.full(len(pool.answer), np.nan), np.zeros(len(pool.answer), int)
    parts = np.full(len(pool.answer), -1)
    for number, (_, held_out) in enumerate(folds(labels)):
        parts[np.isin(pool.bad["photograph"], held_out)] = number
    no_retina = pool.bad["photograph"] < 0
    parts[no_retina] = np.arange(no_retina.sum()) % FOLDS
    for number, (train, held_out) in enumerate(tqdm(folds(labels), desc="gate, unseen kinds")):
        for group in range(GROUPS):
            gate = pool.head(train, group, SEED + number)
            scored = logits_of(gate, good[held_out].reshape(-1, good.shape[-1]))
            refused = 1 - figures.softmax(scored)[:, 0].reshape(len(held_out), -1)
            clean[group, held_out], views[group, held_out] = refused[:, 0], refused[:, 1:]
            mine = (parts == number) & (pool.group == group) & ~np.isnan(spoilt[:, 0])
            answer = logits_of(gate, spoilt[mine])
            bad[mine], told[mine] = 1 - figures.softmax(answer)[:, 0], 1 + answer[:, 1:].argmax(axis=1)
    return {"clean": clean, "views": views, "bad": bad, "told": told}


def threshold_of(scores: dict) -> float:
    """The greatest share of "fit to answer" that may be asked for with at most CLEAN_REFUSED_MAX of clean ones refused.

    Not above 0.75: photographs of other cameras lie nearer the edge than these.
    """
    fit_share = 1 - scores["clean"]
    asked = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
    return max([t for t in asked if (fit_share < t).mean() <= CLEAN_REFUSED_MAX], default=asked[0])


def summary(pool: Pool, scores: dict, threshold: float) -> dict[str, object]:
    """Figures of unseen kinds; `threshold` is on the share that says refuse."""
    clean, bad = scores["clean"], scores["bad"]
    there = ~np.isnan(bad)
    found, lost = pool.bad["found"] & there, ~pool.bad["found"] & there
    spoilt, foreign = (pool.bad["photograph"] >= 0) & there, (pool.bad["photograph"] < 0) & there

    def area(mask: np.ndarray, group: int | None = None) -> float:
        """Clean photographs against these, both as scored by the heads that had not seen the kinds."""
        groups = range(GROUPS) if group is None else [group]
        negative = np.concatenate([clean[g] for g in groups])
        positive = np.concatenate([bad[mask & (pool.group == g)] for g in groups])
        truth = np.r_[np.zeros(len(negative)), np.ones(len(positive))]
        return figures.auc(truth, np.r_[negative, positive])

    kinds = {}
    for kind in dict.fromkeys(pool.bad["kind"].tolist()):
        mine = (pool.bad["kind"] == kind) & there
        seen = mine & found
        kinds[kind] = {
            "pictures": int(mine.sum()),
            "no_disc_found": float(lost[mine].mean()),
            "refused": float((lost | (bad >= threshold))[mine].mean()),
            "auc": area(seen, int(pool.group[mine][0])) if seen.any() else None,
            "right_reason": float((scores["told"] == pool.answer)[seen].mean()) if seen.any() else None,
        }
    return {
        "auc_degraded": area(spoilt & found),
        "auc_not_a_retina": area(foreign & found),
        "auc_all": area(found),
        "clean_refused": float((clean >= threshold).mean()),
        "views_refused": float((scores["views"] >= threshold).mean()) if scores["views"].size else None,
        "degraded_refused": float((lost | (bad >= threshold))[spoilt].mean()),
        "degraded_past_finder_refused": float((bad >= threshold)[spoilt & found].mean()),
        "foreign_pictures": int(foreign.sum()),
        "foreign_answered": float((found & (bad < threshold))[foreign].mean()),
        "foreign_past_finder": int((foreign & found).sum()),
        "foreign_past_finder_answered": float((bad < threshold)[foreign & found].mean()),
        "right_reason": float((scores["told"] == pool.answer)[spoilt & found].mean()),
        "kinds": kinds,
    }


def int8_statistics(photographs: list, found: np.ndarray, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """What the served INT8 gate sees: of clean photographs, and of every `INT8_EVERY`-th one spoilt; NaN elsewhere."""
    path = options.work / "spoilt-int8.npz"
    if not path.exists():
        import export as bundling  # it imports nothing from here, but is called `export` like common.export

        squares = np.stack([fundus.plain(retina.square(p), None).picture for p in photographs])
        net = bundling.served(options.work, "final", "gate-final")
        xml = bundling.quantised(options.work, net, squares, np.arange(len(squares)), "final")
        model = ov.Core().read_model(xml)
        inner = next(op for op in model.get_ops() if op.get_friendly_name() == STATISTICS_OPERATION)
        model.add_outputs([inner.output(0)])[0].get_tensor().set_names({"statistics"})
        runner = export.Runner(model)

        def seen(picture: np.ndarray) -> np.ndarray:
            return runner.run(tensors([picture])[0])["statistics"][0]

        good = np.stack([seen(square) for square in tqdm(squares, desc="INT8 clean")])
        bad = np.full((len(found), good.shape[1]), np.nan, np.float32)
        for number, picture, *_ in tqdm(examples(photographs, options.data_sets, INT8_EVERY), desc="INT8 spoilt"):
            if found[number]:
                bad[number] = seen(cropped(picture)[0])
        np.savez(path.with_suffix(".part.npz"), good=good, bad=bad)
        path.with_suffix(".part.npz").rename(path)
    return dict(np.load(path))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=Path, required=True, help="folder above the data sets")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    photographs, labels = fundus.load(options.data_sets / "idrid-512")
    pool = Pool(Store(options.work, "r"), compute(photographs, options.data_sets, options.work))
    everything = np.arange(len(labels.names))
    for name, train in [*((str(n), train) for n, (train, _) in enumerate(folds(labels))), ("-final", everything)]:
        path = options.work / f"gate{name}.pt"
        if not path.exists():
            torch.save(pool.head(train, None, SEED).state_dict(), path)
    scores = {"fp32": evaluate(pool, labels, pool.good, pool.bad["statistics"])}
    small = int8_statistics(photographs, pool.bad["found"], options)
    scores["int8"] = evaluate(pool, labels, small["good"][:, None], small["bad"])
    threshold = threshold_of(scores["fp32"])
    result = {name: summary(pool, found, 1 - threshold) for name, found in scores.items()}
    result |= {"threshold": threshold, "temperature": 1.0}
    (options.work / "gate.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.work / "gate.seconds").write_text(f"{time.process_time():.0f}\n")
    print(json.dumps({k: {n: v for n, v in result[k].items() if n != "kinds"} for k in ("fp32", "int8")}, indent=1))


if __name__ == "__main__":
    main()
