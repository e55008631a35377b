"""Gather and GatherElements: indices from the end, and nothing left for folding to compile."""

from __future__ import annotations

import numpy as np
import pytest
from assertions import assert_close
from onnx import TensorProto
from onnx_models import Graph, run_relax

from tvmdet.frontend.importer import import_relax, trace_operators
from tvmdet.frontend.prove import random_feeds, run_onnx


def _network(operator: str, axis: int, *, constant: bool, dtype: int = TensorProto.INT64) -> Graph:
    """Rows of ``x [4, 5]``, the places of which may come from the picture."""
    graph = Graph()
    shape = (3,) if operator == "Gather" else (4, 2)
    if constant:
        numbers = np.random.default_rng(0).integers(-4, 4, shape)
        places = graph.constant(numbers, "int64" if dtype == TensorProto.INT64 else "int32")
    else:
        scaled = graph.node("Mul", "y", graph.constant(3.9))
        places = graph.node("Cast", scaled, to=dtype)
    graph.node(operator, graph.node("Relu", "x"), places, axis=axis)
    return graph


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.INT32], ids=["int64", "int32"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "of the picture"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("operator", ["Gather", "GatherElements"])
def test_indices_count_from_both_ends(operator: str, axis: int, constant: bool, dtype: int) -> None:
    graph = _network(operator, axis, constant=constant, dtype=dtype)
    output = graph.nodes[-1].output[0]
    inputs = (
        {"x": [4, 5]} if constant else {"x": [4, 5], "y": [3] if operator == "Gather" else [4, 2]}
    )
    model = graph.model(inputs, {output: None})
    feeds = random_feeds(model)
    if not constant:
        feeds["y"] = np.linspace(-1, 0.9, feeds["y"].size, dtype="f4").reshape(feeds["y"].shape)
    (want,) = run_onnx(model, [feeds])
    (got,) = run_relax(import_relax(model, 17), *feeds.values())
    assert_close(got, want[output], rtol=0, atol=0)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "of the picture"])
@pytest.mark.parametrize("operator", ["Gather", "GatherElements"])
def test_no_sizes_are_computed_in_the_network(operator: str, constant: bool) -> None:
    """Folding compiles a kernel for each operator of constants: seconds, in large networks."""
    graph = _network(operator, 1, constant=constant)
    inputs = {"x": [4, 5], "y": [3] if operator == "Gather" else [4, 2]}
    model = graph.model(inputs, {graph.nodes[-1].output[0]: None})
    operators = set(trace_operators(model, 17))
    assert not operators & {"relax.shape_of", "relax.shape_to_tensor"}
    assert ("relax.where" in operators) is not constant


@pytest.mark.parametrize("operator", ["Gather", "GatherElements"])
def test_an_index_outside_reads_inside(operator: str) -> None:
    """ONNX forbids it; what comes of a picture may not read another's memory all the same."""
    graph = Graph()
    places = graph.node("Cast", graph.node("Mul", "y", graph.constant(100.0)), to=7)
    output = graph.node(operator, "x", places, axis=0)
    shape = [3] if operator == "Gather" else [3, 2]
    model = graph.model({"x": [4, 2], "y": shape}, {output: None})
    x = np.arange(8, dtype="f4").reshape(4, 2)
    given = np.array([-1, 0, 1], "f4")
    y = given if operator == "Gather" else np.repeat(given[:, None], 2, axis=1)
    (got,) = run_relax(import_relax(model, 17), x, y)
    assert_close(got, x[[0, 0, 3]], rtol=0, atol=0)


def test_constant_weights_of_a_gemm_are_turned_before_the_network() -> None:
    graph = Graph()
    weight, bias = graph.constant(np.arange(35.0).reshape(7, 5)), graph.constant(np.arange(7.0))
    output = graph.node("Gemm", "x", weight, bias, transB=1, alpha=0.5, beta=2.0)
    model = graph.model({"x": [3, 5]}, {output: None})
    feeds = random_feeds(model)
    (want,) = run_onnx(model, [feeds])
    (got,) = run_relax(import_relax(model, 17), *feeds.values())
    assert_close(got, want[output], rtol=1e-6, atol=1e-6)
    assert "relax.permute_dims" not in trace_operators(model, 17)
