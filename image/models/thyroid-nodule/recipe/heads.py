"""Fits the two small heads, suspicion and gate, on what the frozen branch sees.

In: the work folder of train.py, the data folders. Out, in the work folder, for each fold and the final network:
`<name>-served.pt` (all that is exported) and `gates.npz` (answers of gates that were never taught one kind of picture).
Promise: nothing of a held-out patient, and no test picture of another domain, has a part in a head that is scored on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from pydicom.encaps import generate_frames
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F
from tqdm import tqdm

import domains
import frames as fr
from network import REASONS, Gate, Served
from train import NAMES, Features, new_net

VIEWS = 3
"""Random views of each frame for the gate, beside the frame itself; the last one is moved a lot."""

COUNT = 80
"""Pictures to teach, and as many to test, of each data set of another domain."""

OWN = 160
"""Frames of this data set that are bent to fans, and as many painted with flow, so that texture does not tell."""

PHANTOMS = 60
"""Drawn scans that the gate is taught to let pass."""

EPOCHS = 12
STRENGTH = 0.01
"""Inverse strength of the suspicion head's penalty: the classes overlap, a free fit would learn the frames by heart."""

STRENGTH_INT8 = 0.003
"""The same for the head that is fitted to what the INT8 network computes: rounding is one more thing not to learn."""


