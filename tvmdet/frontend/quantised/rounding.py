"""Pairs of QuantizeLinear and DequantizeLinear between layers as the limits that they set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.infer_shapes import element_types
from tvmdet.frontend.onnx_tools import constants_of
from tvmdet.frontend.prove import differences, probes, run_onnx
from tvmdet.frontend.quantised.steps import RANGES, Constants, drop_unread, is_node, read_steps

__all__ = ["ROUNDED", "drop_rounding", "rounding_left_out"]

ROUNDED = "rounding between layers left out"

_WITHIN_UNIT = ("Sigmoid", "Softmax", "HardSigmoid")


def drop_rounding(model: onnx.ModelProto) -> int:
    """Replaces pairs of QuantizeLinear and DequantizeLinear by the limits they set, in place.

    Args:
        model: A checked model of opset 11 or later, every node named.

    Returns:
        How many pairs were replaced. What is no such pair stays.
    """
    graph = model.graph
    constants, types = constants_of(graph), element_types(model)
    makers = {name: node for node in graph.node for name in node.output}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | set(constants)
    nodes, read, count = [], [], 0
    for node in graph.node:
        quantiser = makers.get(node.input[0]) if is_node(node, "DequantizeLinear") else None
        limits = None if quantiser is None else _limits(node, quantiser, constants, types)
        if quantiser is None or limits is None:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        count += 1
        read += node.input
        value, result = quantiser.input[0], node.output[0]
        if _is_within(makers.get(value), limits):
            nodes.append(helper.make_node("Identity", [value], [result], name=node.name))
            continue
        names = [_fresh(f"{node.name}_{what}", taken) for what in ("least", "greatest")]
        for name, limit in zip(names, (limits.least, limits.greatest), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.asarray(limit), name))
        nodes.append(helper.make_node("Clip", [value, *names], [result], name=node.name))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(model, read)
    return count


def rounding_left_out(rounded: onnx.ModelProto, model: onnx.ModelProto) -> str:
    """Checks every pair that was replaced, and says how far that moves the network, for people.

    Within the network that rounds, what a pair gives lies no further from what now takes its place
    than the rounding of that pair: half a step, or one where values up to 1 lost their limit.

    Args:
        rounded: The network with its pairs, its inputs of static shapes.
        model: What :func:`drop_rounding` made of it.

    Raises:
        ModelError: A pair gives something else, or ONNX Runtime cannot run one of the networks.
    """
    feeds = list(probes(model).values())
    names = [value.name for value in model.graph.output]
    watched, allowed = _watched(rounded, model)
    largest = 0.0
    for before, after in zip(run_onnx(watched, feeds), run_onnx(model, feeds), strict=True):
        largest = max(largest, *differences(before, after, names).values())
        for name, (result, most) in allowed.items():
            if not before[name].item() <= most:
                raise ModelError(
                    f"{result!r} is further from what was rounded to it than a step: "
                    f"{before[name].item():.3g}, allowed {most:.3g}; this model cannot be used "
                    "safely: please report it"
                )
    pairs = f"{len(allowed)} pair" + ("" if len(allowed) == 1 else "s")
    moved = "are others" if math.isinf(largest) else f"move by up to {largest:.2g} of the greatest"
    return (
        f"the file is quantised: its weights are taken as float32, and {pairs} of "
        f"QuantizeLinear and DequantizeLinear as limits; without their rounding outputs {moved} "
        "on random values and smooth shapes; compare with `tvmdet eval --onnx`, and prefer the "
        "float export where there is one"
    )


@dataclass(frozen=True, kw_only=True)
class _Limits:
    least: npt.NDArray[Any]
    greatest: npt.NDArray[Any]
    step: float


def _limits(
    node: onnx.NodeProto,
    quantiser: onnx.NodeProto,
    constants: Constants,
    types: Mapping[str, int],
) -> _Limits | None:
    """Returns what a pair lets through; None if it is no pair with one step."""
    if not is_node(quantiser, "QuantizeLinear"):
        return None
    first, second = read_steps(quantiser, constants), read_steps(node, constants)
    if first is None or second is None or first.scale.size != 1 or second.scale.size != 1:
        return None
    if first.scale.item() != second.scale.item() or first.zero.item() != second.zero.item():
        return None
    # Clip wants its limits in the type of the value, and gives that type.
    kinds = {constants[one.input[1]].data_type for one in (quantiser, node)}
    if kinds != {types.get(quantiser.input[0])}:
        return None
    dtype = first.scale.dtype
    scale, zero = float(first.scale.item()), int(first.zero.item())
    whole = RANGES[first.kind or second.kind or TensorProto.UINT8]
    most = float(np.finfo(dtype).max)
    exact = np.clip([(bound - zero) * scale for bound in whole], -most, most)
    least, greatest = limits = exact.astype(dtype)
    if np.abs(limits - exact).max() > scale / 4:
        return None  # half floats do not tell limits of 16-bit integers apart
    return _Limits(least=least, greatest=greatest, step=scale)


def _is_within(maker: onnx.NodeProto | None, limits: _Limits) -> bool:
    """Returns whether a value lies from 0 to 1 by its maker, and limits take less than a step."""
    if maker is None or maker.op_type not in _WITHIN_UNIT:
        return False
    return bool(limits.least <= 0) and float(limits.greatest) + limits.step >= 1 - 1e-6


def _fresh(name: str, taken: set[str]) -> str:
    """Returns a name that no value has yet, and takes it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _watched(
    rounded: onnx.ModelProto, model: onnx.ModelProto
) -> tuple[onnx.ModelProto, dict[str, tuple[str, float]]]:
    """Adds an output for each pair that was replaced: how far it is from what takes its place.

    Returns:
        The network, and for each new output the pair's result and the most that it may be.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(rounded)
    graph, constants, types = watched.graph, constants_of(rounded.graph), element_types(rounded)
    replaced = {node.output[0]: node for node in model.graph.node if len(node.output) == 1}
    makers = {name: node for node in rounded.graph.node for name in node.output}
    limits = constants_of(model.graph)
    taken = {name for node in rounded.graph.node for name in (*node.input, *node.output)}
    allowed = {}
    for node in rounded.graph.node:
        now = replaced.get(node.output[0])
        if not is_node(node, "DequantizeLinear") or now is None or now.op_type == node.op_type:
            continue
        pair = _limits(node, makers[node.input[0]], constants, types)
        if pair is None:
            raise ModelError(f"{node.output[0]!r} was no pair, and was replaced; please report it")
        for name in now.input[1:]:
            graph.initializer.add().CopyFrom(limits[name])
        result = node.output[0]
        value, change, size, most = (
            _fresh(f"{result}_{what}", taken) for what in ("now", "change", "size", "most")
        )
        graph.node.extend(
            [
                helper.make_node(now.op_type, list(now.input), [value], name=value),
                helper.make_node("Sub", [value, result], [change], name=change),
                helper.make_node("Abs", [change], [size], name=size),
                helper.make_node("ReduceMax", [size], [most], name=most, keepdims=0),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(most, types[result], []))
        allowed[most] = (result, _most(pair, within=now.op_type == "Identity"))
    return watched, allowed


def _most(pair: _Limits, *, within: bool) -> float:
    """Returns how far a value may be from its integer's: the rounding, and that of the floats."""
    greatest = max(abs(float(pair.least)), abs(float(pair.greatest)))
    own = 2 * greatest * float(np.finfo(pair.least.dtype).eps)
    return pair.step * (1.0 if within else 0.5) * (1 + 1e-3) + own
