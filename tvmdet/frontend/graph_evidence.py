"""What the structure of a graph says about a detector: how outputs are made, what the input is.

Names of outputs are whatever an exporter chose; how a value was computed is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tvmdet.frontend.onnx_tools import constant_values, constants_of, graph_inputs
from tvmdet.frontend.rejoined_channels import find_rejoined
from tvmdet.heads.base import Normalisation, Stem

__all__ = ["MOVERS", "count_gates", "find_normalisation", "find_stem", "trace_outputs"]

# Operators that only move values: what computed an output is looked for behind them.
MOVERS = (
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# What leaves the values of a picture as they are, or nearly.
_KEEPERS = (
    *("Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze"),
    *("Transpose", "Unsqueeze"),
)
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_LOOKS = ("Conv", "ConvInteger", "Gemm", "MatMul", "QLinearConv")
_SLICE_OPERANDS = 4  # beside what is cut
_CHANNELS = 3
_UNTRAINED = 1e-3  # epsilon of a BatchNormalization is up to 1e-3, whose root is half as far
_MOST_STEPS = 64
_LONGEST_TRACE = 8
_BESIDES = ("Shape", "Size")  # what reads a value without using it


def trace_outputs(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Returns how each output was computed, last step first.

    A step is an operator and the sizes of its constant operand, such as ``Sigmoid``, ``Add(4)``,
    ``MatMul(256x4)``. Operators that move values are left out; the trace ends with the first step
    that joins several computed values, written ``Add*``, or after eight steps.
    """
    constants = constants_of(graph)
    producers = {name: node for node in graph.node for name in node.output}
    return {value.name: _trace(value.name, producers, constants) for value in graph.output}


