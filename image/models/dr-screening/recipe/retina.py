"""Finds the retina's disc as the appliance does, so that training sees the very region that is served.

In: RGB pictures (u8, rows x columns x 3). Out: the fitted circle, its bounding square, what lies in it.
Promise: same search copy, thresholds, samples and refusals as the appliance's preprocess stage; no disc is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

SEARCH_SIDE_PX = 256
CORNER_SHARE, RIM_SHARE, CONTRAST_MIN, AREA_SHARE_MIN = 0.06, 0.12, 8.0, 0.05
RIM_ON_CIRCLE_MIN, DIRECTIONS_MIN, REGION_INSIDE_MIN, CIRCLE_FILLED_MIN = 0.45, 12, 0.9, 0.5
SAMPLES, RADIUS_SLACK = 200, 0.012


@dataclass(frozen=True)
class Disc:
    """A circle in pixels of the frame, whose corner is (0, 0); the bright region; the share of the circle shown."""

    x: float
    y: float
    radius: float
    region: np.ndarray
    field: float

    @property
    def side(self) -> int:
        """Side of the bounding square in whole pixels."""
        return max(1, int(np.floor(2 * self.radius + 0.5)))

    @property
    def corner(self) -> tuple[int, int]:
        """Column and row of the bounding square's upper left corner; may lie outside the frame."""
        half = self.side / 2
        return tuple(int(np.sign(v) * np.floor(abs(v) + 0.5)) for v in (self.x - half, self.y - half))


@lru_cache(maxsize=64)
def area_weights(source: int, target: int) -> np.ndarray:
    """Row i holds the share of every source sample in target sample i: exact box average, up or down."""
    edges = np.arange(target + 1) * (source / target)
    starts = np.arange(source)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.clip(overlap, 0, None) * (target / source)).astype(np.float32)


