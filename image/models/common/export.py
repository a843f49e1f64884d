"""From a trained torch module to a bundle's files: FP32 IR, INT8 IR, and a runner that answers as the appliance does.

In: a torch module with one input and one or more outputs. Out: OpenVINO models, .xml and .bin.
Promise: static shapes, named tensors, one thread and exact FP32 in the runner, no trace of the machine in the files.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
import torch
from tqdm import tqdm

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
"""How the appliance compiles: the CPU would otherwise compute FP32 networks in bfloat16."""


def tensor(picture: np.ndarray, mean: Iterable[float], std: Iterable[float]) -> np.ndarray:
    """Rows x columns (x channels) in 0..255 -> channels x rows x columns, normalised float32."""
    planes = picture[..., None] if picture.ndim == 2 else picture
    scaled = planes.astype(np.float32) / 255
    return ((scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)).transpose(2, 0, 1)


def to_ir(net: torch.nn.Module, shape: list[int], outputs: list[str], name: str = "image") -> ov.Model:
    """FP32 IR, static input `shape` [1, channels, rows, columns]; `outputs` name what `forward` returns, in order."""
    net.eval()
    model = ov.convert_model(net, example_input=torch.zeros(shape), input=[shape])
    if len(model.outputs) != len(outputs):
        raise ValueError(f"the network has {len(model.outputs)} outputs, {len(outputs)} names were given")
    model.inputs[0].get_tensor().set_names({name})
    for port, label in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({label})
    model.reshape({name: shape})
    return model


def to_int8(
    model: ov.Model,
    tensors: Iterable[np.ndarray],
    fast: bool = False,
    keep: list[str] | None = None,
    overflow_fix: bool = True,
) -> ov.Model:
    """Post-training quantisation, preset PERFORMANCE (symmetric).

    - `tensors`: calibration inputs, channels x rows x columns, normalised.
    - `fast`: NNCF's fast bias correction; the slow one strays less from FP32 and takes minutes.
    - `keep`: regular expressions of operations left in FP32 (their friendly names in the IR).
    """
    batches = [np.ascontiguousarray(t, np.float32)[None] for t in tensors]
    fix = nncf.OverflowFix.FIRST_LAYER if overflow_fix else nncf.OverflowFix.DISABLE
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(batches),
        fast_bias_correction=fast,
        ignored_scope=nncf.IgnoredScope(patterns=keep) if keep else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
    )


class Runner:
    """Runs a model one picture at a time, as the appliance does."""

    def __init__(self, model: ov.Model | Path | str) -> None:
        """Compiles for the CPU with one thread; a path is read first."""
        core = ov.Core()
        compiled = core.compile_model(model if isinstance(model, ov.Model) else core.read_model(model), "CPU", EXACT)
        self.names = [port.get_any_name() for port in compiled.outputs]
        self.request = compiled.create_infer_request()

    def run(self, one: np.ndarray) -> dict[str, np.ndarray]:
        """Raw outputs (batch dimension kept) of one tensor, channels x rows x columns."""
        answer = self.request.infer([np.ascontiguousarray(one, np.float32)[None]])
        return {name: np.array(answer[index]) for index, name in enumerate(self.names)}

    def run_all(self, tensors: Iterable[np.ndarray], describe: str = "") -> dict[str, np.ndarray]:
        """Raw outputs of many tensors, stacked along the first dimension."""
        answers = [self.run(one) for one in tqdm(tensors, desc=describe or None, disable=not describe, leave=False)]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self.names}

    def median_ms(self, one: np.ndarray, runs: int = 50) -> float:
        """Median time of one inference on one thread."""
        x, times = np.ascontiguousarray(one, np.float32)[None], []
        for _ in range(runs):
            start = time.perf_counter()
            self.request.infer([x])
            times.append(time.perf_counter() - start)
        return float(np.median(times) * 1000)


def save_ir(model: ov.Model, xml: Path) -> None:
    """Writes `xml` and the .bin beside it, without machine facts."""
    xml.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, xml, compress_to_fp16=False)
    strip_machine_facts(xml)


def operations(model: ov.Model) -> int:
    """Number of operations, which a bundle's `ops_max` bounds."""
    return sum(1 for _ in model.get_ops())


def strip_machine_facts(xml: Path) -> None:
    """Removes what names this machine from the IR: paths, and the conversion call."""
    text = xml.read_text()
    text = re.sub(r"\s*<conversion_parameters>.*?</conversion_parameters>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<(\w+) value=\"/[^\"]*\" ?/>", "", text)
    for fact in ("/tmp", "/home", "/root", "site-packages"):
        if fact in text:
            raise SystemExit(f"{xml.name} still names {fact}")
    xml.write_text(text)


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Versions that a card names."""
    return {
        "openvino": ov.__version__.split("-")[0],
        "nncf": nncf.__version__,
        "torch": torch.__version__.split("+")[0],
    }
