"""Rules of operators that move values: where an open dimension goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx_models import Graph
from rows import check, feeds_of, ints, make, size_of, some_rows

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def _reshape_flat(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, -1))


def _reshape_rows(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, -1, 6))


def _reshape_keep(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, 0, 3, 2))


def _reshape_computed(graph: Graph, table: str) -> str:
    target = graph.node("Concat", size_of(graph, table), ints(graph, 6, 1), axis=0)
    return graph.node("Reshape", table, target)


def _reshape_there_and_back(graph: Graph, table: str) -> str:
    flat = graph.node("Relu", _reshape_flat(graph, table))
    return graph.node("Reshape", flat, ints(graph, -1, 2, 3))


def _reshape_inner(graph: Graph, table: str) -> str:
    turned = graph.node("Transpose", table, perm=[1, 0, 2])
    return graph.node("Reshape", turned, ints(graph, 2, -1))


def _flatten(graph: Graph, table: str) -> str:
    return graph.node("Flatten", table, axis=2)


def _transpose(graph: Graph, table: str) -> str:
    return graph.node("Transpose", table)


def _unsqueeze(graph: Graph, table: str) -> str:
    wide = graph.node("Unsqueeze", table, ints(graph, 0, 2))
    return graph.node("Squeeze", wide, ints(graph, 0))


def _split(graph: Graph, table: str) -> str:
    parts = graph.node("Split", table, ints(graph, 1, 2), outputs=2, axis=2)
    return graph.node("Concat", f"{parts}.1", parts, axis=2)


def _slice_first(graph: Graph, table: str) -> str:
    return graph.node("Slice", table, ints(graph, 0), ints(graph, 3), ints(graph, 0))


def _slice_from(graph: Graph, table: str) -> str:
    return graph.node("Slice", table, ints(graph, 2), ints(graph, 100), ints(graph, 0))


def _slice_column(graph: Graph, table: str) -> str:
    bounds = (ints(graph, -1), ints(graph, -100), ints(graph, 2), ints(graph, -1))
    return graph.node("Slice", table, *bounds)


def _slice_as_many(graph: Graph, table: str) -> str:
    """As many rows of x as the table has."""
    return graph.node("Slice", "x", ints(graph, 0), size_of(graph, table), ints(graph, 0))


def _concat_fixed(graph: Graph, table: str) -> str:
    return graph.node("Concat", table, "x", table, axis=0)


def _concat_flat(graph: Graph, table: str) -> str:
    other = some_rows(graph, above=0.7)
    return graph.node("Concat", _reshape_rows(graph, table), _reshape_rows(graph, other), axis=0)


def _expand(graph: Graph, table: str) -> str:
    target = graph.node("Concat", size_of(graph, table), ints(graph, 4), axis=0)
    return graph.node("Expand", graph.constant([[1.0, 2.0, 3.0, 4.0]]), target)


def _tile(graph: Graph, table: str) -> str:
    return graph.node("Tile", table, ints(graph, 2, 1, 2))


def _tile_by_one_hot(graph: Graph, table: str) -> str:
    """torch.repeat_interleave below opset 13: one number for each row, Detectron2's RoIs."""
    times = graph.node("Concat", ints(graph, 1), size_of(graph, table), axis=0)
    hot = graph.node("OneHot", ints(graph, 1), graph.constant(2, np.int64), times)
    return graph.node("Tile", graph.constant([[3.0]]), graph.node("Reshape", hot, ints(graph, -1)))


def _fill(graph: Graph, table: str) -> str:
    filling = onnx.helper.make_tensor("v", onnx.TensorProto.INT64, [1], [7])
    return graph.node("ConstantOfShape", graph.node("Shape", table), value=filling)


def _fill_times(graph: Graph, table: str) -> str:
    twice = graph.node("Mul", size_of(graph, table), ints(graph, 2))
    return graph.node("ConstantOfShape", twice)


def _numbers(graph: Graph, table: str) -> str:
    scalar = graph.node("Squeeze", size_of(graph, table), ints(graph, 0))
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    return graph.node("Range", zero, scalar, one)


def _pad(graph: Graph, table: str) -> str:
    return graph.node("Pad", table, ints(graph, 0, 1, 0, 0, 0, 2))


def _softmax(graph: Graph, table: str) -> str:
    return graph.node("Softmax", table, axis=0)


def _product(graph: Graph, table: str) -> str:
    rows = _reshape_rows(graph, table)
    return graph.node("MatMul", rows, graph.node("Transpose", rows, perm=[1, 0]))


def _product_over_rows(graph: Graph, table: str) -> str:
    rows = _reshape_rows(graph, table)
    return graph.node("MatMul", graph.node("Transpose", rows, perm=[1, 0]), rows)


def _dense(graph: Graph, table: str) -> str:
    weight = graph.constant(graph.rng.normal(size=(4, 6)))
    return graph.node("Gemm", _reshape_rows(graph, table), weight, transB=1)


def _conv(graph: Graph, table: str) -> str:
    pictures = graph.node("Unsqueeze", table, ints(graph, 1))
    return graph.conv(pictures, (1, 2), 2)


def _count(graph: Graph, table: str) -> str:
    total = graph.node("Cast", graph.node("Size", table), to=onnx.TensorProto.FLOAT)
    return graph.node("Div", total, graph.constant(4.0))


def _less(graph: Graph, table: str) -> str:
    """Sizes less one, which no symbol says: computed by the network."""
    return graph.node("Sub", size_of(graph, table), ints(graph, 1))


