"""A model without some of its outputs, and without what only they need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import onnx

from tvmdet.errors import InputError
from tvmdet.frontend.onnx_tools import names_read

__all__ = ["keep_outputs", "without"]


def keep_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Removes every other output, in place, and what none of these needs, inputs too.

    The outputs stay in the order of the file.

    Args:
        model: Whose nodes are sorted.
        names: The outputs to keep.

    Raises:
        InputError: The model has no such output.
    """
    graph = model.graph
    known = [value.name for value in graph.output]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"the spec's outputs name {', '.join(map(repr, unknown))}; the model has: "
            f"{', '.join(known)}"
        )
    needed = set(names)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(names_read(node))
            nodes.append(node)
    _replace(graph.node, nodes[::-1])
    _replace(graph.output, [value for value in graph.output if value.name in names])
    _replace(graph.initializer, [one for one in graph.initializer if one.name in needed])
    sparse = [one for one in graph.sparse_initializer if one.values.name in needed]
    _replace(graph.sparse_initializer, sparse)
    # Before IR version 4 every initializer is among the inputs too.
    _replace(graph.input, [value for value in graph.input if value.name in needed])
    _replace(graph.value_info, [value for value in graph.value_info if value.name in needed])
    annotations = [one for one in graph.quantization_annotation if one.tensor_name in needed]
    _replace(graph.quantization_annotation, annotations)


def without(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> str:
    """Returns what to write to get a model that does without some nodes; empty if nothing helps.

    Args:
        graph: With sorted nodes.
        nodes: Some of its nodes.
    """
    lost = {name for node in nodes for name in node.output if name}
    for node in graph.node:
        if lost.intersection(names_read(node)):
            lost.update(node.output)
    spared = [value.name for value in graph.output if value.name not in lost]
    if not spared:
        return ""
    return f"or keep the outputs that do without it: outputs = {json.dumps(spared)} in a spec"


def _replace(field: object, values: Sequence[object]) -> None:
    kept = list(values)
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]
