"""Puts the folder of all models on the path, so that the recipes' shared parts can be imported; small helpers of training.

In: nothing. Out: `common` importable once this module is imported.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import openvino as ov
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from common.export import EXACT  # noqa: E402  (the path had to be set first)

# A recipe shares its cores with other work; a thread that is tied to one of them waits where another is idle.
EXACT["ENABLE_CPU_PINNING"] = False


def compiled(net: torch.nn.Module, shape: list[int]) -> ov.CompiledModel:
    """A torch module as a compiled FP32 model of fixed shape: answers of frozen parts come three times faster so."""
    model = ov.convert_model(net.eval(), example_input=torch.zeros(shape), input=[shape])
    return ov.Core().compile_model(model, "CPU", EXACT)


def rate_share(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: warm-up over a tenth of the steps, then a cosine to a hundredth."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def follow(mean: torch.nn.Module, net: torch.nn.Module, decay: float) -> None:
    """The running mean of the weights takes one step towards the weights."""
    with torch.no_grad():
        for kept, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def save(content: object, path: Path) -> None:
    """Writes whole or not at all."""
    torch.save(content, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
