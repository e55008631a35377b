"""Runs of a graph that a node holds: a branch of If, a round of Loop."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import numpy_helper

from tvmdet.frontend.bounded.rewriter import Rewriter
from tvmdet.frontend.bounded.values import Value

__all__ = ["run_inner_graph"]


def run_inner_graph(
    rw: Rewriter, graph: onnx.GraphProto, scope: dict[str, Value], given: Sequence[Value] = ()
) -> list[Value]:
    """Writes the nodes of a graph out once.

    Args:
        rw: Where they are written to.
        graph: Of an attribute.
        scope: What is known around it, by name; it is left as it is.
        given: Its inputs.

    Returns:
        Its outputs.
    """
    inner = dict(scope)
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        inner[tensor.name] = rw.plain(rw.emit.constant(array, array.dtype))
    inner.update((value.name, one) for value, one in zip(graph.input, given, strict=True))
    rw.run(graph.node, inner, inner=True)
    return [inner[value.name] for value in graph.output]
