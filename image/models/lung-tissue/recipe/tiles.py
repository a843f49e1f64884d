"""Lung tiles: reading, folds, training views, tensors.

In: the LC25000 lung folder (labels.csv, images.zip). Out: RGB u8 tiles of 224 x 224, their classes, and folds that no
original enters twice.
Promise: `tensor` normalises exactly as the appliance does from the bundle's mean and std.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

import stain

SEED = 20260523
FOLDS = 5
SIDE_PX = 224

CLASSES = ("benign", "adenocarcinoma", "squamous_cell_carcinoma")
"""As labels.csv spells them; the order of the network's answers."""

MEAN = np.array([0.498, 0.498, 0.498], np.float32)
STD = np.array([0.502, 0.502, 0.502], np.float32)
"""Normalisation that the ImageNet weights were trained with: (value - 127) / 128."""


@dataclass(frozen=True)
class Tiles:
    """All tiles, index-aligned."""

    names: list[str]
    pictures: np.ndarray
    classes: np.ndarray
    groups: np.ndarray

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(train, held out) indices: whole groups, classes in equal shares."""
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
        return list(splitter.split(np.zeros(len(self.names)), self.classes, self.groups))


def load(data: Path) -> Tiles:
    """Reads labels.csv and images.zip."""
    with open(data / "labels.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("train", "val")]
    with zipfile.ZipFile(data / "images.zip") as archive:
        pictures = [decode_rgb(archive.read(row["file"])) for row in rows]
    return Tiles(
        names=[row["file"] for row in rows],
        pictures=np.stack(pictures),
        classes=np.array([CLASSES.index(row["class"]) for row in rows]),
        groups=np.unique([row["group"] for row in rows], return_inverse=True)[1],
    )


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG to RGB u8."""
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("not a readable JPEG or PNG")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def inner_square(rgb: np.ndarray, side: int = SIDE_PX) -> np.ndarray:
    """The largest square around the middle, area-averaged (or interpolated, where it is smaller) to `side`; u8."""
    rows, columns = rgb.shape[:2]
    least = min(rows, columns)
    top, left = (rows - least) // 2, (columns - least) // 2
    square = rgb[top : top + least, left : left + least]
    if least == side:
        return np.ascontiguousarray(square)
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if least > side else cv2.INTER_LINEAR)


def tensor(picture: np.ndarray) -> np.ndarray:
    """Rows x columns x 3, 0 to 255 -> 3 x rows x columns, normalised float32."""
    return np.ascontiguousarray(((picture.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))


# Training views


def view(picture: np.ndarray, rng: np.random.Generator, colours: float = 1.0) -> np.ndarray:
    """One random view of a tile as another field, laboratory and camera might have given it; `colours` 0: geometry alone."""
    out = _move(picture, rng)
    if colours > 0:
        if rng.random() < 0.85:
            out = stain.jitter(out, rng, colours)
        out = degrade(out, rng)
    return out


def _move(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Quarter turn, flip, free turn, and a scale of 0.62 to 1.3; what lies outside the tile is its mirror image."""
    side = picture.shape[0]
    out = np.rot90(picture, rng.integers(4))
    if rng.random() < 0.5:
        out = out[:, ::-1]
    turn = rng.uniform(-20, 20) if rng.random() < 0.4 else 0.0
    scale = float(np.exp(rng.uniform(np.log(0.62), np.log(1.3)))) if rng.random() < 0.6 else 1.0
    if turn == 0.0 and scale == 1.0:
        return np.ascontiguousarray(out)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), turn, scale)
    matrix[:, 2] += rng.uniform(-0.06, 0.06, 2) * side
    out = cv2.GaussianBlur(out, (0, 0), 0.35 / scale) if scale < 0.9 else np.ascontiguousarray(out)
    return cv2.warpAffine(out, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def degrade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slight blur, noise and JPEG, each now and then: still a picture that should be read."""
    if rng.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.1))
    if rng.random() < 0.2:
        noisy = picture + rng.normal(0, rng.uniform(1, 6), picture.shape).astype(np.float32)
        picture = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        _, packed = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        picture = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(picture)
