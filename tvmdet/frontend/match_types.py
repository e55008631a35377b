"""MatchTypes: element types that the standard allows and ONNX Runtime has no kernel for.

torch's TorchScript exporter computes the sampling positions of deformable attention in double
precision, because it divides by sizes that are whole numbers. GridSample may take a picture of
float32 and positions of float64, but ONNX Runtime, which every build is compared with, refuses to
load that. The positions are rounded to the picture's type.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tvmdet.frontend.infer_shapes import element_types

__all__ = ["match_types"]


def match_types(model: onnx.ModelProto) -> int:
    """Casts the positions of GridSample nodes to the type of their picture, in place.

    Returns:
        How many nodes were changed.
    """
    if not any(node.op_type == "GridSample" for node in model.graph.node):
        return 0
    types = element_types(model)
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in model.graph.node:
        if node.op_type == "GridSample":
            picture, grid = (types.get(name, TensorProto.FLOAT) for name in node.input[:2])
            if picture != grid:
                name = f"{node.name}_positions"
                nodes.append(
                    helper.make_node("Cast", [node.input[1]], [name], name=name, to=picture)
                )
                node.input[1] = name
                changed += 1
        nodes.append(node)
    if changed:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return changed
