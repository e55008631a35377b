"""Integer weights as the floats that they mean, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import constants_of, named_tensor
from tvmdet.frontend.prove import Proof, differences, run_onnx
from tvmdet.frontend.quantised.steps import (
    RANGES,
    Constants,
    drop_unread,
    is_node,
    read_steps,
)

__all__ = ["FOLDED", "fold_weights", "prove_weights"]

FOLDED = "integer weights taken as the floats that they mean"


def fold_weights(model: onnx.ModelProto) -> int:
    """Replaces the DequantizeLinear of weights by what it gives, in place.

    Args:
        model: A checked model.

    Returns:
        How many tensors became floats.
    """
    graph = model.graph
    constants = constants_of(graph)
    makers = {name: node for node in graph.node for name in node.output}
    gone = []
    for node in graph.node:
        if not is_node(node, "DequantizeLinear"):
            continue
        whole = _integers(node, makers.get(node.input[0]), constants)
        weights = None if whole is None else _dequantised(node, whole, constants)
        if weights is not None:
            graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            gone.append(node)
    read = [name for node in gone for name in node.input]
    for node in gone:
        graph.node.remove(node)
    drop_unread(model, read)
    return len(gone)


def prove_weights(quantised: onnx.ModelProto, folded: onnx.ModelProto) -> Proof:
    """Compares weights that became floats with what ONNX Runtime makes of their integers.

    By themselves: within the network the sums of another kernel would differ by their rounding,
    which the steps between layers make a step of.

    Args:
        quantised: The network with integers.
        folded: What :func:`fold_weights` made of it.

    Raises:
        ModelError: A tensor is another, or ONNX Runtime cannot run the nodes.
    """
    floats = {tensor.name: tensor for tensor in folded.graph.initializer}
    graph, constants = quantised.graph, constants_of(quantised.graph)
    makers = {name: node for node in graph.node for name in node.output}
    nodes = [
        node
        for node in graph.node
        if is_node(node, "DequantizeLinear") and node.output[0] in floats
    ]
    names = [node.output[0] for node in nodes]
    quantisers = {node.input[0] for node in nodes}.difference(constants)
    nodes = [*(makers[name] for name in sorted(quantisers)), *nodes]
    read = {name for node in nodes for name in node.input}
    part = helper.make_model(
        helper.make_graph(
            nodes,
            "weights",
            [],
            [helper.make_tensor_value_info(name, floats[name].data_type, None) for name in names],
            [named_tensor(constants[name], name) for name in sorted(read.intersection(constants))],
        ),
        opset_imports=quantised.opset_import,
        ir_version=quantised.ir_version,
    )
    (wanted,) = run_onnx(part, [{}])
    found = {name: numpy_helper.to_array(floats[name]) for name in names}
    for name, difference in differences(wanted, found, names).items():
        if difference:
            raise ModelError(
                f"the integers of {name!r} mean other floats than they were taken for (relative "
                f"difference {difference:.3g}); this model cannot be used safely: please report it"
            )
    return Proof(rewrite=FOLDED, differences=dict.fromkeys(names, 0.0), inputs=("the weights",))


def _integers(
    node: onnx.NodeProto, quantiser: onnx.NodeProto | None, constants: Constants
) -> npt.NDArray[np.int64] | None:
    """Returns the integers that a DequantizeLinear reads; None where they are no weights."""
    stored = constants.get(node.input[0])
    if stored is not None:
        known = stored.data_type in RANGES
        return numpy_helper.to_array(stored).astype(np.int64) if known else None
    if quantiser is None or not is_node(quantiser, "QuantizeLinear"):
        return None
    steps, floats = read_steps(quantiser, constants), constants.get(quantiser.input[0])
    if steps is None or floats is None:
        return None
    values = numpy_helper.to_array(floats)
    if values.dtype.kind != "f" or (shape := steps.along(quantiser, values.shape)) is None:
        return None
    low, high = RANGES[steps.kind or onnx.TensorProto.UINT8]
    scaled = values.astype(np.float32) / steps.scale.astype(np.float32).reshape(shape)
    if not np.isfinite(scaled).all():
        return None
    moved = np.rint(scaled).astype(np.float64) + steps.zero.reshape(shape)
    whole: npt.NDArray[np.int64] = np.clip(moved, low, high).astype(np.int64)
    return whole


def _dequantised(
    node: onnx.NodeProto, whole: npt.NDArray[np.int64], constants: Constants
) -> npt.NDArray[Any] | None:
    """Returns what a DequantizeLinear makes of integers; None where its steps are not known."""
    steps = read_steps(node, constants)
    if steps is None or (shape := steps.along(node, whole.shape)) is None:
        return None
    # In float32 also where the result is float16, as ONNX Runtime does.
    scale = steps.scale.astype(np.float32).reshape(shape)
    values = (whole - steps.zero.reshape(shape)).astype(np.float32) * scale
    with np.errstate(over="ignore"):
        return np.asarray(values, steps.scale.dtype)
