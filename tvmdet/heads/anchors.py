"""Anchors: the boxes that a dense detector predicts differences to.

Frameworks agree on the idea and on nothing else: which side comes first, whether sizes are
rounded, in which order sizes and ratios are combined. Each function is one framework's rule. A spec
holds either the widths and heights themselves or the rule and its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError

__all__ = ["anchor_shapes", "octave_sizes", "ssd_shapes"]

Float64 = npt.NDArray[np.float64]

_KEYS = ("order", "ratios", "rounded", "sizes")
_ORDERS = ("ratios_first", "sizes_first")
_FORM = (
    "allowed: a list per level of [width, height] in pixels, or a table of sizes (a list per "
    "level), ratios (height / width), order (ratios_first or sizes_first) and rounded"
)


def anchor_shapes(anchors: Any) -> tuple[Float64, ...]:
    """Returns the widths and heights that a spec's ``options.anchors`` mean.

    Args:
        anchors: Per level a list of ``[width, height]`` in pixels; or a table of ``sizes``,
            per level the square roots of areas, and ``ratios`` of height to width. With
            ``order = "ratios_first"`` all sizes of the first ratio come first (torchvision's
            AnchorGenerator, MMDetection's), with ``"sizes_first"`` all ratios of the first size
            (Detectron2's DefaultAnchorGenerator). ``rounded`` rounds half widths and heights
            to whole pixels, as torchvision does.

    Returns:
        float64 ``[k, 2]`` for each level.

    Raises:
        InputError: They are no such list or table.
    """
    if isinstance(anchors, Mapping):
        return _from_table(anchors)
    levels = anchors if isinstance(anchors, list | tuple) else ()
    found = [_numbers(level, "anchors") for level in levels]
    if not found or any(level.ndim != 2 or level.shape[1] != 2 for level in found):
        raise InputError(f"the spec's options.anchors is {_short(anchors)}; {_FORM}")
    return tuple(found)


def octave_sizes(strides: Sequence[float], scale: float, octaves: int = 3) -> list[list[float]]:
    """Returns sizes per level: ``scale`` times the stride, and steps of an octave above it.

    RetinaNet (Lin et al. 2017, section 4): scale 4, sizes 32 to 512 times 1, 2^(1/3), 2^(2/3).
    """
    return [
        [scale * stride * 2 ** (step / octaves) for step in range(octaves)] for stride in strides
    ]


def ssd_shapes(
    sizes: Sequence[float], ratios: Sequence[Sequence[float]], size_hw: tuple[float, float]
) -> list[list[list[float]]]:
    """Returns SSD's default boxes (Liu et al. 2016, section 2.2) as ``[width, height]``.

    In the order of torchvision's DefaultBoxGenerator and MMDetection's SSDAnchorGenerator: a
    square, a square between this level's size and the next one's, then for each ratio the wide
    box and the tall one.

    Args:
        sizes: Shares of the image, one more than there are levels.
        ratios: Per level, without 1.
        size_hw: What a share of 1 means, in pixels.
    """
    levels = []
    for size, following, level_ratios in zip(sizes, sizes[1:], ratios, strict=False):
        between = math.sqrt(size * following)
        shapes = [[size, size], [between, between]]
        for ratio in level_ratios:
            wide, tall = size * math.sqrt(ratio), size / math.sqrt(ratio)
            shapes += [[wide, tall], [tall, wide]]
        levels.append([[w * size_hw[1], h * size_hw[0]] for w, h in shapes])
    return levels


def _from_table(table: Mapping[str, Any]) -> tuple[Float64, ...]:
    for key in table:
        if key not in _KEYS:
            raise InputError(
                f"the spec has an unknown options.anchors.{key}; allowed: {', '.join(_KEYS)}"
            )
    order, rounded = table.get("order", _ORDERS[0]), table.get("rounded", False)
    if order not in _ORDERS or type(rounded) is not bool:
        raise InputError(f"the spec's options.anchors is {_short(dict(table))}; {_FORM}")
    ratios = _numbers(table.get("ratios", ()), "anchors.ratios")
    sizes = table.get("sizes", ())
    levels = [_numbers(level, "anchors.sizes") for level in _listed(sizes)]
    if ratios.ndim != 1 or not levels or any(level.ndim != 1 for level in levels):
        raise InputError(f"the spec's options.anchors is {_short(dict(table))}; {_FORM}")
    tall = np.sqrt(ratios)
    found = []
    for level in levels:
        outer, inner = (tall[:, None], level) if order == _ORDERS[0] else (level[:, None], tall)
        if order == _ORDERS[0]:
            widths, heights = inner / outer, inner * outer
        else:
            widths, heights = outer / inner, outer * inner
        shapes = np.stack([widths.ravel(), heights.ravel()], axis=-1)
        found.append(2 * np.round(shapes / 2) if rounded else shapes)
    return tuple(found)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _numbers(values: Any, where: str) -> Float64:
    """Returns positive numbers, as an array of any shape."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"the spec's options.{where} is {_short(values)}; {_FORM}") from error
    if not found.size or not np.isfinite(found).all() or (found <= 0).any():
        raise InputError(f"the spec's options.{where} is {_short(values)}; {_FORM}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
