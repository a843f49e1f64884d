"""Pictures that are not grey thyroid ultrasound: what the gate is taught to refuse, and what it is tested with.

In: the folders of other data sets. Out: u8 pictures as the network sees them, by kind.
Promise: a kind's pictures split in two, so that no picture is both taught and tested.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

import frames as fr

NOT_ULTRASOUND, OTHER_BODY_PART, COLOUR_FLOW = 1, 2, 3
PHOTOGRAPHS = {"eye": "idrid-512", "lung tissue": "lc25000-lung-224", "nuclei": "dsb2018-tissue-nuclei"}
BREAST = "busi-breast-us/images256.zip"
NONSENSE = (
    "noise", "coarse noise", "gradient", "text", "flat", "checker", "stripes", "circles", "polygons", "inverted text"
)  # fmt: skip
REASON = {**dict.fromkeys((*PHOTOGRAPHS, "stain", *NONSENSE), NOT_ULTRASOUND), "breast": OTHER_BODY_PART}
REASON |= {"sector": OTHER_BODY_PART, "colour flow": COLOUR_FLOW}


def photographs(path: Path, count: int, salt: int) -> list[np.ndarray]:
    """`count` pictures of a packed data set, chosen by seed, RGB, no label maps."""
    with zipfile.ZipFile(path) as pack:
        names = sorted(n for n in pack.namelist() if n.endswith((".jpg", ".png")) and "_label" not in n)
        picked = np.random.default_rng([fr.SEED, salt]).permutation(len(names))[:count]
        data = [np.frombuffer(pack.read(names[i]), np.uint8) for i in picked]
    return [cv2.imdecode(d, cv2.IMREAD_COLOR)[..., ::-1] for d in data]


def nonsense(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One synthetic picture of a kind."""
    side = fr.SIDE_PX
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
    low, high = sorted(rng.uniform(0, 255, 2))
    if kind == "noise":
        plane = rng.normal(rng.uniform(40, 200), rng.uniform(10, 90), (side, side))
    elif kind == "coarse noise":
        plane = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), rng.uniform(1.5, 20))
        plane = low + (high - low) * (plane - plane.min()) / np.ptp(plane)
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        plane = low + (high - low) * (0.5 + (rows - 0.5) * np.sin(angle) + (columns - 0.5) * np.cos(angle))
    elif kind in ("text", "inverted text"):
        plane = _text(rng)
        plane = 255 - plane if kind == "inverted text" else plane
    elif kind == "flat":
        plane = np.full((side, side), rng.uniform(0, 255)) + rng.normal(0, rng.uniform(0, 2), (side, side))
    elif kind == "checker":
        field = int(rng.integers(4, 64))
        plane = np.where((rows * side // field + columns * side // field) % 2 > 0, high, low)
    elif kind == "stripes":
        plane = low + (high - low) * (0.5 + 0.5 * np.sin((rows * rng.normal() + columns * rng.normal()) * rng.uniform(10, 150)))
    else:
        plane = _figures(kind, rng, low)
    return fr.to_u8(plane)


def _text(rng: np.random.Generator) -> np.ndarray:
    page = np.zeros((fr.SIDE_PX, fr.SIDE_PX), np.uint8)
    size = rng.uniform(0.3, 0.9)
    for row in range(int(30 * size), fr.SIDE_PX, int(14 + 24 * size)):
        words = "".join(rng.choice(list("abcdefghiklmnoprstuvwxyzABCDE 0123456789:/.-    "), 40))
        cv2.putText(page, words, (4, row), int(rng.choice([0, 2, 3])), size, int(rng.integers(120, 256)), 1, cv2.LINE_AA)
    return page


def _figures(kind: str, rng: np.random.Generator, low: float) -> np.ndarray:
    plane = np.full((fr.SIDE_PX, fr.SIDE_PX), low, np.uint8)
    for _ in range(int(rng.integers(2, 20))):
        at, shade = rng.integers(0, fr.SIDE_PX, 2), int(rng.integers(0, 256))
        if kind == "circles":
            cv2.circle(plane, [int(v) for v in at], int(rng.integers(5, 80)), shade, int(rng.choice([-1, 2])), cv2.LINE_AA)
        else:
            cv2.fillPoly(plane, [(at + rng.integers(-60, 60, (int(rng.integers(3, 7)), 2))).astype(np.int32)], shade)
    return plane


def sector(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ultrasound texture bent into the fan of a convex or phased probe, as the heart and the belly are shown.

    Half of them dark with black chambers; some small on their screen, some with letters.
    """
    side = fr.SIDE_PX
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    apex, half = -rng.uniform(0, 0.5) * side, np.deg2rad(rng.uniform(25, 50))
    inner = -apex + rng.uniform(0.0, 0.15) * side
    outer = (side - apex) * rng.uniform(0.8, 1.0)
    if rng.random() < 0.5:
        picture = _chambers(picture, rng)
    x, y = columns - side * rng.uniform(0.4, 0.6), rows - apex
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    across = (angle / half + 1) / 2 * (picture.shape[1] - 1)
    deep = (radius - inner) / (outer - inner) * (picture.shape[0] - 1)
    bent = cv2.remap(picture, across.astype(np.float32), deep.astype(np.float32), cv2.INTER_LINEAR, borderValue=0)
    bent[(np.abs(angle) > half) | (radius < inner) | (radius > outer)] = 0
    if rng.random() < 0.5:
        scale = rng.uniform(0.55, 0.95)
        shift = (1 - scale) * side * rng.uniform(0, 1, 2)
        bent = cv2.warpAffine(bent, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (side, side), flags=cv2.INTER_AREA)
    return fr.written(bent, rng) if rng.random() < 0.4 else bent


def _chambers(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker, with soft black holes."""
    holes = cv2.GaussianBlur(rng.standard_normal(picture.shape[:2]), (0, 0), picture.shape[0] * rng.uniform(0.06, 0.15))
    share = 1 / (1 + np.exp(-(holes / holes.std() - rng.uniform(-0.6, 0.6)) * 6))
    return fr.to_u8(picture * (rng.uniform(0.3, 0.9) * (1 - share)))


def colour_flow(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey frame with red and blue patches inside a box, as colour Doppler paints flow; RGB."""
    side = fr.SIDE_PX
    out = np.repeat(picture[..., None], 3, 2).astype(np.float32)
    width, height = rng.uniform(0.3, 0.8, 2) * side
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    rows, columns = np.mgrid[:side, :side]
    box = (columns > left) & (columns < left + width) & (rows > top) & (rows < top + height)
    flow, way = (cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), rng.uniform(4, 14)) for _ in range(2))
    painted = box & (flow > np.quantile(flow[box], rng.uniform(0.3, 0.85)))
    strength = np.clip(0.35 + 0.65 * (flow - flow.min()) / np.ptp(flow), 0, 1)[..., None]
    warm = strength * np.array([255, 170, 20]) * np.array([1.0, 0.2 + 0.8 * rng.random(), 1.0])
    cold = strength * np.array([20, 140, 255])
    colour = np.where((way > 0)[..., None], warm, cold)
    out[painted] = 0.9 * colour[painted] + 0.1 * out[painted]
    return fr.to_u8(out)


def phantom(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A drawn scan and its mask: skin, muscle and gland in layers, a soft oval, speckle. No patient, so any may see it.

    SIDE_PX u8 both. The gate is taught that these fit, so that an appliance can be tried without a patient.
    """
    side = fr.SIDE_PX
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
    wave = 0.02 * np.sin(columns * rng.uniform(3, 9) + rng.uniform(0, 6))
    levels = np.full((side, side), rng.uniform(90, 170), np.float32)
    for edge, level in ((0.78, 90), (-0.3, 105), (-0.16, 185), (-0.1, 140)):
        deep = rows + wave > edge if edge > 0 else rows + wave < -edge
        levels[deep] = level * rng.uniform(0.7, 1.2)
    turn, long, flat = rng.uniform(-0.5, 0.5), rng.uniform(0.12, 0.27), rng.uniform(0.6, 1.0)
    x, y = columns - rng.uniform(0.38, 0.62), rows - rng.uniform(0.42, 0.6)
    across, down = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    bumps = 1 + 0.06 * np.sin(np.arctan2(down, across) * int(rng.integers(3, 7)))
    inside = np.hypot(across, down / flat) < long * bumps
    levels[cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0] *= rng.uniform(1.0, 1.3)
    levels[inside] = rng.uniform(45, 85)
    levels = cv2.GaussianBlur(levels, (0, 0), rng.uniform(1.5, 3.5))
    grain = cv2.GaussianBlur(rng.rayleigh(1.0, (side, side)).astype(np.float32), (0, 0), rng.uniform(0.6, 1.4))
    grain = 1 + (grain - grain.mean()) / grain.std() * rng.uniform(0.15, 0.35)
    return fr.to_u8(levels * grain), inside.astype(np.uint8)


def shaken(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture as the network sees it: cropped, mirrored, half of the colour ones made grey, gain and gamma shifted."""
    side = min(picture.shape[:2])
    cut = int(side * rng.uniform(0.45, 1.0))
    top, left = (int(rng.integers(0, n - cut + 1)) for n in picture.shape[:2])
    x = cv2.resize(picture[top : top + cut, left : left + cut], (fr.SIDE_PX, fr.SIDE_PX), interpolation=cv2.INTER_AREA)
    if x.ndim == 3 and rng.random() < 0.6:
        x = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
    x = x[:, ::-1] if rng.random() < 0.5 else x
    return fr.to_u8((x.astype(np.float32) / 255) ** rng.uniform(0.7, 1.4) * 255 * rng.uniform(0.7, 1.3))


def kinds(data: Path, count: int) -> dict[str, tuple[list[np.ndarray], list[np.ndarray]]]:
    """For each kind (pictures to teach, pictures to test), both as the network sees them; tests are whole and unshaken."""
    sets: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    paths = {**{k: data / folder / "images.zip" for k, folder in PHOTOGRAPHS.items()}, "breast": data / BREAST}
    for salt, (kind, path) in enumerate(paths.items()):
        rng = np.random.default_rng([fr.SEED, 40, salt])
        pictures = photographs(path, 2 * count, salt)
        half = len(pictures) // 2
        taught = [shaken(p, rng) if n % 3 else fr.as_seen(p) for n in range(2) for p in pictures[:half]]
        sets[kind] = (taught, [fr.as_seen(p) for p in pictures[half:]])
        if kind == "breast":
            grey = [fr.as_seen(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)) for p in pictures]
            bent, flow = [sector(p, rng) for p in grey], [colour_flow(p, rng) for p in grey]
            sets |= {"sector": (bent[:half], bent[half:]), "colour flow": (flow[:half], flow[half:])}
    stain = cv2.imread(str(data / "scikit-image-samples" / "ihc.png"))[..., ::-1]
    rng = np.random.default_rng([fr.SEED, 41])
    sets["stain"] = ([shaken(stain[:, :256], rng) for _ in range(30)], [fr.as_seen(stain), fr.as_seen(stain[:, 256:])])
    for salt, kind in enumerate(NONSENSE):
        rng = np.random.default_rng([fr.SEED, 42, salt])
        made = [nonsense(kind, rng) for _ in range(120)]
        sets[kind] = (made[:60], made[60:])
    return sets
