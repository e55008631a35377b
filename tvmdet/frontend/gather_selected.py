"""GatherSelected: exports that return which boxes a suppression chose, and not those boxes.

``NonMaxSuppression`` returns rows of picture, class and box number. Many exports end there (the
ONNX model zoo's YOLOv3, suppression that was added to a network by hand), with all boxes and all
scores beside the rows, and leave it to the caller to look them up. That is done here, so that the
outputs are a box, a score and a class number for each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.keep_outputs import keep_outputs
from tvmdet.frontend.load import LoadedModel
from tvmdet.heads.names import SELECTED_BOXES, SELECTED_CLASSES, SELECTED_SCORES

__all__ = ["LOOKED_UP", "gather_selected"]

LOOKED_UP = (
    "the outputs were all boxes, all scores and which of them a suppression chose: the chosen ones "
    f"are {SELECTED_BOXES}, {SELECTED_SCORES} and {SELECTED_CLASSES}"
)

_MOVERS = ("Cast", "Identity", "Squeeze", "Transpose", "Unsqueeze")
_OUTPUTS = {
    SELECTED_BOXES: TensorProto.FLOAT,
    SELECTED_SCORES: TensorProto.FLOAT,
    SELECTED_CLASSES: TensorProto.INT64,
}


def gather_selected(loaded: LoadedModel) -> LoadedModel:
    """Returns a model whose outputs are what its suppression chose; others come back as they are.

    Only where every output is the rows of one NonMaxSuppression, or the boxes or the scores that it
    was given.
    """
    return loaded.rewritten(_gathered)


def _gathered(model: onnx.ModelProto) -> onnx.ModelProto:
    node = _ends_in_suppression(model.graph)
    if node is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    nodes = _Lookup(graph)
    boxes, scores, rows = node.input[0], node.input[1], node.output[0]
    picture, kind, box = (nodes.add("Gather", rows, nodes.number(at), axis=1) for at in range(3))
    shape = nodes.add("Shape", scores)
    kinds, count = (nodes.add("Gather", shape, nodes.number(at)) for at in (1, 2))
    nodes.take(boxes, [-1, 4], nodes.place(picture, count, box), SELECTED_BOXES)
    every_kind = nodes.place(picture, kinds, kind)
    nodes.take(scores, [-1], nodes.place(every_kind, count, box), SELECTED_SCORES)
    nodes.add("Identity", kind, output=SELECTED_CLASSES)
    shapes = {SELECTED_BOXES: [None, 4]}
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, shapes.get(name, [None]))
        for name, kind in _OUTPUTS.items()
    )
    keep_outputs(copy, tuple(_OUTPUTS))
    return copy


class _Lookup:
    """Nodes added to a graph, in operators that every opset has: there is no GatherND before 11."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self._fresh()
        node = helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        self._graph.node.append(node)
        return output

    def number(self, value: int | list[int]) -> str:
        name = self._fresh()
        self._graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    def place(self, outer: str, size: str, inner: str) -> str:
        """Returns ``outer * size + inner``: a place in two dimensions that became one."""
        return self.add("Add", self.add("Mul", outer, size), inner)

    def take(self, data: str, shape: list[int], places: str, output: str) -> None:
        flat = self.add("Reshape", data, self.number(shape))
        self.add("Gather", flat, places, output=output, axis=0)

    def _fresh(self) -> str:
        self._count += 1
        return f"{SELECTED_BOXES}.{self._count}"


def _ends_in_suppression(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """Returns the suppression that all outputs belong to, or None."""
    makers = {name: node for node in graph.node for name in node.output}
    if set(_OUTPUTS) & set(makers):
        return None  # done before
    sources = [_source(value.name, makers) for value in graph.output]
    found = [makers[name] for name in sources if name in makers]
    found = [node for node in found if node.op_type == "NonMaxSuppression"]
    if len(found) != 1:
        return None
    (node,) = found
    if any(one.name == "center_point_box" and one.i for one in node.attribute):
        return None  # centres and sides, which nothing that reads the outputs is told
    given = {_source(name, makers) for name in node.input[:2]}
    return node if set(sources) <= {node.output[0], *given} else None


def _source(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    """Returns the value that one was made of by moving it only."""
    while name in makers and makers[name].op_type in _MOVERS:
        name = makers[name].input[0]
    return name
