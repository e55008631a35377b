"""Rules of Gather and Scatter: positions mean the same row in every value."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import Graph
from rows import check, chosen, feeds_of, ints, make

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def _column(graph: Graph, table: str, at: int = 0) -> str:
    return graph.node("Gather", table, graph.constant(at, np.int64), axis=1)


def _rows(graph: Graph, table: str = "x", above: float = 0.0) -> str:
    return chosen(graph, _column(graph, table), above)


def test_rows_chosen_of_chosen_rows() -> None:
    graph = Graph()
    first = graph.node("Gather", "x", _rows(graph, above=-0.5), axis=0)
    rows = _rows(graph, first)
    second = graph.node("Gather", first, rows, axis=0)
    third = graph.node("Gather", second, _rows(graph, second, 0.4), axis=0)
    check(make(graph, [second, third, rows], {"x": [9, 2]}))


def test_numbers_index_the_real_rows() -> None:
    # The first and the last real row, and one that a constant names.
    graph = Graph()
    table = graph.node("Gather", "x", _rows(graph, above=-0.8), axis=0)
    outputs = [
        graph.node("Gather", table, graph.constant(at, np.int64), axis=0) for at in (0, -1, 1)
    ]
    model = make(graph, outputs, {"x": [9, 2]})
    check(model, feeds_of(model)[:-1], varied=False)


def test_arithmetic_on_positions_is_that_of_the_original() -> None:
    graph = Graph()
    table = graph.node("Gather", "x", _rows(graph, above=-0.8), axis=0)
    rows = _rows(graph, table, 0.1)
    backwards = graph.node(
        "Sub",
        graph.node("Sub", graph.node("Gather", graph.node("Shape", table), ints(graph, 0)), rows),
        ints(graph, 1),
    )
    check(make(graph, [backwards, graph.node("Gather", table, backwards, axis=0)], {"x": [9, 2]}))


def test_flat_positions_divide_into_rows_and_classes() -> None:
    # What detectors do with the best of all classes: TopK over [n * C], then // C and % C.
    graph = Graph()
    table = graph.node("Gather", "x", _rows(graph, above=0.5), axis=0)
    flat = graph.node("Reshape", table, ints(graph, -1))
    k = graph.node("Min", graph.node("Shape", flat), ints(graph, 5))
    best = graph.node("TopK", flat, k, outputs=2, axis=0)
    rows = graph.node("Div", f"{best}.1", graph.constant(3, np.int64))
    classes = graph.node("Mod", f"{best}.1", graph.constant(3, np.int64))
    outputs = [best, rows, classes, graph.node("Gather", table, rows, axis=0)]
    check(make(graph, outputs, {"x": [7, 3]}))


def test_gather_elements() -> None:
    graph = Graph()
    table = graph.node("Gather", "x", _rows(graph), axis=0)
    best = graph.node("ArgMax", table, axis=1, keepdims=1)
    check(make(graph, [graph.node("GatherElements", table, best, axis=1)], {"x": [7, 3]}))


def test_pooling_by_level_puts_rows_back() -> None:
    """Each row is changed by the rule of its level, as FPN pooling does it."""
    graph = Graph()
    table = graph.node("Gather", "x", _rows(graph, above=-0.6), axis=0)
    levels = graph.node("Cast", graph.node("Round", _column(graph, table, 1)), to=7)
    result = graph.node("ConstantOfShape", graph.node("Shape", table))
    for level in (-1, 0, 1):
        mask = graph.node("Equal", levels, graph.constant(level, np.int64))
        rows = graph.node("Squeeze", graph.node("NonZero", mask), ints(graph, 0))
        updates = graph.node(
            "Mul", graph.node("Gather", table, rows, axis=0), graph.constant(level + 5.0)
        )
        places = graph.node("Reshape", rows, ints(graph, -1, 1))
        places = graph.node("Expand", places, graph.node("Shape", updates))
        result = graph.node("ScatterElements", result, places, updates, axis=0)
    bounded = check(make(graph, [result], {"x": [9, 3]}))
    assert "ScatterElements" not in [
        node.op_type for node in bounded.model.graph.node if node.name.startswith("scatter")
    ]


def test_scatter_of_other_rows_spares_the_rest() -> None:
    # The positions come from another selection, so that rows that are not real must go nowhere.
    graph = Graph()
    values = _column(graph, "x")
    rows = _rows(graph, above=0.3)
    k = graph.node("Min", graph.node("Shape", rows), ints(graph, 3))
    best = graph.node("TopK", graph.node("Gather", values, rows), k, outputs=2, axis=0)
    places = graph.node("Gather", rows, f"{best}.1")
    wide = graph.node("Unsqueeze", places, ints(graph, 1))
    outputs = [
        graph.node("ScatterElements", values, places, best, axis=0),
        graph.node("ScatterND", values, wide, best),
        graph.node("ScatterElements", values, places, best, axis=0, reduction="add"),
    ]
    check(make(graph, outputs, {"x": [9, 2]}), varied=False)


def test_one_of_each_row_of_a_ranking() -> None:
    # tf2onnx ranks the boxes of each picture so: a running count of its boxes, of its own picture.
    graph = Graph()
    found = chosen(graph, "x", 0.0)
    groups = graph.constant(np.arange(12) % 3, np.int64)
    group = graph.node("Gather", groups, found)
    eye = graph.node("EyeLike", graph.constant(np.zeros((3, 3), np.float32)))
    counts = graph.node("CumSum", graph.node("Gather", eye, group), ints(graph, 0))
    column = graph.node("Unsqueeze", group, ints(graph, 1))
    rank = graph.node("GatherND", counts, column, batch_dims=1)
    moved = graph.node("Gather", graph.node("Pad", rank, ints(graph, 1, 0)), ints(graph, 0))
    check(make(graph, [rank, moved]))


def test_batches_of_other_rows_are_refused() -> None:
    graph = Graph()
    found = graph.node("Unsqueeze", chosen(graph, "x", 0.0), ints(graph, 1))
    pairs = graph.node("Concat", found, found, axis=1)
    table = graph.node("Gather", graph.constant(np.ones((12, 12, 12))), chosen(graph, "x", 0.0))
    output = graph.node("GatherND", table, pairs, batch_dims=1)
    with pytest.raises(ShapeError, match=r"\(GatherND\): it has batch dimensions"):
        bound_shapes(make(graph, [output]), Limits())


def test_scatter_nd_into_cells() -> None:
    graph = Graph()
    found = graph.node("NonZero", graph.node("Relu", "x"))
    pairs = graph.node("Transpose", found, perm=[1, 0])
    values = graph.node("GatherND", "x", pairs)
    zeros = graph.constant(np.zeros((5, 4)))
    check(make(graph, [graph.node("ScatterND", zeros, pairs, values)], {"x": [5, 4]}), varied=False)


@pytest.mark.parametrize("tall", [False, True], ids=["as many at most", "more at most"])
def test_scatter_nd_of_rows_counted_otherwise(tall: bool) -> None:
    """Rows and their places are as many, by a count that only the picture shows."""
    graph = Graph()
    values = _column(graph, "x")
    above = chosen(graph, values, 0.0)
    taken = graph.node("Gather", values, above)
    negative = graph.node("Neg", values)
    if tall:  # twelve places of which three can never be chosen
        negative = graph.node("Concat", graph.constant(np.ones(3)), negative, axis=0)
    places = graph.node(
        "Squeeze",
        graph.node("NonZero", graph.node("Less", negative, graph.constant(0.0))),
        ints(graph, 0),
    )
    if tall:
        places = graph.node("Sub", places, ints(graph, 3))
    wide = graph.node("Unsqueeze", places, ints(graph, 1))
    zeros = graph.constant(np.zeros(9))
    check(make(graph, [graph.node("ScatterND", zeros, wide, taken)], {"x": [9, 2]}), varied=False)


def test_selections_of_equal_size_meet() -> None:
    # Two symbols with as many real rows: brought to the front before they are added.
    graph = Graph()
    values = _column(graph, "x")
    above = graph.node("Gather", values, chosen(graph, values, 0.0))
    negative = graph.node("Neg", values)
    flipped = graph.node(
        "Slice", negative, ints(graph, -1), ints(graph, -100), ints(graph, 0), ints(graph, -1)
    )
    mask = graph.node("Less", flipped, graph.constant(0.0))
    rows = graph.node("Squeeze", graph.node("NonZero", mask), ints(graph, 0))
    below = graph.node("Gather", flipped, rows)
    check(make(graph, [graph.node("Add", above, below)], {"x": [9, 2]}))


def test_regions_of_pooling_that_are_not_real_are_empty() -> None:
    graph = Graph()
    rows = _rows(graph, "boxes", 0.0)
    boxes = graph.node("Abs", graph.node("Gather", "boxes", rows, axis=0))
    boxes = graph.node("Mul", boxes, graph.constant(8.0))
    images = graph.node("Cast", graph.node("Mul", _column(graph, boxes), graph.constant(0.0)), to=7)
    pooled = graph.node(
        "RoiAlign",
        "x",
        boxes,
        images,
        output_height=2,
        output_width=2,
        sampling_ratio=2,
        mode="avg",
    )
    model = make(graph, [pooled], {"x": [1, 2, 8, 8], "boxes": [6, 4]}, opset=16)
    check(model)
