"""Thyroid ultrasound frames: reading, folds, the tensor the appliance makes, and the views that training sees.

In: the data folder of DDTI (labels.csv, images.zip). Out: frames with one mask each, folds by patient, u8 views.
Promise: pictures that are the same pixel for pixel are one frame whose mask is the union of theirs, and patients who
share a picture are one patient: nothing of a held-out patient is ever trained on.
"""

from __future__ import annotations

import csv
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import backbone, export

SEED = 20260512
FOLDS = 5
SIDE_PX = 256
"""Rows and columns of the network's input."""

MASK_PX = 128
"""Rows and columns of the network's mask."""

BROKEN = frozenset({"338_2_n1.jpg"})
"""Never trained on: the crop fell on the caption panel and its mask lies on letters. Scored all the same."""


@dataclass
class Frames:
    """The pictures and what is known of them; all lists and arrays of one length."""

    names: list[str]
    """First file name of each frame."""
    pictures: list[np.ndarray]
    """Grey, rows x columns, u8."""
    masks: list[np.ndarray]
    """Rows x columns, u8, 1 inside a nodule; all 0 where nothing is marked."""
    patients: np.ndarray
    """One number a patient; patients that share a picture share the number."""
    tirads: list[str]
    """"2", "3", "4a", "4b", "4c", "5" or ""."""
    suspicious: np.ndarray
    """1 for TI-RADS 4a and up, 0 for 2 and 3, -1 where not stated."""

    @property
    def marked(self) -> np.ndarray:
        """Whether a nodule is marked in the frame."""
        return np.array([bool(m.any()) for m in self.masks])


def load(folder: Path) -> Frames:
    """Reads the data folder."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    seen: dict[bytes, int] = {}
    frames = Frames([], [], [], np.zeros(0, int), [], np.zeros(0, int))
    cases: list[set[str]] = []
    with zipfile.ZipFile(folder / "images.zip") as pack:
        inside = {Path(name).name: name for name in pack.namelist()}
        for row in rows:
            picture = _grey(pack.read(inside[row["file"]]))
            mask = (_grey(pack.read(inside[row["file"].replace(".jpg", "_mask.png")])) > 127).astype(np.uint8)
            place = seen.setdefault(picture.tobytes(), len(frames.names))
            if place < len(frames.names):
                frames.masks[place] |= mask
                cases[place].add(row["case"])
                frames.tirads[place] = max(frames.tirads[place], row["tirads"])
                continue
            frames.names.append(row["file"])
            frames.pictures.append(picture)
            frames.masks.append(mask)
            frames.tirads.append(row["tirads"])
            cases.append({row["case"]})
    frames.suspicious = np.array([-1 if not t else int(t >= "4") for t in frames.tirads])
    frames.patients = _patients(cases)
    return frames


def _grey(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def _patients(cases: list[set[str]]) -> np.ndarray:
    """Numbers such that frames with a case in common have one number."""
    name_of: dict[str, int] = {}
    for names in cases:
        numbers = {name_of[n] for n in names if n in name_of}
        number = min(numbers, default=len(name_of))
        for name, old in list(name_of.items()):
            if old in numbers:
                name_of[name] = number
        for name in names:
            name_of[name] = number
    return np.array([name_of[next(iter(names))] for names in cases])


def folds(frames: Frames) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, held out) indices by patient, classes spread evenly."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(splitter.split(np.zeros(len(frames.names)), frames.suspicious, frames.patients))


# What the appliance does


def area_weights(source: int, target: int) -> np.ndarray:
    """Row i holds the share of every source sample in target sample i: exact box average, up or down."""
    edges = np.arange(target + 1) * (source / target)
    starts = np.arange(source)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.clip(overlap, 0, None) * (target / source)).astype(np.float32)


def squared(picture: np.ndarray) -> np.ndarray:
    """Padded with black to a square, the picture in the middle."""
    rows, columns = picture.shape[:2]
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    edges = [(top, side - rows - top), (left, side - columns - left)] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, edges)


def area_resize(square: np.ndarray, side: int) -> np.ndarray:
    """Area-average resize of a square picture; float32 in the source's units."""
    weights = area_weights(square.shape[0], side)
    planes = square.astype(np.float32)
    if planes.ndim == 2:
        return weights @ planes @ weights.T
    return np.stack([weights @ planes[..., c] @ weights.T for c in range(planes.shape[2])], axis=2)


def as_seen(picture: np.ndarray) -> np.ndarray:
    """What the network gets of a whole frame: padded, SIDE_PX x SIDE_PX (x 3), u8."""
    return to_u8(area_resize(squared(picture), SIDE_PX))


