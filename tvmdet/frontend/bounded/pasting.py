"""The loop that pastes the masks of torchvision's Mask R-CNN onto the image, cut off.

torchvision (``_onnx_paste_masks_in_image_loop`` in ``models/detection/roi_heads.py``) ends with a
loop that enlarges each 28x28 mask to its box and lays it on an empty image. tvmdet pastes masks
when somebody looks at them, so the network ends before the loop: its output keeps the name and
becomes the masks in their boxes, ``[n, 1, 28, 28]``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.reference
from onnx import helper

from tvmdet.frontend.bounded.attributes import attribute, graph_attribute
from tvmdet.frontend.onnx_tools import constants_of, named_tensor
from tvmdet.heads.base import BOX_MASKS

__all__ = ["BOX_MASKS", "cut_pasting"]

_THROUGH = ("Cast", "Identity", "Unsqueeze")


def cut_pasting(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Returns a copy that ends before the pasting of masks, and what was cut, one fact a line.

    A model without such a loop comes back as it is.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    for loop in model.graph.node:
        if loop.op_type != "Loop":
            continue
        masks = _pasted(loop, producers, model)
        pasted = _only_output(loop, users, outputs)
        if masks is not None and pasted is not None:
            return _cut(model, masks, pasted), (
                f"Loop {loop.name!r}: pastes masks onto the image; output {pasted!r} becomes the "
                "masks in their boxes, which are pasted when they are used",
            )
    return model, ()


def _pasted(
    loop: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], model: onnx.ModelProto
) -> str | None:
    """Returns the masks that a loop pastes, or None when it is another kind of loop."""
    body = graph_attribute(loop, "body")
    operators = [node.op_type for node in body.node]
    made = {name: node for node in body.node for name in node.output}
    resizes = [node for node in body.node if node.op_type == "Resize"]
    # One mask is resized, then zeros are joined on at its four sides.
    if len(resizes) != 1 or operators.count("ConstantOfShape") < 2 or len(body.output) != 2:
        return None
    name = resizes[0].input[0]
    while name in made and made[name].op_type in ("Expand", "Gather", "Unsqueeze"):
        name = made[name].input[0]
    padded = producers.get(name)
    if name in made or padded is None or padded.op_type != "Pad":
        return None
    pads = attribute(padded, "pads", None)
    if pads is None:
        pads = _fixed_value(model, producers, padded.input[1])
    return padded.input[0] if list(pads) == [0, 0, 1, 1, 0, 0, 1, 1] else None


def _fixed_value(
    model: onnx.ModelProto, producers: Mapping[str, onnx.NodeProto], name: str
) -> list[int]:
    """Returns a value that nodes compute from constants alone, or nothing when it is another."""
    constants = constants_of(model.graph)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, onnx.TensorProto] = {}
    stack, seen = [name], set[str]()
    while stack:
        current = stack.pop()
        if current in seen or not current:
            continue
        seen.add(current)
        if current in constants:
            weights[current] = constants[current]
        elif current in producers and not _captured(producers[current]):
            nodes.append(producers[current])
            stack.extend(producers[current].input)
        else:
            return []
    order = {id(node): at for at, node in enumerate(model.graph.node)}
    nodes = sorted(nodes, key=lambda node: order[id(node)])
    tensors = [named_tensor(tensor, key) for key, tensor in weights.items()]
    output = helper.make_value_info(name, onnx.TypeProto())
    graph = helper.make_graph(nodes, "constant", [], [output], tensors)
    small = helper.make_model(graph, opset_imports=model.opset_import)
    (result,) = list(onnx.reference.ReferenceEvaluator(small).run(None, {}))
    return [int(element) for element in np.asarray(result).reshape(-1)]


def _only_output(
    loop: onnx.NodeProto, users: Mapping[str, list[onnx.NodeProto]], outputs: set[str]
) -> str | None:
    """Returns the network's output that a loop's result becomes, when it becomes only that."""
    name: str = loop.output[-1]
    while name not in outputs:
        following = users.get(name, [])
        if len(following) != 1 or following[0].op_type not in _THROUGH:
            return None
        name = following[0].output[0]
    return name


def _cut(model: onnx.ModelProto, masks: str, pasted: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [node for node in copy.graph.node if pasted not in node.output]
    kept.append(helper.make_node("Identity", [masks], [pasted], name=f"{pasted}.in_boxes"))
    needed = {value.name for value in copy.graph.output}
    nodes = []
    for node in reversed(kept):
        if any(name in needed for name in node.output):
            nodes.append(node)
            needed.update(node.input)
            needed.update(_captured(node))
    del copy.graph.node[:]
    copy.graph.node.extend(reversed(nodes))
    for value in copy.graph.output:
        if value.name == pasted:
            value.type.tensor_type.ClearField("shape")
    entry = copy.metadata_props.add()
    entry.key, entry.value = BOX_MASKS, pasted
    return copy


def _captured(node: onnx.NodeProto) -> set[str]:
    """Returns every name that the subgraphs of a node mention."""
    names: set[str] = set()
    stack = [entry.g for entry in node.attribute if entry.HasField("g")]
    while stack:
        graph = stack.pop()
        names.update(value.name for value in graph.output)
        for inner in graph.node:
            names.update(inner.input)
            stack.extend(entry.g for entry in inner.attribute if entry.HasField("g"))
    return names
