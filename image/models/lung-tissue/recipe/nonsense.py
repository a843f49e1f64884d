"""Pictures that are no stained tissue, by kind; and stained tissue that cannot be read.

In: the folders of other data sets, a wheel with photographs, tissue pictures. Out: RGB u8 pictures, a list for each kind.
Promise: seeded. Kinds are what is held out when the gate is measured on what it has not seen.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

import stain
import tiles

SEED = 20260525
SIDE_PX = tiles.SIDE_PX

Picture = np.ndarray
Rng = np.random.Generator


# Pictures of other domains


def from_zip(path: Path, count: int, seed: int, skip: tuple[str, ...] = ("_mask", "_label")) -> list[Picture]:
    """Some pictures of an archive, whole."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".jpg", ".png")) and not any(s in n for s in skip))
        picked = np.random.default_rng([SEED, seed]).choice(len(names), min(count, len(names)), replace=False)
        return [tiles.decode_rgb(archive.read(names[i])) for i in picked]


NOT_PHOTOGRAPHS = ("ihc", "retina", "color", "horse", "diagram", "logo", "phantom", "palette", "gray", "truncated", "multipage")


def photographs(wheel: Path) -> list[Picture]:
    """Photographs of scikit-image 0.16.2: faces, animals, coins, streets, stars, fabrics."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(
            n
            for n in archive.namelist()
            if n.startswith("skimage/data/") and n.endswith((".png", ".jpg", ".jpeg"))
            and not any(word in n.rsplit("/", 1)[1] for word in NOT_PHOTOGRAPHS)
            and archive.getinfo(n).file_size > 8000
        )  # fmt: skip
        return [tiles.decode_rgb(archive.read(n)) for n in names]


def one_of(wheel: Path, name: str) -> Picture:
    """One picture of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return tiles.decode_rgb(archive.read(f"skimage/data/{name}"))


def crops(pictures: list[Picture], count: int, rng: Rng, least: float = 0.35) -> Iterator[Picture]:
    """Random squares of pictures, turned and mirrored, at the network's side."""
    for _ in range(count):
        picture = pictures[rng.integers(len(pictures))]
        rows, columns = picture.shape[:2]
        side = int(min(rows, columns) * rng.uniform(least, 1.0))
        top, left = rng.integers(rows - side + 1), rng.integers(columns - side + 1)
        square = np.rot90(picture[top : top + side, left : left + side], rng.integers(4))
        yield tiles.inner_square(square[:, ::-1] if rng.random() < 0.5 else square)


# Drawn nonsense


def _colour(rng: Rng) -> np.ndarray:
    """Any colour; half the time one that tissue could have."""
    if rng.random() < 0.5:
        return rng.uniform(0, 255, 3)
    return np.clip(np.array([190, 130, 190]) + rng.normal(0, 35, 3), 0, 255)


def _blend(mask: np.ndarray, rng: Rng) -> Picture:
    """Two colours, mixed by a mask of 0 to 1."""
    a, b = _colour(rng), _colour(rng)
    return np.clip(mask[..., None] * a + (1 - mask[..., None]) * b, 0, 255).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)


def flat(rng: Rng) -> Picture:
    """One colour, dark or strong, with a little noise."""
    colour = rng.uniform(0, 255, 3) * (0.5 if rng.random() < 0.5 else 1.0)
    if colour.min() > 190:
        colour[rng.integers(3)] *= 0.4
    return np.clip(colour + rng.normal(0, rng.uniform(0, 4), (SIDE_PX, SIDE_PX, 3)), 0, 255).astype(np.uint8)


def gradient(rng: Rng) -> Picture:
    """A ramp between two colours."""
    y, x = _grid()
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    return _blend((ramp - ramp.min()) / (ramp.max() - ramp.min()), rng)


