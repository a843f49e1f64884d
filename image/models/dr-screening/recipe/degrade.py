"""Ways in which a fundus photograph goes wrong, each with the reason that a nurse should hear.

In: a photograph (RGB u8, a retina on a dark surround) and a random generator. Out: the spoilt photograph, same size.
Promise: every kind is strong enough that a grader would turn the picture down; mild faults are left to the training
views.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from retina import to_u8

Kind = Callable[[np.ndarray, np.random.Generator], np.ndarray]

REASONS = ("out_of_focus", "too_dark", "too_bright", "hazy", "field_cut", "obstructed", "not_a_retina")
"""Order of the gate's logits behind "fit to answer"."""


def _lit(rgb: np.ndarray) -> np.ndarray:
    """1 inside the retina, 0 on the surround, as float32 with a third axis."""
    return (cv2.medianBlur(rgb.max(axis=2), 5) > 12).astype(np.float32)[..., None]


def _clouds(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field, 0 to 1, with a third axis."""
    coarse = rng.random((cells, cells), np.float32)
    field = cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC)
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    return field[..., None]


def _distance_from_edge(shape: tuple[int, ...], rng: np.random.Generator, straight: bool) -> np.ndarray:
    """How deep a pixel lies seen from a random side, 0 to 1 across the picture: straight, or bent like a lid."""
    side = shape[0]
    rows, columns = np.mgrid[:side, : shape[1]].astype(np.float32) / side - 0.5
    turn = rng.choice([0, 0.5, 1, 1.5]) * np.pi + (0 if straight else rng.uniform(-0.4, 0.4))
    along = np.cos(turn) * rows + np.sin(turn) * columns
    across = -np.sin(turn) * rows + np.cos(turn) * columns
    return along + 0.5 + (0 if straight else rng.uniform(-0.8, 0.5) * across**2)


def gaussian_blur(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The eye lies out of focus."""
    return cv2.GaussianBlur(rgb, (0, 0), rng.uniform(2.8, 8))


def lens_blur(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same as a lens blurs: by a disc."""
    radius = int(rng.integers(5, 13))
    kernel = cv2.circle(np.zeros((2 * radius + 1,) * 2, np.float32), (radius, radius), radius, 1, cv2.FILLED)
    return cv2.filter2D(rgb, -1, kernel / kernel.sum())


def motion_blur(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hand or the eye moved in one line."""
    length = int(rng.integers(17, 41))
    kernel = np.zeros((length, length), np.float32)
    turn = rng.uniform(0, np.pi)
    reach = np.array([np.cos(turn), np.sin(turn)]) * length / 2
    ends = [tuple(int(v) for v in length / 2 + sign * reach) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1, 1)
    return cv2.filter2D(rgb, -1, kernel / kernel.sum())


def double_image(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hand shook: several pictures over one another."""
    out = rgb.astype(np.float32) * 0.4
    for _ in range(3):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(8, 22)
        out += 0.2 * np.roll(rgb, (int(reach * np.sin(turn)), int(reach * np.cos(turn))), (0, 1))
    return to_u8(out)


def coarse_pixels(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Too few pixels, blown up."""
    side = int(rng.integers(40, 90))
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    how = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST][rng.integers(3)]
    return cv2.resize(small, rgb.shape[1::-1], interpolation=how)


def low_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The flash was too weak."""
    return to_u8(rgb * rng.uniform(0.1, 0.3) + rng.standard_normal(rgb.shape, np.float32) * rng.uniform(0, 2))


def dark_tone(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tone curve that drowns all but the disc."""
    return to_u8(255 * (rgb / 255.0) ** rng.uniform(2.6, 4))


def lit_spot(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light fell on one spot only."""
    side = rgb.shape[0]
    rows, columns = np.mgrid[:side, : rgb.shape[1]]
    row, column = rng.uniform(0.3, 0.7, 2) * side
    reach = rng.uniform(0.12, 0.2) * side
    share = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))[..., None]
    return to_u8(rgb * (0.08 + 0.92 * share))


def grain(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of a gain turned up."""
    noise = rng.standard_normal(rgb.shape, np.float32) * rng.uniform(30, 70)
    return to_u8(rgb * rng.uniform(0.4, 0.9) + noise * _lit(rgb))


def glare(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The flash was too strong."""
    return to_u8(rgb * rng.uniform(2.3, 4.5))


def washed_out(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tone curve that bleaches."""
    return to_u8(255 * (rgb / 255.0) ** rng.uniform(0.12, 0.35) * _lit(rgb))


def burnt_flash(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The flash burnt out a large part."""
    side = rgb.shape[0]
    rows, columns = np.mgrid[:side, : rgb.shape[1]]
    row, column = rng.uniform(0.3, 0.7, 2) * side
    reach = rng.uniform(0.22, 0.4) * side
    share = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))[..., None]
    return to_u8((rgb * 1.2 + 380 * share * np.array([1.0, 0.95, 0.85])) * _lit(rgb))


def veil(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An even haze, as of a cataract or a misted lens."""
    share = rng.uniform(0.6, 0.85)
    tint = rng.uniform(90, 200) * np.array([1, rng.uniform(0.75, 1.0), rng.uniform(0.55, 1.0)])
    blurred = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.8, 2.5))
    return to_u8((blurred * (1 - share) + share * tint) * _lit(rgb))


def patchy_veil(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A haze in patches."""
    share = 0.35 + 0.6 * _clouds(rgb.shape, int(rng.integers(3, 6)), rng)
    tint = rng.uniform(110, 210) * np.array([1, rng.uniform(0.75, 0.95), rng.uniform(0.6, 0.95)])
    return to_u8((rgb * (1 - share) + share * tint) * _lit(rgb))


def flat_contrast(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vessels hardly stand out."""
    lit = _lit(rgb)
    mean = cv2.GaussianBlur(rgb, (0, 0), 25).astype(np.float32)
    return to_u8((mean + (rgb - mean) * rng.uniform(0.1, 0.25)) * lit)


def covered_side(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A side is black."""
    return rgb * (_distance_from_edge(rgb.shape, rng, straight=True) > rng.uniform(0.35, 0.6))[..., None]


def crescent_shadow(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The iris throws a shadow over a side."""
    depth = _distance_from_edge(rgb.shape, rng, straight=False) - rng.uniform(0.35, 0.6)
    return to_u8(rgb * (0.04 + 0.96 / (1 + np.exp(-np.clip(depth * rng.uniform(15, 60), -30, 30))))[..., None])


def off_centre(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The retina lies half outside the frame."""
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6) * rgb.shape[0]
    matrix = np.array([[1, 0, reach * np.cos(turn)], [0, 1, reach * np.sin(turn)]])
    return cv2.warpAffine(rgb, matrix, rgb.shape[1::-1])


def small_pupil(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Only a small round part is lit."""
    side = rgb.shape[0]
    rows, columns = np.mgrid[:side, : rgb.shape[1]]
    row, column = rng.uniform(0.4, 0.6, 2) * side
    edge = rng.uniform(0.2, 0.3) * side - np.hypot(rows - row, columns - column)
    return to_u8(rgb / (1 + np.exp(-np.clip(edge / rng.uniform(2, 12), -30, 30)))[..., None])


def eyelashes(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark blurred lashes from above or below."""
    side, layer = rgb.shape[0], np.zeros(rgb.shape[:2], np.float32)
    for _ in range(int(rng.integers(14, 32))):
        start = np.array([rng.uniform(-0.1, 1.1), -0.02]) * side
        lean, bend, length = rng.normal(0, 0.35), rng.normal(0, 0.5), rng.uniform(0.3, 0.75) * side
        steps = np.linspace(0, 1, 24)[:, None]
        path = start + steps * length * np.array([lean, 1.0]) + steps**2 * length * np.array([bend, 0.0])
        cv2.polylines(layer, [path.astype(np.int32)], False, 1.0, int(rng.integers(3, 10)), cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(1.5, 5))
    layer = np.rot90(layer, int(rng.choice([0, 0, 2])))[..., None] * rng.uniform(0.75, 1.0)
    tint = rng.uniform(10, 45) * np.array([1.0, 0.8, 0.7])
    return to_u8((rgb * (1 - layer) + tint * layer) * _lit(rgb))


def eyelid(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lid covers a side."""
    depth = _distance_from_edge(rgb.shape, rng, straight=False) - rng.uniform(0.3, 0.5)
    share = (1 / (1 + np.exp(np.clip(depth * rng.uniform(25, 70), -30, 30))))[..., None]
    skin = rng.uniform(110, 220) * np.array([1.0, rng.uniform(0.55, 0.75), rng.uniform(0.4, 0.6)])
    skin = skin * (0.75 + 0.5 * _clouds(rgb.shape, 6, rng))
    return to_u8((rgb * (1 - share) + skin * share) * _lit(rgb))


def reflexes(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright blobs and rings."""
    side, layer = rgb.shape[0], np.zeros(rgb.shape[:2], np.float32)
    for _ in range(int(rng.integers(2, 5))):
        middle = tuple(int(v) for v in rng.uniform(0.25, 0.75, 2) * side)
        axes = tuple(int(v) for v in rng.uniform(0.08, 0.24, 2) * side)
        thick = cv2.FILLED if rng.random() < 0.6 else int(rng.integers(20, 45))
        turn, span = rng.uniform(0, 360), 360 if rng.random() < 0.6 else rng.uniform(100, 240)
        cv2.ellipse(layer, middle, axes, turn, 0, span, 1.0, thick)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(3, 14))[..., None]
    tint = rng.uniform(200, 255) * np.array([rng.uniform(0.8, 1), 1.0, rng.uniform(0.85, 1)])
    return to_u8((rgb * (1 - layer) + tint * layer) * _lit(rgb))


def smears(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dirt on the lens."""
    layer = np.zeros(rgb.shape[:2], np.float32)
    for _ in range(int(rng.integers(6, 14))):
        middle = tuple(int(v) for v in rng.uniform(0.15, 0.85, 2) * rgb.shape[0])
        axes = tuple(int(v) for v in rng.uniform(12, 60, 2))
        cv2.ellipse(layer, middle, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.6, 1), cv2.FILLED)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(3, 9))[..., None]
    tint = rng.uniform(25, 150) * rng.uniform(0.8, 1.0, 3)
    return to_u8((rgb * (1 - layer) + tint * layer) * _lit(rgb))


KINDS: dict[str, tuple[str, Kind]] = {
    kind.__name__: (reason, kind)
    for reason, kinds in {
        "out_of_focus": (gaussian_blur, lens_blur, motion_blur, double_image, coarse_pixels),
        "too_dark": (low_light, dark_tone, lit_spot, grain),
        "too_bright": (glare, washed_out, burnt_flash),
        "hazy": (veil, patchy_veil, flat_contrast),
        "field_cut": (covered_side, crescent_shadow, off_centre, small_pupil),
        "obstructed": (eyelashes, eyelid, reflexes, smears),
    }.items()
    for kind in kinds
}
"""Name -> (reason, what it does)."""
