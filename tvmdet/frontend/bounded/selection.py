"""Operators that choose rows by what they hold: NonZero, Compress, TopK."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Extent, Lanes, Symbol, Value

__all__ = ["lowest", "space_of"]


def space_of(symbol: Symbol | None) -> Symbol | None:
    """Returns the space of positions along a dimension: None where they are ranks."""
    return None if symbol is None or symbol.prefix else symbol


def lowest(dtype: int, *, largest: bool = True) -> float | int:
    """Returns the number that every other of a type comes before in a sort."""
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
    if kind.kind == "f":
        return -np.inf if largest else np.inf
    info = np.iinfo(kind)
    return int(info.min if largest else info.max)


@rule("NonZero")
def _non_zero(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    if data.rank == 0:
        raise blocked(node, "of a scalar")
    mask = rw.tensor(data)
    if data.dtype != TensorProto.BOOL:
        mask = rw.emit.node("Cast", mask, to=TensorProto.BOOL)
    real = rw.mask_for(data)
    if real is not None:
        mask = rw.emit.node("And", mask, real)
    if data.rank > 1:
        mask = rw.emit.node("Reshape", mask, rw.emit.constant([-1]))
    symbol = rw.symbol(mask, prefix=False)
    coordinates = np.indices(data.shape).reshape(data.rank, -1)
    name = rw.emit.constant(coordinates)
    spaces = tuple(space_of(symbol) for symbol in data.symbols)
    space = spaces[0] if data.rank == 1 else Lanes(axis=0, spaces=spaces) if any(spaces) else None
    return [
        rw.value(name, [None, symbol], space=space, iota_axis=1, grid=data.shape, in_range=True)
    ]


@rule("Compress")
def _compress(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, condition = inputs
    assert data is not None
    assert condition is not None
    axis = attribute(node, "axis", None)
    if axis is None or rw.numbers(data) is not data:
        raise blocked(node, "it flattens its input, or takes positions")
    axis = int(axis) % data.rank
    if condition.shape[0] != data.shape[axis] or condition.symbols[0] not in (
        None,
        data.symbols[axis],
    ):
        raise blocked(node, "its condition is shorter than its input")
    mask = rw.tensor(condition)
    old = data.symbols[axis]
    if old is not None:
        mask = rw.emit.node("And", mask, old.mask)
    found = rw.symbol(mask, prefix=False)
    symbols = [found if at == axis else other for at, other in enumerate(data.symbols)]
    return [rw.value(rw.tensor(data), symbols)]


@rule("TopK")
def _top_k(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, wanted = inputs
    assert data is not None
    sizes = rw.sizes(wanted)
    if sizes is None:
        raise blocked(node, "its k is computed from the image")
    axis = int(attribute(node, "axis", -1)) % data.rank
    largest = bool(attribute(node, "largest", 1))
    size = sizes.reshape(-1)[0]
    old = data.symbols[axis]
    k = min(size.upper if isinstance(size, Extent) else size, data.shape[axis])
    data = rw.numbers(data)
    name = rw.filled(data, lowest(data.dtype, largest=largest), [axis])
    values, places = rw.emit.node_outputs(
        "TopK",
        [name, rw.emit.constant([k])],
        2,
        {"axis": axis, "largest": int(largest), "sorted": 1},
    )
    found: Symbol | None = None
    if isinstance(size, Extent):
        # Real rows come first: the number of them is what the graph asked for.
        bound, symbol = rw.dimension(size)
        assert symbol is not None
        keeps = symbol.prefix and bound == k
        found = symbol if keeps else rw.first(rw.size_scalar(size), k)
    elif old is not None and k > old.at_least:
        found = rw.first(rw.emit.node("Min", rw.count(old), rw.emit.constant(k)), k)
    symbols = [found if at == axis else other for at, other in enumerate(data.symbols)]
    return [
        rw.value(values, symbols),
        rw.value(places, symbols, space=space_of(old), in_range=True),
    ]


@rule("ArgMax", "ArgMin")
def _arg_max(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    axis = int(attribute(node, "axis", 0)) % data.rank
    fill = lowest(data.dtype, largest=node.op_type == "ArgMax")
    data = rw.numbers(data)
    name = rw.emit.copy(node, [rw.filled(data, fill, [axis])])[0]
    symbols = list(data.symbols)
    if attribute(node, "keepdims", 1):
        symbols[axis] = None
    else:
        symbols.pop(axis)
    return [rw.value(name, symbols, space=space_of(data.symbols[axis]), in_range=True)]


_NEUTRAL = {
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceLogSum": 0,
    "ReduceLogSumExp": -np.inf,
    "ReduceProd": 1,
    "ReduceSum": 0,
    "ReduceSumSquare": 0,
    "ReduceMean": 0,
}


@rule("ReduceMax", "ReduceMin", *_NEUTRAL)
def _reduce(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    listed = attribute(node, "axes", None)
    if listed is None and len(inputs) > 1:
        listed = rw.sizes(inputs[1])
    axes = sorted(int(axis) % data.rank for axis in (listed if listed is not None else ()))
    axes = axes or list(range(data.rank))
    data = rw.numbers(data)
    keepdims = bool(attribute(node, "keepdims", 1))
    opened = [axis for axis in axes if data.symbols[axis]]
    if node.op_type in _NEUTRAL:
        fill = _NEUTRAL[node.op_type]
    else:
        fill = lowest(data.dtype, largest=node.op_type == "ReduceMax")
    name = rw.filled(data, fill, opened)
    mean = node.op_type == "ReduceMean" and opened
    operator = "ReduceSum" if mean else node.op_type
    name = rw.reduce(operator, name, axes, keepdims=keepdims)
    if mean:
        count = rw.emit.constant(math.prod(data.shape[a] for a in axes if not data.symbols[a]))
        for axis in opened:
            symbol = data.symbols[axis]
            assert symbol is not None
            count = rw.emit.node("Mul", count, rw.count(symbol))
        name = rw.emit.node("Div", name, rw.emit.node("Cast", count, to=data.dtype))
    symbols = [
        None if at in axes else symbol
        for at, symbol in enumerate(data.symbols)
        if keepdims or at not in axes
    ]
    return [rw.value(name, symbols)]


@rule("CumSum")
def _cum_sum(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, along = inputs
    assert data is not None
    axis = rw.sizes(along)
    if axis is None:
        raise blocked(node, "its axis is computed from the image")
    data = rw.numbers(data)
    name = rw.filled(data, 0, [int(axis.reshape(-1)[0]) % data.rank])
    assert along is not None
    return [rw.value(rw.emit.copy(node, [name, rw.tensor(along)])[0], data.symbols)]
