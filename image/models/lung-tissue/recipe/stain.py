"""Stain: what changes from laboratory to laboratory, as numbers that can be shaken, shifted or taken away.

In and out: RGB pictures, u8, rows x columns x 3. Light is absorbed stain by stain, so everything here works on optical
density, -log(light / white), where stains add up.
Promise: pure functions of their arguments and of the generator that is passed in.
"""

from __future__ import annotations

import cv2
import numpy as np

HED = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
"""Rows: how haematoxylin, eosin and DAB absorb red, green and blue (Ruifrok and Johnston, 2001)."""

_HED_UNIT = HED / np.linalg.norm(HED, axis=1, keepdims=True)
_HED_INVERSE = np.linalg.inv(_HED_UNIT).astype(np.float32)
_DENSITY_TABLE = (-np.log((np.arange(256, dtype=np.float32) + 1) / 256)).astype(np.float32)
"""Optical density of each level; the one keeps black finite."""


def density(rgb: np.ndarray) -> np.ndarray:
    """Optical density, float32, 0 (white) to 5.5."""
    return _DENSITY_TABLE[rgb]


def light(optical_density: np.ndarray) -> np.ndarray:
    """Back to RGB u8."""
    return np.clip(np.rint(np.exp(-optical_density) * 256 - 1), 0, 255).astype(np.uint8)


# Augmentation: what training shakes


def jitter(rgb: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Scales and shifts the amount of each stain, then the colour of the light and the tone curve.

    `strength` 1: amounts x 0.7 to 1.4, white point x 0.93 to 1.07 a channel, gamma 0.8 to 1.25.
    """
    amounts = density(rgb).reshape(-1, 3) @ _HED_INVERSE
    scale = np.exp(rng.uniform(-0.35, 0.35, 3) * strength).astype(np.float32)
    shift = (rng.uniform(-0.06, 0.06, 3) * strength).astype(np.float32)
    out = (amounts * scale + shift) @ _HED_UNIT
    out = out * np.float32(np.exp(rng.uniform(-0.22, 0.22) * strength))
    out = out - np.log(1 + rng.uniform(-0.07, 0.07, 3) * strength).astype(np.float32)
    return light(np.clip(out, 0, None).reshape(rgb.shape))


# Perturbation: what held-out pictures are put through, by another mechanism than `jitter`


def perturb(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same tissue as another laboratory would show it: its two stain colours are turned towards other ones.

    The picture's own two stain vectors (Macenko) are each replaced by one up to 20 degrees away, their amounts scaled
    by 0.6 to 1.5, the light tinted by up to 8 % a channel.
    """
    vectors, amounts, rest = _separate(rgb)
    turned = np.stack([_turn(v, np.deg2rad(rng.uniform(6, 20)), rng) for v in vectors])
    scaled = amounts * np.exp(rng.uniform(np.log(0.6), np.log(1.5), 2)).astype(np.float32)
    tint = -np.log(rng.uniform(0.92, 1.0, 3)).astype(np.float32)
    return light(np.clip(scaled @ turned + rest + tint, 0, None).reshape(rgb.shape))


def _turn(vector: np.ndarray, angle: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector at an angle from `vector`, kept where all three channels absorb."""
    sideways = rng.normal(size=3)
    sideways -= sideways @ vector * vector
    turned = np.cos(angle) * vector + np.sin(angle) * sideways / np.linalg.norm(sideways)
    turned = np.clip(turned, 0.01, None)
    return (turned / np.linalg.norm(turned)).astype(np.float32)


def _separate(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(stain vectors 2 x 3, amounts N x 2, what two stains do not explain N x 3)."""
    flat = density(rgb).reshape(-1, 3)
    vectors = stain_vectors(flat)
    amounts = flat @ np.linalg.pinv(vectors).astype(np.float32)
    return vectors, amounts, flat - amounts @ vectors


# Normalisation: what could take the difference away


REFERENCE_VECTORS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], np.float32)
REFERENCE_AMOUNTS = np.array([1.9705, 1.0308], np.float32)
"""The usual reference of Macenko's method: two stain vectors, and the 99th percentile of each amount."""


def stain_vectors(flat_density: np.ndarray, least: float = 0.15) -> np.ndarray:
    """The two stain colours of a picture by Macenko's method: extreme directions in the plane of most variance."""
    stained = flat_density[(flat_density > least).all(axis=1)]
    if len(stained) < 200:
        return REFERENCE_VECTORS
    plane = np.linalg.eigh(np.cov(stained.T))[1][:, 1:]
    plane = plane * np.where(plane[0] < 0, -1, 1)
    across = stained @ plane
    angle = np.arctan2(across[:, 1], across[:, 0])
    ends = [plane @ np.array([np.cos(a), np.sin(a)]) for a in np.percentile(angle, (1, 99))]
    first, second = sorted(ends, key=lambda v: -v[0])
    out = np.abs(np.stack([first, second]))
    return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)


def macenko(rgb: np.ndarray) -> np.ndarray:
    """The picture with its stain vectors and amounts replaced by the reference's."""
    flat = density(rgb).reshape(-1, 3)
    amounts = flat @ np.linalg.pinv(stain_vectors(flat)).astype(np.float32)
    most = np.maximum(np.percentile(amounts, 99, axis=0), 1e-3)
    return light((amounts * (REFERENCE_AMOUNTS / most)).astype(np.float32) @ REFERENCE_VECTORS).reshape(rgb.shape)


REFERENCE_LAB = np.array([[171.0, 157.0, 103.0], [33.0, 13.0, 11.0]], np.float32)
"""Mean and spread of L, a, b that Reinhard's method brings every picture to: about the average of the training tiles."""


def reinhard(rgb: np.ndarray) -> np.ndarray:
    """The picture with the mean and spread of each Lab channel replaced by the reference's."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    mean, spread = lab.mean(axis=(0, 1)), np.maximum(lab.std(axis=(0, 1)), 1.0)
    moved = (lab - mean) / spread * REFERENCE_LAB[1] + REFERENCE_LAB[0]
    return cv2.cvtColor(np.clip(np.rint(moved), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
