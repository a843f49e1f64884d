"""Fundus photographs: from a picture to what the network sees, and what the picture is worth.

In: RGB pictures (u8, rows x columns x 3). Out: the square around the retina, tensors, quality numbers, training views.
Promise: geometry and quality follow the same definitions as the appliance's preprocess stage (region of interest =
bounding square of the bright disc, padded black; exact area-average resize), so that limits and weights hold there.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SIDE_PX = 384
"""Width and height of the network's input."""

QUALITY_SIDE_PX = 512
"""Width and height at which the quality numbers are taken."""

MEAN = np.array([0.498, 0.498, 0.498], np.float32)
STD = np.array([0.502, 0.502, 0.502], np.float32)
"""Normalisation that the ImageNet weights were trained with: (value - 127) / 128."""


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


# Region of interest


@dataclass(frozen=True)
class Disc:
    """The retina found in a frame: its pixels, its bounding box, and how much of its full circle is there."""

    mask: np.ndarray
    left: int
    top: int
    width: int
    height: int

    @property
    def side(self) -> int:
        """Side of the bounding square."""
        return max(self.width, self.height)

    @property
    def field(self) -> float:
        """Area of the disc inside the frame / area of the full circle fitted to it, at most 1."""
        return min(1.0, float(self.mask.sum()) / (np.pi / 4 * self.side**2))


def find_disc(rgb: np.ndarray) -> Disc | None:
    """Finds the bright disc on its dark surround, or None where nothing is brighter than the surround."""
    bright = cv2.medianBlur(rgb.max(axis=2), 5)
    # Relative to the bright part of the picture, so that an underexposed retina is still found.
    threshold = np.clip(0.12 * np.percentile(bright, 95), 4, 24)
    count, parts, stats, _ = cv2.connectedComponentsWithStats((bright > threshold).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = (int(v) for v in stats[largest])
    if area < 0.05 * bright.size:
        return None
    outline, _ = cv2.findContours((parts == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Dark spots inside the retina belong to it: the outline is filled.
    mask = cv2.drawContours(np.zeros(bright.shape, np.uint8), outline, -1, 1, cv2.FILLED)
    return Disc(mask, left, top, width, height)


def crop_square(plane: np.ndarray, disc: Disc) -> np.ndarray:
    """Cuts the disc's bounding square, black where it leaves the frame."""
    left = disc.left - (disc.side - disc.width) // 2
    top = disc.top - (disc.side - disc.height) // 2
    out = np.zeros((disc.side, disc.side, *plane.shape[2:]), plane.dtype)
    rows = slice(max(top, 0), min(top + disc.side, plane.shape[0]))
    columns = slice(max(left, 0), min(left + disc.side, plane.shape[1]))
    out[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = plane[rows, columns]
    return out


def retina_square(rgb: np.ndarray) -> np.ndarray:
    """The square around the retina, or the padded frame where no disc is found."""
    disc = find_disc(rgb)
    if disc is None:
        rows, columns = rgb.shape[:2]
        disc = Disc(np.ones((rows, columns), np.uint8), 0, 0, columns, rows)
    return crop_square(rgb, disc)


def area_weights(source: int, target: int) -> np.ndarray:
    """Row i holds the share of every source sample in target sample i: exact box average, up or down."""
    edges = np.arange(target + 1) * (source / target)
    starts = np.arange(source)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.clip(overlap, 0, None) * (target / source)).astype(np.float32)


def area_resize(square: np.ndarray, side: int) -> np.ndarray:
    """Area-average resize of a square picture to `side`; float32 in the source's units."""
    weights = area_weights(square.shape[0], side)
    planes = np.atleast_3d(square).astype(np.float32)
    out = np.stack([weights @ planes[..., c] @ weights.T for c in range(planes.shape[2])], axis=2)
    return out if square.ndim == 3 else out[..., 0]


def to_u8(picture: np.ndarray) -> np.ndarray:
    """Rounds to u8."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def tensor(resized: np.ndarray) -> np.ndarray:
    """Rows x columns x 3 in 0..255 -> 3 x rows x columns, normalised float32."""
    return ((resized.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


# Quality


def quality(rgb: np.ndarray) -> dict[str, float] | None:
    """focus, exposure, clipped and field of a picture; None where no retina is found.

    - focus: variance of the 4-neighbour Laplacian of green, at least 8 px inside the disc, / (mean green + 1)^2 * 1000.
    - exposure: mean BT.601 luminance over the disc / 255.
    - clipped: share of disc pixels with any channel at 250 or more.
    - field: share of the fitted circle that is inside the frame.
    """
    disc = find_disc(rgb)
    if disc is None:
        return None
    # Rounded to levels as the appliance does: the rounding itself adds 20/12 to the Laplacian's variance.
    square = np.rint(area_resize(crop_square(rgb, disc), QUALITY_SIDE_PX))
    mask = area_resize(crop_square(disc.mask, disc), QUALITY_SIDE_PX) >= 0.5
    framed = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] > 8
    if not inner.any():
        return None
    green = square[..., 1]
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
    laplacian = cv2.filter2D(green, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
    luminance = square @ np.array([0.299, 0.587, 0.114], np.float32)
    return {
        "focus": float(laplacian[inner].var() / (green[mask].mean() + 1) ** 2 * 1000),
        "exposure": float(luminance[mask].mean() / 255),
        "clipped": float((square[mask].max(axis=1) >= 250).mean()),
        "field": disc.field,
    }


# Training views


def view(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random view of a retina square as another camera and another hand might have taken it; SIDE_PX, u8."""
    moved = _move(square, rng)
    # OpenCV's area mode equals `area_resize` where it shrinks, and is many times faster.
    shrinks = moved.shape[0] >= SIDE_PX
    out = cv2.resize(moved, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    out = _recolour(out, rng)
    return _degrade(out, rng)


def _move(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip, turn, scale, shift; sometimes a full circle, as cameras give that do not cut the disc's top and bottom."""
    side = square.shape[0]
    round_field = rng.random() < 0.35
    zoom = rng.uniform(1.15, 1.25) if round_field else rng.uniform(0.93, 1.10)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-20, 20), zoom)
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * side
    out = cv2.warpAffine(square, matrix, (side, side), flags=cv2.INTER_LINEAR)
    if round_field:
        circle = cv2.circle(np.zeros((side, side), np.uint8), (side // 2, side // 2), side // 2, 1, cv2.FILLED)
        out = out * circle[..., None]
    if rng.random() < 0.5:
        out = out[:, ::-1]
    if rng.random() < 0.3:
        out = out[::-1]
    return out


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
        picture = picture + rng.normal(0, rng.uniform(1, 5), picture.shape)
    out = to_u8(picture)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))])
        out = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(out)
