"""What each column of an output holds, read out of the graph behind it.

Detectors of different families have outputs of the same shape: ``[N, A, 85]`` is decoded boxes
with an objectness (YOLOv5), with a constant in its place (YOLOv6), or raw offsets (YOLOX). What
tells them apart is the arithmetic that made each column. The graph is followed backwards, one
axis at a time, through operators that move values and arithmetic of elements, to the
convolutions; bounds of the values are carried along.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tvmdet.frontend.bounds import BINARY, UNARY, Facts, apply_binary, apply_unary, join
from tvmdet.frontend.onnx_tools import constant_values, constants_of
from tvmdet.heads.base import ColumnRun

__all__ = ["ColumnTracer"]

_MOST_COLUMNS = 4096  # a longer axis runs over anchors or pixels
_DEEPEST = 60  # nodes between an output and what made it
_SHAPERS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SAME = ("Cast", "Dropout", "Identity")

Columns = list[Facts]


class ColumnTracer:
    """Follows columns of values through a static network.

    Args:
        model: The network.
        shapes: The shape of every value.
    """

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
        """Indexes the network."""
        graph = model.graph
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants = constants_of(graph)
        self._shapes = shapes
        self._known: dict[tuple[str, int], Columns] = {}
        self._depth = 0

    def runs(self, name: str, axis: int) -> tuple[ColumnRun, ...]:
        """Returns what is known along an axis of a value, neighbours of one kind joined."""
        if not 1 <= self._shapes[name][axis] <= _MOST_COLUMNS:
            return ()
        columns = self._columns(name, axis)
        edges = [at for at in range(1, len(columns)) if columns[at] != columns[at - 1]]
        return tuple(
            ColumnRun(
                start=start,
                stop=stop,
                operators=columns[start].operators,
                low=columns[start].low,
                high=columns[start].high,
            )
            for start, stop in zip([0, *edges], [*edges, len(columns)], strict=True)
        )

    def _columns(self, name: str, axis: int) -> Columns:
        """Returns what holds of each column of a value."""
        if (name, axis) not in self._known:
            self._depth += 1
            self._known[name, axis] = self._trace(name, axis)
            self._depth -= 1
        return self._known[name, axis]

    def _trace(self, name: str, axis: int) -> Columns:
        if name in self._constants:
            return _constant_columns(constant_values(self._constants[name]), axis)
        count = self._shapes[name][axis]
        node = self._producers.get(name)
        if node is None:
            return [Facts()] * count
        found = self._through(node, name, axis) if self._depth < _DEEPEST else None
        if found is None or len(found) != count:
            return [Facts(operators=frozenset({node.op_type}))] * count
        return found

    def _through(self, node: onnx.NodeProto, name: str, axis: int) -> Columns | None:
        """Returns the columns of a node's output, or None where nothing is known."""
        operator, inputs = node.op_type, list(node.input)
        if operator in _SAME:
            return self._columns(inputs[0], axis)
        if operator in UNARY:
            return [apply_unary(operator, fact) for fact in self._columns(inputs[0], axis)]
        if operator in BINARY and len(inputs) == 2:
            left, right = (self._broadcast(part, name, axis) for part in inputs)
            return [apply_binary(operator, a, b) for a, b in zip(left, right, strict=True)]
        if operator in _SHAPERS:
            return self._reshaped(inputs[0], name, axis)
        special = {
            "Clip": self._clipped,
            "Concat": self._concatenated,
            "Expand": self._expanded,
            "Gather": self._gathered,
            "GatherElements": self._chosen,
            "ReduceMax": self._chosen,
            "ScatterND": self._scattered,
            "Slice": self._sliced,
            "Softmax": self._softmax,
            "Split": self._split,
            "TopK": self._chosen,
            "Transpose": self._transposed,
        }
        return special[operator](node, name, axis) if operator in special else None

    def _broadcast(self, part: str, result: str, axis: int) -> Columns:
        """Returns the columns of an operand along an axis of the result."""
        count = self._shapes[result][axis]
        own = axis - len(self._shapes[result]) + len(self._shape(part))
        if own < 0:
            return [self._whole(part)] * count
        columns = self._columns(part, own)
        return columns if len(columns) == count else columns[:1] * count

    def _whole(self, name: str) -> Facts:
        """Returns what holds of all values together."""
        if name in self._constants:
            return _bounds(constant_values(self._constants[name]))
        shape = self._shapes[name]
        if not shape:
            return Facts()
        axis = min(range(len(shape)), key=lambda at: (shape[at] < 2, shape[at]))
        return join(self._columns(name, axis)) if 0 < shape[axis] <= _MOST_COLUMNS else Facts()

    def _shape(self, name: str) -> tuple[int, ...]:
        if name in self._constants:
            return tuple(self._constants[name].dims)
        return self._shapes[name]

    def _values(self, name: str) -> list[int] | None:
        """Returns a constant list of whole numbers."""
        if name not in self._constants:
            return None
        return [int(value) for value in constant_values(self._constants[name]).reshape(-1)]

    def _reshaped(self, source: str, name: str, axis: int) -> Columns:
        """Finds the axis whose elements lie as far apart as those of the result's axis."""
        before, after = self._shape(source), self._shapes[name]
        count, step = after[axis], math.prod(after[axis + 1 :])
        for own, size in enumerate(before):
            if math.prod(before[own + 1 :]) != step or size == 1 < count:
                continue
            if size % count == 0 and size <= _MOST_COLUMNS:
                columns = self._columns(source, own)
                return [join(columns[at::count]) for at in range(count)]
            if count % size == 0:
                return self._columns(source, own) * (count // size)
        return [self._whole(source)] * count

    def _transposed(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        rank = len(self._shapes[name])
        order = _attribute(node, "perm", list(reversed(range(rank))))
        return self._columns(node.input[0], order[axis])

    def _concatenated(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        parts = [self._columns(part, axis) for part in node.input]
        if _axis(node, 0, len(self._shapes[name])) == axis:
            return [fact for part in parts for fact in part]
        return [join(facts) for facts in zip(*parts, strict=True)]

    def _split(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        columns = self._columns(node.input[0], axis)
        if _axis(node, 0, len(self._shapes[name])) != axis:
            return columns
        start = 0
        for output in node.output:
            size = self._shapes[output][axis]
            if output == name:
                return columns[start : start + size]
            start += size
        return columns

    def _sliced(self, node: onnx.NodeProto, name: str, axis: int) -> Columns | None:
        parts = []
        for at, key in enumerate(("starts", "ends", "axes", "steps"), start=1):
            given = node.input[at] if at < len(node.input) else ""
            parts.append(self._values(given) if given else _attribute(node, key, []))
        starts, ends, axes, steps = parts
        if starts is None or ends is None or axes is None or steps is None:
            return None
        columns = self._columns(node.input[0], axis)
        rank = len(self._shapes[name])
        for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
            own = axes[at] % rank if axes else at
            if own == axis:
                step = steps[at] if steps else 1
                last = None if step < 0 and end < -len(columns) else end
                return columns[start:last:step]
        return columns

    def _gathered(self, node: onnx.NodeProto, name: str, axis: int) -> Columns | None:
        where = _axis(node, 0, len(self._shape(node.input[0])))
        rank = len(self._shape(node.input[1]))
        if where <= axis < where + rank:
            indices = self._values(node.input[1])
            if indices is None or rank != 1:
                return None
            columns = self._columns(node.input[0], where)
            return [columns[index] for index in indices]
        return self._columns(node.input[0], axis if axis < where else axis - rank + 1)

    def _chosen(self, node: onnx.NodeProto, name: str, axis: int) -> Columns | None:
        """Values of the first input, whichever; the places that TopK returns beside are none."""
        if name != node.output[0]:
            return None
        whole = self._whole(node.input[0])
        return [replace(whole, operators=whole.operators | {node.op_type})] * self._shapes[name][
            axis
        ]

    def _expanded(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        return self._broadcast(node.input[0], name, axis)

    def _clipped(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        limits = [_attribute(node, "min", -math.inf), _attribute(node, "max", math.inf)]
        for at, given in enumerate(node.input[1:3]):
            if given in self._constants:
                limits[at] = float(constant_values(self._constants[given]).reshape(-1)[0])
        low, high = limits
        return [
            Facts(
                operators=fact.operators | {"Clip"},
                low=min(max(fact.low, low), high),
                high=max(min(fact.high, high), low),
            )
            for fact in self._columns(node.input[0], axis)
        ]

    def _softmax(self, node: onnx.NodeProto, name: str, axis: int) -> Columns:
        operators = self._whole(node.input[0]).operators | {"Softmax"}
        return [Facts(operators=operators, low=0.0, high=1.0)] * self._shapes[name][axis]

    def _scattered(self, node: onnx.NodeProto, name: str, axis: int) -> Columns | None:
        """Values written into columns, as exporters spell ``y[..., 0:2] = ...``."""
        columns = list(self._columns(node.input[0], axis))
        shape = self._shapes[name]
        if node.input[1] not in self._constants:
            return None
        indices = constant_values(self._constants[node.input[1]])
        addressed = indices.shape[-1]
        if axis >= addressed:
            written = self._columns(node.input[2], axis - addressed + indices.ndim - 1)
            return [join(pair) for pair in zip(columns, written, strict=True)]
        touched = indices[..., axis].reshape(-1) % shape[axis]
        if addressed == 1 and indices.ndim == 2:
            written = self._columns(node.input[2], 0)
        else:
            written = [self._whole(node.input[2])] * len(touched)
        whole = math.prod(shape[:addressed]) // shape[axis]
        for column, count in zip(*np.unique(touched, return_counts=True), strict=True):
            new = join(written[at] for at in np.flatnonzero(touched == column)[:whole])
            columns[column] = new if count >= whole else join([columns[column], new])
        return columns


def _bounds(values: np.ndarray) -> Facts:
    if values.size == 0 or values.dtype.kind not in "fiub" or np.isnan(values).any():
        return Facts()
    return Facts(low=float(values.min()), high=float(values.max()))


def _constant_columns(values: np.ndarray, axis: int) -> Columns:
    return [_bounds(np.take(values, at, axis=axis)) for at in range(values.shape[axis])]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _axis(node: onnx.NodeProto, default: int, rank: int) -> int:
    return int(_attribute(node, "axis", default)) % rank
