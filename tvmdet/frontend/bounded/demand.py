"""How many of a value's first rows anybody looks at."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import constant_values, iter_graphs

__all__ = ["first_rows"]

_PASSES = ("Cast", "Identity", "Squeeze")


def first_rows(model: onnx.ModelProto) -> Callable[[str], int | None]:
    """Returns a function from a value to the rows of it that are used at most, None for all.

    A suppression whose result is cut to its best k rows right after (torchvision:
    ``keep[:detections_per_img]``) need not find more than k.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    constants = {}
    leaves: dict[str, list[str]] = {}  # output of a subgraph: outputs of its node
    outputs = {value.name for value in model.graph.output}
    for graph in iter_graphs(model.graph):
        constants.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
            for entry in node.attribute:
                if entry.HasField("g"):
                    for inner, outer in zip(entry.g.output, node.output, strict=False):
                        leaves.setdefault(inner.name, []).append(outer)
                        if node.op_type != "If":
                            outputs.add(inner.name)

    def look(name: str) -> int | None:
        if name in outputs:
            return None
        wanted = 0
        for target in leaves.get(name, []):
            rows = look(target)
            if rows is None:
                return None
            wanted = max(wanted, rows)
        for node in users.get(name, []):
            rows = _of_node(node, name)
            if rows is None:
                return None
            wanted = max(wanted, rows)
        return wanted

    def _of_node(node: onnx.NodeProto, name: str) -> int | None:
        if node.input[0] != name:
            return None
        if node.op_type == "Slice":
            given = [constants.get(entry) for entry in node.input[1:4]]
            if len(given) < 3 or any(tensor is None for tensor in given):
                return None
            starts, stops, axes = (constant_values(tensor) for tensor in given if tensor)
            if list(axes) != [0]:
                return look(node.output[0]) if 0 not in axes else None
            if starts[0] != 0 or stops[0] < 0:
                return None
            inner = look(node.output[0])
            return int(stops[0]) if inner is None else min(int(stops[0]), inner)
        if node.op_type == "Gather" and attribute(node, "axis", 0) == 1:
            return look(node.output[0])
        if node.op_type in _PASSES:
            return look(node.output[0])
        return None

    return look
