"""Conditions: a branch that is known is cut out, otherwise both are computed and one is taken."""

from __future__ import annotations

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import graph_attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.inner_graph import run_inner_graph
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Symbol, Value

__all__: list[str] = []


@rule("If")
def _if(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    condition = inputs[0]
    assert condition is not None
    scope = dict(rw.scope)
    known = rw.sizes(condition)
    if known is not None and isinstance(known.reshape(-1)[0], bool):
        taken = "then_branch" if known.reshape(-1)[0] else "else_branch"
        rw.notes.append(f"If {node.name!r}: always its {taken}")
        return run_inner_graph(rw, graph_attribute(node, taken), scope)
    then = run_inner_graph(rw, graph_attribute(node, "then_branch"), scope)
    other = run_inner_graph(rw, graph_attribute(node, "else_branch"), scope)
    name = rw.tensor(condition)
    if rw.emit.shape(name):
        name = rw.emit.node("Reshape", name, rw.emit.constant([]))
    return [_selected(rw, node, name, *pair) for pair in zip(then, other, strict=True)]


def _selected(
    rw: Rewriter, node: onnx.NodeProto, condition: str, then: Value, other: Value
) -> Value:
    """Returns one of two values, as a condition says."""
    if then.rank != other.rank or then.dtype != other.dtype:
        raise blocked(node, "its branches return values of different rank or type")
    empty = _empty_axis(then, other)
    space = then.space if then.space is other.space else None
    if empty is not None:
        axis, whole = empty
        value, keep = (other, rw.emit.node("Not", condition)) if whole else (then, condition)
        symbol = value.symbols[axis]
        mask = symbol.mask if symbol else rw.emit.constant(np.ones(value.shape[axis]), np.bool_)
        mask = rw.emit.node("And", mask, keep)
        found = rw.symbol(mask, prefix=symbol is None or symbol.prefix)
        symbols = [found if at == axis else s for at, s in enumerate(value.symbols)]
        return rw.value(rw.tensor(value), symbols, space=value.space, in_range=value.in_range)
    if then.space is not other.space:
        then, other = rw.numbers(then), rw.numbers(other)
    symbols = []
    for axis in range(then.rank):
        if then.symbols[axis] is other.symbols[axis] and then.shape[axis] == other.shape[axis]:
            symbols.append(then.symbols[axis])
            continue
        then, other, found = _stretched(rw, condition, then, other, axis)
        symbols.append(found)
    name = rw.where(condition, rw.tensor(then), rw.tensor(other))
    return rw.value(name, symbols, space=space)


def _empty_axis(then: Value, other: Value) -> tuple[int, bool] | None:
    """Returns the axis along which one of two values is empty, and whether that is the first."""
    differing = [
        axis
        for axis in range(then.rank)
        if then.symbols[axis] is not other.symbols[axis] or then.shape[axis] != other.shape[axis]
    ]
    for axis in differing:
        for value, first in ((then, True), (other, False)):
            if value.shape[axis] == 0 and value.symbols[axis] is None and len(differing) == 1:
                return axis, first
    return None


def _stretched(
    rw: Rewriter, condition: str, then: Value, other: Value, axis: int
) -> tuple[Value, Value, Symbol]:
    """Brings two values to the longer bound along an axis."""
    rows = max(then.shape[axis], other.shape[axis])
    pair, masks = [], []
    for value in (rw.numbers(then), rw.numbers(other)):
        symbol = value.symbols[axis]
        mask = symbol.mask if symbol else rw.emit.constant(np.ones(value.shape[axis]), np.bool_)
        missing = rows - value.shape[axis]
        name = rw.tensor(value)
        if missing:
            shape = [missing if at == axis else n for at, n in enumerate(value.shape)]
            zeros = rw.emit.node(
                "Cast", rw.emit.constant(np.zeros(shape), np.int64), to=value.dtype
            )
            name = rw.emit.node("Concat", name, zeros, axis=axis)
            no = rw.emit.constant(np.zeros(missing), np.bool_)
            mask = rw.emit.node("Concat", mask, no, axis=0)
        symbols = [None if at == axis else s for at, s in enumerate(value.symbols)]
        pair.append(rw.value(name, symbols))
        masks.append(mask)
    mask = rw.where(condition, *masks)
    prefix = all(s is None or s.prefix for s in (then.symbols[axis], other.symbols[axis]))
    return pair[0], pair[1], rw.symbol(mask, prefix=prefix)
