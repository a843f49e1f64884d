"""Golden vectors: pictures whose FP32 answers a bundle carries, so that every machine can prove itself.

In: u8 pictures (N x rows x columns x channels) and raw FP32 outputs. Out: `<network>.inputs.bin` (the bytes) and
`<network>.expected.bin` (u16 little endian, round(value * 65535)): for each vector, for each output in order, its
activated values; maps row-major, channel by channel.
Promise: the activation is the appliance's own, kind by kind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.figures import sigmoid, softmax

MAPS = ("mask_logits", "heat_logits", "nuclei_logits")
"""Kinds whose answer is a map."""


def activate(kind: str, raw: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Raw outputs N x ... of one kind -> values in 0..1, same shape."""
    if kind in ("class_logits", "gate_logits"):
        return softmax(raw / temperature)
    if kind == "ordinal_logits":
        return np.minimum.accumulate(sigmoid(raw / temperature), axis=1)
    if kind == "binary_logit":
        return sigmoid(raw / temperature)
    if kind in MAPS:
        return sigmoid(raw)
    raise ValueError(f"no such kind: {kind}")


def activated(raw: dict[str, np.ndarray], outputs: list[dict]) -> list[np.ndarray]:
    """Activated values of each output (`tensor`, `kind`, `temperature` as in the manifest), N x values."""
    out = []
    for spec in outputs:
        values = activate(spec["kind"], np.asarray(raw[spec["tensor"]], np.float64), spec.get("temperature", 1.0))
        out.append(values.reshape(len(values), -1))
    return out


def write(
    bundle: Path, network: str, pictures: np.ndarray, raw_fp32: dict[str, np.ndarray], outputs: list[dict]
) -> dict:
    """Writes both files; the table `[networks.golden]` without its tolerances."""
    if pictures.dtype != np.uint8:
        raise ValueError("golden inputs are u8")
    folder = bundle / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    inputs, expected = folder / f"{network}.inputs.bin", folder / f"{network}.expected.bin"
    inputs.write_bytes(np.ascontiguousarray(pictures).tobytes())
    values = np.concatenate(activated(raw_fp32, outputs), axis=1)
    expected.write_bytes(np.rint(np.clip(values, 0, 1) * 65535).astype("<u2").tobytes())
    return {
        "inputs": f"golden/{network}.inputs.bin",
        "expected": f"golden/{network}.expected.bin",
        "count": len(pictures),
    }


def differences(raw_fp32: dict, raw_int8: dict, outputs: list[dict]) -> dict[str, float]:
    """How far the served network strays: greatest difference of a scalar, greatest mean difference of a map."""
    scalar, map_mean = 0.0, 0.0
    pairs = zip(activated(raw_fp32, outputs), activated(raw_int8, outputs), outputs, strict=True)
    for exact, served, spec in pairs:
        gap = np.abs(exact - served)
        if spec["kind"] in MAPS:
            map_mean = max(map_mean, float(gap.mean(axis=1).max()))
        else:
            scalar = max(scalar, float(gap.max()))
    return {"scalar_max": scalar, "map_mean_max": map_mean}


def tolerances(found: dict[str, float], with_maps: bool) -> dict[str, float]:
    """Tolerances with room for other machines' rounding; refuses a network that strays beyond what a bundle may."""
    scalar = max(0.03, round(1.25 * found["scalar_max"] + 0.005, 3))
    if scalar > 0.1:
        raise SystemExit(f"the INT8 network strays too far from FP32: {found}")
    out = {"tolerance_abs": scalar}
    if with_maps:
        mean = max(0.01, round(1.5 * found["map_mean_max"] + 0.002, 3))
        if mean > 0.05:
            raise SystemExit(f"the INT8 maps stray too far from FP32: {found}")
        out["tolerance_map_mean"] = mean
    return out
