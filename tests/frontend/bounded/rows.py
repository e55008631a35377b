"""Helpers: networks with open sizes, and what their bounded forms must return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper
from onnx_models import Graph

from tvmdet.frontend.bounded import Bounded, bound_shapes
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.specialise import static_values


def make(
    graph: Graph,
    outputs: Sequence[str],
    inputs: Mapping[str, Sequence[int]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of float inputs (``x`` of 12 numbers when not given), outputs of any type."""
    shapes = inputs or {"x": [12]}
    proto = helper.make_graph(
        graph.nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        graph.weights,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)  # the types of the outputs


def feeds_of(model: onnx.ModelProto, count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random inputs in -1 to 1, then all negative ones, of which nothing is chosen."""
    rng = np.random.default_rng(seed)
    feeds = []
    for at in range(count):
        feed = {}
        for value in model.graph.input:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            low = rng.uniform(-1, 1, shape).round(2)
            feed[value.name] = (low if at < count - 1 else -np.abs(low) - 0.01).astype(np.float32)
        feeds.append(feed)
    return feeds


def check(
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, np.ndarray]] | None = None,
    limits: Limits | None = None,
    *,
    varied: bool = True,
) -> Bounded:
    """Bounds a network and compares every real row with the original's, on several inputs.

    With ``varied`` the inputs must show different numbers of rows.
    """
    bounded = bound_shapes(model, limits or Limits())
    static_values(bounded.model)
    feeds = feeds_of(model) if feeds is None else feeds
    counts = set()
    for feed in feeds:
        (expected,), (got,) = run_onnx(model, [feed]), run_onnx(bounded.model, [feed])
        for name, wanted in expected.items():
            value = got[name]
            for axis, counter in bounded.opened.get(name, {}).items():
                (count,) = got[counter]
                counts.add(int(count))
                assert count == wanted.shape[axis], (name, count, wanted.shape)
                value, past = np.split(value, [count], axis=axis)
                assert not past.any(), f"{name}: rows past {count} are not zero"
            assert value.dtype == wanted.dtype
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not varied or not bounded.opened or len(counts) > 1, "the inputs do not tell sizes apart"
    return bounded


def chosen(graph: Graph, data: str = "x", above: float = 0.0) -> str:
    """Emits the positions of the numbers above a threshold, ``[n]``."""
    mask = graph.node("Greater", data, graph.constant(above))
    return graph.node("Squeeze", graph.node("NonZero", mask), graph.constant([0], np.int64))


def ints(graph: Graph, *values: int) -> str:
    """Adds a vector of int64."""
    return graph.constant(list(values), np.int64)


def some_rows(graph: Graph, above: float = 0.2) -> str:
    """Rows ``[n, 2, 3]`` of x ``[8, 2, 3]`` whose largest entry is above a threshold."""
    largest = graph.node("ReduceMax", "x", axes=[1, 2], keepdims=0)
    return graph.node("Gather", "x", chosen(graph, largest, above), axis=0)


def size_of(graph: Graph, value: str, axis: int = 0) -> str:
    """One size of a value, as a vector of one."""
    return graph.node("Gather", graph.node("Shape", value), ints(graph, axis), axis=0)