def _trace(
    name: str,
    producers: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> tuple[str, ...]:
    steps: list[str] = []
    while name in producers and len(steps) < _LONGEST_TRACE:
        node = producers[name]
        mover = node.op_type in MOVERS and node.op_type != "Concat"
        inputs = node.input[:1] if mover else node.input
        computed = [one for one in inputs if one and one not in constants]
        if len(set(computed)) != 1:
            if computed:
                steps.append(f"{node.op_type}*")
            break
        if not mover:
            sizes = [
                "x".join(str(dim) for dim in constants[one].dims if dim != 1) or "1"
                for one in inputs
                if one in constants and constants[one].data_type == onnx.TensorProto.FLOAT
            ]
            steps.append(f"{node.op_type}({','.join(sizes)})" if sizes else node.op_type)
        name = computed[0]
    return tuple(steps)


def count_gates(graph: onnx.GraphProto) -> int:
    """Returns how many activations are ``x * sigmoid(x)`` (SiLU, Swish)."""
    inputs_of = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Sigmoid"}
    count = sum(1 for node in graph.node if node.op_type == "Swish")
    for node in graph.node:
        if node.op_type == "Mul" and len(node.input) == 2:
            left, right = node.input
            count += int(inputs_of.get(left) == right or inputs_of.get(right) == left)
    return count


def find_stem(graph: onnx.GraphProto) -> Stem | None:
    """Returns kernel and stride of the first convolution, or None when there is none."""
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            attributes = _attributes(node)
            dims = constants[node.input[1]].dims
            return Stem(kernel=int(dims[-1]), stride=int((attributes.get("strides") or [1])[-1]))
    return None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def find_normalisation(graph: onnx.GraphProto) -> Normalisation | None:
    """Returns what a network does to its picture before it looks at it; None for nothing.

    Constants of one value or of one value per channel are followed, also as a BatchNormalization or
    a Conv of single pixels has them, and channels that are turned around, up to the first node that
    does anything else. Between that and the first convolutions there should be no arithmetic: where
    there is, what it does is not known.
    """
    inputs = graph_inputs(graph)
    if len(inputs) != 1:
        return None
    constants = constants_of(graph)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type not in _BESIDES:
            for name in set(node.input):
                users.setdefault(name, []).append(node)
    name, scale, offset = inputs[0].name, np.ones(3), np.zeros(3)
    order, seen = 1, False  # the channels' step, over those of the input
    sides: list[int] | None = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    while users.get(name):
        joined = find_rejoined(name, users, constants, sides)
        if joined is not None:
            name, turned = joined
            order = -order if turned else order
            continue
        if len(users[name]) > 1:
            break
        (node,) = users[name]
        if node.op_type in _KEEPERS:
            name, sides = node.output[0], _moved(sides, node)
            continue
        if _turns_around(node, constants, sides):
            name, order = node.output[0], -order
            continue
        if (line := _of_each_channel(node, constants)) is not None:
            turn, factors, terms = line
            name, order = node.output[0], order * turn
            if _does_nothing(factors, terms):
                continue
            scale, offset = _after("Mul", scale, offset, factors[::order])
            scale, offset = _after("Add", scale, offset, terms[::order])
            seen = True
            continue
        known = [one for one in node.input if one in constants]
        values = _per_channel(constants, known)
        if node.op_type not in ("Add", "Div", "Mul", "Sub") or values is None:
            break
        if known[0] == node.input[0] and node.op_type in ("Div", "Sub"):
            break
        name = node.output[0]
        scale, offset = _after(node.op_type, scale, offset, values[::order])
        seen = True
    unknown = _unknown_steps(name, users, constants)
    if np.any(scale == 0):
        return None
    if not (seen or unknown or order < 0):
        return None
    mean, std = -offset / scale, 1 / scale
    return Normalisation(
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        reverses=order < 0,
        unknown=unknown,
    )


def _of_each_channel(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Returns what a BatchNormalization, or a Conv of single pixels, does to three channels.

    Returns:
        The step of the channels, 1 or -1 where they are turned around, and factors and terms in
        the order of what comes out; None where channels are mixed, or other nodes.
    """
    known = [constants.get(name) for name in node.input[1:] if name]
    if None in known or not known:
        return None
    values = [constant_values(one).astype(np.float64) for one in known if one is not None]
    if node.op_type == "BatchNormalization" and values[0].size == _CHANNELS:
        scale, offset, mean, variance = values
        factors = scale / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
        return 1, factors, offset - mean * factors
    if not _is_of_pixels(node, constants):
        return None
    terms = values[1] if len(values) > 1 else np.zeros(_CHANNELS)
    weights = values[0].reshape(_CHANNELS, -1)
    if weights.shape[1] == 1:  # a group for each channel
        return 1, weights[:, 0], terms
    for turn in (1, -1):
        factors = np.diagonal(weights[:, ::turn])
        if np.count_nonzero(weights) == np.count_nonzero(factors) == _CHANNELS:
            return turn, factors, terms
    return None


def _does_nothing(factors: np.ndarray, terms: np.ndarray) -> bool:
    """Returns whether a layer was never trained: a BatchNormalization then divides by 1.0005."""
    return bool(np.allclose(factors, 1, atol=_UNTRAINED) and np.allclose(terms, 0, atol=_UNTRAINED))


def _is_of_pixels(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Returns whether a Conv makes three channels of three, for each pixel by itself."""
    if node.op_type != "Conv" or node.input[1] not in constants:
        return False
    attributes = _attributes(node)
    shape = (_CHANNELS, _CHANNELS // attributes.get("group", 1), 1, 1)
    plain = set(attributes.get("strides", [1])) == {1} and not any(attributes.get("pads", [0]))
    return plain and tuple(constants[node.input[1]].dims) == shape


def _moved(sides: list[int] | None, node: onnx.NodeProto) -> list[int] | None:
    """Returns the dimensions after a node that keeps the values; None where they are not known."""
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
        return None
    if sides is None or node.op_type != "Transpose":
        return sides
    order = _attributes(node).get("perm", range(len(sides))[::-1])
    return [sides[axis] for axis in order]


def _turns_around(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], sides: list[int] | None
) -> bool:
    """Returns whether a node puts three channels into the opposite order."""
    given = [constants.get(name) for name in node.input[1:] if name]
    if not given or None in given:
        return False
    values = [constant_values(one).reshape(-1).tolist() for one in given if one is not None]
    if node.op_type == "Gather":
        turned = values[0] in ([2, 1, 0], [-1, -2, -3])
        axis = _attributes(node).get("axis", 0)
    else:
        # starts, ends, axes, steps
        turned = node.op_type == "Slice" and len(values) == _SLICE_OPERANDS and values[3] == [-1]
        axis = values[2][0] if turned else 0
    # A picture that is mirrored keeps its colours.
    return turned and (sides is None or sides[axis] == _CHANNELS)


def _unknown_steps(
    name: str, users: Mapping[str, list[onnx.NodeProto]], constants: Mapping[str, onnx.TensorProto]
) -> tuple[str, ...]:
    """Returns the operators from a value to a convolution or product, if they compute with numbers.

    Those that only move values are how some networks begin (YOLOX's Focus, padding).
    """
    waiting: list[tuple[str, tuple[str, ...], bool]] = [(name, (), False)]
    seen: set[tuple[str, bool]] = set()
    while waiting:
        value, steps, computes = waiting.pop()
        if (value, computes) in seen or len(steps) > _MOST_STEPS:
            continue
        seen.add((value, computes))
        for node in users.get(value, []):
            mixes = _is_of_pixels(node, constants)
            colours = mixes or _of_each_channel(node, constants) is not None
            if node.op_type in _LOOKS and computes and not colours:
                return tuple(dict.fromkeys(steps))
            passed = (*_ARITHMETIC, *_KEEPERS, *MOVERS, "Pad", "Resize")
            if node.op_type not in passed and not colours:
                continue
            known = [one for one in node.input if one in constants]
            scales = node.op_type in _ARITHMETIC and _per_channel(constants, known) is not None
            after = (*steps, node.op_type), computes or scales or colours
            waiting += [(output, *after) for output in node.output]
    return ()


def _per_channel(constants: Mapping[str, onnx.TensorProto], names: list[str]) -> np.ndarray | None:
    if len(names) != 1:
        return None
    values = constant_values(constants[names[0]]).astype(np.float64).reshape(-1)
    return np.broadcast_to(values, 3) if values.size in (1, 3) else None


def _after(
    operator: str, scale: np.ndarray, offset: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``scale * x + offset`` after one more operation."""
    if operator == "Add":
        return scale, offset + values
    if operator == "Sub":
        return scale, offset - values
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = values if operator == "Mul" else 1 / values
        return scale * factor, offset * factor
