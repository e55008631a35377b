"""Pictures to prove rewrites on: a slope of light, and bright shapes with soft edges.

They are what noise is not: large areas of nearly one value, and few strong edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["draw_probe"]

_SHAPES = 6


def draw_probe(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Draws one picture per image of a batch.

    Args:
        shape: ``[N, C, H, W]``, ``[N, H, W, C]`` or without N; the axis of 4 or less channels
            is found, and the first is taken where none is so short.
        rng: Chooses places, sizes and colours.

    Returns:
        float64 of that shape, in [0, 1].
    """
    last = shape[-1] <= 4 < shape[-3]
    height, width = shape[-3:-1] if last else shape[-2:]
    channels = shape[-1] if last else shape[-3]
    images = [
        _draw(height, width, channels, rng) for _ in range(shape[0] if len(shape) == 4 else 1)
    ]
    stacked = np.stack(images)
    stacked = np.moveaxis(stacked, 1, -1) if last else stacked
    return stacked.reshape(shape)


def _draw(height: int, width: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    down, across = rows / max(height - 1, 1), columns / max(width - 1, 1)
    tilt = rng.random((channels, 2, 1, 1)) * 0.3
    picture = 0.1 + tilt[:, 0] * down + tilt[:, 1] * across
    edge = 1.5 / max(min(height, width), 1)
    for _ in range(_SHAPES):
        middle, half = rng.random(2), rng.uniform(0.05, 0.3, 2)
        away_y, away_x = (down - middle[0]) / half[0], (across - middle[1]) / half[1]
        if rng.random() < 0.5:
            away = np.hypot(away_y, away_x)
        else:
            away = np.maximum(np.abs(away_y), np.abs(away_x))
        cover = np.clip((1 - away) * half.min() / edge + 0.5, 0, 1)
        colour = rng.random((channels, 1, 1))
        picture = picture * (1 - cover) + colour * cover
    result: np.ndarray = np.clip(picture, 0, 1)
    return result
