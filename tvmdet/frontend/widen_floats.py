"""WidenFloats: a network exported in half precision, computed in single precision.

Half precision halves the memory of a GPU; a CPU has no arithmetic for it, so that every operator
would convert its inputs and its result. What changes is rounding only: the weights are the same
numbers, and no intermediate result is rounded to 11 bits any more.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tvmdet.frontend.onnx_tools import iter_graphs

__all__ = ["is_half", "widen_floats"]

# Attributes that hold an element type.
_TYPES = ("to", "dtype")


def is_half(model: onnx.ModelProto) -> bool:
    """Returns whether weights are stored in half precision."""
    return any(
        tensor.data_type == TensorProto.FLOAT16
        for graph in iter_graphs(model.graph)
        for tensor in graph.initializer
    )


def widen_floats(model: onnx.ModelProto) -> None:
    """Turns every float16 of a network into a float32, in place; recorded shapes are dropped."""
    for graph in iter_graphs(model.graph):
        del graph.value_info[:]
        for tensor in graph.initializer:
            _widen(tensor)
        for value in (*graph.input, *graph.output):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type == TensorProto.FLOAT16:
                tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    _widen(attribute.t)
                for tensor in attribute.tensors:
                    _widen(tensor)
                if attribute.name in _TYPES and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
