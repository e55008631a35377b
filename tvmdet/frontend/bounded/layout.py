"""Operators that move values without changing them: reshapes, transposes, joins and cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmdet.frontend.bounded.attributes import attribute, axes_of
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Extent, Lanes, Size, Symbol, Value, extent_of

__all__ = ["joined"]


@rule("Reshape")
def _reshape(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    target = rw.sizes(inputs[1])
    if target is None:
        raise blocked(node, "its target shape is computed from the image")
    sizes = _resolved(node, data, list(target))
    return [_reshaped(rw, node, data, sizes)]


@rule("Flatten")
def _flatten(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    axis = int(attribute(node, "axis", 1))
    axis += data.rank if axis < 0 else 0
    sizes = [_total(data, range(axis)), _total(data, range(axis, data.rank))]
    return [_reshaped(rw, node, data, sizes)]


@rule("Squeeze", "Unsqueeze")
def _squeeze(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    axes = axes_of(node, [rw.sizes(value) for value in inputs])
    if node.op_type == "Unsqueeze":
        axes = [axis % (data.rank + len(axes)) for axis in axes]
        kept = iter(range(data.rank))
        places: list[int | None] = [
            None if at in axes else next(kept) for at in range(data.rank + len(axes))
        ]
    else:
        fixed = [at for at in range(data.rank) if data.shape[at] == 1 and not data.symbols[at]]
        axes = [axis % data.rank for axis in axes] or fixed
        if any(data.symbols[axis] for axis in axes):
            raise blocked(node, "it removes a dimension whose size depends on the image")
        places = [at for at in range(data.rank) if at not in axes]
    shape = [1 if at is None else data.shape[at] for at in places]
    name = rw.emit.node("Reshape", rw.tensor(data), rw.emit.constant(shape))
    return [_moved(rw, name, data, places)]


@rule("Transpose")
def _transpose(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    order = attribute(node, "perm", list(range(data.rank))[::-1])
    name = rw.emit.node("Transpose", rw.tensor(data), perm=order)
    return [_moved(rw, name, data, order)]


def _moved(rw: Rewriter, name: str, data: Value, places: Sequence[int | None]) -> Value:
    """Returns a value whose dimension i is dimension ``places[i]`` of another, or new."""
    space = data.space
    if isinstance(space, Lanes):
        if space.axis in places:
            space = replace(space, axis=list(places).index(space.axis))
        else:
            (space,) = space.spaces  # a dimension of 1 that is gone
    iota = list(places).index(data.iota_axis) if data.iota_axis is not None else None
    symbols = [None if at is None else data.symbols[at] for at in places]
    return rw.value(
        name, symbols, space=space, iota_axis=iota, grid=data.grid, in_range=data.in_range
    )


def _total(data: Value, axes: Sequence[int] | range) -> Size:
    factor = 1
    symbols: list[Symbol] = []
    for axis in axes:
        size = extent_of(data.shape[axis], data.symbols[axis])
        if isinstance(size, Extent):
            symbols.extend(size.symbols)
            factor *= size.factor
        else:
            factor *= size
    if not symbols:
        return factor
    return Extent(factor=factor, symbols=tuple(sorted(symbols, key=id)))


def _resolved(node: onnx.NodeProto, data: Value, target: list[Any]) -> list[Size]:
    """Returns the sizes of a Reshape with its 0 and -1 replaced."""
    sizes = [
        extent_of(data.shape[at], data.symbols[at])
        if size == 0 and not attribute(node, "allowzero", 0)
        else size
        for at, size in enumerate(target)
    ]
    if -1 not in sizes:
        return sizes
    total = _total(data, range(data.rank))
    factor = total.factor if isinstance(total, Extent) else total
    symbols = list(total.symbols) if isinstance(total, Extent) else []
    known = 1
    for size in sizes:
        if isinstance(size, Extent):
            known *= size.factor
            for symbol in size.symbols:
                # Another symbol with as many real rows, or the original would fail.
                symbols.remove(symbol if symbol in symbols else symbols[0])
        elif size != -1:
            known *= size
    if known == 0 or factor % known:
        raise blocked(node, f"the sizes {[str(size) for size in target]} do not divide its input")
    factor //= known
    open_size: Size = Extent(factor=factor, symbols=tuple(symbols)) if symbols else factor
    return [open_size if size == -1 else size for size in sizes]


def _reshaped(rw: Rewriter, node: onnx.NodeProto, data: Value, sizes: Sequence[Size]) -> Value:
    """Emits a reshape: the input's sizes and symbols are dealt to the new dimensions in order."""
    if isinstance(data.space, Lanes):
        data = rw.numbers(data)
    atoms: list[int | Symbol] = []
    for rows, symbol in zip(data.shape, data.symbols, strict=True):
        for part in (rows,) if symbol is None else symbol.parts or (symbol,):
            last = atoms[-1] if atoms else None
            if isinstance(part, int) and isinstance(last, int) and part and last:
                atoms[-1] = last * part
            else:
                atoms.append(part)
    symbols: list[Symbol | None] = []
    shape = []
    for size in sizes:
        taken = _take(node, atoms, size)
        found = rw.flattened(taken) if any(isinstance(t, Symbol) for t in taken) else None
        symbols.append(found)
        shape.append(found.bound if found else math.prod(t for t in taken if isinstance(t, int)))
    if any(atom != 1 for atom in atoms):
        raise blocked(node, "its target shape does not hold its input")
    name = rw.emit.node("Reshape", rw.tensor(data), rw.emit.constant(shape))
    iota = None
    if data.iota_axis is not None and len(data.grid) == 1:
        length = data.shape[data.iota_axis]
        if math.prod(data.shape) == length and shape.count(length) == 1:
            iota = shape.index(length)
    return rw.value(
        name,
        symbols,
        space=data.space,
        iota_axis=iota,
        grid=data.grid if iota is not None else (),
        in_range=data.in_range,
    )


