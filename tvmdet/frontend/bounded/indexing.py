"""Operators that take or put rows by position: the Gather and Scatter families."""

from __future__ import annotations

import math

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.bounded.elementwise import align_axis, aligned
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Lanes, Symbol, Value

__all__: list[str] = []


def _enumerates(value: Value, axis: int, rows: int, space: Symbol | None) -> bool:
    """Returns whether a value holds every position of a dimension in order along an axis."""
    if value.iota_axis != axis or value.grid != (rows,):
        return False
    return not isinstance(value.space, Lanes) and value.space in (None, space)


@rule("Gather")
def _gather(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, indices = inputs
    assert data is not None
    assert indices is not None
    axis = int(attribute(node, "axis", 0)) % data.rank
    old = data.symbols[axis]
    if indices.rank == 1 and indices.iota_axis == 0 and indices.shape[0] > data.shape[axis]:
        # A range up to a number that is counted: there are no more rows than can be taken.
        indices = rw.compacted(indices, 0, data.shape[axis])
    symbols = [*data.symbols[:axis], *indices.symbols, *data.symbols[axis + 1 :]]
    if indices.rank == 1 and _enumerates(indices, 0, data.shape[axis], old):
        # All rows in order, some of them not real: nothing moves.
        name, space = rw.tensor(data), data.space
        return [rw.value(name, symbols, space=space, in_range=data.in_range)]
    name = rw.emit.node("Gather", rw.tensor(data), rw.positions(indices, old), axis=axis)
    known, space = _taken_space(rw, data, indices, axis)
    if not known:
        data = rw.numbers(data)
        name = rw.emit.node("Gather", rw.tensor(data), rw.positions(indices, old), axis=axis)
    iota = None
    if data.iota_axis is not None and data.iota_axis > axis and len(data.grid) == 1:
        iota = data.iota_axis + indices.rank - 1
    return [
        rw.value(
            name,
            symbols,
            space=space,
            in_range=data.in_range,
            iota_axis=iota,
            grid=data.grid if iota is not None else (),
        )
    ]


def _taken_space(
    rw: Rewriter, data: Value, indices: Value, axis: int
) -> tuple[bool, Symbol | Lanes | None]:
    """Returns whether gathered positions have one space, and which."""
    space = data.space
    if not isinstance(space, Lanes):
        return True, space
    if space.axis != axis:
        moved = space.axis + indices.rank - 1 if space.axis > axis else space.axis
        return True, Lanes(axis=moved, spaces=space.spaces)
    chosen = rw.array(indices)
    if chosen is None or chosen.ndim > 1:
        return False, None
    picked = tuple(space.spaces[int(at)] for at in chosen.reshape(-1))
    if chosen.ndim == 0:
        return True, picked[0]
    return True, Lanes(axis=axis, spaces=picked) if any(picked) else None


@rule("GatherND")
def _gather_nd(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, indices = inputs
    assert data is not None
    assert indices is not None
    if attribute(node, "batch_dims", 0):
        return [_one_of_each_row(rw, node, data, indices)]
    depth = indices.shape[-1]
    if depth == 1:
        row = _last_dropped(rw, indices)
        gather = onnx.helper.make_node("Gather", ["", ""], [""], axis=0)
        return _gather(rw, gather, [data, row])
    data = rw.numbers(data)
    rest = list(data.symbols[depth:])
    whole = indices.rank == 2 and indices.iota_axis == 0 and indices.grid == data.shape[:depth]
    if whole:
        shape = rw.emit.constant([math.prod(data.shape[:depth]), *data.shape[depth:]])
        name = rw.emit.node("Reshape", rw.tensor(data), shape)
        return [rw.value(name, [indices.symbols[0], *rest])]
    places = _lane_positions(rw, indices, data.symbols[:depth])
    name = rw.emit.node("GatherND", rw.tensor(data), places)
    return [rw.value(name, [*indices.symbols[:-1], *rest])]


def _one_of_each_row(rw: Rewriter, node: onnx.NodeProto, data: Value, indices: Value) -> Value:
    """Returns ``data[i, indices[i, 0]]`` for each row of a table, as tf2onnx ranks boxes."""
    batches, rows = attribute(node, "batch_dims", 0), indices.symbols[:1]
    plain = batches == 1 and data.rank == indices.rank == 2 and indices.shape[1] == 1
    if not plain or data.symbols[:1] != rows or data.shape[0] != indices.shape[0]:
        raise blocked(node, "it has batch dimensions and positions that depend on the image")
    data = rw.numbers(data)
    places = rw.positions(indices, data.symbols[1])
    name = rw.emit.node("GatherElements", rw.tensor(data), places, axis=1)
    name = rw.emit.node("Reshape", name, rw.emit.constant([data.shape[0]]))
    return rw.value(name, rows)


def _last_dropped(rw: Rewriter, indices: Value) -> Value:
    """Returns indices ``[..., 1]`` without their last dimension."""
    shape = rw.emit.constant(list(indices.shape[:-1]))
    name = rw.emit.node("Reshape", rw.tensor(indices), shape)
    space = indices.space
    if isinstance(space, Lanes):
        space = space.spaces[0] if space.axis == indices.rank - 1 else None
    return rw.value(
        name,
        indices.symbols[:-1],
        space=space,
        iota_axis=indices.iota_axis,
        grid=indices.grid,
        in_range=indices.in_range,
    )


def _lane_positions(rw: Rewriter, indices: Value, symbols: tuple[Symbol | None, ...]) -> str:
    """Returns index tuples as positions in several dimensions."""
    axis = indices.rank - 1
    lanes = indices.space.spaces if isinstance(indices.space, Lanes) else None
    shared = None if isinstance(indices.space, Lanes) else indices.space
    parts = []
    for at, symbol in enumerate(symbols):
        part = rw.value(
            rw.sliced(rw.tensor(indices), axis, at, at + 1),
            indices.symbols,
            space=shared if lanes is None else lanes[at],
            in_range=indices.in_range,
        )
        parts.append(rw.positions(part, symbol))
    return rw.emit.node("Concat", *parts, axis=axis)


@rule("GatherElements")
def _gather_elements(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, indices = inputs
    assert data is not None
    assert indices is not None
    axis = int(attribute(node, "axis", 0)) % data.rank
    for at, (one, other) in enumerate(zip(data.symbols, indices.symbols, strict=True)):
        if at != axis and one is not other:
            raise blocked(node, "its positions and its data depend on the image differently")
    data = rw.numbers(data)
    places = rw.positions(indices, data.symbols[axis])
    name = rw.emit.node("GatherElements", rw.tensor(data), places, axis=axis)
    return [rw.value(name, indices.symbols)]


@rule("ScatterElements")
def _scatter_elements(
    rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]
) -> list[Value]:
    data, indices, updates = inputs
    assert data is not None
    assert indices is not None
    assert updates is not None
    axis = int(attribute(node, "axis", 0)) % data.rank
    rows, old = data.shape[axis], data.symbols[axis]
    data, updates = rw.numbers(data), rw.numbers(updates)
    plain = attribute(node, "reduction", "none") == "none"
    same = data.shape == indices.shape == updates.shape
    if plain and same and _enumerates(indices, axis, rows, old):
        mask = rw.mask_for(indices)
        assert mask is not None
        name = rw.where(mask, rw.tensor(updates), rw.tensor(data))
        return [rw.value(name, data.symbols)]
    # Rows that are not real go into a row past the last, which is cut off.
    places = rw.positions(indices, old)
    (indices, updates), _ = aligned(rw, node, [_bare(rw, places, indices), updates])
    mask = rw.mask_for(indices)
    places = rw.tensor(indices)
    if mask is not None:
        places = rw.where(mask, places, rw.emit.constant(rows, _numpy(rw, places)))
    padded = _with_trash_row(rw, data, axis)
    name = rw.emit.copy(node, [padded, places, rw.tensor(updates)])[0]
    return [rw.value(rw.sliced(name, axis, 0, rows), data.symbols)]


@rule("ScatterND")
def _scatter_nd(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, indices, updates = inputs
    assert data is not None
    assert indices is not None
    assert updates is not None
    data, updates = rw.numbers(data), rw.numbers(updates)
    depth, rows = indices.shape[-1], data.shape[0]
    plain = attribute(node, "reduction", "none") == "none"
    lead = indices.rank - 1
    if depth == 1 and plain and lead == 1 and updates.shape == data.shape:
        row = _last_dropped(rw, indices)
        if _enumerates(row, 0, rows, data.symbols[0]) and row.symbols[0] is not None:
            mask = rw.mask_for(rw.value(rw.tensor(updates), updates.symbols), [0])
            if updates.symbols[0] is row.symbols[0] and mask is not None:
                name = rw.where(mask, rw.tensor(updates), rw.tensor(data))
                return [rw.value(name, data.symbols)]
    given = [_bare(rw, _lane_positions(rw, indices, data.symbols[:depth]), indices), updates]
    for axis in range(lead):
        align_axis(rw, node, given, (axis, axis))
    indices, updates = given
    mask = rw.mask_for(indices)
    places = rw.tensor(indices)
    if mask is not None:
        trash = rw.emit.constant([rows] + [0] * (depth - 1), _numpy(rw, places))
        places = rw.where(mask, places, trash)
    padded = _with_trash_row(rw, data, 0)
    name = rw.emit.copy(node, [padded, places, rw.tensor(updates)])[0]
    return [rw.value(rw.sliced(name, 0, 0, rows), data.symbols)]


def _bare(rw: Rewriter, name: str, like: Value) -> Value:
    return rw.value(name, like.symbols)


def _numpy(rw: Rewriter, name: str) -> np.dtype:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(rw.emit.dtype(name)))


def _with_trash_row(rw: Rewriter, data: Value, axis: int) -> str:
    shape = [1 if at == axis else size for at, size in enumerate(data.shape)]
    row = rw.emit.constant(np.zeros(shape), onnx.helper.tensor_dtype_to_np_dtype(data.dtype))
    return rw.emit.node("Concat", rw.tensor(data), row, axis=axis)
