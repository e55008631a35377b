"""ScatterND at constant places, and GridSample with positions of another type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from onnx import TensorProto
from onnx_models import Graph, run_relax

from tvmdet.frontend.convert_scatter import scatter_sources
from tvmdet.frontend.importer import import_relax
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.prove import random_feeds, run_onnx
from tvmdet.frontend.specialise import specialise


@pytest.mark.parametrize("opset", [11, 16, 18])
@pytest.mark.parametrize(
    ("places", "updates"),
    [
        ([[0, 1], [1, -2]], (2, 5)),
        ([[[0, 0, 4], [1, 3, 2]]], (1, 2)),
        ([[1]], (1, 4, 5)),
        (np.zeros((0, 2)), (0, 5)),
    ],
)
def test_scatter_at_constant_places(
    places: Sequence[object], updates: tuple[int, ...], opset: int
) -> None:
    graph = Graph()
    new = graph.constant(graph.rng.normal(0, 1, updates))
    where = graph.constant(places, np.int64)
    output = graph.node("ScatterND", graph.node("Relu", "x"), where, new)
    model = graph.model({"x": [2, 4, 5]}, {output: None}, opset=opset)
    feeds = random_feeds(model)
    (want,) = run_onnx(model, [feeds])
    module = import_relax(model, opset)
    assert "scatter_nd" not in module.script()
    (got,) = run_relax(module, *feeds.values())
    assert_close(got, want[output], rtol=0, atol=0)


def test_scatter_at_places_of_the_image_is_left_to_tvm() -> None:
    graph = Graph()
    place = graph.node("Cast", graph.node("Relu", "x"), to=TensorProto.INT64)
    where = graph.node("Slice", place, *(graph.constant([v], np.int64) for v in (0, 1, 1)))
    output = graph.node("ScatterND", graph.constant(np.ones(4)), where, graph.constant([5.0, 6.0]))
    model = graph.model({"x": [2, 3]}, {output: None})
    assert "scatter_nd" in import_relax(model, 17).script()


def test_places_outside_are_not_guessed() -> None:
    assert scatter_sources((2, 3), np.array([[2, 0]])) is None
    assert scatter_sources((2, 3), np.array([[0, -4]])) is None
    found = scatter_sources((2, 3), np.array([[-1, 0]]))
    assert found is not None
    assert found.tolist() == [0, 1, 2, 6, 4, 5]


def test_positions_get_the_type_of_the_picture(tmp_path: Path) -> None:
    graph = Graph()
    wide = graph.node("Cast", graph.constant(graph.rng.uniform(-1, 1, (1, 5, 6, 2))), to=11)
    moved = graph.node("Mul", wide, graph.constant(0.5, np.float64))
    output = graph.node("GridSample", "x", moved, mode="bilinear")
    model = graph.model({"x": [1, 3, 8, 8]}, {output: None})
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    static = specialise(loaded.proto, {"x": (1, 3, 8, 8)}, Limits())
    feeds = random_feeds(static)
    (want,) = run_onnx(static, [feeds])
    (got,) = run_relax(import_relax(static, 17), *feeds.values())
    assert_close(got, want[output], rtol=1e-5, atol=1e-5)
