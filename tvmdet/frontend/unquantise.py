"""Quantised files (QDQ) as the float networks that they round.

Between a QuantizeLinear and its DequantizeLinear a value has been rounded to a step and kept within
what the integers can say. The second is part of what the network computes: quantisers drop the Relu
that the integers' lowest value replaces. The first is a loss that tvmdet, which has no integer
kernels, would pay for without the speed; and a sum that lies on the edge of a step goes up in one
runtime and down in another, so that nothing could be compared. Therefore weights become the floats
that their integers mean, exactly, and then a pair becomes a Clip.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.infer_shapes import element_types
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, constants_of, iter_graphs
from tvmdet.frontend.prove import Proof, differences, probes, run_onnx

__all__ = [
    "FOLDED",
    "ROUNDED",
    "drop_rounding",
    "fold_weights",
    "is_quantised",
    "prove_weights",
    "rounding_left_out",
]

FOLDED = "integer weights taken as the floats that they mean"
ROUNDED = "rounding between layers left out"

Constants = Mapping[str, onnx.TensorProto]

# What integers can say. Of narrower types and of floating ones nothing is replaced.
_RANGES: dict[int, tuple[int, int]] = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.INT32: (-(2**31), 2**31 - 1),
}
_WITHIN_UNIT = ("Sigmoid", "Softmax", "HardSigmoid")


def is_quantised(model: onnx.ModelProto) -> bool:
    """Returns whether a model has values that are integers for a while."""
    return any(_is(node, "DequantizeLinear") for node in model.graph.node)


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
        if not _is(node, "DequantizeLinear"):
            continue
        whole = _integers(node, makers.get(node.input[0]), constants)
        weights = None if whole is None else _dequantised(node, whole, constants)
        if weights is not None:
            graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            gone.append(node)
    _remove(model, gone)
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
        node for node in graph.node if _is(node, "DequantizeLinear") and node.output[0] in floats
    ]
    quantisers = {node.input[0] for node in nodes}.difference(constants)
    nodes = [*(makers[name] for name in sorted(quantisers)), *nodes]
    read = {name for node in nodes for name in node.input}
    names = [node.output[0] for node in nodes if _is(node, "DequantizeLinear")]
    part = helper.make_model(
        helper.make_graph(
            nodes,
            "weights",
            [],
            [helper.make_tensor_value_info(name, floats[name].data_type, None) for name in names],
            [_named(constants[name], name) for name in sorted(read.intersection(constants))],
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
    nodes, gone = [], []
    for node in graph.node:
        quantiser = makers.get(node.input[0]) if _is(node, "DequantizeLinear") else None
        limits = None if quantiser is None else _limits(node, quantiser, constants, types)
        if quantiser is None or limits is None:
            nodes.append(node)
            continue
        gone.append(node)
        value, result = quantiser.input[0], node.output[0]
        if _is_within(makers.get(value), limits):
            nodes.append(helper.make_node("Identity", [value], [result], name=node.name))
            continue
        names = [_fresh(f"{node.name}_{what}", taken) for what in ("least", "greatest")]
        for name, limit in zip(names, (limits.least, limits.greatest), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.asarray(limit), name))
        nodes.append(helper.make_node("Clip", [value, *names], [result], name=node.name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    old = [onnx.NodeProto.FromString(node.SerializeToString()) for node in gone]
    del graph.node[:]
    graph.node.extend(copies)
    _drop_unread(model, [name for node in old for name in node.input])
    return len(old)


def rounding_left_out(rounded: onnx.ModelProto, model: onnx.ModelProto, pairs: int) -> str:
    """Says how far a network is from the one that rounds, for people.

    Args:
        rounded: The network with its pairs, its inputs of static shapes.
        model: The same without.
        pairs: What :func:`drop_rounding` returned.

    Raises:
        ModelError: ONNX Runtime cannot run one of them.
    """
    feeds = list(probes(model).values())
    names = [value.name for value in model.graph.output]
    largest = 0.0
    for before, after in zip(run_onnx(rounded, feeds), run_onnx(model, feeds), strict=True):
        largest = max(largest, *differences(before, after, names).values())
    moved = "are others" if math.isinf(largest) else f"move by up to {largest:.2g} of the greatest"
    return (
        f"the file is quantised: its weights are taken as float32, and {pairs} pairs of "
        f"QuantizeLinear and DequantizeLinear as limits; without their rounding outputs {moved} "
        "on random values and smooth shapes; compare with `tvmdet eval --onnx`, and prefer the "
        "float export where there is one"
    )


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """The parameters of a QuantizeLinear or DequantizeLinear that are known.

    Attributes:
        scale: Sizes of a step.
        zero: The integers that mean 0, of the same shape.
        kind: Their type; None where no zero point says it.
    """

    scale: npt.NDArray[Any]
    zero: npt.NDArray[np.int64]
    kind: int | None


@dataclass(frozen=True, kw_only=True)
class _Limits:
    least: npt.NDArray[Any]
    greatest: npt.NDArray[Any]
    step: float


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _is(node: onnx.NodeProto, operator: str) -> bool:
    return node.op_type == operator and node.domain in DEFAULT_DOMAINS


def _integers(
    node: onnx.NodeProto, quantiser: onnx.NodeProto | None, constants: Constants
) -> npt.NDArray[np.int64] | None:
    """Returns the integers that a DequantizeLinear reads; None where they are no weights."""
    stored = constants.get(node.input[0])
    if stored is not None:
        known = stored.data_type in _RANGES
        return numpy_helper.to_array(stored).astype(np.int64) if known else None
    if quantiser is None or not _is(quantiser, "QuantizeLinear"):
        return None
    steps, floats = _steps(quantiser, constants), constants.get(quantiser.input[0])
    if steps is None or floats is None:
        return None
    values = numpy_helper.to_array(floats)
    if values.dtype.kind != "f" or (shape := _along(quantiser, steps, values.shape)) is None:
        return None
    low, high = _RANGES[steps.kind or onnx.TensorProto.UINT8]
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
    steps = _steps(node, constants)
    if steps is None or (shape := _along(node, steps, whole.shape)) is None:
        return None
    # In float32 also where the result is float16, as ONNX Runtime does.
    scale = steps.scale.astype(np.float32).reshape(shape)
    values = (whole - steps.zero.reshape(shape)).astype(np.float32) * scale
    with np.errstate(over="ignore"):
        return np.asarray(values, steps.scale.dtype)


def _steps(node: onnx.NodeProto, constants: Constants) -> _Steps | None:
    """Returns the parameters of a node; None where they are not known, or of another kind."""
    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    if any(a.name not in ("axis", "saturate") and a.i for a in node.attribute):
        return None  # blocks of values share a step, or types are given by number: opset 21
    scale = numpy_helper.to_array(constants[node.input[1]])
    if scale.ndim > 1 or scale.dtype.kind != "f" or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    if len(node.input) < 3 or not node.input[2]:
        return _Steps(scale=scale, zero=np.zeros(scale.shape, np.int64), kind=None)
    tensor = constants.get(node.input[2])
    if tensor is None or tensor.data_type not in _RANGES:
        return None
    zero = numpy_helper.to_array(tensor).astype(np.int64)
    if zero.size != scale.size:
        return None
    return _Steps(scale=scale, zero=zero.reshape(scale.shape), kind=tensor.data_type)


def _along(node: onnx.NodeProto, steps: _Steps, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """Returns the shape in which the steps of a node broadcast over an array; None: in none."""
    if steps.scale.size == 1:
        return (1,) * len(dims)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if not -len(dims) <= axis < len(dims) or dims[axis] != steps.scale.size:
        return None
    return tuple(-1 if index == axis % len(dims) else 1 for index in range(len(dims)))


def _limits(
    node: onnx.NodeProto,
    quantiser: onnx.NodeProto,
    constants: Constants,
    types: Mapping[str, int],
) -> _Limits | None:
    """Returns what a pair lets through; None if it is no pair with one step."""
    if not _is(quantiser, "QuantizeLinear"):
        return None
    first, second = _steps(quantiser, constants), _steps(node, constants)
    if first is None or second is None or first.scale.size != 1 or second.scale.size != 1:
        return None
    if first.scale.item() != second.scale.item() or first.zero.item() != second.zero.item():
        return None
    # Clip wants its limits in the type of the value, and gives that type.
    dtype = first.scale.dtype
    kinds = {constants[one.input[1]].data_type for one in (quantiser, node)}
    if kinds != {types.get(quantiser.input[0])}:
        return None
    scale, zero = float(first.scale.item()), int(first.zero.item())
    whole = _RANGES[first.kind or second.kind or onnx.TensorProto.UINT8]
    most = float(np.finfo(dtype).max)
    low, high = (np.clip((bound - zero) * scale, -most, most) for bound in whole)
    return _Limits(least=low.astype(dtype), greatest=high.astype(dtype), step=scale)


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


def _remove(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Removes nodes, and what only they read."""
    read = [name for node in nodes for name in node.input]
    for node in nodes:
        model.graph.node.remove(node)
    _drop_unread(model, read)


def _drop_unread(model: onnx.ModelProto, candidates: Iterable[str]) -> None:
    """Removes the quantisers and initializers among some values that nobody reads any more."""
    graph = model.graph
    reads = Counter(
        name for inner in iter_graphs(graph) for node in inner.node for name in node.input
    )
    reads.update(value.name for inner in iter_graphs(graph) for value in inner.output)
    waiting = set(candidates)
    for node in list(graph.node):
        unread = _is(node, "QuantizeLinear") and node.output[0] in waiting
        if unread and not reads[node.output[0]]:
            reads.subtract(node.input)
            waiting.update(node.input)
            graph.node.remove(node)
    stored = {tensor.name for tensor in graph.initializer}
    gone = {name for name in waiting & stored if not reads[name]}
    # Before IR version 4 every initializer is among the inputs too.
    for listed in (graph.initializer, graph.input):
        kept = [one for one in listed if one.name not in gone]
        del listed[:]
        listed.extend(kept)
