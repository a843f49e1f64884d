"""What leaves the recipe: both networks as they are served, in FP32 and INT8.

In: the work folder of tissue.py, gate.py and nuclei.py. Out: OpenVINO models, and answers of their outputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import torch
from torch import nn

import fields
import tiles
from gate import READ_BLOCK, Gate
from heads import Head, load_head
from nuclei import SIDE_PX, NucleiNet
from shared import save as save  # noqa: PLC0414  (keeps the import that sets the path first)
from tissue import NUMBERS, TissueNet, columns
from common.export import to_int8, to_ir

CALIBRATION = 160
"""Tiles that quantisation sees; of windows a third as many, which are larger and answer with maps."""


class TissueServed(nn.Module):
    """Image -> (class_logits N x 3, gate_logits N x 4): the backbone runs once for both."""

    def __init__(self, head: Head, gate: Gate) -> None:
        """Takes trained heads."""
        super().__init__()
        self.net, self.class_head, self.gate = TissueNet(), head, gate
        block = columns(READ_BLOCK, 0)
        self.read = slice(block.start, block.start + 3 * (block.stop - block.start))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """N x 3 x 224 x 224."""
        numbers = self.net(image)
        return self.class_head(numbers), self.gate(image, numbers[:, self.read])


def load_tissue(work: Path, name: str) -> TissueServed:
    """The tile network with the class head of a fold (or `final`) and the gate."""
    gate = Gate()
    gate.load_state_dict(torch.load(work / "gate.pt", weights_only=True))
    return TissueServed(load_head(work, name), gate.eval()).eval()


def load_nuclei(work: Path, name: str) -> NucleiNet:
    """The nuclei network of a fold (or `final`)."""
    net = NucleiNet()
    net.load_state_dict(torch.load(work / f"nuclei-{name}.pt", weights_only=True))
    return net.eval()


def tissue_ir(net: TissueServed) -> ov.Model:
    """FP32 IR."""
    return to_ir(net, [1, 3, tiles.SIDE_PX, tiles.SIDE_PX], ["class_logits", "gate_logits"])


def nuclei_ir(net: NucleiNet) -> ov.Model:
    """FP32 IR."""
    return to_ir(net, [1, 3, SIDE_PX, SIDE_PX], ["nuclei_logits"])


def tissue_int8(model: ov.Model, lung: list[np.ndarray], others: list[np.ndarray], seed: list[int]) -> ov.Model:
    """INT8 of the tile network: calibrated on lung tiles, and on other pictures so that the gate's range is known too."""
    rng = np.random.default_rng(seed)
    picked = [lung[i] for i in rng.choice(len(lung), CALIBRATION * 3 // 4, replace=False)]
    picked += [others[i] for i in rng.choice(len(others), CALIBRATION // 4, replace=False)]
    # The gate is two small products on pooled numbers: eight bits there cost answers and save nothing.
    return to_int8(model, [tiles.tensor(p) for p in picked], fast=True, keep=[".*gate.*"])


def numbers_of(model: ov.Model) -> ov.Model:
    """The same graph, answering with the backbone's numbers alone: every fold's head can be put on them."""
    own = model.clone()
    found = [op for op in own.get_ops() if op.get_type_name() == "Concat" and list(op.output(0).shape) == [1, NUMBERS]]
    if len(found) != 1:
        raise ValueError(f"{len(found)} operations answer with {NUMBERS} numbers")
    return ov.Model([found[0].output(0)], own.get_parameters(), "numbers")


def nuclei_int8(model: ov.Model, known: fields.Fields, rows: np.ndarray, seed: list[int]) -> ov.Model:
    """INT8 of the nuclei network: calibrated on windows of these fields."""
    rng, windows = np.random.default_rng(seed), []
    for index in np.resize(rng.permutation(rows), CALIBRATION // 4):
        picture = known.pictures[index]
        left = int(rng.integers(picture.shape[1] - SIDE_PX + 1))
        windows.append(np.rot90(picture[:SIDE_PX, left : left + SIDE_PX], rng.integers(4)))
    # The last product and what doubles its maps stay exact: a step of eight bits there moves seeds over their threshold.
    return to_int8(model, [tiles.tensor(w) for w in windows], keep=[".*module.head.*", ".*upsample_bilinear.*"])
