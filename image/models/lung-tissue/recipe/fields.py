"""Fields with outlined nuclei: reading, folds, training views, targets.

In: the DSB2018 tissue folder (labels.csv, images.zip). Out: RGB u8 fields, label images (0 = background, 1..n), groups of
fields that look alike, and crops for training with what the network should answer.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.model_selection import GroupKFold

import stain
import tiles

SEED = 20260524
FOLDS = 5
LIKENESS = 8.0
"""Fields nearer than this (Lab levels, average linkage) are taken for neighbours of one slide."""

KINDS = ("purple ground", "white ground", "pink")


@dataclass(frozen=True)
class Fields:
    """All fields, index-aligned."""

    names: list[str]
    pictures: list[np.ndarray]
    labels: list[np.ndarray]
    groups: np.ndarray
    kinds: np.ndarray

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(train, held out) indices: fields that look alike stay together."""
        splitter = GroupKFold(FOLDS)
        return list(splitter.split(np.zeros(len(self.names)), groups=self.groups))


def load(data: Path) -> Fields:
    """Reads labels.csv and images.zip."""
    with open(data / "labels.csv", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "train"]
    with zipfile.ZipFile(data / "images.zip") as archive:
        pictures = [tiles.decode_rgb(archive.read(name)) for name in names]
        encoded = [archive.read(name.replace(".png", "_label.png")) for name in names]
    labels = [cv2.imdecode(np.frombuffer(e, np.uint8), cv2.IMREAD_UNCHANGED).astype(np.int32) for e in encoded]
    looks = [_look(p, s) for p, s in zip(pictures, labels, strict=True)]
    groups = fcluster(linkage(np.array([look for look, _ in looks]), "average"), LIKENESS, "distance")
    return Fields(names, pictures, labels, groups, np.array([kind for _, kind in looks]))


def _look(rgb: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int]:
    """(numbers by which fields of one slide are alike: the ground's colour and spread, size of nuclei; its kind)."""
    ground = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[labels == 0].astype(np.float64)
    areas = np.bincount(labels.ravel())[1:]
    look = np.concatenate([ground.mean(axis=0), ground.std(axis=0), [8 * np.log(np.median(areas[areas > 0]))]])
    red, green, blue = rgb[labels == 0].mean(axis=0)
    kind = 2 if green < 0.75 * red else 1 if blue < red + 21 else 0
    return look, kind


# Targets


CORE = 0.4
"""Share of a nucleus's greatest depth below which a pixel belongs to its border."""


def targets(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(interior, border, weight) of a label image, float32.

    Interior: every pixel of a nucleus. Border: those of its pixels that lie less than CORE as deep as its deepest one; so
    wide because cores that stand apart part neighbours better than a thin line that must not break anywhere.
    Weight: 1, and 3 where two nuclei are within three pixels, because there a count is won or lost.
    """
    values = labels.astype(np.float32)
    interior = values > 0
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edge = interior & ((cv2.dilate(values, cross) != values) | (cv2.erode(values, cross) != values))
    depth = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3) + 1
    deepest = np.ones(int(labels.max()) + 1, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    width = np.maximum(CORE * deepest, 1.01)
    border = interior & (depth < width[labels])
    near = np.ones((7, 7), np.uint8)
    greatest, least = cv2.dilate(values, near), -cv2.dilate(np.where(interior, -values, -1e9).astype(np.float32), near)
    crowded = (greatest > 0) & (greatest != least)
    weight = 1 + 2 * crowded.astype(np.float32)
    return interior.astype(np.float32), border.astype(np.float32), weight


# Training views


def crop(rgb: np.ndarray, labels: np.ndarray, side: int, rng: np.random.Generator, colours: float = 1.0) -> tuple:
    """A random crop of a field, (picture u8, label image), turned, flipped, scaled 0.7 to 1.4, recoloured, degraded."""
    rows, columns = labels.shape
    scale = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    turn = rng.uniform(0, 360) if rng.random() < 0.5 else 90.0 * rng.integers(4)
    reach = side / scale / 2
    centre = [rng.uniform(min(reach, n / 2), max(n - reach, n / 2)) for n in (columns, rows)]
    matrix = cv2.getRotationMatrix2D(centre, turn, scale)
    matrix[:, 2] += side / 2 - np.array(centre)
    if rng.random() < 0.5:
        matrix[0] = [0, 0, side - 1] - matrix[0]
    how = {"borderMode": cv2.BORDER_REFLECT_101}
    picture = cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, **how)
    moved = cv2.warpAffine(labels.astype(np.float32), matrix, (side, side), flags=cv2.INTER_NEAREST, **how)
    if colours > 0:
        if rng.random() < 0.8:
            picture = stain.jitter(picture, rng, 0.9 * colours)
        picture = tiles.degrade(picture, rng)
    return np.ascontiguousarray(picture), moved.astype(np.int32)