def to_u8(picture: np.ndarray) -> np.ndarray:
    """Rounds to u8."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def tensor(picture: np.ndarray) -> np.ndarray:
    """Rows x columns (grey) or rows x columns x 3 in 0..255 -> 3 x rows x columns, normalised float32."""
    return export.tensor(picture, backbone.MEAN, backbone.STD)


# Training views


def view(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator, far: bool) -> tuple[np.ndarray, np.ndarray]:
    """A random view: SIDE_PX u8 picture and MASK_PX share-of-nodule mask, as other hands and machines might give it.

    `far` moves the frame a lot: the data set's crops have the nodule in the middle at one size, a clinic's frames do not.
    """
    moved, inside = _move(picture, mask, rng, far)
    shades = _shade(_degrade(moved, rng), rng)
    if rng.random() < 0.25:
        shades = written(shades, rng)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        shades = cv2.imdecode(cv2.imencode(".jpg", shades, quality)[1], cv2.IMREAD_GRAYSCALE)
    return shades, cv2.resize(inside.astype(np.float32), (MASK_PX, MASK_PX), interpolation=cv2.INTER_AREA)


def moved_view(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Only moved and scaled, for scoring: how the network holds up where the nodule is not in the middle."""
    moved, inside = _move(picture, mask, rng, far=True)
    return moved, cv2.resize(inside.astype(np.float32), (MASK_PX, MASK_PX), interpolation=cv2.INTER_AREA)


def _move(picture, mask, rng, far) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, turn, scale, stretch and shift; at times letterboxed, or a corner without the nodule."""
    side = picture.shape[0]
    if far:
        scale, turn, shift = np.exp(rng.uniform(np.log(0.55), np.log(1.5))), rng.uniform(-15, 15), 0.2
    else:
        scale, turn, shift = rng.uniform(0.88, 1.18), rng.uniform(-8, 8), 0.06
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), turn, 1.0)
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    centre = side / 2
    matrix = np.diag([scale * stretch, scale / stretch]) @ (matrix - [[0, 0, centre], [0, 0, centre]])
    matrix[:, 2] += centre + rng.uniform(-shift, shift, 2) * side
    if rng.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += side
    zoom = SIDE_PX / side
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REFLECT_101
    size = (SIDE_PX, SIDE_PX)
    if border == cv2.BORDER_REFLECT_101 and scale < 0.85:
        border = cv2.BORDER_CONSTANT  # a mirrored nodule would be one more nodule
    soft = cv2.GaussianBlur(picture, (0, 0), 0.45) if scale * zoom < 1 else picture
    moved = cv2.warpAffine(soft, matrix * zoom, size, flags=cv2.INTER_LINEAR, borderMode=border)
    edge = cv2.BORDER_REFLECT_101 if border == cv2.BORDER_REFLECT_101 else cv2.BORDER_CONSTANT
    inside = cv2.warpAffine(mask, matrix * zoom, size, flags=cv2.INTER_NEAREST, borderMode=edge)
    if far and rng.random() < 0.25:
        moved, inside = _letterbox(moved, inside, rng)
    return moved, inside


def _letterbox(moved, inside, rng) -> tuple[np.ndarray, np.ndarray]:
    """Black above and below or at the sides, as frames that are not square are padded."""
    bar = int(rng.uniform(0.05, 0.2) * SIDE_PX)
    for plane in (moved, inside):
        if bar % 2:
            plane[:bar], plane[-bar:] = 0, 0
        else:
            plane[:, :bar], plane[:, -bar:] = 0, 0
    return moved, inside


def _degrade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speckle of another grain, blur, noise; float32 in 0..1."""
    x = picture.astype(np.float32) / 255
    if rng.random() < 0.35:
        grain = rng.standard_normal((SIDE_PX, SIDE_PX), np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.4, 1.8), sigmaY=rng.uniform(0.4, 1.2))
        x = x * np.exp(grain / (grain.std() + 1e-6) * rng.uniform(0.05, 0.3))
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.6))
    if rng.random() < 0.15:
        x = x + rng.normal(0, rng.uniform(0.01, 0.04), x.shape).astype(np.float32)
    return np.clip(x, 0, 1)


def _shade(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gain, gamma, contrast, depth gain and a shadow; u8."""
    black = x < 0.004
    x = x ** np.float32(rng.uniform(0.6, 1.6))
    x = x * np.float32(rng.uniform(0.6, 1.5)) + np.float32(rng.uniform(-0.06, 0.06))
    ramp = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)
    if rng.random() < 0.5:
        x = x * (1 + np.float32(rng.uniform(-0.4, 0.4)) * ramp[:, None] + np.float32(rng.uniform(-0.2, 0.2)) * ramp)
    if rng.random() < 0.15:
        middle, width = rng.uniform(-1, 1), rng.uniform(0.05, 0.25)
        x = x * (1 - np.float32(rng.uniform(0.3, 0.8)) * np.exp(-(((ramp - middle) / width) ** 2)).astype(np.float32))
    x[black] = 0
    return to_u8(x * 255)


def written(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters and caliper crosses anywhere: on real frames crosses sit on the outline and would give it away."""
    out = picture.copy()
    for _ in range(int(rng.integers(1, 6))):
        at = (int(rng.integers(0, SIDE_PX)), int(rng.integers(8, SIDE_PX)))
        shade = int(rng.integers(120, 256))
        if rng.random() < 0.6:
            cv2.drawMarker(out, at, shade, int(rng.choice([0, 1])), int(rng.integers(5, 14)), 1)
        else:
            text = "".join(rng.choice(list("ABCDLRTISO0123456789.+ "), int(rng.integers(1, 9))))
            cv2.putText(out, text, at, int(rng.choice([0, 1, 2, 3])), rng.uniform(0.3, 0.7), shade, 1, cv2.LINE_AA)
    return out
