"""Pairs of QuantizeLinear and DequantizeLinear between layers as the limits that they set."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmdet.counted import counted
from tvmdet.errors import ModelError
from tvmdet.frontend.infer_shapes import element_types
from tvmdet.frontend.onnx_tools import constants_of
from tvmdet.frontend.prove import differences, probes, run_onnx
from tvmdet.frontend.quantised.names import Names
from tvmdet.frontend.quantised.pairs import Pair, read_pair, rounds_each_picture
from tvmdet.frontend.quantised.steps import drop_unread, is_node
from tvmdet.frontend.quantised.watch import Watch

__all__ = ["ROUNDED", "drop_rounding", "rounding_left_out"]

ROUNDED = "rounding between layers left out"

_WITHIN_UNIT = ("Sigmoid", "Softmax", "HardSigmoid")


def drop_rounding(model: onnx.ModelProto) -> int:
    """Replaces pairs of QuantizeLinear and DequantizeLinear by the limits they set, in place.

    A pair whose step depends on the picture (DynamicQuantizeLinear) sets none.

    Args:
        model: A checked model of opset 11 or later, every node named.

    Returns:
        How many pairs were replaced. What is no such pair stays.
    """
    graph = model.graph
    constants, types = constants_of(graph), element_types(model)
    makers = {name: node for node in graph.node for name in node.output}
    names = Names(graph)
    nodes, read = [], []
    for node in graph.node:
        quantiser = makers.get(node.input[0]) if is_node(node, "DequantizeLinear") else None
        pair = read_pair(node, quantiser, constants, types)
        if quantiser is None or (pair is None and not rounds_each_picture(node, quantiser)):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        read += node.input
        value, result = quantiser.input[0], node.output[0]
        if pair is None or _is_within(makers.get(value), pair):
            nodes.append(helper.make_node("Identity", [value], [result], name=node.name))
            continue
        limits = [names.fresh(f"{node.name}_{what}") for what in ("least", "greatest")]
        for name, limit in zip(limits, (pair.least, pair.greatest), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.asarray(limit), name))
        nodes.append(helper.make_node("Clip", [value, *limits], [result], name=node.name))
    count: int = sum(old.op_type != new.op_type for old, new in zip(graph.node, nodes, strict=True))
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
    watch, fixed, each_picture = _watched(rounded, model)
    largest = 0.0
    befores = watch.run(feeds, "what was rounded to it than a step")
    for before, after in zip(befores, run_onnx(model, feeds), strict=True):
        largest = max(largest, *differences(before, after, names).values())
    moved = "are others" if math.isinf(largest) else f"move by up to {largest:.2g} of the greatest"
    return (
        f"the file is quantised: its weights are taken as float32, {_kept(fixed, each_picture)}; "
        f"without their rounding outputs {moved} "
        "on random values and smooth shapes; measure it with `tvmdet eval`, and prefer the float "
        "export where there is one"
    )


def _kept(fixed: int, each_picture: int) -> str:
    """Says what stays of how many pairs with fixed steps, and with those of each picture."""
    parts = []
    if fixed:
        parts.append(f"{counted(fixed, 'pair')} of QuantizeLinear and DequantizeLinear as limits")
    if each_picture:
        values = "value not as 1/255 of what it spans"
        if each_picture > 1:
            values = "values not as 1/255 of what each spans"
        parts.append(f"{each_picture} {values} in a picture (DynamicQuantizeLinear)")
    return "and " + ", and ".join(parts)


def _is_within(maker: onnx.NodeProto | None, pair: Pair) -> bool:
    """Returns whether a value lies from 0 to 1 by its maker, and limits take less than a step."""
    if maker is None or maker.op_type not in _WITHIN_UNIT:
        return False
    return bool(pair.least <= 0) and float(pair.greatest) + pair.step >= 1 - 1e-6


def _watched(rounded: onnx.ModelProto, model: onnx.ModelProto) -> tuple[Watch, int, int]:
    """Watches how far each pair that was replaced is from what takes its place.

    Returns:
        The network, and how many pairs have fixed steps, and steps of each picture.
    """
    watch, names = Watch(model=rounded, other=model), Names(rounded.graph)
    constants, types = constants_of(rounded.graph), element_types(rounded)
    replaced = {node.output[0]: node for node in model.graph.node if len(node.output) == 1}
    makers = {name: node for node in rounded.graph.node for name in node.output}
    fixed = each_picture = 0
    for node in rounded.graph.node:
        now = replaced.get(node.output[0])
        if not is_node(node, "DequantizeLinear") or now is None or now.op_type == node.op_type:
            continue
        result, quantiser = node.output[0], makers[node.input[0]]
        value = names.fresh(f"{result}_now")
        watch.take([helper.make_node(now.op_type, list(now.input), [value], name=value)])
        pair = read_pair(node, quantiser, constants, types)
        if pair is not None:
            fixed += 1
            most = pair.furthest(1.0 if now.op_type == "Identity" else 0.5)
            watch.compare(result, value, most, kind=types[result])
        elif rounds_each_picture(node, quantiser):
            each_picture += 1
            watch.compare(result, value, 0.5 * (1 + 1e-3), unit=node.input[1])
        else:
            raise ModelError(f"{result!r} was no pair, and was replaced; please report it")
    return watch, fixed, each_picture
