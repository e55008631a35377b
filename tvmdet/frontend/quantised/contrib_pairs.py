"""QuantizeLinear and DequantizeLinear of ONNX Runtime's own domain as those of the standard.

ONNX Runtime's quantiser writes them so for integers of 16 bits, which the standard's take from
opset 21 on, and where it is told to (``UseQDQContribOps``). They compute the same
(``docs/ContribOperators.md``); integers of 4 bits are left as they are.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from tvmdet.frontend.onnx_tools import constants_of, drop_domains

__all__ = ["TAKEN", "opset_of_pairs", "take_pairs"]

TAKEN = "com.microsoft's QuantizeLinear and DequantizeLinear as the standard's"

_MICROSOFT = "com.microsoft"
_OPERATORS = ("DequantizeLinear", "QuantizeLinear")
# From which opset the standard's take a type, with steps along an axis.
_OPSETS: dict[int, int] = {
    TensorProto.INT8: 13,
    TensorProto.UINT8: 13,
    TensorProto.INT32: 13,
    TensorProto.INT16: 21,
    TensorProto.UINT16: 21,
}


def opset_of_pairs(model: onnx.ModelProto) -> int | None:
    """Returns the opset whose standard has all that :func:`take_pairs` takes; None: nothing is."""
    return max((opset for _, opset in _pairs(model)), default=None)


def take_pairs(model: onnx.ModelProto) -> int:
    """Makes the nodes standard ones, in place.

    Args:
        model: Its opset is at least that of :func:`opset_of_pairs`.

    Returns:
        How many there were.
    """
    nodes = [node for node, _ in _pairs(model)]
    for node in nodes:
        node.domain = ""
    drop_domains(model)
    return len(nodes)


def _pairs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, int]]:
    constants = constants_of(model.graph)
    found = []
    for node in model.graph.node:
        if node.domain != _MICROSOFT or node.op_type not in _OPERATORS:
            continue
        opset: int | None = _OPSETS[TensorProto.UINT8]
        if len(node.input) > 2 and node.input[2]:
            zero = constants.get(node.input[2])
            opset = None if zero is None else _OPSETS.get(zero.data_type)
        if opset is not None:
            found.append((node, opset))
    return found
