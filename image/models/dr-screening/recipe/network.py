"""The network: EfficientNet-Lite0 with ImageNet weights, four answers in one pass.

In: normalised tensors N x 3 x 448 x 448. Out: the referable logit, grade logits, the map of lesions, the gate's logits.
The first blocks stay as ImageNet made them: with 408 photographs they gain little, and their answers can be computed
once for every view, which is what makes training on two CPU cores possible. The gate reads only these frozen blocks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import backbone

SIDE_PX = 448
"""Width and height of the input."""

FROZEN_BLOCKS = 6
"""Blocks (of 16) behind the stem that are not trained."""

MAP_BLOCKS = 11 - FROZEN_BLOCKS
"""Trained blocks up to the last with 28 x 28 features, from which the map of lesions is drawn."""

MAP_SIDE = SIDE_PX // 16

TARGETS = 6
"""Logits in training: DR grade >= 1, 2, 3, 4, oedema risk >= 1, 2."""

REFERABLE = 1
"""Index of the logit for DR grade >= 2."""

TAPS = (-1, 0, 2, 4, 5)
"""Where the gate looks: behind the stem (-1) and behind these frozen blocks."""

TAP_CHANNELS = (32, 16, 24, 40, 80)
GRID = 4
GRID_TAP = 1
"""Of `TAPS`: the one whose mean is also taken in 4 x 4 fields, so that the gate sees where."""

STATISTICS = 2 * sum(TAP_CHANNELS) + GRID * GRID * TAP_CHANNELS[GRID_TAP]


class Statistics(nn.Module):
    """Mean and spread of each channel at several depths, and means in a coarse grid: N x STATISTICS."""

    def forward(self, *taps: torch.Tensor) -> torch.Tensor:
        """`taps` in the order of `TAPS`."""
        columns = []
        for tap in taps:
            mean = tap.mean(dim=(2, 3), keepdim=True)
            spread = (tap - mean).square().mean(dim=(2, 3)).add(1e-6).sqrt()
            columns += [mean.flatten(1), spread]
        fields = nn.functional.avg_pool2d(taps[GRID_TAP], taps[GRID_TAP].shape[-1] // GRID)
        return torch.cat([*columns, fields.flatten(1)], dim=1)


class Gate(nn.Module):
    """Statistics -> logits: fit to answer, then one for each reason."""

    def __init__(self, reasons: int, hidden: int = 64) -> None:
        """`centre` and `scale` standardise; they are set from the training part."""
        super().__init__()
        self.statistics = Statistics()
        self.register_buffer("centre", torch.zeros(STATISTICS))
        self.register_buffer("scale", torch.ones(STATISTICS))
        self.hidden = nn.Linear(STATISTICS, hidden)
        self.answer = nn.Linear(hidden, 1 + reasons)

    def from_statistics(self, statistics: torch.Tensor) -> torch.Tensor:
        """N x STATISTICS -> N x (1 + reasons)."""
        x = ((statistics - self.centre) * self.scale).clamp(-6, 6)
        return self.answer(torch.relu(self.hidden(x)))

    def forward(self, *taps: torch.Tensor) -> torch.Tensor:
        """Taps -> N x (1 + reasons)."""
        return self.from_statistics(self.statistics(*taps))


class Early(nn.Module):
    """The frozen part: its answer, and the gate's taps on the way."""

    def __init__(self) -> None:
        """ImageNet weights."""
        super().__init__()
        early, _ = backbone.early_and_late(SIDE_PX, FROZEN_BLOCKS)
        self.stem, self.blocks = early[:3], early[3:]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features in the order of `TAPS`; the last is what the trained part goes on from."""
        x = self.stem(images)
        taps = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        return taps


class EarlyCache(nn.Module):
    """What is computed once for each view: the frozen answer and the gate's statistics."""

    def __init__(self) -> None:
        """ImageNet weights."""
        super().__init__()
        self.early, self.statistics = Early().eval(), Statistics()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """N x 3 x 448 x 448 -> N x 80 x 28 x 28, N x STATISTICS."""
        taps = self.early(images)
        return taps[-1], self.statistics(*taps)


class Late(nn.Module):
    """The trained part: from the frozen features to the six logits and the map."""

    def __init__(self, dropout: float = 0.3) -> None:
        """ImageNet weights and new heads."""
        super().__init__()
        _, late = backbone.early_and_late(SIDE_PX, FROZEN_BLOCKS)
        self.middle, self.deep, self.top = late[:MAP_BLOCKS], late[MAP_BLOCKS:-3], late[-3:]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.POOLED_CHANNELS, TARGETS)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.near = nn.Conv2d(backbone.STAGE_CHANNELS[16], 64, 1)
        self.far = nn.Conv2d(backbone.STAGE_CHANNELS[32], 64, 1)
        self.join = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU6(), nn.Conv2d(64, 32, 3, padding=1), nn.ReLU6())
        self.map = nn.Conv2d(32, 1, 1)
        nn.init.constant_(self.map.bias, -3.0)
        backbone.slow_batch_norm(self)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """N x 80 x 28 x 28 -> N x 6, N x 1 x 28 x 28."""
        middle = self.middle(features)
        deep = self.deep(middle)
        logits = self.head(self.dropout(self.top(deep).mean(dim=(2, 3))))
        joined = self.near(middle) + nn.functional.interpolate(self.far(deep), scale_factor=2.0, mode="nearest")
        return logits, self.map(self.join(joined))


class Served(nn.Module):
    """What is exported."""

    OUTPUTS = ("referable", "grade", "lesions", "gate")

    def __init__(self, late: Late, gate: Gate) -> None:
        """Trained parts beside the frozen one."""
        super().__init__()
        self.early, self.late, self.gate = Early(), late, gate
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """N x 3 x 448 x 448 -> N x 1, N x 4, N x 1 x 28 x 28, N x (1 + reasons)."""
        taps = self.early(image)
        logits, lesions = self.late(taps[-1])
        return logits[:, REFERABLE : REFERABLE + 1], logits[:, :4], lesions, self.gate(*taps)
