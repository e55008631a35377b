"""Weights of the type int8 as uint8, for ONNX Runtime's integer kernels.

Of bytes without sign times bytes with sign, x86 processors without VNNI add two products within
16 bits, where they overflow without a word: ONNX Runtime 1.32 gives 101 instead of 200 for a
QLinearConv of greatest values there. Weights and zero point moved by 128 mean the same, and do not
overflow. Source: ONNX Runtime's documentation, Quantize ONNX models, "When and why do I need to try
U8U8?".
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tvmdet.frontend.onnx_tools import constants_of
from tvmdet.frontend.quantised.names import Names

__all__ = ["with_unsigned_weights"]

_HALF = 128

# Where an operator has its weights, and their zero point.
_WEIGHTS = {
    "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
    "QGemm": (3, 5),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
}


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose integer operators have weights of the type uint8, moved by 128.

    Operators whose picture has a sign stay: their kernels do not overflow, and want both alike.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants, names = constants_of(model.graph), Names(model.graph)
    dynamic = {
        node.output[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"
    }
    for node in copy.graph.node:
        places = _WEIGHTS.get(node.op_type)
        if places is None or not _is_unsigned(node, constants, dynamic):
            continue
        weights, zero = places
        stored = constants.get(node.input[weights])
        if stored is None or stored.data_type != TensorProto.INT8:
            continue
        node.input.extend([""] * (zero + 1 - len(node.input)))
        point = constants.get(node.input[zero])
        points = np.int8(0) if point is None else numpy_helper.to_array(point)
        if point is None and node.input[zero]:
            continue
        for place, values in ((weights, numpy_helper.to_array(stored)), (zero, points)):
            moved = np.asarray(values.astype(np.int16) + _HALF, np.uint8)
            name = names.fresh(f"{node.input[weights]}_unsigned")
            copy.graph.initializer.append(numpy_helper.from_array(moved, name))
            node.input[place] = name
    return copy


def _is_unsigned(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], dynamic: set[str]
) -> bool:
    """Returns whether the first operand is known to be of the type uint8."""
    if node.input[0] in dynamic:
        return True
    point = constants.get(node.input[2]) if len(node.input) > 2 else None
    return point is not None and point.data_type == TensorProto.UINT8
