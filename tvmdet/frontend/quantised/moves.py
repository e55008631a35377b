"""Operators that only move integers, as operators on the floats that these mean.

What an integer means depends on it alone, and the larger integer means the larger float. Therefore
it is the same to move integers, or to take the greatest, and then to say what they mean, as the
other way around.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.quantised.steps import drop_unread_nodes, is_node
from tvmdet.frontend.quantised.writer import Integers, PairWriter

__all__ = ["MOVED", "move_integers"]

MOVED = "integers that are only moved taken as the floats that they mean"

_MOVES = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""Operators whose first input is moved; Concat moves all of them."""


_Steps = tuple[str, str]


def move_integers(model: onnx.ModelProto) -> int:
    """Puts DequantizeLinear before the operators that only move its integers, in place.

    Args:
        model: A checked model of opset 11 or later, every node named.

    Returns:
        How many DequantizeLinear nodes were moved. Those with steps along an axis stay.
    """
    writer = PairWriter(model)
    wanted = _wanted(model.graph, writer)
    if not wanted:
        return 0
    floats: dict[Integers, str] = {}
    moved: set[str] = set()
    for node in model.graph.node:
        known = floats.get(_read(node)) if is_node(node, "DequantizeLinear") else None
        if known is not None:
            writer.add("Identity", [known], node.output[0], name=node.name)
            continue
        writer.keep(node)
        whole = writer.nodes[-1]
        for scale, zero in dict.fromkeys(
            one for name in node.output for one in wanted.get(name, ())
        ):
            made = _move(writer, node, (scale, zero), floats)
            floats.update({(name, scale, zero): one for name, one in made.items()})
            moved.update(node.output)
            # The move of floats is what becomes of the node.
            writer.nodes[-1].name, whole.name = whole.name, writer.nodes[-1].name
    count = sum(
        is_node(one, "DequantizeLinear") and _read(one) in floats for one in model.graph.node
    )
    writer.finish()
    drop_unread_nodes(model.graph, moved)
    return count


def _wanted(graph: onnx.GraphProto, writer: PairWriter) -> dict[str, list[_Steps]]:
    """Returns the steps by which moved integers are read as floats, by the name of the integers."""
    moves = {name for node in graph.node if _only_moves(node) for name in node.output}
    wanted: dict[str, list[_Steps]] = {}
    for node in reversed(graph.node):
        if is_node(node, "DequantizeLinear") and node.input[0] in moves:
            steps = writer.steps(_read(node))
            if steps is not None and steps.scale.size == 1:
                wanted.setdefault(node.input[0], []).append(_read(node)[1:])
        found = dict.fromkeys(one for name in node.output for one in wanted.get(name, ()))
        for place in _places(node) if found else ():
            if node.input[place] in moves:
                wanted.setdefault(node.input[place], []).extend(found)
    return wanted


def _move(
    writer: PairWriter, node: onnx.NodeProto, steps: _Steps, floats: Mapping[Integers, str]
) -> dict[str, str]:
    """Writes a move of floats, and returns their names by those of the integers."""
    made = onnx.NodeProto.FromString(node.SerializeToString())
    for place in _places(node):
        key = (node.input[place], *steps)
        made.input[place] = floats[key] if key in floats else writer.dequantise(key)
    if node.op_type == "Pad" and not _is_given(node, 2):
        read = writer.steps((node.input[0], *steps))
        assert read is not None  # _wanted saw to it
        filling = (0 - read.zero).astype(np.float32) * read.scale  # the integer 0
        made.input.extend([""] * (3 - len(made.input)))
        made.input[2] = writer.constant(filling.reshape(()), f"{node.name}_filling")
    names = {name: writer.fresh(f"{name}_floats") for name in node.output if name}
    made.output[:] = [names.get(name, "") for name in node.output]
    made.name = writer.fresh(f"{node.name}_floats")
    writer.nodes.append(made)
    return names


def _read(node: onnx.NodeProto) -> Integers:
    whole, scale, *zero = node.input
    return whole, scale, zero[0] if zero else ""


def _only_moves(node: onnx.NodeProto) -> bool:
    """Returns whether a node's results are values of its operands, chosen by place or size."""
    if not any(is_node(node, one) for one in (*_MOVES, "Concat")):
        return False
    if node.op_type == "Resize":
        how = attribute(node, "coordinate_transformation_mode", "half_pixel")
        nearest: bool = attribute(node, "mode", "nearest") == "nearest"
        return nearest and how != "tf_crop_and_resize"
    return node.op_type != "MaxPool" or not any(node.output[1:])


def _places(node: onnx.NodeProto) -> range | tuple[int, ...]:
    """Returns the inputs of a move that are moved."""
    if node.op_type == "Concat":
        return range(len(node.input))
    return (0, 2) if node.op_type == "Pad" and _is_given(node, 2) else (0,)


def _is_given(node: onnx.NodeProto, place: int) -> bool:
    return len(node.input) > place and bool(node.input[place])
