"""Pictures that are no retina: other kinds of medical picture, and nonsense.

In: folders of other data sets, a random generator. Out: pictures (RGB u8), raw or dressed up as a retina.
Promise: dressing up makes it hard: cut to a bright disc on black, and half of the time in a retina's own colours.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from degrade import _clouds
from fundus import decode_rgb
from retina import to_u8

ARCHIVES = {
    "thyroid ultrasound": ("ddti-thyroid-us/images.zip", "_mask", 110),
    "breast ultrasound": ("busi-breast-us/images256.zip", "_mask", 110),
    "lung tissue": ("lc25000-lung-224/images.zip", "_label", 120),
    "stained nuclei": ("dsb2018-tissue-nuclei/images.zip", "_label", 91),
}
"""Domain -> (archive below the folder of data sets, names to skip, how many pictures)."""

STAINED_CROPS = 40
SIDE = 512


def pictures(data_sets: Path, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """(domain, picture) of all domains and all kinds of nonsense."""
    rng = np.random.default_rng(seed)
    for domain, (archive, skip, count) in ARCHIVES.items():
        with zipfile.ZipFile(data_sets / archive) as opened:
            names = sorted(n for n in opened.namelist() if n.endswith((".jpg", ".png")) and skip not in n)
            for name in rng.choice(names, min(count, len(names)), replace=False):
                yield domain, _to_side(decode_rgb(opened.read(str(name))))
    stained = decode_rgb((data_sets / "scikit-image-samples" / "ihc.png").read_bytes())
    for _ in range(STAINED_CROPS):
        side = int(rng.integers(128, 512))
        row, column = rng.integers(0, 513 - side, 2)
        part = stained[row : row + side, column : column + side]
        yield "immunostained tissue", _to_side(np.rot90(part, rng.integers(4)))
    for kind, make in NONSENSE.items():
        for _ in range(40):
            yield kind, to_u8(make(rng))


def _to_side(rgb: np.ndarray) -> np.ndarray:
    how = cv2.INTER_AREA if rgb.shape[0] > SIDE else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(rgb), (SIDE, SIDE), interpolation=how)


def dressed(rgb: np.ndarray, retina: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture inside a disc on black, perhaps cut like a camera's field, perhaps in the colours of `retina`."""
    out = rgb.astype(np.float32)
    if rng.random() < 0.5:
        lit = retina[retina.max(axis=2) > 20].astype(np.float32)
        spread = out.reshape(-1, 3).std(axis=0) + 1
        out = (out - out.reshape(-1, 3).mean(axis=0)) / spread * lit.std(axis=0) + lit.mean(axis=0)
    side = rgb.shape[0]
    radius = int(side * rng.uniform(0.36, 0.495))
    disc = cv2.circle(np.zeros((side, side), np.uint8), (side // 2, side // 2), radius, 1, cv2.FILLED)
    if rng.random() < 0.5:
        edge = side // 2 - int(radius * rng.uniform(0.8, 0.95))
        disc[:edge], disc[side - edge :] = 0, 0
    return to_u8(np.maximum(out, 14) * disc[..., None])


# Nonsense


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(20, 240, 3).astype(np.float32)


def _noise(rng):
    return rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.float32)


def _coarse_noise(rng):
    cells = int(rng.integers(8, 120))
    coarse = rng.integers(0, 256, (cells, cells, 3)).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _gradient(rng):
    turn = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    share = np.clip(np.cos(turn) * rows + np.sin(turn) * columns + 0.5, 0, 1)[..., None]
    return _colour(rng) * share + _colour(rng) * (1 - share)


def _flat(rng):
    return np.zeros((SIDE, SIDE, 3), np.float32) + _colour(rng)


def _checker(rng):
    cell = int(rng.integers(6, 90))
    rows, columns = np.mgrid[:SIDE, :SIDE] // cell
    return np.where(((rows + columns) % 2)[..., None] == 1, _colour(rng), _colour(rng))


def _stripes(rng):
    turn, period = rng.uniform(0, np.pi), rng.uniform(4, 80)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    wave = 0.5 + 0.5 * np.sin((rows * np.cos(turn) + columns * np.sin(turn)) * 2 * np.pi / period)
    return _colour(rng) * wave[..., None] + _colour(rng) * (1 - wave[..., None])


def _rings(rng):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    row, column = rng.uniform(0.3, 0.7, 2) * SIDE
    wave = 0.5 + 0.5 * np.sin(np.hypot(rows - row, columns - column) * 2 * np.pi / rng.uniform(6, 90))
    return _colour(rng) * wave[..., None] + _colour(rng) * (1 - wave[..., None])


def _text(rng):
    paper = _colour(rng) if rng.random() < 0.5 else np.full(3, 250)
    ink = _colour(rng) if rng.random() < 0.5 else np.zeros(3)
    out = np.zeros((SIDE, SIDE, 3), np.uint8) + to_u8(paper)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz ABCDEFGHI 0123456789 ,.:-"))
    size = rng.uniform(0.4, 1.6)
    for line in range(int(SIDE / (32 * size))):
        words, at = "".join(rng.choice(letters, 60)), (10, int((line + 1) * 32 * size))
        cv2.putText(out, words, at, int(rng.integers(0, 4)), size, ink.tolist(), int(rng.integers(1, 3)))
    return out


def _clouds_of_colour(rng):
    cells = int(rng.integers(3, 10))
    share = _clouds((SIDE, SIDE), cells, rng)
    return _colour(rng) * share + _colour(rng) * (1 - share)


def _shapes(rng):
    out = np.zeros((SIDE, SIDE, 3), np.float32) + _colour(rng)
    for _ in range(int(rng.integers(5, 40))):
        corners = rng.integers(0, SIDE, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.fillPoly(out, [corners], tuple(float(v) for v in _colour(rng)))
    return out


NONSENSE = {
    "noise": _noise,
    "coarse noise": _coarse_noise,
    "gradient": _gradient,
    "flat colour": _flat,
    "checkerboard": _checker,
    "stripes": _stripes,
    "rings": _rings,
    "text": _text,
    "clouds": _clouds_of_colour,
    "shapes": _shapes,
}
"""Ten kinds of nonsense."""
