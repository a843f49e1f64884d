"""Fundus photographs: labels, lesion masks, and training views.

In: the data folder (labels.csv, images.zip, lesions.zip). Out: RGB pictures (u8), labels, masks, random views.
Promise: a photograph that occurs twice is used once; a lesion mask is used only where its photograph is one of these.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from network import MAP_SIDE, SIDE_PX
from retina import to_u8

LESIONS = ("MA", "HE", "EX", "SE")
"""Masks that count as lesions: microaneurysms, haemorrhages, hard and soft exudates."""

SAME_PHOTOGRAPH = 0.999
"""Least correlation of two pictures at 48 x 48 pixels that makes them one photograph."""


@dataclass(frozen=True)
class Labels:
    """Labels of all photographs, index-aligned with the pictures."""

    names: list[str]
    dr_grade: np.ndarray
    dme_risk: np.ndarray

    @property
    def referable(self) -> np.ndarray:
        """1 where the DR grade is 2 or worse."""
        return (self.dr_grade >= 2).astype(np.int64)


def load(data: Path) -> tuple[list[np.ndarray], Labels]:
    """Reads `labels.csv` and `images.zip` of the data folder: pictures (RGB u8) and their labels.

    The data set holds some photographs twice, with equal bytes and not always with equal grades. Each is kept once,
    with the worse grade: a repeat in another fold would be an answer given away.
    """
    with open(data / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kept: dict[bytes, dict[str, str]] = {}
    with zipfile.ZipFile(data / "images.zip") as archive:
        for row in rows:
            known = kept.setdefault(archive.read(row["file"]), row)
            known["dr_grade"] = max(known["dr_grade"], row["dr_grade"])
            known["dme_risk"] = max(known["dme_risk"], row["dme_risk"])
    labels = Labels(
        names=[row["file"] for row in kept.values()],
        dr_grade=np.array([int(row["dr_grade"]) for row in kept.values()]),
        dme_risk=np.array([int(row["dme_risk"]) for row in kept.values()]),
    )
    return [decode_rgb(encoded) for encoded in kept], labels


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG to RGB u8."""
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("not a readable JPEG or PNG")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def lesion_masks(data: Path, pictures: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Index of a photograph -> union of its lesion masks (u8, 0 or 1, size of the photograph).

    The masks come with photographs of their own. Most are among `pictures`; the others may belong to the data set's
    test part and are left alone.
    """
    known = np.stack([_thumbnail(picture) for picture in pictures])
    found: dict[int, np.ndarray] = {}
    with zipfile.ZipFile(data / "lesions.zip") as archive:
        names = set(archive.namelist())
        for name in sorted(n for n in names if n.endswith(".jpg")):
            picture = decode_rgb(archive.read(name))
            likeness = known @ _thumbnail(picture)
            if likeness.max() < SAME_PHOTOGRAPH:
                continue
            union = np.zeros(picture.shape[:2], np.uint8)
            for kind in LESIONS:
                mask = f"{name[:-4]}_{kind}.png"
                if mask in names:
                    union |= (decode_rgb(archive.read(mask))[..., 0] > 0).astype(np.uint8)
            found[int(likeness.argmax())] = union
    return found


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    small = cv2.resize(picture, (48, 48), interpolation=cv2.INTER_AREA).astype(np.float64)
    flat = ((small - small.mean()) / small.std()).ravel()
    return flat / np.linalg.norm(flat)


# Training views


@dataclass(frozen=True)
class View:
    """A picture as the network sees it and, where there is a mask, the share of lesion in each field of the map."""

    picture: np.ndarray
    lesions: np.ndarray | None


def plain(square: np.ndarray, mask: np.ndarray | None) -> View:
    """The retina square as the appliance gives it to the network."""
    return View(_shrink(square), None if mask is None else _to_map(mask))


def view(square: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> View:
    """One random view of a retina square as another camera and another hand might have taken it."""
    matrix, circle, across, down = _movement(square.shape[0], rng)
    out = _degrade(_recolour(_shrink(_moved(square, matrix, circle, across, down)), rng), rng)
    return View(out, None if mask is None else _to_map(_moved(mask, matrix, circle, across, down)))


def _shrink(square: np.ndarray) -> np.ndarray:
    # OpenCV's area mode equals the appliance's exact area average where it shrinks, and is many times faster.
    shrinks = square.shape[0] >= SIDE_PX
    return cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _to_map(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)


def _movement(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None, bool, bool]:
    """Flip, turn, scale, shift; sometimes a full circle, as cameras give that do not cut the disc's top and bottom."""
    round_field = rng.random() < 0.3
    zoom = rng.uniform(1.12, 1.22) if round_field else rng.uniform(0.94, 1.08)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-20, 20), zoom)
    matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * side
    circle = None
    if round_field:
        circle = cv2.circle(np.zeros((side, side), np.uint8), (side // 2, side // 2), side // 2, 1, cv2.FILLED)
    return matrix, circle, bool(rng.random() < 0.5), bool(rng.random() < 0.3)


def _moved(plane: np.ndarray, matrix: np.ndarray, circle: np.ndarray | None, across: bool, down: bool) -> np.ndarray:
    out = cv2.warpAffine(plane, matrix, plane.shape[1::-1], flags=cv2.INTER_LINEAR)
    if circle is not None:
        out = out * (circle[..., None] if out.ndim == 3 else circle)
    out = out[:, ::-1] if across else out
    return out[::-1] if down else out


def _recolour(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, gamma, colour cast, saturation and a gradient of illumination."""
    x = picture.astype(np.float32) / 255
    lit = x.max(axis=2, keepdims=True) > 0.04
    x = x ** rng.uniform(0.65, 1.5)
    # Strong, because in this data colour alone tells much of the grade (AUC 0.77), and would not elsewhere.
    x = x * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.13, 3)).astype(np.float32)
    if rng.random() < 0.3:
        # Flash and film differ most in blue and in a veil of scattered light.
        x = x * (1 - rng.uniform(0, 0.15)) + lit * rng.uniform(0, 0.15) * np.array([0.8, 0.8, 1.0], np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * rng.uniform(0.7, 1.25)
    if rng.random() < 0.4:
        ramp = np.linspace(-1, 1, picture.shape[0], dtype=np.float32)
        across, down = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
        x = x * (1 + across * ramp[None, :, None] + down * ramp[:, None, None])
    return np.clip(x * 255, 0, 255).astype(np.float32)


def _degrade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise and JPEG."""
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        grain = rng.standard_normal(picture.shape, np.float32)
        picture = picture + grain * np.float32(rng.uniform(1, 5))
    out = to_u8(picture)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))])
        out = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(out)
