"""Values that are computed from shapes alone, made constants by running them.

Exporters write size computations as chains of nodes (Shape, Gather, Div, Cast, Concat into a
Reshape). ONNX's shape inference follows short ones only. At static input shapes such a value
is a constant whatever the image shows; which values those are follows from the graph, and ONNX
Runtime computes them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import constants_of, graph_inputs
from tvmdet.frontend.prove import picture_feeds, random_feeds, run_onnx

__all__ = ["fold_shape_values"]

# Their outputs' sizes depend on values: these inputs', or (None) always.
_SIZED_BY: dict[str, tuple[int, ...] | None] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": None,
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "If": None,
    "Loop": None,
    "MaxUnpool": (2,),
    "NonMaxSuppression": None,
    "NonZero": None,
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Scan": None,
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": None,
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unique": None,
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
_READ_SHAPES = ("Shape", "Size")
_RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


def fold_shape_values(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a copy in which values computed from shapes alone are constants.

    Args:
        model: A network with static input shapes, its nodes in topological order.

    Returns:
        The copy, or None when there is no such value.

    Raises:
        ModelError: ONNX Runtime cannot run the network, or the values differ between two
            images.
    """
    names = _shape_values(model)
    if not names:
        return None
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        probe.graph.output.add().name = name
    first, second = run_onnx(probe, [random_feeds(model, seed=2), picture_feeds(model, seed=3)])
    for name in names:
        if not np.array_equal(first[name], second[name]):
            raise ModelError(
                f"{name!r} is computed from shapes alone, yet ONNX Runtime gives other values "
                "for another image; this model cannot be used safely: please report it"
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if name in first:
                node.input[index] = f"{name}.value"
    copy.graph.initializer.extend(
        numpy_helper.from_array(value, f"{name}.value") for name, value in first.items()
    )
    return copy


def _shape_values(model: onnx.ModelProto) -> list[str]:
    """Returns what nodes compute from shapes alone, where nodes that see the image use it."""
    graph = model.graph
    fixed = set(constants_of(graph))
    of_image = {value.name for value in graph_inputs(graph)}  # what the values depend on
    open_sizes: set[str] = set()  # values whose shape depends on the image
    wanted: list[str] = []
    computed: set[str] = set()
    for node in graph.node:
        sees_image = any(name in of_image for name in node.input)
        size_is_open = _size_is_open(node, of_image, open_sizes)
        if node.op_type in _READ_SHAPES and not size_is_open:
            sees_image = False
        if sees_image or size_is_open or node.op_type in _RANDOM:
            of_image.update(node.output)
            wanted.extend(name for name in node.input if name in computed)
        elif node.op_type != "Constant":
            computed.update(name for name in node.output if name and name not in fixed)
        if size_is_open:
            open_sizes.update(node.output)
    return list(dict.fromkeys(wanted))


def _size_is_open(node: onnx.NodeProto, of_image: set[str], open_sizes: set[str]) -> bool:
    """Returns whether the shapes of a node's outputs depend on what the image shows."""
    if any(name in open_sizes for name in node.input):
        return True
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return True  # what a subgraph reads is not among the node's inputs
    sized_by = _SIZED_BY.get(node.op_type, ())
    if sized_by is None:
        return True
    return any(index < len(node.input) and node.input[index] in of_image for index in sized_by)
