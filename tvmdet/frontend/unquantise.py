"""Quantised files (QDQ) as the float networks that they round.

Between a QuantizeLinear and its DequantizeLinear a value has been rounded to a step and kept within
what the integers can say. The second is part of what the network computes: quantisers drop the Relu
that the integers' lowest value replaces. The first is a loss that tvmdet, which has no integer
kernels, would pay for without the speed; and a sum that lies on the edge of a step goes up in one
runtime and down in another, so that nothing could be compared. Therefore a pair becomes a Clip, and
weights become the floats that their integers mean, exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, constants_of
from tvmdet.frontend.prove import differences, probes, run_onnx

__all__ = ["NOTHING", "UNQUANTISED", "Unquantised", "rounding_left_out", "unquantise"]

UNQUANTISED = "integer weights taken as the floats that they mean"

Constants = Mapping[str, onnx.TensorProto]

# What integers can say; the narrower and the floating types of opset 19 and later stay as they are.
_RANGES: dict[int, tuple[int, int]] = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
}
_WITHIN_UNIT = ("Sigmoid", "Softmax", "HardSigmoid")


@dataclass(frozen=True, kw_only=True)
class Unquantised:
    """What was replaced.

    Attributes:
        weights: Tensors that are float now; the network computes the same.
        pairs: Values that are not rounded any more.
    """

    weights: int
    pairs: int


NOTHING = Unquantised(weights=0, pairs=0)


def unquantise(model: onnx.ModelProto) -> Unquantised:
    """Replaces pairs of QuantizeLinear and DequantizeLinear, in place.

    Args:
        model: A checked model of opset 11 or later, every node named.

    Returns:
        How many were replaced. What is no such pair stays.
    """
    graph = model.graph
    constants = constants_of(graph)
    makers = {name: node for node in graph.node for name in node.output}
    folded, replaced, nodes = 0, 0, []
    for node in graph.node:
        quantiser = makers.get(node.input[0]) if _is(node, "DequantizeLinear") else None
        weights = _weights(node, quantiser, constants)
        if weights is not None:
            graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            folded += 1
        elif quantiser is not None and (limits := _limits(node, quantiser, constants)) is not None:
            nodes += _limited(graph, node, quantiser.input[0], limits, makers)
            replaced += 1
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    _drop_unused(graph)
    return Unquantised(weights=folded, pairs=replaced)


def rounding_left_out(
    quantised: onnx.ModelProto, model: onnx.ModelProto, found: Unquantised
) -> str:
    """Says how far a network is from the quantised one that it was, for people.

    Args:
        quantised: The file's network, with static input shapes.
        model: The same without quantisation.
        found: What :func:`unquantise` returned.

    Raises:
        ModelError: ONNX Runtime cannot run one of them.
    """
    feeds = list(probes(model).values())
    names = [value.name for value in model.graph.output]
    largest = 0.0
    for before, after in zip(run_onnx(quantised, feeds), run_onnx(model, feeds), strict=True):
        largest = max(largest, *differences(before, after, names).values())
    moved = "are others" if math.isinf(largest) else f"move by up to {largest:.2g} of the greatest"
    return (
        f"the file is quantised: its weights are taken as float32, and {found.pairs} pairs of "
        f"QuantizeLinear and DequantizeLinear as limits; without their rounding outputs {moved} "
        "on random values and smooth shapes; compare with `tvmdet eval --onnx`, and prefer the "
        "float export where there is one"
    )


def _is(node: onnx.NodeProto, operator: str) -> bool:
    return node.op_type == operator and node.domain in DEFAULT_DOMAINS


def _weights(
    node: onnx.NodeProto, quantiser: onnx.NodeProto | None, constants: Constants
) -> npt.NDArray[np.floating] | None:
    """Returns what a DequantizeLinear makes of weights; None where it reads no weights."""
    if not _is(node, "DequantizeLinear"):
        return None
    steps = _steps(node, constants)
    if steps is None:
        return None
    whole: npt.NDArray[Any]
    if node.input[0] in constants:
        whole = numpy_helper.to_array(constants[node.input[0]])
    elif quantiser is not None and _is(quantiser, "QuantizeLinear"):
        own = _steps(quantiser, constants)
        if own is None or quantiser.input[0] not in constants:
            return None
        values = numpy_helper.to_array(constants[quantiser.input[0]])
        shape = _along(quantiser, own[0], values.shape)
        if shape is None:
            return None
        scale, zero = own[0].reshape(shape), own[1].reshape(shape).astype(np.float32)
        whole = np.clip(np.rint(values / scale) + zero, *own[2])
    else:
        return None
    shape = _along(node, steps[0], whole.shape)
    if shape is None:
        return None
    step, origin = steps[0].reshape(shape), steps[1].reshape(shape)
    # As the standard says: the difference of whole numbers, then one product.
    result = (whole.astype(np.float64) - origin.astype(np.float64)).astype(step.dtype) * step
    return np.asarray(result, step.dtype)


def _along(
    node: onnx.NodeProto, scale: npt.NDArray[np.floating], dims: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Returns the shape in which the scales of a node broadcast over an array; None: in none."""
    if scale.size == 1:
        return (1,) * len(dims)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if not -len(dims) <= axis < len(dims) or dims[axis] != scale.size:
        return None
    return tuple(-1 if index == axis % len(dims) else 1 for index in range(len(dims)))


