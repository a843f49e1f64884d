"""Chooses the quality limits and states what they cost and what they catch.

In: the data folder and one CC0 photograph of another camera. Out: `quality.json` in the work folder.
Promise: the limits pass at least 97 % of the originals and the other camera's picture; detection rates are counted on
degraded copies of every fourth original, degraded at 512 x 512 as a bad photograph would be.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import fundus

Limits = dict[str, float]

EVERY = 4
"""Every fourth photograph is degraded: enough for a rate within a few percent, at a quarter of the time."""


def blurred(sigma: float, rgb: np.ndarray) -> np.ndarray:
    """Out of focus."""
    return cv2.GaussianBlur(rgb, (0, 0), sigma)


def scaled(factor: float, rgb: np.ndarray) -> np.ndarray:
    """Under- or overexposed by a factor, clipped at white."""
    return fundus.to_u8(rgb.astype(np.float32) * factor)


def bent(gamma: float, rgb: np.ndarray) -> np.ndarray:
    """Darkened (gamma > 1) as by a wrong tone curve."""
    return fundus.to_u8(255 * (rgb / 255.0) ** gamma)


def blurred_and_scaled(sigma: float, factor: float, rgb: np.ndarray) -> np.ndarray:
    """Out of focus and badly exposed."""
    return scaled(factor, blurred(sigma, rgb))


def half_covered(share: float, rgb: np.ndarray) -> np.ndarray:
    """A lid or the camera's edge hides a share of the frame."""
    out = rgb.copy()
    out[: int(share * rgb.shape[0])] = 0
    return out


DEGRADATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"blur sigma {s}": partial(blurred, s) for s in (1, 2, 3, 4, 6)},
    **{f"exposure x{f}": partial(scaled, f) for f in (0.1, 0.2, 0.3, 0.5, 1.5, 2.0, 3.0)},
    **{f"gamma {g}": partial(bent, g) for g in (2.0, 3.0)},
    "blur sigma 2, exposure x0.5": partial(blurred_and_scaled, 2, 0.5),
    "blur sigma 4, exposure x0.25": partial(blurred_and_scaled, 4, 0.25),
    "blur sigma 6, exposure x0.25": partial(blurred_and_scaled, 6, 0.25),
    **{f"{round(s * 100)} % of the frame covered": partial(half_covered, s) for s in (0.3, 0.5)},
}


def at_512(rgb: np.ndarray) -> np.ndarray:
    """The retina square at 512 x 512, where every degradation is applied."""
    return fundus.to_u8(fundus.area_resize(fundus.retina_square(rgb), fundus.QUALITY_SIDE_PX))


def measure(rgb: np.ndarray, degrade: bool) -> dict[str, dict[str, float] | None]:
    """Quality of one photograph and, if asked, of its degraded copies."""
    out = {"original": fundus.quality(rgb)}
    if degrade:
        square = at_512(rgb)
        out |= {name: fundus.quality(change(square)) for name, change in DEGRADATIONS.items()}
    return out


def passes(numbers: dict[str, float] | None, limits: Limits) -> bool:
    """Whether a picture with these numbers is gradable; one without a retina is not."""
    return numbers is not None and (
        numbers["focus"] >= limits["focus_min"]
        and limits["exposure_min"] <= numbers["exposure"] <= limits["exposure_max"]
        and numbers["clipped"] <= limits["clipped_max"]
        and numbers["field"] >= limits["field_min"]
    )


def choose(originals: list[dict[str, float]]) -> Limits:
    """Each limit at the edge of what the originals show: the worst 2.5 % of focus, a margin past the rest.

    Focus separates blur from detail, so the false rejects are spent on it; the others get a margin because another
    camera's exposure and colour differ more from these photographs than these do among themselves. `field_min` is
    chosen by use: with a fifth of the retina out of sight a negative answer means little.
    """
    column = {name: np.array([numbers[name] for numbers in originals]) for name in originals[0]}
    return {
        "focus_min": _floor2(np.quantile(column["focus"], 0.025)),
        "exposure_min": _floor2(np.quantile(column["exposure"], 0.005) * 0.9),
        "exposure_max": _floor2(np.quantile(column["exposure"], 0.995) * 1.2) + 0.01,
        "clipped_max": _floor2(np.quantile(column["clipped"], 0.995) * 1.5) + 0.01,
        "field_min": 0.8,
    }


def _floor2(value: float) -> float:
    return float(np.floor(value * 100) / 100)


def main() -> None:
    """Measures, chooses, counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other-camera", type=Path, required=True, help="the CC0 photograph retina.jpg")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pictures, _ = fundus.load(options.data)
    measured = [measure(rgb, i % EVERY == 0) for i, rgb in enumerate(tqdm(pictures, unit="photo"))]
    degraded = measured[::EVERY]
    other = measure(fundus.decode_rgb(options.other_camera.read_bytes()), degrade=True)
    limits = {name: round(value, 4) for name, value in choose([m["original"] for m in measured]).items()}
    kept = float(np.mean([passes(m["original"], limits) for m in measured]))
    if kept < 0.97 or not passes(other["original"], limits):
        raise SystemExit(f"limits {limits} keep {kept:.3f} of the originals, other camera {other['original']}")
    column = {name: [m["original"][name] for m in measured] for name in other["original"]}
    result = {
        "limits": limits,
        "originals": len(measured),
        "degraded": len(degraded),
        "originals_rejected": 1 - kept,
        "quantiles_1_50_99": {n: [float(q) for q in np.quantile(v, (0.01, 0.5, 0.99))] for n, v in column.items()},
        "other_camera": other["original"],
        "rejected_by_degradation": {
            name: float(np.mean([not passes(m[name], limits) for m in degraded])) for name in DEGRADATIONS
        },
        "other_camera_rejected": {name: not passes(other[name], limits) for name in DEGRADATIONS},
        "other_camera_degraded": other,
    }
    (options.work / "quality.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "other_camera_degraded"}, indent=1))


if __name__ == "__main__":
    main()
