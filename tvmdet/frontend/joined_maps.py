"""Which feature maps were joined into each output of a network, and in which order.

A head that answers with one row per anchor has forgotten its pyramid: 2970 rows may be of many
grids. The graph has not: behind the reshapes lies one convolution per level, whose shape says it.
"""

from __future__ import annotations

import onnx

from tvmdet.frontend.graph_evidence import MOVERS
from tvmdet.frontend.onnx_tools import constants_of
from tvmdet.frontend.specialise import static_values

__all__ = ["joined_maps"]

# Operators that work on each value alone, their first input being the data.
_ELEMENTWISE = (
    "Cast",
    "Clip",
    "Exp",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Softplus",
)
# Likewise, where the other input is constant (a learned scale for each level).
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_MOST_MAPS = 64  # no detector joins more; bounds the work on graphs that are none


def joined_maps(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Returns, per output, the shapes of the four-dimensional values joined into it.

    Args:
        model: The network, static.

    Returns:
        By output, in the order of the concatenation: shapes nearest to the output, behind the
        last Concat. Empty where a branch has no such value or the graph is too wide.

    Raises:
        ShapeError: The shape of a value cannot be known.
    """
    walk = _Walk(model.graph, static_values(model))
    return {value.name: walk.maps_of(value.name) for value in model.graph.output}


class _Walk:
    """Walks back from an output."""

    def __init__(self, graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> None:
        self._producers = {output: node for node in graph.node for output in node.output}
        self._constants = set(constants_of(graph))
        self._shapes = shapes

    def maps_of(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Returns the maps joined into a value."""
        found: list[tuple[int, ...]] = []
        stack = [name]
        while stack:
            joined, shape = self._next_join(stack.pop())
            if joined:
                stack.extend(reversed(joined))
            elif shape is None or len(found) == _MOST_MAPS:
                return ()
            else:
                found.append(shape)
            if len(stack) > _MOST_MAPS:
                return ()
        return tuple(found)

    def _next_join(self, name: str) -> tuple[list[str], tuple[int, ...] | None]:
        """Returns the inputs of the nearest Concat, or the nearest four-dimensional shape."""
        nearest: tuple[int, ...] | None = None
        current: str | None = name
        while current is not None:
            shape = self._shapes.get(current)
            if nearest is None and shape is not None and len(shape) == 4:
                nearest = shape
            node = self._producers.get(current)
            if node is None:
                break
            if node.op_type == "Concat":
                return list(node.input), nearest
            current = self._data(node)
        return [], nearest

    def _data(self, node: onnx.NodeProto) -> str | None:
        """Returns the input that a node moves or changes value by value, or None."""
        if node.op_type in MOVERS or node.op_type in _ELEMENTWISE:
            return str(node.input[0]) if node.input else None
        if node.op_type in _ARITHMETIC:
            varying = [name for name in node.input if name not in self._constants]
            return varying[0] if len(varying) == 1 else None
        return None
