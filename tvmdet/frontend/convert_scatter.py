"""ScatterND at constant places: every element is read from where it comes from.

TVM's kernel for it runs on one core and is opaque to fusion. Exporters write slices that are
assigned to (``boxes[..., :2] += reference``) as a ScatterND whose places are constants; then which
element of the result comes from the data and which from the updates is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

__all__ = ["ScatterND", "scatter_sources"]


class ScatterND(onnx_frontend.ScatterND):  # type: ignore[misc]
    """One ``take`` out of data and updates, laid end to end, for constant places."""

    @classmethod
    def _impl_v11(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _take(bb, inputs, attr)
        return super()._impl_v11(bb, inputs, attr, params) if plain is None else plain

    @classmethod
    def _impl_v16(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _take(bb, inputs, attr)
        if plain is not None:
            return plain
        return onnx_frontend.ScatterND._impl_v16(bb, inputs, attr, params)

    @classmethod
    def _impl_v18(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _take(bb, inputs, attr)
        if plain is not None:
            return plain
        return onnx_frontend.ScatterND._impl_v18(bb, inputs, attr, params)


def _take(bb: Any, inputs: Any, attr: Any) -> Any | None:
    """Returns the gathered result, or None when the places are not constant."""
    data, places, updates = inputs[0], inputs[1], inputs[2]
    if not isinstance(places, tvm.ir.expr.GenericConst):
        return None
    if attr.get("reduction", b"none") not in (b"none", "none"):
        return None
    shape = tuple(int(dim) for dim in data.ty.shape)
    source = scatter_sources(shape, np.asarray(places.value.numpy()))
    if source is None:
        return None
    flat = [bb.normalize(relax.op.reshape(value, (-1,))) for value in (data, updates)]
    joined = bb.normalize(relax.op.concat(flat, axis=0))
    taken = relax.op.take(joined, relax.const(source), axis=0, mode="clip")
    return relax.op.reshape(bb.normalize(taken), shape)


def scatter_sources(shape: tuple[int, ...], places: np.ndarray) -> np.ndarray | None:
    """Returns for each element of the result its place in data and updates, laid end to end.

    Args:
        shape: Of the data.
        places: Whole numbers ``[..., k]``: the first k coordinates of a slice.

    Returns:
        int64, one entry for each element of the data; None when a place lies outside.
    """
    depth = places.shape[-1]
    limits = np.array(shape[:depth])
    rows = places.reshape(-1, depth).astype(np.int64)
    rows = np.where(rows < 0, rows + limits, rows)
    if np.any(rows < 0) or np.any(rows >= limits):
        return None
    size, inner = math.prod(shape), math.prod(shape[depth:])
    steps = [math.prod(shape[axis + 1 : depth]) * inner for axis in range(depth)]
    starts = rows @ np.array(steps, np.int64)
    source = np.arange(size, dtype=np.int64)
    targets = starts[:, None] + np.arange(inner)
    source[targets.reshape(-1)] = size + np.arange(targets.size)
    return source
