"""How large a network is: parameters, and arithmetic per image."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from tvmdet.frontend.onnx_tools import constants_of

__all__ = ["count_flops", "count_parameters"]


def count_parameters(model: onnx.ModelProto) -> int:
    """Returns the number of stored floating-point values."""
    floats = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    )
    tensors = constants_of(model.graph).values()
    return sum(math.prod(tensor.dims) for tensor in tensors if tensor.data_type in floats)


def count_flops(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Returns multiplications plus additions of convolutions and matrix products.

    Args:
        model: A static network.
        shapes: The shape of every value, from
            :func:`tvmdet.frontend.specialise.static_values`.
    """
    return sum(_node_flops(node, shapes) for node in model.graph.node)


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        # Every output value sums over [C / groups, KH, KW].
        return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        # Every input value is spread over [OC / groups, KH, KW].
        return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return (
            2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1]
        )
    return 0
