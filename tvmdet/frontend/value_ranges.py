"""What values an output can have, column by column, as far as its graph proves it.

Exporters name outputs as they like, but a graph tells class numbers (whole, from 0 to the size of
what an ArgMax searched) from scores (out of a Sigmoid) and from boxes. One pass forward over the
nodes computes an interval for each value, or for each column of a value whose last dimension is
small (Moore, "Interval Analysis", 1966). What an operator is not known to do proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmdet.frontend.onnx_tools import constant_values, constants_of
from tvmdet.heads.base import ANYTHING, Range

__all__ = ["value_ranges"]

Columns = tuple[Range, ...]

_MOST_COLUMNS = 16
_UNKNOWN: Columns = (ANYTHING,)
_UNIT: Columns = (Range(low=0.0, high=1.0),)
_TRUTH: Columns = (Range(low=0.0, high=1.0, whole=True),)
_INTEGERS = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
# Up to which a type has every whole number; no index is larger than 64 bits hold.
_LARGEST_WHOLE = {
    TensorProto.INT8: 2.0**7 - 1,
    TensorProto.INT16: 2.0**15 - 1,
    TensorProto.INT32: 2.0**31 - 1,
    TensorProto.INT64: math.inf,
    TensorProto.FLOAT16: 2.0**11,
    TensorProto.FLOAT: 2.0**24,
    TensorProto.DOUBLE: 2.0**53,
}


def value_ranges(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Columns]:
    """Returns the range of each output: one, or one for each column of its last dimension.

    Args:
        model: A static network, its nodes in topological order.
        shapes: The shape of every value.
    """
    constants = {name: constant_values(t) for name, t in constants_of(model.graph).items()}
    makers = {name: node for node in model.graph.node for name in node.output if name}
    found = {name: _of_array(array) for name, array in constants.items()}
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        step = _Step(node, found, constants, shapes, makers)
        rule = _RULES.get(node.op_type)
        results = [_UNKNOWN] if rule is None else rule(step)
        for index, name in enumerate(node.output):
            columns = results[index] if index < len(results) else _UNKNOWN
            found[name] = _fit(columns, shapes.get(name, ()))
    return {value.name: found.get(value.name, _UNKNOWN) for value in model.graph.output}


@dataclass(frozen=True)
class _Step:
    """One node, and what is known of its inputs."""

    node: onnx.NodeProto
    found: Mapping[str, Columns]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    makers: Mapping[str, onnx.NodeProto]

    def columns(self, index: int) -> Columns:
        if index >= len(self.node.input):
            return _UNKNOWN
        return self.found.get(self.node.input[index], _UNKNOWN)

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self.shapes.get(self.node.input[index], ()))

    def constant(self, index: int) -> np.ndarray | None:
        if index >= len(self.node.input) or not self.node.input[index]:
            return None
        return self.constants.get(self.node.input[index])

    def attribute(self, name: str, default: Any) -> Any:
        for attribute in self.node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def axis(self, default: int) -> int:
        """Returns the axis counted from the end: -1 is the last."""
        axis, rank = int(self.attribute("axis", default)), len(self.shape(0))
        return axis if axis < 0 else axis - rank


def _of_array(array: np.ndarray) -> Columns:
    if array.size == 0 or array.dtype.kind not in "fiub":
        return _UNKNOWN
    columnar = array.ndim > 0 and 1 < array.shape[-1] <= _MOST_COLUMNS
    rows = array.reshape(-1, array.shape[-1] if columnar else 1)
    return tuple(
        Range(
            low=float(column.min()),
            high=float(column.max()),
            whole=bool(np.all(column == np.floor(column))),
        )
        if column.dtype.kind != "f" or np.all(np.isfinite(column))
        else ANYTHING
        for column in rows.T
    )


def _fit(columns: Columns, shape: Sequence[int]) -> Columns:
    """Returns columns as a value of this shape can have them: one, or one for each."""
    if len(columns) > 1 and (not shape or shape[-1] != len(columns)):
        return (_union(*columns),)
    return columns


def _union(*ranges: Range) -> Range:
    return Range(
        low=min(one.low for one in ranges),
        high=max(one.high for one in ranges),
        whole=all(one.whole for one in ranges),
    )


def _zip(*values: Columns) -> list[tuple[Range, ...]]:
    """Returns the columns of several values side by side, one column spread over all."""
    count = max(len(value) for value in values)
    spread = [value * count if len(value) == 1 else value for value in values]
    if any(len(value) != count for value in spread):
        spread = [(_union(*value),) for value in values]
    return list(zip(*spread, strict=True))


def _all_inputs(step: _Step) -> range:
    return range(len(step.node.input))


def _same(step: _Step) -> list[Columns]:
    return [step.columns(0)] * max(len(step.node.output), 1)


def _mixed(step: _Step) -> list[Columns]:
    return [(_union(*step.columns(0)),)]


def _transposed(step: _Step) -> list[Columns]:
    rank = len(step.shape(0))
    perm = list(step.attribute("perm", list(range(rank))[::-1]))
    return _same(step) if perm[-1:] == [rank - 1] else _mixed(step)


def _reshaped(step: _Step) -> list[Columns]:
    before, after = step.shape(0), step.shapes.get(step.node.output[0], ())
    kept = before[-1:] == tuple(after[-1:])
    return _same(step) if kept else _mixed(step)


def _concatenated(step: _Step) -> list[Columns]:
    values = [step.columns(index) for index in _all_inputs(step)]
    if step.axis(0) != -1:
        return [tuple(_union(*column) for column in _zip(*values))]
    joined: list[Range] = []
    for index, value in enumerate(values):
        width = step.shape(index)[-1] if step.shape(index) else 1
        if len(joined) + width > _MOST_COLUMNS:
            return [(_union(*(one for value in values for one in value)),)]
        joined += list(value) if len(value) == width else [_union(*value)] * width
    return [tuple(joined)]


def _sliced(step: _Step) -> list[Columns]:
    rank, columns = len(step.shape(0)), step.columns(0)
    starts, ends = step.constant(1), step.constant(2)
    axes = step.constant(3) if step.constant(3) is not None else np.arange(rank)
    steps = step.constant(4)
    if len(columns) == 1:
        return [columns]
    if starts is None or ends is None or axes is None:
        return _mixed(step)
    for index, axis in enumerate(axes):
        if int(axis) in (-1, rank - 1):
            stride = 1 if steps is None else int(steps[index])
            return [columns[int(starts[index]) : int(ends[index]) : stride] or columns]
    return [columns]


def _gathered(step: _Step) -> list[Columns]:
    columns, chosen = step.columns(0), step.constant(1)
    if step.axis(0) != -1:
        return [columns]
    if chosen is None or len(columns) == 1:
        return _mixed(step)
    picked = tuple(columns[int(index)] for index in chosen.reshape(-1))
    return [picked if chosen.ndim == 1 else (_union(*picked),)]


def _split(step: _Step) -> list[Columns]:
    columns, count = step.columns(0), len(step.node.output)
    if step.axis(0) != -1 or len(columns) == 1:
        return [columns] * count
    parts: list[Columns] = []
    start = 0
    for name in step.node.output:
        width = (step.shapes.get(name) or (1,))[-1]
        parts.append(columns[start : start + width])
        start += width
    return parts


def _cast(step: _Step) -> list[Columns]:
    if step.attribute("to", 0) not in _INTEGERS:
        return _same(step)
    return [tuple(_floor_range(one) for one in step.columns(0))]


def _true_or_not(_step: _Step) -> list[Columns]:
    return [_TRUTH]


def _summed(step: _Step) -> list[Columns]:
    """As many numbers of the value's range as are added up to one."""
    listed = step.constant(1)
    axes = step.attribute("axes", None) if listed is None else listed.tolist()
    computed = listed is None and len(step.node.input) > 1
    if computed or step.node.input[0] not in step.shapes:
        return [_UNKNOWN]
    shape = step.shape(0)
    if not axes and step.attribute("noop_with_empty_axes", 0):
        return _same(step)
    count = math.prod(shape[axis] for axis in axes or range(len(shape)))
    one = _union(*step.columns(0))
    return [(replace(one, low=_product(one.low, count), high=_product(one.high, count)),)]


