"""Arithmetic on sizes: shapes that exporters compute in nodes, followed as symbols.

A shape computation (Shape, Gather, Mul, Concat into a Reshape or Expand) is followed element by
element; an element is an integer, a bool or an :class:`Extent`. What cannot be said as a product
of symbols (a minimum, a difference) becomes a symbol of its own whose count the network computes.
A choice of the lesser or the greater of two sizes is a minimum or a maximum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmdet.frontend.bounded.attributes import attribute, axes_of
from tvmdet.frontend.bounded.values import Comparison, Extent, Value, extent_of

if TYPE_CHECKING:
    from tvmdet.frontend.bounded.rewriter import Rewriter

__all__ = ["compute_sizes"]

_UNKNOWN = object()
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
# Before opset 12 Min and Max took no whole numbers: exporters compare sizes as floats, which are
# whole again after that. What only moves such floats is followed, and no other arithmetic.
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_FLOAT_OPERATORS = (
    *_COMPARISONS,
    "Cast",
    "Clip",
    "Concat",
    "Gather",
    "Identity",
    "Max",
    "Min",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
)
_LARGEST_WHOLE = 1 << 24  # every whole number up to it is a float32
_MOST_HOT = 1 << 12  # elements of a OneHot of sizes; a file may ask for any depth


def compute_sizes(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> Value | None:
    """Returns what a node computes of sizes, or None when it is no arithmetic on known sizes."""
    if node.op_type == "Shape":
        return _shape(node, inputs[0])
    if node.op_type == "Size":
        return _product(inputs[0])
    known = [None if value is None else _known(rw, node, value) for value in inputs]
    if any(value is not None and size is None for value, size in zip(inputs, known, strict=True)):
        return None
    compute = _OPERATORS.get(node.op_type)
    if compute is None:
        return None
    result = compute(rw, node, known)
    if result is None or any(element is _UNKNOWN for element in result.reshape(-1)):
        return None
    first = inputs[-1] if node.op_type in ("OneHot", "Where") else inputs[0]
    assert first is not None
    dtype = first.dtype
    if node.op_type == "Cast":
        dtype = int(attribute(node, "to", dtype))
        if dtype in _FLOATS and any(_upper(size) > _LARGEST_WHOLE for size in result.reshape(-1)):
            return None
        if dtype not in (*_INTEGERS, *_FLOATS):
            return None
    if node.op_type in _COMPARISONS:
        dtype = TensorProto.BOOL
    if any(isinstance(element, Comparison) for element in result.reshape(-1)):
        operands = [rw.tensor(value) for value in inputs if value is not None]
        return replace(rw.plain(rw.emit.copy(node, operands)[0]), comparisons=result)
    if not any(isinstance(element, Extent) for element in result.reshape(-1)):
        name = rw.emit.constant(result.tolist(), helper.tensor_dtype_to_np_dtype(dtype))
        return rw.plain(name)
    return _value(result, dtype)


def _known(rw: Rewriter, node: onnx.NodeProto, value: Value) -> np.ndarray | None:
    """Returns the sizes that a value holds, also as floats where the node keeps them whole.

    Of a choice's condition the comparisons.
    """
    if value.comparisons is not None and node.op_type == "Where":
        return value.comparisons
    if value.dtype not in _FLOATS or node.op_type not in _FLOAT_OPERATORS:
        return rw.sizes(value)
    if value.sizes is not None:
        return value.sizes
    array = rw.array(value)
    if array is None or array.size > 1 or not np.array_equal(array, np.trunc(array)):
        return None
    if np.abs(array).max(initial=0) > _LARGEST_WHOLE:
        return None
    return array.astype(np.int64).astype(object)


def _value(sizes: np.ndarray, dtype: int) -> Value:
    return Value(
        name=None, dtype=dtype, shape=sizes.shape, symbols=(None,) * sizes.ndim, sizes=sizes
    )


def _objects(elements: list[Any]) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _shape(node: onnx.NodeProto, value: Value | None) -> Value | None:
    assert value is not None
    sizes = [extent_of(s, symbol) for s, symbol in zip(value.shape, value.symbols, strict=True)]
    start, end = attribute(node, "start", 0), attribute(node, "end", len(sizes))
    return _value(_objects(sizes[start:end]), TensorProto.INT64)


def _product(value: Value | None) -> Value:
    assert value is not None
    total: Any = 1
    for size, symbol in zip(value.shape, value.symbols, strict=True):
        total = _times(total, extent_of(size, symbol))
    array = np.empty((), object)
    array[()] = total
    return _value(array, TensorProto.INT64)


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, Extent) and isinstance(right, Extent):
        symbols = tuple(sorted((*left.symbols, *right.symbols), key=id))
        return Extent(factor=left.factor * right.factor, symbols=symbols)
    if isinstance(right, Extent):
        left, right = right, left
    if isinstance(left, Extent):
        if right == 0:
            return 0
        if right < 0:
            return _UNKNOWN
        return Extent(factor=left.factor * right, symbols=left.symbols)
    return left * right


def _multiplied(rw: Rewriter, left: Any, right: Any) -> Any:
    result = _times(left, right)
    for one, factor in ((left, right), (right, left)):
        # (K - n) * c is K * c less n * c: the padding of K rows of c columns, flattened.
        if isinstance(one, Extent) and one in rw.rests and isinstance(factor, int) and factor > 0:
            whole, size = rw.rests[one]
            rw.rests[result] = (whole * factor, _times(size, factor))
    return result


def _over(rw: Rewriter, left: Any, right: Any) -> Any:
    if isinstance(left, Extent) and isinstance(right, Extent):
        rest = list(left.symbols)
        for symbol in right.symbols:
            if symbol not in rest:
                return _UNKNOWN
            rest.remove(symbol)
        if left.factor % right.factor:
            return _UNKNOWN
        factor = left.factor // right.factor
        return Extent(factor=factor, symbols=tuple(rest)) if rest else factor
    if isinstance(right, Extent) or right <= 0:
        return _UNKNOWN
    if isinstance(left, Extent):
        if left.factor % right == 0:
            return Extent(factor=left.factor // right, symbols=left.symbols)
        return _counted(rw, "Div", left, right, (_lower(rw, left) // right, left.upper // right))
    return left // right if left >= 0 else -(-left // right)


def _counted(rw: Rewriter, operator: str, left: Any, right: Any, bounds: tuple[int, int]) -> Any:
    """Returns a size that the network computes from two others, between two bounds."""
    lower, upper = bounds
    if upper < 0:
        return _UNKNOWN
    count = rw.emit.node(operator, rw.size_scalar(left), rw.size_scalar(right))
    symbol = rw.first(count, upper)
    if lower < 0:
        rw.least[symbol] = lower
    return Extent(factor=1, symbols=(symbol,))


def _upper(size: Any) -> int:
    return size.upper if isinstance(size, Extent) else int(size)


def _lower(rw: Rewriter, size: Any) -> int:
    """Returns the least value that a size can have; that of a difference may be below 0."""
    if not isinstance(size, Extent):
        return int(size)
    least = [rw.least.get(symbol, 0) for symbol in size.symbols]
    if min(least) >= 0:
        return 0
    largest = (max(symbol.bound, -low) for symbol, low in zip(size.symbols, least, strict=True))
    return -size.factor * math.prod(largest)


def _plus(rw: Rewriter, left: Any, right: Any) -> Any:
    if not isinstance(left, Extent) and not isinstance(right, Extent):
        return left + right
    if left == 0 or right == 0:
        return right if left == 0 else left
    lower = _lower(rw, left) + _lower(rw, right)
    return _counted(rw, "Add", left, right, (lower, _upper(left) + _upper(right)))


def _minus(rw: Rewriter, left: Any, right: Any) -> Any:
    if not isinstance(left, Extent) and not isinstance(right, Extent):
        return left - right
    if isinstance(right, int) and right == 0:
        return left
    if left == right:
        return 0
    lower, upper = _lower(rw, left) - _upper(right), _upper(left) - _lower(rw, right)
    result = _counted(rw, "Sub", left, right, (lower, max(upper, 0)))
    if isinstance(left, int) and isinstance(result, Extent):
        rw.rests[result] = (left, right)
    return result


def _least(rw: Rewriter, left: Any, right: Any) -> Any:
    if left == right:
        return left
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Extent):
            if isinstance(other, int) and other >= one.upper:
                return one
        elif one <= _lower(rw, other):
            return one
    if not isinstance(left, Extent) and not isinstance(right, Extent):
        return min(left, right)
    lower = min(_lower(rw, left), _lower(rw, right))
    return _counted(rw, "Min", left, right, (lower, min(_upper(left), _upper(right))))


def _greatest(rw: Rewriter, left: Any, right: Any) -> Any:
    if left == right:
        return left
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, Extent) and one <= _lower(rw, other):
            return other
        if isinstance(one, int) and isinstance(other, Extent) and one >= other.upper:
            return one
    if not isinstance(left, Extent) and not isinstance(right, Extent):
        return max(left, right)
    lower = max(_lower(rw, left), _lower(rw, right))
    return _counted(rw, "Max", left, right, (lower, max(_upper(left), _upper(right))))


def _equals(rw: Rewriter, left: Any, right: Any) -> Any:
    if not isinstance(left, Extent) and not isinstance(right, Extent):
        return left == right
    if left == right:
        return True
    for one, other in ((left, right), (right, left)):
        if not isinstance(one, int) or not isinstance(other, Extent):
            continue
        if not _lower(rw, other) <= one <= other.upper:
            return False
    return _UNKNOWN


def _less(rw: Rewriter, left: Any, right: Any) -> Any:
    if _upper(left) < _lower(rw, right):
        return True
    if left == right or _lower(rw, left) >= _upper(right):
        return False
    return Comparison(first=left, second=right)


def _at_most(rw: Rewriter, left: Any, right: Any) -> Any:
    if left == right or _upper(left) <= _lower(rw, right):
        return True
    if _lower(rw, left) > _upper(right):
        return False
    return Comparison(first=left, second=right)


def _pairwise(function: Callable[[Any, Any, Any], Any]) -> Callable[..., np.ndarray | None]:
    def compute(rw: Rewriter, _node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
        result = known[0]
        for other in known[1:]:
            left, right = np.broadcast_arrays(result, other)
            joined = np.empty(left.shape, object)
            for at in itertools.product(*map(range, left.shape)):
                if left[at] is _UNKNOWN or right[at] is _UNKNOWN:
                    return None
                joined[at] = function(rw, left[at], right[at])
            result = joined
        return np.asarray(result, object)

    return compute


def _clip(rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    result: np.ndarray | None = known[0]
    for bound, nearer in zip(known[1:], (_greatest, _least), strict=False):
        if bound is not None and result is not None:
            result = _pairwise(nearer)(rw, node, [result, bound])
    return result


def _one_hot(_rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    """One size among equal ones, as torch's repeat_interleave counts repeats below opset 13."""
    indices, depth, off_on = known[0], known[1].reshape(-1)[0], known[2]
    if any(isinstance(element, Extent) for element in (*indices.reshape(-1), depth)):
        return None
    if indices.size * depth > _MOST_HOT:
        return None
    axis = attribute(node, "axis", -1)
    numbers = np.arange(depth).reshape([-1] + [1] * ((indices.ndim - axis) % (indices.ndim + 1)))
    chosen = np.expand_dims(indices.astype(np.int64), axis)
    hot = numbers == np.where(chosen < 0, chosen + depth, chosen)
    result: np.ndarray = np.where(hot, off_on[1:], off_on[:1])
    return result


