"""Shapes that are computed, counted before ONNX writes out as many dimensions.

Where a Reshape takes its shape from other nodes, ONNX's inference knows how long that shape is
and gives the output as many unknown dimensions. A file of a few bytes can make it 2**32 of them
(Tile), each a message of its own. So the inference runs first on a copy that takes each such
shape from outside, of which nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx.shape_inference

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend.infer_shapes import infer_shapes
from tvmdet.frontend.onnx_tools import constants_of, describe, iter_graphs

__all__ = ["check_shape_lengths"]

# The input of each operator whose elements become the output's dimensions.
_SHAPE_INPUTS = {
    "AffineGrid": 1,
    "CenterCropPad": 1,
    "Col2Im": 1,
    "ConstantOfShape": 0,
    "Expand": 1,
    "MaxUnpool": 2,
    "Reshape": 1,
}
_MOST_DIMENSIONS = 64  # NumPy holds no array of more, and NumPy reads the outputs
_FRESH = "tvmdet.shape_lengths."  # prefix of the names that stand for what is cut off


@dataclass(frozen=True, kw_only=True)
class _Use:
    """One input of one node that is a shape."""

    node: onnx.NodeProto
    index: int

    @property
    def name(self) -> str:
        """The value that is the shape."""
        name: str = self.node.input[self.index]
        return name


def check_shape_lengths(model: onnx.ModelProto) -> None:
    """Refuses shapes with more elements than any tensor has dimensions.

    Args:
        model: Any model that parses; it is left as it is.

    Raises:
        ShapeError: A shape is too long; names the node that takes it.
        ModelError: There is too little memory to infer how long the shapes are.
    """
    lengths: dict[str, int] = {}
    for graph in iter_graphs(model.graph):
        for name, tensor in constants_of(graph).items():
            if len(tensor.dims) == 1:
                lengths[name] = tensor.dims[0]
    waiting = _refuse_long(list(_uses(model.graph)), lengths)
    while waiting:
        found = _inferred_lengths(model, {use.name for use in waiting})
        rest = _refuse_long(waiting, found)
        if len(rest) == len(waiting):
            return  # nobody can say how long they are, so nobody writes them out
        waiting = rest


def _uses(graph: onnx.GraphProto) -> Iterator[_Use]:
    for inner in iter_graphs(graph):
        for node in inner.node:
            index = _SHAPE_INPUTS.get(node.op_type)
            if index is not None and index < len(node.input) and node.input[index]:
                yield _Use(node=node, index=index)


def _refuse_long(uses: list[_Use], lengths: dict[str, int]) -> list[_Use]:
    """Returns the uses of unknown length, after refusing the ones that are too long."""
    for use in uses:
        length = lengths.get(use.name, 0)
        if length > _MOST_DIMENSIONS:
            raise ShapeError(
                f"{describe(use.node)} takes a shape of {length} dimensions, {use.name!r}; "
                f"allowed: {_MOST_DIMENSIONS}; the file is damaged: export it again"
            )
    return [use for use in uses if use.name not in lengths]


def _inferred_lengths(model: onnx.ModelProto, cut: set[str]) -> dict[str, int]:
    """Returns the lengths of vectors that follow without knowing the shapes in ``cut``."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for use in _uses(probe.graph):
        if use.name in cut:
            use.node.input[use.index] = _FRESH + use.name
    for name in sorted(cut):
        value = probe.graph.input.add()
        value.name = _FRESH + name
        value.type.tensor_type.elem_type = onnx.TensorProto.INT64
    try:
        inferred = infer_shapes(probe)
    except MemoryError as error:
        raise ModelError(
            "inferring the model's shapes needs more memory than there is; check the constants "
            "that its sizes are computed from, and export it again"
        ) from error
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}  # the strict inference says what is wrong
    lengths = {}
    for graph in iter_graphs(inferred.graph):
        for value in (*graph.input, *graph.value_info, *graph.output):
            shape = value.type.tensor_type.shape
            if len(shape.dim) == 1 and shape.dim[0].HasField("dim_value"):
                lengths[value.name] = shape.dim[0].dim_value
    return lengths