def _steps(
    node: onnx.NodeProto, constants: Constants
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.integer], tuple[int, int]] | None:
    """Returns scales, zero points and the range of the integers; None where they are not known."""
    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    scale = numpy_helper.to_array(constants[node.input[1]])
    others = {a.name for a in node.attribute} - {"axis", "saturate"}
    if scale.ndim > 1 or others:  # in blocks, since opset 21, or of other types
        return None
    if scale.dtype.kind != "f" or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    if len(node.input) < 3 or not node.input[2]:
        # Without a zero point it is 0; int32, as of biases, has no other.
        return scale, np.zeros(scale.shape, np.int32), _RANGES[onnx.TensorProto.UINT8]
    if node.input[2] not in constants:
        return None
    tensor = constants[node.input[2]]
    if tensor.data_type == onnx.TensorProto.INT32:
        limits = (-(2**31), 2**31 - 1)
    elif tensor.data_type in _RANGES:
        limits = _RANGES[tensor.data_type]
    else:
        return None
    zero = numpy_helper.to_array(tensor)
    return (scale, zero, limits) if zero.shape == scale.shape else None


def _limits(
    node: onnx.NodeProto, quantiser: onnx.NodeProto, constants: Constants
) -> npt.NDArray[np.floating] | None:
    """Returns the least and the greatest value that a pair lets through; None if it is none."""
    if not _is(quantiser, "QuantizeLinear"):
        return None
    first, second = _steps(quantiser, constants), _steps(node, constants)
    if first is None or second is None or first[0].size != 1 or second[0].size != 1:
        return None
    if first[0] != second[0] or first[1] != second[1] or first[2] != second[2]:
        return None
    scale, zero, whole = first[0].reshape(()), int(first[1].reshape(())), first[2]
    return np.array([(bound - zero) * float(scale) for bound in whole], scale.dtype)


def _limited(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    value: str,
    limits: npt.NDArray[np.floating],
    makers: Mapping[str, onnx.NodeProto],
) -> list[onnx.NodeProto]:
    """Returns what takes the place of a pair: a Clip, or nothing but the name where none is due."""
    maker = makers.get(value)
    # With steps of 1/256 all that is lost of values up to 1 is less than a step.
    if maker is not None and maker.op_type in _WITHIN_UNIT and limits[0] <= 0 < 0.99 < limits[1]:
        return [helper.make_node("Identity", [value], [node.output[0]], name=node.name)]
    names = [f"{node.name}_{what}" for what in ("least", "greatest")]
    for name, limit in zip(names, limits, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(limit), name))
    return [helper.make_node("Clip", [value, *names], [node.output[0]], name=node.name)]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes quantisers and constants that nobody reads any more."""
    read = Counter(name for node in graph.node for name in node.input)
    read.update(value.name for value in graph.output)
    for node in list(graph.node):
        if _is(node, "QuantizeLinear") and not read[node.output[0]]:
            graph.node.remove(node)
            read.subtract(node.input)
    nested = any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute)
    if not nested:  # what a body reads is not counted
        kept = [tensor for tensor in graph.initializer if read[tensor.name] > 0]
        del graph.initializer[:]
        graph.initializer.extend(kept)