def teach_gate(columns: np.ndarray, answers: np.ndarray) -> Gate:
    """A gate fitted to standardised columns; frames that fit weigh as much as all others together."""
    torch.manual_seed(fr.SEED)
    gate = Gate()
    x, wanted = torch.from_numpy(columns), torch.from_numpy(answers)
    with torch.no_grad():
        gate.centre.copy_(x.mean(0))
        gate.scale.copy_(1 / (x.std(0) + 1e-3))
    share = torch.tensor([0.5, 0.2, 0.2, 0.1]) / torch.bincount(wanted, minlength=1 + len(REASONS)).clamp(min=1)
    share = share / share[wanted].mean()
    optimiser = torch.optim.AdamW(gate.parameters(), lr=2e-3, weight_decay=0.05)
    rng = np.random.default_rng(fr.SEED)
    for epoch in range(EPOCHS):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - epoch / EPOCHS)
        for rows in np.array_split(rng.permutation(len(answers)), max(1, len(answers) // 64)):
            # Noise on the columns: INT8 and other scanners move them.
            shaken = x[rows] + 0.2 * torch.randn(len(rows), x.shape[1]) / gate.scale
            loss = F.cross_entropy(gate(shaken), wanted[rows], share, label_smoothing=0.01)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return gate.eval()


def teach_suspicion(columns: np.ndarray, answers: np.ndarray, strength: float = STRENGTH) -> tuple[np.ndarray, float]:
    """Weights and bias of one logit for unstandardised columns (inside and outside means, side by side)."""
    change = _inside_and_difference()
    seen = columns @ change
    centre, spread = seen.mean(0), seen.std(0) + 1e-4
    model = LogisticRegression(C=strength, max_iter=1000).fit((seen - centre) / spread, answers)
    slope = model.coef_[0] / spread
    return (change @ slope).astype(np.float32), float(model.intercept_[0] - slope @ centre)


def suspicion_rows(data: fr.Frames, train: np.ndarray) -> np.ndarray:
    """Frames of the training part that teach suspicion: labelled, and pictures of tissue."""
    return np.array([r for r in train if data.suspicious[r] >= 0 and data.names[r] not in fr.BROKEN])


def suspicion_views(data: fr.Frames, rows: np.ndarray) -> list[np.ndarray]:
    """The frames as seen, then all of them mirrored."""
    pictures = [fr.as_seen(data.pictures[r]) for r in rows]
    return pictures + [np.ascontiguousarray(p[:, ::-1]) for p in pictures]


def _inside_and_difference() -> np.ndarray:
    """Turns (inside, outside) of both strides into (inside, inside - outside), on which one penalty is fair."""
    blocks = []
    for channels in (112, 192):
        one = np.eye(channels)
        blocks.append(np.block([[one, one], [np.zeros_like(one), -one]]))
    rows = sum(len(b) for b in blocks)
    change, at = np.zeros((rows, rows)), 0
    for block in blocks:
        change[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return change


def other_ultrasound(folder: Path) -> dict[str, list[np.ndarray]]:
    """Frames of DICOM objects of other organs as the network sees them; never taught. Palette indices are read as grey."""
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("*.dcm")):
        data = pydicom.dcmread(path)
        if data.file_meta.TransferSyntaxUID.is_compressed:
            count = int(data.get("NumberOfFrames", 1))
            packed = list(generate_frames(data.PixelData, number_of_frames=count))
            planes = [cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for p in packed]
        else:
            planes = [data.pixel_array]
        found[path.stem] = [fr.as_seen(p) for p in planes]
    return found


class Whole:
    """The gate's columns of u8 pictures; the same for every trained network."""

    def __init__(self) -> None:
        """Compiles."""
        self.run = Features(Served(new_net()))

    def __call__(self, pictures: list[np.ndarray]) -> np.ndarray:
        """N x GATE_FEATURES."""
        return self.run(pictures)[2]


def gate_views(data: fr.Frames, row: int) -> list[np.ndarray]:
    """The frame and VIEWS views of it. A view that is mostly black border is drawn again: no probe gives such a field."""
    rng = np.random.default_rng([fr.SEED, 50, row])
    views = [fr.as_seen(data.pictures[row])]
    while len(views) <= VIEWS:
        seen = fr.view(data.pictures[row], data.masks[row], rng, far=len(views) == VIEWS)[0]
        if (cv2.blur(seen, (9, 9)) > 6).mean() > 0.6 or rng.random() < 0.05:
            views.append(seen)
    return views


def columns(options: argparse.Namespace, data: fr.Frames) -> dict[str, np.ndarray]:
    """Everything the gates are taught and tested with, as columns; kept on disk."""
    path = options.work / "columns.npz"
    if path.exists():
        return dict(np.load(path))
    whole, found = Whole(), {}
    rng = np.random.default_rng([fr.SEED, 60])
    found["frames"] = np.stack([whole(gate_views(data, r)) for r in tqdm(range(len(data.names)), desc="frames")])
    found["phantoms"] = whole([domains.phantom(rng)[0] for _ in range(PHANTOMS)])
    picked = rng.permutation(len(data.names))[:OWN]
    found["own_rows"] = picked
    found["own/sector"] = whole([domains.sector(fr.as_seen(data.pictures[r]), rng) for r in picked])
    found["own/colour flow"] = whole([domains.colour_flow(fr.as_seen(data.pictures[r]), rng) for r in picked])
    for kind, (taught, tested) in tqdm(domains.kinds(options.others, COUNT).items(), desc="other pictures"):
        found[f"taught/{kind}"], found[f"tested/{kind}"] = whole(taught), whole(tested)
    for kind, pictures in other_ultrasound(options.others / "dicom-ultrasound-samples").items():
        found[f"tested/dicom {kind}"] = whole(pictures)
    np.savez(path, **found)
    return found


def gate_without(found: dict[str, np.ndarray], train: np.ndarray, left_out: str | None, broken: np.ndarray) -> Gate:
    """A gate taught with the frames `train` and all kinds but one."""
    fits = found["frames"][np.setdiff1d(train, broken)].reshape(-1, found["frames"].shape[-1])
    parts, answers = [fits, found["phantoms"]], [0] * (len(fits) + len(found["phantoms"]))
    own = np.isin(found["own_rows"], train)
    for name, values in found.items():
        group, _, kind = name.partition("/")
        if group not in ("own", "taught") or kind == left_out:
            continue
        values = values[own] if group == "own" else values
        parts.append(values)
        answers += [domains.REASON[kind]] * len(values)
    return teach_gate(np.concatenate(parts), np.array(answers))


def gate_answers(gate: Gate, values: np.ndarray) -> np.ndarray:
    """Logits N x 4."""
    with torch.no_grad():
        return gate(torch.from_numpy(values)).numpy()


def unseen_kinds(found: dict[str, np.ndarray], train: np.ndarray, held_out: np.ndarray, broken: np.ndarray, path: Path) -> None:
    """How gates answer kinds of pictures that they were never taught, and still let frames pass."""
    answers = {}
    kinds = [name.partition("/")[2] for name in found if name.startswith("taught/")]
    for kind in tqdm(kinds, desc="gates with one kind left out"):
        gate = gate_without(found, train, kind, broken)
        answers[f"unseen/{kind}"] = gate_answers(gate, found[f"tested/{kind}"])
        answers[f"pass/{kind}"] = gate_answers(gate, found["frames"][held_out, 0])
    np.savez(path, **answers)


def main() -> None:
    """All six networks."""
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = fr.load(options.data)
    found = columns(options, data)
    broken = np.array([r for r, n in enumerate(data.names) if n in fr.BROKEN])
    parts = dict(zip(NAMES, [*fr.folds(data), (np.arange(len(data.names)), np.arange(0))], strict=True))
    if not (options.work / "gates.npz").exists():
        unseen_kinds(found, *parts[NAMES[0]], broken, options.work / "gates.npz")
    for name, (train, _) in parts.items():
        if (options.work / f"{name}-served.pt").exists() or not (options.work / f"{name}.pt").exists():
            continue
        net = new_net()
        net.load_state_dict(torch.load(options.work / f"{name}.pt", weights_only=True))
        served = Served(net)
        rows = suspicion_rows(data, train)
        nodule = Features(served)(suspicion_views(data, rows))[1]
        slope, bias = teach_suspicion(nodule, np.tile(data.suspicious[rows], 2))
        served.suspicious.weight.copy_(torch.from_numpy(slope)[None])
        served.suspicious.bias.fill_(bias)
        served.gate.load_state_dict(gate_without(found, train, None, broken).state_dict())
        torch.save(served.state_dict(), options.work / f"{name}-served.pt")
        print(f"{name}: heads fitted")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images.zip")
    parser.add_argument("--others", type=Path, required=True, help="folder that holds the folders of other data sets")
    parser.add_argument("--work", type=Path, required=True, help="work folder of train.py")
    return parser.parse_args()


if __name__ == "__main__":
    main()
