"""Parts of an ONNX network that run alone, and that tell nothing of where they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tvmdet.frontend.onnx_tools import constants_of, named_tensor

__all__ = ["anonymous", "halved", "take_part", "with_random_weights"]

_ROUNDED_TO = 2  # significant digits of a weight's range that its random values keep
_STRUCTURE = 16  # whole numbers in a tensor of a shape, of axes or of pads, at most


def take_part(model: onnx.ModelProto, kept: Sequence[int]) -> onnx.ModelProto:
    """Returns a network of some of a network's nodes.

    What they read and nobody among them computes becomes an input; what nobody among them
    reads, and what the network returns, becomes an output.

    Args:
        model: A static network in which the type of every value is recorded or inferable.
        kept: Positions of the nodes, ascending.
    """
    nodes = [model.graph.node[at] for at in kept]
    constants = constants_of(model.graph)
    known = _known_values(model)
    made = {name for node in nodes for name in node.output if name}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    returned = {value.name for value in model.graph.output}
    constant_nodes = {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    inputs = [name for name in read if name not in made and name not in constants]
    outputs = [
        name
        for node in nodes
        for name in node.output
        if name and name in known and (name not in read or name in returned)
    ]
    graph = helper.make_graph(
        nodes,
        "part",
        [known[name] for name in inputs if name in known],
        [known[name] for name in outputs if name not in constant_nodes],
        [
            named_tensor(constants[name], name)
            for name in read
            if name in constants and name not in made
        ],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part


def _known_values(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: value for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }


def with_random_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Returns a copy whose weights are random, each tensor in about the range that it had.

    Single numbers (a bound, an epsilon), tensors of one repeated number, and the few whole
    numbers of a shape are no weights: they say what is computed, and stay.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for tensor in constants_of(copy.graph).values():
        values = numpy_helper.to_array(tensor)
        few = values.size <= 1 or (values.dtype.kind in "iub" and values.size <= _STRUCTURE)
        if few or values.dtype.kind not in "fiu" or bool((values == values.flat[0]).all()):
            continue
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (_rounded(float(edge)) for edge in (finite.min(), finite.max()))
        if values.dtype.kind == "f":
            made: npt.NDArray[Any] = rng.uniform(low, high, values.shape)
        else:
            made = rng.integers(int(finite.min()), int(finite.max()) + 1, values.shape)
        tensor.CopyFrom(numpy_helper.from_array(made.astype(values.dtype), tensor.name))
    return copy


def _rounded(value: float) -> float:
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, _ROUNDED_TO - 1 - math.floor(math.log10(abs(value))))


def halved(model: onnx.ModelProto, axis: int) -> onnx.ModelProto | None:
    """Returns a copy whose inputs are half as long along an axis, or None where none is.

    Whether it is still a network is for the caller to find out.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed = False
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > axis and dims[axis].dim_value > 1:
            dims[axis].dim_value = (dims[axis].dim_value + 1) // 2
            changed = True
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    if not changed:
        return None
    inferred = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    del inferred.graph.value_info[:]
    return inferred


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without names, metadata and texts of its own."""
    graph = model.graph
    names: dict[str, str] = {}
    order: list[Iterable[str]] = [
        [v.name for v in graph.input],
        [t.name for t in graph.initializer],
    ]
    order += [node.output for node in graph.node]
    for group in order:
        for name in group:
            if name:
                names.setdefault(name, f"v{len(names)}")
    nodes = []
    for index, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("doc_string")
        copy.ClearField("metadata_props")
        copy.name = f"{node.op_type}_{index}"
        for field in (copy.input, copy.output):
            renamed = [names.get(name, name) for name in field]
            del field[:]
            field.extend(renamed)
        nodes.append(copy)
    made = helper.make_graph(
        nodes,
        "part",
        [_renamed(value, names) for value in graph.input],
        [_renamed(value, names) for value in graph.output],
        [named_tensor(tensor, names[tensor.name]) for tensor in graph.initializer],
    )
    result = helper.make_model(
        made, opset_imports=model.opset_import, producer_name="tvmdet shrink"
    )
    result.ir_version = model.ir_version
    return result


def _renamed(value: onnx.ValueInfoProto, names: Mapping[str, str]) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.name = names[value.name]
    copy.type.CopyFrom(value.type)
    return copy
