"""A small backbone of three levels, and what several families build on it. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from drawn import draw
from seeded import randomise, scale_outputs
from torch import Tensor, nn

__all__ = ["Backbone", "conv_unit", "draw_weights", "grid", "images_like", "prefer_short"]

STRIDES = (8, 16, 32)


def conv_unit(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


class Backbone(nn.Module):
    """Maps of strides 8, 16 and 32, joined from the coarsest down as feature pyramids do."""

    def __init__(self, width: int = 16, activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_unit(3, width // 2, 3, 2, activation),
            conv_unit(width // 2, width, 3, 2, activation),
        )
        self.down = nn.ModuleList(conv_unit(width, width, 3, 2, activation) for _ in STRIDES)
        self.join = nn.ModuleList(
            conv_unit(2 * width, width, 1, 1, activation) for _ in STRIDES[1:]
        )
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the maps, finest first, all of the same width."""
        features, maps = self.stem(images), []
        for step in self.down:
            features = step(features)
            maps.append(features)
        for finer, join in zip((1, 0), self.join, strict=True):
            maps[finer] = join(torch.cat([self.up(maps[finer + 1]), maps[finer]], 1))
        return maps


def grid(height: int, width: int, offset: float = 0.0) -> Tensor:
    """Returns x and y of every cell, ``[height, width, 2]``."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((columns, rows), 2).float() + offset


def images_like(size_hw: tuple[int, int]) -> Tensor:
    """Returns pictures float32 ``[5, 3, h, w]`` from 0 to 1: two drawn, noise, a slope, grey.

    Statistics of one kind alone would let another kind drive the scores to exactly 1.
    """
    height, width = size_hw
    pictures = [torch.from_numpy(draw(height, width, 100 + number)) for number in range(2)]
    drawn = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
    slope = torch.linspace(0, 1, width).expand(3, height, width)
    grey = torch.full((3, height, width), 0.45)
    return torch.cat([drawn, torch.stack([torch.rand(3, height, width), slope, grey])])


def draw_weights(
    model: nn.Module,
    images: Tensor,
    *,
    scores: Sequence[nn.Module] = (),
    moves: Sequence[nn.Module] = (),
    deviation: float = 0.7,
) -> nn.Module:
    """Draws the weights of a network, in evaluation mode; classifiers and box layers apart.

    Args:
        model: The network, which takes images only.
        images: What to run it on.
        scores: Layers that give scores.
        moves: Layers that move boxes.
        deviation: Standard deviation of what moves boxes.
    """
    model.eval()
    # Exported buffers such as projections of a distribution are not drawn.
    randomise(model, lambda: model(images))
    scale_outputs(scores, 1.5, lambda: model(images))
    scale_outputs(moves, deviation, lambda: model(images))
    for layer in scores:
        layer.bias.data -= 1.5
    return model


def prefer_short(layer: nn.Module, bins: int) -> None:
    """Biases a layer of distributions to sides of a few bins, as objects of all sizes have."""
    layer.bias.data = (-0.4 * torch.arange(bins)).repeat(len(layer.bias) // bins)