def _floor_range(one: Range) -> Range:
    low = math.floor(one.low) if math.isfinite(one.low) else one.low
    high = math.ceil(one.high) if math.isfinite(one.high) and not one.whole else one.high
    return Range(low=low, high=high, whole=True)


def _floor(step: _Step) -> list[Columns]:
    return [tuple(_floor_range(one) for one in step.columns(0))]


def _index(step: _Step) -> list[Columns]:
    shape = step.shape(0)
    size = shape[step.axis(0)] if shape else 0
    return [(Range(low=0.0, high=float(size - 1), whole=True),)] if size else [_UNKNOWN]


def _top_k(step: _Step) -> list[Columns]:
    shape, axis = step.shape(0), step.axis(-1)
    values = step.columns(0) if axis != -1 else _mixed(step)[0]
    size = shape[axis] if shape else 0
    return [values, (Range(low=0.0, high=float(max(size - 1, 0)), whole=True),)]


def _non_zero(step: _Step) -> list[Columns]:
    high = float(max((*step.shape(0), 1)) - 1)
    return [(Range(low=0.0, high=high, whole=True),)]


def _suppressed(step: _Step) -> list[Columns]:
    boxes, scores = step.shape(0), step.shape(1)
    sizes = (boxes[0], scores[1], boxes[1]) if len(boxes) == 3 and len(scores) == 3 else (0, 0, 0)
    return [tuple(Range(low=0.0, high=float(max(n - 1, 0)), whole=True) for n in sizes)]