def white_noise(rng: Rng) -> Picture:
    """Independent pixels, grey or coloured."""
    noise = rng.uniform(0, 255, (SIDE_PX, SIDE_PX, 3 if rng.random() < 0.5 else 1))
    return np.broadcast_to(noise, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8).copy()


def clouds(rng: Rng) -> Picture:
    """Noise with the spectrum of natural scenes between two colours, tissue's among them."""
    frequency = np.hypot(np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None]) + 1 / SIDE_PX
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE_PX, SIDE_PX))) / frequency ** rng.uniform(0.7, 1.8)
    field = np.fft.irfft2(spectrum, (SIDE_PX, SIDE_PX))
    return _blend(np.clip(0.5 + field / (4 * field.std()), 0, 1), rng)


def stripes(rng: Rng) -> Picture:
    """Gratings and checks."""
    y, x = _grid()
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 60)
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period)
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * (-np.sin(angle) * x + np.cos(angle) * y) / period)
    return _blend((wave > 0).astype(float) if rng.random() < 0.5 else (wave + 1) / 2, rng)


def page(rng: Rng) -> Picture:
    """Lines of print on paper or on a screen."""
    paper, ink = (245, 20) if rng.random() < 0.7 else (20, 235)
    out = np.full((SIDE_PX, SIDE_PX, 3), paper, np.uint8)
    step = int(rng.integers(12, 30))
    for row in range(step, SIDE_PX, step):
        text = "".join(chr(c) for c in rng.integers(48, 123, 40))
        cv2.putText(out, text, (int(rng.integers(0, 20)), row), cv2.FONT_HERSHEY_SIMPLEX, step / 40, (ink,) * 3, 1, cv2.LINE_AA)
    return out