def _take(node: onnx.NodeProto, atoms: list[int | Symbol], size: Size) -> list[int | Symbol]:
    """Takes from the front of the atoms what makes up one dimension."""
    factor = size.factor if isinstance(size, Extent) else size
    wanted = len(size.symbols) if isinstance(size, Extent) else 0
    taken: list[int | Symbol] = []
    if size == 0:
        zero = next((at for at, atom in enumerate(atoms) if atom == 0), None)
        if zero is None:
            raise blocked(node, "its target shape has a dimension of 0")
        atoms[zero] = 1
        return [0]
    while wanted or factor > 1:
        if not atoms:
            raise blocked(node, "its target shape has more elements than its input")
        atom = atoms.pop(0)
        if isinstance(atom, Symbol):
            if not wanted:
                raise blocked(node, "a fixed size cuts a dimension that depends on the image")
            wanted -= 1
            taken.append(atom)
        elif factor % atom == 0:
            factor //= atom
            taken.append(atom)
        elif atom % factor == 0:
            taken.append(factor)
            atoms.insert(0, atom // factor)
            factor = 1
        else:
            raise blocked(node, "its target shape cuts across the dimensions of its input")
    return taken


@rule("Concat")
def _concat(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    values = [value for value in inputs if value is not None]
    rank = values[0].rank
    axis = int(attribute(node, "axis", 0)) % rank
    space = values[0].space
    if isinstance(space, Lanes) or any(value.space is not space for value in values):
        values = [rw.numbers(value) for value in values]
        space = None
    symbols: list[Symbol | None] = []
    for at in range(rank):
        if at == axis:
            symbols.append(joined(rw, [(v.shape[at], v.symbols[at]) for v in values]))
            continue
        found = {value.symbols[at]: None for value in values}
        if len(found) > 1:
            if None in found:
                raise blocked(node, "a fixed dimension meets one that depends on the image")
            rows = min(symbol.bound for symbol in found if symbol is not None)
            values = [rw.compacted(value, at, rows) for value in values]
        symbols.append(values[0].symbols[at])
    name = rw.emit.node("Concat", *(rw.tensor(value) for value in values), axis=axis)
    in_range = all(value.in_range for value in values)
    result = rw.value(name, symbols, space=space, in_range=in_range)
    together = _rows_together(rw, values, axis)
    if together is None or result.symbols[axis] is None or together > result.shape[axis]:
        return [result]
    front = rw.compacted(result, axis, together)
    symbols[axis] = None
    return [rw.value(rw.tensor(front), symbols, space=space, in_range=in_range)]


def _rows_together(rw: Rewriter, values: Sequence[Value], axis: int) -> int | None:
    """Returns how many rows two values have together where one has n of them, the other K - n.

    So TensorFlow fills up what a suppression chose: ``tf.concat([chosen, tf.zeros(K - n)], 0)``.
    """
    sizes = [extent_of(value.shape[axis], value.symbols[axis]) for value in values]
    for size, other in (sizes, sizes[::-1]) if len(sizes) == 2 else ():
        if isinstance(size, Extent) and size in rw.rests:
            whole, less = rw.rests[size]
            if less == other:
                return whole
    return None


def joined(rw: Rewriter, parts: Sequence[tuple[int, Symbol | None]]) -> Symbol | None:
    """Returns the symbol of dimensions one after the other."""
    parts = [(size, symbol) for size, symbol in parts if size]
    if not any(symbol for _, symbol in parts):
        return None
    if len(parts) == 1:
        return parts[0][1]
    masks = [
        rw.emit.constant(np.ones(size), np.bool_) if symbol is None else symbol.mask
        for size, symbol in parts
    ]
    last = parts[-1][1]
    fixed_before = not any(symbol for _, symbol in parts[:-1])
    prefix = fixed_before and (last is None or last.prefix)
    at_least = sum(size if symbol is None else symbol.at_least for size, symbol in parts)
    mask = rw.emit.node("Concat", *masks, axis=0)
    return rw.symbol(mask, prefix=prefix, at_least=at_least)


@rule("Split")
def _split(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    axis = int(attribute(node, "axis", 0)) % data.rank
    if data.symbols[axis]:
        raise blocked(node, "it splits a dimension whose size depends on the image")
    listed = attribute(node, "split", None)
    if listed is None and len(inputs) > 1 and inputs[1] is not None:
        listed = rw.sizes(inputs[1])
    count = len(node.output)
    if listed is None:
        step = -(-data.shape[axis] // count)
        listed = [min(step, data.shape[axis] - step * at) for at in range(count)]
    results, start = [], 0
    for size in listed:
        name = rw.sliced(rw.tensor(data), axis, start, start + int(size))
        results.append(_cut(rw, name, data, axis, range(start, start + int(size))))
        start += int(size)
    return results


def _cut(rw: Rewriter, name: str, data: Value, axis: int, rows: range) -> Value:
    """Returns some entries of a fixed axis of a value."""
    space = data.space
    if isinstance(space, Lanes) and space.axis == axis:
        space = replace(space, spaces=tuple(space.spaces[row] for row in rows))
    whole = len(rows) == data.shape[axis]
    iota = data.iota_axis if len(data.grid) == 1 or whole else None
    return rw.value(
        name,
        data.symbols,
        space=space,
        iota_axis=iota,
        grid=data.grid if iota is not None else (),
        in_range=data.in_range,
    )


@rule("Slice")
def _slice(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    given = [rw.sizes(value) for value in inputs[1:]]
    if any(
        value is not None and size is None for value, size in zip(inputs[1:], given, strict=True)
    ):
        raise blocked(node, "its bounds are computed from the image")
    starts, stops = given[0], given[1]
    assert starts is not None
    assert stops is not None
    axes = given[2] if len(given) > 2 and given[2] is not None else range(len(starts))
    steps = given[3] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        data = _sliced(rw, node, data, int(axis) % data.rank, start, stop, int(step))
    return [data]


def _sliced(
    rw: Rewriter, node: onnx.NodeProto, data: Value, axis: int, start: Size, stop: Size, step: int
) -> Value:
    symbol = data.symbols[axis]
    whole = extent_of(data.shape[axis], symbol)
    bound = data.shape[axis]
    if start == 0 and step == 1 and (stop == whole or _reaches(stop, bound)):
        return data
    if isinstance(start, Extent):
        raise blocked(node, "its start is computed from the image")
    if isinstance(stop, Extent):
        if start != 0 or step != 1:
            raise blocked(node, "it ends where the image says, and does not start at 0")
        return _first_rows(rw, data, axis, stop)
    if symbol is None:
        rows = range(bound)[start:stop:step]
        names = [rw.emit.constant([at]) for at in (start, stop, axis, step)]
        name = rw.emit.node("Slice", rw.tensor(data), *names)
        return _cut(rw, name, data, axis, rows)
    if start < 0 or step != 1 or stop < 0:
        raise blocked(node, "it counts from the end of a dimension that depends on the image")
    front = rw.compacted(data, axis, stop)
    if stop <= symbol.at_least:
        # Padded and then cut to a fixed size: as many rows as that, whatever the image shows.
        symbols = [None if at == axis else other for at, other in enumerate(front.symbols)]
        name = rw.sliced(rw.tensor(front), axis, start, stop)
        return rw.value(name, symbols, space=front.space, in_range=front.in_range)
    if start == 0:
        return front
    found = front.symbols[axis]
    assert found is not None
    name = rw.sliced(rw.tensor(front), axis, start, found.bound)
    rest = rw.symbol(rw.sliced(found.mask, 0, start, found.bound), prefix=True)
    symbols = [rest if at == axis else other for at, other in enumerate(front.symbols)]
    return rw.value(name, symbols, space=front.space, in_range=front.in_range)


def _reaches(stop: Size, bound: int) -> bool:
    return isinstance(stop, int) and stop >= bound


def _first_rows(rw: Rewriter, data: Value, axis: int, stop: Extent) -> Value:
    """Returns the first rows of an axis, as many as a size says."""
    rows, symbol = rw.dimension(stop)
    assert symbol is not None
    if data.symbols[axis] is not None:
        data = rw.compacted(data, axis, min(rows, data.shape[axis]))
    rows = min(rows, data.shape[axis])
    name = rw.tensor(data)
    if rows < data.shape[axis]:
        name = rw.sliced(name, axis, 0, rows)
    wanted = rw.first(rw.size_scalar(stop), rows)
    old = data.symbols[axis]
    if old is not None and old is not wanted:
        both = rw.emit.node("And", wanted.mask, rw.sliced(old.mask, 0, 0, rows))
        wanted = rw.symbol(both, prefix=True)
    elif symbol.prefix and symbol.bound == rows:
        wanted = symbol
    symbols = [wanted if at == axis else other for at, other in enumerate(data.symbols)]
    return rw.value(name, symbols, space=data.space, in_range=data.in_range)


@rule("Expand")
def _expand(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    target = rw.sizes(inputs[1])
    if target is None:
        raise blocked(node, "its target shape is computed from the image")
    rank = max(data.rank, len(target))
    shape, symbols = [], []
    for axis in range(rank):
        at, to = axis - (rank - data.rank), axis - (rank - len(target))
        size, symbol = (data.shape[at], data.symbols[at]) if at >= 0 else (1, None)
        if size == 1 and symbol is None and to >= 0:
            size, symbol = rw.dimension(target[to])
        shape.append(size)
        symbols.append(symbol)
    name = rw.emit.node("Expand", rw.tensor(data), rw.emit.constant(shape))
    lead = rank - data.rank
    space = data.space
    if isinstance(space, Lanes):
        space = replace(space, axis=space.axis + lead)
    iota = None if data.iota_axis is None else data.iota_axis + lead
    return [
        rw.value(name, symbols, space=space, iota_axis=iota, grid=data.grid, in_range=data.in_range)
    ]


@rule("Tile")
def _tile(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    repeats = rw.sizes(inputs[1])
    if repeats is None:
        raise blocked(node, "its repeats are computed from the image")
    data = rw.numbers(data)
    bounds, symbols = [], []
    for size, symbol, times in zip(data.shape, data.symbols, repeats, strict=True):
        count, open_count = rw.dimension(times)
        bounds.append(count)
        parts = [open_count or count, symbol or size]
        is_open = any(isinstance(part, Symbol) for part in parts)
        symbols.append(rw.flattened(parts) if is_open else None)
    name = rw.emit.node("Tile", rw.tensor(data), rw.emit.constant(bounds))
    return [rw.value(name, symbols)]


@rule("ConstantOfShape")
def _constant_of_shape(
    rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]
) -> list[Value]:
    target = rw.sizes(inputs[0])
    if target is None:
        raise blocked(node, "its shape is computed from the image")
    tensor = attribute(node, "value", None)
    fill = np.zeros(1, np.float32) if tensor is None else onnx.numpy_helper.to_array(tensor)
    dimensions = [rw.dimension(size) for size in target]
    value = rw.emit.constant(fill.reshape([1] * len(dimensions)), fill.dtype)
    name = rw.emit.node("Expand", value, rw.emit.constant([size for size, _ in dimensions]))
    return [rw.value(name, [symbol for _, symbol in dimensions])]


def _rows_up_to(rw: Rewriter, node: onnx.NodeProto, stop: Value) -> tuple[int, Symbol | None]:
    """Returns as many rows as the network counts, at most as many as its graph can.

    So TensorFlow's Object Detection API takes the rows that are left of those that it chose:
    ``tf.range(tf.reduce_sum(tf.cast(scores >= 0, tf.int32)))``.
    """
    name = rw.tensor(rw.numbers(stop))
    most = rw.emit.largest(name)
    if stop.is_open or not 1 <= most <= rw.limits.max_rows:
        raise blocked(node, "its bounds are computed from the image")
    count = rw.emit.node("Cast", name, to=TensorProto.INT64)
    # A Range that stops below its start has no rows.
    count = rw.emit.node("Max", count, rw.emit.constant(0))
    symbol = rw.first(rw.emit.node("Reshape", count, rw.emit.constant([], np.int64)), int(most))
    return symbol.bound, symbol


@rule("Range")
def _range(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    bounds = [value for value in inputs if value is not None]
    if all(value.name is not None and rw.array(value) is not None for value in bounds):
        return [rw.plain(rw.emit.copy(node, [rw.tensor(value) for value in bounds])[0])]
    start, stop, step = (rw.sizes(value) for value in inputs)
    if start is None or step is None or start.item() != 0 or step.item() != 1:
        raise blocked(node, "its bounds are computed from the image")
    assert inputs[1] is not None
    if stop is None:
        rows, symbol = _rows_up_to(rw, node, inputs[1])
    else:
        rows, symbol = rw.dimension(stop.item())
    dtype = helper.tensor_dtype_to_np_dtype(inputs[1].dtype)
    name = rw.emit.constant(np.arange(rows), dtype)
    space = symbol if symbol is not None and not symbol.prefix else None
    return [
        rw.value(name, [symbol], space=space, iota_axis=0, grid=(rows,), in_range=stop is not None)
    ]
