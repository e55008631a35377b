"""Pad: rows around those that depend on the image, and up to a number that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.layout import joined
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Extent, Symbol, Value, extent_of

__all__: list[str] = []


@rule("Pad")
def _pad(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    known = rw.sizes(inputs[1])
    if known is None:
        raise blocked(node, "its padding is computed from the image")
    pads = known.copy()  # other nodes may pad by it, too
    opened = [at for at, pad in enumerate(pads) if isinstance(pad, Extent)]
    if opened:
        return [_padded_to(rw, node, data, inputs, pads, opened)]
    if len(inputs) > 3 and inputs[3] is not None:
        raise blocked(node, "it pads a value with open dimensions along listed axes")
    data = rw.numbers(data)
    for axis, symbol in enumerate(data.symbols):
        if symbol is not None and (pads[axis] or pads[axis + data.rank]):
            data = _padded_by(rw, node, data, inputs, (axis, pads[axis], pads[axis + data.rank]))
            pads[axis] = pads[axis + data.rank] = 0
    if not any(pads):
        return [data]
    names = [rw.tensor(data), rw.emit.constant(pads.tolist())]
    names += [rw.tensor(value) if value is not None else "" for value in inputs[2:]]
    return [rw.value(rw.emit.copy(node, names)[0], data.symbols)]


def _padded_by(
    rw: Rewriter,
    node: onnx.NodeProto,
    data: Value,
    inputs: list[Value | None],
    place: tuple[int, int, int],
) -> Value:
    """Puts so many rows before and after those of an open dimension, which are real ones too."""
    axis, *counts = place
    number = _filling(rw, node, inputs)
    if attribute(node, "mode", "constant") != "constant" or min(counts) < 0:
        raise blocked(node, "it pads a dimension whose size depends on the image")
    dtype = helper.tensor_dtype_to_np_dtype(data.dtype)
    parts: list[tuple[str, int, Symbol | None]] = []
    for at, count in enumerate(counts):
        shape = [count if other == axis else length for other, length in enumerate(data.shape)]
        if count:
            parts.append((rw.emit.constant(np.full(shape, number), dtype), count, None))
        if at == 0:
            parts.append((rw.tensor(data), data.shape[axis], data.symbols[axis]))
    symbol = joined(rw, [(size, one) for _, size, one in parts])
    name = rw.emit.node("Concat", *(part for part, _, _ in parts), axis=axis)
    return rw.value(name, [symbol if at == axis else one for at, one in enumerate(data.symbols)])


def _filling(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> Any:
    """Returns the number that a Pad puts around its values."""
    given = inputs[2] if len(inputs) > 2 else None
    filling = np.zeros(1) if given is None else rw.array(given)
    if filling is None:
        raise blocked(node, "it pads with a number that is computed from the image")
    return filling.reshape(-1)[0]


def _padded_to(
    rw: Rewriter,
    node: onnx.NodeProto,
    data: Value,
    inputs: list[Value | None],
    pads: np.ndarray,
    opened: list[int],
) -> Value:
    """Pads the end of one open dimension to a fixed number: ``Pad(x, K - n)`` has K rows."""
    axis = opened[0] - data.rank
    rows, size = rw.rests.get(pads[opened[0]], (0, None))
    others = [pad for at, pad in enumerate(pads) if at not in opened]
    whole = axis >= 0 and size == extent_of(data.shape[axis], data.symbols[axis])
    usual = attribute(node, "mode", "constant") == "constant" and len(inputs) < 4
    if len(opened) != 1 or not whole or any(others) or not usual:
        raise blocked(node, "its padding is computed from the image")
    number = _filling(rw, node, inputs)
    front = rw.compacted(rw.numbers(data), axis)
    name = rw.filled(front, number, [axis])
    missing = rows - front.shape[axis]
    if missing > 0:
        shape = [missing if at == axis else length for at, length in enumerate(front.shape)]
        dtype = helper.tensor_dtype_to_np_dtype(front.dtype)
        past = rw.emit.constant(np.full(shape, number), dtype)
        name = rw.emit.node("Concat", name, past, axis=axis)
    elif missing < 0:
        name = rw.sliced(name, axis, 0, rows)
    symbols = [None if at == axis else symbol for at, symbol in enumerate(front.symbols)]
    return rw.value(name, symbols)
