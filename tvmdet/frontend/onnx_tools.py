"""Small readers of ONNX protobufs, shared by the frontend."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.heads.base import TensorSummary

__all__ = [
    "DEFAULT_DOMAINS",
    "constant_values",
    "constants_of",
    "describe",
    "drop_domains",
    "first_line",
    "graph_inputs",
    "input_summary",
    "iter_graphs",
    "iter_tensors",
    "last_line",
    "name_nodes",
    "named_tensor",
    "names_read",
    "tensor_bytes",
    "unforeseen",
    "value_summary",
]

DEFAULT_DOMAINS = ("", "ai.onnx")


def describe(node: onnx.NodeProto) -> str:
    """Returns how messages call a node: ``node 'p2o.Clip.0' (Clip)``."""
    name = node.name or (node.output[0] if node.output else "?")
    return f"node {name!r} ({node.op_type})"


def first_line(error: BaseException, longest: int = 200) -> str:
    """Returns the first line of a foreign error, short enough to stand in a message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0].strip()
    return line if len(line) <= longest else line[: longest - 3] + "..."


def last_line(error: BaseException, longest: int = 200) -> str:
    """Returns the last line of a foreign error; the first ones of TVM's may be a traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[-1].strip()
    return line if len(line) <= longest else line[: longest - 3] + "..."


def unforeseen(what: str, error: Exception) -> ModelError:
    """Returns the error for a graph on which a rewrite raised what nobody foresaw.

    Args:
        what: What cannot be done; names the node where one is known.
        error: What was raised; to be the cause of the error.
    """
    kind = type(error).__name__
    told = first_line(error)
    reason = kind if told == kind else f"{kind}: {told}"
    return ModelError(
        f"{what}: {reason}; check the model with onnx.checker.check_model(model, full_check=True) "
        "and export it again; if it passes, please report it"
    )


def name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node without a name one, in place, so that errors can name it."""
    for index, node in enumerate(graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Returns the inputs that a caller feeds; old exports list the weights as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def iter_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields the graph and every graph inside its nodes."""
    stack = [graph]
    while stack:
        current = stack.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yields what a node reads, and what the graphs in it read, of around them or of themselves."""
    yield from node.input
    for attribute in node.attribute:
        for body in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
            for inner in iter_graphs(body):
                for one in inner.node:
                    yield from one.input
                yield from (output.name for output in inner.output)


def iter_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every stored tensor: initializers and attributes, sparse ones too."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in iter_graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def named_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Returns a copy of a tensor under a name."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def tensor_bytes(tensor: onnx.TensorProto) -> int | None:
    """Returns the bytes that the dimensions and type ask for, or None where not fixed."""
    try:
        itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except (KeyError, TypeError, ValueError):
        return None
    if tensor.data_type in _PACKED or tensor.data_type == onnx.TensorProto.STRING:
        return None
    return int(math.prod(tensor.dims)) * int(itemsize)


_PACKED = tuple(
    getattr(onnx.TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
)


def value_summary(value: onnx.ValueInfoProto) -> TensorSummary | None:
    """Returns the shape and type of a value, or None when it is no tensor of known rank.

    A dimension of 0 is a size: the value has no elements. See :func:`input_summary`.
    """
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    tensor = value.type.tensor_type
    dims = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in tensor.shape.dim
    )
    try:
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except (KeyError, TypeError, ValueError):
        dtype = "unknown"
    return TensorSummary(shape=dims, dtype=dtype)


def input_summary(value: onnx.ValueInfoProto) -> TensorSummary | None:
    """Returns what :func:`value_summary` does, for an input as exported.

    Some exporters write an open dimension as 0; no input has zero pixels.
    """
    summary = value_summary(value)
    if summary is None:
        return None
    return TensorSummary(shape=tuple(dim or None for dim in summary.shape), dtype=summary.dtype)


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Returns the constant tensors of a graph by name: initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = attribute.t
    return found


def constant_values(tensor: onnx.TensorProto) -> np.ndarray:
    """Returns the values of a constant tensor.

    Raises:
        ModelError: Its data are not those of its shape.
    """
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except ValueError as error:
        raise ModelError(
            f"the constant {tensor.name} is damaged: {error}; export the model again"
        ) from error


def drop_domains(model: onnx.ModelProto) -> None:
    """Removes the operator sets that no node uses, in place; the default one stays."""
    used = {node.domain for graph in iter_graphs(model.graph) for node in graph.node}
    kept = [one for one in model.opset_import if one.domain in used.union(DEFAULT_DOMAINS)]
    del model.opset_import[:]
    model.opset_import.extend(kept)