def _where(step: _Step) -> list[Columns]:
    """A choice; minus infinity is no value but the mark of a row that a sort is to put last."""
    chosen = [step.columns(at) for at in (1, 2) if not _marks_the_last(step.constant(at))]
    return [tuple(_union(*ranges) for ranges in _zip(*chosen))] if chosen else [_UNKNOWN]


def _marks_the_last(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size > 0 and bool(np.isneginf(constant).all())


def _scattered(step: _Step) -> list[Columns]:
    data, updates = _union(*step.columns(0)), _union(*step.columns(2))
    return [(_union(data, updates),)]


def _clipped(step: _Step) -> list[Columns]:
    low, high = step.constant(1), step.constant(2)
    least = -math.inf if low is None else float(low.reshape(-1)[0])
    most = math.inf if high is None else float(high.reshape(-1)[0])
    return [tuple(_limit(one, least, most) for one in step.columns(0))]


def _limit(one: Range, least: float, most: float) -> Range:
    whole = one.whole and float(least).is_integer() | math.isinf(least)
    return Range(
        low=min(max(one.low, least), most),
        high=max(min(one.high, most), least),
        whole=whole and float(most).is_integer() | math.isinf(most),
    )


def _positive(step: _Step) -> list[Columns]:
    return [tuple(_limit(one, 0.0, math.inf) for one in step.columns(0))]


def _rooted(step: _Step) -> list[Columns]:
    """Takes the roots of the bounds; of less than 0 there is none."""
    return [
        tuple(
            Range(low=math.sqrt(max(one.low, 0.0)), high=math.sqrt(max(one.high, 0.0)))
            for one in step.columns(0)
        )
    ]


def _extreme(choose: Callable[..., float]) -> Callable[[_Step], list[Columns]]:
    def rule(step: _Step) -> list[Columns]:
        columns = _zip(*map(step.columns, _all_inputs(step)))
        return [
            tuple(
                Range(
                    low=choose(one.low for one in column),
                    high=choose(one.high for one in column),
                    whole=all(one.whole for one in column),
                )
                for column in columns
            )
        ]

    return rule


def _arithmetic(combine: Callable[[float, float], float]) -> Callable[[_Step], list[Columns]]:
    """Add, Sub and Mul take their extremes at the ends of both intervals."""

    def rule(step: _Step) -> list[Columns]:
        return [tuple(ends(*pair) for pair in _zip(step.columns(0), step.columns(1)))]

    def ends(left: Range, right: Range) -> Range:
        corners = [combine(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
        if any(math.isnan(corner) for corner in corners):
            return Range(low=-math.inf, high=math.inf, whole=left.whole and right.whole)
        low, high = min(corners), max(corners)
        # Zeros like some scores are these times 0: one number, whatever it was made of.
        whole = (left.whole and right.whole) or (low == high and float(low).is_integer())
        return Range(low=low, high=high, whole=whole)

    return rule


def _product(left: float, right: float) -> float:
    """Returns a product of ends; 0 times no bound is 0, as values themselves are finite."""
    return 0.0 if 0 in (left, right) else left * right


def _divided(step: _Step) -> list[Columns]:
    return [tuple(_quotient(*pair) for pair in _zip(step.columns(0), step.columns(1)))]


def _quotient(left: Range, right: Range) -> Range:
    if not right.low > 0:
        return ANYTHING
    corners = [a / b for a in (left.low, left.high) for b in (right.low, right.high)]
    if any(math.isnan(corner) for corner in corners):
        return ANYTHING
    return Range(low=min(corners), high=max(corners))


def _remainder(step: _Step) -> list[Columns]:
    (divisor,) = [_union(*step.columns(1))]
    value = _union(*step.columns(0))
    if not (divisor.whole and divisor.low > 0 and math.isfinite(divisor.high) and value.low >= 0):
        return [_UNKNOWN]
    return [(Range(low=0.0, high=divisor.high - 1, whole=value.whole),)]


def _subtracted(step: _Step) -> list[Columns]:
    """A difference; ``a - a // n * n`` is a remainder, as RT-DETR's exporters write it."""
    divisor = _whole_divisor(step)
    value = _union(*step.columns(0))
    if divisor is None or not (value.whole and value.low >= 0):
        return _arithmetic(lambda a, b: a - b)(step)
    return [(Range(low=0.0, high=float(divisor - 1), whole=True),)]


def _whole_divisor(step: _Step) -> int | None:
    """Returns n where the second operand is ``a // n * n`` of the first, ``a``."""
    product = step.makers.get(step.node.input[1])
    most = _union(*step.columns(0)).high
    if product is None or product.op_type != "Mul":
        return None
    for quotient, name in (tuple(product.input), tuple(product.input)[::-1]):
        factor = step.constants.get(name)
        if factor is None or factor.size != 1 or factor.dtype.kind not in "iu":
            continue
        ratio = step.makers.get(quotient)
        while ratio is not None and _keeps_whole(ratio, most):
            ratio = step.makers.get(ratio.input[0])
        same = ratio is not None and ratio.op_type == "Div" and ratio.input[0] == step.node.input[0]
        by = step.constants.get(ratio.input[1]) if ratio is not None and same else None
        # A division of whole numbers drops the rest, and a constant is of the other side's type.
        if by is not None and by.dtype.kind in "iu" and by.size == 1 and by.item() == factor.item():
            return int(factor.item()) if factor.item() > 0 else None
    return None


def _keeps_whole(node: onnx.NodeProto, most: float) -> bool:
    """Returns whether a node gives the whole numbers from 0 to ``most`` as it gets them."""
    if node.op_type != "Cast":
        return node.op_type in ("Floor", "Identity")
    (kind,) = [one.i for one in node.attribute if one.name == "to"]
    return most <= _LARGEST_WHOLE.get(kind, -1)


def _counted(step: _Step) -> list[Columns]:
    start, limit = step.columns(0)[0], step.columns(1)[0]
    whole = start.whole and step.columns(2)[0].whole
    return [(Range(low=min(start.low, limit.low), high=max(start.high, limit.high), whole=whole),)]


_RULES: dict[str, Callable[[_Step], list[Columns]]] = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), lambda _step: [_UNIT]),
    **dict.fromkeys(
        ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"),
        lambda _step: [_TRUTH],
    ),
    **dict.fromkeys(("Dropout", "Identity"), _same),
    **dict.fromkeys(("Compress", "GatherElements", "GatherND", "Tile"), _mixed),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "MaxPool", "Unique"), _mixed),
    **dict.fromkeys(("Expand", "Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshaped),
    **dict.fromkeys(("ArgMax", "ArgMin"), _index),
    **dict.fromkeys(("Ceil", "Floor", "Round"), _floor),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scattered),
    "Add": _arithmetic(lambda a, b: a + b),
    "And": _true_or_not,
    # What a NonMaxSuppression becomes, tvmdet.frontend.bounded.suppression: rows, and which count.
    "BoundedNonMaxSuppression": lambda step: [*_suppressed(step), _TRUTH],
    "Cast": _cast,
    "Clip": _clipped,
    "Concat": _concatenated,
    "Div": _divided,
    "Equal": _true_or_not,
    "Exp": lambda _step: [(Range(low=0.0, high=math.inf),)],
    "Gather": _gathered,
    "Greater": _true_or_not,
    "GreaterOrEqual": _true_or_not,
    "Less": _true_or_not,
    "LessOrEqual": _true_or_not,
    "Max": _extreme(max),
    "Min": _extreme(min),
    "Mod": _remainder,
    "Mul": _arithmetic(_product),
    "NonMaxSuppression": _suppressed,
    "NonZero": _non_zero,
    "Not": _true_or_not,
    "Or": _true_or_not,
    "Range": _counted,
    "ReduceSum": _summed,
    "Relu": _positive,
    "Slice": _sliced,
    "Split": _split,
    "Sqrt": _rooted,
    "Sub": _subtracted,
    "TopK": _top_k,
    "Transpose": _transposed,
    "Where": _where,
}