def drawn_cells(rng: Rng) -> Picture:
    """Dark ellipses on a light ground in tissue's colours: what a child would draw of it."""
    ground = np.clip(np.array([220, 170, 210]) + rng.normal(0, 20, 3), 0, 255)
    out = np.full((SIDE_PX, SIDE_PX, 3), ground, np.uint8)
    for _ in range(rng.integers(5, 80)):
        colour = np.clip(np.array([100, 60, 150]) + rng.normal(0, 25, 3), 0, 255)
        axes = tuple(int(v) for v in rng.integers(3, 16, 2))
        centre = tuple(int(v) for v in rng.integers(0, SIDE_PX, 2))
        cv2.ellipse(out, centre, axes, rng.uniform(0, 180), 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    return out


def shapes(rng: Rng) -> Picture:
    """Boxes, discs and lines, as a screen or a diagram."""
    out = np.full((SIDE_PX, SIDE_PX, 3), rng.uniform(0, 255, 3), np.uint8)
    for _ in range(rng.integers(3, 25)):
        a, b = (tuple(int(v) for v in rng.integers(0, SIDE_PX, 2)) for _ in range(2))
        colour, kind = rng.uniform(0, 255, 3).tolist(), rng.integers(3)
        if kind == 0:
            cv2.rectangle(out, a, b, colour, -1 if rng.random() < 0.6 else 2)
        elif kind == 1:
            cv2.circle(out, a, int(rng.integers(4, 60)), colour, -1 if rng.random() < 0.6 else 2)
        else:
            cv2.line(out, a, b, colour, int(rng.integers(1, 6)))
    return out


def mosaic(rng: Rng) -> Picture:
    """Patches of flat colour (Voronoi cells)."""
    points, (y, x) = rng.uniform(0, SIDE_PX, (rng.integers(10, 150), 2)), _grid()
    nearest = np.argmin([(y - r) ** 2 + (x - c) ** 2 for r, c in points], axis=0)
    return np.clip([_colour(rng) for _ in points], 0, 255).astype(np.uint8)[nearest]


def scan(rng: Rng) -> Picture:
    """Grey ellipses on black: a slice of a body, roughly."""
    out = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    for _ in range(rng.integers(4, 14)):
        centre = tuple(int(v) for v in rng.integers(SIDE_PX // 4, 3 * SIDE_PX // 4, 2))
        axes = tuple(int(v) for v in rng.integers(6, SIDE_PX // 2, 2))
        layer = cv2.ellipse(np.zeros_like(out), centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        out += layer * rng.uniform(-30, 70)
    noisy = cv2.GaussianBlur(np.clip(out, 0, 255), (0, 0), 1) + rng.normal(0, 6, out.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


DRAWN: dict[str, Callable[[Rng], Picture]] = {
    "flat colour": flat, "ramp": gradient, "noise": white_noise, "clouds": clouds, "stripes": stripes, "page": page,
    "drawn cells": drawn_cells, "shapes": shapes, "mosaic": mosaic, "grey slice": scan,
}  # fmt: skip


# Tissue that is not what it should be


def inverted(rgb: Picture, rng: Rng) -> Picture:
    """A negative; or light on dark in one or two colours, as fluorescence shows."""
    if rng.random() < 0.5:
        return 255 - rgb
    dark = 255 - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    glow = np.clip((dark.astype(np.float32) - 60) * 1.8, 0, 255)
    return np.clip(glow[..., None] * rng.uniform(0, 1, 3), 0, 255).astype(np.uint8)


def grey(rgb: Picture, rng: Rng) -> Picture:
    """Without colour."""
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def other_hue(rgb: Picture, rng: Rng) -> Picture:
    """Hue turned by 50 to 130 of 180 steps (green, yellow, orange, cyan), or red and blue changed over."""
    if rng.random() < 0.2:
        return np.ascontiguousarray(rgb[..., ::-1])
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(50, 131)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def brown(rgb: Picture, rng: Rng) -> Picture:
    """Eosin painted as DAB: the brown of immunohistochemistry over a pale blue counterstain."""
    amounts = np.clip(stain.density(rgb).reshape(-1, 3) @ np.linalg.inv(stain.HED), 0, None)
    moved = np.stack([amounts[:, 0] * rng.uniform(0.3, 0.8), 0 * amounts[:, 1], amounts[:, 1] * rng.uniform(0.8, 2.0)], axis=1)
    return stain.light((moved @ stain.HED).astype(np.float32)).reshape(rgb.shape)


SPOILED: dict[str, Callable[[Picture, Rng], Picture]] = {
    "negative or glow": inverted, "grey tissue": grey, "other hues": other_hue, "painted brown": brown,
}  # fmt: skip


def blurred(rgb: Picture, rng: Rng) -> Picture:
    """Out of focus: sigma 2.6 to 7 pixels of 224, so that no nucleus has an edge."""
    return cv2.GaussianBlur(rgb, (0, 0), float(np.exp(rng.uniform(np.log(2.6), np.log(7.0)))), borderType=cv2.BORDER_REFLECT)


def empty(rng: Rng) -> Picture:
    """Bare glass: light, nearly one colour, shaded, with a few specks."""
    y, x = _grid()
    light = rng.uniform(205, 252) + rng.normal(0, 6, 3)
    shade = rng.uniform(-14, 14) * x / SIDE_PX + rng.uniform(-14, 14) * y / SIDE_PX
    out = light + shade[..., None] + rng.normal(0, rng.uniform(0.3, 4), (SIDE_PX, SIDE_PX, 3))
    for _ in range(rng.integers(0, 5)):
        centre = tuple(int(v) for v in rng.integers(0, SIDE_PX, 2))
        speck = cv2.circle(np.zeros((SIDE_PX, SIDE_PX), np.float32), centre, int(rng.integers(1, 5)), 1.0, -1)
        out -= cv2.GaussianBlur(speck, (0, 0), rng.uniform(0.7, 3))[..., None] * rng.uniform(10, 90)
    if rng.random() < 0.4:
        out = cv2.GaussianBlur(out.astype(np.float32), (0, 0), 2)
    return np.clip(out, 0, 255).astype(np.uint8)
