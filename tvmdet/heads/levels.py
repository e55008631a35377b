"""The forms in which exports hand over a level's predictions, all read as one row per anchor.

A convolution's map ``[N, k * c, H, W]`` holds k predictions of c numbers at each cell, in that
order of channels in every framework known here. Some exports transpose it, some flatten it, some
join the levels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import ShapeError

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["emit_rows", "form_of", "reference_rows"]


def form_of(
    shape: tuple[int, ...], size_hw: tuple[int, int] | None, rows: int, channels: int
) -> str:
    """Returns how an output of that shape holds ``rows`` predictions of ``channels`` numbers.

    Args:
        shape: Of the output, with the batch.
        size_hw: Of the level's grid; None where the output joins the levels.
        rows: Predictions: cells times anchors at each.
        channels: Numbers of each.

    Returns:
        ``map`` for ``[N, k * c, H, W]``, ``rows`` for what has the numbers of a prediction last
        (``[N, rows, c]``, ``[N, H, W, k * c]``, flat), ``columns`` for ``[N, c, rows]``, ``image``
        for the ``[rows, c]`` of one image, or ''.
    """
    if size_hw is not None and len(shape) == 4 and shape[2:] == size_hw:
        at_cell = rows // (size_hw[0] * size_hw[1])
        if shape[1] == at_cell * channels:
            return "map"
    if math.prod(shape[1:]) != rows * channels:
        return "image" if shape == (rows, channels) else ""
    if len(shape) == 2 or shape[-1] == channels:
        return "rows"
    if size_hw is not None and shape[1:3] == size_hw:
        return "rows"
    if len(shape) == 3 and shape[1] == channels:
        return "columns"
    return ""


def emit_rows(
    bb: relax.BlockBuilder,
    value: relax.Expr,
    size_hw: tuple[int, int] | None,
    rows: int,
    channels: int,
) -> relax.Expr:
    """Emits an output as ``[N, rows, channels]``; see :func:`form_of`.

    Raises:
        ShapeError: The output has another form.
    """
    from tvm import relax

    shape = tuple(int(dim) for dim in value.ty.shape)
    form = _known_form(shape, size_hw, rows, channels)
    if form == "map":
        value = bb.emit(relax.op.permute_dims(value, [0, 2, 3, 1]))
    elif form == "columns":
        value = bb.emit(relax.op.permute_dims(value, [0, 2, 1]))
    target = (1 if form == "image" else shape[0], rows, channels)
    if tuple(int(dim) for dim in value.ty.shape) == target:
        return value
    return bb.emit(relax.op.reshape(value, target))


def reference_rows(
    value: np.ndarray, size_hw: tuple[int, int] | None, rows: int, channels: int
) -> Any:
    """Returns an output as float64 ``[N, rows, channels]``, by indices of its own.

    Raises:
        ShapeError: The output has another form.
    """
    form = _known_form(value.shape, size_hw, rows, channels)
    batch = 1 if form == "image" else value.shape[0]
    if form == "map":
        split = value.reshape(batch, -1, channels, value.shape[2] * value.shape[3])
        found = np.einsum("nkcp->npkc", split).reshape(batch, rows, channels)
    elif form == "columns":
        found = np.moveaxis(value, 1, 2)
    else:
        found = value.reshape(batch, rows, channels)
    return found.astype(np.float64)


def _known_form(
    shape: tuple[int, ...], size_hw: tuple[int, int] | None, rows: int, channels: int
) -> str:
    form = form_of(shape, size_hw, rows, channels)
    if not form:
        where = "over all levels" if size_hw is None else f"on a {size_hw[0]}x{size_hw[1]} grid"
        raise ShapeError(
            f"an output is {list(shape)}; the spec needs {rows} rows of {channels} numbers "
            f"{where}: correct the spec's labels, input.size_hw or options"
        )
    return form
