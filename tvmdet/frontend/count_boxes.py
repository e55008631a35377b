"""CountBoxes: exports of Paddle2ONNX that did not know how many boxes they choose from.

Paddle2ONNX writes ``multiclass_nms3`` as a NonMaxSuppression, and looks the score of each of its
rows up among all scores in one dimension, at ``class * boxes + box`` (``mapper/detection/nms.cc``).
Where Paddle left the number of boxes open, as GFL's head does, it writes -1 for it: each class but
the first then gets the scores of others. ONNX Runtime answers so, too; the framework does not.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmdet.frontend.load import LoadedModel
from tvmdet.frontend.onnx_tools import constant_values, constants_of
from tvmdet.frontend.sort_nodes import sort_nodes

__all__ = ["COUNTED", "count_boxes"]

COUNTED = (
    "scores were looked up as if there were -1 boxes, a fault of Paddle2ONNX: here by the number "
    "that there is, so that boxes are PaddleDetection's, and not what the file gives elsewhere"
)

_MOVERS = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_CLASS, _BOX = 1, 2  # columns of a NonMaxSuppression's rows
_OPEN = -1


def count_boxes(loaded: LoadedModel) -> LoadedModel:
    """Returns a model that looks scores up in the right place; others come back as they are."""
    return loaded.rewritten(_counted)


def _counted(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _find(model.graph)
    if not wrong:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for place, scores in wrong.items():
        _count(copy.graph, copy.graph.node[place], scores)
    sort_nodes(copy.graph)
    return copy


def _find(graph: onnx.GraphProto) -> dict[int, str]:
    """Returns the products by -1 that should be by a number of boxes, with the scores of those."""
    makers = {name: node for node in graph.node for name in node.output}
    values = {name: constant_values(one) for name, one in constants_of(graph).items()}
    products = {node.output[0]: at for at, node in enumerate(graph.node) if node.op_type == "Mul"}
    found = {}
    for node in graph.node:
        if node.op_type != "Add" or node.input[0] not in products:
            continue
        at = products[node.input[0]]
        number, size = graph.node[at].input
        kind, box = (_column(name, makers, values) for name in (number, node.input[1]))
        if size not in values or values[size].ravel().tolist() != [_OPEN]:
            continue
        if kind and box and (kind[0], box[0]) == (_CLASS, _BOX) and kind[1] is box[1]:
            found[at] = kind[1].input[1]
    return found


def _column(
    name: str, makers: dict[str, onnx.NodeProto], values: dict[str, np.ndarray]
) -> tuple[int, onnx.NodeProto] | None:
    """Returns which column of a suppression's rows a value is, and the suppression.

    Some of the rows may have been left out, as those of a background are.
    """
    node = makers.get(name)
    while node is not None and (node.op_type in _MOVERS or _axis_of_gather(node) == 0):
        node = makers.get(node.input[0])
    if node is None or _axis_of_gather(node) != 1 or node.input[1] not in values:
        return None
    rows, column = makers.get(node.input[0]), values[node.input[1]].ravel().tolist()
    if rows is None or rows.op_type != "NonMaxSuppression" or len(column) != 1:
        return None
    return int(column[0]), rows


def _axis_of_gather(node: onnx.NodeProto) -> int | None:
    if node.op_type != "Gather":
        return None
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)


def _count(graph: onnx.GraphProto, product: onnx.NodeProto, scores: str) -> None:
    """Makes a product one by how many boxes the scores [N, C, A] are of."""
    shape, last, count = (f"{product.name}.{part}" for part in ("shape", "last", "boxes"))
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), last))
    graph.node.append(helper.make_node("Shape", [scores], [shape], name=shape))
    graph.node.append(helper.make_node("Gather", [shape, last], [count], name=count))
    product.input[1] = count
