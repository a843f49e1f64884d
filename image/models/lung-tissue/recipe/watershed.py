"""From interior and border probabilities to single nuclei; the reference that the appliance must equal pixel for pixel.

In: two maps of one frame, probabilities 0 to 1. Out: labels, 0 = no nucleus, 1..n.
Promise: everything is decided on whole numbers, so any language gives the same labels.

Stitching. A frame is read by windows of 256 x 256. Along an axis of L pixels (L >= 256) there are n = 1 windows where
L = 256, else n = ceil((L - 32) / 224); window i starts at floor(i * (L - 256) / (n - 1)): the first at 0, the last
ends with the frame, neighbours share at least 32 pixels. A pixel's value comes from one window alone: the one in whose
inner part it lies, where the line between windows i and i + 1 is drawn at floor((start[i] + 256 + start[i + 1]) / 2):
pixels below it belong to window i. Rows and columns are settled alike and separately. No averages: the values are the
network's own, and a pixel is nearer to the middle of its window than to that of any other. A frame with a side below
256 is widened to 256 to the right and below by mirroring at its last pixel (d c b a | b c d ...: the edge is not
repeated; where the mirror is used up it turns again), and the maps are cut back to the frame.

Watershed.
1. Each probability p becomes the whole number floor(p * 65535 + 0.5); so do the thresholds.
2. Inside = interior >= interior_threshold. Seed pixels = inside and interior - border >= seed_threshold.
3. Seeds = connected components (8 neighbours) of the seed pixels, numbered in the order of their first pixel, row by
   row; those with fewer than area_min_px pixels are dropped, and the rest are numbered 1..n in the same order.
4. Flood: a queue ordered by (interior, highest first; then who entered first) starts with all seed pixels, row by row.
   The first is taken out; its neighbours up, left, right, down, in this order, that are inside and have no label get
   its label and enter the queue.
5. What no flood reaches has no label.
6. Nuclei whose interior, as whole numbers, is below mean_min in the mean are dropped; the rest are numbered 1..n in
   the same order.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

WINDOW_PX = 256
OVERLAP_PX = 32
FULL_SCALE = 65535

CASES = Path(__file__).resolve().parent / "watershed_cases.json"


@dataclass(frozen=True)
class Rule:
    """How maps become nuclei; thresholds are probabilities, the area is that of a seed in pixels of the map."""

    interior_threshold: float = 0.5
    seed_threshold: float = 0.5
    area_min_px: int = 8
    mean_min: float = 0.0


# Windows


def starts(length: int) -> list[int]:
    """First pixels of the windows along an axis of at least 256 pixels."""
    if length <= WINDOW_PX:
        return [0]
    step = WINDOW_PX - OVERLAP_PX
    count = -(-(length - OVERLAP_PX) // step)
    return [i * (length - WINDOW_PX) // (count - 1) for i in range(count)]


def parts(length: int) -> list[tuple[int, int, int]]:
    """(start of the window, first pixel, one past the last pixel that it answers for) along an axis."""
    first = starts(length)
    lines = [(a + WINDOW_PX + b) // 2 for a, b in zip(first, first[1:], strict=False)]
    return list(zip(first, [0, *lines], [*lines, max(length, WINDOW_PX)], strict=True))


def widened(frame: np.ndarray) -> np.ndarray:
    """The frame, mirrored to the right and below until both sides have 256 pixels."""
    more = [(0, max(0, WINDOW_PX - side)) for side in frame.shape[:2]]
    return np.pad(frame, [*more, *[(0, 0)] * (frame.ndim - 2)], mode="reflect")


def stitched(frame: np.ndarray, answer) -> np.ndarray:
    """Runs `answer` (256 x 256 x 3, u8 -> 2 x 256 x 256 probabilities) over a frame: 2 x rows x columns."""
    rows, columns = frame.shape[:2]
    wide = widened(frame)
    out = np.zeros((2, *wide.shape[:2]), np.float32)
    for top, row_from, row_to in parts(wide.shape[0]):
        for left, column_from, column_to in parts(wide.shape[1]):
            maps = answer(wide[top : top + WINDOW_PX, left : left + WINDOW_PX])
            out[:, row_from:row_to, column_from:column_to] = maps[
                :, row_from - top : row_to - top, column_from - left : column_to - left
            ]
    return out[:, :rows, :columns]


# Watershed


def whole(values: np.ndarray | float) -> np.ndarray:
    """Probabilities as whole numbers, 0 to 65535."""
    return np.floor(np.asarray(values, np.float64) * FULL_SCALE + 0.5).astype(np.int64)


def nuclei(interior: np.ndarray, border: np.ndarray, rule: Rule) -> np.ndarray:
    """Labels (int32, the maps' shape) of two probability maps."""
    height, inside, seeds = levels(interior, border, rule)
    return sure(height, flood(height, inside, seeds), rule)


def levels(interior: np.ndarray, border: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(whole-numbered interior, inside, numbered seeds): steps 1 to 3."""
    height = whole(interior)
    inside = height >= whole(rule.interior_threshold)
    seed_pixels = inside & (height - whole(border) >= whole(rule.seed_threshold))
    return height, inside, numbered(seed_pixels, rule.area_min_px)


def numbered(pixels: np.ndarray, area_min_px: int) -> np.ndarray:
    """Components of 8 neighbours with at least so many pixels, numbered by first pixel."""
    rows, columns = pixels.shape
    labels = np.zeros(pixels.shape, np.int32)
    seen = ~pixels
    count = 0
    for row, column in np.argwhere(pixels):
        if seen[row, column]:
            continue
        seen[row, column] = True
        member, at = [(row, column)], 0
        while at < len(member):
            r, c = member[at]
            at += 1
            for y in range(max(r - 1, 0), min(r + 2, rows)):
                for x in range(max(c - 1, 0), min(c + 2, columns)):
                    if not seen[y, x]:
                        seen[y, x] = True
                        member.append((y, x))
        if len(member) >= area_min_px:
            count += 1
            labels[tuple(np.transpose(member))] = count
    return labels


def flood(height: np.ndarray, inside: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Steps 4 and 5."""
    rows, columns = height.shape
    labels = seeds.copy()
    queue = [(-int(height[r, c]), age, int(r), int(c)) for age, (r, c) in enumerate(np.argwhere(seeds))]
    heapq.heapify(queue)
    age = len(queue)
    while queue:
        _, _, row, column = heapq.heappop(queue)
        for r, c in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
            if 0 <= r < rows and 0 <= c < columns and inside[r, c] and labels[r, c] == 0:
                labels[r, c] = labels[row, column]
                heapq.heappush(queue, (-int(height[r, c]), age, r, c))
                age += 1
    return labels


def sure(height: np.ndarray, labels: np.ndarray, rule: Rule) -> np.ndarray:
    """Step 6."""
    area = np.bincount(labels.ravel())
    total = np.bincount(labels.ravel(), height.ravel())  # below 2^53: exact
    stays = total >= int(whole(rule.mean_min)) * area
    stays[0] = False
    return np.where(stays, np.cumsum(stays), 0).astype(np.int32)[labels]


# Cases for other languages


def _case(name: str, interior: np.ndarray, border: np.ndarray, rule: Rule) -> dict:
    """Maps as whole numbers 0 to 65535 (probability = number / 65535), and what must come out."""
    i, b = whole(interior), whole(border)
    labels = nuclei(i / FULL_SCALE, b / FULL_SCALE, rule)
    return {
        "name": name,
        **asdict(rule),
        "rows": i.shape[0],
        "columns": i.shape[1],
        "interior": i.ravel().tolist(),
        "border": b.ravel().tolist(),
        "labels": labels.ravel().tolist(),
    }


def _discs(side: int, discs: list[tuple[float, float, float]], rng: np.random.Generator | None) -> tuple:
    """Soft discs (row, column, radius) and their rims, with noise where a generator is given."""
    y, x = np.mgrid[:side, :side]
    depth = np.max([r - np.hypot(y - cy, x - cx) for cy, cx, r in discs], axis=0)
    interior = 1 / (1 + np.exp(-2.0 * depth))
    border = np.exp(-((depth - 0.5) ** 2) / 1.5)
    if rng is not None:
        interior = interior + rng.normal(0, 0.08, interior.shape)
        border = border + rng.normal(0, 0.08, border.shape)
    return np.clip(interior, 0, 1), np.clip(border, 0, 1)


def cases() -> list[dict]:
    """Small maps that hold each rule to account."""
    rng = np.random.default_rng(20260523)
    nothing = np.zeros((4, 5))
    flat = np.full((3, 8), 0.8)
    wall = np.zeros((3, 8))
    wall[:, 3:5] = 0.9
    corner = np.zeros((4, 4))
    corner[0, 0] = corner[1, 1] = corner[2, 2] = 0.9
    lone = np.zeros((5, 9))
    lone[1:4, 1:4], lone[1:4, 6:9] = 0.9, 0.6
    edge = np.full((2, 2), 0.5)
    return [
        _case("nothing there", nothing, nothing, Rule()),
        _case("two seeds on flat ground: who entered first", flat, wall, Rule(0.5, 0.5, 1)),
        _case("seeds touch at corners, floods do not", corner, np.zeros((4, 4)), Rule(0.5, 0.5, 1)),
        _case("no seed, no nucleus", lone, np.zeros((5, 9)), Rule(0.5, 0.7, 1)),
        _case("too small a seed", lone, np.zeros((5, 9)), Rule(0.5, 0.5, 10)),
        _case("at the threshold counts", edge, np.zeros((2, 2)), Rule(0.5, 0.5, 4)),
        _case("two that touch", *_discs(24, [(11, 7, 6), (12, 17, 5.5)], None), Rule(0.5, 0.3, 4)),
        _case("a crowd, noisy", *_discs(40, [(8, 8, 6), (9, 20, 5), (20, 12, 7), (30, 30, 8), (22, 28, 5), (33, 6, 4)], rng), Rule(0.45, 0.25, 5)),
        _case("half believed in", lone, np.zeros((5, 9)), Rule(0.5, 0.5, 1, 0.7)),
        _case("a crowd, noisy, the sure ones", *_discs(40, [(8, 8, 6), (9, 20, 5), (20, 12, 7), (30, 30, 8), (22, 28, 5), (33, 6, 4)], rng), Rule(0.45, 0.25, 5, 0.86)),
        _case("noise alone", rng.random((24, 31)), rng.random((24, 31)), Rule(0.4, 0.2, 2)),
    ]


def window_cases() -> list[dict]:
    """Which window answers for which pixels along an axis."""
    return [{"length": n, "parts": [list(p) for p in parts(n)]} for n in (256, 257, 288, 320, 480, 481, 768, 1000, 4096)]


def main() -> None:
    """Writes the cases."""
    CASES.write_text(json.dumps({"watershed": cases(), "windows": window_cases()}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
