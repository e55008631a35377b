"""Shapes of thousands of dimensions are refused before anything writes them out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from tvmdet.errors import ShapeError
from tvmdet.frontend import Limits, diagnose
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.network import Network
from tvmdet.frontend.shape_lengths import check_shape_lengths


def _vector(graph: onnx_models.Graph, count: int) -> str:
    """Adds a vector of as many ones, which takes a few bytes in the file."""
    return graph.node("Tile", graph.constant([1], np.int64), graph.constant([count], np.int64))


def _reshape(count: int) -> onnx.ModelProto:
    graph = onnx_models.Graph()
    end = graph.node("Slice", graph.node("Shape", "x"), *(_one(graph, at) for at in (0, 1, 0)))
    shape = graph.node("Concat", _vector(graph, count), end, axis=0)
    return graph.model({"x": [1, 1, 1, 1]}, {graph.node("Reshape", "x", shape): None})


def _one(graph: onnx_models.Graph, value: int) -> str:
    return graph.constant([value], np.int64)


def _constant(count: int) -> onnx.ModelProto:
    graph = onnx_models.Graph()
    ones = graph.constant(np.ones(count), np.int64)
    return graph.model({"x": [1]}, {graph.node("Expand", "x", ones): None})


def _second(count: int) -> onnx.ModelProto:
    """The long shape is known only once that of another node is."""
    graph = onnx_models.Graph()
    first = graph.node("Expand", graph.constant([1], np.int64), _vector(graph, 2))
    flat = graph.node("Tile", graph.node("Shape", first), graph.constant([count], np.int64))
    return graph.model({"x": [1]}, {graph.node("Expand", "x", flat): None})


def _branch(count: int) -> onnx.ModelProto:
    """The long shape is in a subgraph."""
    graph = onnx_models.Graph()
    outer = graph.node("Cast", _vector(graph, count), to=onnx.TensorProto.INT64)
    graph.weights.append(onnx.helper.make_tensor("go", onnx.TensorProto.BOOL, [], [True]))
    then = onnx.parser.parse_graph(f"t () => (float[] t_out) {{ t_out = Expand (x, {outer}) }}")
    other = onnx.parser.parse_graph("e () => (float[] e_out) { e_out = Identity (x) }")
    return graph.model(
        {"x": [1]}, {graph.node("If", "go", then_branch=then, else_branch=other): None}
    )


@pytest.mark.parametrize(
    ("model", "length"),
    [
        (_reshape(2**32), 2**32 + 1),
        (_reshape(64), 65),
        (_constant(65), 65),
        (_second(2**20), 2**21),
        (_branch(2**33), 2**33),
    ],
    ids=["computed", "just too long", "constant", "second", "subgraph"],
)
def test_refuses_shapes_too_long(model: onnx.ModelProto, length: int) -> None:
    before = model.SerializeToString()
    began = time.process_time()
    with pytest.raises(ShapeError, match=rf"node '\w+' \(\w+\) takes a shape of {length} dim"):
        check_shape_lengths(model)
    assert time.process_time() - began < 5  # writing them out takes a minute and all memory
    assert model.SerializeToString() == before


@pytest.mark.parametrize("model", [_reshape(63), _constant(64), _second(16), _branch(4)])
def test_takes_the_others(model: onnx.ModelProto) -> None:
    check_shape_lengths(model)


def test_loading_and_the_doctor_refuse_at_once(tmp_path: Path) -> None:
    path = onnx_models.save(_reshape(2**32), tmp_path / "m.onnx")
    began = time.process_time()
    with pytest.raises(ShapeError, match="takes a shape of 4294967297 dimensions"):
        load_onnx(path)
    assert "takes a shape of 4294967297 dimensions" in "".join(diagnose(path).problems)
    assert time.process_time() - began < 5


def test_shapes_as_long_as_the_picture_are_refused_when_its_size_is_known(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    flat = graph.node("Cast", graph.node("Reshape", "x", _one(graph, -1)), to=7)
    model = graph.model({"x": [1, 3, "h", "w"]}, {graph.node("ConstantOfShape", flat): None})
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    with pytest.raises(ShapeError, match="takes a shape of 3072 dimensions"):
        Network(loaded, (32, 32), Limits()).at(1)