_LAYOUTS = [
    value
    for name, value in sorted(globals().items())
    if name.startswith("_") and callable(value) and name not in ("_table", "_size")
]


@pytest.mark.parametrize("emit", _LAYOUTS, ids=lambda emit: emit.__name__.strip("_"))
@pytest.mark.parametrize("opset", [pytest.param(13, marks=pytest.mark.slow), 17])
def test_rows_follow(emit: Callable[[Graph, str], str], opset: int) -> None:
    graph = Graph()
    output = emit(graph, some_rows(graph))
    model = make(graph, [output], {"x": [8, 2, 3]}, opset)
    check(model, feeds_of(model, count=5))


def test_a_one_hot_is_not_written_out_at_any_depth() -> None:
    """A few bytes of a file may ask for more than there is memory."""
    graph = Graph()
    times = graph.node("Concat", ints(graph, 1), size_of(graph, some_rows(graph)), axis=0)
    hot = graph.node("OneHot", ints(graph, 1), graph.constant(1 << 40, np.int64), times)
    repeats = graph.node("Slice", hot, ints(graph, 0), ints(graph, 2), ints(graph, 1))
    output = graph.node(
        "Tile", graph.constant([[3.0]]), graph.node("Reshape", repeats, ints(graph, -1))
    )
    with pytest.raises(ShapeError, match="'tile_"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


def test_reshape_by_pixels_is_refused() -> None:
    graph = Graph()
    table = some_rows(graph)
    target = graph.node("Cast", graph.node("ReduceMax", "x", keepdims=0), to=7)
    target = graph.node("Unsqueeze", target, ints(graph, 0))
    output = graph.node("Reshape", table, target)
    with pytest.raises(ShapeError, match=r"\(Reshape\): its target shape is computed from the"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


def test_fixed_dimension_against_an_open_one_is_refused() -> None:
    graph = Graph()
    output = graph.node("Add", some_rows(graph), graph.constant(np.ones((3, 2, 3))))
    with pytest.raises(ShapeError, match=r"\(Add\): a dimension of 3 meets one whose size"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


@pytest.mark.parametrize("rows", [8, 11])
@pytest.mark.parametrize("first", [False, True], ids=["after them", "before them"])
def test_rows_filled_up_to_a_fixed_number(rows: int, first: bool) -> None:
    # TensorFlow: tf.concat([chosen, tf.zeros(most - tf.shape(chosen)[0])], 0), then by a fixed row.
    graph = Graph()
    table = graph.node("Reshape", some_rows(graph), ints(graph, -1, 6))
    count = graph.node("Gather", graph.node("Shape", table), ints(graph, 0))
    missing = graph.node("Sub", ints(graph, rows), count)
    shape = graph.node("Concat", missing, ints(graph, 6), axis=0)
    filling = graph.node("Expand", graph.constant(np.float32(2.0)), shape)
    parts = [filling, table] if first else [table, filling]
    joined = graph.node("Concat", *parts, axis=0)
    weights = graph.constant(np.arange(rows, dtype=np.float32).reshape(rows, 1))
    output = graph.node("Mul", joined, weights)
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


def test_rows_up_to_a_number_that_is_counted() -> None:
    # TensorFlow's Object Detection API: tf.range(tf.reduce_sum(tf.cast(scores >= 0, tf.int32))),
    # cut to the most that are wanted, which tf2onnx writes as a sum of products.
    graph = Graph()
    marks = graph.node("GreaterOrEqual", "x", graph.constant(np.float32(0.0)))
    numbers = graph.node("Cast", marks, to=6)
    count = graph.node("ReduceSum", numbers, ints(graph, 0), keepdims=0)
    most = graph.constant(5, np.int32)
    above = graph.node("Greater", count, most)
    cut = graph.node("Mul", graph.node("Cast", above, to=6), most)
    kept = graph.node("Mul", graph.node("Cast", graph.node("Not", above), to=6), count)
    stop = graph.node("Add", cut, kept)
    zero, one = graph.constant(0, np.int32), graph.constant(1, np.int32)
    rows = graph.node("Range", zero, stop, one)
    output = graph.node("Gather", graph.node("TopK", "x", ints(graph, 8), outputs=2), rows)
    check(make(graph, [output], {"x": [8]}))


def test_a_range_that_stops_below_its_start_has_no_rows() -> None:
    graph = Graph()
    marks = graph.node("Cast", graph.node("Greater", "x", graph.constant(np.float32(0.0))), to=7)
    count = graph.node("ReduceSum", marks, ints(graph, 0), keepdims=0)
    stop = graph.node("Sub", count, graph.constant(2, np.int64))
    rows = graph.node("Range", graph.constant(0, np.int64), stop, graph.constant(1, np.int64))
    model = make(graph, [graph.node("Gather", "x", rows)], {"x": [8]})
    check(model, [{"x": np.arange(first, first + 8, dtype=np.float32)} for first in (-8, -6, -2)])


def test_rows_up_to_a_number_without_a_bound_are_refused() -> None:
    graph = Graph()
    total = graph.node("ReduceSum", "x", ints(graph, 0), keepdims=0)
    stop = graph.node("Cast", graph.node("Abs", total), to=7)
    rows = graph.node("Range", graph.constant(0, np.int64), stop, graph.constant(1, np.int64))
    with pytest.raises(ShapeError, match="its bounds are computed from the image"):
        bound_shapes(make(graph, [rows], {"x": [8]}), Limits())
