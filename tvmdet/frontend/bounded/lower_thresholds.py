"""Score thresholds lowered, so that a proof on pictures without objects sees rows all the same.

A trained detector finds nothing in noise, and a network that gives no row is no evidence of how its
rows are computed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tvmdet.frontend.onnx_tools import constant_values, constants_of

__all__ = ["lower_thresholds"]

# Which input of an operator is the threshold that a score must exceed.
_THRESHOLD = {
    "Greater": 1,
    "GreaterOrEqual": 1,
    "Less": 0,
    "LessOrEqual": 0,
    "NonMaxSuppression": 4,
}


def lower_thresholds(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a copy in which what must exceed a share of one must exceed zero only.

    Other comparisons with such constants are lowered too: a proof does not mind, since it compares
    two forms of one network.

    Returns:
        The copy, or None when there is no such comparison.
    """
    constants = constants_of(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lowered = 0
    for node in copy.graph.node:
        at = _THRESHOLD.get(node.op_type)
        if at is None or len(node.input) <= at or node.input[at] not in constants:
            continue
        value = constant_values(constants[node.input[at]])
        if value.size != 1 or value.dtype.kind != "f" or not 0 < value.item() < 1:
            continue
        name = f"{node.input[at]}.lowered.{lowered}"
        copy.graph.initializer.append(numpy_helper.from_array(np.zeros_like(value), name))
        node.input[at] = name
        lowered += 1
    return copy if lowered else None
