"""The network: one frozen stem, a trained branch that draws the nodule, a frozen branch that the two small heads read.

In: normalised tensors N x 3 x 256 x 256. Out: `mask` N x 1 x 128 x 128, `suspicious` N x 1, `gate` N x 4, all logits.
Promise: only convolutions, ReLU6, nearest and bilinear enlargement, sums and means, which INT8 takes on CPU and FPGA; the
statistics that the heads read stay in floating point.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import backbone
from frames import SIDE_PX

FROZEN_BLOCKS = 3
"""Blocks (of 15 used) behind the stem that stay as ImageNet made them: they answer fast, outside of the gradient."""

REASONS = ("not_ultrasound", "other_body_part", "colour_flow")
"""Why a picture is refused; logit 0 of the gate is for pictures that fit."""

SHALLOW = 2 * (32 + 16 + 24) + 16 * 16
"""Gate columns from the frozen blocks: mean and spread of each channel, and how bright each of 4 x 4 fields is."""

GATE_FEATURES = SHALLOW + 2 * 40 + 112 + 192
SUSPICION_FEATURES = 2 * (112 + 192)
"""Means inside and outside of the nodule, of the frozen branch at stride 16 and 32."""


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _lateral(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class NoduleNet(nn.Module):
    """What is trained by gradient: the encoder behind `early` (frozen, stride 4) and the decoder.

    `suspicious` only helps the encoder to look at texture; it is not served (served, it had learned the frames by heart).
    """

    def __init__(self, width: int = 64) -> None:
        """ImageNet weights in the encoder, new ones elsewhere."""
        super().__init__()
        parts = backbone.Parts(SIDE_PX)
        blocks = parts.blocks
        self.early = nn.Sequential(*parts.stem, *blocks[:FROZEN_BLOCKS])
        self.early.requires_grad_(False)
        self.to8 = nn.Sequential(*blocks[FROZEN_BLOCKS:5])
        self.to16 = nn.Sequential(*blocks[5:11])
        self.to32 = nn.Sequential(*blocks[11:15])
        self.side4, self.side8 = _lateral(24, width // 2), _lateral(40, width)
        self.side16, self.side32 = _lateral(112, width), _lateral(192, width)
        self.join16, self.join8 = _separable(width, width), _separable(width, width)
        self.down4 = _lateral(width, width // 2)
        self.join4 = _separable(width // 2, width // 2)
        self.mask = nn.Conv2d(width // 2, 1, 1)
        self.suspicious = nn.Linear(112 + 192, 1)
        nn.init.constant_(self.mask.bias, -0.7)
        nn.init.normal_(self.suspicious.weight, std=0.01)
        backbone.slow_batch_norm(self)

    def train(self, mode: bool = True) -> NoduleNet:
        """The frozen part never leaves inference mode."""
        super().train(mode)
        self.early.eval()
        return self

    def body(self, f4: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mask logits at stride 4 and pooled features, from the frozen part's answer."""
        f8 = self.to8(f4)
        f16 = self.to16(f8)
        f32 = self.to32(f16)
        up = self.join16(self.side16(f16) + _double(self.side32(f32)))
        up = self.join8(self.side8(f8) + _double(up))
        up = self.join4(self.side4(f4) + _double(self.down4(up)))
        mask = self.mask(up)
        share = torch.sigmoid(mask.detach())
        pooled = [_inside(f16, F.avg_pool2d(share, 4)), _inside(f32, F.avg_pool2d(share, 8))]
        return {"mask": mask, "nodule": torch.cat(pooled, 1)}


class Served(nn.Module):
    """What is exported."""

    OUTPUTS = ("mask", "suspicious", "gate")

    def __init__(self, net: NoduleNet) -> None:
        """The trained branch beside a frozen one, which is the same whatever was trained."""
        super().__init__()
        self.net = net
        blocks = backbone.Parts(SIDE_PX).blocks
        self.see8, self.see16 = nn.Sequential(*blocks[FROZEN_BLOCKS:5]), nn.Sequential(*blocks[5:11])
        self.see32 = nn.Sequential(*blocks[11:15])
        self.suspicious, self.gate = nn.Linear(SUSPICION_FEATURES, 1), Gate()
        self.requires_grad_(False)
        self.eval()

    def seen(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Frozen answers: features at stride 4, 16 and 32, and the gate's columns."""
        columns, x = [], images
        for index, layer in enumerate(self.net.early):
            x = layer(x)
            if index in (2, 3, 5):
                columns.append(_statistics(x))
            if index == 3:
                columns.append(F.avg_pool2d(x.abs(), x.shape[-1] // 4).flatten(1))
        f8 = self.see8(x)
        f16 = self.see16(f8)
        f32 = self.see32(f16)
        columns += [_statistics(f8), f16.mean((2, 3)), f32.mean((2, 3))]
        return x, f16, f32, torch.cat(columns, 1)

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mask logits N x 1 x 128 x 128, columns of the suspicion head, columns of the gate)."""
        f4, f16, f32, whole = self.seen(images)
        mask = self.net.body(f4)["mask"]
        share = torch.sigmoid(mask)
        pooled = []
        for features, pool in ((f16, 4), (f32, 8)):
            inside = F.avg_pool2d(share, pool)
            pooled += [_inside(features, inside), _inside(features, 1 - inside)]
        mask = F.interpolate(mask, scale_factor=2, mode="bilinear", align_corners=False)
        return mask, torch.cat(pooled, 1), whole

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mask, suspicious, gate) logits."""
        mask, nodule, whole = self.features(image)
        return mask, self.suspicious(nodule), self.gate(whole)


class Gate(nn.Module):
    """Columns -> logits: fit to answer, then one for each reason."""

    def __init__(self, hidden: int = 48) -> None:
        """`centre` and `scale` standardise; heads.py sets them."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(GATE_FEATURES))
        self.register_buffer("scale", torch.ones(GATE_FEATURES))
        self.hidden = nn.Linear(GATE_FEATURES, hidden)
        self.answer = nn.Linear(hidden, 1 + len(REASONS))

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """N x GATE_FEATURES -> N x (1 + reasons)."""
        x = ((columns - self.centre) * self.scale).clamp(-6, 6)
        return self.answer(F.relu6(self.hidden(x)))


def _statistics(x: torch.Tensor) -> torch.Tensor:
    """Mean and spread of each channel: spread is texture, which means alone average away."""
    mean = x.mean((2, 3), keepdim=True)
    return torch.cat([mean.flatten(1), (x - mean).square().mean((2, 3)).add(1e-6).sqrt()], 1)


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _inside(features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mean of features where the mask is; a thousandth of every place keeps it defined where there is no mask."""
    weight = share + 1e-3
    return (features * weight).sum((2, 3)) / weight.sum((2, 3))
