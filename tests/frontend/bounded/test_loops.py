"""Loops over the pictures of a batch: their rounds are written out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import Graph
from rows import check, chosen, ints, make

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.simplify import simplify


def _body(
    graph: Graph, inputs: dict[str, int], outputs: dict[str, int], start: int
) -> onnx.GraphProto:
    """Takes the nodes from ``start`` on out of a graph, as the body of a loop."""
    nodes = graph.nodes[start:]
    del graph.nodes[start:]
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )


def _picture_rows(graph: Graph, number: str) -> str:
    """Of one picture the sum of what is chosen, and how much that is, ``[2]``."""
    picture = graph.node("Gather", "x", number, axis=0)
    rows = graph.node("Gather", picture, chosen(graph, picture))
    count = graph.node("Cast", graph.node("Shape", rows), to=TensorProto.FLOAT)
    return graph.node("Concat", graph.node("ReduceSum", rows, keepdims=1), count, axis=0)


@pytest.mark.parametrize("images", [1, 3], ids=["one picture", "three pictures"])
def test_loop_over_pictures_is_written_out(images: int) -> None:
    # tf.map_fn as tf2onnx writes it: no condition, one result of every round.
    graph = Graph()
    graph.nodes.append(helper.make_node("Identity", ["held"], ["goes_on"]))
    result = _picture_rows(graph, "number")
    body = _body(
        graph,
        {"number": TensorProto.INT64, "held": TensorProto.BOOL},
        {"goes_on": TensorProto.BOOL, result: TensorProto.FLOAT},
        0,
    )
    output = graph.node("Loop", graph.constant(images, np.int64), "", body=body)
    bounded = check(make(graph, [output], {"x": [images, 7]}))
    assert any(f"its {images} rounds are written out" in note for note in bounded.notes)
    assert "Loop" not in [node.op_type for node in bounded.model.graph.node]


@pytest.mark.parametrize("trips", [None, 3, 2**63 - 1], ids=str)
def test_while_loop_ends_by_its_own_counter(trips: int | None) -> None:
    # tf.while_loop: no number of rounds, or a very large one; the body compares a counter.
    graph = Graph()
    most = "" if trips is None else graph.constant(trips, np.int64)
    counter = graph.constant(0, np.int32)
    limit = graph.node("Identity", graph.constant(2, np.int32))
    begins = graph.node("Less", counter, limit)
    start = len(graph.nodes)
    counted = graph.node("Add", "counter", graph.constant(1, np.int32))
    goes_on = graph.node("Less", counted, limit)
    result = _picture_rows(graph, "number")
    body = _body(
        graph,
        {"number": TensorProto.INT64, "held": TensorProto.BOOL, "counter": TensorProto.INT32},
        {goes_on: TensorProto.BOOL, counted: TensorProto.INT32, result: TensorProto.FLOAT},
        start,
    )
    last = graph.node("Loop", most, begins, counter, outputs=2, body=body)
    bounded = check(make(graph, [last, f"{last}.1"], {"x": [2, 7]}))
    assert any("its 2 rounds are written out" in note for note in bounded.notes)


def _counting(trips: str, graph: Graph) -> onnx.ModelProto:
    """A loop that only counts, its number of rounds a value of the graph."""
    start = len(graph.nodes)
    graph.nodes.append(helper.make_node("Identity", ["held"], ["goes_on"]))
    summed = graph.node("Add", "total", graph.constant([1.0]))
    body = _body(
        graph,
        {"number": TensorProto.INT64, "held": TensorProto.BOOL, "total": TensorProto.FLOAT},
        {"goes_on": TensorProto.BOOL, summed: TensorProto.FLOAT},
        start,
    )
    total = graph.node("Loop", trips, "", graph.constant([0.0]), body=body)
    return make(graph, [graph.node("Add", graph.node("ReduceMax", "x"), total)])


def test_rounds_that_depend_on_the_image_are_refused() -> None:
    graph = Graph()
    trips = graph.node("Squeeze", graph.node("Shape", chosen(graph)), ints(graph, 0))
    with pytest.raises(ShapeError, match=r"'loop_\d+' \(Loop\): its number of rounds depends"):
        bound_shapes(_counting(trips, graph), Limits())


def test_loop_that_would_not_end_is_refused() -> None:
    graph = Graph()
    trips = graph.constant(2**40, np.int64)
    with pytest.raises(ShapeError, match=r"rounds of 2 nodes are more than 1000 nodes"):
        bound_shapes(_counting(trips, graph), Limits(max_nodes=1000))


def test_what_a_loop_finds_to_be_the_same_for_every_picture_survives_onnxslim() -> None:
    # tf.map_fn over pictures returns the size that it resized each of them to: an initializer.
    graph = Graph()
    graph.nodes.append(helper.make_node("Identity", ["held"], ["goes_on"]))
    result = _picture_rows(graph, "number")
    body = _body(
        graph,
        {"number": TensorProto.INT64, "held": TensorProto.BOOL},
        {"goes_on": TensorProto.BOOL, result: TensorProto.FLOAT, "size": TensorProto.INT32},
        0,
    )
    body.initializer.append(numpy_helper.from_array(np.array([12, 7], np.int32), "size"))
    rows = graph.node("Loop", graph.constant(2, np.int64), "", body=body, outputs=2)
    bounded = check(simplify(make(graph, [rows, f"{rows}.1"], {"x": [2, 7]})))
    assert "Loop" not in [node.op_type for node in bounded.model.graph.node]