def _where(rw: Rewriter, _node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    condition, left, right = np.broadcast_arrays(*known)
    if any(isinstance(element, Extent) for element in condition.reshape(-1)):
        return None
    result = np.empty(condition.shape, object)
    for at in itertools.product(*map(range, condition.shape)):
        result[at] = _chosen(rw, condition[at], left[at], right[at])
    return result


def _chosen(rw: Rewriter, condition: Any, left: Any, right: Any) -> Any:
    """Returns one of two sizes, as a bool or a comparison of these two says."""
    if not isinstance(condition, Comparison):
        return left if condition else right
    compared = (condition.first, condition.second)
    if (left, right) == compared:
        return _least(rw, left, right)
    return _greatest(rw, left, right) if (right, left) == compared else _UNKNOWN


def _gather(_rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    indices = known[1]
    if any(isinstance(element, Extent) for element in indices.reshape(-1)):
        return None
    axis = attribute(node, "axis", 0)
    taken = np.take(known[0], indices.astype(np.int64), axis=axis)
    result = np.empty(np.shape(taken), object)
    result[...] = taken
    return result


def _slice(_rw: Rewriter, _node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    bounds = [part for part in known[1:] if part is not None]
    if any(isinstance(element, Extent) for part in bounds for element in part):
        return None
    starts, stops = known[1], known[2]
    axes = known[3] if len(known) > 3 and known[3] is not None else range(len(starts))
    steps = known[4] if len(known) > 4 and known[4] is not None else [1] * len(starts)
    result: np.ndarray = known[0]
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        rows = range(result.shape[axis])[start:stop:step]
        result = np.take(result, list(rows), axis=axis)
    return result


def _transpose(_rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    return np.transpose(known[0], attribute(node, "perm", None))


def _concat(_rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    return np.concatenate(known, axis=attribute(node, "axis", 0))


def _reshape(_rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    data: np.ndarray = known[0]
    if node.op_type == "Squeeze":
        axes = [axis % max(data.ndim, 1) for axis in axes_of(node, known)]
        axes = axes or [at for at, n in enumerate(data.shape) if n == 1]
        return data.reshape([n for at, n in enumerate(data.shape) if at not in axes])
    if node.op_type == "Unsqueeze":
        return np.expand_dims(data, tuple(axes_of(node, known)))
    if node.op_type == "Reshape":
        target = [int(size) for size in known[1]]
        if not attribute(node, "allowzero", 0):
            target = [data.shape[at] if size == 0 else size for at, size in enumerate(target)]
        return data.reshape(target)
    return data


def _reduce(rw: Rewriter, node: onnx.NodeProto, known: list[Any]) -> np.ndarray | None:
    functions = {
        "ReduceProd": lambda _rw, left, right: _times(left, right),
        "ReduceMin": _least,
        "ReduceMax": _greatest,
        "ReduceSum": _plus,
    }
    elements = list(known[0].reshape(-1))
    if known[0].ndim != 1 or not elements:
        return None
    total = elements[0]
    for element in elements[1:]:
        if total is _UNKNOWN:
            return None
        total = functions[node.op_type](rw, total, element)
    array = np.empty((1,) if attribute(node, "keepdims", 1) else (), object)
    array[...] = total
    return array


_OPERATORS: dict[str, Callable[..., np.ndarray | None]] = {
    "Add": _pairwise(_plus),
    "Cast": _reshape,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _pairwise(_over),
    "Equal": _pairwise(_equals),
    "Gather": _gather,
    "Greater": _pairwise(lambda rw, left, right: _less(rw, right, left)),
    "GreaterOrEqual": _pairwise(lambda rw, left, right: _at_most(rw, right, left)),
    "Identity": _reshape,
    "Less": _pairwise(_less),
    "LessOrEqual": _pairwise(_at_most),
    "Max": _pairwise(_greatest),
    "Min": _pairwise(_least),
    "Mul": _pairwise(_multiplied),
    "OneHot": _one_hot,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Relu": lambda rw, node, known: _clip(rw, node, [known[0], np.zeros((), object)]),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _reshape,
    "Sub": _pairwise(_minus),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Where": _where,
}
