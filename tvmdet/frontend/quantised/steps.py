"""The steps of QuantizeLinear and DequantizeLinear nodes, and what stays when such nodes go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, iter_graphs

__all__ = [
    "RANGES",
    "Constants",
    "Steps",
    "drop_unread",
    "drop_unread_nodes",
    "is_node",
    "is_quantised",
    "read_steps",
]

Constants = Mapping[str, onnx.TensorProto]

RANGES: dict[int, tuple[int, int]] = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.INT32: (-(2**31), 2**31 - 1),
}
"""What integers can say. Of narrower types and of floating ones nothing is replaced."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The parameters of a QuantizeLinear or DequantizeLinear that are known.

    Attributes:
        scale: Sizes of a step, one or one for each place on an axis.
        zero: The integers that mean 0, of the same shape.
        kind: Their type, of :data:`RANGES`; None where no zero point says it.
    """

    scale: npt.NDArray[Any]
    zero: npt.NDArray[np.int64]
    kind: int | None

    def along(self, node: onnx.NodeProto, dims: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns the shape in which the steps of a node broadcast over an array; None: in none."""
        if self.scale.size == 1:
            return (1,) * len(dims)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if not -len(dims) <= axis < len(dims) or dims[axis] != self.scale.size:
            return None
        return tuple(-1 if index == axis % len(dims) else 1 for index in range(len(dims)))


def is_node(node: onnx.NodeProto, operator: str) -> bool:
    """Returns whether a node is one of standard ONNX."""
    return node.op_type == operator and node.domain in DEFAULT_DOMAINS


def is_quantised(model: onnx.ModelProto) -> bool:
    """Returns whether a model has values that are integers for a while."""
    operators = ("DequantizeLinear", "DynamicQuantizeLinear")
    return any(is_node(node, one) for node in model.graph.node for one in operators)


def read_steps(node: onnx.NodeProto, constants: Constants) -> Steps | None:
    """Returns the parameters of a node; None where they are not known, or of another kind."""
    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    if any(a.name not in ("axis", "saturate") and a.i for a in node.attribute):
        return None  # blocks of values share a step, or types are given by number: opset 21
    scale = numpy_helper.to_array(constants[node.input[1]])
    if scale.ndim > 1 or scale.dtype.kind != "f" or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    if len(node.input) < 3 or not node.input[2]:
        return Steps(scale=scale, zero=np.zeros(scale.shape, np.int64), kind=None)
    tensor = constants.get(node.input[2])
    if tensor is None or tensor.data_type not in RANGES:
        return None
    zero = numpy_helper.to_array(tensor).astype(np.int64)
    if zero.size not in (1, scale.size):
        return None
    zero = np.broadcast_to(zero.reshape(-1), scale.shape or (1,)).reshape(scale.shape)
    return Steps(scale=scale, zero=zero, kind=tensor.data_type)


def drop_unread(model: onnx.ModelProto, candidates: Iterable[str]) -> None:
    """Removes the quantisers and initializers among some values that nobody reads any more."""
    graph, waiting = model.graph, set(candidates)
    quantisers = [
        node
        for node in graph.node
        if any(is_node(node, one) for one in ("QuantizeLinear", "DynamicQuantizeLinear"))
    ]
    made = {name for node in quantisers for name in node.output}
    waiting.update(drop_unread_nodes(graph, waiting & made))
    reads = _reads(graph)
    stored = {tensor.name for tensor in graph.initializer}
    gone = {name for name in waiting & stored if not reads[name]}
    # Before IR version 4 every initializer is among the inputs too.
    for listed in (graph.initializer, graph.input):
        kept = [one for one in listed if one.name not in gone]
        del listed[:]
        listed.extend(kept)


def drop_unread_nodes(graph: onnx.GraphProto, candidates: Iterable[str]) -> set[str]:
    """Removes the nodes that make some values only, and none that is read any more.

    Returns:
        What the nodes have read.
    """
    reads, waiting, read = _reads(graph), set(candidates), set[str]()
    for node in reversed(list(graph.node)):
        if waiting.issuperset(node.output) and not any(map(reads.get, node.output)):
            reads.subtract(node.input)
            read.update(node.input)
            graph.node.remove(node)
    return read


def _reads(graph: onnx.GraphProto) -> Counter[str]:
    """Returns how often each value is read, as an output too."""
    graphs = list(iter_graphs(graph))
    reads = Counter(name for inner in graphs for node in inner.node for name in node.input)
    reads.update(value.name for inner in graphs for value in inner.output)
    return reads