def area_resize(picture: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """Area-average resize (square unless `height` is given); float32 in the source's units."""
    down, across = area_weights(picture.shape[0], height or width), area_weights(picture.shape[1], width)
    planes = np.atleast_3d(picture).astype(np.float32)
    out = np.stack([down @ planes[..., c] @ across.T for c in range(planes.shape[2])], axis=2)
    return out if picture.ndim == 3 else out[..., 0]


def to_u8(picture: np.ndarray) -> np.ndarray:
    """Rounds to u8."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def find(rgb: np.ndarray) -> Disc | None:
    """The disc, or None where the picture has none."""
    rows, columns = rgb.shape[:2]
    longer = max(rows, columns)
    width, height = (max(1, side * min(SEARCH_SIDE_PX, longer) // longer) for side in (columns, rows))
    small = to_u8(area_resize(rgb, width, height)).max(axis=2)
    step = np.array([columns / width, rows / height])
    levels = _threshold(small)
    if levels is None:
        return None
    surround, threshold = levels
    region = _spanned(_largest(_majority(small > threshold)))
    points = _rim(small, region, surround, step)
    least = np.sqrt(AREA_SHARE_MIN / np.pi * columns * rows)
    fit = _fit(points, least, float(longer), 0.75 * step.max())
    if fit is None:
        return None
    (x, y, radius), on, directions = fit
    if on < RIM_ON_CIRCLE_MIN * len(points) or directions < DIRECTIONS_MIN:
        return None
    middle_x, middle_y = (np.arange(width) + 0.5) * step[0], (np.arange(height) + 0.5) * step[1]
    inside = (middle_x[None] - x) ** 2 + (middle_y[:, None] - y) ** 2 <= radius**2
    both = float((inside & region).sum())
    if both < REGION_INSIDE_MIN * max(region.sum(), 1) or both < CIRCLE_FILLED_MIN * max(inside.sum(), 1):
        return None
    return Disc(x, y, radius, region, min(1.0, both / (np.pi * radius**2 / step.prod())))


def cut(plane: np.ndarray, disc: Disc) -> np.ndarray:
    """Cuts the disc's bounding square, black where it leaves the frame."""
    (left, top), side = disc.corner, disc.side
    out = np.zeros((side, side, *plane.shape[2:]), plane.dtype)
    rows = slice(max(top, 0), max(0, min(top + side, plane.shape[0])))
    columns = slice(max(left, 0), max(0, min(left + side, plane.shape[1])))
    out[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = plane[rows, columns]
    return out


def square(rgb: np.ndarray) -> np.ndarray | None:
    """The square around the retina, or None where no disc is found."""
    disc = find(rgb)
    return None if disc is None else cut(rgb, disc)


def _threshold(small: np.ndarray) -> tuple[float, float] | None:
    height, width = small.shape
    side = max(1, int(np.floor(min(width, height) * CORNER_SHARE + 0.5)))
    if width < 4 * side or height < 4 * side:
        return None
    corners = []
    for rows in (slice(0, side), slice(height - side, height)):
        for columns in (slice(0, side), slice(width - side, width)):
            values = np.sort(small[rows, columns].ravel())
            level = int(values[len(values) // 2])
            distances = np.sort(np.abs(values.astype(int) - level))
            corners.append((level, 1.4826 * distances[len(distances) // 2]))
    surround, noise = sorted(corners, key=lambda corner: corner[0])[1]
    rank = small.size - 1 - int(small.size * AREA_SHARE_MIN / 2)
    contrast = float(np.partition(small.ravel(), rank)[rank]) - surround
    if contrast < CONTRAST_MIN:
        return None
    rim = max(RIM_SHARE * contrast, 4 * noise, 3.0)
    return (surround, surround + rim) if rim < contrast / 2 else None


def _majority(mask: np.ndarray) -> np.ndarray:
    kernel = np.ones((3, 3), np.float32)
    votes = cv2.filter2D(mask.astype(np.float32), cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    voters = cv2.filter2D(np.ones(mask.shape, np.float32), cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    return 2 * votes > voters


def _largest(mask: np.ndarray) -> np.ndarray:
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else np.zeros_like(mask)


def _spanned(mask: np.ndarray) -> np.ndarray:
    """What lies between the first and last pixel of the mask both in its row and in its column."""
    out = np.ones(mask.shape, bool)
    for axis in (0, 1):
        before = np.maximum.accumulate(mask, axis=axis)
        behind = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
        out &= before & behind
    return out


def _rim(small: np.ndarray, region: np.ndarray, surround: float, step: np.ndarray) -> np.ndarray:
    """Outline points in frame pixels, without those where the frame itself cuts the region."""
    points = []
    for flipped in (False, True):
        values, mask = (small.T, region.T) if flipped else (small, region)
        along, across = (step[1], step[0]) if flipped else (step[0], step[1])
        length = mask.shape[1]
        for line in np.flatnonzero(mask.any(axis=1)):
            first, last = int(mask[line].argmax()), length - 1 - int(mask[line][::-1].argmax())
            if first >= last:
                continue
            middle = (line + 0.5) * across
            ends = []
            if first > 0:
                ends.append(first + 1.0 - _covered(values[line, first], values[line, first + 1], surround))
            if last + 1 < length:
                ends.append(last + _covered(values[line, last], values[line, last - 1], surround))
            points += [(middle, end * along) if flipped else (end * along, middle) for end in ends]
    return np.array(points, np.float64).reshape(-1, 2)


def _covered(outer: int, inner: int, surround: float) -> float:
    full = float(inner) - surround
    return 1.0 if full <= 0 else min(1.0, max(0.0, (float(outer) - surround) / full))


def _draws(count: int, below: int) -> np.ndarray:
    """The appliance's own fixed sequence (xorshift)."""
    state, mask, out = 0x2545F4914F6CDD1D, (1 << 64) - 1, []
    for _ in range(count):
        state = (state ^ (state << 13)) & mask
        state ^= state >> 7
        state = (state ^ (state << 17)) & mask
        out.append((state >> 16) % below)
    return np.array(out)


def _fit(points: np.ndarray, least: float, most: float, slack_px: float) -> tuple[np.ndarray, int, int] | None:
    """The circle on which most points lie, refined on those; how many lie on it, and in how many of 36 directions."""
    if len(points) == 0:
        return None
    a, b, c = points[_draws(3 * SAMPLES, len(points)).reshape(SAMPLES, 3).T]
    b, c = b - a, c - a
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    good = np.abs(cross) >= 1e-9
    cross = np.where(good, cross, 1.0)
    bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
    offset = np.stack([(c[:, 1] * bb - b[:, 1] * cc) / cross, (b[:, 0] * cc - c[:, 0] * bb) / cross], axis=1)
    radius = np.hypot(*offset.T)
    good &= (radius >= least) & (radius < most)
    if not good.any():
        return None
    circles = np.concatenate([a + offset, radius[:, None]], axis=1)[good]
    counts = [int(_on(points, circle, slack_px).sum()) for circle in circles]
    circle = circles[int(np.argmax(counts))]
    for _ in range(5):
        circle = _least_squares(points[_on(points, circle, slack_px)])
        if circle is None or not least <= circle[2] < most:
            return None
    near = _on(points, circle, slack_px)
    turn = np.arctan2(points[near, 1] - circle[1], points[near, 0] - circle[0]) / (2 * np.pi) + 0.5
    return circle, int(near.sum()), len(np.unique((turn * 36).astype(int) % 36))


def _on(points: np.ndarray, circle: np.ndarray, slack_px: float) -> np.ndarray:
    slack = slack_px + RADIUS_SLACK * circle[2]
    distance = ((points - circle[:2]) ** 2).sum(axis=1)
    return (distance >= max(circle[2] - slack, 0) ** 2) & (distance <= (circle[2] + slack) ** 2)


def _least_squares(points: np.ndarray) -> np.ndarray | None:
    """Kasa's fit."""
    if len(points) < 3:
        return None
    mean = points.mean(axis=0)
    near = points - mean
    square = (near**2).sum(axis=1)
    (xx, xy), (_, yy) = near.T @ near
    xz, yz = near.T @ square
    determinant = 2 * (xx * yy - xy * xy)
    if abs(determinant) < 1e-9:
        return None
    offset = np.array([xz * yy - yz * xy, yz * xx - xz * xy]) / determinant
    return np.array([*(mean + offset), np.sqrt((offset**2).sum() + square.mean())])


# Quality


def quality(rgb: np.ndarray) -> dict[str, float] | None:
    """focus, exposure, clipped and field as the appliance measures them; None where no retina is found."""
    disc = find(rgb)
    if disc is None:
        return None
    side, (left, top) = 512, disc.corner
    picture = to_u8(area_resize(cut(rgb, disc), side)).astype(np.float64)
    spots = (np.arange(side) + 0.5) * disc.side / side
    x, y = np.meshgrid(left + spots, top + spots)
    rows, columns = rgb.shape[:2]
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    inside &= (x - disc.x) ** 2 + (y - disc.y) ** 2 <= disc.radius**2
    height, width = disc.region.shape
    at_row = np.clip((y * height / rows).astype(int), 0, height - 1)
    at_column = np.clip((x * width / columns).astype(int), 0, width - 1)
    inside &= disc.region[at_row, at_column]
    if not inside.any():
        return {"focus": 0.0, "exposure": 0.0, "clipped": 0.0, "field": disc.field}
    inner = cv2.erode(np.pad(inside.astype(np.uint8), 1), np.ones((17, 17), np.uint8))[1:-1, 1:-1].astype(bool)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
    laplacian = cv2.filter2D(picture[..., 1], cv2.CV_64F, kernel, borderType=cv2.BORDER_REPLICATE)
    green = picture[..., 1][inside].mean()
    return {
        "focus": float(laplacian[inner].var() / (green + 1) ** 2 * 1000) if inner.any() else 0.0,
        "exposure": float((picture[inside] @ [0.299, 0.587, 0.114]).mean() / 255),
        "clipped": float((picture[inside].max(axis=1) >= 250).mean()),
        "field": disc.field,
    }
