"""What the heads see of a network."""

from __future__ import annotations

from collections import Counter
from functools import cache

import onnx

from tvmdet.errors import ShapeError
from tvmdet.frontend.columns import ColumnTracer
from tvmdet.frontend.graph_evidence import (
    MOVERS,
    count_gates,
    find_normalisation,
    find_stem,
    trace_outputs,
)
from tvmdet.frontend.joined_maps import joined_maps
from tvmdet.frontend.onnx_tools import (
    DEFAULT_DOMAINS,
    constants_of,
    graph_inputs,
    value_summary,
)
from tvmdet.frontend.prove import picture_feeds, run_onnx
from tvmdet.frontend.specialise import static_values
from tvmdet.frontend.value_ranges import value_ranges
from tvmdet.heads.base import ColumnRun, GraphSummary, TensorSummary

__all__ = ["summarise"]


def summarise(model: onnx.ModelProto) -> GraphSummary:
    """Summarises a network for :meth:`tvmdet.heads.Head.examine`.

    Args:
        model: The network, simplified at batch 1 and one size.
    """
    inputs = {value.name: _summary(value) for value in graph_inputs(model.graph)}
    outputs = {value.name: _summary(value) for value in model.graph.output}
    return GraphSummary(
        inputs=inputs,
        outputs=outputs,
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        output_sources={name: _sources(model.graph, name) for name in outputs},
        columns=_columns(model, outputs),
        output_maps=joined_maps(model),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), 0),
        output_ranges=value_ranges(model, static_values(model)),
        output_traces=trace_outputs(model.graph),
        gates=count_gates(model.graph),
        stem=find_stem(model.graph),
        normalisation=find_normalisation(model.graph),
        sample=cache(lambda: run_onnx(model, [picture_feeds(model)])[0]),
    )


def _summary(value: onnx.ValueInfoProto) -> TensorSummary:
    summary = value_summary(value)
    if summary is None:
        raise ShapeError(f"{value.name!r} is no tensor of known rank; export it with its shape")
    return summary


def _columns(
    model: onnx.ModelProto, outputs: dict[str, TensorSummary]
) -> dict[tuple[str, int], tuple[ColumnRun, ...]]:
    tracer = ColumnTracer(model, static_values(model))
    axes = [(name, axis) for name, value in outputs.items() for axis in range(1, len(value.shape))]
    found = {(name, axis): tracer.runs(name, axis) for name, axis in axes}
    return {where: runs for where, runs in found.items() if runs}


def _sources(graph: onnx.GraphProto, name: str) -> frozenset[str]:
    """Returns the operator types that computed a value, seen through movers."""
    producers = {output: node for node in graph.node for output in node.output}
    constants = constants_of(graph)
    found: set[str] = set()
    seen: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current in seen or current in constants or current not in producers:
            continue
        seen.add(current)
        node = producers[current]
        if node.op_type in MOVERS:
            stack.extend(node.input if node.op_type == "Concat" else node.input[:1])
        else:
            found.add(node.op_type)
    return frozenset(found)
